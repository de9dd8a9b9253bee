//! Which route, which chains, which backend: what is decided before anything is sent.

use http::{HeaderValue, Method, header};

use crate::base::message::{Request, RequestHead, Response};
use crate::middleware::{Chain, Outcome};
use crate::proxy::context::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::witness::Hook;
use crate::routing::{Found, Table};
use crate::snapshot::{Backend, Route, Snapshot};
use crate::telemetry::decision::Flag;

/// The chains around a request, the outermost first: the listener's, the route's, the backend's.
///
/// A request that no route takes has the listener's alone, so that its answer, too, has an id, the
/// right pages and the headers that browsers ask for.
pub(crate) type Chains<'a> = [Option<&'a Chain>; 3];

/// A request that goes to no backend, though a route may have to do with it.
pub(crate) struct Unrouted {
    /// Boxed, for every request's future has room for one.
    pub failure: Box<Failure>,
    /// The route that it counts for: its own that refuses it, or that of the request which a
    /// browser asks leave for.
    pub route: Option<usize>,
    /// The same, where its chain may still have an answer.
    pub through: Option<usize>,
}

impl From<Failure> for Unrouted {
    fn from(failure: Failure) -> Self {
        Self {
            failure: Box::new(failure),
            route: None,
            through: None,
        }
    }
}

/// Finds the route.
///
/// # Errors
/// 404, 405 with what the path does allow, or 503 where the process has no room for the route's
/// requests.
pub(crate) fn route(exchange: &Exchange, head: &mut RequestHead) -> Result<usize, Unrouted> {
    let table = &exchange.listener().table;
    match table.find(head) {
        Found::Route { route, params, .. } => {
            head.params = params;
            let route = route as usize;
            spare(exchange, route)?;
            Ok(route)
        }
        Found::MethodNotAllowed { allow } => {
            let failure = Failure::method_not_allowed(head.method(), allow);
            let asked_for = preflight(table, head);
            Err(Unrouted {
                failure: Box::new(failure),
                route: asked_for,
                through: asked_for,
            })
        }
        Found::None => Err(Failure::no_route().into()),
    }
}

/// Refuses a request that the process cannot afford.
///
/// Refusing must cost less than serving, so the route's chain, which may ask others, is passed by.
fn spare(exchange: &Exchange, route: usize) -> Result<(), Unrouted> {
    let pressure = exchange.local.pressure.load();
    let priority = exchange.view.snapshot.route(route).priority;
    if !pressure.level.sheds(priority) {
        return Ok(());
    }
    let mut failure = Failure::of(Flag::Overflow, pressure.in_words(priority));
    failure.header = Some((header::RETRY_AFTER, HeaderValue::from_static("1")));
    Err(Unrouted {
        failure: Box::new(failure),
        route: Some(route),
        through: None,
    })
}

/// The route of the request that a CORS preflight (Fetch standard, 3.2.2) asks leave for: its `cors`
/// middleware answers, though the route itself takes no OPTIONS.
fn preflight(table: &Table, head: &mut RequestHead) -> Option<usize> {
    if head.method() != Method::OPTIONS || !head.headers.contains(header::ORIGIN) {
        return None;
    }
    let asked = head.header(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    let asked = Method::from_bytes(asked.as_bytes()).ok()?;
    head.set_method(asked);
    let found = table.find(head);
    head.set_method(Method::OPTIONS);
    match found {
        Found::Route { route, .. } => Some(route as usize),
        Found::MethodNotAllowed { .. } | Found::None => None,
    }
}

/// Which of a route's backends takes the request, and its place; `random` is uniform and decides
/// where nothing of the request does.
///
/// # Errors
/// When every weight is 0.
pub(crate) fn backend<'a>(
    route: &'a Route,
    head: &RequestHead,
    random: u64,
) -> Result<(usize, &'a Backend), Failure> {
    route.backend(head, random).ok_or_else(|| {
        Failure::of(
            Flag::NoHealthyEndpoint,
            "every backend of the route has weight 0",
        )
    })
}

/// The chains that stand around the backend.
pub(crate) fn chains<'a>(
    snapshot: &'a Snapshot,
    listener: usize,
    route: Option<usize>,
    backend: Option<&'a Backend>,
) -> Chains<'a> {
    [
        Some(&snapshot.listener(listener).chain),
        route.map(|route| &snapshot.route(route).chain),
        backend.map(|backend| &backend.chain),
    ]
    .map(|chain| chain.filter(|chain| !chain.is_empty()))
}

/// How far down a request came: so many chains whole, and so many middlewares of the next.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Depth {
    chains: usize,
    within: usize,
}

/// Runs the request hooks; a response means that a middleware has answered.
pub(crate) async fn down(
    chains: &Chains<'_>,
    exchange: &mut Exchange,
    request: &mut Request,
) -> (Depth, Option<Box<Response>>) {
    if exchange.local.witness.is_some() {
        return Box::pin(down_watched(chains, exchange, request)).await;
    }
    for (place, chain) in chains.iter().enumerate() {
        let Some(chain) = chain else {
            continue;
        };
        if let Outcome::Answer { response, at } =
            chain.run_down(request, &mut exchange.hooks()).await
        {
            let depth = Depth {
                chains: place,
                within: at,
            };
            return (depth, Some(response));
        }
    }
    let depth = Depth {
        chains: chains.len(),
        within: 0,
    };
    (depth, None)
}

/// The same, one by one, so that a witness sees what each of them does.
async fn down_watched(
    chains: &Chains<'_>,
    exchange: &mut Exchange,
    request: &mut Request,
) -> (Depth, Option<Box<Response>>) {
    for (place, chain) in chains.iter().enumerate() {
        let Some(chain) = chain else {
            continue;
        };
        for (at, (label, middleware)) in chain.iter().enumerate() {
            let (before, noted) = (request.head.copy(), exchange.decision.notes.len());
            let answer = chain.step_down(at, request, &mut exchange.hooks()).await;
            if let Some(witness) = &exchange.local.witness {
                witness.passed(&Hook {
                    chain: place,
                    label,
                    about: middleware.about(&before),
                    before: &before,
                    after: &request.head,
                    notes: exchange.decision.notes.get(noted..).unwrap_or_default(),
                    answer: answer.as_deref(),
                });
            }
            if answer.is_some() {
                let depth = Depth {
                    chains: place,
                    within: at,
                };
                return (depth, answer);
            }
        }
    }
    let depth = Depth {
        chains: chains.len(),
        within: 0,
    };
    (depth, None)
}

/// Runs the response hooks of all that the request has passed, in reverse.
pub(crate) async fn up(
    chains: &Chains<'_>,
    depth: Depth,
    exchange: &mut Exchange,
    response: &mut Response,
) {
    for (place, chain) in chains.iter().enumerate().rev() {
        let Some(chain) = chain else {
            continue;
        };
        let count = match place.cmp(&depth.chains) {
            std::cmp::Ordering::Less => chain.len(),
            std::cmp::Ordering::Equal => depth.within,
            std::cmp::Ordering::Greater => 0,
        };
        if count > 0 {
            chain.run_up(count, response, &mut exchange.hooks()).await;
        }
    }
}
