//! What is counted of each listener: connections taken, kept and refused.

use super::catalogue::Metric;
use super::connections::{Connection, Connections};
use super::exposition::{Admission, Exposition};
use super::family::Series;
use super::shard::{Count, Shards};

/// Why a connection was closed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There are as many as the listener may have.
    Limit,
    /// The gateway is shutting down.
    Draining,
    /// TLS or the PROXY header could not be read.
    Handshake,
}

/// The series of one listener.
#[derive(Debug)]
pub struct ListenerSeries {
    listener: Box<str>,
    shards: Shards<Shard>,
    admission: Admission,
}

#[derive(Debug, Default)]
struct Shard {
    connections: Connections,
    accepted: Count,
    refused: [Count; 3],
    errors: Count,
}

const REFUSALS: [&str; 3] = ["limit", "draining", "handshake"];
/// Two states, accepted, errors, three reasons.
const LINES: usize = 2 + 1 + 1 + 3;

impl ListenerSeries {
    pub(super) fn new(listener: &str, workers: usize) -> Self {
        Self {
            listener: listener.into(),
            shards: Shards::new(workers),
            admission: Admission::default(),
        }
    }

    /// A connection was taken.
    pub fn accepted(&self, worker: usize) {
        self.shards.of(worker).accepted.add(1);
    }

    /// A connection was closed at once.
    pub fn refused(&self, worker: usize, why: Refusal) {
        if let Some(count) = self.shards.of(worker).refused.get(why as usize) {
            count.add(1);
        }
    }

    /// Taking a connection failed.
    pub fn accept_error(&self, worker: usize) {
        self.shards.of(worker).errors.add(1);
    }

    /// A connection changes its state: from none when it opens, to none when it ends.
    #[inline]
    pub fn connection(&self, worker: usize, from: Option<Connection>, to: Option<Connection>) {
        self.shards.of(worker).connections.shift(from, to);
    }

    /// Open connections.
    pub fn open(&self) -> u64 {
        let states = Connection::ALL.into_iter();
        states
            .map(|state| Connections::level(&self.shards, |shard| &shard.connections, state))
            .sum()
    }
}

impl Series for ListenerSeries {
    fn collect(&self, out: &mut Exposition<'_>) {
        if !self.admission.all(out.budget, LINES) {
            return;
        }
        let listener = &*self.listener;
        for state in Connection::ALL {
            let level = Connections::level(&self.shards, |shard| &shard.connections, state);
            out.number(
                Metric::ListenerConnections,
                &[listener, state.name()],
                level,
            );
        }
        let accepted = self.shards.sum(|shard| &shard.accepted);
        out.number(Metric::ListenerAccepted, &[listener], accepted);
        let mut refused = [0_u64; REFUSALS.len()];
        for shard in self.shards.used() {
            for (sum, count) in refused.iter_mut().zip(&shard.refused) {
                *sum += count.get();
            }
        }
        for (reason, number) in REFUSALS.iter().zip(refused) {
            out.number(Metric::ListenerRefused, &[listener, reason], number);
        }
        let errors = self.shards.sum(|shard| &shard.errors);
        out.number(Metric::ListenerAcceptErrors, &[listener], errors);
    }

    fn admission(&self) -> &Admission {
        &self.admission
    }
}
