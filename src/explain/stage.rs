//! Endpoints without a network: each does what a script says, and remembers what it was sent.
//!
//! They speak real HTTP over a pipe in memory, so that what they were sent is what a real endpoint
//! would have got, byte for byte.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, Collected, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::Notify;

pub(crate) use crate::config::test::ActKind as Act;
use crate::upstream::{Dial, Endpoint, Protocol};

/// What the endpoints of an upstream do, one request after the other; the last act is for all that
/// follow.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script(pub Vec<Line>);

/// One act, and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// The label of the only endpoint that does it; none if any does.
    pub endpoint: Option<Box<str>>,
    pub act: Act,
}

/// A request as an endpoint has got it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub upstream: Box<str>,
    /// The endpoint's label.
    pub endpoint: Box<str>,
    /// HTTP/1.1: the head byte for byte. HTTP/2: its fields, one a line, pseudo-fields first.
    pub head: String,
    pub parts: Box<http::request::Parts>,
    pub body: Bytes,
}

/// Where all endpoints of a rehearsal are.
#[derive(Debug, Default)]
pub(crate) struct Stage(RefCell<Plays>);

#[derive(Debug, Default)]
struct Plays {
    protocols: HashMap<Box<str>, Protocol>,
    scripts: HashMap<Box<str>, Script>,
    received: Vec<Received>,
}

impl Stage {
    /// A stage for upstreams with their protocols, where everybody answers 200 with an empty body.
    pub(crate) fn new(upstreams: impl Iterator<Item = (Box<str>, Protocol)>) -> Rc<Self> {
        Rc::new(Self(RefCell::new(Plays {
            protocols: upstreams.collect(),
            ..Plays::default()
        })))
    }

    /// Gives the endpoints of an upstream another script.
    pub(crate) fn direct(&self, upstream: &str, script: Script) {
        self.0.borrow_mut().scripts.insert(upstream.into(), script);
    }

    /// What came since this was last asked.
    pub(crate) fn received(&self) -> Vec<Received> {
        std::mem::take(&mut self.0.borrow_mut().received)
    }

    fn protocol(&self, upstream: &str) -> Protocol {
        let plays = self.0.borrow();
        plays.protocols.get(upstream).copied().unwrap_or_default()
    }

    /// What that endpoint does next.
    fn next(&self, upstream: &str, endpoint: &str) -> Act {
        let mut plays = self.0.borrow_mut();
        let script = plays.scripts.get_mut(upstream);
        script.map_or_else(Act::fine, |script| script.next(endpoint))
    }
}

impl Act {
    /// What an endpoint without a script does.
    pub(crate) fn fine() -> Self {
        Self::Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            after: Duration::ZERO,
        }
    }
}

impl Script {
    /// The next act of an endpoint: the first that is left for it, of which the last stays.
    fn next(&mut self, endpoint: &str) -> Act {
        let is_its = |line: &Line| line.endpoint.as_deref().is_none_or(|only| only == endpoint);
        let mut places = (0..self.0.len()).filter(|&at| self.0.get(at).is_some_and(is_its));
        let Some(place) = places.next() else {
            return Act::fine();
        };
        if places.next().is_some() {
            return self.0.remove(place).act;
        }
        self.0
            .get(place)
            .map_or_else(Act::fine, |line| line.act.clone())
    }
}

impl Dial for Rc<Stage> {
    fn dial(
        &self,
        upstream: &str,
        endpoint: &Endpoint,
    ) -> LocalBoxFuture<'static, io::Result<DuplexStream>> {
        let first = self.next(upstream, &endpoint.label);
        if matches!(first, Act::Refused) {
            return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
        }
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let actor = Rc::new(Actor {
            stage: Rc::clone(self),
            upstream: upstream.into(),
            endpoint: endpoint.label.clone(),
            first: RefCell::new(Some(first)),
            heard: Rc::default(),
            over: Notify::new(),
        });
        let protocol = self.protocol(upstream);
        // It ends with its connection, at the latest with the rehearsal's runtime.
        drop(tokio::task::spawn_local(async move {
            match protocol {
                Protocol::Http1 => actor.play_http1(theirs).await,
                Protocol::Http2 => actor.play_http2(theirs).await,
            }
        }));
        Box::pin(async { Ok(ours) })
    }
}

