//! Speaking HTTP with endpoints: the only place of this side that knows hyper's types.
//!
//! A [`Site`] is what one worker keeps for one endpoint. Each connection is driven by one local
//! task; it ends with the connection, and the runtime ends it at the latest with the worker.

mod bound;
pub(super) mod broken;
mod exchange;
mod h1;
mod h2;
mod idle;
mod wire;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use futures_util::future::Either;
use http::{HeaderMap, StatusCode};

use crate::base::body::Body;
use crate::base::message::{Request, Response};
use crate::base::seats::Bell;
use crate::upstream::connect::{self, Dialer, Socket};
use crate::upstream::failure::{Cause, Failure, words};
use crate::upstream::idle_limit::IdleLimit;
use crate::upstream::pool::{self, Pool};
use crate::upstream::{Endpoint, Member, Protocol, Upstream};

pub(super) use bound::Bound;
use bound::Permit;

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
    /// The bound on connections, if there is one.
    bound: Option<Rc<Bound>>,
    /// Who connects, where it is not the network.
    dialer: Option<Dialer>,
}

impl Tally {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            now: Cell::new(now),
            open: Cell::new(0),
            connects: Cell::new(0),
            connect_failures: Cell::new(0),
            bound: None,
            dialer: None,
        }
    }

    /// The same, without a network.
    #[must_use]
    pub(super) fn dialing(self, dialer: Option<Dialer>) -> Self {
        Self { dialer, ..self }
    }

    /// The same, with a bound on connections.
    #[must_use]
    pub(super) fn bounded(self, bound: Rc<Bound>) -> Self {
        Self {
            bound: Some(bound),
            ..self
        }
    }

    /// Gives an idle connection up where another worker waits for one.
    pub(super) fn share(&self) {
        if let Some(bound) = &self.bound {
            bound.share();
        }
    }

    fn connect_failed(&self) {
        self.connect_failures.set(self.connect_failures.get() + 1);
    }
}

/// One more open connection, counted until this is dropped.
#[derive(Debug)]
struct Open {
    tally: Rc<Tally>,
    _permit: Option<Permit>,
    /// The endpoint drains until its last connection is closed, even if the site is gone by then.
    _in_use: Arc<()>,
}

impl Open {
    fn new(site: &Site, permit: Option<Permit>) -> Self {
        let tally = &site.tally;
        tally.open.set(tally.open.get() + 1);
        tally.connects.set(tally.connects.get() + 1);
        Self {
            tally: Rc::clone(tally),
            _permit: permit,
            _in_use: Arc::clone(&site.in_use),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let open = &self.tally.open;
        open.set(open.get().saturating_sub(1));
    }
}

/// What one worker keeps for one endpoint.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) endpoint: Arc<Endpoint>,
    number: u32,
    in_use: Arc<()>,
    connect_timeout: Duration,
    connection_age: Duration,
    connections: Connections,
    idle_limit: RefCell<IdleLimit>,
    /// The limit as of the last tick or lesson: what a request looks at.
    idle_at_most: Cell<Duration>,
    /// Rung when a request that waits for a connection of this endpoint may have one.
    bell: Arc<Bell>,
    /// True once the bound knows this site.
    known: Cell<bool>,
    /// Set once an endpoint of the upstream was seen to send an informational response.
    informs: Arc<AtomicBool>,
    tally: Rc<Tally>,
}

#[derive(Debug)]
enum Connections {
    Http1(Pool<h1::Connection>),
    Http2(h2::Shared),
}

impl Site {
    pub(super) fn new(upstream: &Arc<Upstream>, member: &Member, tally: &Rc<Tally>) -> Self {
        let settings = upstream.settings();
        let idle = settings.pool.idle_timeout.0;
        Self {
            endpoint: Arc::clone(&member.endpoint),
            number: member.number,
            in_use: Arc::clone(&member.in_use),
            connect_timeout: settings.timeouts.connect.0,
            connection_age: settings.pool.connection_age.0,
            connections: match settings.protocol {
                Protocol::Http1 => {
                    Connections::Http1(Pool::new(settings.pool.idle_connections as usize))
                }
                Protocol::Http2 => Connections::Http2(h2::Shared::default()),
            },
            idle_limit: RefCell::new(IdleLimit::new(idle)),
            idle_at_most: Cell::new(idle),
            bell: Arc::default(),
            known: Cell::new(false),
            informs: Arc::clone(&upstream.informs),
            tally: Rc::clone(tally),
        }
    }

    pub(super) fn send(
        self: Rc<Self>,
        request: Request,
        on_informational: Option<OnInformational>,
    ) -> impl Future<Output = Result<Response, Box<Failure>>> + use<> {
        match self.connections {
            Connections::Http1(_) => Either::Left(h1::send(self, request, on_informational)),
            Connections::Http2(_) => Either::Right(h2::send(self, request)),
        }
    }

    /// The IP address and port, unless it is a Unix socket.
    pub(super) fn tcp(&self) -> Option<SocketAddr> {
        self.endpoint.tcp()
    }

    /// Closes what is not to be used again, and lets those who wait look at what has changed.
    pub(super) fn sweep(&self, now: Instant) {
        let limit = self.idle_limit.borrow().limit(now);
        self.idle_at_most.set(limit);
        match &self.connections {
            Connections::Http1(pool) => pool.sweep(now, limit),
            Connections::Http2(shared) => shared.sweep(now, limit),
        }
        self.bell.ring_for_all();
    }

    /// Connections that wait for a request.
    pub(super) fn idle(&self) -> u32 {
        let idle = match &self.connections {
            Connections::Http1(pool) => pool.len(),
            Connections::Http2(shared) => shared.idle(),
        };
        u32::try_from(idle).unwrap_or(u32::MAX)
    }

    /// Closes an idle connection; false if there is none.
    fn close_oldest(&self) -> bool {
        match &self.connections {
            Connections::Http1(pool) => pool.close_oldest(),
            Connections::Http2(shared) => shared.close_oldest(),
        }
    }

    /// When a connection that is made now takes no further request.
    fn expiry(&self) -> Instant {
        pool::expiry(self.tally.now.get(), self.connection_age, fastrand::u64(..))
    }

    /// The address as people read it.
    fn label(&self) -> &str {
        &self.endpoint.label
    }

    fn failure(&self, cause: Cause, detail: String) -> Box<Failure> {
        let unprocessed = matches!(
            cause,
            Cause::NoEndpoint
                | Cause::Connect(_)
                | Cause::ConnectTimeout
                | Cause::Overflow
                | Cause::Refused
        );
        Box::new(Failure {
            cause,
            endpoint: Some(self.number),
            address: self.tcp(),
            detail,
            unprocessed,
            reused: false,
            copy: None,
            request: None,
        })
    }

    async fn connect(&self) -> Result<Socket, (Cause, String)> {
        let endpoint = &*self.endpoint;
        let label = &endpoint.label;
        let (timeout, informs) = (self.connect_timeout, &self.informs);
        let connected = match &self.tally.dialer {
            None => connect::connect(&endpoint.address, timeout, informs).await,
            Some(dialer) => dialer.connect(endpoint, timeout, informs).await,
        };
        let failed = match connected {
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
        self.tally.connect_failed();
        Err(failed)
    }
}
