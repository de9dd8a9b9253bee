//! The better of two random endpoints, by latency and requests in flight.
//!
//! "Power of two choices" (Mitzenmacher, 2001) with the peak-sensitive moving average of Finagle: a
//! slow answer counts at once, a fast one slowly, and what has not been seen for a while fades, so
//! that an endpoint that was slow is tried again.

use std::time::{Duration, Instant};

use crate::upstream::balance::Outcome;

/// The time in which an observation fades to 1/e of its weight.
const DECAY_SECONDS: f64 = 10.0;

/// What a failure costs at least. Refusing is fast, and without this it would look attractive.
const PENALTY: Duration = Duration::from_millis(500);

/// What a request in flight costs where no latency is known yet.
const UNKNOWN: f64 = 1.0;

/// How much worse an endpoint must be for its weight not to count: less than one more request in
/// flight, more than the noise of latencies.
const CLEARLY: f64 = 1.5;

/// Latencies and requests in flight of every endpoint.
#[derive(Debug)]
pub struct P2cEwma {
    /// By the endpoint's number.
    loads: Vec<Load>,
    ready: Vec<u32>,
    /// Running sums of the weights; empty where all weights are equal.
    sums: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Load {
    /// Seconds; 0 as long as nothing is known.
    latency: f64,
    /// When `latency` was true.
    at: Instant,
    pending: u32,
    /// What a request in flight counts: less at a heavier endpoint, 1 on average.
    each: f64,
}

impl P2cEwma {
    /// A balancer that knows no latency yet.
    pub fn new(ready: impl Iterator<Item = (u32, u32)>, now: Instant) -> Self {
        let (ready, weights): (Vec<u32>, Vec<u32>) = ready.filter(|(_, w)| *w > 0).unzip();
        let unknown = Load {
            latency: 0.0,
            at: now,
            pending: 0,
            each: 1.0,
        };
        let size = ready.iter().max().map_or(0, |last| *last as usize + 1);
        let mut balancer = Self {
            loads: vec![unknown; size],
            ready,
            sums: Vec::new(),
        };
        if weights.iter().any(|weight| Some(weight) != weights.first()) {
            balancer.weigh(&weights);
        }
        balancer
    }

    #[expect(clippy::cast_precision_loss, reason = "weights end at 10,000")]
    fn weigh(&mut self, weights: &[u32]) {
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        let average = total as f64 / weights.len() as f64;
        let mut sum = 0;
        for (endpoint, weight) in self.ready.iter().zip(weights) {
            sum += u64::from(*weight);
            self.sums.push(sum);
            if let Some(load) = self.loads.get_mut(*endpoint as usize) {
                load.each = average / f64::from(*weight);
            }
        }
    }

    /// The better of two that `random` draws; none if no endpoint is ready.
    ///
    /// Those in `avoid` are chosen only if there is no other.
    pub fn pick(&self, avoid: &[u32], random: u64, now: Instant) -> Option<u32> {
        let count = self.ready.len();
        if count < 2 {
            return self.ready.first().copied();
        }
        if !avoid.is_empty() {
            let start = scale(random >> 32, count);
            let around = self.ready.iter().cycle().skip(start).take(count);
            let mut others = around.filter(|endpoint| !avoid.contains(endpoint));
            match (others.next(), others.next()) {
                (Some(&one), Some(&two)) => return Some(self.better(one, two, now)),
                (Some(&one), None) => return Some(one),
                _ => {}
            }
        }
        if self.sums.is_empty() {
            let (one, two) = distinct(random, count);
            Some(self.better(*self.ready.get(one)?, *self.ready.get(two)?, now))
        } else {
            self.pick_weighted(random, now)
        }
    }

    /// Draws by weight, and *with* replacement: of two endpoints, draws without it would always
    /// compare the same pair, and weights would mean nothing.
    ///
    /// The first draw wins unless it is clearly worse, so that weights hold among equals, whatever
    /// the noise of their latencies. If both draws hit the same endpoint, it is compared with any
    /// other; else a bad endpoint with a share s of the weights would keep s² of the requests.
    fn pick_weighted(&self, random: u64, now: Instant) -> Option<u32> {
        let total = self.sums.last().copied()?;
        let draw = |random: u64| {
            let ticket = ((random & 0xffff_ffff) * total) >> 32;
            self.sums.partition_point(|sum| *sum <= ticket)
        };
        let (first, mut second) = (draw(random >> 32), draw(random));
        if first == second {
            let random = random.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            second = (first + 1 + scale(random, self.ready.len() - 1)) % self.ready.len();
        }
        let (one, two) = (*self.ready.get(first)?, *self.ready.get(second)?);
        let worse = self.cost(one, now) > CLEARLY * self.cost(two, now);
        Some(if worse { two } else { one })
    }

