//! Limits of time that contradict each other.

use std::time::Duration;

use super::scene::{Exit, Item, Scene, is_grpc_only, text};
use crate::base::code::Code;
use crate::base::problem::{Problem, Span};
use crate::config::{After, Condition, Retry, Route};

/// The silence that ends an attempt where `timeouts.idle` is not written, but for gRPC.
const IDLE: Duration = Duration::from_mins(1);

const REQUEST: [&str; 2] = ["timeouts", "request"];
const ATTEMPT: [&str; 2] = ["timeouts", "attempt"];

pub(super) fn check(scene: &Scene<'_>, found: &mut Vec<Problem>) {
    for route in &scene.config.routes {
        let exits = scene.exits(route);
        if exits.is_empty() {
            continue;
        }
        let item = scene.route(route);
        found.extend(attempts(route, item));
        found.extend(idle(route, item));
        found.extend(hedge(route, item));
        found.extend(timeout_retried(route, item));
        for exit in exits {
            found.extend(connect(scene, route, item, exit));
            found.extend(queue(scene, route, item, exit));
        }
    }
}

/// The first limit that ends an attempt for sure, and its key.
fn end_of_attempt(route: &Route) -> Option<(Duration, [&'static str; 2])> {
    let request = route.timeouts.request.map(|request| (request, REQUEST));
    let attempt = route.timeouts.attempt.map(|attempt| (attempt, ATTEMPT));
    [attempt, request]
        .into_iter()
        .flatten()
        .min_by_key(|(time, _)| *time)
}

/// All attempts, each as long as it may be, and the longest waits between them.
fn longest(retry: &Retry, attempt: Duration) -> Duration {
    let mut all = attempt.saturating_mul(retry.attempts);
    let mut wait = retry.backoff;
    for _ in 1..retry.attempts {
        all = all.saturating_add(wait.min(retry.max_backoff));
        wait = wait.saturating_mul(2);
    }
    all
}

fn attempts(route: &Route, item: Item<'_>) -> Option<Problem> {
    let retry = route.retry.as_ref()?;
    let (request, attempt) = (route.timeouts.request?, route.timeouts.attempt?);
    // Only where a timeout is tried again do attempts take all of their time one after the other.
    if retry.attempts < 2 || attempt > request || !retry.on.contains(&Condition::Timeout) {
        return None;
    }
    let all = longest(retry, attempt);
    // A last attempt that is only a little shorter is no reason to talk.
    if all <= request.saturating_add(attempt / 10) {
        return None;
    }
    let message = format!(
        "{} attempts of {} with the waits between them may take {all:?}, but the request ends after {}",
        retry.attempts,
        text(attempt),
        text(request)
    );
    let fits = request / retry.attempts;
    let advice = format!(
        "raise `request` to {}, or give an attempt less than {}",
        text(above(all)),
        text(round(fits))
    );
    Some(
        Problem::warning(item.span(&ATTEMPT), message)
            .code(Code::ATTEMPTS_OUTLAST_REQUEST)
            .label("for one attempt")
            .related(item.span(&REQUEST), "for all of them")
            .related(item.span(&["retry"]), "`timeout` is tried again")
            .help(advice),
    )
}

/// No more digits than people write.
fn round(time: Duration) -> Duration {
    let unit = if time >= Duration::from_secs(1) {
        100
    } else {
        1
    };
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(millis - millis % unit)
}

/// The next time that people would write.
fn above(time: Duration) -> Duration {
    let unit = if time >= Duration::from_secs(1) {
        1_000
    } else {
        10
    };
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(millis.div_ceil(unit).saturating_mul(unit))
}

fn idle(route: &Route, item: Item<'_>) -> Option<Problem> {
    let (idle, attempt) = (route.timeouts.idle?, route.timeouts.attempt?);
    if idle >= attempt {
        return None;
    }
    let message = format!(
        "an attempt ends after {} of silence, so its limit of {} is hardly ever reached",
        text(idle),
        text(attempt)
    );
    Some(
        Problem::warning(item.span(&["timeouts", "idle"]), message)
            .code(Code::IDLE_ENDS_ATTEMPT)
            .label("whoever waits for the answer's head sees silence")
            .related(item.span(&ATTEMPT), "never waited for")
            .help(format!(
                "write `idle: {}` or more, or `attempt: {}` or less",
                text(attempt),
                text(idle)
            )),
    )
}

fn hedge(route: &Route, item: Item<'_>) -> Option<Problem> {
    let After::Fixed(after) = route.hedge?.after else {
        return None;
    };
    let idle = route.timeouts.idle.map(|idle| (idle, ["timeouts", "idle"]));
    let (end, key) = [end_of_attempt(route), idle]
        .into_iter()
        .flatten()
        .min_by_key(|(time, _)| *time)?;
    if after < end {
        return None;
    }
    let message = format!(
        "a second endpoint would be asked after {}, but the first is given up after {}",
        text(after),
        text(end)
    );
    Some(
        Problem::warning(item.span(&["hedge", "after"]), message)
            .code(Code::HEDGE_TOO_LATE)
            .label("never comes")
            .related(item.span(&key), "comes first")
            .help("write a time in which most answers are there, well below the limit, or `p95`"),
    )
}

fn timeout_retried(route: &Route, item: Item<'_>) -> Option<Problem> {
    let retry = route.retry.as_ref()?;
    let on = item.at(&["retry", "on"])?;
    if route.timeouts.attempt.is_some() || retry.attempts < 2 {
        return None;
    }
    let word = on.items().find(|word| word.text() == Some("timeout"))?;
    let idle = match route.timeouts.idle {
        None if is_grpc_only(route) => None,
        idle => Some(idle.unwrap_or(IDLE)),
    };
    let (why, related): (&str, Option<(Span, &str)>) = match (idle, route.timeouts.request) {
        (Some(idle), Some(request)) if request <= idle => (
            "the request as a whole ends before an attempt does",
            Some((item.span(&REQUEST), "ends everything")),
        ),
        (None, _) => ("nothing limits an attempt", None),
        _ => return None,
    };
    let message = format!("a timeout is never tried again here: {why}");
    let mut problem = Problem::warning(word.span(), message)
        .code(Code::TIMEOUT_NEVER_RETRIED)
        .label("never happens")
        .help("give attempts a limit, such as `timeouts: {attempt: 2s}`, or take `timeout` out");
    if let Some((span, label)) = related {
        problem = problem.related(span, label);
    }
    Some(problem)
}

fn connect(scene: &Scene<'_>, route: &Route, item: Item<'_>, exit: Exit<'_>) -> Option<Problem> {
    let connect = exit.upstream.settings.timeouts.connect.0;
    let (end, key) = end_of_attempt(route)?;
    if connect <= end {
        return None;
    }
    let upstream = scene.upstream(exit.name, exit.upstream);
    let said = match upstream.at(&["timeouts", "connect"]) {
        Some(_) => "may take",
        None => "may take, by default,",
    };
    let message = format!(
        "connecting to `{}` {said} {}, but {} ends after {}: an endpoint that cannot be reached looks slow",
        exit.name,
        text(connect),
        if key == ATTEMPT {
            "an attempt"
        } else {
            "the request"
        },
        text(end)
    );
    Some(
        Problem::warning(item.span(&key), message)
            .code(Code::CONNECT_OUTLASTS_ATTEMPT)
            .label("ends before `connect` does")
            .related(
                upstream.span(&["timeouts", "connect"]),
                format!("connecting may take {}", text(connect)),
            )
            .help(format!(
                "write `timeouts: {{connect: {}}}` or less in the upstream `{}`",
                text(round(end / 2)),
                exit.name
            )),
    )
}

fn queue(scene: &Scene<'_>, route: &Route, item: Item<'_>, exit: Exit<'_>) -> Option<Problem> {
    let request = route.timeouts.request?;
    let limits = &exit.upstream.settings.limits;
    let wait = limits.queue_timeout.0;
    let is_limited = limits.requests.is_some() || limits.connections.is_some();
    if !is_limited || limits.queue == 0 || wait < request {
        return None;
    }
    let upstream = scene.upstream(exit.name, exit.upstream);
    let message = format!(
        "a request may wait {} for room at `{}`, and ends after {}: it times out where it should be refused",
        text(wait),
        exit.name,
        text(request)
    );
    Some(
        Problem::warning(item.span(&REQUEST), message)
            .code(Code::QUEUE_OUTLASTS_REQUEST)
            .related(
                upstream.span(&["limits", "queue_timeout"]),
                format!("the wait may take {}", text(wait)),
            )
            .help(format!(
                "write `queue_timeout: {}` or less, so that time is left for the answer",
                text(round(request / 4))
            )),
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PUBLIC, check as found};
    use super::*;

    /// A route with these settings, to an upstream with those.
    fn yaml(route: &str, upstream: &str) -> String {
        format!(
            "{PUBLIC}routes: [{{name: a, match: {{path: /}}, upstream: u, {route}}}]\n\
             upstreams: {{u: {{endpoints: [\"127.0.0.1:9001\"], {upstream}}}}}\n"
        )
    }

    #[track_caller]
    fn check(route: &str, upstream: &str, expected: Option<(Code, &str)>) {
        found(&yaml(route, upstream), expected);
    }

    #[test]
    fn attempts_must_fit_into_the_request_where_timeouts_are_tried_again() {
        let check = |route: &str, at: Option<&str>| {
            check(route, "", at.map(|at| (Code::ATTEMPTS_OUTLAST_REQUEST, at)));
        };
        check(
            "timeouts: {request: 10s, attempt: 5s}, retry: {on: timeout}",
            Some("5s"),
        );
        check(
            "timeouts: {request: 10s, attempt: 3s}, retry: {on: timeout}",
            None,
        );
        check(
            "timeouts: {request: 9s, attempt: 3s}, retry: {on: timeout}",
            None,
        );
        check(
            "timeouts: {request: 10s, attempt: 5s}, retry: {on: 503}",
            None,
        );
        check(
            "timeouts: {request: 10s, attempt: 5s}, retry: {on: timeout, attempts: 1}",
            None,
        );
        check(
            "timeouts: {request: 6s, attempt: 3s}, retry: {attempts: 2, on: [timeout], backoff: 1s}",
            Some("3s"),
        );
        check("timeouts: {attempt: 5s}, retry: {on: timeout}", None);
    }

    #[test]
    fn silence_must_not_end_an_attempt_before_its_limit() {
        let code = Code::IDLE_ENDS_ATTEMPT;
        check("timeouts: {attempt: 20s, idle: 5s}", "", Some((code, "5s")));
        check("timeouts: {attempt: 5s, idle: 5s}", "", None);
        check("timeouts: {attempt: 90s}", "", None);
        check("timeouts: {idle: 5s}", "", None);
    }

    #[test]
    fn a_hedge_must_come_before_the_end() {
        let check = |route: &str, at: Option<&str>| {
            check(route, "", at.map(|at| (Code::HEDGE_TOO_LATE, at)));
        };
        check("timeouts: {attempt: 1s}, hedge: {after: 2s}", Some("2s"));
        check("timeouts: {request: 2s}, hedge: {after: 2s}", Some("2s"));
        check("timeouts: {idle: 3s}, hedge: {after: 4s}", Some("4s"));
        check("timeouts: {attempt: 1s}, hedge: {after: 50ms}", None);
        check("timeouts: {attempt: 1s}, hedge: {after: p95}", None);
        check("hedge: {after: 1h}", None);
    }

    #[test]
    fn a_timeout_is_only_tried_again_where_an_attempt_has_one() {
        let check = |route: &str, at: Option<&str>| {
            check(route, "", at.map(|at| (Code::TIMEOUT_NEVER_RETRIED, at)));
        };
        check(
            "timeouts: {request: 15s}, retry: {on: [503, timeout]}",
            Some("timeout"),
        );
        check(
            "timeouts: {request: 15s, idle: 20s}, retry: {on: timeout}",
            Some("timeout"),
        );
        check(
            "timeouts: {request: 15s, idle: 2s}, retry: {on: timeout}",
            None,
        );
        check(
            "timeouts: {request: 15s, attempt: 2s}, retry: {on: timeout}",
            None,
        );
        check("timeouts: {request: 5m}, retry: {on: timeout}", None);
        check("retry: {on: timeout}", None);
        check("timeouts: {request: 15s}, retry: {}", None);
    }

    #[test]
    fn connecting_must_not_take_longer_than_what_it_is_for() {
        let code = Code::CONNECT_OUTLASTS_ATTEMPT;
        check(
            "timeouts: {attempt: 2s}",
            "timeouts: {connect: 3s}",
            Some((code, "2s")),
        );
        check("timeouts: {attempt: 500ms}", "", Some((code, "500ms")));
        check("timeouts: {request: 500ms}", "", Some((code, "500ms")));
        check(
            "timeouts: {attempt: 500ms}",
            "timeouts: {connect: 250ms}",
            None,
        );
        check("timeouts: {attempt: 1s, request: 3s}", "", None);
        check("", "timeouts: {connect: 1h}", None);
    }

    #[test]
    fn a_wait_for_room_must_end_before_the_request() {
        let code = Code::QUEUE_OUTLASTS_REQUEST;
        let short = "timeouts: {request: 1s}";
        check(short, "limits: {requests: 5}", Some((code, "1s")));
        check(
            short,
            "limits: {connections: 5, queue_timeout: 3s}",
            Some((code, "1s")),
        );
        check(short, "limits: {requests: 5, queue_timeout: 200ms}", None);
        check(short, "limits: {requests: 5, queue: 0}", None);
        check("timeouts: {request: 15s}", "limits: {requests: 5}", None);
        check("", "limits: {requests: 5}", None);
    }

    #[test]
    fn of_grpc_alone_silence_is_no_timeout() {
        let grpc = |timeouts: &str| {
            format!(
                "{PUBLIC}routes: [{{name: a, match: {{grpc: {{service: a.B}}}}, upstream: u, retry: {{on: [timeout, closed]}}{timeouts}}}]\n\
                 upstreams: {{u: {{endpoints: [\"127.0.0.1:9001\"], protocol: http2}}}}\n"
            )
        };
        found(&grpc(""), Some((Code::TIMEOUT_NEVER_RETRIED, "timeout")));
        found(&grpc(", timeouts: {idle: 9s}"), None);
    }
}
