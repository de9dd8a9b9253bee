//! What a site learns about the patience of its endpoint with idle connections.

use std::time::{Duration, Instant};

use http::HeaderMap;

use crate::base::clock;
use crate::upstream::client::Site;
use crate::upstream::pool::Stay;

/// A connection that ends so soon after it was used again was being closed already.
const SOON: Duration = Duration::from_millis(250);

impl Site {
    /// The endpoint closed a connection on which there was nothing since then.
    pub(super) fn closed_while_idle(&self, since: Instant) {
        let now = clock::now();
        self.closed_after(now.saturating_duration_since(since), now);
    }

    /// The endpoint closed a connection instead of answering, after that stay in the pool.
    pub(super) fn closed_when_used(&self, stay: Stay) {
        let now = clock::now();
        if let Stay::Until(idle, used) = stay
            && now.saturating_duration_since(used) < SOON
        {
            self.closed_after(idle, now);
        }
    }

    fn closed_after(&self, idle: Duration, now: Instant) {
        let mut limit = self.idle_limit.borrow_mut();
        limit.closed_after(idle, now);
        self.idle_at_most.set(limit.limit(now));
    }

    /// Reads `keep-alive: timeout=5` in the first answer of a connection: later ones say the same.
    pub(super) fn read_keep_alive(&self, headers: &HeaderMap) {
        let Some(seconds) = headers.get("keep-alive").and_then(|value| {
            let text = value.to_str().ok()?;
            text.split(',')
                .find_map(|part| part.trim().strip_prefix("timeout="))?
                .parse()
                .ok()
        }) else {
            return;
        };
        let mut limit = self.idle_limit.borrow_mut();
        limit.heard_keep_alive(seconds);
        self.idle_at_most.set(limit.limit(self.tally.now.get()));
    }
}
