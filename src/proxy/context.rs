//! The record of one request while it is in the house, closed exactly once.
//!
//! It closes when the answer's body has ended, or when it is dropped before: a client that leaves
//! takes its request's future along, and the record is all that remains to tell.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};

use crate::base::body::Progress;
use crate::base::clock;
use crate::base::message::RequestHead;
use crate::handler::Handler;
use crate::middleware;
use crate::proxy::admit::{self, Hop, Wish};
use crate::proxy::failure::{self, Failure};
use crate::proxy::record::{Asking, exhausted};
use crate::proxy::reply::Limits;
use crate::proxy::upgrade::Switch;
use crate::proxy::{Entered, Local};
use crate::snapshot::publish::View;
use crate::snapshot::{Listener, To};
use crate::telemetry::access_log::{Entry, Try};
use crate::telemetry::decision::{Attempt, Decision, Flag};
use crate::telemetry::metrics::{self, HandlerSeries, RouteSeries, Sample};
use crate::upstream::Members;
use crate::upstream::limits::Permit;

/// Everything that is known of a request, from admission to its last byte.
pub(crate) struct Exchange {
    pub local: Rc<Local>,
    pub origin: Entered,
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
    /// When the backend's head was there, as somebody has read the clock for it.
    pub came: Option<Instant>,
    /// When the head of the answer was ready.
    pub answered: Option<Instant>,
    /// Middlewares stand around the backend, and may have taken their time.
    pub hooked: bool,
    /// So many attempts all failed, and what the upstream said to the last one is passed on.
    pub exhausted: Option<u32>,
    pub decision: Decision,
    /// What middlewares keep from one hook to the other.
    pub kept: http::Extensions,
    /// The version that the client spoke.
    pub version: Version,
    /// A gRPC call: our own answers must be in its shape.
    pub grpc: bool,
    /// Whom it was sent to.
    pub backend: Option<Asked>,
    /// How long the answer's body may take.
    pub limits: Limits,
    /// Both sides leave HTTP once the client has the head of the answer.
    pub switch: Option<Box<Switch>>,
    /// Room under the upstream's limit of requests, until the answer's end.
    pub permit: Option<Permit>,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// Bytes of the request's body, where it has one.
    pub received: Option<Arc<Progress>>,
    pub(super) status: StatusCode,
    /// There was no head: method and path are not known.
    pub(super) headless: bool,
    /// What whoever asks why is told of the head.
    pub(super) asked: Option<Asking>,
    log: Option<Box<Said>>,
}

/// Whom a request was sent to: a place among the route's backends, and what that is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked {
    /// The upstream at that place of the snapshot.
    Upstream(usize),
    /// The handler of the backend at that place of the route.
    Handler(usize),
}

/// What the access log says of a head that has moved on since.
struct Said {
    path: Box<str>,
    query: Option<Box<str>>,
    host: Option<Box<str>>,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    client: Option<IpAddr>,
}

impl Exchange {
    /// Opens the record.
    pub(crate) fn open(
        local: &Rc<Local>,
        origin: Entered,
        view: Rc<View>,
        listener: usize,
        head: &RequestHead,
    ) -> Box<Self> {
        local.in_flight.set(local.in_flight.get() + 1);
        local.admitted.set(local.admitted.get() + 1);
        Box::new(Self {
            local: Rc::clone(local),
            origin,
            view,
            listener,
            route: None,
            method: head.method().clone(),
            started: clock::now(),
            waited: Duration::ZERO,
            came: None,
            answered: None,
            hooked: false,
            exhausted: None,
            decision: Decision::default(),
            kept: http::Extensions::new(),
            version: head.version(),
            grpc: head.is_grpc(),
            backend: None,
            limits: Limits::default(),
            switch: None,
            permit: None,
            sent: 0,
            received: None,
            status: failure::client_left(),
            headless: false,
            asked: None,
            log: None,
        })
    }

    /// The listener that the request came through.
    pub(crate) fn listener(&self) -> &Listener {
        self.view.snapshot.listener(self.listener)
    }

