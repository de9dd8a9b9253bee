//! Numbers that one thread writes and another reads, kept apart by thread.
//!
//! A shared counter costs every request a locked instruction and, with more than one worker, the
//! trip of a cache line between cores. So each worker counts for itself in plain loads and stores,
//! and whoever scrapes adds up. What must hold: a shard has one writer.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer; it may go down and then wraps, which a sum over shards undoes.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    #[inline]
    pub(super) fn add(&self, n: u64) {
        // Not a read-modify-write: there is no other writer to lose a race against.
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(n), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn subtract(&self, n: u64) {
        self.add(n.wrapping_neg());
    }

    pub(super) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one thread writes, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Apart<T>(T);

type Slot<T> = OnceLock<Box<Apart<T>>>;

/// The number of a worker that rehearses: what it counts, nobody adds up.
pub const REHEARSAL: usize = usize::MAX - 1;

/// One `T` for each worker and one for the control thread, made when first used.
#[derive(Debug)]
pub(super) struct Shards<T> {
    workers: Box<[Slot<T>]>,
    control: Slot<T>,
    rehearsal: Slot<T>,
}

impl<T: Default> Shards<T> {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| OnceLock::new()).collect(),
            control: OnceLock::new(),
            rehearsal: OnceLock::new(),
        }
    }

    /// The shard of a worker; of the control thread for any number that no worker has.
    #[inline]
    pub(super) fn of(&self, worker: usize) -> &T {
        let apart = || match worker {
            REHEARSAL => &self.rehearsal,
            _ => &self.control,
        };
        let slot = self.workers.get(worker).unwrap_or_else(apart);
        &slot.get_or_init(Box::default).0
    }

    /// Every shard that was ever used, but for that of rehearsals.
    pub(super) fn used(&self) -> impl Iterator<Item = &T> {
        let slots = self.workers.iter().chain([&self.control]);
        slots.filter_map(|slot| slot.get().map(|apart| &apart.0))
    }

    /// One number, added up over all shards.
    pub(super) fn sum(&self, count: impl Fn(&T) -> &Count) -> u64 {
        self.used()
            .fold(0, |sum, shard| sum.wrapping_add(count(shard).get()))
    }

    /// The same for a number that goes up and down: a torn reading never shows less than nothing.
    pub(super) fn level(&self, count: impl Fn(&T) -> &Count) -> u64 {
        u64::try_from(self.sum(count).cast_signed()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_made_when_used_and_added_up() {
        let shards = Shards::<Count>::new(2);
        assert_eq!(shards.used().count(), 0);
        shards.of(0).add(2);
        shards.of(1).add(3);
        shards.of(2).add(5);
        shards.of(REHEARSAL).add(7);
        assert_eq!(shards.used().count(), 3);
        assert_eq!(shards.sum(|count| count), 10);
    }

    #[test]
    fn what_one_worker_opens_another_may_close() {
        let shards = Shards::<Count>::new(2);
        shards.of(0).add(3);
        shards.of(1).subtract(1);
        assert_eq!(shards.level(|count| count), 2);
        shards.of(1).subtract(5);
        assert_eq!(shards.level(|count| count), 0);
    }

    #[test]
    fn two_shards_never_share_a_cache_line() {
        assert_eq!(align_of::<Apart<Count>>(), 64);
        assert_eq!(size_of::<Apart<Count>>(), 64);
    }
}
