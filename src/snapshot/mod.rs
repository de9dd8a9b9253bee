//! The configuration as requests use it: compiled once, immutable, shared by all workers.
//!
//! Names have become places in lists, settings have become things that act. A request finds all
//! that it needs here without looking anything up by name.

mod build;
pub mod change;
mod identity;
pub mod publish;
mod split;
mod tables;

pub use build::{Builder, Built, NotBuilt};
pub use change::Change;
pub use identity::{Identity, Owner};
pub use split::Split;
pub use tables::{Listing, listings, shadowed};

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use smallvec::SmallVec;

use crate::base::address::Address;
use crate::base::message::RequestHead;
use crate::base::pressure::Priority;
use crate::config::{Hedge, Retry};
use crate::handler::Handler;
use crate::middleware::Chain;
use crate::routing::Table;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{
    HandlerSeries, ListenerSeries, MiddlewareSeries, RouteSeries, UpstreamSeries,
};
use crate::telemetry::recent;
use crate::upstream;

/// Everything that a request needs.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with every configuration that was put in force.
    pub revision: u64,
    /// In the order of the file.
    pub listeners: Vec<Listener>,
    /// In the order of the file.
    pub routes: Vec<Route>,
    /// In the order of their names.
    pub upstreams: Vec<Upstream>,
    /// Where requests are logged.
    pub access_log: Arc<AccessLog>,
    /// Which requests are kept for whoever asks why.
    pub decisions: recent::Settings,
    /// Each upstream's place, by its name.
    upstream_places: HashMap<Arc<str>, usize>,
}

/// Where clients come in.
#[derive(Debug)]
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: Address,
    /// What its clients may cost.
    pub limits: Limits,
    /// Whose word about earlier hops is taken.
    pub trusted_proxies: Vec<IpNet>,
    /// The middlewares of all its requests.
    pub chain: Chain,
    /// The routes that it serves.
    pub table: Arc<Table>,
    /// Counts its connections.
    pub series: Arc<ListenerSeries>,
    /// Counts requests that no route took.
    pub unrouted: Arc<RouteSeries>,
    /// Equal for equal sections of the configuration.
    pub fingerprint: u64,
}

/// What the clients of a listener may cost, and which protocols they may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open connections.
    pub connections: usize,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// Header lines of a request.
    pub headers: usize,
    /// From a head's first byte to its last.
    pub header_timeout: Duration,
    /// Between requests, and while a client does not read.
    pub idle_timeout: Duration,
    /// After which a connection is asked to go.
    pub connection_age: Option<Duration>,
    /// Concurrent requests of one HTTP/2 connection.
    pub streams: u32,
    /// HTTP/1.0 and 1.1 are served.
    pub http1: bool,
    /// HTTP/2 is served.
    pub http2: bool,
}

/// Where requests go, and what happens on the way.
#[derive(Debug)]
pub struct Route {
    /// Its name.
    pub name: Arc<str>,
    /// Its middlewares.
    pub chain: Chain,
    /// Where it may send.
    pub backends: Backends,
    /// What decides where it sends; none: chance.
    pub split: Option<Box<Split>>,
    /// Who gets copies of its requests.
    pub mirrors: Box<[Mirror]>,
    /// What its requests are worth when not all can be served.
    pub priority: Priority,
    /// Limits of time.
    pub timeouts: Timeouts,
    /// When a request is tried again; none: [`Retry::DEFAULT`].
    pub retry: Option<Box<Retry>>,
    /// When a second endpoint is asked; none: never.
    pub hedge: Option<Box<Hedge>>,
    /// Equal for equal sections of the configuration.
    pub fingerprint: u64,
    /// Counts its requests: one for each listener of the snapshot that serves it.
    series: SmallVec<[(usize, Arc<RouteSeries>); 1]>,
    /// Counts the answers that middlewares make, by their kinds.
    answers: Vec<(&'static str, Arc<MiddlewareSeries>)>,
}

/// Limits of time of a route; none means no limit, or the default where one is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From admission to the last byte of the answer.
    pub request: Option<Duration>,
    /// From sending to the head of the answer.
    pub attempt: Option<Duration>,
    /// Silence of both sides.
    pub idle: Option<Duration>,
}

/// Backends by weight.
///
/// The usual single one lies within its route: with a thousand routes each line of memory that a
/// request touches is one that the processor does not have at hand.
#[derive(Debug)]
pub struct Backends {
    list: SmallVec<[Backend; 1]>,
    /// Each backend's upper end on a scale from 0 to the sum of weights.
    ends: SmallVec<[u64; 1]>,
}

/// Where a route may send.
#[derive(Debug)]
pub struct Backend {
    /// Middlewares of requests that go there.
    pub chain: Chain,
    /// Who answers.
    pub to: To,
}

/// Who gets copies of a route's requests.
#[derive(Debug, Clone, Copy)]
pub struct Mirror {
    /// The upstream at that place of the snapshot.
    pub upstream: usize,
    /// The share of requests that it gets, from 0 to 1.
    share: f64,
}

/// Who answers.
#[derive(Debug)]
pub enum To {
    /// The upstream at that place of the snapshot.
    Upstream(usize),
    /// A handler in this process.
    Handler(Arc<Handler>, Arc<HandlerSeries>),
}