    fn better(&self, one: u32, two: u32, now: Instant) -> u32 {
        if self.cost(two, now) < self.cost(one, now) {
            two
        } else {
            one
        }
    }

    /// How long a further request would wait there, roughly.
    fn cost(&self, endpoint: u32, now: Instant) -> f64 {
        let Some(load) = self.loads.get(endpoint as usize) else {
            return f64::INFINITY;
        };
        let pending = f64::from(load.pending) * load.each;
        if load.latency == 0.0 {
            UNKNOWN * pending
        } else {
            load.latency * load.faded(now) * (pending + 1.0)
        }
    }

    /// One more request is on its way to an endpoint.
    pub fn start(&mut self, endpoint: u32) {
        if let Some(load) = self.loads.get_mut(endpoint as usize) {
            load.pending += 1;
        }
    }

    /// One request less is on its way, and this is what was learned.
    pub fn settle(&mut self, endpoint: u32, outcome: Outcome, now: Instant) {
        let Some(load) = self.loads.get_mut(endpoint as usize) else {
            return;
        };
        load.pending = load.pending.saturating_sub(1);
        match outcome {
            Outcome::Answered(took) => load.observe(took.as_secs_f64(), now),
            Outcome::Failed(took) => load.observe(took.max(PENALTY).as_secs_f64(), now),
            // It would have taken longer than this; how much longer nobody knows.
            Outcome::Abandoned(took) if took.as_secs_f64() > load.latency => {
                load.observe(took.as_secs_f64(), now);
            }
            Outcome::Abandoned(_) => {}
        }
    }
}

impl Load {
    /// What is left of the last observation's weight: e^-x, nearly.
    ///
    /// (1 + x/16)^-16 falls the same way and takes a fifth of the time of the real function, which
    /// is called three times a request.
    fn faded(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at);
        let base = 1.0 + age.as_secs_f64() * (1.0 / 16.0 / DECAY_SECONDS);
        let squared = base * base;
        let fourth = squared * squared;
        let eighth = fourth * fourth;
        1.0 / (eighth * eighth)
    }

    fn observe(&mut self, took: f64, now: Instant) {
        // A nanosecond at least: 0 means that nothing is known.
        let took = took.max(1e-9);
        self.latency = if took > self.latency {
            took
        } else {
            let old = self.faded(now);
            self.latency * old + took * (1.0 - old)
        };
        self.at = now;
    }
}

/// A number below `count` from the lower 32 bits of a random one (Lemire, 2019).
fn scale(random: u64, count: usize) -> usize {
    ((random & 0xffff_ffff) as usize).wrapping_mul(count) >> 32
}

