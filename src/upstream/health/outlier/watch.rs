//! The counters of one endpoint, written by all workers.
//!
//! A success costs one relaxed load of a line that nobody writes while all is well. Failures are
//! rarer, and exact: of the workers that count one together, exactly one is told that the threshold
//! is reached. Successes and failures of an interval come in sums, at each worker's tick.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::{Failed, Reason, Settings};

/// What is counted of one endpoint.
// A line of its own: the counters of an endpoint that fails are not to slow its neighbours down.
#[derive(Debug)]
#[repr(align(64))]
pub struct Watch {
    /// From the lowest bit: failures in a row, gateway failures in a row, probation, epoch.
    word: AtomicU64,
    successes: AtomicU64,
    failures: AtomicU64,
    consecutive: u64,
    gateway: u64,
}

/// How often an endpoint had returned from an ejection when a request was sent to it.
///
/// A request may fail long after it was sent. What was sent before an ejection says nothing about an
/// endpoint that is back from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(u64);

const GATEWAY: u32 = 24;
const COUNT: u64 = (1 << GATEWAY) - 1;
const PROBATION: u64 = 1 << 48;
const EPOCH: u32 = 49;
/// All that a success wipes out: both counts and the probation.
const STAINS: u64 = (1 << EPOCH) - 1;

impl Watch {
    /// An endpoint without any history.
    pub fn new(settings: &Settings) -> Self {
        Self {
            word: AtomicU64::new(0),
            successes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            consecutive: u64::from(settings.consecutive_failures),
            gateway: u64::from(settings.consecutive_gateway_failures),
        }
    }

