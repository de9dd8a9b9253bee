//! Idle connections of one worker to one endpoint, last in, first out.
//!
//! The last one used is the one that is warm in every cache and least likely to have been closed;
//! those at the bottom get old and are swept away, so the pool shrinks to what is needed.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

/// What a pool wants to know of a connection.
pub(super) trait Pooled {
    /// False once the other side closed it.
    fn is_open(&self) -> bool;
    /// When it takes no further request.
    fn expires(&self) -> Instant;
    /// Its last stay in the pool, as the pool notes it.
    fn stay(&self) -> &Cell<Stay>;
}

/// A connection's last stay in a pool: who closes it early, and after how long, is worth knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stay {
    /// There was none yet, or the pool itself ended it for good.
    None,
    /// Since then. A connection that ends now was closed by the other side.
    Since(Instant),
    /// So long, until it was handed out.
    Until(Duration, Instant),
}

/// The longest age there is: a time too far away cannot be told.
const AGES: Duration = Duration::from_hours(24 * 365);

/// When a connection takes no further request.
///
/// Up to a tenth sooner or later than its `age`, by chance: connections that were made together, by
/// one process or by a thousand, would else be made anew together.
pub(super) fn expiry(opened: Instant, age: Duration, random: u64) -> Instant {
    // 53 bits are what a float can tell apart.
    #[expect(clippy::cast_precision_loss, reason = "of 53 bits none is lost")]
    let chance = (random >> 11) as f64 / (1_u64 << 53) as f64;
    opened + age.min(AGES).mul_f64(0.9 + 0.2 * chance)
}

#[derive(Debug)]
pub(super) struct Pool<C> {
    /// In the order of their last use: the oldest first.
    idle: RefCell<Vec<Idle<C>>>,
    most: usize,
}

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    since: Instant,
}

impl<C: Pooled> Idle<C> {
    fn is_usable(&self, now: Instant, limit: Duration) -> bool {
        self.connection.is_open() && now.saturating_duration_since(self.since) < limit
    }
}

