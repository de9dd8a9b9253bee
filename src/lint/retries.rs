//! Retries, hedges and mirrors that do nothing, or too much.

use super::scene::{Item, Scene, is_once_only};
use crate::base::code::Code;
use crate::base::problem::Problem;
use crate::config::{Backend, Condition, Retry, Route, Target};
use crate::upstream::Deposit;

/// A buffer of that size is worth a thought.
const LARGE: usize = 1 << 20;

pub(super) fn check(scene: &Scene<'_>, found: &mut Vec<Problem>) {
    for route in &scene.config.routes {
        let exits = scene.exits(route);
        if exits.is_empty() {
            continue;
        }
        let item = scene.route(route);
        if let Some(retry) = &route.retry {
            found.extend(never(route, retry, item));
            found.extend(budget(retry, item));
            found.extend(buffers(scene, route, retry, item));
        }
        found.extend(hedge(route, item));
        mirrors(scene, route, item, found);
    }
}

/// True if it can only happen to a request that may have run.
fn means_it_ran(condition: Condition) -> bool {
    matches!(
        condition,
        Condition::Status(_) | Condition::Class(_) | Condition::Grpc(_) | Condition::Timeout
    )
}

fn never(route: &Route, retry: &Retry, item: Item<'_>) -> Option<Problem> {
    if retry.attempts < 2
        || retry.idempotent
        || !is_once_only(route)
        || !retry.on.iter().copied().all(means_it_ran)
    {
        return None;
    }
    let message = format!(
        "no request of the route `{}` is ever tried again: after these conditions it may have run, and its methods may not be repeated",
        route.name
    );
    Some(
        Problem::warning(item.span(&["retry", "on"]), message)
            .code(Code::RETRY_NEVER_HAPPENS)
            .related(item.span(&["match"]), "no method here may be repeated")
            .help("write `idempotent: true` if the service bears repetition, or leave `on` out to try again what cannot have run"),
    )
}

fn budget(retry: &Retry, item: Item<'_>) -> Option<Problem> {
    let written = item.at(&["retry", "budget"])?;
    if retry.attempts < 2 || retry.budget != Deposit::percent(100) {
        return None;
    }
    let message = "a budget of 100% lets retries double the load of an upstream that fails";
    Some(
        Problem::warning(written.span(), message)
            .code(Code::BUDGET_WITHOUT_BOUND)
            .help("write 10% to 30%, or leave it out for 20%"),
    )
}

/// Upstreams that take any number of requests, each with its own copy of a body.
fn buffers(scene: &Scene<'_>, route: &Route, retry: &Retry, item: Item<'_>) -> Option<Problem> {
    let written = item.at(&["retry", "buffer"])?;
    if retry.attempts < 2 || retry.buffer < LARGE {
        return None;
    }
    let mut exits = scene.exits(route).into_iter();
    let exit = exits.find(|exit| {
        let limits = &exit.upstream.settings.limits;
        limits.requests.is_none() && limits.connections.is_none() && limits.adaptive.is_none()
    })?;
    let message = format!(
        "each request to `{}` may hold {} of its body, and nothing limits how many there are",
        exit.name,
        written.text().unwrap_or_default()
    );
    let upstream = scene.upstream(exit.name, exit.upstream);
    Some(
        Problem::warning(written.span(), message)
            .code(Code::UNBOUNDED_BUFFERS)
            .related(upstream.name(), "has no limit")
            .help(format!(
                "write `limits: {{requests: …}}` in the upstream `{}`: that number times `buffer` is what it may cost",
                exit.name
            )),
    )
}

fn hedge(route: &Route, item: Item<'_>) -> Option<Problem> {
    route.hedge?;
    let may_repeat = route.retry.as_ref().is_some_and(|retry| retry.idempotent);
    if may_repeat || !is_once_only(route) {
        return None;
    }
    let message = format!(
        "no request of the route `{}` is ever hedged: its methods may not be repeated",
        route.name
    );
    Some(
        Problem::warning(item.span(&["hedge"]), message)
            .code(Code::HEDGE_NEVER_HAPPENS)
            .related(item.span(&["match"]), "no method here may be repeated")
            .help("write `retry: {idempotent: true}` if the service bears repetition, or remove `hedge`"),
    )
}