    /// To be kept with a request that is sent now, for [`failure`](Self::failure).
    #[inline]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.word.load(Relaxed) >> EPOCH)
    }

    /// A request that was sent in that epoch was answered.
    #[inline]
    pub fn success(&self, sent: Epoch) {
        let word = self.word.load(Relaxed);
        if word & STAINS != 0 && word >> EPOCH == sent.0 {
            self.word.fetch_and(!STAINS, Relaxed);
        }
    }

    /// A request that was sent in that epoch has failed. Says why the endpoint is to be ejected now, if
    /// it is, and then begins to count anew: who may not eject hears of it again after as many more.
    pub fn failure(&self, kind: Failed, sent: Epoch) -> Option<Reason> {
        let mut word = self.word.load(Relaxed);
        loop {
            if word >> EPOCH != sent.0 {
                return None;
            }
            let (stains, reason) = self.count(word & STAINS, kind);
            let next = (word & !STAINS) | stains;
            match self
                .word
                .compare_exchange_weak(word, next, Relaxed, Relaxed)
            {
                Ok(_) => return reason,
                Err(other) => word = other,
            }
        }
    }

    /// The endpoint is back from an ejection: its first failure ejects it again, unless a success is first.
    pub fn readmit(&self) {
        let mut word = self.word.load(Relaxed);
        loop {
            let next = ((word >> EPOCH).wrapping_add(1) << EPOCH) | PROBATION;
            match self
                .word
                .compare_exchange_weak(word, next, Relaxed, Relaxed)
            {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }

    /// What a worker has counted since it last called this.
    pub fn add(&self, successes: u64, failures: u64) {
        for (sum, more) in [(&self.successes, successes), (&self.failures, failures)] {
            if more > 0 {
                sum.fetch_add(more, Relaxed);
            }
        }
    }

    /// Successes and failures since this was last called.
    pub fn take_interval(&self) -> (u64, u64) {
        (
            self.successes.swap(0, Relaxed),
            self.failures.swap(0, Relaxed),
        )
    }

    /// One failure more, and what follows.
    fn count(&self, stains: u64, kind: Failed) -> (u64, Option<Reason>) {
        let counts = self.consecutive > 0 || (self.gateway > 0 && kind == Failed::Gateway);
        if stains & PROBATION != 0 && counts {
            return (0, Some(Reason::Probation));
        }
        // A threshold of 0 is off, so its count stays at 0; no count gets beyond its threshold.
        let row = (stains & COUNT) + u64::from(self.consecutive > 0);
        let gateway = match kind {
            Failed::Gateway => (stains >> GATEWAY & COUNT) + u64::from(self.gateway > 0),
            Failed::Server => 0,
        };
        if self.gateway > 0 && gateway >= self.gateway {
            return (0, Some(Reason::Gateway(short(gateway))));
        }
        if self.consecutive > 0 && row >= self.consecutive {
            return (0, Some(Reason::Consecutive(short(row))));
        }
        (stains & PROBATION | gateway << GATEWAY | row, None)
    }
}

/// Thresholds are a million at most.
fn short(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Failed::{Gateway, Server};
    use std::sync::atomic::AtomicUsize;

    fn watch(consecutive: u32, gateway: u32) -> Watch {
        Watch::new(&Settings {
            consecutive_failures: consecutive,
            consecutive_gateway_failures: gateway,
            ..Settings::default()
        })
    }

    /// What happens to an endpoint.
    #[derive(Clone, Copy)]
    enum Event {
        Success,
        Failure(Failed),
        Back,
    }
    use Event::{Back, Failure, Success};

    #[track_caller]
    fn check(watch: &Watch, events: &[(Event, Option<Reason>)]) {
        for (at, (event, expected)) in events.iter().enumerate() {
            let reason = match event {
                Success => {
                    watch.success(watch.epoch());
                    None
                }
                Failure(kind) => watch.failure(*kind, watch.epoch()),
                Back => {
                    watch.readmit();
                    None
                }
            };
            assert_eq!(reason, *expected, "event {at}");
        }
    }

    #[test]
    fn failures_in_a_row_reach_the_threshold_and_a_success_forgets_them() {
        let fails = (Failure(Server), None);
        let ejects = (Failure(Gateway), Some(Reason::Consecutive(3)));
        check(&watch(3, 0), &[fails, fails, ejects]);
        check(
            &watch(3, 0),
            &[fails, fails, (Success, None), fails, fails, ejects],
        );
        // Counted anew, for who was not allowed to eject.
        check(&watch(3, 0), &[fails, fails, ejects, fails, fails, ejects]);
        check(
            &watch(1, 0),
            &[
                (Failure(Server), Some(Reason::Consecutive(1))),
                (Success, None),
                (Failure(Server), Some(Reason::Consecutive(1))),
            ],
        );
    }

    #[test]
    fn gateway_failures_are_a_row_of_their_own() {
        let gateway = (Failure(Gateway), None);
        let server = (Failure(Server), None);
        let ejects = (Failure(Gateway), Some(Reason::Gateway(2)));
        check(&watch(0, 2), &[gateway, ejects]);
        check(&watch(0, 2), &[gateway, server, gateway, ejects]);
        check(&watch(0, 2), &[gateway, (Success, None), gateway, ejects]);
        check(&watch(0, 2), &[server; 20]);
        check(&watch(9, 2), &[server, server, gateway, ejects]);
        // Gateway failures count in both rows.
        check(
            &watch(3, 3),
            &[
                gateway,
                server,
                (Failure(Gateway), Some(Reason::Consecutive(3))),
            ],
        );
        check(&watch(0, 0), &[gateway; 20]);
    }

    #[test]
    fn who_is_back_is_on_probation_until_a_first_success() {
        let back = (Back, None);
        let fails = (Failure(Server), None);
        let again = (Failure(Server), Some(Reason::Probation));
        check(&watch(5, 0), &[back, again, fails, fails]);
        check(&watch(5, 0), &[back, again, back, again]);
        check(&watch(5, 0), &[back, (Success, None), fails, fails]);
        check(&watch(5, 0), &[fails, fails, fails, fails, back, again]);
        // What would not eject does not eject sooner either.
        check(&watch(0, 2), &[back, fails, fails]);
        check(
            &watch(0, 2),
            &[back, (Failure(Gateway), Some(Reason::Probation))],
        );
        check(&watch(0, 0), &[back, fails, (Failure(Gateway), None)]);
    }

    #[test]
    fn what_was_sent_before_an_ejection_does_not_count_after_it() {
        let watch = watch(2, 0);
        let before = watch.epoch();
        assert_eq!(watch.failure(Gateway, before), None);
        assert_eq!(watch.failure(Gateway, before), Some(Reason::Consecutive(2)));
        watch.readmit();
        for _ in 0..10 {
            assert_eq!(watch.failure(Gateway, before), None);
        }
        // Nor does a late answer end the probation.
        watch.success(before);
        assert_eq!(
            watch.failure(Gateway, watch.epoch()),
            Some(Reason::Probation)
        );
    }

    #[test]
    fn an_interval_is_the_sum_of_all_workers_and_begins_anew() {
        let watch = watch(5, 0);
        watch.add(90, 10);
        watch.add(0, 0);
        watch.add(10, 0);
        assert_eq!(watch.take_interval(), (100, 10));
        assert_eq!(watch.take_interval(), (0, 0));
    }

    #[test]
    fn of_many_threads_one_is_told_for_each_full_row() {
        let watch = watch(5, 0);
        let told = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_500 {
                        if watch.failure(Server, watch.epoch()).is_some() {
                            told.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(told.load(Relaxed), 10_000 / 5);
    }
}
