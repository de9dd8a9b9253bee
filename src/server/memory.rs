//! A door without a socket: the gateway as a `tower::Service`, for tests and for programs that
//! embed it.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::StatusCode;
use http::header::{self, HeaderValue};
use http_body::{Body as _, Frame};
use tokio::sync::oneshot;

use crate::base::body::{Body, BodyError};
use crate::base::channel::Sender;
use crate::base::message::{Client, Request, RequestHead, Response};
use crate::proxy::{self, Local, Origin, Tracked};
use crate::server::worker::{Job, Workers};

/// The gateway as a service: each request goes to a worker, as if it had come through the first
/// listener of the configuration.
///
/// Requests come from nobody, unless a [`Client`] among a request's extensions has a `peer`: then
/// they come from there. One that names no host asks for `localhost`. Dropping the future of a
/// call, or the body of its answer, means that the client has left.
///
/// A call never fails: whatever goes wrong is an answer, as it is for clients with a socket. Once
/// the gateway has stopped, that answer is 503.
#[derive(Debug, Clone)]
pub struct InMemory {
    workers: Arc<Workers>,
    listener: Option<Arc<str>>,
}

impl InMemory {
    pub(crate) fn new(workers: Arc<Workers>) -> Self {
        let listener = None;
        Self { workers, listener }
    }

    /// The same gateway, through the listener of that name; where there is none of that name (any
    /// more), requests are answered 503.
    #[must_use]
    pub fn through(&self, listener: &str) -> Self {
        Self {
            workers: Arc::clone(&self.workers),
            listener: Some(listener.into()),
        }
    }
}

impl tower::Service<http::Request<Body>> for InMemory {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (answer, answered) = oneshot::channel();
        self.workers.take(Job::Request(Box::new(Call {
            request,
            listener: self.listener.clone(),
            answer,
        })));
        Box::pin(async move { Ok(answered.await.unwrap_or_else(|_| stopped())) })
    }
}

/// What is answered when no worker is left to do so.
fn stopped() -> http::Response<Body> {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let Response { head, body } =
        Response::text(status, format!("{status}: the gateway has stopped\n"));
    head.into_http(body)
}

/// A request on its way to a worker.
pub(crate) struct Call {
    request: http::Request<Body>,
    listener: Option<Arc<str>>,
    answer: oneshot::Sender<http::Response<Body>>,
}

/// Serves one request on the worker's thread, and carries the answer's body to the other.
pub(crate) async fn serve(local: &Rc<Local>, call: Call) {
    let Call {
        request,
        listener,
        mut answer,
    } = call;
    let (parts, body) = request.into_parts();
    let client = parts.extensions.get::<Client>().copied();
    let listener = listener.unwrap_or_else(|| first_listener(local));
    let origin = Origin::new(listener, client.and_then(|client| client.peer));
    let mut head = RequestHead::from_http(parts, Client::UNKNOWN);
    if head.authority().is_none() {
        head.set_header(header::HOST, HeaderValue::from_static("localhost"));
    }
    let mut request = Request { head, body };
    let served = tokio::select! {
        biased;
        served = proxy::serve(local, origin.enter(), &mut request) => served,
        // Whoever asked has left.
        () = answer.closed() => return,
    };
    let (head, mut tracked) = served.into_parts();
    let (body, rest) = match next_frame(&mut tracked).now_or_never() {
        Some(None) => (Body::empty(), None),
        // What is there already needs no channel, and keeps its length.
        Some(Some(Ok(frame))) if tracked.is_end_stream() && frame.is_data() => {
            (Body::full(frame.into_data().unwrap_or_default()), None)
        }
        first => {
            let (sender, body) = Body::channel(CHUNKS);
            (body, Some((first.flatten(), sender)))
        }
    };
    if answer.send(http::Response::from_parts(head, body)).is_ok()
        && let Some((first, sender)) = rest
    {
        carry(first, tracked, sender).await;
    }
}

/// Where requests come through that do not say; no name where there is no listener.
fn first_listener(local: &Local) -> Arc<str> {
    let view = local.reader.view();
    let first = view.snapshot.listeners.first();
    first.map_or_else(|| "".into(), |listener| Arc::clone(&listener.name))
}

/// How many chunks may wait for a reader on another thread.
const CHUNKS: usize = 4;

type Next = Result<Frame<Bytes>, BodyError>;

async fn next_frame(tracked: &mut Tracked) -> Option<Next> {
    std::future::poll_fn(|cx| Pin::new(&mut *tracked).poll_frame(cx)).await
}

/// Carries a body to a reader on another thread, until its end or until the reader has left.
async fn carry(mut first: Option<Next>, mut tracked: Tracked, sender: Sender) {
    loop {
        let next = match first.take() {
            Some(first) => Some(first),
            None => tokio::select! {
                biased;
                next = next_frame(&mut tracked) => next,
                // A body that is silent for long must not outlive its reader.
                () = sender.closed() => return,
            },
        };
        match next {
            Some(Ok(frame)) => {
                if sender.pass(frame).await.is_err() {
                    return;
                }
            }
            Some(Err(error)) => return sender.fail(error.to_string()).await,
            None => {
                // If nobody reads the end, nobody needs to know.
                let _gone = sender.finish().await;
                return;
            }
        }
    }
}
