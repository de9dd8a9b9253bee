//! At most so many requests under way at once, over all workers; the others wait in order.
//!
//! The limit is exact: a [`Permit`] is one request, from before its first attempt until its answer's
//! body has ended. A permit that comes free goes straight to the one who waits longest, so nobody who
//! comes later overtakes. Fairness and wake-ups are those of [`tokio::sync::Semaphore`].

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::sync::{AcquireError, Semaphore, SemaphorePermit, TryAcquireError};

use super::Settings;
use super::queue::{Full, Queue, Room};

/// Lets at most so many requests in.
pub struct Gate {
    limit: u32,
    semaphore: Semaphore,
    queue: Arc<Queue>,
}

/// The right to be under way; given back when it is dropped.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub struct Permit {
    // Cloning it writes a count that all workers write, as does the semaphore beside it: that is the
    // price of an exact limit, and nobody pays it who has not written one.
    gate: Arc<Gate>,
}

impl Gate {
    /// A gate with a queue of its own; none if requests are not limited.
    pub fn new(settings: &Settings) -> Option<Arc<Self>> {
        let queue = Queue::new(settings.queue, settings.queue_timeout.0);
        settings
            .requests
            .map(|requests| Self::within(requests, Arc::new(queue)))
    }

    /// A gate before which requests wait in a queue that is shared.
    pub fn within(requests: NonZeroU32, queue: Arc<Queue>) -> Arc<Self> {
        Arc::new(Self {
            limit: requests.get(),
            semaphore: Semaphore::new(requests.get() as usize),
            queue,
        })
    }

    /// Goes in, if there is room and nobody waits for it.
    pub fn try_enter(self: &Arc<Self>) -> Option<Permit> {
        match self.semaphore.try_acquire() {
            Ok(permit) => Some(self.permit(permit)),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => None,
        }
    }

    /// Goes in as soon as there is room, after those who came before.
    ///
    /// # Errors
    /// If the queue is full, or no room came free in time.
    ///
    /// # Cancel safety
    /// Dropping it leaves the queue; room that had just come free goes to the next who waits.
    pub async fn enter(self: &Arc<Self>) -> Result<Permit, Full> {
        if let Some(permit) = self.try_enter() {
            return Ok(permit);
        }
        let room = Room::Requests(self.limit);
        match self.queue.wait(room, self.semaphore.acquire()).await? {
            Ok(permit) => Ok(self.permit(permit)),
            // Nobody closes the semaphore.
            Err(AcquireError { .. }) => Err(Full::Queue {
                limit: self.queue.waiting(),
                room,
            }),
        }
    }

    /// How many wait now, here or wherever else their queue is used.
    pub fn queued(&self) -> usize {
        self.queue.waiting() as usize
    }

    /// How many are under way now.
    pub fn inside(&self) -> u32 {
        let free = u32::try_from(self.semaphore.available_permits()).unwrap_or(u32::MAX);
        self.limit.saturating_sub(free)
    }

