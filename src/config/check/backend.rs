//! Where routes send: one handler, one upstream, or several of them by weight.

use std::sync::Arc;

use super::House;
use super::chain::Owner;
use crate::base::code::Code;
use crate::base::problem::{Problem, Span, Spanned};
use crate::config::de::{Held, Within};
use crate::config::raw::{self, NameOr};
use crate::config::types::{Backend, Handler, Mirror, Target};
use crate::handler;

/// As in the Gateway API; the sum of all stays within reach.
const MOST_WEIGHT: u32 = 1_000_000;

type HandlerRef = Held<NameOr<handler::Settings>>;
type UpstreamRef = Spanned<String>;

/// The three ways to say where a route sends.
pub(super) type Written = (
    Option<HandlerRef>,
    Option<UpstreamRef>,
    Option<Spanned<Vec<Spanned<raw::Backend>>>>,
);

/// The backends of the route of that name; none if any of them is wrong.
pub(super) fn settle(
    route: (&str, Span),
    written: Written,
    house: &mut House<'_>,
) -> Option<Vec<Backend>> {
    let (name, span) = route;
    let place = format!("routes/{name}");
    let target = match written {
        (None, None, Some(backends)) => return several(name, backends, house),
        (Some(handler), None, None) => by_handler(handler, &place, house),
        (None, Some(upstream), None) => by_upstream(upstream, house),
        (None, None, None) => {
            let message = format!("the route `{name}` sends nowhere");
            house.report(
                Problem::error(span, message)
                    .help("give it one of `handler`, `upstream`, `backends`"),
            );
            None
        }
        (handler, upstream, backends) => {
            let handler = handler.map(|handler| (handler.span, "handler"));
            let upstream = upstream.map(|upstream| (upstream.span, "upstream"));
            let backends = backends.map(|backends| (backends.span, "backends"));
            house.report(too_many(
                &format!("the route `{name}`"),
                [handler, upstream, backends],
            ));
            None
        }
    };
    Some(vec![Backend {
        target: target?,
        weight: 1,
        middlewares: Vec::new(),
    }])
}

fn several(
    name: &str,
    backends: Spanned<Vec<Spanned<raw::Backend>>>,
    house: &mut House<'_>,
) -> Option<Vec<Backend>> {
    if backends.value.is_empty() {
        let message = format!("the route `{name}` has an empty list of backends");
        house.report(Problem::error(backends.span, message));
        return None;
    }
    let count = backends.value.len();
    let settled: Vec<_> = backends
        .value
        .into_iter()
        .enumerate()
        .filter_map(|(number, backend)| {
            one(&format!("routes/{name}/backends/{number}"), backend, house)
        })
        .collect();
    if settled.len() < count {
        return None;
    }
    if settled.iter().all(|backend| backend.weight == 0) {
        let message =
            format!("every weight of the route `{name}` is 0: its requests are answered 500");
        house.report(
            Problem::warning(backends.span, message)
                .code(Code::NO_WEIGHT)
                .help("give one of them a weight of 1 or more, or remove the route"),
        );
    }
    Some(settled)
}

fn one(place: &str, backend: Spanned<raw::Backend>, house: &mut House<'_>) -> Option<Backend> {
    let Spanned {
        value:
            raw::Backend {
                upstream,
                handler,
                weight,
                middlewares,
            },
        span,
    } = backend;
    if let Some(weight) = weight.as_ref().filter(|weight| weight.value > MOST_WEIGHT) {
        house.report(Problem::error(
            weight.span,
            format!("a weight may be {MOST_WEIGHT} at most"),
        ));
    }
    let middlewares = house.chains.flatten(&Owner::Place(place), middlewares);
    let target = match (upstream, handler) {
        (Some(upstream), None) => by_upstream(upstream, house),
        (None, Some(handler)) => by_handler(handler, place, house),
        (None, None) => {
            house.report(Problem::error(
                span,
                "a backend has one of `upstream`, `handler`",
            ));
            None
        }
        (Some(upstream), Some(handler)) => {
            let both = [
                Some((upstream.span, "upstream")),
                Some((handler.span, "handler")),
                None,
            ];
            house.report(too_many("a backend", both));
            None
        }
    };
    let weight = weight.map_or(1, |weight| weight.value);
    Some(Backend {
        target: target?,
        weight,
        middlewares: middlewares?,
    })
}

/// Who gets copies; none if any of the names is unknown.
pub(super) fn mirrors(written: Vec<raw::Mirror>, house: &House<'_>) -> Option<Vec<Mirror>> {
    let count = written.len();
    let known = written
        .into_iter()
        .filter(|mirror| house.upstream_names.find(&mirror.upstream, house.reading));
    let mirrors: Vec<_> = known
        .map(|mirror| Mirror {
            upstream: Arc::from(mirror.upstream.value),
            share: mirror.share.map_or(1.0, |share| share.0),
        })
        .collect();
    (mirrors.len() == count).then_some(mirrors)
}

/// Two or more ways where one is due.
fn too_many(who: &str, given: [Option<(Span, &'static str)>; 3]) -> Problem {
    let mut given: Vec<_> = given.into_iter().flatten().collect();
    given.sort_by_key(|(span, _)| span.start);
    let names: Vec<_> = given.iter().map(|(_, key)| format!("`{key}`")).collect();
    let message = format!(
        "{who} has {}: it can have only one of them",
        names.join(" and ")
    );
    let mut places = given.iter().rev();
    let problem = Problem::error(places.next().map(|(span, _)| *span), message);
    places.fold(problem, |problem, (span, key)| {
        problem.related(*span, format!("`{key}` is here"))
    })
}

fn by_upstream(name: UpstreamRef, house: &House<'_>) -> Option<Target> {
    let is_known = house.upstream_names.find(&name, house.reading);
    is_known.then(|| Target::Upstream(Arc::from(name.value)))
}

fn by_handler(handler: HandlerRef, place: &str, house: &House<'_>) -> Option<Target> {
    let Held {
        value,
        span,
        fingerprint,
    } = handler;
    let settings = match value {
        NameOr::InPlace(settings) => settings,
        NameOr::Name(name) if house.handler_names.uses(&name) => {
            let handler = house.handlers.get(name.as_str())?.as_ref()?;
            return Some(Target::Handler(Arc::clone(handler)));
        }
        NameOr::Name(kind) => bare(&kind, span, house)?,
    };
    let label = Arc::from(settings.label());
    let handler: Arc<Handler> = house.handler(
        Held {
            value: settings,
            span,
            fingerprint,
        },
        Arc::from(place),
        label,
    );
    Some(Target::Handler(handler))
}

fn bare(kind: &str, span: Span, house: &House<'_>) -> Option<handler::Settings> {
    let kinds = handler::Settings::kinds();
    if kinds.contains(&kind) {
        return house.reading.bare(kind, span, Within::Key("handler"));
    }
    house
        .handler_names
        .report_unknown(kind, span, kinds, house.reading);
    None
}
