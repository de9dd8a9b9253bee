//! Starting, ready, draining, stopped: the one state that the whole process shares.
//!
//! It only ever goes forward. Reading it costs one relaxed load; whoever must act on a change
//! waits for it.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::watch;

/// What the process is doing, in the order in which it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// Not every listener is open yet.
    Starting,
    /// Takes requests.
    Ready,
    /// Finishes what is in flight; `/readyz` already says no.
    Draining,
    /// Nothing is in flight any more.
    Stopped,
}

impl State {
    /// Every state, in order.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Ready, Self::Draining, Self::Stopped];

    /// The word in logs, metrics and the admin API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }

    fn of(number: u8) -> Self {
        match number {
            0 => Self::Starting,
            1 => Self::Ready,
            2 => Self::Draining,
            _ => Self::Stopped,
        }
    }
}

/// The state, shared by everybody in an `Arc`.
#[derive(Debug)]
pub struct Lifecycle {
    // Beside the channel, because reading that one takes a lock.
    now: AtomicU8,
    changes: watch::Sender<State>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            now: AtomicU8::new(State::Starting as u8),
            changes: watch::Sender::new(State::Starting),
        }
    }
}

impl Lifecycle {
    /// What the process is doing now.
    pub fn state(&self) -> State {
        State::of(self.now.load(Ordering::Relaxed))
    }

    /// True once no new work should be taken.
    pub fn is_draining(&self) -> bool {
        self.state() >= State::Draining
    }

    /// Goes forward to `state`; returns false if that was reached or passed already.
    pub fn advance(&self, state: State) -> bool {
        self.changes.send_if_modified(|now| {
            let forward = state > *now;
            if forward {
                *now = state;
                self.now.store(state as u8, Ordering::Relaxed);
            }
            forward
        })
    }

    /// Follows the changes.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.changes.subscribe()
    }

    /// Waits until `state` is reached or passed.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn reached(&self, state: State) {
        // The sender lives as long as `self`, so the wait cannot fail.
        let mut changes = self.subscribe();
        let _reached = changes.wait_for(|now| *now >= state).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_only_goes_forward() {
        let lifecycle = Lifecycle::default();
        assert_eq!(lifecycle.state(), State::Starting);
        assert!(lifecycle.advance(State::Ready));
        assert!(!lifecycle.advance(State::Ready));
        assert!(lifecycle.advance(State::Draining));
        assert!(!lifecycle.advance(State::Ready));
        assert!(lifecycle.is_draining());
    }

    #[test]
    fn states_survive_their_numbers() {
        for state in State::ALL {
            assert_eq!(State::of(state as u8), state);
        }
    }

    #[tokio::test]
    async fn waiting_ends_when_the_state_is_reached_or_passed() {
        let lifecycle = Lifecycle::default();
        let mut waiting = std::pin::pin!(lifecycle.reached(State::Draining));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        lifecycle.advance(State::Ready);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        lifecycle.advance(State::Stopped);
        waiting.await;
    }
}
