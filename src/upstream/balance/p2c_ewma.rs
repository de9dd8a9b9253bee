//! The better of two random endpoints, by latency and requests in flight.
//!
//! "Power of two choices" (Mitzenmacher, 2001) with the peak-sensitive moving average of Finagle: a
//! slow answer counts at once, a fast one slowly, and what has not been seen for a while fades, so
//! that an endpoint that was slow is tried again. A failure costs extra, and that fades sooner: an
//! endpoint that is back shall have its share within seconds, and asking one that is not costs one
//! request.

use std::time::{Duration, Instant};

use crate::upstream::balance::draw::Draw;
use crate::upstream::balance::slots::Slots;
use crate::upstream::balance::{Candidate, Choice, Choose, Outcome, Start};

/// The time in which an observation fades to 1/e of its weight.
///
/// Finagle has ten seconds; then one pause of half a second keeps an endpoint that answers within
/// milliseconds away for forty. With two, an endpoint that is ten times slower is tried again every
/// five seconds, which is still a small share of any traffic worth balancing.
const DECAY_SECONDS: f64 = 2.0;

/// What a failure costs at least. Refusing is fast, and without this it would look attractive.
const PENALTY: Duration = Duration::from_millis(500);

/// The time in which a failure fades to 1/e of its cost: an endpoint that answers within milliseconds
/// is tried again after four to six times as long.
const FORGIVE_SECONDS: f64 = 1.0;

/// After so many seconds nothing is left of a failure.
const FORGIVEN_SECONDS: u64 = 30;

/// What a request in flight costs where no latency is known yet.
const UNKNOWN: f64 = 1.0;

/// How much worse an endpoint must be for its weight not to count: less than one more request in
/// flight, more than the noise of latencies.
const CLEARLY: f64 = 1.5;

/// Latencies and requests in flight of every endpoint.
#[derive(Debug)]
pub(super) struct P2cEwma {
    draw: Draw,
    loads: Slots<Load>,
}

#[derive(Debug, Clone, Copy)]
struct Load {
    /// Seconds; 0 as long as nothing is known.
    latency: f64,
    /// When `latency` was true.
    at: Instant,
    /// What the last failure cost, in seconds; 0 if there was none lately.
    penalty: f64,
    failed_at: Instant,
    pending: u32,
    /// What a request in flight counts: less at a heavier endpoint, 1 on average.
    each: f64,
}

impl P2cEwma {
    /// A balancer that knows what `before` has learned.
    pub(super) fn new(start: &Start<'_>, before: Option<&Self>) -> Self {
        let unknown = Load {
            latency: 0.0,
            at: start.now,
            penalty: 0.0,
            failed_at: start.now,
            pending: 0,
            each: 1.0,
        };
        let before = before.map(|before| &before.loads);
        let busy = |load: &Load| load.pending > 0;
        let mut balancer = Self {
            draw: Draw::new(start.candidates),
            loads: Slots::new(start.candidates, unknown, before, busy),
        };
        balancer.weigh(start.candidates);
        balancer
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "what is lost of such a sum is no weight that matters"
    )]
    fn weigh(&mut self, candidates: &[Candidate]) {
        let total: u64 = candidates.iter().map(|each| u64::from(each.weight)).sum();
        let average = total as f64 / candidates.len().max(1) as f64;
        for candidate in candidates {
            if let Some(load) = self.loads.get_mut(candidate.number) {
                load.each = average / f64::from(candidate.weight);
            }
        }
    }

    /// How long a further request would wait there, roughly.
    fn cost(&self, endpoint: u32, now: Instant) -> f64 {
        let Some(load) = self.loads.get(endpoint) else {
            return f64::INFINITY;
        };
        let pending = f64::from(load.pending) * load.each;
        let cost = if load.latency == 0.0 {
            UNKNOWN * pending
        } else {
            load.latency * faded(load.at, now, DECAY_SECONDS) * (pending + 1.0)
        };
        if load.penalty == 0.0 {
            return cost;
        }
        cost + load.penalty * faded(load.failed_at, now, FORGIVE_SECONDS)
    }
}

impl Choose for P2cEwma {
    /// Among equal weights the better of two; where weights differ, the first draw wins unless it is
    /// clearly worse, so that weights hold among equals, whatever the noise of their latencies.
    fn pick(&mut self, choice: &Choice<'_>) -> Option<u32> {
        let (one, two) = self.draw.two(choice.avoid, choice.random)?;
        let clearly = if self.draw.is_weighted() {
            CLEARLY
        } else {
            1.0
        };
        let worse = one != two && self.cost(one, choice.now) > clearly * self.cost(two, choice.now);
        let number = if worse { two } else { one };
        self.begin(number);
        Some(number)
    }

    fn begin(&mut self, number: u32) {
        if let Some(load) = self.loads.get_mut(number) {
            load.pending += 1;
        }
    }

    fn settle(&mut self, number: u32, outcome: Outcome, now: Instant) {
        let Some(load) = self.loads.get_mut(number) else {
            return;
        };
        load.pending = load.pending.saturating_sub(1);
        match outcome {
            Outcome::Answered(took) => load.observe(took.as_secs_f64(), now),
            Outcome::Failed(took) => load.fail(took, now),
            // It would have taken longer than this; how much longer nobody knows.
            Outcome::Abandoned(took) if took.as_secs_f64() > load.latency => {
                load.observe(took.as_secs_f64(), now);
            }
            Outcome::Abandoned(_) => {}
        }
    }
}

