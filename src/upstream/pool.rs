//! Idle connections of one worker to one endpoint, last in, first out.
//!
//! The last one used is the one that is warm in every cache and least likely to have been closed;
//! those at the bottom get old and are swept away, so the pool shrinks to what is needed.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// What a pool wants to know of a connection.
pub(super) trait Pooled {
    /// False once the other side closed it.
    fn is_open(&self) -> bool;
    /// When it was made.
    fn opened(&self) -> Instant;
}

/// How long and how many connections are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    /// A connection that was idle for longer is closed.
    pub(super) idle: Duration,
    /// A connection that is older is not used again.
    pub(super) age: Duration,
    /// No more idle ones than this.
    pub(super) most: usize,
}

#[derive(Debug)]
pub(super) struct Pool<C> {
    /// In the order of their last use: the oldest first.
    idle: RefCell<Vec<Idle<C>>>,
    keep: Keep,
}

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    since: Instant,
}

impl<C: Pooled> Pool<C> {
    pub(super) fn new(keep: Keep) -> Self {
        Self {
            idle: RefCell::new(Vec::new()),
            keep,
        }
    }

    /// The connection that was used last, of those that are still open.
    pub(super) fn take(&self) -> Option<C> {
        let mut idle = self.idle.borrow_mut();
        while let Some(entry) = idle.pop() {
            if entry.connection.is_open() {
                return Some(entry.connection);
            }
        }
        None
    }

    /// Keeps a connection for later; closes it if it is too old or one too many.
    pub(super) fn put(&self, connection: C, now: Instant) {
        let age = now.saturating_duration_since(connection.opened());
        let mut idle = self.idle.borrow_mut();
        if connection.is_open() && age < self.keep.age && idle.len() < self.keep.most {
            idle.push(Idle {
                connection,
                since: now,
            });
        }
    }

    /// Closes what was idle for too long, is too old, or was closed by the other side.
    pub(super) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|entry| {
            entry.connection.is_open()
                && now.saturating_duration_since(entry.since) < self.keep.idle
                && now.saturating_duration_since(entry.connection.opened()) < self.keep.age
        });
    }

    /// How many are idle.
    pub(super) fn len(&self) -> usize {
        self.idle.borrow().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Fake {
        name: u32,
        open: bool,
        opened: Instant,
    }

    impl Pooled for Fake {
        fn is_open(&self) -> bool {
            self.open
        }
        fn opened(&self) -> Instant {
            self.opened
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn pool() -> Pool<Fake> {
        Pool::new(Keep {
            idle: 5 * SECOND,
            age: 60 * SECOND,
            most: 3,
        })
    }

    fn taken(pool: &Pool<Fake>) -> Option<u32> {
        pool.take().map(|fake| fake.name)
    }

    #[test]
    fn the_last_used_comes_first_and_closed_ones_never() {
        let now = Instant::now();
        let pool = pool();
        for (name, open) in [(1, true), (2, true), (3, true)] {
            pool.put(
                Fake {
                    name,
                    open,
                    opened: now,
                },
                now,
            );
        }
        pool.idle.borrow_mut()[1].connection.open = false;
        assert_eq!(taken(&pool), Some(3));
        assert_eq!(taken(&pool), Some(1));
        assert_eq!(taken(&pool), None);
    }

    #[test]
    fn closed_old_and_surplus_connections_are_not_kept() {
        let now = Instant::now();
        let pool = pool();
        pool.put(
            Fake {
                name: 1,
                open: false,
                opened: now,
            },
            now,
        );
        pool.put(
            Fake {
                name: 2,
                open: true,
                opened: now,
            },
            now + 60 * SECOND,
        );
        assert_eq!(pool.len(), 0);
        for name in 0..5 {
            pool.put(
                Fake {
                    name,
                    open: true,
                    opened: now,
                },
                now,
            );
        }
        assert_eq!(pool.len(), 3);
    }

    #[test]
    fn a_sweep_closes_what_was_idle_for_too_long_or_is_too_old() {
        let now = Instant::now();
        let pool = pool();
        pool.put(
            Fake {
                name: 1,
                open: true,
                opened: now,
            },
            now,
        );
        pool.put(
            Fake {
                name: 2,
                open: true,
                opened: now,
            },
            now + 3 * SECOND,
        );
        pool.sweep(now + 4 * SECOND);
        assert_eq!(pool.len(), 2);
        pool.sweep(now + 5 * SECOND);
        assert_eq!(taken(&pool), Some(2));
        pool.put(
            Fake {
                name: 2,
                open: true,
                opened: now,
            },
            now + 58 * SECOND,
        );
        pool.sweep(now + 60 * SECOND);
        assert_eq!(pool.len(), 0);
    }
}
