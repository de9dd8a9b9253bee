//! Upstreams whose endpoint is a listener of this gateway: both ends are known, so they can be compared.

use std::net::IpAddr;

use super::scene::{Exit, Scene, text};
use crate::base::address::Address;
use crate::base::code::Code;
use crate::base::problem::Problem;
use crate::config::{Listener, Route, Target};
use crate::upstream::{self, EndpointSettings};

pub(super) fn check(scene: &Scene<'_>, found: &mut Vec<Problem>) {
    for (name, upstream) in &scene.config.upstreams {
        let endpoints = upstream.settings.endpoints.iter().flatten();
        for (number, endpoint) in endpoints.enumerate() {
            for (at, listener) in scene.config.listeners.iter().enumerate() {
                if !is_ours(endpoint, &listener.address) {
                    continue;
                }
                let item = scene.upstream(name, upstream);
                let endpoint = item.nth("endpoints", number);
                let idle = upstream.settings.pool.idle_timeout.0;
                let theirs = listener.limits.idle_timeout;
                if idle >= theirs {
                    let problem = Problem::warning(
                        item.span(&["pool", "idle_timeout"]),
                        format!(
                            "connections of `{name}` are kept for {}, but the listener `{}` closes them after {}: a request may meet a closing one",
                            text(idle),
                            listener.name,
                            text(theirs)
                        ),
                    )
                    .code(Code::POOL_OUTLASTS_LISTENER)
                    .related(scene.listener(listener).span(&["limits", "idle_timeout"]), "the listener's side")
                    .help("write a shorter `pool: {idle_timeout: …}`: who sends closes first");
                    found.push(match endpoint {
                        Some(endpoint) => problem.related(endpoint.span(), "this is the listener"),
                        None => problem,
                    });
                }
                retries(scene, name, at, found);
            }
        }
    }
}

/// Whether an endpoint is a listener, for sure.
pub(super) fn is_ours(endpoint: &EndpointSettings, listener: &Address) -> bool {
    let (ip, port) = match (&endpoint.address, listener) {
        (upstream::Target::Address(Address::Unix(path)), Address::Unix(own)) => return path == own,
        (upstream::Target::Address(Address::Tcp(address)), _) => {
            (Some(address.ip()), address.port())
        }
        // What is resolved elsewhere may be anybody, but for this name.
        (upstream::Target::Name { host, port }, _) if host == "localhost" => (None, *port),
        _ => return false,
    };
    let Some(own) = listener.tcp() else {
        return false;
    };
    if own.port() != port || port == 0 {
        return false;
    }
    match (ip, own.ip()) {
        // A listener for every address has also that of this machine.
        (Some(ip), IpAddr::V4(any)) if any.is_unspecified() => ip.is_ipv4() && ip.is_loopback(),
        (Some(ip), IpAddr::V6(any)) if any.is_unspecified() => ip.is_ipv6() && ip.is_loopback(),
        (Some(ip), own) => ip == own,
        // The IPv4 address of a name comes first.
        (None, IpAddr::V4(own)) => own.is_unspecified() || own.is_loopback(),
        (None, IpAddr::V6(_)) => false,
    }
}

/// The listener that an exit leads back to.
pub(super) fn own_listener<'c>(scene: &Scene<'c>, exit: Exit<'_>) -> Option<(usize, &'c Listener)> {
    let endpoints = exit.upstream.settings.endpoints.as_ref()?;
    let mut listeners = scene.config.listeners.iter().enumerate();
    listeners.find(|(_, listener)| {
        endpoints
            .iter()
            .any(|endpoint| is_ours(endpoint, &listener.address))
    })
}

/// Attempts of a route that a section asks for.
fn attempts(route: &Route) -> Option<u32> {
    let attempts = route.retry.as_ref()?.attempts;
    (attempts > 1).then_some(attempts)
}

