//! What must come of a request, and what can not.

use std::sync::Arc;

use super::{Scene, check_once};
use crate::base::problem::{Problem, Spanned};
use crate::base::values::Name;
use crate::config::raw::test as raw;
use crate::config::test::{Expect, HeaderIs, OrNone, Request, Sent, Share};
use crate::config::types::{Route, Target};
use crate::handler;
use crate::routing::condition::ValueMatch;

/// How a name says that there is none.
const NONE: &str = "none";

type Expected = Option<Spanned<OrNone<Arc<str>>>>;

pub(super) fn settle(
    written: raw::Expect,
    request: &Request,
    repeat: u32,
    scene: &Scene<'_>,
) -> Expect {
    let raw::Expect {
        route,
        upstream,
        handler,
        middleware,
        status,
        flag,
        headers,
        body,
        sent,
        attempts,
        within,
        shares,
    } = written;
    let (house, reading) = (scene.house, scene.house.reading);
    let route = settle_name(route, |name| {
        scene.route_names.knows(name, reading);
    });
    let upstream = settle_name(upstream, |name| {
        house.upstream_names.knows(name, reading);
    });
    let handler = settle_name(handler, |name| scene.check_handler(name));
    let middleware = settle_name(middleware, |name| scene.check_middleware(name));
    check_way(&route, &upstream, &handler, scene);
    check_listener(&route, request, scene);
    if let Some((name, _)) = shares.0.first().filter(|_| repeat < 2) {
        let message = "shares are of requests that are repeated";
        scene.report(
            Problem::error(name.span, message).help("write `repeat: 1000` beside `request`"),
        );
    }
    Expect {
        route,
        upstream,
        handler,
        middleware,
        status: status.map(|status| Spanned::new(status.value.0, status.span)),
        flag: flag.map(|flag| Spanned::new(flag.value.0, flag.span)),
        headers: settle_headers(headers, scene),
        body,
        sent: Sent {
            method: sent
                .method
                .map(|method| Spanned::new(method.value.0, method.span)),
            path: sent.path,
            host: sent.host,
            headers: settle_headers(sent.headers, scene),
        },
        attempts,
        within: within.map(|within| Spanned::new(within.value.0, within.span)),
        shares: settle_shares(shares, scene),
    }
}

fn settle_name(written: Option<Spanned<String>>, check: impl FnOnce(&Spanned<String>)) -> Expected {
    let written = written?;
    if written.value == NONE {
        return Some(Spanned::new(OrNone::None, written.span));
    }
    check(&written);
    let name = Arc::from(written.value);
    Some(Spanned::new(OrNone::Is(name), written.span))
}

fn named(expected: &Expected) -> Option<Spanned<&Arc<str>>> {
    let expected = expected.as_ref()?;
    let name = expected.value.as_option()?;
    Some(Spanned::new(name, expected.span))
}

/// A request goes one way: no route leads to two places, nor where it does not send.
fn check_way(route: &Expected, upstream: &Expected, handler: &Expected, scene: &Scene<'_>) {
    let to = [("upstream", named(upstream)), ("handler", named(handler))];
    let [(_, upstream), (_, handler)] = to;
    if let (Some(upstream), Some(handler)) = (upstream, handler) {
        let message = "a request is answered by an upstream or by a handler, never by both";
        scene.report(
            Problem::error(handler.span, message).related(upstream.span, "the upstream is here"),
        );
        return;
    }
    let Some(expected) = route else {
        return;
    };
    for (noun, to) in to {
        let Some(to) = to else {
            continue;
        };
        let name = &**to.value;
        let message = match &expected.value {
            OrNone::None => format!("without a route no {noun} gets the request"),
            OrNone::Is(route) => match scene.routes.iter().find(|of| of.name == *route) {
                Some(of) if !leads(of, name) => {
                    format!("the route `{route}` never sends to the {noun} `{name}`")
                }
                _ => continue,
            },
        };
        scene.report(Problem::error(to.span, message).related(expected.span, "the route is here"));
    }
}

/// True if the route has a backend of that name.
fn leads(route: &Route, name: &str) -> bool {
    route.backends.iter().any(|backend| match &backend.target {
        Target::Upstream(upstream) => **upstream == *name,
        Target::Handler(handler) => *handler.label == *name || handler.settings.kind() == name,
    })
}

/// The route can be taken by requests of that listener.
fn check_listener(route: &Expected, request: &Request, scene: &Scene<'_>) {
    let number = request.listener.unwrap_or(0);
    let (Some(expected), Some(listener)) = (named(route), scene.listeners.get(number)) else {
        return;
    };
    let route = scene.routes.iter().find(|of| of.name == *expected.value);
    if let Some(route) = route.filter(|route| !route.listeners.contains(&number)) {
        let message = format!(
            "the route `{}` is not for the listener `{}`, by which this request comes in",
            route.name, listener.name
        );
        scene.report(
            Problem::error(expected.span, message)
                .related(request.span, "the request")
                .help("say in the request which `listener` it is, if not the first one"),
        );
    }
}

fn settle_headers(
    written: raw::Pairs<Spanned<Name>, Spanned<ValueMatch>>,
    scene: &Scene<'_>,
) -> Vec<HeaderIs> {
    check_once(written.0.iter(), scene);
    let headers = written.0.into_iter();
    headers
        .map(|(name, is)| HeaderIs {
            name: name.value.0,
            is,
        })
        .collect()
}

fn settle_shares(
    written: raw::Pairs<Spanned<String>, Spanned<raw::Bounds>>,
    scene: &Scene<'_>,
) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::with_capacity(written.0.len());
    for (name, bounds) in written.0 {
        check_backend(&name, scene);
        let (min, max) = (bounds.value.min, bounds.value.max);
        if min.is_none() && max.is_none() {
            let message = "a share has at least one of `min`, `max`";
            scene.report(Problem::error(bounds.span, message));
        }
        let (min, max) = (
            min.map_or(0.0, |share| share.0),
            max.map_or(1.0, |share| share.0),
        );
        if min > max {
            let message = "no share is at least this `min` and at most this `max`";
            scene.report(Problem::error(bounds.span, message));
        }
        shares.push(Share {
            backend: Arc::from(name.value),
            min,
            max,
            span: name.span,
        });
    }
    let least: f64 = shares.iter().map(|share| share.min).sum();
    if let Some(last) = shares.last().filter(|_| least > 1.0 + 1e-9) {
        let message = "the least shares come to more than all requests";
        scene.report(Problem::error(last.span, message));
    }
    shares
}

/// A backend is an upstream or a handler.
fn check_backend(name: &Spanned<String>, scene: &Scene<'_>) {
    let text = name.value.as_str();
    let upstreams = &scene.house.upstream_names;
    if upstreams.has(text) {
        return;
    }
    let handlers = &scene.house.handler_names;
    let is_handler = handlers.has(text)
        || scene.handlers.contains(text)
        || handler::Settings::kinds().contains(&text);
    if is_handler {
        scene.check_handler(name);
        return;
    }
    let names = handlers.iter().map(|(name, _)| name);
    let known: Vec<&str> = names.chain(scene.handlers.iter().copied()).collect();
    upstreams.report_unknown(text, name.span, &known, scene.house.reading);
}