    /// Checks and cleans the head.
    ///
    /// # Errors
    /// See [`admit::admit`].
    pub(crate) fn admit(&self, head: &mut RequestHead) -> Result<Wish, Failure> {
        let hop = Hop {
            peer: self.origin.peer,
            peer_text: &self.origin.peer_text,
            secure: self.origin.secure,
            trusted: &self.listener().trusted_proxies,
        };
        admit::admit(head, &hop)
    }

    /// The route is known, or that there is none: the request now counts as in flight on it, and
    /// what the access log will say of its head is kept.
    pub(crate) fn routed(&mut self, route: Option<usize>, head: &RequestHead) {
        self.route = route;
        self.series().begin(self.local.id);
        let decisions = &self.view.snapshot.decisions;
        if decisions.recent > 0 || !decisions.header_for.is_empty() {
            self.asked = Some(Asking::of(head));
        }
        if self.view.snapshot.access_log.is_on() {
            self.log = Some(Box::new(Said::of(head)));
        }
    }

    fn series(&self) -> &RouteSeries {
        let routed = self
            .route
            .and_then(|route| self.view.snapshot.route(route).series_on(self.listener));
        routed.unwrap_or(&self.listener().unrouted)
    }

    /// The head of the answer is ready.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = status;
        let came = self.came.filter(|_| !self.hooked);
        self.answered = Some(came.unwrap_or_else(Instant::now));
    }

    /// The time, now that the backend's turn has come.
    pub(crate) fn turn(&self) -> Instant {
        if self.hooked {
            clock::now()
        } else {
            self.started
        }
    }

    /// What middlewares may use.
    pub(crate) fn hooks(&mut self) -> middleware::Context<'_> {
        middleware::Context {
            now: self.started,
            record: &mut self.decision,
            kept: &mut self.kept,
            caller: &self.local.caller.0,
            effects: self.local.effects(),
        }
    }

    /// Bytes that never became a request: there is nothing but the answer to tell of.
    pub(crate) fn refused(&mut self, status: StatusCode, flag: Flag, detail: Cow<'static, str>) {
        self.decision.fail(flag, detail);
        self.headless = true;
        self.answered(status);
    }

    fn close(&mut self) {
        let now = clock::now();
        if self.answered.is_none() {
            self.decision.fail(
                Flag::ClientLeft,
                "the client left before the head of the answer",
            );
        }
        if let Some(attempts) = self.exhausted {
            // Only now: the answer is the upstream's own, which nobody here was to put into words.
            let detail = exhausted(attempts);
            self.decision.fail(Flag::RetriesExhausted, detail);
        }
        let took = now.saturating_duration_since(self.started);
        let to_head = self
            .answered
            .unwrap_or(now)
            .saturating_duration_since(self.started);
        self.series().end(
            self.local.id,
            &Sample {
                method: self.counted_method(),
                status: self.status.as_u16(),
                flag: self.decision.flag,
                took,
                overhead: to_head.saturating_sub(self.waited),
            },
        );
        self.count_backend();
        if let Some(witness) = &self.local.witness {
            witness.closed(self);
        }
        if let Some(said) = self.log.take() {
            self.write_log(&said, took);
        }
        let decisions = &self.view.snapshot.decisions;
        let is_of_interest = self.decision.flag.is_some()
            || self.status.is_server_error()
            || took >= decisions.slow.0;
        if is_of_interest && decisions.recent > 0 && self.local.witness.is_none() {
            self.local.keep(self.record(took), decisions.recent);
        }
        self.local.in_flight.set(self.local.in_flight.get() - 1);
    }

    fn counted_method(&self) -> metrics::Method {
        if self.headless {
            metrics::Method::Other
        } else {
            (&self.method).into()
        }
    }

    /// What the backend's own series say.
    fn count_backend(&self) {
        let worker = self.local.id;
        match self.backend {
            Some(Asked::Upstream(place)) => {
                let series = &self.view.snapshot.upstream(place).series;
                for attempt in &self.decision.attempts {
                    series.attempt(worker, attempt.status, attempt.flag, attempt.took);
                }
            }
            Some(Asked::Handler(_)) => {
                if let Some((_, series)) = self.handler() {
                    series.answer(worker, self.status.as_u16(), self.waited);
                }
            }
            None => {}
        }
        if let (Some(kind), Some(route)) = (self.decision.middleware, self.route) {
            let route = self.view.snapshot.route(route);
            if let Some(series) = route.answers_of(kind) {
                series.answer(worker, self.status.as_u16());
            }
        }
    }

    pub(super) fn handler(&self) -> Option<(&Arc<Handler>, &Arc<HandlerSeries>)> {
        let (Some(Asked::Handler(place)), Some(route)) = (self.backend, self.route) else {
            return None;
        };
        match self.view.snapshot.route(route).backends.get(place)?.to {
            To::Handler(ref handler, ref series) => Some((handler, series)),
            To::Upstream(_) => None,
        }
    }

    fn write_log(&self, said: &Said, took: Duration) {
        let snapshot = &self.view.snapshot;
        let upstream = match self.backend {
            Some(Asked::Upstream(place)) => Some(&snapshot.upstream(place).upstream),
            _ => None,
        };
        let members = upstream.map(|upstream| upstream.members());
        let members = members.as_deref();
        let attempts = &self.decision.attempts;
        let tries = tries(attempts, members);
        let request_id = self
            .decision
            .request_id
            .as_ref()
            .or(said.request_id.as_ref());
        let entry = Entry {
            start: self.started,
            took,
            listener: &self.listener().name,
            route: self.route.map(|route| &*snapshot.route(route).name),
            method: if self.headless {
                "-"
            } else {
                self.method.as_str()
            },
            host: said.host.as_deref(),
            path: if self.headless { "-" } else { &said.path },
            query: said.query.as_deref(),
            protocol: self.version,
            status: self.status.as_u16(),
            flag: self.decision.flag,
            detail: self.decision.detail.as_deref(),
            upstream: upstream.map(|upstream| upstream.name()),
            endpoint: attempts.last().and_then(|one| label(one, members)),
            attempts: attempts.len(),
            tries: &tries,
            bytes_in: self
                .received
                .as_ref()
                .map_or(0, |progress| progress.bytes()),
            bytes_out: self.sent,
            client_ip: said.client,
            request_id: request_id.map(HeaderValue::as_bytes),
            user_agent: said.user_agent.as_ref().map(HeaderValue::as_bytes),
            referer: said.referer.as_ref().map(HeaderValue::as_bytes),
            handler: self.handler().map(|(handler, _)| handler.name()),
            middleware: self.decision.middleware,
            notes: &self.decision.notes,
        };
        self.local.log(&snapshot.access_log, &entry);
    }
}

/// The attempts one by one, where there are several: a single one says no more than its request.
fn tries<'a>(attempts: &[Attempt], members: Option<&'a Members>) -> Vec<Try<'a>> {
    if attempts.len() < 2 {
        return Vec::new();
    }
    let one = |attempt: &Attempt| Try {
        endpoint: label(attempt, members),
        took: attempt.took,
        status: attempt.status,
        flag: attempt.flag,
    };
    attempts.iter().map(one).collect()
}

pub(super) fn label<'a>(attempt: &Attempt, members: Option<&'a Members>) -> Option<&'a str> {
    let member = members?.get(attempt.endpoint)?;
    Some(&member.endpoint.label)
}

impl Said {
    fn of(head: &RequestHead) -> Self {
        let copy = |name: HeaderName| head.headers.get(name).cloned();
        Self {
            path: head.path().into(),
            query: head.query().map(Into::into),
            host: head.authority().map(Into::into),
            user_agent: copy(header::USER_AGENT),
            referer: copy(header::REFERER),
            request_id: copy(X_REQUEST_ID.clone()),
            client: head.client.ip,
        }
    }
}

pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Drop for Exchange {
    fn drop(&mut self) {
        self.close();
    }
}