impl<C: Pooled> Pool<C> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            idle: RefCell::new(Vec::new()),
            most,
        }
    }

    /// The connection that was used last, if it is still open and was idle for less than `limit`.
    pub(super) fn take(&self, now: Instant, limit: Duration) -> Option<C> {
        let mut idle = self.idle.borrow_mut();
        while let Some(entry) = idle.pop() {
            if entry.is_usable(now, limit) {
                let rest = now.saturating_duration_since(entry.since);
                entry.connection.stay().set(Stay::Until(rest, now));
                return Some(entry.connection);
            }
            entry.connection.stay().set(Stay::None);
        }
        None
    }

    /// Keeps a connection for later; closes it if it is too old or one too many.
    pub(super) fn put(&self, connection: C, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        if connection.is_open() && now < connection.expires() && idle.len() < self.most {
            connection.stay().set(Stay::Since(now));
            idle.push(Idle {
                connection,
                since: now,
            });
        }
    }

    /// Closes what was idle for `limit`, is too old, or was closed by the other side.
    pub(super) fn sweep(&self, now: Instant, limit: Duration) {
        self.idle.borrow_mut().retain(|entry| {
            let keep = entry.is_usable(now, limit) && now < entry.connection.expires();
            if !keep {
                entry.connection.stay().set(Stay::None);
            }
            keep
        });
    }

    /// Closes the connection that was idle for longest; false if there is none.
    pub(super) fn close_oldest(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            return false;
        }
        idle.remove(0).connection.stay().set(Stay::None);
        true
    }

    /// How many are idle.
    pub(super) fn len(&self) -> usize {
        self.idle.borrow().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fake {
        name: u32,
        open: bool,
        expires: Instant,
        stay: Cell<Stay>,
    }

    impl Pooled for Fake {
        fn is_open(&self) -> bool {
            self.open
        }
        fn expires(&self) -> Instant {
            self.expires
        }
        fn stay(&self) -> &Cell<Stay> {
            &self.stay
        }
    }

    const SECOND: Duration = Duration::from_secs(1);
    const LIMIT: Duration = Duration::from_secs(5);

    /// A connection that was made at `opened`.
    fn fake(name: u32, opened: Instant) -> Fake {
        Fake {
            name,
            open: true,
            expires: opened + 60 * SECOND,
            stay: Cell::new(Stay::None),
        }
    }

    fn taken(pool: &Pool<Fake>, now: Instant) -> Option<u32> {
        pool.take(now, LIMIT).map(|fake| {
            assert!(matches!(fake.stay.get(), Stay::Until(rest, at) if at == now && rest <= LIMIT));
            fake.name
        })
    }

    #[test]
    fn the_last_used_comes_first_and_closed_ones_never() {
        let now = Instant::now();
        let pool = Pool::new(3);
        for name in 1..=3 {
            pool.put(fake(name, now), now);
        }
        assert_eq!(
            pool.idle.borrow()[1].connection.stay.get(),
            Stay::Since(now)
        );
        pool.idle.borrow_mut()[1].connection.open = false;
        assert_eq!(taken(&pool, now), Some(3));
        assert_eq!(taken(&pool, now), Some(1));
        assert_eq!(taken(&pool, now), None);
    }

    #[test]
    fn closed_old_and_surplus_connections_are_not_kept() {
        let now = Instant::now();
        let pool = Pool::new(3);
        let closed = Fake {
            open: false,
            ..fake(1, now)
        };
        pool.put(closed, now);
        pool.put(fake(2, now), now + 60 * SECOND);
        assert_eq!(pool.len(), 0);
        for name in 0..5 {
            pool.put(fake(name, now), now);
        }
        assert_eq!(pool.len(), 3);
    }

    #[test]
    fn what_was_idle_for_too_long_is_not_handed_out() {
        let now = Instant::now();
        let pool = Pool::new(3);
        pool.put(fake(1, now), now);
        pool.put(fake(2, now), now + SECOND);
        assert_eq!(taken(&pool, now + 5 * SECOND), Some(2));
        assert_eq!(taken(&pool, now + 5 * SECOND), None);
        assert_eq!(pool.len(), 0);
    }

    #[test]
    fn a_sweep_closes_what_was_idle_for_too_long_or_is_too_old() {
        let now = Instant::now();
        let pool = Pool::new(3);
        pool.put(fake(1, now), now);
        pool.put(fake(2, now), now + 3 * SECOND);
        pool.sweep(now + 4 * SECOND, LIMIT);
        assert_eq!(pool.len(), 2);
        pool.sweep(now + 5 * SECOND, LIMIT);
        assert_eq!(taken(&pool, now + 5 * SECOND), Some(2));
        pool.put(fake(2, now), now + 58 * SECOND);
        pool.sweep(now + 60 * SECOND, LIMIT);
        assert_eq!(pool.len(), 0);
    }

    #[test]
    fn room_is_made_by_the_one_that_was_idle_for_longest() {
        let now = Instant::now();
        let pool = Pool::new(3);
        pool.put(fake(1, now), now);
        pool.put(fake(2, now), now);
        assert!(pool.close_oldest());
        assert_eq!(taken(&pool, now), Some(2));
        assert!(!pool.close_oldest());
    }

    #[test]
    fn the_age_varies_by_a_tenth() {
        let now = Instant::now();
        let after = |age, random| expiry(now, age, random) - now;
        assert_eq!(after(100 * SECOND, 0), 90 * SECOND);
        assert_eq!(after(100 * SECOND, 1 << 63), 100 * SECOND);
        let latest = after(100 * SECOND, u64::MAX);
        assert!(latest > 109 * SECOND && latest <= 110 * SECOND);
        assert_eq!(after(Duration::ZERO, 7), Duration::ZERO);
        assert!(after(Duration::MAX, 0) > 100 * SECOND);
    }
}
