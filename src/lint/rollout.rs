//! What a rollout does to requests that are under way.

use std::time::Duration;

use super::scene::{Item, Scene, text};
use crate::base::code::Code;
use crate::base::problem::Problem;
use crate::config::{Place, Route};

/// What a pod gets between TERM and KILL where its manifest does not say otherwise.
const GRACE: Duration = Duration::from_secs(30);

/// How many routes are shown.
const SHOWN: usize = 3;

pub(super) fn check(scene: &Scene<'_>, found: &mut Vec<Problem>) {
    // The default suits most; who writes a time has thought of one.
    let Some(drain) = scene
        .section("runtime")
        .and_then(|runtime| runtime.get("drain"))
    else {
        return;
    };
    found.extend(grace(scene.config.runtime.drain, drain));
    found.extend(requests(scene, drain));
}

fn grace(drain: Duration, written: Place<'_>) -> Option<Problem> {
    if drain <= GRACE {
        return None;
    }
    let message = format!(
        "requests get {} to finish, but Kubernetes kills a pod after {} unless its manifest says otherwise",
        text(drain),
        text(GRACE)
    );
    // Some seconds more, for the balancers that still send and for the end itself.
    let period = drain.as_secs().saturating_add(5);
    Some(
        Problem::warning(written.span(), message)
            .code(Code::DRAIN_OUTLASTS_GRACE)
            .help(format!(
                "write `terminationGracePeriodSeconds: {period}` in the pod and allow this here, or `drain: 25s`"
            )),
    )
}

/// One warning for all routes: it is one number that has to change.
fn requests(scene: &Scene<'_>, written: Place<'_>) -> Option<Problem> {
    let drain = scene.config.runtime.drain;
    let long: Vec<(&Route, Item<'_>, Duration)> = scene
        .config
        .routes
        .iter()
        .filter_map(|route| Some((route, scene.route(route), route.timeouts.request?)))
        .filter(|(.., request)| *request > drain)
        .collect();
    let (first, ..) = long.first()?;
    let longest = long.iter().map(|(.., request)| *request).max()?;
    let who = match long.len() {
        1 => format!("requests of the route `{}`", first.name),
        many => format!("requests of {many} routes"),
    };
    let message = format!(
        "{who} may take {}, but a stopping gateway waits for {} only: those that take longer are cut at every rollout",
        text(longest),
        text(drain)
    );
    let problem = Problem::warning(written.span(), message)
        .code(Code::REQUEST_OUTLASTS_DRAIN)
        .help("raise `drain` (and the pod's grace period), or lower `timeouts.request` of these routes");
    let places = long.iter().take(SHOWN);
    Some(places.fold(problem, |problem, (route, item, request)| {
        let label = format!("`{}` may take {}", route.name, text(*request));
        problem.related(item.span(&["timeouts", "request"]), label)
    }))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PUBLIC, check};
    use super::*;

    #[track_caller]
    fn rows(runtime: &str, request: &str, expected: Option<(Code, &str)>) {
        let yaml = format!(
            "runtime: {{{runtime}}}\n{PUBLIC}routes: [{{name: a, match: {{path: /}}, handler: echo, timeouts: {{request: {request}}}}}]\n"
        );
        check(&yaml, expected);
    }

    #[test]
    fn a_drain_must_fit_into_the_grace_period() {
        let code = Code::DRAIN_OUTLASTS_GRACE;
        rows("drain: 60s", "15s", Some((code, "60s")));
        rows("drain: 30s", "15s", None);
        rows("drain: 5s", "5s", None);
    }

    #[test]
    fn requests_must_fit_into_a_drain_that_is_written() {
        let code = Code::REQUEST_OUTLASTS_DRAIN;
        rows("drain: 5s", "15s", Some((code, "5s")));
        rows("drain: 15s", "15s", None);
        rows("zone: a", "10m", None);
    }
}
