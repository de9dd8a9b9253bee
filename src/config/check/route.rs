//! Routes: on which listeners, through which steps, how long.

use std::sync::Arc;

use super::chain::Owner;
use super::{House, backend, combine, retry as again};
use crate::base::code::Code;
use crate::base::key::KeySource;
use crate::base::problem::{Problem, Span, Spanned};
use crate::config::de::Held;
use crate::config::raw;
use crate::config::types::{Backend, Route, Target, Timeouts};
use crate::routing::Match;

/// The checked route; none if it has no place to send to, or steps that are wrong.
pub(super) fn settle(item: Held<raw::Route>, house: &mut House<'_>) -> Option<Route> {
    let raw::Route {
        name,
        listeners,
        matches,
        middlewares,
        handler,
        upstream,
        backends,
        split_by,
        mirror,
        priority,
        timeouts,
        retry,
        hedge,
    } = item.value;
    let text = name.value.0;
    let place = format!("routes/{text}");
    if matches.value.0.is_empty() {
        let message = "an empty list of matches: no request could take this route";
        house.report(
            Problem::error(matches.span, message)
                .help("write `match: {path_prefix: /}` for every request"),
        );
    }
    let listeners = settle_listeners(listeners, house);
    let timeouts = settle_timeouts(&timeouts, house);
    let middlewares = house.chains.flatten(&Owner::Place(&place), middlewares);
    let backends = backend::settle((&text, name.span), (handler, upstream, backends), house);
    let spans = [
        ("retry", retry.as_ref().map(|section| section.span)),
        ("hedge", hedge.as_ref().map(|section| section.span)),
    ];
    let (retry, hedge) = (
        again::settle_retry(retry, house),
        again::settle_hedge(hedge),
    );
    let mirrors = backend::mirrors(mirror.0, house);
    let (middlewares, backends) = (middlewares?, backends?);
    again::check_used(spans, &backends, house);
    let steps = backends.iter().flat_map(|backend| &backend.middlewares);
    for step in middlewares.iter().chain(steps) {
        for param in step.settings.params() {
            check_param(param, step.settings.span, &matches.value.0, house);
        }
    }
    if let Some(split_by) = &split_by {
        check_split(split_by, &backends, &matches.value.0, house);
    }
    let fingerprint = combine(
        std::iter::once(item.fingerprint)
            .chain(middlewares.iter().map(|step| step.fingerprint))
            .chain(backends.iter().flat_map(fingerprints)),
    );
    Some(Route {
        name: Arc::from(text),
        listeners,
        matches: matches.value.0,
        middlewares,
        backends,
        split_by: split_by.map(|split_by| split_by.value),
        mirrors: mirrors?,
        priority,
        timeouts,
        retry,
        hedge,
        span: name.span,
        fingerprint,
    })
}

/// Only what every match of the route gives may be used.
fn check_param(param: &str, span: Span, matches: &[Spanned<Match>], house: &House<'_>) {
    let without = matches.iter().find(|of| !of.value.has_param(param));
    if let Some(without) = without {
        let message = format!("the path of this route has no parameter `{param}`");
        house.report(
            Problem::error(span, message)
                .related(without.span, "this match")
                .help(format!(
                    "write `{{{param}}}` in its `path`, or leave it out here"
                )),
        );
    }
}

fn check_split(
    split_by: &Spanned<KeySource>,
    backends: &[Backend],
    matches: &[Spanned<Match>],
    house: &House<'_>,
) {
    if let Some(param) = split_by.value.param() {
        check_param(param, split_by.span, matches, house);
    }
    if backends.len() == 1 {
        let message = "the route has only one backend: there is nothing to split";
        house.report(
            Problem::warning(split_by.span, message)
                .code(Code::SPLIT_OF_ONE)
                .help("write `backends` with two or more, or remove `split_by`"),
        );
    }
}

fn fingerprints(backend: &Backend) -> impl Iterator<Item = u64> {
    let own = match &backend.target {
        Target::Upstream(_) => None,
        Target::Handler(handler) => Some(handler.fingerprint),
    };
    own.into_iter()
        .chain(backend.middlewares.iter().map(|step| step.fingerprint))
}

fn settle_listeners(
    listeners: Option<Spanned<Vec<Spanned<String>>>>,
    house: &House<'_>,
) -> Arc<[usize]> {
    let Some(Spanned { value: names, span }) = listeners else {
        return Arc::clone(&house.everywhere);
    };
    if names.is_empty() {
        let message = "this route is on no listener, so no request reaches it";
        house
            .report(Problem::error(span, message).help("leave `listeners` out for every listener"));
    }
    let mut numbers = Vec::with_capacity(names.len());
    for name in names {
        if house.listener_names.find(&name, house.reading) {
            numbers.extend(house.numbers.get(name.value.as_str()));
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    Arc::from(numbers)
}

fn settle_timeouts(timeouts: &raw::Timeouts, house: &House<'_>) -> Timeouts {
    let raw::Timeouts {
        request,
        attempt,
        idle,
    } = timeouts;
    if let (Some(request), Some(attempt)) = (request, attempt)
        && attempt.value > request.value
    {
        let message =
            "an attempt may take longer than the whole request, so this never takes effect";
        house.report(
            Problem::warning(attempt.span, message)
                .code(Code::ATTEMPT_OUTLASTS_REQUEST)
                .related(request.span, "the whole request")
                .help("write less than `request`, or leave `attempt` out"),
        );
    }
    Timeouts {
        request: request.as_ref().map(|timeout| timeout.value.0),
        attempt: attempt.as_ref().map(|timeout| timeout.value.0),
        idle: idle.as_ref().map(|timeout| timeout.0),
    }
}
