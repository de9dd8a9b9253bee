//! Places that are taken and given back, and a bell for those who wait for one.
//!
//! A place may be given back by another thread than the one that waits: a body takes its place along
//! wherever it is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// How many places are taken.
#[derive(Debug)]
pub(crate) struct Seats {
    taken: AtomicU32,
    bell: Arc<Bell>,
}

/// One place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Hold(Arc<Seats>);

/// Wakes those who wait for something to become free, one at a time.
///
/// Where nobody waits it costs a load.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    waiting: AtomicU32,
    rung: Notify,
}

/// Someone who waits, until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a Bell);

impl Seats {
    /// No place is taken; `bell` is rung for each that is given back.
    pub(crate) fn new(bell: Arc<Bell>) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicU32::new(0),
            bell,
        })
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(SeqCst) as usize
    }

    /// Takes one more place.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        self.taken.fetch_add(1, SeqCst);
        Hold(Arc::clone(self))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // In this order, and the other way round by who waits, so that one of the two sees the other.
        self.0.taken.fetch_sub(1, SeqCst);
        self.0.bell.ring();
    }
}

impl Bell {
    /// Begins to wait; look for what is free after this, and between any two [`Waiting::rung`].
    pub(crate) fn enter(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, SeqCst);
        Waiting(self)
    }

    /// Wakes one who waits; false if nobody does.
    pub(crate) fn ring(&self) -> bool {
        let heard = self.waiting.load(SeqCst) > 0;
        if heard {
            self.rung.notify_one();
        }
        heard
    }

    /// Wakes all who wait.
    pub(crate) fn ring_for_all(&self) {
        if self.waiting.load(SeqCst) > 0 {
            self.rung.notify_waiters();
        }
    }
}

impl Waiting<'_> {
    /// Until the bell rings. A ring between two calls is not missed.
    ///
    /// # Cancel safety
    /// A ring that a dropped future had heard goes on to the next who waits.
    pub(crate) fn rung(&self) -> Notified<'_> {
        self.0.rung.notified()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_that_is_given_back_wakes_one_who_waits() {
        let bell = Arc::new(Bell::default());
        let seats = Seats::new(Arc::clone(&bell));
        let (one, two) = (seats.hold(), seats.hold());
        assert_eq!(seats.taken(), 2);
        drop(one);
        assert!(!bell.ring(), "nobody waits yet");
        let waiting = bell.enter();
        drop(two);
        waiting.rung().await;
        assert_eq!(seats.taken(), 0);
        let mut rung = Box::pin(waiting.rung());
        assert!(futures_util::poll!(&mut rung).is_pending());
        bell.ring_for_all();
        rung.await;
        drop(waiting);
        assert!(!bell.ring());
    }

    #[tokio::test]
    async fn a_ring_for_one_who_left_goes_to_the_next() {
        let bell = Bell::default();
        let (one, two) = (bell.enter(), bell.enter());
        let (mut first, mut second) = (Box::pin(one.rung()), Box::pin(two.rung()));
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(bell.ring());
        drop(first);
        second.await;
    }
}
