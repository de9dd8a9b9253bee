//! Routes whose upstream brings their requests back to them.

use super::ourselves::own_listener;
use super::scene::Scene;
use crate::base::code::Code;
use crate::base::problem::Problem;
use crate::config::{Route, Step};

/// Kinds of middlewares that leave everything as it is that routes are chosen by.
const HARMLESS: [&str; 5] = [
    "request_id",
    "rate_limit",
    "body_limit",
    "cors",
    "error_pages",
];

pub(super) fn check(scene: &Scene<'_>, found: &mut Vec<Problem>) {
    for route in &scene.config.routes {
        for exit in scene.exits(route) {
            let Some((number, listener)) = own_listener(scene, exit) else {
                continue;
            };
            let steps = route.middlewares.iter().chain(&exit.backend.middlewares);
            let of_listeners = scene.config.listeners.iter();
            let steps = steps.chain(of_listeners.flat_map(|listener| &listener.middlewares));
            if !route.listeners.contains(&number)
                || !steps.into_iter().all(|step| is_harmless(step))
            {
                continue;
            }
            if !wins_again(scene, route, number) {
                continue;
            }
            let message = format!(
                "the upstream `{}` leads to the listener `{}`, where the route `{}` takes the request again: it goes in circles until it is answered 508",
                exit.name, listener.name, route.name
            );
            let upstream = scene.upstream(exit.name, exit.upstream);
            found.push(
                Problem::warning(exit.span, message)
                    .code(Code::ROUTE_TO_ITSELF)
                    .related(
                        upstream.span(&["endpoints"]),
                        "one of these is the listener",
                    )
                    .related(scene.listener(listener).span(&["address"]), "the listener")
                    .help(
                        "name the `listeners` that the route is for, or the service's own address",
                    ),
            );
        }
    }
}

fn is_harmless(step: &Step) -> bool {
    HARMLESS.contains(&step.settings.kind())
}

/// True if a request that took the route takes it on that listener, too: it wins there over the same
/// others, or over fewer.
fn wins_again(scene: &Scene<'_>, route: &Route, listener: usize) -> bool {
    let everywhere = scene.config.listeners.len();
    let others = scene
        .config
        .routes
        .iter()
        .filter(|other| other.name != route.name);
    others
        .filter(|other| other.listeners.contains(&listener))
        .all(|other| other.listeners.len() == everywhere)
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[track_caller]
    fn rows(listeners: &str, middlewares: &str, endpoint: &str, is_found: bool) {
        let yaml = format!(
            "listeners:\n  - {{name: public, address: \"0.0.0.0:8080\"}}\n  - {{name: inner, address: \"127.0.0.1:8081\"}}\n\
             routes:\n  - {{name: a, {listeners}match: {{path_prefix: /}}, middlewares: [{middlewares}], upstream: loop}}\n  \
             - {{name: b, match: {{path: /b}}, handler: echo}}\n\
             upstreams: {{loop: {{endpoints: [\"{endpoint}\"]}}}}\n"
        );
        check(&yaml, is_found.then_some((Code::ROUTE_TO_ITSELF, "loop")));
    }

    #[test]
    fn a_route_must_not_send_to_itself() {
        rows("", "", "127.0.0.1:8081", true);
        rows("", "request_id", "127.0.0.1:8081", true);
        rows("listeners: [public], ", "", "127.0.0.1:8080", true);
        rows("listeners: [public], ", "", "127.0.0.1:8081", false);
        rows("", "", "127.0.0.1:9001", false);
        rows("", "{rewrite: {path: /b}}", "127.0.0.1:8081", false);
        rows(
            "",
            "{set_headers: {request: {set: {x-a: b}}}}",
            "127.0.0.1:8081",
            false,
        );
    }
}
