//! How much an upstream may be asked at once: requests, connections, and who waits for room.
//!
//! [`Gate`] and [`Slots`] are shared by all workers and exact; they cost a request one counter that
//! all workers write, and only where a limit is written. [`Gradient`] is a worker's own and learns its
//! limit from latency. Whoever waits for room does so in one bounded [`Queue`], never for long.

mod gate;
mod gradient;
mod queue;
mod slots;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::range;
use crate::base::values::Period;

pub use gate::{Gate, Permit};
pub use gradient::{Gradient, Settings as AdaptiveSettings};
pub use queue::{Full, Place, Queue, Room};
pub use slots::{Slot, Slots};

/// How much an upstream may be asked at once. A request over a limit waits in the queue; one that finds it
/// full, or waits too long, is answered with 503 and the flag UO.
///
/// Example: `limits: {connections: 1024, requests: 4096, queue: 1024, queue_timeout: 1s}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
#[schemars(rename = "UpstreamLimits")]
pub struct Settings {
    /// How many connections may be open at once, over all workers; at least 1. A worker without any gets one
    /// in any case, so there may be as many more as there are workers, less one. Default: no limit.
    pub connections: Option<NonZeroU32>,
    /// How many requests may be under way at once, over all workers; at least 1. Default: no limit.
    pub requests: Option<NonZeroU32>,
    /// How many requests may wait for room at once; 0: none, what is over a limit is refused at once.
    /// Default 1024.
    pub queue: u32,
    /// How long a request may wait for room; at least `1ms`. Default `1s`.
    #[serde(deserialize_with = "range::at_least::<1, _>")]
    pub queue_timeout: Period,
    /// A limit on requests under way that each worker finds for itself, from the latency that it sees. What is
    /// over it is refused at once. `adaptive: {}` takes every default. Default: off.
    #[serde(deserialize_with = "gradient::checked")]
    pub adaptive: Option<AdaptiveSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: None,
            requests: None,
            queue: 1024,
            queue_timeout: Period(Duration::from_secs(1)),
            adaptive: None,
        }
    }
}

/// The limits of one upstream that all workers share.
#[derive(Debug)]
pub struct Limits {
    /// For requests; none without a limit.
    pub gate: Option<Arc<Gate>>,
    /// For connections; none without a limit.
    pub slots: Option<Arc<Slots>>,
    /// Where requests wait for either.
    pub queue: Arc<Queue>,
}

impl Limits {
    /// Nobody is in yet.
    pub fn new(settings: &Settings) -> Self {
        let queue = Arc::new(Queue::new(settings.queue, settings.queue_timeout.0));
        Self {
            gate: settings
                .requests
                .map(|requests| Gate::within(requests, Arc::clone(&queue))),
            slots: settings.connections.map(Slots::new),
            queue,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Settings, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_limited_unless_it_is_written() {
        let settings = read("{}").expect("valid");
        assert_eq!(settings, Settings::default());
        let limits = Limits::new(&settings);
        assert!(limits.gate.is_none() && limits.slots.is_none());
        assert_eq!(limits.queue.waiting(), 0);
        assert!(Gate::new(&settings).is_none());
    }

    #[test]
    fn every_key_is_read() {
        let settings = read(
            r#"{"connections": 10, "requests": 20, "queue": 0, "queue_timeout": "250ms",
                "adaptive": {"min": 2, "max": 50, "tolerance": 2}}"#,
        )
        .expect("valid");
        assert_eq!(settings.connections, NonZeroU32::new(10));
        assert_eq!(settings.requests, NonZeroU32::new(20));
        assert_eq!(settings.queue, 0);
        assert_eq!(settings.queue_timeout.0, Duration::from_millis(250));
        let adaptive = settings.adaptive.as_ref().expect("adaptive");
        assert_eq!((adaptive.min, adaptive.max), (2, 50));
        let limits = Limits::new(&settings);
        assert!(limits.gate.is_some() && limits.slots.is_some());
        let adaptive = read(r#"{"adaptive": {}}"#).expect("valid").adaptive;
        assert_eq!(adaptive, Some(AdaptiveSettings::default()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_a_sentence() {
        let check = |json: &str, sentence: &str| {
            let error = read(json).expect_err(json);
            assert!(error.contains(sentence), "{json}: {error}");
        };
        check(r#"{"connections": 0}"#, "expected a nonzero u32");
        check(r#"{"requests": 0}"#, "expected a nonzero u32");
        check(r#"{"queue": -1}"#, "invalid value: integer `-1`");
        check(r#"{"queue_timeout": "0s"}"#, "write at least `1ms`");
        check(r#"{"pending": 1}"#, "unknown field `pending`");
        check(r#"{"adaptive": {"min": 0}}"#, "write 1 to 100000");
        check(
            r#"{"adaptive": {"min": 9, "max": 8}}"#,
            "`min` is 9 and `max` is 8",
        );
        check(r#"{"adaptive": {"tolerance": 1}}"#, "write 1.1 to 10");
    }
}
