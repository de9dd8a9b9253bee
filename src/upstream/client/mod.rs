//! Speaking HTTP with endpoints: the only place of this side that knows hyper's types.
//!
//! A [`Site`] is what one worker keeps for one endpoint. Each connection is driven by one local
//! task; it ends with the connection, and the runtime ends it at the latest with the worker.

pub(super) mod broken;
mod exchange;
mod h1;
mod h2;
mod wire;

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::Either;
use http::{HeaderMap, StatusCode};

use crate::base::body::Body;
use crate::base::message::{Request, Response};
use crate::upstream::connect::{self, Socket};
use crate::upstream::failure::{Cause, Failure, words};
use crate::upstream::pool::{Keep, Pool};
use crate::upstream::{Endpoint, Protocol, Upstream};

/// What hyper gives in the place of an answer: why, and the request if it was not begun to be written.
type Unanswered = hyper::client::conn::TrySendError<http::Request<Body>>;

/// Called with the status and the headers of each informational answer (1xx but 101).
pub type OnInformational = Box<dyn Fn(StatusCode, &HeaderMap) + Send + Sync>;

/// What all sites of a lane share: its counts, and the time as the worker read it last.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) now: Cell<Instant>,
    pub(super) open: Cell<u32>,
    pub(super) connects: Cell<u64>,
    pub(super) connect_failures: Cell<u64>,
}

impl Tally {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            now: Cell::new(now),
            open: Cell::new(0),
            connects: Cell::new(0),
            connect_failures: Cell::new(0),
        }
    }
}

/// One more open connection, counted until this is dropped.
#[derive(Debug)]
struct Open(Rc<Tally>);

impl Open {
    fn new(tally: &Rc<Tally>) -> Self {
        tally.open.set(tally.open.get() + 1);
        tally.connects.set(tally.connects.get() + 1);
        Self(Rc::clone(tally))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
    }
}

/// What one worker keeps for one endpoint.
#[derive(Debug)]
pub(super) struct Site {
    upstream: Arc<Upstream>,
    number: u32,
    tcp: Option<SocketAddr>,
    connect_timeout: Duration,
    connections: Connections,
    tally: Rc<Tally>,
}

#[derive(Debug)]
enum Connections {
    Http1(Pool<h1::Connection>),
    Http2(h2::Shared),
}

impl Site {
    pub(super) fn new(upstream: &Arc<Upstream>, number: u32, tally: &Rc<Tally>) -> Self {
        let settings = upstream.settings();
        let keep = Keep {
            idle: settings.pool.idle_timeout.0,
            age: settings.pool.connection_age.0,
            most: settings.pool.idle_connections as usize,
        };
        let endpoint = upstream.members().endpoints().get(number as usize);
        Self {
            number,
            tcp: endpoint.and_then(Endpoint::tcp),
            connect_timeout: settings.timeouts.connect.0,
            connections: match settings.protocol {
                Protocol::Http1 => Connections::Http1(Pool::new(keep)),
                Protocol::Http2 => Connections::Http2(h2::Shared::new(keep)),
            },
            tally: Rc::clone(tally),
            upstream: Arc::clone(upstream),
        }
    }

    pub(super) fn send(
        self: &Rc<Self>,
        request: Request,
        on_informational: Option<OnInformational>,
    ) -> impl Future<Output = Result<Response, Box<Failure>>> {
        match &self.connections {
            Connections::Http1(pool) => {
                Either::Left(h1::send(self, pool, request, on_informational))
            }
            Connections::Http2(shared) => Either::Right(h2::send(self, shared, request)),
        }
    }

    /// The IP address and port, unless it is a Unix socket.
    pub(super) fn tcp(&self) -> Option<SocketAddr> {
        self.tcp
    }

    pub(super) fn sweep(&self, now: Instant) {
        match &self.connections {
            Connections::Http1(pool) => pool.sweep(now),
            Connections::Http2(shared) => shared.sweep(now),
        }
    }

    /// Connections that wait for a request.
    pub(super) fn idle(&self) -> u32 {
        let idle = match &self.connections {
            Connections::Http1(pool) => pool.len(),
            Connections::Http2(shared) => shared.idle(),
        };
        u32::try_from(idle).unwrap_or(u32::MAX)
    }

    /// The endpoint; there is none only for a number that the upstream never gave out.
    fn endpoint(&self) -> Option<&Endpoint> {
        self.upstream
            .members()
            .endpoints()
            .get(self.number as usize)
    }

    /// The address as people read it.
    fn label(&self) -> &str {
        self.endpoint().map_or("", |endpoint| &endpoint.label)
    }

    fn failure(&self, cause: Cause, detail: String) -> Box<Failure> {
        Box::new(Failure {
            unprocessed: matches!(
                cause,
                Cause::NoEndpoint | Cause::Connect(_) | Cause::ConnectTimeout | Cause::Refused
            ),
            cause,
            endpoint: Some(self.number),
            address: self.tcp,
            detail,
            request: None,
        })
    }

    async fn connect(&self) -> Result<Socket, (Cause, String)> {
        let Some(endpoint) = self.endpoint() else {
            return Err((Cause::NoEndpoint, "the endpoint is gone".into()));
        };
        let label = &endpoint.label;
        let failed = match connect::connect(
            &endpoint.address,
            self.connect_timeout,
            &self.upstream.informs,
        )
        .await
        {
            Ok(socket) => return Ok(socket),
            Err(Some(error)) => (
                Cause::Connect(error.kind()),
                format!("{} {label}", words(&error)),
            ),
            Err(None) => (
                Cause::ConnectTimeout,
                format!("no connection to {label} within {:?}", self.connect_timeout),
            ),
        };
        let failures = &self.tally.connect_failures;
        failures.set(failures.get() + 1);
        Err(failed)
    }
}
