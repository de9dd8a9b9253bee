//! A configuration that was checked: every name resolved, every default applied.
//!
//! It is complete and consistent, but holds nothing that runs: that is the snapshot's.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::places::Places;
pub use super::raw::{After, Condition, Protocol, Workers};
use super::test::Test;
use crate::base::address::Address;
use crate::base::key::KeySource;
use crate::base::pressure::{Priority, Shedding};
use crate::base::problem::{Span, Spanned};
use crate::routing::matcher::Match;
use crate::telemetry::{access_log, metrics, recent};
use crate::upstream::Deposit;
use crate::{handler, middleware, upstream};

/// A checked configuration.
#[derive(Debug)]
pub struct Config {
    /// Threads, shutdown, where state is kept.
    pub runtime: Runtime,
    /// The port for operators.
    pub admin: Admin,
    /// Metrics, health endpoints, the access log.
    pub telemetry: Telemetry,
    /// Addresses where clients are accepted, in the order of the file.
    pub listeners: Vec<Listener>,
    /// Which requests go where, in the order of the file.
    pub routes: Vec<Route>,
    /// Handlers with a name, by it.
    pub handlers: BTreeMap<Arc<str>, Arc<Handler>>,
    /// Named groups of endpoints, by name.
    pub upstreams: BTreeMap<Arc<str>, Upstream>,
    /// Requests and what should become of them.
    pub tests: Vec<Test>,
    /// Where all of it is written.
    pub places: Places,
}

impl Config {
    /// Gives a configuration without listeners one that is never opened: for requests from memory.
    pub fn reach_from_memory(&mut self) {
        self.listeners.push(Listener {
            name: "memory".into(),
            address: Address::Unix("memory".into()),
            protocols: Protocols {
                http1: true,
                http2: true,
            },
            trusted_proxies: Vec::new(),
            middlewares: Vec::new(),
            // These are for connections, and it has none.
            limits: Limits {
                connections: NonZeroU32::MAX,
                header_bytes: usize::MAX,
                headers: NonZeroU16::MAX,
                header_timeout: Duration::MAX,
                idle_timeout: Duration::MAX,
                connection_age: None,
                streams: NonZeroU32::MAX,
            },
            span: Span::default(),
            fingerprint: 0,
        });
        for route in &mut self.routes {
            route.listeners = Arc::from([0]);
        }
    }
}

/// Threads, shutdown, where state is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Runtime {
    /// How many threads serve traffic.
    pub workers: Workers,
    /// How long a stopping gateway waits for requests in flight.
    pub drain: Duration,
    /// Where the history of applied configurations is kept; none: in memory only.
    pub state_dir: Option<PathBuf>,
    /// When requests are refused to keep the process within its limits.
    pub shedding: Shedding,
    /// The zone that this process runs in.
    pub zone: Option<String>,
}

/// The port for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where it is.
    pub address: Address,
}

/// Metrics, health endpoints, the access log.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// Where metrics and health are served.
    pub address: Address,
    /// One line a request.
    pub access_log: access_log::Settings,
    /// What metrics may cost.
    pub metrics: metrics::Settings,
    /// Which requests are kept for whoever asks why.
    pub decisions: recent::Settings,
}

/// An address where clients are accepted.
#[derive(Debug)]
pub struct Listener {
    /// What it is called.
    pub name: Arc<str>,
    /// Where it is.
    pub address: Address,
    /// What clients may speak; at least one.
    pub protocols: Protocols,
    /// Whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Steps before those of the route.
    pub middlewares: Vec<Arc<Step>>,
    /// What a client may use up.
    pub limits: Limits,
    /// Where its name is written.
    pub span: Span,
    /// Equal for equal content of its own section; what its middlewares' names stand for does not count.
    pub fingerprint: u64,
}

/// Which versions of HTTP a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocols {
    /// HTTP/1.0 and HTTP/1.1.
    pub http1: bool,
    /// HTTP/2.
    pub http2: bool,
}

/// What clients of a listener may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once, on all workers together.
    pub connections: NonZeroU32,
    /// Bytes in the head of a request, at least 8 KiB.
    pub header_bytes: usize,
    /// Header fields of a request.
    pub headers: NonZeroU16,
    /// How long the head of a request may take.
    pub header_timeout: Duration,
    /// How long a connection may be without a request.
    pub idle_timeout: Duration,
    /// How old a connection may become; none: any age.
    pub connection_age: Option<Duration>,
    /// Requests open at once on one HTTP/2 connection.
    pub streams: NonZeroU32,
}

