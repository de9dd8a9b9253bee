//! The answer on its way to the client: its last touches, and the body that closes the record.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};

use crate::base::body::{Body, BodyError};
use crate::base::clock::{self, Timeout};
use crate::base::message::{Response, ResponseHead};
use crate::proxy::context::Exchange;
use crate::proxy::failure::{self, Failure};
use crate::proxy::record::Told;
use crate::telemetry::decision::Flag;

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// A body that closes its request's record when it ends, however it ends.
pub struct Tracked {
    body: Body,
    exchange: Option<Box<Exchange>>,
}

impl std::fmt::Debug for Tracked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tracked({:?})", self.body)
    }
}

/// How long an answer's body may take.
#[derive(Default)]
pub(crate) struct Limits {
    /// The longest silence between two frames.
    pub idle: Option<Duration>,
    /// When the whole request must be over.
    pub deadline: Option<Instant>,
    timer: Option<Timeout>,
    /// A frame came since the timer was set.
    progress: bool,
}

/// Gives the answer its last touches, and a body that closes the record.
pub(crate) fn finish(
    mut exchange: Box<Exchange>,
    mut response: Response,
) -> http::Response<Tracked> {
    if exchange.decision.flag.is_some() {
        put_in_words(&exchange, &mut response);
    }
    exchange.answered(response.head.status);
    if let Some(told) = exchange.told() {
        tell(told, &mut response.head);
    }
    if let Some(switch) = exchange.switch.take() {
        switch.start(exchange);
        return response.head.into_http(Tracked::nothing());
    }
    if exchange.local.draining() {
        say_goodbye(&exchange, &mut response.head);
    }
    if exchange.method == Method::HEAD {
        keep_length(&mut response);
    }
    let status = response.head.status;
    let bodiless = exchange.method == Method::HEAD
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    if bodiless || response.body.is_empty() {
        // Dropping the exchange closes the record.
        return response.head.into_http(Tracked::nothing());
    }
    response.head.into_http(Tracked {
        body: response.body,
        exchange: Some(exchange),
    })
}

/// The header by which chosen clients are told what was decided.
static X_RETORT_DECISION: HeaderName = HeaderName::from_static("x-retort-decision");

/// Tells what was decided so far. What gateways behind us tell is for us alone.
#[cold]
fn tell(Told(line): Told, head: &mut ResponseHead) {
    head.headers.remove(&X_RETORT_DECISION);
    if let Some(line) = line {
        head.headers.set(X_RETORT_DECISION.clone(), line);
    }
}

