//! What is counted of each request, by listener and route.

use std::time::Duration;

use super::catalogue::Metric;
use super::codes::{Codes, Key, Method};
use super::exposition::{Admission, Exposition, HISTOGRAM_LINES};
use super::family::Series;
use super::histogram::{Histogram, LATENCY, OVERHEAD, Total};
use super::shard::{Count, Shards};
use crate::telemetry::decision::Flag;

/// How one request ended.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// What the client asked with.
    pub method: Method,
    /// What it got.
    pub status: u16,
    /// Why the gateway answered itself, or how the upstream failed.
    pub flag: Option<Flag>,
    /// From the request's head to the end of the answer's body.
    pub took: Duration,
    /// The part of it that was the gateway's own.
    pub overhead: Duration,
}

/// The series of one route on one listener.
#[derive(Debug)]
pub struct RouteSeries {
    listener: Box<str>,
    route: Box<str>,
    shards: Shards<Shard>,
    admission: Admission,
}

#[derive(Debug, Default)]
struct Shard {
    in_flight: Count,
    codes: Codes,
    duration: Histogram,
    overhead: Histogram,
}

impl RouteSeries {
    pub(super) fn new(listener: &str, route: &str, workers: usize) -> Self {
        Self {
            listener: listener.into(),
            route: route.into(),
            shards: Shards::new(workers),
            admission: Admission::default(),
        }
    }

    /// A request begins; the same worker must end it.
    #[inline]
    pub fn begin(&self, worker: usize) {
        self.shards.of(worker).in_flight.add(1);
    }

    /// A request has ended, its answer's body included.
    #[inline]
    pub fn end(&self, worker: usize, sample: &Sample) {
        let shard = self.shards.of(worker);
        shard.in_flight.subtract(1);
        shard
            .codes
            .add(Key::new(sample.method, Some(sample.status), sample.flag));
        shard.duration.observe(&LATENCY, sample.took);
        shard.overhead.observe(&OVERHEAD, sample.overhead);
    }

    /// Requests in flight now.
    pub fn in_flight(&self) -> u64 {
        self.shards.level(|shard| &shard.in_flight)
    }
}

impl Series for RouteSeries {
    fn collect(&self, out: &mut Exposition<'_>) {
        if self.shards.used().next().is_none() {
            return;
        }
        let labels = [&*self.listener, &*self.route];
        if self.admission.all(out.budget, 1 + 2 * HISTOGRAM_LINES) {
            out.number(Metric::HttpInFlight, &labels, self.in_flight());
            let duration = Total::of(&self.shards, |shard| &shard.duration);
            out.histogram(Metric::HttpDuration, &labels, &duration);
            let overhead = Total::of(&self.shards, |shard| &shard.overhead);
            out.histogram(Metric::HttpOverhead, &labels, &overhead);
        }
        let [listener, route] = labels;
        for (key, count) in Codes::merge(&self.shards, |shard| &shard.codes) {
            if self.admission.by_key(out.budget, key) {
                let code = key.code();
                let labels = [listener, route, key.method(), &code, key.flag()];
                out.number(Metric::HttpRequests, &labels, count);
            }
        }
    }

    fn admission(&self) -> &Admission {
        &self.admission
    }
}