    fn permit(self: &Arc<Self>, permit: SemaphorePermit<'_>) -> Permit {
        // The borrowed permit could not outlive the call; ours gives the same room back.
        permit.forget();
        Permit {
            gate: Arc::clone(self),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.semaphore.add_permits(1);
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("limit", &self.limit)
            .field("inside", &self.inside())
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::SeqCst;
    use std::time::Duration;

    use futures_util::poll;

    fn gate(requests: u32, queue: u32, timeout: Duration) -> Arc<Gate> {
        Gate::new(&Settings {
            requests: NonZeroU32::new(requests),
            queue,
            queue_timeout: crate::base::values::Period(timeout),
            ..Settings::default()
        })
        .expect("a limit")
    }

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn as_many_enter_as_written() {
        let gate = gate(2, 0, LONG);
        let first = gate.try_enter().expect("room");
        let second = gate.try_enter().expect("room");
        assert!(gate.try_enter().is_none());
        assert_eq!(gate.inside(), 2);
        drop(first);
        let third = gate.try_enter().expect("room again");
        assert!(gate.try_enter().is_none());
        drop((second, third));
        assert_eq!(gate.inside(), 0);
    }

    #[test]
    fn a_permit_may_go_to_another_thread_and_end_there() {
        const fn fits<T: Send + 'static>() {}
        fits::<Permit>();
        let gate = gate(1, 0, LONG);
        let permit = gate.try_enter().expect("room");
        std::thread::spawn(move || drop(permit))
            .join()
            .expect("no panic");
        assert!(gate.try_enter().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_or_finds_no_place_is_told() {
        let second = Duration::from_secs(1);
        let gate = gate(1, 1, second);
        let held = gate.enter().await.expect("room");
        let mut waits = Box::pin(gate.enter());
        assert!(poll!(&mut waits).is_pending());
        assert_eq!(gate.queued(), 1);
        let room = Room::Requests(1);
        assert_eq!(
            gate.enter().await.err(),
            Some(Full::Queue { limit: 1, room })
        );
        let waited = Full::Timeout {
            waited: second,
            room,
        };
        assert_eq!(waits.await.err(), Some(waited));
        assert_eq!(gate.queued(), 0);
        drop(held);
        assert!(gate.enter().await.is_ok());
    }

    #[tokio::test]
    async fn who_waits_longest_is_next_and_nobody_overtakes() {
        let gate = gate(1, 9, LONG);
        let held = gate.try_enter().expect("room");
        let mut first = Box::pin(gate.enter());
        let mut second = Box::pin(gate.enter());
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut second).is_pending());
        drop(held);
        assert!(gate.try_enter().is_none(), "overtakes who waits");
        assert!(poll!(&mut second).is_pending());
        let held = first.await.expect("its turn");
        assert!(poll!(&mut second).is_pending());
        drop(held);
        assert!(second.await.is_ok());
        assert_eq!((gate.queued(), gate.inside()), (0, 0));
    }

    #[tokio::test]
    async fn who_leaves_the_queue_leaves_no_hole() {
        let gate = gate(1, 9, LONG);
        let held = gate.try_enter().expect("room");
        let mut leaves = Box::pin(gate.enter());
        let mut leaves_late = Box::pin(gate.enter());
        let mut stays = Box::pin(gate.enter());
        assert!(poll!(&mut leaves).is_pending());
        assert!(poll!(&mut leaves_late).is_pending());
        assert!(poll!(&mut stays).is_pending());
        assert_eq!(gate.queued(), 3);
        drop(leaves);
        assert_eq!(gate.queued(), 2);
        drop(held);
        // The room is its own already, and it has not been told.
        drop(leaves_late);
        assert!(stays.await.is_ok());
        assert_eq!((gate.queued(), gate.inside()), (0, 0));
    }

    #[test]
    fn many_threads_are_never_above_the_limit_and_all_get_in() {
        const LIMIT: u32 = 3;
        let gate = gate(LIMIT, 1_000, LONG);
        let (inside, most, served) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
        let one = async || {
            let permit = gate.enter().await.expect("a place and time enough");
            let now = inside.fetch_add(1, SeqCst) + 1;
            most.fetch_max(now, SeqCst);
            tokio::task::yield_now().await;
            inside.fetch_sub(1, SeqCst);
            drop(permit);
            served.fetch_add(1, SeqCst);
        };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (gate, one) = (&gate, &one);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_time()
                        .build()
                        .expect("a runtime");
                    runtime.block_on(async {
                        for round in 0..200 {
                            // Every third leaves before it is served.
                            if (round + thread) % 3 == 0 {
                                let mut leaves = Box::pin(gate.enter());
                                drop(poll!(&mut leaves));
                            }
                            futures_util::join!(one(), one(), one(), one(), one());
                        }
                    });
                });
            }
        });
        assert_eq!(most.load(SeqCst), LIMIT);
        assert_eq!(served.load(SeqCst), 4 * 200 * 5);
        assert_eq!((gate.queued(), gate.inside()), (0, 0));
    }
}
