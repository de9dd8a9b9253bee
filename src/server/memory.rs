//! A door without a socket: the gateway as a `tower::Service`, for tests and for programs that
//! embed it.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::StatusCode;
use tokio::sync::oneshot;

use crate::base::body::Body;
use crate::base::channel::Sender;
use crate::base::message::{Client, Request, RequestHead};
use crate::proxy::{self, Local, Origin, Tracked};
use crate::server::worker::{Job, Workers};

/// The gateway as a service: each request goes to a worker, as if it had come through a listener.
#[derive(Debug, Clone)]
pub struct InMemory {
    workers: Arc<Workers>,
    listener: Arc<str>,
}

impl InMemory {
    /// Requests count as those of the listener of that name.
    pub fn new(workers: Arc<Workers>, listener: Arc<str>) -> Self {
        Self { workers, listener }
    }
}

impl tower::Service<http::Request<Body>> for InMemory {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (answer, answered) = oneshot::channel();
        self.workers.take(Job::Request(Box::new(Call {
            request,
            listener: Arc::clone(&self.listener),
            answer,
        })));
        Box::pin(async move {
            Ok(answered.await.unwrap_or_else(|_| {
                // The gateway was stopped meanwhile.
                let mut response = http::Response::new(Body::empty());
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response
            }))
        })
    }
}

/// A request on its way to a worker.
pub(crate) struct Call {
    request: http::Request<Body>,
    listener: Arc<str>,
    answer: oneshot::Sender<http::Response<Body>>,
}

/// Serves one request on the worker's thread, and carries the answer's body to the other.
pub(crate) async fn serve(local: &Rc<Local>, call: Call) {
    let Call {
        request,
        listener,
        mut answer,
    } = call;
    let origin = Origin::new(listener, None);
    let (parts, body) = request.into_parts();
    let request = Request {
        head: RequestHead::from_http(parts, Client::UNKNOWN),
        body,
    };
    let served = tokio::select! {
        biased;
        served = proxy::serve(local, &origin, request) => served,
        // Whoever asked has left.
        () = answer.closed() => return,
    };
    let (head, tracked) = served.into_parts();
    let (sender, body) = Body::channel(CHUNKS);
    if answer.send(http::Response::from_parts(head, body)).is_ok() {
        carry(tracked, sender).await;
    }
}

/// How many chunks may wait for a reader on another thread.
const CHUNKS: usize = 4;

async fn carry(mut tracked: Tracked, sender: Sender) {
    use http_body::Body as _;
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut tracked).poll_frame(cx)).await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return sender.fail(error.to_string()).await,
        };
        let frame = match frame.into_data() {
            Ok(chunk) => match sender.send(chunk).await {
                Ok(()) => continue,
                Err(_) => return,
            },
            Err(frame) => frame,
        };
        if let Ok(trailers) = frame.into_trailers() {
            // Nobody is left to read them, or they are read.
            let _gone = sender.finish_with(trailers).await;
            return;
        }
    }
    let _gone = sender.finish().await;
}
