//! Buckets: one number each, and a bounded table of them.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::base::values::Period;
use crate::middleware::Effects;

/// A rate and a burst, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limit {
    /// From one request to the next at the full rate, rounded up so that the rate is never exceeded.
    interval: u64,
    /// In which an empty bucket gets full: `burst` intervals.
    window: u64,
}

/// The longest time for an empty bucket to get full.
const LONGEST_WINDOW: u64 = 366 * 24 * 3600 * 1_000_000_000;

impl Limit {
    pub(super) fn new(
        requests: NonZeroU32,
        per: Period,
        burst: NonZeroU32,
    ) -> Result<Self, &'static str> {
        let per = u64::try_from(per.0.as_nanos()).unwrap_or(u64::MAX);
        let interval = per.div_ceil(requests.get().into());
        let exact = u64::from(requests.get()) <= per;
        if !exact {
            return Err("the rate is over a billion a second: lower `requests` or lengthen `per`");
        }
        match interval.checked_mul(burst.get().into()) {
            Some(window) if window <= LONGEST_WINDOW => Ok(Self { interval, window }),
            _ => Err(
                "a used up `burst` would need more than a year to come back: lower it or shorten `per`",
            ),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let every = Duration::from_nanos(self.interval);
        let burst = self.window / self.interval.max(1);
        write!(f, "one every {}", humantime::format_duration(every))?;
        match burst {
            0 | 1 => Ok(()),
            _ => write!(f, ", {burst} at once"),
        }
    }
}

/// When a bucket is full again, in nanoseconds; 0 for one that was never used.
type State = u64;

/// Takes one request out of a bucket: the bucket's new state, or how many nanoseconds to wait.
fn take(full_at: State, now: u64, limit: Limit) -> Result<State, u64> {
    let next = full_at.max(now).saturating_add(limit.interval);
    match next.saturating_sub(now.saturating_add(limit.window)) {
        0 => Ok(next),
        wait => Err(wait),
    }
}

/// One bucket for all workers, on cache lines of its own: what stands beside it is read by all.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Bucket(AtomicU64);

impl Bucket {
    pub(super) fn take(&self, now: u64, limit: Limit) -> Result<(), u64> {
        // Shared by all workers, since the limit must be exact. A refusal only reads. No other memory
        // hangs on this number, so no order beyond its own is needed.
        let mut state = self.0.load(Ordering::Relaxed);
        loop {
            let next = take(state, now, limit)?;
            let swap = |from| {
                self.0
                    .compare_exchange_weak(from, next, Ordering::Relaxed, Ordering::Relaxed)
            };
            match swap(state) {
                Ok(_) => return Ok(()),
                Err(newer) => state = newer,
            }
        }
    }
}

impl Bucket {
    /// [`Bucket::take`], or what it would say.
    pub(super) fn ask(&self, now: u64, limit: Limit, effects: Effects) -> Result<(), u64> {
        match effects {
            Effects::Real => self.take(now, limit),
            Effects::None => take(self.0.load(Ordering::Relaxed), now, limit).map(drop),
        }
    }
}

/// Buckets by key: a set-associative table.
///
/// A key's hash says in which set its bucket is, if it has one; a set has [`WAYS`] slots, and a new key
/// takes a free one or else that of the bucket which loses least by it: the fullest. A stranger who
/// sends ever new keys can so make others forget that they had used a little, but not that they had
/// used all, and costs 16 bytes a key up to the bound.
///
/// A lock is taken on a request's path, for some 20 ns, one of hundreds: finding and taking must be one
/// step to be exact, and two words cannot be swapped at once.
pub(super) struct Table {
    /// Keyed and hard to invert, so that nobody can send keys which fall into another's slot.
    hasher: RandomState,
    sets: OnceLock<Box<[Mutex<Set>]>>,
    count: usize,
}

/// The most slots of a set.
const WAYS: usize = 32;

/// Half as many slots again as keys, since the hash spreads keys unevenly.
const KEYS_PER_SET: usize = 21;

/// Buckets that share a lock; it grows with use.
#[derive(Default)]
struct Set(Vec<Slot>);

#[derive(Clone, Copy)]
struct Slot {
    key: u64,
    full_at: State,
}