/// One connection of an endpoint. It is for one request: the next one may find the endpoint gone.
struct Actor {
    stage: Rc<Stage>,
    upstream: Box<str>,
    endpoint: Box<str>,
    /// What was decided when the connection was made.
    first: RefCell<Option<Act>>,
    /// Bytes that came and belong to no request yet.
    heard: Rc<RefCell<Vec<u8>>>,
    /// An answer is given: no further request shall come.
    over: Notify,
}

/// Why an endpoint gives no answer.
#[derive(Debug, thiserror::Error)]
#[error("the script says so")]
struct Silence;

impl Actor {
    async fn play_http1(self: Rc<Self>, pipe: DuplexStream) {
        let tap = Tap {
            pipe,
            heard: Rc::clone(&self.heard),
        };
        let service = service_fn(|request| Rc::clone(&self).answer(request));
        let connection = http1::Builder::new()
            .auto_date_header(false)
            .serve_connection(TokioIo::new(tap), service);
        // A script may end a connection in any way.
        let _ended = connection.await;
    }

    async fn play_http2(self: Rc<Self>, pipe: DuplexStream) {
        let service = service_fn(|request| Rc::clone(&self).answer(request));
        let connection = http2::Builder::new(Spawn)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(pipe), service);
        let mut connection = pin!(connection);
        tokio::select! {
            _ended = &mut connection => return,
            () = self.over.notified() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ended = connection.await;
    }

    async fn answer(
        self: Rc<Self>,
        request: http::Request<Incoming>,
    ) -> Result<http::Response<Full<Bytes>>, Silence> {
        let (parts, body) = request.into_parts();
        let is_http1 = parts.version < http::Version::HTTP_2;
        let head = if is_http1 {
            raw_head(&self.heard.borrow())
        } else {
            fields(&parts)
        };
        // A body that breaks off is as long as it came.
        let body = body.collect().await.map(Collected::to_bytes);
        self.heard.borrow_mut().clear();
        self.stage.0.borrow_mut().received.push(Received {
            upstream: self.upstream.clone(),
            endpoint: self.endpoint.clone(),
            head,
            parts: Box::new(parts),
            body: body.unwrap_or_default(),
        });
        let first = self.first.borrow_mut().take();
        let act = first.unwrap_or_else(|| self.stage.next(&self.upstream, &self.endpoint));
        match act {
            Act::Answer {
                status,
                headers,
                body,
                after,
            } => {
                if !after.is_zero() {
                    tokio::time::sleep(after).await;
                }
                self.over.notify_one();
                let mut response = http::Response::new(Full::new(body));
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                if is_http1 {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok(response)
            }
            Act::Timeout => std::future::pending().await,
            Act::Refused | Act::Reset => Err(Silence),
        }
    }
}

/// The head at the front of what came on a connection of HTTP/1.1.
fn raw_head(bytes: &[u8]) -> String {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let head = end.and_then(|end| bytes.get(..end)).unwrap_or(bytes);
    String::from_utf8_lossy(head).replace("\r\n", "\n")
}

/// The fields of a head of HTTP/2.
fn fields(parts: &http::request::Parts) -> String {
    let uri = &parts.uri;
    let mut text = format!(
        ":method: {}\n:scheme: {}\n:authority: {}\n:path: {}",
        parts.method,
        uri.scheme_str().unwrap_or("http"),
        uri.authority().map_or("", |authority| authority.as_str()),
        uri.path_and_query().map_or("*", |path| path.as_str()),
    );
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        text.extend(["\n", name.as_str(), ": ", &value]);
    }
    text
}

/// A pipe that remembers what was read from it.
struct Tap {
    pipe: DuplexStream,
    heard: Rc<RefCell<Vec<u8>>>,
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.pipe).poll_read(cx, buffer);
        let new = buffer.filled().get(before..).unwrap_or_default();
        self.heard.borrow_mut().extend_from_slice(new);
        read
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// Runs the tasks of HTTP/2 on the rehearsal's own thread.
#[derive(Debug, Clone, Copy)]
struct Spawn;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Spawn {
    fn execute(&self, task: F) {
        // It ends with its connection.
        drop(tokio::task::spawn_local(task));
    }
}
