//! What the tests of several policies need.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use crate::base::key;
use crate::upstream::balance::{Balance, Balancer, Candidate, Choice, Outcome};

pub(super) const MS: Duration = Duration::from_millis(1);

/// Endpoints of these weights, numbered from 0.
pub(super) fn candidates(weights: &[u32]) -> Vec<Candidate> {
    let candidate = |(number, weight): (u32, &u32)| Candidate {
        number,
        weight: *weight,
        hash: key::hash(format!("10.0.{}.{}:8080", number >> 8, number & 255).as_bytes()),
    };
    (0..).zip(weights).map(candidate).collect()
}

/// All endpoints that may be picked, with a number that is drawn.
pub(super) fn choice(random: u64, now: Instant) -> Choice<'static> {
    Choice {
        avoid: &[],
        key: None,
        random,
        now,
    }
}

/// Whom a key leads to.
pub(super) fn pick(balancer: &mut Balancer, key: u64) -> u32 {
    let choice = Choice {
        key: Some(key),
        ..choice(0, Instant::now())
    };
    balancer.pick(&choice).expect("a candidate")
}

/// Whom each of so many keys leads to.
pub(super) fn map(balance: &Balance, candidates: &[Candidate], keys: u64) -> Vec<u32> {
    let mut balancer = Balancer::new(balance, candidates, 0, Instant::now(), None);
    let key = |key: u64| key::hash(&key.to_be_bytes());
    let keys = (0..keys).map(key).take_while(|_| !candidates.is_empty());
    keys.map(|key| pick(&mut balancer, key)).collect()
}

/// Keys that moved when the list became shorter.
#[derive(Debug)]
pub(super) struct Moved {
    /// Those of endpoints that left.
    pub(super) own: usize,
    /// Those of endpoints that stayed.
    pub(super) others: usize,
}

/// Counts the keys that move from one list to another.
pub(super) fn moved(
    balance: &Balance,
    before: &[Candidate],
    after: &[Candidate],
    keys: u64,
) -> Moved {
    let stays = |number: u32| after.iter().any(|candidate| candidate.number == number);
    let (before, after) = (map(balance, before, keys), map(balance, after, keys));
    let changed = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after);
    let (others, own): (Vec<_>, Vec<_>) = changed.partition(|(before, _)| stays(**before));
    Moved {
        own: own.len(),
        others: others.len(),
    }
}

/// Sends `requests` at a steady pace to endpoints of these latencies; returns who got how many.
pub(super) fn simulate(
    balance: &Balance,
    weights: &[u32],
    latencies: &[Duration],
    pace: Duration,
    requests: u32,
) -> Vec<u32> {
    let start = Instant::now();
    let mut balancer = Balancer::new(balance, &candidates(weights), 7, start, None);
    let mut random = fastrand::Rng::with_seed(42);
    let mut flying = BinaryHeap::new();
    let mut counts = vec![0; weights.len()];
    for number in 0..requests {
        let now = start + pace * number;
        while let Some(Reverse((end, endpoint, took))) = flying.peek().copied()
            && end <= now
        {
            flying.pop();
            balancer.settle(endpoint, Outcome::Answered(took), end);
        }
        let endpoint = balancer.pick(&choice(random.u64(..), now)).expect("ready");
        counts[endpoint as usize] += 1;
        // Real latencies scatter; here by up to a tenth.
        let took = latencies[endpoint as usize].mul_f64(0.9 + random.f64() * 0.2);
        flying.push(Reverse((now + took, endpoint, took)));
    }
    counts
}
