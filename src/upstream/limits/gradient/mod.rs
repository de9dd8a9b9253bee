//! A limit on requests under way that follows from latency.
//!
//! More requests at once than a service can work on wait in its queue, and the latency grows with
//! them. So the limit rises while latency is what it is without a queue, and falls by the ratio of the
//! two when it is not. The idea and the formula are those of Gradient2 in Netflix's
//! concurrency-limits; the latency without a queue is found otherwise. A long average, which it takes
//! there, becomes that of the queue when an overload lasts. Here it is averaged only over times in which
//! less than half of the limit is used; where such a time does not come, the limit steps below what
//! the service can work on for a moment, about every ten seconds, and measures (as TCP's BBR does).
//!
//! One worker's; all times are arguments.

mod settings;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use settings::Settings;
pub(super) use settings::checked;

/// Where a limit starts, unless `min` or `max` say otherwise.
const START: f64 = 20.0;
/// A decision takes at least so much time, and so many answers.
const WINDOW: Duration = Duration::from_millis(100);
const SAMPLES: u32 = 10;
/// The latency without a queue is measured anew when it is older than this and seems to matter.
const STALE: Duration = Duration::from_secs(10);
/// A measurement that has not come to an end by then is given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// While measuring: the share of what the service seems to work on at once. Less than all of it, so that a
/// latency that was measured with a queue corrects itself.
const PROBE: f64 = 0.7;
/// The weight of a window in a new limit, and in the average latency.
const SMOOTHING: f64 = 0.2;
/// From this share of failures on, a window lowers the limit, whatever its latency.
const FAILING: f64 = 0.1;

/// The limit of one worker.
#[derive(Debug)]
pub struct Gradient {
    min: f64,
    max: f64,
    tolerance: f64,
    limit: f64,
    /// Seconds; none before the first window.
    unqueued: Option<f64>,
    measured: Option<Instant>,
    /// Until latency first rises the limit grows by halves, as TCP does at its start.
    starting: bool,
    window: Window,
    phase: Phase,
}

#[derive(Debug, Default)]
struct Window {
    start: Option<Instant>,
    answers: u32,
    failures: u32,
    /// Seconds, of the answers.
    sum: f64,
    most: u32,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Steady,
    /// The limit is lowered; what is measured counts from the moment on when no more are under way.
    Probing {
        resume: f64,
        began: Instant,
        below: Option<Instant>,
    },
}

impl Gradient {
    /// A limit that nothing is known for yet.
    pub fn new(settings: &Settings) -> Self {
        let min = f64::from(settings.min);
        let max = f64::from(settings.max).max(min);
        Self {
            min,
            max,
            tolerance: settings.tolerance,
            limit: START.clamp(min, max),
            unqueued: None,
            measured: None,
            starting: true,
            window: Window::default(),
            phase: Phase::Steady,
        }
    }

    /// How many requests may be under way in this worker now.
    pub fn limit(&self) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between `min` and `max`, which are u32"
        )]
        let limit = self.limit as u32;
        limit
    }

    /// A request that was let in has ended: how long its answer's head took, how many were under way with
    /// it, and whether it failed (no answer in time, or one that says "too much", as 503 does).
    pub fn observe(&mut self, rtt: Duration, in_flight: u32, failed: bool, now: Instant) {
        match self.phase {
            Phase::Steady => {
                self.window.add(rtt, in_flight, failed, now);
                if self.window.is_full(now) {
                    let window = std::mem::take(&mut self.window);
                    self.decide(&window, now);
                }
            }
            Phase::Probing {
                resume,
                began,
                below,
            } => {
                let below = below.or_else(|| (in_flight <= self.limit()).then_some(now));
                self.phase = Phase::Probing {
                    resume,
                    began,
                    below,
                };
                // What was sent earlier may have waited behind what was too much.
                let sent_below = below
                    .is_some_and(|below| now.checked_sub(rtt).is_some_and(|sent| sent >= below));
                if sent_below {
                    self.window.add(rtt, in_flight, failed, now);
                }
                if self.window.is_full(now) {
                    let window = std::mem::take(&mut self.window);
                    self.resume(resume, window.latency(), now);
                } else if now.saturating_duration_since(began) > PATIENCE {
                    self.resume(resume, None, now);
                }
            }
        }
    }

    /// A new limit from a window.
    fn decide(&mut self, window: &Window, now: Instant) {
        if window.failing() {
            self.starting = false;
            self.set(self.limit * 0.9);
            return;
        }
        let Some(latency) = window.latency() else {
            return;
        };
        let unqueued = *self.unqueued.get_or_insert(latency);
        let measured = *self.measured.get_or_insert(now);
        if f64::from(window.most) < self.limit / 2.0 {
            // Too little under way to say anything about the limit, and too little for a queue of ours.
            self.unqueued = Some(unqueued + SMOOTHING * (latency - unqueued));
            self.measured = Some(now);
            return;
        }
        let gradient = (self.tolerance * unqueued / latency).clamp(0.5, 1.0);
        if gradient < 1.0 {
            self.starting = false;
            if now.saturating_duration_since(measured) >= STALE {
                self.probe(unqueued / latency, now);
                return;
            }
        }
        let room = self.limit.sqrt();
        self.set(if self.starting {
            self.limit * 1.5
        } else {
            self.limit + SMOOTHING * (self.limit * gradient + room - self.limit)
        });
    }

    /// Lowers the limit below what the service works on at once. By Little's law that is the share of the
    /// latency without a queue in the whole; the service has work enough meanwhile.
    fn probe(&mut self, share: f64, now: Instant) {
        self.phase = Phase::Probing {
            resume: self.limit,
            began: now,
            below: None,
        };
        self.set(self.limit * share.min(1.0) * PROBE);
    }

    fn resume(&mut self, limit: f64, latency: Option<f64>, now: Instant) {
        self.phase = Phase::Steady;
        self.window = Window::default();
        self.unqueued = latency.or(self.unqueued);
        self.measured = Some(now);
        self.set(limit);
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(self.min, self.max);
    }
}

impl Window {
    fn add(&mut self, rtt: Duration, in_flight: u32, failed: bool, now: Instant) {
        self.start.get_or_insert(now);
        self.most = self.most.max(in_flight);
        if failed {
            // How long a failure takes says nothing: a refusal is quick, a timeout as slow as it is set.
            self.failures += 1;
        } else {
            self.answers += 1;
            self.sum += rtt.as_secs_f64();
        }
    }

    fn is_full(&self, now: Instant) -> bool {
        self.answers + self.failures >= SAMPLES
            && self
                .start
                .is_some_and(|start| now.saturating_duration_since(start) >= WINDOW)
    }

    fn failing(&self) -> bool {
        f64::from(self.failures) > FAILING * f64::from(self.answers + self.failures)
    }

    /// The mean latency of the answers in seconds, never 0.
    fn latency(&self) -> Option<f64> {
        (self.answers > 0).then(|| (self.sum / f64::from(self.answers)).max(1e-9))
    }
}
