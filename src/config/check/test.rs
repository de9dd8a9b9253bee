//! Tests: whether they can be run, and whether the names in them exist.

use std::collections::HashMap;

use super::House;
use crate::base::problem::{Problem, Span, Spanned};
use crate::base::suggest;
use crate::config::de::Held;
use crate::config::raw::{self, test::Given};
use crate::config::types::{Ask, Config, Test, TestStep};
use crate::telemetry::decision::Flag;

/// The checked test; none where it says nothing that can be run.
pub(super) fn settle(item: Held<raw::Test>, house: &House<'_>) -> Option<Test> {
    let raw::Test {
        name,
        given,
        request,
        repeat,
        expect,
        steps,
    } = item.value;
    let single = request.is_some() || expect.is_some();
    let steps = match steps {
        Some(steps) if single => {
            let message = "a test has `request` and `expect`, or `steps`: remove one of them";
            house.report(Problem::error(steps.span, message));
            return None;
        }
        Some(steps) => steps.value,
        None => vec![raw::test::Step {
            wait: None,
            given: Given::new(),
            request,
            repeat,
            expect,
        }],
    };
    check_given(&given, house);
    let steps: Vec<TestStep> = steps
        .into_iter()
        .filter_map(|step| settle_step(step, name.span, house))
        .collect();
    Some(Test { name, given, steps })
}

fn settle_step(step: raw::test::Step, test: Span, house: &House<'_>) -> Option<TestStep> {
    let raw::test::Step {
        wait,
        given,
        request,
        repeat,
        expect,
    } = step;
    check_given(&given, house);
    let ask = match (request, expect) {
        (Some(request), Some(expect)) => {
            if let Some(listener) = &request.value.listener {
                house.listener_names.find(listener, house.reading);
            }
            check_expect(&expect.value, repeat.is_some(), house);
            Some(Ask {
                request: request.value,
                repeat: repeat.map_or(1, |times| times.value.0.get()),
                expect: expect.value,
            })
        }
        (Some(request), None) => {
            let message = "this request has no `expect`: nothing is tested";
            house.report(Problem::error(request.span, message));
            return None;
        }
        (None, Some(expect)) => {
            let message = "there is no `request` of which this could be expected";
            house.report(Problem::error(expect.span, message));
            return None;
        }
        (None, None) if wait.is_none() && given.is_empty() => {
            let message = "a test needs a `request` and what to `expect` of it, or `steps`";
            house.report(Problem::error(test, message));
            return None;
        }
        (None, None) => None,
    };
    let wait = wait.map(|wait| wait.0);
    Some(TestStep { wait, given, ask })
}

fn check_given(given: &Given, house: &House<'_>) {
    for (name, acts) in given {
        let name = Spanned::new(name.0.clone(), acts.span);
        house.upstream_names.find_quietly(&name, house.reading);
    }
}

fn check_expect(expect: &raw::test::Expect, repeats: bool, house: &House<'_>) {
    if let Some(upstream) = expect.upstream.as_ref().filter(|name| name.value != NONE) {
        house.upstream_names.find_quietly(upstream, house.reading);
    }
    if let Some(flag) = expect.flag.as_ref().filter(|flag| flag.value != NONE) {
        let codes: Vec<&str> = Flag::ALL.iter().map(|flag| flag.code()).collect();
        if !codes.contains(&flag.value.as_str()) {
            let message = format!("unknown flag `{}`", flag.value);
            let problem = Problem::error(flag.span, message);
            house.report(advised(problem, &flag.value, &codes));
        }
    }
    if let (Some(first), false) = (expect.shares.values().next(), repeats) {
        let message = "shares need a `repeat`: one request is all or nothing";
        house.report(Problem::error(first.span, message));
    }
}

/// What is expected where nobody is.
const NONE: &str = "none";

fn advised(problem: Problem, name: &str, known: &[&str]) -> Problem {
    match suggest::advice(name, known.iter().copied()) {
        Some(advice) => problem.help(advice),
        None => problem,
    }
}

/// What can be told only once all is read: names of routes, handlers, middlewares, backends.
pub(super) fn check_names(config: &Config, house: &House<'_>) {
    let routes = || config.routes.iter().map(|route| &*route.name);
    let backends = || config.routes.iter().flat_map(|route| &route.backends);
    let handlers = || {
        backends().filter_map(|backend| match &backend.target {
            crate::config::Target::Handler(handler) => Some(&*handler.label),
            crate::config::Target::Upstream(_) => None,
        })
    };
    let steps = config
        .listeners
        .iter()
        .flat_map(|listener| &listener.middlewares)
        .chain(config.routes.iter().flat_map(|route| &route.middlewares))
        .chain(backends().flat_map(|backend| &backend.middlewares));
    let middlewares: Vec<&str> = steps.map(|step| &*step.label).collect();
    let mut names = HashMap::new();
    for test in &config.tests {
        if let Some(first) = names.insert(test.name.value.as_str(), test.name.span) {
            let message = format!("a test of the name `{}` is declared twice", test.name.value);
            house.report(
                Problem::error(test.name.span, message).related(first, "first declared here"),
            );
        }
        for ask in test.steps.iter().filter_map(|step| step.ask.as_ref()) {
            let known = |noun: &str, name: &Option<Spanned<String>>, known: Vec<&str>| {
                let Some(name) = name.as_ref().filter(|name| name.value != NONE) else {
                    return;
                };
                if !known.contains(&name.value.as_str()) {
                    let message = format!("unknown {noun} `{}`", name.value);
                    let problem = Problem::error(name.span, message);
                    house.report(advised(problem, &name.value, &known));
                }
            };
            known("route", &ask.expect.route, routes().collect());
            known("handler", &ask.expect.handler, handlers().collect());
            known("middleware", &ask.expect.middleware, middlewares.clone());
            for (name, share) in &ask.expect.shares {
                let name = Some(Spanned::new(name.0.clone(), share.span));
                let upstreams = config.upstreams.keys().map(|name| &**name);
                known(
                    "upstream or handler",
                    &name,
                    upstreams.chain(handlers()).collect(),
                );
            }
        }
    }
}
