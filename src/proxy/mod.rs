//! The life of one request, in the order in which it happens.
//!
//! [`serve`] reads like the list of rooms that a request passes. What is decided here is decided by
//! pure functions of the request's head and the snapshot; what is done is thin.

mod admit;
pub(crate) mod again;
mod attempt;
mod calls;
pub(crate) mod context;
mod decide;
mod failure;
mod forward;
mod hedge;
mod inform;
mod local;
mod mirror;
mod present;
mod record;
mod reply;
pub(crate) mod retry;
mod upgrade;
pub(crate) mod witness;

pub use local::{Entered, Local, Origin, Wire};
pub use reply::Tracked;

use std::borrow::Cow;
use std::rc::Rc;

use http::{Method, StatusCode, Uri};

use crate::base::message::{Request, RequestHead, Response};
use crate::proxy::admit::Wish;
use crate::proxy::context::Exchange;
use crate::proxy::decide::Unrouted;
use crate::telemetry::decision::Flag;

/// Answers a request.
///
/// # Cancel safety
/// Dropping the future, or the answer's body before its end, means that the client has left: work
/// on its behalf is cancelled, and the record says so.
pub async fn serve(
    local: &Rc<Local>,
    origin: Entered,
    request: &mut Request,
) -> http::Response<Tracked> {
    let Some((view, listener)) = origin.pin(local) else {
        return reply::nowhere();
    };
    let mut exchange = Exchange::open(local, origin, view, listener, &request.head);
    let routed = route(&exchange, &mut request.head);
    let route = match &routed {
        Ok((_, route)) => Some(*route),
        Err(unrouted) => unrouted.route,
    };
    exchange.routed(route, &request.head);
    if let Some(witness) = &local.witness {
        witness.routed(&exchange, route, &request.head);
    }
    let response = answer(&mut exchange, request, routed).await;
    reply::finish(exchange, response)
}

/// Lets the request in, and finds its route.
fn route(exchange: &Exchange, head: &mut RequestHead) -> Result<(Wish, usize), Unrouted> {
    let wish = exchange.admit(head)?;
    if let Some(witness) = &exchange.local.witness {
        witness.admitted(exchange, head);
    }
    Ok((wish, decide::route(exchange, head)?))
}

/// Down the chains, to the backend, and up again.
async fn answer(
    exchange: &mut Exchange,
    request: &mut Request,
    routed: Result<(Wish, usize), Unrouted>,
) -> Response {
    let view = Rc::clone(&exchange.view);
    let (routed, through) = match routed {
        Ok((wish, route)) => (Ok((wish, route)), Some(route)),
        Err(unrouted) => (Err(*unrouted.failure), unrouted.through),
    };
    let picked = routed.and_then(|(wish, place)| {
        let route = view.snapshot.route(place);
        let backend = decide::backend(route, &request.head, fastrand::u64(..))?;
        Ok((wish, place, backend))
    });
    let backend = picked.as_ref().ok().map(|(_, _, (_, backend))| *backend);
    let chains = decide::chains(&view.snapshot, exchange.listener, through, backend);
    exchange.hooked = chains.iter().any(Option::is_some);
    let (depth, answered) = decide::down(&chains, exchange, request).await;
    let outcome = match (answered, picked) {
        (Some(response), _) => Ok(*response),
        (None, Err(failure)) => Err(failure),
        (None, Ok((wish, route, backend))) => {
            let route = view.snapshot.route(route);
            forward::forward(exchange, request, wish, backend, route).await
        }
    };
    let mut response = outcome.unwrap_or_else(|failure| reply::of(exchange, failure));
    decide::up(&chains, depth, exchange, &mut response).await;
    response
}

/// Counts and logs bytes that never became a request.
pub fn record_refused(
    local: &Rc<Local>,
    origin: &Rc<Origin>,
    status: StatusCode,
    flag: Flag,
    detail: Cow<'static, str>,
) {
    let Some((view, listener)) = origin.pin(local) else {
        return;
    };
    let mut head = RequestHead::new(Method::GET, Uri::default());
    head.client.ip = origin.peer.map(|peer| peer.ip().to_canonical());
    let mut exchange = Exchange::open(local, origin.enter(), view, listener, &head);
    exchange.routed(None, &head);
    exchange.refused(status, flag, detail);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each request of HTTP/2 is a task of its own, and each connection of HTTP/1 keeps room for
    /// one: what stands here is paid in memory, and in copies of it.
    #[test]
    fn a_request_on_its_way_is_small() {
        fn size<'a, F>(_: impl FnOnce(&'a Rc<Local>, Entered, &'a mut Request) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(serve);
        assert!(size <= 1600, "{size}");
        let exchange = size_of::<Exchange>();
        assert!(exchange <= 480, "{exchange}");
    }
}
