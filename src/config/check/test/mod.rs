//! Tests: what they name exists, and what they expect can come true.

mod expect;
mod given;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::House;
use super::names::Names;
use crate::base::problem::{Problem, Span, Spanned};
use crate::base::values::{Name, Period};
use crate::config::de::Held;
use crate::config::raw::test as raw;
use crate::config::test::{Ask, Expect, Step, Test};
use crate::config::types::{Listener, Route, Target, Upstream};
use crate::{handler, middleware};

/// What tests may name.
pub(super) struct Scene<'a> {
    house: &'a House<'a>,
    listeners: &'a [Listener],
    routes: &'a [Route],
    upstreams: &'a BTreeMap<Arc<str>, Upstream>,
    route_names: Names<'a>,
    /// What middlewares and handlers that requests can reach are called.
    middlewares: BTreeSet<&'a str>,
    handlers: BTreeSet<&'a str>,
    /// All of the rest was understood, so there is nothing else to reach.
    is_whole: bool,
}

impl<'a> Scene<'a> {
    pub(super) fn new(
        house: &'a House<'a>,
        route_names: Names<'a>,
        (listeners, routes): (&'a [Listener], &'a [Route]),
        upstreams: &'a BTreeMap<Arc<str>, Upstream>,
        is_whole: bool,
    ) -> Self {
        let backends = || routes.iter().flat_map(|route| &route.backends);
        let steps = listeners.iter().flat_map(|listener| &listener.middlewares);
        let steps = steps.chain(routes.iter().flat_map(|route| &route.middlewares));
        let steps = steps.chain(backends().flat_map(|backend| &backend.middlewares));
        let handlers = backends().filter_map(|backend| match &backend.target {
            Target::Handler(handler) => Some([&*handler.label, handler.settings.kind()]),
            Target::Upstream(_) => None,
        });
        Self {
            house,
            listeners,
            routes,
            upstreams,
            route_names,
            middlewares: steps.map(|step| &*step.label).collect(),
            handlers: handlers.flatten().collect(),
            is_whole,
        }
    }

    fn report(&self, problem: Problem) {
        self.house.report(problem);
    }

    /// Reports a middleware that answers no request.
    fn check_middleware(&self, name: &Spanned<String>) {
        let text = name.value.as_str();
        let names = &self.house.chains.names;
        let kinds = middleware::Settings::kinds();
        if self.middlewares.contains(text) {
            return;
        }
        if !names.has(text) && !kinds.contains(&text) {
            let known: Vec<&str> = self.middlewares.iter().copied().collect();
            names.report_unknown(text, name.span, &known, self.house.reading);
        } else if self.is_whole {
            let message = format!("no listener and no route has a middleware called `{text}`");
            self.report(Problem::error(name.span, message).help(
                "a middleware has its name; in place and in a named chain it is called by its kind",
            ));
        }
    }

    /// Reports a handler that answers no request.
    fn check_handler(&self, name: &Spanned<String>) {
        let text = name.value.as_str();
        let names = &self.house.handler_names;
        let kinds = handler::Settings::kinds();
        if self.handlers.contains(text) {
            return;
        }
        if !names.has(text) && !kinds.contains(&text) {
            names.report_unknown(text, name.span, kinds, self.house.reading);
        } else if self.is_whole {
            let message = format!("no route sends to a handler called `{text}`");
            self.report(Problem::error(name.span, message));
        }
    }
}

/// The checked test; what it is made of in the place of what is wrong does not matter.
pub(super) fn settle(item: Held<raw::Test>, scene: &Scene<'_>) -> Option<Test> {
    let raw::Test {
        name,
        given,
        request,
        repeat,
        expect,
        steps,
    } = item.value;
    let given = given::settle(given, scene);
    let steps = match (request, steps) {
        (Some(request), None) => vec![settle_ask(request, repeat, expect, scene)],
        (None, Some(steps)) => {
            if let Some(span) = repeat.map(|repeat| repeat.span) {
                misplaced("repeat", span, steps.span, scene);
            }
            if let Some(span) = expect.map(|expect| expect.span) {
                misplaced("expect", span, steps.span, scene);
            }
            settle_steps(steps, scene)?
        }
        (None, None) => {
            let message = format!("the test `{}` asks nothing", name.value.0);
            scene.report(
                Problem::error(name.span, message).help("give it one of `request`, `steps`"),
            );
            return None;
        }
        (Some(request), Some(steps)) => {
            misplaced("request", request.span, steps.span, scene);
            return None;
        }
    };
    check_purpose(&name, &steps, scene);
    Some(Test {
        name: Arc::from(name.value.0),
        span: name.span,
        given,
        steps,
    })
}

