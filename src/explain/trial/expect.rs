//! Whether what came of a request is what was expected, and if not, why.

use std::collections::HashMap;
use std::fmt::Display;

use http::HeaderMap;

use crate::base::problem::{Problem, Spanned};
use crate::base::values::Name;
use crate::config::Expect;
use crate::explain::stage::Received;
use crate::explain::world::{Heard, World};
use crate::proxy::context::Asked;
use crate::routing::condition::{Conditions, ValueMatch};
use crate::snapshot::To;

/// What is written for nobody and nothing.
const NONE: &str = "none";

/// Everything that is not as expected.
pub(super) fn check(world: &World, expect: &Expect, heard: &Heard) -> Vec<Problem> {
    let mut problems = Vec::new();
    let snapshot = world.snapshot();
    let route = heard.seen.route.map(|place| &*snapshot.route(place).name);
    if let Some(wanted) = &expect.route
        && wanted.value != route.unwrap_or(NONE)
    {
        problems.push(wrong_route(world, wanted, route, heard));
    }
    let ended = heard.seen.ended.as_ref();
    let (upstream, handler) = backend(world, heard);
    let middleware = heard.seen.steps.iter().find(|step| step.answer.is_some());
    let answered = middleware.map(|step| &*step.label);
    let mut same = |what: &str, wanted: &Option<Spanned<String>>, is: Option<&str>| {
        if let Some(wanted) = wanted
            && wanted.value != is.unwrap_or(NONE)
        {
            problems.push(wrong(
                wanted,
                what,
                &wanted.value,
                is.unwrap_or(NONE),
                heard,
            ));
        }
    };
    same("upstream", &expect.upstream, upstream.as_deref());
    same("handler", &expect.handler, handler.as_deref());
    same("answer of the middleware", &expect.middleware, answered);
    let flag = ended.and_then(|ended| ended.flag).map(|flag| flag.code());
    same("flag", &expect.flag, flag);
    if let Some(wanted) = &expect.status
        && wanted.value.0 != heard.answer.status
    {
        let (wanted_code, code) = (wanted.value.0.as_u16(), heard.answer.status.as_u16());
        problems.push(wrong(wanted, "status", wanted_code, code, heard));
    }
    if let Some(wanted) = &expect.attempts {
        let made = ended.map_or(0, |ended| ended.attempts.len());
        if usize::try_from(wanted.value) != Ok(made) {
            problems.push(wrong(
                wanted,
                "number of attempts",
                wanted.value,
                made,
                heard,
            ));
        }
    }
    if let Some(wanted) = &expect.within
        && heard.took > wanted.value.0
    {
        let message = format!("it took {:?}, more than {:?}", heard.took, wanted.value.0);
        problems.push(Problem::error(wanted.span, message));
    }
    problems.extend(wrong_headers(
        "the answer",
        &expect.headers,
        &heard.answer.headers,
    ));
    problems.extend(wrong_body(
        "the answer",
        &expect.body,
        heard.body.as_deref(),
    ));
    problems.extend(wrong_sent(expect, heard, upstream.as_deref()));
    problems
}

/// The upstream or the handler that a request went to.
fn backend(world: &World, heard: &Heard) -> (Option<String>, Option<String>) {
    let snapshot = world.snapshot();
    match heard.seen.ended.as_ref().and_then(|ended| ended.backend) {
        Some(Asked::Upstream(place)) => {
            let name = snapshot.upstream(place).upstream.name();
            (Some(name.to_owned()), None)
        }
        Some(Asked::Handler(place)) => {
            let route = heard.seen.route.map(|route| snapshot.route(route));
            let backend = route.and_then(|route| route.backends.get(place));
            let name = backend.and_then(|backend| match &backend.to {
                To::Handler(handler, _) => Some(handler.name().to_owned()),
                To::Upstream(_) => None,
            });
            (None, name)
        }
        None => (None, None),
    }
}

fn wrong<T>(
    wanted: &Spanned<T>,
    what: &str,
    value: impl Display,
    is: impl Display,
    heard: &Heard,
) -> Problem {
    let message = format!("the {what} is `{is}`, not `{value}`");
    let problem = Problem::error(wanted.span, message);
    let ended = heard.seen.ended.as_ref();
    let detail = ended.and_then(|ended| Some((ended.flag?, ended.detail.as_ref()?)));
    match detail {
        Some((flag, detail)) => problem.help(format!("{}: {detail}", flag.code())),
        None => problem,
    }
}

