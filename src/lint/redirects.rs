//! Redirects that send the client to where it is already.

use std::sync::Arc;

use super::scene::Scene;
use crate::base::code::Code;
use crate::base::problem::{Problem, Span};
use crate::base::template::PathTemplate;
use crate::config::{Route, Target};
use crate::handler::{self, redirect};
use crate::routing::Match;
use crate::routing::matcher::PathMatch;

pub(super) fn check(scene: &Scene<'_>, found: &mut Vec<Problem>) {
    for route in &scene.config.routes {
        for backend in &route.backends {
            let Target::Handler(handler) = &backend.target else {
                continue;
            };
            let handler::Settings::Redirect(redirect) = &handler.settings.value else {
                continue;
            };
            let back = route
                .matches
                .iter()
                .find(|of| leads_back(scene, route, &of.value, redirect));
            if let Some(back) = back {
                found.push(problem(route, handler.settings.span, back.span));
            }
        }
    }
}

fn problem(route: &Route, redirect: Span, back: Span) -> Problem {
    let message = format!(
        "this redirect leads back to the route `{}`: browsers give up after about twenty of them",
        route.name
    );
    Problem::warning(redirect, message)
        .code(Code::REDIRECT_TO_ITSELF)
        .related(back, "the target is taken by this match")
        .help("name another `path`, `host`, `port` or `scheme`, or match less")
}

/// True if a request that `of` has taken is taken by it again at the redirect's target.
fn leads_back(scene: &Scene<'_>, route: &Route, of: &Match, redirect: &redirect::Settings) -> bool {
    let is_elsewhere =
        redirect.host.is_some() || redirect.scheme.is_some() || redirect.port.is_some();
    // 303 asks for a GET, and without its query a request may be another one.
    let may_differ = !redirect.query && !of.query.0.is_empty()
        || of.methods.are_named() && redirect.status == redirect::RedirectStatus::SeeOther;
    if is_elsewhere || may_differ {
        return false;
    }
    match (&redirect.path, &redirect.path_prefix) {
        (None, None) => true,
        (None, Some(prefix)) => {
            prefix.from.trim_end_matches('/') == prefix.to.trim_end_matches('/')
        }
        (Some(path), _) => takes(scene, route, of, path),
    }
}

/// True if it is certain that a fixed path is taken by this match.
fn takes(scene: &Scene<'_>, route: &Route, of: &Match, path: &PathTemplate) -> bool {
    let Some(path) = path.is_static().filter(|path| !path.contains('?')) else {
        return false;
    };
    match &of.path {
        PathMatch::Literal(own) => **own == *path,
        PathMatch::Prefix(prefix) if is_below(path, prefix) => {
            let others = scene
                .config
                .routes
                .iter()
                .filter(|other| other.name != route.name && shares_listener(other, route));
            let mut matches = others.flat_map(|other| &other.matches);
            // Another route may be the more exact one for the target.
            !matches.any(|other| might_win(&other.value, path, prefix))
        }
        _ => false,
    }
}

fn shares_listener(one: &Route, other: &Route) -> bool {
    let mut listeners = one.listeners.iter();
    listeners.any(|listener| other.listeners.contains(listener))
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// True unless it is certain that a match takes no request at `path` away from a prefix.
fn might_win(other: &Match, path: &str, prefix: &Arc<str>) -> bool {
    match &other.path {
        PathMatch::Literal(literal) => **literal == *path,
        PathMatch::Template(_) => true,
        PathMatch::Prefix(longer) => is_below(path, longer) && longer.len() >= prefix.len(),
        PathMatch::Any | PathMatch::Regex(_) => !other.hosts.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PUBLIC, check};
    use super::*;

    #[track_caller]
    fn rows(matches: &str, redirect: &str, more: &str, is_found: bool) {
        let redirect = format!("{{redirect: {{{redirect}}}}}");
        let yaml = format!(
            "{PUBLIC}routes:\n  - {{name: a, match: {matches}, handler: {redirect}}}\n{more}"
        );
        check(
            &yaml,
            is_found.then_some((Code::REDIRECT_TO_ITSELF, redirect.as_str())),
        );
    }

    #[test]
    fn a_redirect_must_lead_away() {
        rows("{path: /a}", "path: /a", "", true);
        rows("{path: /a}", "status: 308", "", true);
        rows("{path: /a}", "path: /b", "", false);
        rows("{path: /a}", "path: /a, host: www.example.org", "", false);
        rows("{path_prefix: /}", "scheme: https", "", false);
        rows(
            "{path_prefix: /a}",
            "path_prefix: {from: /a, to: /a/}",
            "",
            true,
        );
        rows(
            "{path_prefix: /a}",
            "path_prefix: {from: /a, to: /b}",
            "",
            false,
        );
        rows("{path_prefix: /a}", "path: /a/new", "", true);
        rows("{path_prefix: /a}", "path: /ab", "", false);
        rows("{path_prefix: /a}", "path: \"/a/{{ host }}\"", "", false);
        rows(
            "{path: /a, query: {q: \"1\"}}",
            "path: /a, query: false",
            "",
            false,
        );
        rows(
            "{path: /a, method: POST}",
            "path: /a, status: 303",
            "",
            false,
        );
        let more = "  - {name: b, match: {path: /a/new}, handler: echo}\n";
        rows("{path_prefix: /a}", "path: /a/new", more, false);
    }
}
