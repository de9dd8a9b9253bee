//! One request and its answer on a connection of its own, bounded in time and in bytes.
//!
//! hyper wants its connections driven by tasks. These run within the check's own future, not on the
//! runtime: so they end with the check, however it ends, and the connection is closed by then.

use std::future::Future;
use std::pin::pin;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::place::{Deadline, Place};
use crate::base::body::{Body, BodyError};
use crate::upstream::Protocol;
use crate::upstream::client::broken;
use crate::upstream::connect::Socket;

/// What every check calls itself.
pub(super) const USER_AGENT: &str = "retort-health-check";

/// The longest head of an answer, as for requests.
const HEAD_BYTES: usize = 64 << 10;

/// The same, as HTTP/2 counts it.
const HEAD_LIST_BYTES: u32 = 64 << 10;

/// How much of an answer's body is read; what comes after it does not matter.
pub(super) const BODY_BYTES: usize = 64 << 10;

/// How much an endpoint may send ahead over HTTP/2: the least that the protocol knows.
const WINDOW: u32 = (64 << 10) - 1;

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The first [`BODY_BYTES`] of the body.
    pub(super) body: Vec<u8>,
    pub(super) trailers: HeaderMap,
}

/// Sends a request on a new connection and reads the answer, or says why there is none.
pub(super) async fn ask(
    place: &Place<'_>,
    protocol: Protocol,
    request: Request<Body>,
    deadline: Deadline,
) -> Result<Answer, String> {
    let socket = place.connect(deadline).await?;
    let (tasks, given) = Tasks::new();
    beside(given, async {
        let label = place.label();
        let talk = Box::pin(talk(socket, protocol, request, tasks, label));
        let (head, body) = deadline.bound("no answer", talk).await??.into_parts();
        let incomplete = "the body of the answer did not end";
        let (body, trailers) = deadline
            .bound(incomplete, read(Body::wire(body)))
            .await?
            .map_err(|error| format!("the body of the answer broke off: {error}"))?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
            trailers,
        })
    })
    .await
}

/// The answer, or what came in its place.
async fn talk(
    socket: Socket,
    protocol: Protocol,
    request: Request<Body>,
    tasks: Tasks,
    label: &str,
) -> Result<Response<Incoming>, String> {
    let explain = |error| explain(&error, protocol, label);
    let io = TokioIo::new(socket);
    let answer = match protocol {
        Protocol::Http1 => {
            let builder = http1();
            let (mut sender, connection) = builder.handshake(io).await.map_err(explain)?;
            tasks.execute(async {
                // How it ends is told to the request.
                let _told = connection.await;
            });
            sender.send_request(request).await
        }
        Protocol::Http2 => {
            let builder = http2(&tasks);
            let (mut sender, connection) = builder.handshake(io).await.map_err(explain)?;
            tasks.execute(async {
                let _told = connection.await;
            });
            sender.send_request(request).await
        }
    };
    answer.map_err(explain)
}

fn explain(error: &hyper::Error, protocol: Protocol, label: &str) -> String {
    if !error.is_canceled() {
        return broken::explain(error, label).1;
    }
    // The connection had ended before it was given the request; hyper does not always say why.
    let other = match protocol {
        Protocol::Http1 => "HTTP/2",
        Protocol::Http2 => "HTTP/1.1",
    };
    format!("{label} closed the connection or spoke before it was asked: does it speak {other}?")
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(2 * HEAD_BYTES)
        .max_header_size(HEAD_BYTES);
    builder
}

fn http2(tasks: &Tasks) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(tasks.clone());
    builder
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(HEAD_LIST_BYTES);
    builder
}

/// The first [`BODY_BYTES`] of a body, and the trailers where the body has ended by then.
async fn read(mut body: Body) -> Result<(Vec<u8>, HeaderMap), BodyError> {
    let mut bytes = Vec::new();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.next_frame().await {
        match frame?.into_data() {
            Ok(chunk) => {
                take(&mut bytes, &chunk);
                if bytes.len() == BODY_BYTES {
                    break;
                }
            }
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok((bytes, trailers))
}

fn take(bytes: &mut Vec<u8>, chunk: &Bytes) {
    let room = BODY_BYTES.saturating_sub(bytes.len());
    bytes.extend_from_slice(chunk.get(..room).unwrap_or(chunk));
}

/// Where hyper puts what is to run beside a request.
#[derive(Debug, Clone)]
struct Tasks(UnboundedSender<BoxFuture<'static, ()>>);

impl Tasks {
    fn new() -> (Self, UnboundedReceiver<BoxFuture<'static, ()>>) {
        let (give, given) = mpsc::unbounded_channel();
        (Self(give), given)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        // There is no receiver once the check is over, and then there is nothing to run for.
        let _over = self.0.send(Box::pin(task));
    }
}

/// Runs `main` to its end, and beside it whatever tasks are given; these end with it.
async fn beside<T>(
    mut given: UnboundedReceiver<BoxFuture<'static, ()>>,
    main: impl Future<Output = T>,
) -> T {
    let mut main = pin!(main);
    let mut tasks = FuturesUnordered::new();
    loop {
        tokio::select! {
            // What gives tasks goes before what takes them, and that before what runs them: so a
            // request is on its way before anything else can happen on its connection.
            biased;
            output = &mut main => return output,
            Some(task) = given.recv() => tasks.push(task),
            Some(()) = tasks.next() => {}
        }
    }
}
