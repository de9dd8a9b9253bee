//! How an endpoint is chosen: one file a policy, one line here.
//!
//! A policy is built for one immutable list of ready endpoints and belongs to one worker; it is
//! built anew when the list changes. Choosing is a function of its state, a random number and the
//! time: no clock, no socket, no lock.

mod p2c_ewma;
mod round_robin;

use std::time::{Duration, Instant};

pub use p2c_ewma::P2cEwma;
pub use round_robin::RoundRobin;

use crate::upstream::settings;

/// How a request at an endpoint ended, as far as balancing cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The head of an answer came after this time.
    Answered(Duration),
    /// No usable answer: refused, broken off, or an answer that says "not me" (502, 503, 504).
    Failed(Duration),
    /// Nobody waited for the answer any longer than this.
    Abandoned(Duration),
}

/// The balancer of one worker for one upstream.
#[derive(Debug)]
pub enum Balancer {
    /// In turn.
    RoundRobin(RoundRobin),
    /// The better of two.
    P2cEwma(P2cEwma),
}

impl Balancer {
    /// A balancer over numbers and weights of the ready endpoints.
    pub fn new(
        policy: settings::Balance,
        ready: impl Iterator<Item = (u32, u32)>,
        random: u64,
        now: Instant,
    ) -> Self {
        match policy {
            settings::Balance::RoundRobin => Self::RoundRobin(RoundRobin::new(ready, random)),
            settings::Balance::P2cEwma => Self::P2cEwma(P2cEwma::new(ready, now)),
        }
    }

    /// The endpoint for a request that starts now; none if no endpoint is ready.
    ///
    /// Those in `avoid` (where earlier attempts failed) are chosen only if there is no other.
    /// Every pick is to be followed by one [`Self::settle`].
    pub fn pick(&mut self, avoid: &[u32], random: u64, now: Instant) -> Option<u32> {
        match self {
            Self::RoundRobin(policy) => policy.pick(avoid),
            Self::P2cEwma(policy) => {
                let endpoint = policy.pick(avoid, random, now)?;
                policy.start(endpoint);
                Some(endpoint)
            }
        }
    }

    /// What became of a picked endpoint's request.
    pub fn settle(&mut self, endpoint: u32, outcome: Outcome, now: Instant) {
        match self {
            Self::RoundRobin(_) => {}
            Self::P2cEwma(policy) => policy.settle(endpoint, outcome, now),
        }
    }
}
