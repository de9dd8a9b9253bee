//! What keeps retries from turning a slow upstream into a dead one.
//!
//! Every request pays a share of a retry in, every retry takes a whole one out, and what was paid in
//! more than ten seconds ago is forgotten. So there are never more attempts than requests and their
//! share, but for a small minimum without which an upstream with little traffic could never retry.

use std::time::{Duration, Instant};

/// What one request pays in, in parts of [`WHOLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deposit(u32);

/// One retry.
const WHOLE: u64 = 10_000;

/// Retries that each worker may make in ten seconds beyond the share: three a second.
const MINIMUM: u64 = 30;

/// How long it remembers: this many seconds.
const SECONDS: usize = 10;

/// Chance that a retry is allowed, as a share of the requests seen in the last ten seconds.
///
/// Unlike `retry.attempts`, which bounds one request, the budget bounds the whole upstream: it is
/// what keeps retries from turning a slow upstream into a dead one. There is one for each worker.
#[derive(Debug)]
pub struct RetryBudget {
    now: Second,
    /// When the second ends.
    until: Instant,
    /// The ones before, as a ring.
    past: [Second; SECONDS - 1],
    oldest: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    deposits: u64,
    retries: u64,
}

impl Deposit {
    /// A share, such as 0.2 for 20 %.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share is between 0 and 1"
    )]
    pub fn of(share: f64) -> Self {
        Self((share.clamp(0.0, 1.0) * 10_000.0).round() as u32)
    }

    /// The same in hundredths, where it must be known at compile time.
    pub const fn percent(percent: u32) -> Self {
        Self(percent * 100)
    }
}

impl RetryBudget {
    /// A budget that nobody has paid into.
    pub fn new(now: Instant) -> Self {
        Self {
            now: Second::default(),
            until: now + Duration::from_secs(1),
            past: [Second::default(); SECONDS - 1],
            oldest: 0,
        }
    }

    /// A request pays its share in.
    #[inline]
    pub fn request(&mut self, deposit: Deposit, now: Instant) {
        if now >= self.until {
            self.turn(now);
        }
        self.now.deposits += u64::from(deposit.0);
    }

    /// Takes a retry out; false if there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        if now >= self.until {
            self.turn(now);
        }
        let seconds = self.past.iter().chain([&self.now]);
        let (deposits, retries) = seconds.fold((0, 0), |(deposits, retries), second| {
            (deposits + second.deposits, retries + second.retries)
        });
        let allowed = deposits / WHOLE + MINIMUM;
        if retries >= allowed {
            return false;
        }
        self.now.retries += 1;
        true
    }

    /// Begins another second.
    #[cold]
    fn turn(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.until).as_secs();
        for _ in 0..(late + 1).min(SECONDS as u64) {
            let ended = std::mem::take(&mut self.now);
            if let Some(oldest) = self.past.get_mut(self.oldest) {
                *oldest = ended;
            }
            self.oldest = (self.oldest + 1) % self.past.len();
        }
        self.until += Duration::from_secs(late + 1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn taken(budget: &mut RetryBudget, now: Instant) -> u64 {
        (0..1_000_000).take_while(|_| budget.take(now)).count() as u64
    }

    #[test]
    fn the_share_of_the_requests_and_the_minimum_are_allowed() {
        let check = |requests: u64, share: f64, allowed: u64| {
            let now = Instant::now();
            let mut budget = RetryBudget::new(now);
            for _ in 0..requests {
                budget.request(Deposit::of(share), now);
            }
            assert_eq!(taken(&mut budget, now), allowed, "{requests} at {share}");
        };
        check(0, 0.2, MINIMUM);
        check(4, 0.2, MINIMUM);
        check(5, 0.2, MINIMUM + 1);
        check(1_000, 0.2, MINIMUM + 200);
        check(1_000, 0.0, MINIMUM);
        check(1_000, 1.0, MINIMUM + 1_000);
        assert_eq!(Deposit::of(0.2), Deposit::percent(20));
    }

    #[test]
    fn what_is_older_than_ten_seconds_is_forgotten() {
        let start = Instant::now();
        let mut budget = RetryBudget::new(start);
        for _ in 0..100 {
            budget.request(Deposit::percent(20), start);
        }
        let later = start + SECOND * 9;
        assert_eq!(taken(&mut budget, later), MINIMUM + 20);
        assert!(!budget.take(start + SECOND * 10));
        assert!(!budget.take(start + SECOND * 18));
        assert_eq!(taken(&mut budget, start + SECOND * 19), MINIMUM);
        assert_eq!(taken(&mut budget, start + SECOND * 1_000), MINIMUM);
    }

    #[test]
    fn a_clock_that_was_read_earlier_does_no_harm() {
        let start = Instant::now() + SECOND;
        let mut budget = RetryBudget::new(start);
        budget.request(Deposit::percent(100), start + SECOND * 5);
        budget.request(Deposit::percent(100), start);
        assert_eq!(taken(&mut budget, start), MINIMUM + 2);
    }

    proptest! {
        /// Whatever happens when: in the ten seconds before each retry there are no more of them than
        /// the share of the requests and the minimum, and so none are paid for twice in the long run.
        #[test]
        fn no_sequence_breaks_the_bound(
            events in prop::collection::vec((0_u64..1_500, 0_u8..4), 0..400),
            percent in 0_u32..=100,
        ) {
            let start = Instant::now();
            let mut budget = RetryBudget::new(start);
            let mut at = 0;
            let (mut requests, mut retries) = (Vec::new(), Vec::new());
            let share = |requests: usize| requests as u64 * u64::from(percent) / 100;
            for (wait, what) in events {
                // Mostly bursts, now and then a pause.
                at += if wait > 1_200 { wait } else { wait / 100 };
                let now = start + Duration::from_millis(at);
                let second = at / 1_000;
                if what == 0 {
                    budget.request(Deposit::percent(percent), now);
                    requests.push(second);
                } else if budget.take(now) {
                    retries.push(second);
                    let recent = |of: &[u64]| of.iter().filter(|at| **at + 10 > second).count();
                    let allowed = share(recent(&requests)) + MINIMUM;
                    prop_assert!(recent(&retries) as u64 <= allowed, "at {second} s");
                }
            }
            let all = share(requests.len()) + MINIMUM * (at / 10_000 + 1);
            prop_assert!(retries.len() as u64 <= all, "{} > {all}", retries.len());
        }
    }
}
