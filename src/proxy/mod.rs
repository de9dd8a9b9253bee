//! The life of one request, in the order in which it happens.
//!
//! [`serve`] reads like the list of rooms that a request passes. What is decided here is decided by
//! pure functions of the request's head and the snapshot; what is done is thin.

mod admit;
mod calls;
mod context;
mod decide;
mod failure;
mod forward;
mod local;
mod reply;
mod upgrade;

pub use local::{Local, Origin, Wire};
pub use reply::Tracked;

use std::rc::Rc;

use http::StatusCode;

use crate::base::message::{Request, Response};
use crate::proxy::context::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::forward::Answer;
use crate::proxy::reply::Limits;
use crate::telemetry::decision::Flag;

/// Answers a request.
///
/// # Cancel safety
/// Dropping the future, or the answer's body before its end, means that the client has left: work
/// on its behalf is cancelled, and the record says so.
pub async fn serve(
    local: &Rc<Local>,
    origin: &Rc<Origin>,
    mut request: Request,
) -> http::Response<Tracked> {
    let (view, listener) = origin.pin(local);
    let mut exchange = Exchange::open(local, origin, view, listener, &request.head);
    let wish = match exchange.admit(&mut request.head) {
        Ok(wish) => wish,
        Err(failure) => {
            exchange.routed(None);
            exchange.note_head(&request.head);
            let response = reply::of(&mut exchange, failure);
            return reply::finish(exchange, response, Limits::default());
        }
    };
    let routed = decide::route(&exchange, &mut request.head);
    exchange.routed(routed.as_ref().ok().copied());
    exchange.note_head(&request.head);
    match answer(exchange, request, wish, routed.err()).await {
        Answer::Reply(exchange, response, limits) => reply::finish(exchange, response, limits),
        Answer::Switched(head) => head.into_http(Tracked::nothing()),
    }
}

/// Down the chain, to the backend, and up again.
async fn answer(
    mut exchange: Box<Exchange>,
    mut request: Request,
    wish: admit::Wish,
    unrouted: Option<Failure>,
) -> Answer {
    let chains = decide::chains(&exchange);
    let (depth, answered) = decide::down(&chains, &mut exchange, &mut request).await;
    let (mut response, limits, depth) = match (answered, unrouted) {
        (Some(response), _) => (response, Limits::default(), depth),
        (None, Some(failure)) => (
            reply::of(&mut exchange, failure),
            Limits::default(),
            depth,
        ),
        (None, None) => match forward::forward(&mut exchange, request, wish).await {
            Ok(forward::Forwarded::Response(response, limits)) => (response, limits, depth),
            Ok(forward::Forwarded::Switched(switch)) => return switch.start(exchange),
            Err(failure) => (
                reply::of(&mut exchange, failure),
                Limits::default(),
                depth,
            ),
        },
    };
    decide::up(&chains, depth, &mut exchange, &mut response).await;
    Answer::Reply(exchange, response, limits)
}

/// Counts and logs bytes that never became a request.
pub fn record_refused(
    local: &Rc<Local>,
    origin: &Rc<Origin>,
    status: StatusCode,
    flag: Flag,
    detail: &'static str,
) {
    let (view, listener) = origin.pin(local);
    let head = crate::base::message::RequestHead::new(http::Method::GET, http::Uri::default());
    let mut exchange = Exchange::open(local, origin, view, listener, &head);
    exchange.refused(status, flag, detail);
}

/// The answer of `response`'s kind for tests and doors that have no record to keep.
impl Tracked {
    fn of_response(response: Response) -> http::Response<Self> {
        response.head.into_http(Self::nothing())
    }
}
