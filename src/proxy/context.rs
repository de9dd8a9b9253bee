//! The record of one request while it is in the house, closed exactly once.
//!
//! It closes when the answer's body has ended, or when it is dropped before: a client that leaves
//! takes its request's future along, and the record is all that remains to tell.

use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode, Version};

use crate::base::message::RequestHead;
use crate::middleware;
use crate::proxy::{Local, Origin, failure};
use crate::snapshot::publish::View;
use crate::telemetry::access_log::Entry;
use crate::telemetry::decision::{Decision, Flag};
use crate::telemetry::metrics::{RouteSeries, Sample};

/// Everything that is known of a request, from admission to its last byte.
pub(crate) struct Exchange {
    pub local: Rc<Local>,
    pub origin: Rc<Origin>,
    /// The rules that hold for this request, whatever is reloaded meanwhile.
    pub view: Rc<View>,
    /// Which listener of the snapshot.
    pub listener: usize,
    /// Which route of the snapshot, once one is found.
    pub route: Option<usize>,
    pub method: Method,
    pub started: Instant,
    /// How long the backend took to the head of its answer.
    pub waited: Duration,
    /// When the head of the answer was ready.
    pub answered: Option<Instant>,
    pub decision: Decision,
    /// What middlewares keep from one hook to the other.
    pub kept: http::Extensions,
    /// A gRPC call: our own answers must be in its shape.
    pub grpc: bool,
    /// The upstream that answered, of the view's.
    pub upstream: Option<usize>,
    /// The handler that answered.
    pub handler: Option<Rc<str>>,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// Bytes of the request's body, where it has one.
    pub received: Option<std::sync::Arc<std::sync::atomic::AtomicU64>>,
    status: StatusCode,
    log: Option<Box<Said>>,
    series: Option<std::sync::Arc<RouteSeries>>,
}

/// What the access log says of a head that has moved on since.
struct Said {
    target: String,
    host: Option<String>,
    user_agent: Option<String>,
    referer: Option<String>,
    version: Version,
    client: Option<std::net::IpAddr>,
}

impl Exchange {
    /// Opens the record.
    pub(crate) fn open(
        local: &Rc<Local>,
        origin: &Rc<Origin>,
        view: Rc<View>,
        listener: usize,
        head: &RequestHead,
    ) -> Box<Self> {
        local.in_flight.set(local.in_flight.get() + 1);
        origin.requests.set(origin.requests.get() + 1);
        Box::new(Self {
            local: Rc::clone(local),
            origin: Rc::clone(origin),
            view,
            listener,
            route: None,
            method: head.method().clone(),
            started: Instant::now(),
            waited: Duration::ZERO,
            answered: None,
            decision: Decision::default(),
            kept: http::Extensions::new(),
            grpc: head.is_grpc(),
            upstream: None,
            handler: None,
            sent: 0,
            received: None,
            status: failure::client_left(),
            log: None,
            series: None,
        })
    }

    /// The route is known: from now on the request counts as in flight on it.
    pub(crate) fn routed(&mut self, route: Option<usize>) {
        self.route = route;
        let listener = &self.view.snapshot.listeners[self.listener];
        let series = match route {
            Some(route) => self.view.snapshot.routes[route].series_on(self.listener),
            None => &listener.unrouted,
        };
        series.begin(self.local.id);
        self.series = Some(std::sync::Arc::clone(series));
    }

    /// Keeps what the access log will say, if there is one.
    pub(crate) fn note_head(&mut self, head: &RequestHead) {
        if !self.local.log.wanted() {
            return;
        }
        let text = |name: http::HeaderName| head.header(name).map(str::to_owned);
        self.log = Some(Box::new(Said {
            target: head.target(),
            host: head.authority().map(str::to_owned),
            user_agent: text(http::header::USER_AGENT),
            referer: text(http::header::REFERER),
            version: head.version(),
            client: head.client.ip,
        }));
    }

    /// The head of the answer is ready.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = status;
        self.answered = Some(Instant::now());
    }

    /// What middlewares may use.
    pub(crate) fn hooks(&mut self) -> middleware::Context<'_> {
        middleware::Context {
            now: self.started,
            record: &mut self.decision,
            kept: &mut self.kept,
            caller: &self.local.caller,
        }
    }

    fn close(&mut self) {
        let now = Instant::now();
        let took = now - self.started;
        if self.answered.is_none() {
            self.decision.fail(
                Flag::ClientLeft,
                "the client left before the head of the answer",
            );
        }
        let to_head = self.answered.unwrap_or(now) - self.started;
        let sample = Sample {
            method: &self.method,
            status: self.status.as_u16(),
            flag: self.decision.flag,
            took,
            overhead: to_head.saturating_sub(self.waited),
        };
        if self.series.is_none() {
            self.routed(None);
        }
        if let Some(series) = &self.series {
            series.end(self.local.id, &sample);
        }
        if let Some(said) = self.log.take() {
            self.write_log(&said, took);
        }
        self.local.in_flight.set(self.local.in_flight.get() - 1);
        self.origin.requests.set(self.origin.requests.get() - 1);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.close();
    }
}
