//! Whether what came of a request is what was expected, and if not, why.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use http::HeaderMap;

use crate::base::problem::{Problem, Span, Spanned};
use crate::config::test::{Expect, HeaderIs, OrNone, Sent};
use crate::explain::notebook::SentTo;
use crate::explain::stage::Received;
use crate::explain::world::{Heard, World};
use crate::handler::Handler;
use crate::routing::condition::ValueMatch;
use crate::telemetry::decision::Flag;

/// What is written for nobody and nothing.
const NONE: &str = "none";

/// Everything that is not as expected.
pub(super) fn check(world: &World, expect: &Expect, heard: &Heard) -> Vec<Problem> {
    let mut problems = names(world, expect, heard);
    let ended = heard.seen.ended.as_ref();
    let flag = ended.and_then(|ended| ended.flag);
    if let Some(wanted) = &expect.flag
        && !wanted.value.holds(flag)
    {
        let is = flag.map_or(NONE, Flag::code);
        problems.push(wrong(wanted.span, "flag", &wanted.value, is, heard));
    }
    let status = heard.answer.status;
    if let Some(wanted) = &expect.status
        && wanted.value != status
    {
        let (wanted_code, code) = (wanted.value.as_u16(), status.as_u16());
        problems.push(wrong(wanted.span, "status", wanted_code, code, heard));
    }
    let made = ended.map_or(0, |ended| ended.attempts.len());
    if let Some(wanted) = &expect.attempts
        && usize::try_from(wanted.value) != Ok(made)
    {
        problems.push(wrong(
            wanted.span,
            "number of attempts",
            wanted.value,
            made,
            heard,
        ));
    }
    if let Some(wanted) = &expect.within
        && heard.took > wanted.value
    {
        let message = format!("it took {:?}, more than {:?}", heard.took, wanted.value);
        problems.push(Problem::error(wanted.span, message));
    }
    problems.extend(wrong_headers(
        "the answer",
        &expect.headers,
        &heard.answer.headers,
    ));
    let body = expect.body.as_ref();
    problems.extend(unheld("body of the answer", body, heard.body.as_deref()));
    problems.extend(wrong_sent(world, &expect.sent, heard));
    problems
}

/// Who was to take part in it.
fn names(world: &World, expect: &Expect, heard: &Heard) -> Vec<Problem> {
    let mut problems = Vec::new();
    let route = heard
        .seen
        .route
        .map(|place| &*world.snapshot().route(place).name);
    if let Some(wanted) = &expect.route
        && !wanted.value.holds(route)
    {
        problems.push(wrong_route(world, wanted, route, heard));
    }
    let sent_to = heard.seen.sent_to(world.snapshot());
    let upstream = sent_to.and_then(SentTo::upstream);
    let handler = sent_to.and_then(SentTo::handler);
    let answered = heard.seen.answered().map(|step| &*step.label);
    let rows = [
        ("upstream", &expect.upstream, upstream),
        ("handler", &expect.handler, handler.map(Handler::name)),
        ("middleware that answers", &expect.middleware, answered),
    ];
    for (what, wanted, is) in rows {
        let kind = handler.map(Handler::kind);
        if let Some(wanted) = wanted
            && !wanted.value.holds(is)
            && !(what == "handler" && kind.is_some() && wanted.value.holds(kind))
        {
            problems.push(wrong(
                wanted.span,
                what,
                &wanted.value,
                is.unwrap_or(NONE),
                heard,
            ));
        }
    }
    problems
}

fn wrong(span: Span, what: &str, value: impl Display, is: impl Display, heard: &Heard) -> Problem {
    let problem = Problem::error(span, format!("the {what} is `{is}`, not `{value}`"));
    let ended = heard.seen.ended.as_ref();
    match ended.and_then(|ended| Some((ended.flag?, ended.detail.as_ref()?))) {
        Some((flag, detail)) => problem.help(format!("{}: {detail}", flag.code())),
        None => problem,
    }
}

fn wrong_route(
    world: &World,
    wanted: &Spanned<OrNone<Arc<str>>>,
    is: Option<&str>,
    heard: &Heard,
) -> Problem {
    let Some(name) = wanted.value.as_option() else {
        let is = is.unwrap_or(NONE);
        return Problem::error(wanted.span, format!("the route `{is}` takes the request"));
    };
    let message = match is {
        Some(is) => format!("the route is `{is}`, not `{name}`"),
        None => format!("no route takes the request, but `{name}` was to"),
    };
    let is_wanted = |row: u32| world.snapshot().route(row as usize).name == *name;
    let mut candidates = heard.seen.candidates.iter();
    let near = candidates.find(|candidate| is_wanted(candidate.row.route));
    Problem::error(wanted.span, message).help(match near.map(|near| near.lost_on.as_deref()) {
        Some(Some(lost_on)) => format!("`{name}` lost on: {lost_on}"),
        Some(None) => format!("`{name}` would take it, too, but comes later in precedence"),
        None => format!("no match of `{name}` has this host and path"),
    })
}