/// A key that belongs to a step.
fn misplaced(key: &str, span: Span, steps: Span, scene: &Scene<'_>) {
    let message = format!("a test with `steps` has `{key}` in each of them, not beside them");
    scene.report(Problem::error(span, message).related(steps, "the steps"));
}

/// None if any of them is wrong.
fn settle_steps(steps: Spanned<Vec<Spanned<raw::Step>>>, scene: &Scene<'_>) -> Option<Vec<Step>> {
    let count = steps.value.len();
    let settled = steps.value.into_iter();
    let settled: Vec<_> = settled
        .filter_map(|step| settle_step(step, scene))
        .collect();
    (settled.len() == count).then_some(settled)
}

fn settle_step(step: Spanned<raw::Step>, scene: &Scene<'_>) -> Option<Step> {
    let raw::Step {
        request,
        repeat,
        expect,
        wait,
    } = step.value;
    match (request, wait) {
        (Some(request), None) => Some(settle_ask(request, repeat, expect, scene)),
        (None, Some(wait)) => {
            let repeat = repeat.map(|repeat| ("repeat", repeat.span));
            let expect = expect.map(|expect| ("expect", expect.span));
            for (key, span) in repeat.into_iter().chain(expect) {
                let message = format!("a step that waits asks nothing: `{key}` is for requests");
                scene.report(Problem::error(span, message).related(wait.span, "it waits"));
            }
            Some(Step::Wait(settle_wait(&wait, scene)))
        }
        (None, None) => {
            let message = "a step has one of `request`, `wait`";
            scene.report(Problem::error(step.span, message));
            None
        }
        (Some(request), Some(wait)) => {
            let message = "a step has one of `request`, `wait`: make two steps of it";
            scene.report(
                Problem::error(wait.span, message).related(request.span, "the request is here"),
            );
            None
        }
    }
}

fn settle_ask(
    request: Spanned<raw::Request>,
    repeat: Option<Spanned<u32>>,
    expect: Option<Spanned<raw::Expect>>,
    scene: &Scene<'_>,
) -> Step {
    let times = repeat.map_or(1, |repeat| repeat.value);
    let most = Test::MOST_REPEATS;
    if let Some(repeat) = repeat.filter(|repeat| !(1..=most).contains(&repeat.value)) {
        let message = format!("a request can be repeated 1 to {most} times");
        scene.report(Problem::error(repeat.span, message));
    }
    let request = request::settle(request, scene);
    let expect = expect.map_or_else(Expect::default, |expect| {
        expect::settle(expect.value, &request, times, scene)
    });
    Step::Ask(Box::new(Ask {
        request,
        repeat: times,
        expect,
    }))
}

/// What is written as a time that a clock can show.
fn settle_wait(wait: &Spanned<Period>, scene: &Scene<'_>) -> Duration {
    let most = Test::LONGEST_WAIT;
    if wait.value.0 > most {
        let days = most.as_secs() / (24 * 60 * 60);
        scene.report(Problem::error(
            wait.span,
            format!("at most `{days}d` can be waited"),
        ));
    }
    wait.value.0.min(most)
}

/// A test that cannot fail shows nothing.
fn check_purpose(name: &Spanned<raw::Title>, steps: &[Step], scene: &Scene<'_>) {
    let asks = |step: &Step| matches!(step, Step::Ask(_));
    let expects = |step: &Step| matches!(step, Step::Ask(ask) if !ask.expect.is_empty());
    if steps.iter().any(expects) {
        return;
    }
    let title = &name.value.0;
    let (what, help) = if steps.iter().any(asks) {
        ("expects nothing, so it cannot fail", "give it `expect`")
    } else {
        ("asks nothing", "give it a step with `request`")
    };
    scene.report(Problem::error(name.span, format!("the test `{title}` {what}")).help(help));
}

/// Names of headers differ in more than upper and lower case.
fn check_once<'n, T: 'n>(headers: impl Iterator<Item = &'n (Spanned<Name>, T)>, scene: &Scene<'_>) {
    let mut seen: Vec<(&HeaderName, Span)> = Vec::new();
    for (name, _) in headers {
        match seen.iter().find(|(known, _)| **known == name.value.0) {
            Some((known, first)) => {
                let message = format!("the header `{known}` is there twice");
                scene.report(
                    Problem::error(name.span, message)
                        .related(*first, "first written here")
                        .help("header names are the same in upper and lower case"),
                );
            }
            None => seen.push((&name.value.0, name.span)),
        }
    }
}