/// Two different numbers below `count`, which is at least 2.
fn distinct(random: u64, count: usize) -> (usize, usize) {
    let one = scale(random >> 32, count);
    let two = scale(random, count - 1);
    (one, if two < one { two } else { two + 1 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbered(weights: &[u32]) -> impl Iterator<Item = (u32, u32)> {
        (0..).zip(weights.iter().copied())
    }

    /// Sends `requests` at a steady pace to endpoints of these latencies; returns who got how many.
    fn simulate(
        weights: &[u32],
        latencies: &[Duration],
        pace: Duration,
        requests: u32,
    ) -> Vec<u32> {
        let start = Instant::now();
        let mut balancer = P2cEwma::new(numbered(weights), start);
        let mut random = fastrand::Rng::with_seed(42);
        let mut flying = std::collections::BinaryHeap::new();
        let mut counts = vec![0; weights.len()];
        for number in 0..requests {
            let now = start + pace * number;
            while let Some(std::cmp::Reverse((end, endpoint, took))) = flying.peek().copied()
                && end <= now
            {
                flying.pop();
                balancer.settle(endpoint, Outcome::Answered(took), end);
            }
            let endpoint = balancer.pick(&[], random.u64(..), now).expect("ready");
            balancer.start(endpoint);
            counts[endpoint as usize] += 1;
            // Real latencies scatter; here by up to a fifth.
            let took = latencies[endpoint as usize].mul_f64(0.9 + random.f64() * 0.2);
            flying.push(std::cmp::Reverse((now + took, endpoint, took)));
        }
        counts
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_slow_endpoint_gets_little() {
        let check = |weights: &[u32], latencies: &[Duration], pace: Duration| {
            let counts = simulate(weights, latencies, pace, 20_000);
            assert!(
                counts[0] < 1_000,
                "{weights:?} {latencies:?} {pace:?}: {counts:?}"
            );
        };
        for pace in [
            Duration::from_micros(100),
            Duration::from_micros(500),
            2 * MS,
            10 * MS,
        ] {
            check(&[1, 1, 1], &[10 * MS, MS, MS], pace);
            check(&[1; 10], &[&[50 * MS][..], &[5 * MS; 9]].concat(), pace);
            check(
                &[1, 1],
                &[10 * MS, MS],
                pace.max(Duration::from_micros(500)),
            );
            check(&[2, 3, 3], &[10 * MS, MS, MS], pace);
        }
    }

    #[test]
    fn equals_get_equal_shares() {
        for pace in [Duration::from_micros(100), MS] {
            let counts = simulate(&[1; 4], &[2 * MS; 4], pace, 40_000);
            for count in &counts {
                assert!((7_000..13_000).contains(count), "{pace:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn equals_of_different_weight_get_their_shares() {
        for pace in [Duration::from_micros(100), 10 * MS] {
            let counts = simulate(&[1, 3], &[2 * MS; 2], pace, 40_000);
            assert!((8_000..12_500).contains(&counts[0]), "{pace:?}: {counts:?}");
        }
    }

    #[test]
    fn a_failing_endpoint_is_left_alone_and_tried_again_later() {
        let start = Instant::now();
        let mut balancer = P2cEwma::new(numbered(&[1, 1]), start);
        for endpoint in [0, 1] {
            balancer.settle(endpoint, Outcome::Answered(MS), start);
        }
        balancer.settle(0, Outcome::Failed(Duration::from_micros(50)), start);
        for random in [0, u64::MAX, 1 << 40] {
            assert_eq!(balancer.pick(&[], random, start), Some(1));
        }
        // Endpoint 1 keeps answering; endpoint 0 fades.
        let later = start + Duration::from_secs(100);
        balancer.settle(1, Outcome::Answered(MS), later);
        assert_eq!(balancer.pick(&[], 0, later), Some(0));
    }

    #[test]
    fn an_abandoned_request_counts_only_if_it_was_slow() {
        let start = Instant::now();
        let mut balancer = P2cEwma::new(numbered(&[1, 1]), start);
        for endpoint in [0, 1] {
            balancer.settle(endpoint, Outcome::Answered(10 * MS), start);
        }
        balancer.settle(0, Outcome::Abandoned(MS), start);
        assert!(balancer.cost(0, start) <= balancer.cost(1, start));
        balancer.settle(0, Outcome::Abandoned(100 * MS), start);
        assert_eq!(balancer.pick(&[], 0, start), Some(1));
    }

    proptest! {
        #[test]
        fn a_pick_is_one_of_the_ready_and_not_avoided(
            weights in proptest::collection::vec(0..5_u32, 0..20),
            avoid in proptest::collection::vec(0..20_u32, 0..4),
            random: u64,
        ) {
            let now = Instant::now();
            let balancer = P2cEwma::new(numbered(&weights), now);
            let ready: Vec<u32> = numbered(&weights).filter(|r| r.1 > 0).map(|r| r.0).collect();
            let pick = balancer.pick(&avoid, random, now);
            prop_assert_eq!(pick.is_some(), !ready.is_empty());
            if let Some(pick) = pick {
                prop_assert!(ready.contains(&pick));
                let other = ready.iter().any(|endpoint| !avoid.contains(endpoint));
                prop_assert!(!other || !avoid.contains(&pick));
            }
        }
    }
}