impl Table {
    pub(super) fn new(max_keys: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            sets: OnceLock::new(),
            count: max_keys.div_ceil(KEYS_PER_SET),
        }
    }

    /// Takes from the bucket of a key, or says what came of it.
    pub(super) fn ask(
        &self,
        key: &impl std::hash::Hash,
        now: u64,
        limit: Limit,
        effects: Effects,
    ) -> Result<(), u64> {
        let key = self.hasher.hash_one(key);
        let Some(mut set) = self.set_of(key) else {
            return Ok(());
        };
        match effects {
            Effects::Real => set.take(key, now, limit),
            Effects::None => {
                let known = set.0.iter().find(|slot| slot.key == key);
                take(known.map_or(0, |slot| slot.full_at), now, limit).map(drop)
            }
        }
    }

    fn set_of(&self, key: u64) -> Option<MutexGuard<'_, Set>> {
        let sets = self
            .sets
            .get_or_init(|| (0..self.count).map(|_| Mutex::default()).collect());
        let place = (u128::from(key) * sets.len() as u128) >> 64;
        let set = sets.get(usize::try_from(place).ok()?)?;
        // A panic inside could leave no more behind than a slot: a poisoned lock is as good as any.
        Some(set.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Set {
    fn take(&mut self, key: u64, now: u64, limit: Limit) -> Result<(), u64> {
        let is_whole = self.0.len() >= WAYS;
        // The key's own slot comes first, then the one that is full for longest.
        let slot = self
            .0
            .iter_mut()
            .min_by_key(|slot| (slot.key != key, slot.full_at));
        match slot {
            Some(slot) if slot.key == key => slot.full_at = take(slot.full_at, now, limit)?,
            slot => {
                let full_at = take(0, now, limit)?;
                match slot {
                    Some(slot) if is_whole || slot.full_at <= now => *slot = Slot { key, full_at },
                    _ => self.0.push(Slot { key, full_at }),
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({} sets)", self.count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limit(requests: u32, per: &str, burst: u32) -> Limit {
        let requests = NonZeroU32::new(requests).expect("not 0");
        let burst = NonZeroU32::new(burst).expect("not 0");
        Limit::new(requests, per.parse().expect(per), burst).expect("a limit")
    }

    #[test]
    fn a_full_bucket_lets_its_burst_through_and_then_its_rate() {
        let limit = limit(10, "1s", 3);
        let mut state = 0;
        let mut taken = |now| take(state, now, limit).map(|next| state = next);
        for _ in 0..3 {
            assert_eq!(taken(0), Ok(()));
        }
        assert_eq!(taken(0), Err(SECOND / 10));
        assert_eq!(taken(SECOND / 10 - 1), Err(1));
        assert_eq!(taken(SECOND / 10), Ok(()));
        assert_eq!(taken(SECOND / 10), Err(SECOND / 10));
        // After a long pause the burst is back, and no more than it.
        for _ in 0..3 {
            assert_eq!(taken(SECOND), Ok(()));
        }
        assert_eq!(taken(SECOND), Err(SECOND / 10));
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_has_more_than_burst_and_rate(
            requests in 1_u32..1000,
            per in 1_u64..5000,
            burst in 1_u32..100,
            pauses in prop::collection::vec(0_u64..SECOND, 1..200),
        ) {
            let limit = limit(requests, &format!("{per}ms"), burst);
            let (mut state, mut now) = (0, 0);
            let mut admitted = Vec::new();
            for pause in pauses {
                // Short pauses as well as long ones: the square makes most of them short.
                now += pause / 1000 * pause / SECOND;
                if let Ok(next) = take(state, now, limit) {
                    state = next;
                    admitted.push(now);
                }
            }
            let per = u128::from(per) * 1_000_000;
            for (i, from) in admitted.iter().enumerate() {
                for (j, to) in admitted.iter().enumerate().skip(i) {
                    let count = (j - i + 1) as u128;
                    let allowed = u128::from(burst) * per + u128::from(requests) * u128::from(to - from);
                    prop_assert!(count * per <= allowed, "{count} from {from} to {to}");
                }
            }
        }

        #[test]
        fn a_refusal_says_exactly_how_long_to_wait(
            requests in 1_u32..1000,
            burst in 1_u32..100,
            state in 0..2 * SECOND,
            now in 0..SECOND,
        ) {
            let limit = limit(requests, "1s", burst);
            if let Err(wait) = take(state, now, limit) {
                prop_assert!(take(state, now + wait, limit).is_ok());
                prop_assert!(take(state, now + wait - 1, limit).is_err());
            }
        }
    }

    /// How many of many takes at the same time by several threads are let through.
    fn admitted(take: impl Fn() -> Result<(), u64> + Sync) -> usize {
        std::thread::scope(|scope| {
            let takes = || (0..5000).filter(|_| take().is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(takes)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .sum()
        })
    }

    #[test]
    fn threads_together_are_let_through_exactly_the_burst() {
        let limit = limit(1000, "1s", 777);
        let bucket = Bucket::default();
        assert_eq!(admitted(|| bucket.take(0, limit)), 777);
        let table = Table::new(100);
        assert_eq!(
            admitted(|| table.ask(&"one key", 0, limit, Effects::Real)),
            777
        );
    }

    #[test]
    fn a_used_up_bucket_outlives_a_flood_of_other_keys() {
        let limit = limit(10, "1s", 10);
        let table = Table::new(1000);
        for _ in 0..10 {
            assert_eq!(table.ask(&"greedy", 0, limit, Effects::Real), Ok(()));
        }
        for key in 0..100_000_u32 {
            assert_eq!(table.ask(&key, 0, limit, Effects::Real), Ok(()));
        }
        assert!(table.ask(&"greedy", 0, limit, Effects::Real).is_err());
        let sets = table.sets.get().expect("used");
        let slots: usize = sets
            .iter()
            .map(|set| set.lock().expect("no panic").0.capacity())
            .sum();
        assert!(slots <= 1000 * WAYS / KEYS_PER_SET + WAYS, "{slots}");
    }

    #[test]
    fn a_table_has_room_for_its_keys() {
        let limit = limit(10, "1s", 1);
        let table = Table::new(10_000);
        let again = || {
            (0..10_000_u32)
                .filter(|key| table.ask(key, 0, limit, Effects::Real).is_ok())
                .count()
        };
        assert_eq!(again(), 10_000);
        let forgotten = again();
        assert!(forgotten < 100, "{forgotten} of 10000 keys had no place");
    }
}