/// Which requests go where, and through what.
#[derive(Debug)]
pub struct Route {
    /// What it is called.
    pub name: Arc<str>,
    /// Numbers of its listeners in [`Config::listeners`], ascending; routes for all share one list.
    pub listeners: Arc<[usize]>,
    /// Conditions of which any may hold; at least one.
    pub matches: Vec<Spanned<Match>>,
    /// Steps before and after the backend, in their order, chains flattened.
    pub middlewares: Vec<Arc<Step>>,
    /// Where it sends; at least one.
    pub backends: Vec<Backend>,
    /// What decides which of them takes a request; none: chance.
    pub split_by: Option<KeySource>,
    /// Who gets copies of its requests.
    pub mirrors: Vec<Mirror>,
    /// What its requests are worth when not all can be served.
    pub priority: Priority,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// When a request is tried again; none: [`Retry::DEFAULT`].
    pub retry: Option<Retry>,
    /// When a second endpoint is asked; none: never.
    pub hedge: Option<Hedge>,
    /// Where its name is written.
    pub span: Span,
    /// Equal for equal content, that of its middlewares and handlers included, of its upstreams not.
    pub fingerprint: u64,
}

/// Where a share of a route's requests goes.
#[derive(Debug)]
pub struct Backend {
    /// Whom they go to.
    pub target: Target,
    /// Its share of the sum of all weights, at most 1,000,000; 0 takes nothing.
    pub weight: u32,
    /// Steps for this backend alone, after those of the route.
    pub middlewares: Vec<Arc<Step>>,
}

/// Who gets copies of a route's requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// The name of the upstream; [`Config::upstreams`] has it.
    pub upstream: Arc<str>,
    /// The share of the requests that it gets, from 0 to 1.
    pub share: f64,
}

/// Who answers.
#[derive(Debug)]
pub enum Target {
    /// The upstream of that name; [`Config::upstreams`] has it.
    Upstream(Arc<str>),
    /// A handler, by name or in place.
    Handler(Arc<Handler>),
}

/// How long requests of a route may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the head of the request to the end of the answer; none: any time.
    pub request: Option<Duration>,
    /// From the start of an attempt to the head of its answer; none: any time.
    pub attempt: Option<Duration>,
    /// How long both sides may be silent; none: the default, which depends on what is spoken.
    pub idle: Option<Duration>,
}

/// When a request is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How many tries a request has in all; at least 1.
    pub attempts: u32,
    /// What is tried again.
    pub on: Cow<'static, [Condition]>,
    /// The longest wait before the second attempt; doubles with each further one.
    pub backoff: Duration,
    /// What the wait does not grow beyond.
    pub max_backoff: Duration,
    /// How long an upstream may ask us to wait.
    pub retry_after: Duration,
    /// What each request adds to the retries that are allowed.
    pub budget: Deposit,
    /// How many bytes of a request's body are kept.
    pub buffer: usize,
    /// Every request may be repeated.
    pub idempotent: bool,
}

/// When a second endpoint is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedge {
    /// How long the head of the answer is waited for.
    pub after: After,
    /// How many more endpoints are asked; at least 1.
    pub max: u32,
}

impl Retry {
    /// What holds where nothing was said: no answer is judged, only what had none is tried again.
    pub const DEFAULT: Self = Self {
        on: Cow::Borrowed(&[
            Condition::ConnectFailure,
            Condition::RefusedStream,
            Condition::StaleConnection,
        ]),
        ..Self::SECTION
    };

    /// The defaults of a section.
    pub const SECTION: Self = Self {
        attempts: 3,
        on: Cow::Borrowed(&[
            Condition::ConnectFailure,
            Condition::RefusedStream,
            Condition::Closed,
            Condition::Status(502),
            Condition::Status(503),
            // UNAVAILABLE
            Condition::Grpc(14),
        ]),
        backoff: Duration::from_millis(25),
        max_backoff: Duration::from_millis(250),
        retry_after: Duration::from_secs(1),
        budget: Deposit::percent(20),
        buffer: 64 << 10,
        idempotent: false,
    };
}

/// A middleware at its place. Places that name the same one share it.
#[derive(Debug)]
pub struct Step {
    /// Which one it is, from one configuration to the next: `limit-orders`, `edge/1` for the second
    /// of a named chain, `routes/orders/0` for the first in place.
    pub id: Arc<str>,
    /// What logs and metrics call it: its name, or its kind where it has none.
    pub label: Arc<str>,
    /// What it is.
    pub settings: Spanned<middleware::Settings>,
    /// Equal for equal settings, secrets included.
    pub fingerprint: u64,
}

/// A handler at its place. Places that name the same one share it.
#[derive(Debug)]
pub struct Handler {
    /// Which one it is, from one configuration to the next: its name, or `routes/hello` in place.
    pub id: Arc<str>,
    /// What logs and metrics call it: its name, or its kind where it has none.
    pub label: Arc<str>,
    /// What it is.
    pub settings: Spanned<handler::Settings>,
    /// Equal for equal settings, secrets included.
    pub fingerprint: u64,
}

/// A named group of endpoints.
#[derive(Debug)]
pub struct Upstream {
    /// What it is.
    pub settings: upstream::Settings,
    /// Where its name is written.
    pub span: Span,
    /// Equal for equal settings, secrets included.
    pub fingerprint: u64,
}
