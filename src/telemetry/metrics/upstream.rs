//! What is counted of each upstream: attempts, connections, endpoints, retries.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::catalogue::Metric;
use super::codes::{Codes, Key, Method};
use super::connections::{Connection, Connections};
use super::exposition::{Admission, Exposition, HISTOGRAM_LINES};
use super::family::Series;
use super::histogram::{Histogram, LATENCY, Total};
use super::shard::{Count, Shards};
use crate::telemetry::decision::Flag;

/// Whether an endpoint may take requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// It may.
    Ready,
    /// Its health check fails.
    Unhealthy,
    /// It failed too often and sits out.
    Ejected,
    /// It has left the list, and serves what is under way.
    Draining,
}

/// What became of a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Its answer went to the client.
    Succeeded,
    /// It failed as well.
    Failed,
    /// The budget did not allow it.
    Refused,
}

/// The series of one upstream.
#[derive(Debug)]
pub struct UpstreamSeries {
    upstream: Box<str>,
    shards: Shards<Shard>,
    /// Set by whoever watches health, not counted: one number for all workers.
    endpoints: [AtomicU64; ENDPOINTS.len()],
    queue: AtomicU64,
    admission: Admission,
}

#[derive(Debug, Default)]
struct Shard {
    codes: Codes,
    duration: Histogram,
    connections: Connections,
    connected: Count,
    unconnected: Count,
    retries: [Count; 3],
}

const ENDPOINTS: [&str; 4] = ["ready", "unhealthy", "ejected", "draining"];
const RETRIES: [&str; 3] = ["succeeded", "failed", "refused"];
/// Two states of connections, two outcomes of connecting, the queue, endpoints, retries, durations.
const LINES: usize = 2 + 2 + 1 + ENDPOINTS.len() + RETRIES.len() + HISTOGRAM_LINES;

impl UpstreamSeries {
    pub(super) fn new(upstream: &str, workers: usize) -> Self {
        Self {
            upstream: upstream.into(),
            shards: Shards::new(workers),
            endpoints: Default::default(),
            queue: AtomicU64::new(0),
            admission: Admission::default(),
        }
    }

    /// An attempt has its answer's head (`status`), or has failed (`flag`).
    #[inline]
    pub fn attempt(&self, worker: usize, status: Option<u16>, flag: Option<Flag>, took: Duration) {
        let shard = self.shards.of(worker);
        shard.codes.add(Key::new(Method::Other, status, flag));
        shard.duration.observe(&LATENCY, took);
    }

    /// What a worker's connections do now.
    pub fn connections(&self, worker: usize, active: u32, idle: u32) {
        self.shards.of(worker).connections.set(active, idle);
    }

    /// So many more connections were made, and could not be.
    pub fn connected(&self, worker: usize, made: u64, failed: u64) {
        let shard = self.shards.of(worker);
        shard.connected.add(made);
        shard.unconnected.add(failed);
    }

    /// A retry has ended, or was not allowed.
    pub fn retry(&self, worker: usize, outcome: Retry) {
        if let Some(count) = self.shards.of(worker).retries.get(outcome as usize) {
            count.add(1);
        }
    }

    /// How many requests wait for a connection or for room under a limit; from any thread.
    pub fn set_queue(&self, number: u32) {
        self.queue.store(u64::from(number), Ordering::Relaxed);
    }

    /// How many endpoints are in a state; from any thread.
    pub fn set_endpoints(&self, state: EndpointState, number: usize) {
        if let Some(endpoints) = self.endpoints.get(state as usize) {
            endpoints.store(number as u64, Ordering::Relaxed);
        }
    }
}

impl Series for UpstreamSeries {
    fn collect(&self, out: &mut Exposition<'_>) {
        let upstream = &*self.upstream;
        if self.admission.all(out.budget, LINES) {
            let duration = Total::of(&self.shards, |shard| &shard.duration);
            out.histogram(Metric::UpstreamDuration, &[upstream], &duration);
            for state in Connection::ALL {
                let level = Connections::level(&self.shards, |shard| &shard.connections, state);
                out.number(
                    Metric::UpstreamConnections,
                    &[upstream, state.name()],
                    level,
                );
            }
            let connected = self.shards.sum(|shard| &shard.connected);
            out.number(Metric::UpstreamConnects, &[upstream, "ok"], connected);
            let failed = self.shards.sum(|shard| &shard.unconnected);
            out.number(Metric::UpstreamConnects, &[upstream, "failed"], failed);
            for (state, number) in ENDPOINTS.iter().zip(&self.endpoints) {
                let number = number.load(Ordering::Relaxed);
                out.number(Metric::UpstreamEndpoints, &[upstream, state], number);
            }
            let mut retries = [0_u64; RETRIES.len()];
            for shard in self.shards.used() {
                for (sum, count) in retries.iter_mut().zip(&shard.retries) {
                    *sum += count.get();
                }
            }
            for (outcome, number) in RETRIES.iter().zip(retries) {
                out.number(Metric::UpstreamRetries, &[upstream, outcome], number);
            }
            let queue = self.queue.load(Ordering::Relaxed);
            out.number(Metric::UpstreamQueue, &[upstream], queue);
        }
        for (key, count) in Codes::merge(&self.shards, |shard| &shard.codes) {
            if self.admission.by_key(out.budget, key) {
                let labels = [upstream, &key.code(), key.flag()];
                out.number(Metric::UpstreamRequests, &labels, count);
            }
        }
    }

    fn admission(&self) -> &Admission {
        &self.admission
    }
}