/// A named group of endpoints, with its counters.
#[derive(Debug)]
pub struct Upstream {
    /// The group.
    pub upstream: Arc<upstream::Upstream>,
    /// Counts its requests.
    pub series: Arc<UpstreamSeries>,
    /// Equal for equal sections of the configuration.
    pub fingerprint: u64,
}

impl Snapshot {
    /// The listener at a place, which comes from this snapshot.
    #[expect(clippy::indexing_slicing, reason = "places are made by this snapshot")]
    pub fn listener(&self, place: usize) -> &Listener {
        &self.listeners[place]
    }

    /// The route at a place, which comes from this snapshot.
    #[expect(clippy::indexing_slicing, reason = "places are made by this snapshot")]
    pub fn route(&self, place: usize) -> &Route {
        &self.routes[place]
    }

    /// The upstream at a place, which comes from this snapshot.
    #[expect(clippy::indexing_slicing, reason = "places are made by this snapshot")]
    pub fn upstream(&self, place: usize) -> &Upstream {
        &self.upstreams[place]
    }

    /// The place of a listener.
    pub fn listener_named(&self, name: &str) -> Option<usize> {
        self.listeners
            .iter()
            .position(|listener| *listener.name == *name)
    }

    /// The place of an upstream.
    pub fn upstream_named(&self, name: &str) -> Option<usize> {
        self.upstream_places.get(name).copied()
    }
}

impl Route {
    /// The backend that takes a request, and its place; `random` is uniform over all numbers.
    ///
    /// None if every weight is 0.
    pub fn backend(&self, head: &RequestHead, random: u64) -> Option<(usize, &Backend)> {
        let split = self.split.as_ref().and_then(|split| split.place(head));
        match split {
            Some(place) => Some((place, self.backends.get(place)?)),
            None => self.backends.pick(random),
        }
    }

    /// Counts the route's requests that came through the listener at that place.
    pub fn series_on(&self, listener: usize) -> Option<&RouteSeries> {
        let mut series = self.series.iter();
        series
            .find(|(place, _)| *place == listener)
            .map(|(_, series)| &**series)
    }

    /// Counts the answers that middlewares of a kind make.
    pub fn answers_of(&self, kind: &str) -> Option<&MiddlewareSeries> {
        let mut answers = self.answers.iter();
        answers
            .find(|(of, _)| *of == kind)
            .map(|(_, series)| &**series)
    }
}

impl Mirror {
    /// Copies of that share of the requests, for the upstream at that place.
    pub fn new(upstream: usize, share: f64) -> Self {
        Self { upstream, share }
    }

    /// Whether it gets a copy of a request; `random` is uniform over all numbers.
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits are what a float holds exactly"
    )]
    pub fn takes(&self, random: u64) -> bool {
        let uniform = (random >> 11) as f64 / (1_u64 << 53) as f64;
        uniform < self.share
    }
}

impl Backends {
    /// Backends with their weights.
    pub fn new(weighted: impl IntoIterator<Item = (u32, Backend)>) -> Self {
        let mut end = 0;
        let (list, ends) = weighted
            .into_iter()
            .map(|(weight, backend)| {
                end += u64::from(weight);
                (backend, end)
            })
            .unzip();
        Self { list, ends }
    }

    /// The one that takes a request, and its place; `random` is uniform over all numbers.
    ///
    /// None if every weight is 0.
    pub fn pick(&self, random: u64) -> Option<(usize, &Backend)> {
        let sum = *self.ends.last()?;
        if sum == 0 {
            return None;
        }
        if let [only] = self.list.as_slice() {
            return Some((0, only));
        }
        let point = random % sum;
        let place = self.ends.partition_point(|end| *end <= point);
        self.list.get(place).map(|backend| (place, backend))
    }

    /// The backend at a place.
    pub fn get(&self, place: usize) -> Option<&Backend> {
        self.list.get(place)
    }

    /// All of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Backend> {
        self.list.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_gets_its_share_and_nothing_or_everything_where_that_is_said() {
        let taken = |share: f64| {
            let mirror = Mirror::new(0, share);
            let randoms = (0..1000_u64).map(|n| n * (u64::MAX / 999));
            randoms.filter(|random| mirror.takes(*random)).count()
        };
        assert_eq!(taken(0.0), 0);
        assert_eq!(taken(1.0), 1000);
        assert_eq!(taken(0.1), 100);
    }

    #[test]
    fn backends_get_their_share_and_none_gets_requests_with_weight_0() {
        let backend = |place| Backend {
            chain: Chain::default(),
            to: To::Upstream(place),
        };
        let backends = Backends::new([(3, backend(0)), (0, backend(1)), (1, backend(2))]);
        let mut counts = [0; 3];
        for random in 0..4000 {
            let (place, _) = backends.pick(random).expect("not all weights are 0");
            counts[place] += 1;
        }
        assert_eq!(counts, [3000, 0, 1000]);
        assert!(Backends::new([(0, backend(0))]).pick(7).is_none());
        assert!(Backends::new([]).pick(7).is_none());
    }
}
