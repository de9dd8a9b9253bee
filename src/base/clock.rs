//! Time, cheaply: one reading for many users, and deadlines that a coarse tick sweeps.
//!
//! A tokio timer costs about 110 ns a request, most of it a clock reading and a place in its wheel.
//! Most deadlines of a gateway (idle, request, header) are seconds away and almost never fire, so
//! they need no more than a slot that a tick looks at.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The time as requests know it: that of the system, or that of a rehearsal, whose clock stands still
/// until everybody waits for it.
///
/// Nothing on a request's way may read another clock. Outside of a process that rehearses it costs
/// one relaxed load more than the system's.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// How long ago that was.
pub fn since(then: Instant) -> Duration {
    now().saturating_duration_since(then)
}

/// How often a [`Sweep`] looks at its deadlines, and so how late one may fire.
pub const TICK: Duration = Duration::from_millis(100);

/// The deadlines of one worker thread.
#[derive(Debug, Default)]
pub struct Sweep {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
}

#[derive(Debug)]
struct Slot {
    at: Cell<Option<Instant>>,
    /// Set by the tick, so that a poll needs no clock reading.
    fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Sweep {
    /// Wakes whoever waits on a deadline that has passed.
    pub fn tick(&self, now: Instant) {
        // Wakers only push to the scheduler's queue, so nothing runs inside this borrow.
        for slot in self.slots.borrow().iter() {
            if slot.at.get().is_some_and(|at| at <= now) {
                slot.at.set(None);
                slot.fired.set(true);
                if let Some(waker) = slot.waker.borrow_mut().take() {
                    waker.wake();
                }
            }
        }
    }

    /// Wakes everyone, armed or not: a worker that drains wants each of its connections to look up.
    pub fn wake_all(&self) {
        for slot in self.slots.borrow().iter() {
            if let Some(waker) = &*slot.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }

    /// A deadline that is not armed yet.
    pub fn deadline(self: &Rc<Self>) -> Deadline {
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut slots = self.slots.borrow_mut();
            slots.push(Slot {
                at: Cell::new(None),
                fired: Cell::new(false),
                waker: RefCell::new(None),
            });
            slots.len() - 1
        });
        Deadline {
            sweep: Rc::clone(self),
            slot,
        }
    }
}

/// One deadline of a [`Sweep`]; as a future it is ready once its time has passed.
///
/// Up to [`TICK`] late, never early. Unarmed, it is never ready.
///
/// # Cancel safety
/// Dropping it gives its slot back.
#[derive(Debug)]
pub struct Deadline {
    sweep: Rc<Sweep>,
    slot: usize,
}

impl Deadline {
    /// Sets or moves the time.
    pub fn arm(&self, at: Instant) {
        self.with(|slot| {
            slot.at.set(Some(at));
            slot.fired.set(false);
        });
    }

    /// Takes the time away.
    pub fn disarm(&self) {
        self.with(|slot| {
            slot.at.set(None);
            slot.fired.set(false);
        });
    }

    fn with<T>(&self, f: impl FnOnce(&Slot) -> T) -> Option<T> {
        self.sweep.slots.borrow().get(self.slot).map(f)
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let fired = self.with(|slot| {
            if slot.fired.get() {
                return true;
            }
            match &mut *slot.waker.borrow_mut() {
                Some(known) => known.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            false
        });
        if fired == Some(true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.with(|slot| {
            slot.at.set(None);
            slot.fired.set(false);
            slot.waker.borrow_mut().take();
        });
        self.sweep.free.borrow_mut().push(self.slot);
    }
}

/// A deadline that is coarse where that is good enough, and fine where it is short.
#[derive(Debug)]
pub enum Timeout {
    /// Swept by the tick.
    Coarse(Deadline),
    /// A timer of its own.
    Fine(Pin<Box<tokio::time::Sleep>>),
}

impl Timeout {
    /// Lengths from here on are swept: [`TICK`] is then at most a twentieth of them.
    const COARSE: Duration = Duration::from_secs(2);

    /// Ready `after` from `now` on.
    pub fn new(sweep: &Rc<Sweep>, now: Instant, after: Duration) -> Self {
        if after >= Self::COARSE {
            let deadline = sweep.deadline();
            deadline.arm(now + after);
            Self::Coarse(deadline)
        } else {
            Self::Fine(Box::pin(tokio::time::sleep_until((now + after).into())))
        }
    }

    /// Moves it to `after` from `now` on.
    pub fn reset(&mut self, now: Instant, after: Duration) {
        match self {
            Self::Coarse(deadline) => deadline.arm(now + after),
            Self::Fine(sleep) => sleep.as_mut().reset((now + after).into()),
        }
    }
}

impl Future for Timeout {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self {
            Self::Coarse(deadline) => Pin::new(deadline).poll(cx),
            Self::Fine(sleep) => sleep.as_mut().poll(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_fires_after_its_time_and_not_before() {
        let sweep = Rc::new(Sweep::default());
        let start = Instant::now();
        let mut deadline = sweep.deadline();
        deadline.arm(start + Duration::from_millis(20));
        assert!(futures_util::poll!(&mut deadline).is_pending());
        sweep.tick(start);
        assert!(futures_util::poll!(&mut deadline).is_pending());
        tokio::time::sleep(Duration::from_millis(25)).await;
        sweep.tick(Instant::now());
        assert!(futures_util::poll!(&mut deadline).is_ready());
    }

    #[test]
    fn a_dropped_deadline_gives_its_slot_back() {
        let sweep = Rc::new(Sweep::default());
        let first = sweep.deadline();
        let slot = first.slot;
        drop(first);
        assert_eq!(sweep.deadline().slot, slot);
    }
}
