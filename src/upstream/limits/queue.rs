//! How many requests may wait for room, and for how long.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A bounded number of places, shared by all workers. Who comes first is up to what is waited for.
#[derive(Debug)]
pub struct Queue {
    places: u32,
    timeout: Duration,
    waiting: AtomicU32,
}

/// A place in a [`Queue`]; given up when it is dropped.
#[derive(Debug)]
#[must_use = "a place that is dropped is given up"]
pub struct Place {
    queue: Arc<Queue>,
}

/// Why there is no room for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// As many wait as may.
    Queue {
        /// How many may wait.
        limit: u32,
        /// What they wait for.
        room: Room,
    },
    /// No room came free in time.
    Timeout {
        /// How long a request may wait.
        waited: Duration,
        /// What it waited for.
        room: Room,
    },
}

/// What there is a limit of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// So many requests under way.
    Requests(u32),
    /// So many open connections.
    Connections(u32),
}

impl Queue {
    /// An empty queue of so many places, each for at most that time.
    pub fn new(places: u32, timeout: Duration) -> Self {
        Self {
            places,
            timeout,
            waiting: AtomicU32::new(0),
        }
    }

    /// For how long one may wait.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How many wait now.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// Waits for `freed`, if there is a place to wait at, and for no longer than one may.
    ///
    /// # Errors
    /// Says which bound was reached.
    ///
    /// # Cancel safety
    /// Dropping it gives up the place, and drops `freed`.
    pub async fn wait<T>(
        self: &Arc<Self>,
        room: Room,
        freed: impl Future<Output = T>,
    ) -> Result<T, Full> {
        let _place = self.join(room)?;
        tokio::time::timeout(self.timeout, freed)
            .await
            .map_err(|_| Full::Timeout {
                waited: self.timeout,
                room,
            })
    }

    /// Takes a place, for who waits in a way of their own.
    ///
    /// # Errors
    /// If there is none.
    pub fn join(self: &Arc<Self>, room: Room) -> Result<Place, Full> {
        // Not add and take back: that would turn others away who have a place.
        let one_more = |waiting: u32| (waiting < self.places).then_some(waiting + 1);
        match self.waiting.fetch_update(Relaxed, Relaxed, one_more) {
            Ok(_) => Ok(Place {
                queue: Arc::clone(self),
            }),
            Err(_) => Err(Full::Queue {
                limit: self.places,
                room,
            }),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, Relaxed);
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue { limit: 0, room } => write!(f, "{room} are in use, and none may wait"),
            Self::Queue { limit: 1, .. } => f.write_str("the queue of 1 request is full"),
            Self::Queue { limit, .. } => write!(f, "the queue of {limit} requests is full"),
            Self::Timeout { waited, room } => match room {
                Room::Requests(_) => write!(f, "waited {waited:?} for one of {room} to end"),
                Room::Connections(_) => write!(f, "waited {waited:?} for one of {room}"),
            },
        }
    }
}

impl std::error::Error for Full {}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests(1) => f.write_str("1 request"),
            Self::Requests(count) => write!(f, "{count} requests"),
            Self::Connections(1) => f.write_str("1 connection"),
            Self::Connections(count) => write!(f, "{count} connections"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    const ROOM: Room = Room::Requests(2);

    #[test]
    fn there_are_as_many_places_as_written_and_a_dropped_one_is_free() {
        let queue = Arc::new(Queue::new(2, Duration::from_secs(1)));
        let first = queue.join(ROOM).expect("a place");
        let _second = queue.join(ROOM).expect("a place");
        let refused = Full::Queue {
            limit: 2,
            room: ROOM,
        };
        assert_eq!(queue.join(ROOM).err(), Some(refused));
        assert_eq!(queue.waiting(), 2);
        drop(first);
        assert_eq!(queue.waiting(), 1);
        assert!(queue.join(ROOM).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_in_time_and_gives_the_place_up() {
        let queue = Arc::new(Queue::new(1, Duration::from_secs(1)));
        assert_eq!(queue.wait(ROOM, ready(7)).await, Ok(7));
        let waited = Full::Timeout {
            waited: Duration::from_secs(1),
            room: ROOM,
        };
        assert_eq!(queue.wait(ROOM, pending::<()>()).await, Err(waited));
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn it_says_what_was_full() {
        let check = |full: Full, words: &str| assert_eq!(full.to_string(), words);
        let queue = |limit, room| Full::Queue { limit, room };
        let timeout = |ms, room| Full::Timeout {
            waited: Duration::from_millis(ms),
            room,
        };
        let requests = Room::Requests(4096);
        check(queue(1024, requests), "the queue of 1024 requests is full");
        check(queue(1, requests), "the queue of 1 request is full");
        check(
            queue(0, requests),
            "4096 requests are in use, and none may wait",
        );
        check(
            queue(0, Room::Connections(8)),
            "8 connections are in use, and none may wait",
        );
        check(
            timeout(1000, requests),
            "waited 1s for one of 4096 requests to end",
        );
        check(
            timeout(250, Room::Connections(1)),
            "waited 250ms for one of 1 connection",
        );
    }
}