impl Load {
    fn fail(&mut self, took: Duration, now: Instant) {
        self.penalty = took.max(PENALTY).as_secs_f64();
        self.failed_at = now;
    }

    fn observe(&mut self, took: f64, now: Instant) {
        // A nanosecond at least: 0 means that nothing is known.
        let took = took.max(1e-9);
        self.latency = if took > self.latency {
            took
        } else {
            let old = faded(self.at, now, DECAY_SECONDS);
            self.latency * old + took * (1.0 - old)
        };
        self.at = now;
        if self.penalty != 0.0 {
            let since = now.saturating_duration_since(self.failed_at);
            if since.as_secs() >= FORGIVEN_SECONDS {
                self.penalty = 0.0;
            }
        }
    }
}

/// What is left of an observation's weight: e^-x, nearly, where x counts `decay` seconds.
///
/// (1 + x/16)^-16 falls the same way and takes a fifth of the time of the real function, which is
/// called three times a request.
fn faded(at: Instant, now: Instant, decay: f64) -> f64 {
    let age = now.saturating_duration_since(at);
    let base = 1.0 + age.as_secs_f64() * (1.0 / 16.0 / decay);
    let squared = base * base;
    let fourth = squared * squared;
    let eighth = fourth * fourth;
    1.0 / (eighth * eighth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::balance::Balance;
    use crate::upstream::balance::testing::{MS, candidates, choice, simulate};

    fn over(candidates: &[Candidate], now: Instant, before: Option<&P2cEwma>) -> P2cEwma {
        let start = Start {
            candidates,
            random: 0,
            now,
        };
        P2cEwma::new(&start, before)
    }

    fn two_equals(now: Instant) -> P2cEwma {
        over(&candidates(&[1, 1]), now, None)
    }

    #[test]
    fn a_slow_endpoint_gets_little() {
        let check = |weights: &[u32], latencies: &[Duration], pace: Duration| {
            let counts = simulate(&Balance::P2cEwma, weights, latencies, pace, 20_000);
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
            let counts = simulate(&Balance::P2cEwma, &[1; 4], &[2 * MS; 4], pace, 40_000);
            for count in &counts {
                assert!((7_000..13_000).contains(count), "{pace:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn equals_of_different_weight_get_their_shares() {
        for pace in [Duration::from_micros(100), 10 * MS] {
            let counts = simulate(&Balance::P2cEwma, &[1, 3], &[2 * MS; 2], pace, 40_000);
            assert!((8_000..12_500).contains(&counts[0]), "{pace:?}: {counts:?}");
        }
    }

    #[test]
    fn a_failing_endpoint_is_left_alone_and_tried_again_later() {
        let start = Instant::now();
        let mut balancer = two_equals(start);
        for endpoint in [0, 1] {
            balancer.settle(endpoint, Outcome::Answered(MS), start);
        }
        balancer.settle(0, Outcome::Failed(Duration::from_micros(50)), start);
        for random in [0, u64::MAX, 1 << 40] {
            assert_eq!(balancer.pick(&choice(random, start)), Some(1));
        }
        // Endpoint 1 keeps answering; the failure of endpoint 0 fades.
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        balancer.settle(1, Outcome::Answered(MS), after(3));
        assert!(balancer.cost(0, after(3)) > balancer.cost(1, after(3)));
        balancer.settle(1, Outcome::Answered(MS), after(10));
        assert!(balancer.cost(0, after(10)) < balancer.cost(1, after(10)));
        balancer.settle(0, Outcome::Answered(MS), after(40));
        assert!(balancer.loads.get(0).expect("known").penalty <= 0.0);
    }

    #[test]
    fn an_abandoned_request_counts_only_if_it_was_slow() {
        let start = Instant::now();
        let mut balancer = two_equals(start);
        for endpoint in [0, 1] {
            balancer.settle(endpoint, Outcome::Answered(10 * MS), start);
        }
        balancer.settle(0, Outcome::Abandoned(MS), start);
        assert!(balancer.cost(0, start) <= balancer.cost(1, start));
        balancer.settle(0, Outcome::Abandoned(100 * MS), start);
        assert_eq!(balancer.pick(&choice(0, start)), Some(1));
    }

    #[test]
    fn what_was_learned_outlives_a_change_of_the_list() {
        let start = Instant::now();
        let all = candidates(&[1, 1, 1]);
        let mut balancer = over(&all[..2], start, None);
        balancer.settle(0, Outcome::Answered(100 * MS), start);
        balancer.settle(1, Outcome::Answered(MS), start);
        let mut longer = over(&all, start, Some(&balancer));
        longer.settle(2, Outcome::Answered(10 * MS), start);
        for random in [1 << 40, 7 << 60, 3] {
            let pick = longer.pick(&choice(random, start));
            assert_ne!(pick, Some(0), "it is known to be slow");
            longer.settle(pick.expect("one"), Outcome::Abandoned(MS), start);
        }
        let mut other = all;
        other[0].hash = 1;
        let other = over(&other, start, Some(&longer));
        assert!(
            other.cost(0, start) < other.cost(1, start),
            "nothing is known of this one"
        );
    }
}