fn wrong_headers<'a>(
    whose: &'a str,
    wanted: &'a [HeaderIs],
    headers: &'a HeaderMap,
) -> impl Iterator<Item = Problem> + 'a {
    wanted.iter().filter_map(move |HeaderIs { name, is }| {
        let value = headers.get(name).map(http::HeaderValue::as_bytes);
        unheld(&format!("header `{name}` of {whose}"), Some(is), value)
    })
}

/// A value that is not as it must be.
fn unheld(
    what: &str,
    wanted: Option<&Spanned<ValueMatch>>,
    value: Option<&[u8]>,
) -> Option<Problem> {
    const LONGEST: usize = 200;
    let wanted = wanted?;
    if wanted.value.holds(value) {
        return None;
    }
    let is = match value {
        None => "not there".to_owned(),
        Some(value) => {
            let text = String::from_utf8_lossy(value);
            format!("{:?}", text.chars().take(LONGEST).collect::<String>())
        }
    };
    let message = format!("the {what} is {is}; expected: {}", wanted.value);
    Some(Problem::error(wanted.span, message))
}

fn wrong_sent(world: &World, wanted: &Sent, heard: &Heard) -> Vec<Problem> {
    let first = [
        wanted.method.as_ref().map(|wanted| wanted.span),
        wanted.path.as_ref().map(|wanted| wanted.span),
        wanted.host.as_ref().map(|wanted| wanted.span),
        wanted.headers.first().map(|wanted| wanted.is.span),
    ];
    let Some(first) = first.into_iter().flatten().next() else {
        return Vec::new();
    };
    let upstream = heard
        .seen
        .sent_to(world.snapshot())
        .and_then(SentTo::upstream);
    let is_its = |received: &&Received| Some(&*received.upstream) == upstream;
    let Some(Received { parts, .. }) = heard.received.iter().rev().find(is_its) else {
        return vec![Problem::error(first, "nothing was sent to an upstream")];
    };
    let mut problems = Vec::new();
    if let Some(method) = &wanted.method
        && method.value != parts.method
    {
        let message = format!(
            "the method that was sent is `{}`, not `{}`",
            parts.method, method.value
        );
        problems.push(Problem::error(method.span, message));
    }
    let path = parts
        .uri
        .path_and_query()
        .map(|path| path.as_str().as_bytes());
    problems.extend(unheld("path that was sent", wanted.path.as_ref(), path));
    let host = parts
        .headers
        .get(http::header::HOST)
        .map(http::HeaderValue::as_bytes);
    let host = host.or(parts
        .uri
        .authority()
        .map(|authority| authority.as_str().as_bytes()));
    problems.extend(unheld("host that was sent", wanted.host.as_ref(), host));
    problems.extend(wrong_headers(
        "what was sent",
        &wanted.headers,
        &parts.headers,
    ));
    problems
}

/// Who got how many of a request's repetitions.
#[derive(Debug, Default)]
pub(super) struct Tally {
    all: u32,
    of: HashMap<String, u32>,
}

impl Tally {
    pub(super) fn count(&mut self, world: &World, heard: &Heard) {
        self.all += 1;
        if let Some(sent_to) = heard.seen.sent_to(world.snapshot()) {
            let name = match sent_to {
                SentTo::Upstream(name) => name,
                SentTo::Handler(handler) => handler.name(),
            };
            *self.of.entry(name.to_owned()).or_default() += 1;
        }
    }

    pub(super) fn check(&self, expect: &Expect) -> Vec<Problem> {
        let shares = expect.shares.iter().filter_map(|wanted| {
            let got = self.of.get(&*wanted.backend).copied().unwrap_or(0);
            let share = f64::from(got) / f64::from(self.all.max(1));
            (share < wanted.min || share > wanted.max).then(|| {
                let message = format!(
                    "`{}` got {got} of {} requests, {:.1} %: not between {:.1} % and {:.1} %",
                    wanted.backend,
                    self.all,
                    share * 100.0,
                    wanted.min * 100.0,
                    wanted.max * 100.0
                );
                Problem::error(wanted.span, message)
            })
        });
        shares.collect()
    }
}
