//! At most so many open connections, over all workers.
//!
//! A connection belongs to one worker, and its requests are that worker's alone. A worker without any
//! would have to refuse its clients while others are idle; so it always gets one. There may therefore
//! be as many connections over the limit as there are workers, less one.

use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

use tokio::sync::Notify;

use super::queue::Room;

/// Counts the open connections of an upstream; touched when one is opened or closed.
#[derive(Debug)]
pub struct Slots {
    limit: u32,
    open: AtomicU32,
    freed: Notify,
}

/// The right to one open connection; given back when it is dropped.
#[derive(Debug)]
#[must_use = "a slot that is dropped is given back"]
pub struct Slot {
    slots: Arc<Slots>,
}

impl Slots {
    /// No connection is open yet.
    pub fn new(connections: NonZeroU32) -> Arc<Self> {
        Arc::new(Self {
            limit: connections.get(),
            open: AtomicU32::new(0),
            freed: Notify::new(),
        })
    }

    /// One more connection for a worker that has `mine`, if there is room or it has none.
    pub fn take(self: &Arc<Self>, mine: u32) -> Option<Slot> {
        let allowed = |open: u32| (mine == 0 || open < self.limit).then(|| open.saturating_add(1));
        self.open
            .fetch_update(SeqCst, SeqCst, allowed)
            .ok()
            .map(|_| Slot {
                slots: Arc::clone(self),
            })
    }

    /// Waits until there is room for one more connection, which others may take first: ask again then.
    ///
    /// # Cancel safety
    /// Dropping it lets the next who waits hear of the room.
    pub async fn room(&self) {
        loop {
            let mut freed = pin!(self.freed.notified());
            // Listens before it looks, so that no slot comes free between the two unheard.
            freed.as_mut().enable();
            if self.open() < self.limit {
                return;
            }
            freed.await;
        }
    }

    /// How many connections are open now.
    pub fn open(&self) -> u32 {
        self.open.load(SeqCst)
    }

    /// True while a worker that has a connection gets no other.
    pub fn is_full(&self) -> bool {
        self.open() >= self.limit
    }

    /// What a request waits for in the queue.
    pub fn limit(&self) -> Room {
        Room::Connections(self.limit)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let before = self.slots.open.fetch_sub(1, SeqCst);
        if before <= self.slots.limit {
            self.slots.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use futures_util::poll;

    fn slots(limit: u32) -> Arc<Slots> {
        Slots::new(NonZeroU32::new(limit).expect("not 0"))
    }

    #[test]
    fn there_are_as_many_as_written_and_one_for_who_has_none() {
        let slots = slots(2);
        let mut first = vec![slots.take(0).expect("room"), slots.take(1).expect("room")];
        assert!(slots.take(2).is_none());
        let other = slots.take(0).expect("always one");
        assert_eq!(slots.open(), 3);
        assert!(slots.take(1).is_none());
        first.pop();
        // Still at the limit: who was let in above it counts.
        assert!(slots.take(1).is_none());
        first.pop();
        assert_eq!(slots.open(), 1);
        let again = slots.take(1).expect("room");
        drop((other, again));
        assert_eq!(slots.open(), 0);
    }

    #[tokio::test]
    async fn who_waits_for_room_hears_of_it() {
        let slots = slots(1);
        let held = slots.take(0).expect("room");
        let mut leaves = Box::pin(slots.room());
        let mut stays = Box::pin(slots.room());
        assert!(poll!(&mut leaves).is_pending());
        assert!(poll!(&mut stays).is_pending());
        drop(held);
        // It was told, and leaves: the next is to hear of it.
        drop(leaves);
        stays.await;
        let taken = slots.take(1).expect("room");
        let mut waits = Box::pin(slots.room());
        assert!(poll!(&mut waits).is_pending(), "hears of room that is gone");
        drop(taken);
        waits.await;
    }

    #[tokio::test]
    async fn room_above_the_limit_is_none() {
        let slots = slots(1);
        let first = slots.take(0).expect("room");
        let second = slots.take(0).expect("always one");
        let mut waits = Box::pin(slots.room());
        assert!(poll!(&mut waits).is_pending());
        drop(first);
        assert!(poll!(&mut waits).is_pending());
        drop(second);
        waits.await;
    }

    #[test]
    fn many_threads_are_above_the_limit_by_no_more_than_all_but_one_of_them() {
        const THREADS: u32 = 4;
        const LIMIT: u32 = 8;
        let slots = slots(LIMIT);
        let most = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for seed in 0..THREADS {
                let (slots, most) = (&slots, &most);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(u64::from(seed));
                    let mut mine = Vec::new();
                    for _ in 0..20_000 {
                        if random.u8(..3) == 0 {
                            mine.pop();
                            continue;
                        }
                        let count = u32::try_from(mine.len()).expect("few");
                        mine.extend(slots.take(count));
                        assert!(!mine.is_empty(), "a worker has to have one");
                        most.fetch_max(slots.open(), SeqCst);
                    }
                });
            }
        });
        assert!(most.load(SeqCst) < LIMIT + THREADS);
        assert!(most.load(SeqCst) >= LIMIT);
        assert_eq!(slots.open(), 0);
    }
}