/// Asks an HTTP/1 client to open its next connection elsewhere; HTTP/2 has GOAWAY for this.
fn say_goodbye(exchange: &Exchange, head: &mut ResponseHead) {
    if exchange.version < Version::HTTP_2 {
        head.headers
            .set(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// HEAD tells the length that GET would have (RFC 9110, 9.3.2), though no byte of it is sent.
fn keep_length(response: &mut Response) {
    if let Some(length) = response.body.len()
        && length > 0
        && !response.head.headers.contains(header::CONTENT_LENGTH)
    {
        response
            .head
            .headers
            .set(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// The answer to a request that came through a listener without rules: it is recorded nowhere.
pub(crate) fn nowhere() -> http::Response<Tracked> {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let text = format!("{status}: the listener is closed\n");
    let mut response = Response::text(status, text);
    let close = HeaderValue::from_static("close");
    response.head.headers.set(header::CONNECTION, close);
    response.head.into_http(Tracked {
        body: response.body,
        exchange: None,
    })
}

/// The answer to a request that failed.
pub(crate) fn of(exchange: &mut Exchange, failure: Failure) -> Response {
    let response = failure.response();
    exchange.decision.fail(failure.flag, failure.detail);
    response
}

/// Gives an answer that was made here words, and the shape that its client can read.
fn put_in_words(exchange: &Exchange, response: &mut Response) {
    if exchange.grpc {
        as_grpc(exchange, response);
    } else if let Some(flag) = exchange.decision.flag
        && response.body.is_empty()
        && (response.head.status.is_client_error() || response.head.status.is_server_error())
    {
        response.head.headers.set(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        response.body = format!("{}: {}\n", response.head.status, flag.text()).into();
    }
}

/// The same answer as gRPC clients read it: a status of 200 and trailers only.
///
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md> allows them to stand in the
/// head when there is no body.
fn as_grpc(exchange: &Exchange, response: &mut Response) {
    if response.head.headers.contains(&GRPC_STATUS) {
        return;
    }
    let flag = exchange.decision.flag;
    let code = failure::grpc_status(flag, response.head.status);
    let mut head = ResponseHead::new(StatusCode::OK);
    let kept = std::mem::take(&mut response.head.headers);
    for (name, value) in HeaderMap::from(kept) {
        // What middlewares added stays; what described the old body goes.
        if let Some(name) = name
            && name != header::CONTENT_TYPE
            && name != header::CONTENT_LENGTH
        {
            head.headers.append(name, value);
        }
    }
    head.headers.set(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    head.headers
        .set(GRPC_STATUS.clone(), HeaderValue::from(u16::from(code)));
    if let Some(flag) = flag {
        head.headers
            .set(GRPC_MESSAGE.clone(), HeaderValue::from_static(flag.text()));
    }
    response.head = head;
    response.body = Body::empty();
}

impl Tracked {
    /// An answer without a body, whose record is kept elsewhere.
    pub(crate) fn nothing() -> Self {
        Self {
            body: Body::empty(),
            exchange: None,
        }
    }

    fn fail(&mut self, flag: Flag, detail: impl Into<std::borrow::Cow<'static, str>>) {
        if let Some(exchange) = &mut self.exchange {
            exchange.decision.fail(flag, detail);
        }
    }
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(exchange) = &mut this.exchange {
                    exchange.limits.progress = true;
                    exchange.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                // The head was already sent, so the status can no longer change: the library cuts
                // the stream instead, which HTTP/1 shows as a short body and HTTP/2 as a reset.
                this.fail(Flag::UpstreamClosed, error.to_string());
                this.exchange = None;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                this.exchange = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                let Some(exchange) = &mut this.exchange else {
                    return Poll::Pending;
                };
                let sweep = &exchange.local.sweep;
                let flag = std::task::ready!(exchange.limits.poll(sweep, cx));
                this.fail(flag, "the answer's body stopped coming");
                this.exchange = None;
                this.body = Body::empty();
                Poll::Ready(Some(Err(BodyError::Idle)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // The library lets go of a body right after its last byte, or when the client is gone.
        if !self.body.is_end_stream() {
            self.fail(Flag::ClientLeft, "the client left before the answer's end");
        }
    }
}

impl Limits {
    /// Ready once a limit is passed; the timer is only touched while nothing comes.
    fn poll(&mut self, sweep: &std::rc::Rc<clock::Sweep>, cx: &mut Context<'_>) -> Poll<Flag> {
        loop {
            if let Some(timer) = &mut self.timer {
                std::task::ready!(Pin::new(timer).poll(cx));
                let now = clock::now();
                if self.deadline.is_some_and(|deadline| deadline <= now) {
                    return Poll::Ready(Flag::Deadline);
                }
                if !self.progress && self.idle.is_some() {
                    return Poll::Ready(Flag::UpstreamTimeout);
                }
            }
            self.progress = false;
            let now = clock::now();
            let left = self.deadline.map(|at| at.saturating_duration_since(now));
            let wait = match (self.idle, left) {
                (Some(idle), Some(left)) => idle.min(left),
                (Some(only), None) | (None, Some(only)) => only,
                (None, None) => return Poll::Pending,
            };
            self.timer = Some(Timeout::new(sweep, now, wait));
        }
    }
}