fn mirrors(scene: &Scene<'_>, route: &Route, item: Item<'_>, found: &mut Vec<Problem>) {
    let exits = scene.exits(route);
    let taken = |of: &Backend| of.weight > 0 && matches!(of.target, Target::Handler(_));
    // With a choice of backends, most copies may be of requests that another one answers.
    if exits.len() != 1 || route.backends.iter().any(taken) {
        return;
    }
    for (number, mirror) in route.mirrors.iter().enumerate() {
        let Some(exit) = exits.iter().find(|exit| *exit.name == *mirror.upstream) else {
            continue;
        };
        let written = item.nth("mirror", number);
        let span = written.map_or(item.name(), |written| {
            written.get("upstream").unwrap_or(written).span()
        });
        let message = format!(
            "the upstream `{}` gets these requests twice: once to answer them, once as a mirror",
            exit.name
        );
        found.push(
            Problem::warning(span, message)
                .code(Code::MIRROR_TO_BACKEND)
                .related(exit.span, "it answers them here")
                .help("mirror to another upstream, or remove the mirror"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PUBLIC, check as found};
    use super::*;

    #[track_caller]
    fn check(of: &str, route: &str, upstream: &str, expected: Option<(Code, &str)>) {
        let yaml = format!(
            "{PUBLIC}routes: [{{name: a, match: {of}, upstream: u, {route}}}]\n\
             upstreams: {{u: {{endpoints: [\"127.0.0.1:9001\"], {upstream}}}, v: {{endpoints: []}}}}\n"
        );
        found(&yaml, expected);
    }

    #[test]
    fn a_retry_must_be_able_to_happen() {
        let code = Code::RETRY_NEVER_HAPPENS;
        let post = "{path: /, method: POST}";
        check(
            post,
            "retry: {on: [502, 5xx]}",
            "",
            Some((code, "[502, 5xx]")),
        );
        check(
            "{grpc: {service: a.B}}",
            "retry: {on: unavailable}",
            "",
            Some((code, "unavailable")),
        );
        check(post, "retry: {on: [502, connect_failure]}", "", None);
        check(post, "retry: {on: 502, idempotent: true}", "", None);
        check(post, "retry: {}", "", None);
        check(
            "{path: /, method: [POST, PUT]}",
            "retry: {on: 502}",
            "",
            None,
        );
        check("{path: /}", "retry: {on: 502}", "", None);
    }

    #[test]
    fn a_budget_must_bound_something() {
        let code = Code::BUDGET_WITHOUT_BOUND;
        check(
            "{path: /}",
            "retry: {budget: 100%}",
            "",
            Some((code, "100%")),
        );
        check("{path: /}", "retry: {budget: 1.0}", "", Some((code, "1.0")));
        check("{path: /}", "retry: {budget: 100%, attempts: 1}", "", None);
        check("{path: /}", "retry: {budget: 50%}", "", None);
    }

    #[test]
    fn copies_of_bodies_must_be_bounded() {
        let code = Code::UNBOUNDED_BUFFERS;
        let large = "retry: {buffer: 8MiB}";
        check("{path: /}", large, "", Some((code, "8MiB")));
        check("{path: /}", large, "limits: {requests: 100}", None);
        check("{path: /}", large, "limits: {connections: 100}", None);
        check("{path: /}", "retry: {buffer: 128KiB}", "", None);
    }

    #[test]
    fn a_hedge_must_be_able_to_happen() {
        let code = Code::HEDGE_NEVER_HAPPENS;
        let post = "{path: /, method: [POST, PATCH]}";
        check(
            post,
            "hedge: {after: 50ms}",
            "",
            Some((code, "{after: 50ms}")),
        );
        check(post, "hedge: {}, retry: {idempotent: true}", "", None);
        check("{path: /, method: GET}", "hedge: {}", "", None);
    }

    #[test]
    fn a_mirror_must_be_somebody_else() {
        let code = Code::MIRROR_TO_BACKEND;
        check("{path: /}", "mirror: {upstream: u}", "", Some((code, "u")));
        check("{path: /}", "mirror: [{upstream: v}]", "", None);
        let split = "[{upstream: u}, {upstream: v}]";
        let yaml = format!(
            "{PUBLIC}routes: [{{name: a, match: {{path: /}}, backends: {split}, mirror: {{upstream: v}}}}]\n\
             upstreams: {{u: {{endpoints: []}}, v: {{endpoints: []}}}}\n"
        );
        found(&yaml, None);
    }
}