/// Routes that try again what routes behind them try again, too.
fn retries(scene: &Scene<'_>, name: &str, listener: usize, found: &mut Vec<Problem>) {
    let behind: Vec<&Route> = scene
        .config
        .routes
        .iter()
        .filter(|route| route.listeners.contains(&listener))
        .filter(|route| {
            let mut backends = route.backends.iter();
            backends.any(|backend| matches!(backend.target, Target::Upstream(_)))
        })
        .collect();
    // Which of them a request takes is not known: all must try again.
    let Some(least) = behind.iter().map(|route| attempts(route)).min().flatten() else {
        return;
    };
    for route in &scene.config.routes {
        let Some(first) = attempts(route) else {
            continue;
        };
        let is_behind = behind.iter().any(|other| other.name == route.name);
        if is_behind || !scene.exits(route).iter().any(|exit| exit.name == name) {
            continue;
        }
        let Some(second) = behind.iter().find(|route| attempts(route) == Some(least)) else {
            continue;
        };
        let item = scene.route(route);
        let message = format!(
            "one request may become {}: the route `{}` tries {first} times what the route `{}` behind its upstream tries {least} times",
            first.saturating_mul(least),
            route.name,
            second.name
        );
        let problem = Problem::warning(item.span(&["retry", "attempts"]), message)
            .code(Code::RETRIES_MULTIPLY)
            .label("tries again")
            .related(scene.route(second).span(&["retry", "attempts"]), "tries again, too")
            .help("let one of them try again, best the one next to the service: write `retry: {attempts: 1}` in the other");
        found.push(problem);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn an_endpoint_is_ours_where_no_doubt_is_left() {
        let rows = |endpoint: &str, listener: &str, expected: bool| {
            let endpoint: EndpointSettings =
                serde_json::from_value(endpoint.into()).expect("an endpoint");
            let listener: Address = listener.parse().expect("an address");
            assert_eq!(
                is_ours(&endpoint, &listener),
                expected,
                "{endpoint:?} {listener}"
            );
        };
        rows("127.0.0.1:8081", "127.0.0.1:8081", true);
        rows("127.0.0.1:8081", "0.0.0.0:8081", true);
        rows("10.0.0.1:8081", "0.0.0.0:8081", false);
        rows("10.0.0.1:8081", "10.0.0.1:8081", true);
        rows("127.0.0.1:8082", "127.0.0.1:8081", false);
        rows("[::1]:8081", "[::]:8081", true);
        rows("127.0.0.1:8081", "[::]:8081", false);
        rows("localhost:8081", "127.0.0.1:8081", true);
        rows("localhost:8081", "10.0.0.1:8081", false);
        rows("orders:8081", "0.0.0.0:8081", false);
        rows("unix:/run/a.sock", "unix:/run/a.sock", true);
        rows("unix:/run/a.sock", "unix:/run/b.sock", false);
    }

    /// A route on `public` to the listener `inner`, behind which another leads to a service.
    #[track_caller]
    fn chain(outer: &str, inner: &str, pool: &str, expected: Option<(Code, &str)>) {
        let yaml = format!(
            "listeners:\n  - {{name: public, address: \"0.0.0.0:8080\"}}\n  - {{name: inner, address: \"127.0.0.1:8081\"}}\n\
             routes:\n  - {{name: outer, listeners: [public], match: {{path_prefix: /}}, upstream: inner, {outer}}}\n  \
             - {{name: inner, listeners: [inner], match: {{path_prefix: /}}, upstream: app, {inner}}}\n\
             upstreams:\n  inner: {{endpoints: [\"127.0.0.1:8081\"], {pool}}}\n  app: {{endpoints: [\"127.0.0.1:9001\"]}}\n"
        );
        check(&yaml, expected);
    }

    #[test]
    fn attempts_multiply_along_a_chain() {
        let code = Code::RETRIES_MULTIPLY;
        chain("retry: {attempts: 4}", "retry: {}", "", Some((code, "4")));
        chain("retry: {}", "retry: {}", "", Some((code, "{}")));
        chain("retry: {attempts: 1}", "retry: {}", "", None);
        chain("retry: {}", "retry: {attempts: 1}", "", None);
        chain("retry: {}", "", "", None);
    }

    #[test]
    fn who_sends_closes_first() {
        let code = Code::POOL_OUTLASTS_LISTENER;
        chain("", "", "pool: {idle_timeout: 2m}", Some((code, "2m")));
        chain("", "", "pool: {idle_timeout: 30s}", None);
        chain("", "", "", None);
    }
}
