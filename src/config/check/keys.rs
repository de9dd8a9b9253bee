//! Upstreams that are balanced by a parameter of the path, and routes that lead there without it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::code::Code;
use crate::base::key::KeySource;
use crate::base::problem::{Problem, Spanned};
use crate::config::de::Reading;
use crate::config::types::{Route, Target, Upstream};
use crate::routing::Match;

/// Warns of routes whose requests have no key for the balance of their upstream.
///
/// It is no error: several routes may share an upstream, and what has no key goes by chance.
pub(super) fn check(
    routes: &[Route],
    upstreams: &BTreeMap<Arc<str>, Upstream>,
    reading: &Reading<'_>,
) {
    for route in routes {
        let mut told: Vec<&str> = Vec::new();
        for backend in &route.backends {
            if let Target::Upstream(name) = &backend.target
                && let Some(upstream) = upstreams.get(name)
                && !told.contains(&&**name)
            {
                told.push(name);
                check_route(route, name, upstream, reading);
            }
        }
    }
}

fn check_route(route: &Route, name: &str, upstream: &Upstream, reading: &Reading<'_>) {
    let key = upstream.settings.balance.key();
    let Some(param) = key.and_then(KeySource::param) else {
        return;
    };
    let without = |of: &&Spanned<Match>| !of.has_param(param);
    if let Some(without) = route.matches.iter().find(without) {
        let message = format!(
            "the path of this match has no parameter `{param}`, by which the upstream `{name}` is balanced: its requests go by chance"
        );
        reading.report(
            Problem::warning(without.span, message)
                .code(Code::BALANCE_WITHOUT_KEY)
                .related(upstream.span, "the upstream")
                .help(format!(
                    "write `{{{param}}}` in its `path`, or balance by something else"
                )),
        );
    }
}