fn wrong_route(
    world: &World,
    wanted: &Spanned<String>,
    is: Option<&str>,
    heard: &Heard,
) -> Problem {
    let message = match is {
        Some(is) => format!("the route is `{is}`, not `{}`", wanted.value),
        None => format!("no route takes the request, but `{}` was to", wanted.value),
    };
    let problem = Problem::error(wanted.span, message);
    if wanted.value == NONE {
        return problem;
    }
    let snapshot = world.snapshot();
    let is_wanted = |row: u32| *snapshot.route(row as usize).name == *wanted.value;
    let mut candidates = heard.seen.candidates.iter();
    let near = candidates.find(|candidate| is_wanted(candidate.row.route));
    problem.help(match near.map(|near| near.lost_on.as_deref()) {
        Some(Some(lost_on)) => format!("`{}` lost on: {lost_on}", wanted.value),
        Some(None) => format!(
            "`{}` would take it, too, but comes later in precedence",
            wanted.value
        ),
        None => format!("no match of `{}` has this host and path", wanted.value),
    })
}

fn wrong_headers<'a>(
    whose: &'a str,
    wanted: &'a Option<Spanned<Conditions<Name>>>,
    headers: &'a HeaderMap,
) -> impl Iterator<Item = Problem> + 'a {
    let wanted = wanted.iter().flat_map(|wanted| {
        let pairs = wanted.value.0.iter();
        pairs.map(|pair| (wanted.span, pair))
    });
    wanted.filter_map(move |(span, (Name(name), condition))| {
        let value = headers.get(name).map(http::HeaderValue::as_bytes);
        (!condition.holds(value)).then(|| {
            let is = in_words(value);
            let message = format!("the header `{name}` of {whose} is {is}; expected: {condition}");
            Problem::error(span, message)
        })
    })
}

fn wrong_body(
    whose: &str,
    wanted: &Option<Spanned<ValueMatch>>,
    body: Option<&[u8]>,
) -> Option<Problem> {
    let wanted = wanted.as_ref()?;
    if wanted.value.holds(body) {
        return None;
    }
    let is = in_words(body);
    let message = format!("the body of {whose} is {is}; expected: {}", wanted.value);
    Some(Problem::error(wanted.span, message))
}

fn in_words(value: Option<&[u8]>) -> String {
    const LONGEST: usize = 200;
    value.map_or_else(
        || "not there".to_owned(),
        |value| {
            let text: String = String::from_utf8_lossy(value)
                .chars()
                .take(LONGEST)
                .collect();
            format!("{text:?}")
        },
    )
}

fn wrong_sent(expect: &Expect, heard: &Heard, upstream: Option<&str>) -> Vec<Problem> {
    let Some(wanted) = &expect.sent else {
        return Vec::new();
    };
    let is_its = |received: &&Received| Some(&*received.upstream) == upstream;
    let Some(last) = heard.received.iter().rev().find(is_its) else {
        let message = "nothing was sent to an upstream";
        return vec![Problem::error(wanted.span, message)];
    };
    let Received { parts, body, .. } = last;
    let mut problems = Vec::new();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let host = parts
        .headers
        .get(http::header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = host.or(parts.uri.authority().map(|authority| authority.as_str()));
    let mut same = |what: &str, wanted: &Option<Spanned<String>>, is: &str| {
        if let Some(wanted) = wanted
            && wanted.value != is
        {
            let message = format!("the {what} that was sent is `{is}`, not `{}`", wanted.value);
            problems.push(Problem::error(wanted.span, message));
        }
    };
    let sent = &wanted.value;
    same("method", &sent.method, parts.method.as_str());
    same("path", &sent.path, path);
    same("host", &sent.host, host.unwrap_or_default());
    problems.extend(wrong_headers(
        "what was sent",
        &sent.headers,
        &parts.headers,
    ));
    problems.extend(wrong_body("what was sent", &sent.body, Some(body)));
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
        let (upstream, handler) = backend(world, heard);
        if let Some(name) = upstream.or(handler) {
            *self.of.entry(name).or_default() += 1;
        }
    }

    pub(super) fn check(&self, expect: &Expect) -> Vec<Problem> {
        let shares = expect.shares.iter().filter_map(|(name, bounds)| {
            let got = self.of.get(&name.0).copied().unwrap_or(0);
            let share = f64::from(got) / f64::from(self.all.max(1));
            let (min, max) = (bounds.value.min.0, bounds.value.max.0);
            (share < min || share > max).then(|| {
                let message = format!(
                    "`{}` got {got} of {} requests, {:.1} %: not between {:.1} % and {:.1} %",
                    name.0,
                    self.all,
                    share * 100.0,
                    min * 100.0,
                    max * 100.0
                );
                Problem::error(bounds.span, message)
            })
        });
        shares.collect()
    }
}
