//! How long a connection may be idle before its endpoint is likely to close it.
//!
//! A request that meets a connection which is just being closed may have been read or not, and then
//! must not be sent again. So connections are given up before their endpoint does it. How long that
//! is, an endpoint seldom says (`keep-alive: timeout=5`); mostly it is learned from connections that
//! it closed while they were idle.
//!
//! A restart closes connections too, but all at once and at various ages: such closes teach nothing.
//! What was learned is forgotten after a while, so that a wrong lesson heals within minutes; one that
//! turns out to be right again and again is kept for ever longer.

use std::time::{Duration, Instant};

/// Closes after less idle time than this are chance, or an endpoint that keeps nothing.
const SHORTEST: Duration = Duration::from_secs(1);

/// Closes within this time of each other are one event.
const BURST: Duration = Duration::from_millis(250);

/// How long a lesson is kept in full, when it is new and at most.
const HOLD: Duration = Duration::from_mins(1);
const LONGEST_HOLD: Duration = Duration::from_hours(1);

/// How often the limit doubles, once a lesson is no longer kept in full.
const DOUBLING: Duration = Duration::from_secs(20);

/// The least distance to the moment of the close: clocks are coarse on both sides.
const MARGIN: Duration = Duration::from_millis(500);

/// What is known about one endpoint's patience with idle connections.
#[derive(Debug)]
pub(super) struct IdleLimit {
    configured: Duration,
    /// What the endpoint said itself.
    told: Option<Duration>,
    lesson: Option<Lesson>,
    burst: Option<Burst>,
}

#[derive(Debug, Clone, Copy)]
struct Lesson {
    /// The shortest idle time after which a connection was closed.
    closes_after: Duration,
    at: Instant,
    /// How long it is kept in full.
    hold: Duration,
}

/// Closes that belong together, and what was known before them.
#[derive(Debug)]
struct Burst {
    last: Instant,
    shortest: Duration,
    before: Option<Lesson>,
    /// Set once idle times differ: a restart.
    void: bool,
}

impl IdleLimit {
    /// Nothing is known yet; `configured` is never exceeded.
    pub(super) fn new(configured: Duration) -> Self {
        Self {
            configured,
            told: None,
            lesson: None,
            burst: None,
        }
    }

    /// The endpoint closed a connection that had been idle for so long.
    pub(super) fn closed_after(&mut self, idle: Duration, now: Instant) {
        if let Some(burst) = &mut self.burst
            && now.saturating_duration_since(burst.last) < BURST
        {
            burst.last = now;
            if !alike(burst.shortest, idle) {
                burst.void = true;
                self.lesson = burst.before;
            }
            burst.shortest = burst.shortest.min(idle);
            if burst.void {
                return;
            }
        } else {
            self.burst = Some(Burst {
                last: now,
                shortest: idle,
                before: self.lesson,
                void: false,
            });
        }
        if idle >= SHORTEST && idle < self.configured {
            self.learn(now);
        }
    }

    fn learn(&mut self, now: Instant) {
        let Some(Burst {
            shortest: idle,
            before,
            ..
        }) = self.burst
        else {
            return;
        };
        let (closes_after, hold) = match before {
            Some(known) if alike(known.closes_after, idle) => (
                known.closes_after.min(idle),
                (known.hold * 2).min(LONGEST_HOLD),
            ),
            // Shorter than what is known, or known no longer: the limit had grown up to here.
            _ => (idle, HOLD),
        };
        self.lesson = Some(Lesson {
            closes_after,
            at: now,
            hold,
        });
    }

    /// The endpoint said for how many seconds it keeps an idle connection.
    pub(super) fn heard_keep_alive(&mut self, seconds: u64) {
        // None at all is said by `connection: close`, in words that are heeded.
        self.told = (seconds > 0).then(|| Duration::from_secs(seconds));
    }

    /// How long a connection may have been idle to be used again.
    pub(super) fn limit(&self, now: Instant) -> Duration {
        let told = self.told.map_or(self.configured, less);
        let learned = self
            .lesson
            .map_or(self.configured, |lesson| lesson.limit(now));
        self.configured.min(told).min(learned)
    }
}

impl Lesson {
    fn limit(&self, now: Instant) -> Duration {
        let over = now.saturating_duration_since(self.at + self.hold);
        let doublings = over.as_secs_f64() / DOUBLING.as_secs_f64();
        // Over 2^40 seconds nothing is left of a lesson.
        let grown = less(self.closes_after).as_secs_f64() * doublings.min(40.0).exp2();
        Duration::from_secs_f64(grown)
    }
}

/// A limit safely below the time at which a connection is closed.
fn less(closes_after: Duration) -> Duration {
    let margin = (closes_after / 5).max(MARGIN.min(closes_after / 2));
    closes_after.saturating_sub(margin)
}

/// True if two idle times can come from the same timer, which may be a coarse one.
fn alike(one: Duration, other: Duration) -> bool {
    let (short, long) = (one.min(other), one.max(other));
    long.saturating_sub(short) <= (long / 5).max(MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: Duration = Duration::from_secs(55);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// What closes at given times after given idle times lead to, a given time after the last.
    fn limit_after(closes: &[(f64, f64)], later: f64) -> f64 {
        let start = Instant::now();
        let mut limit = IdleLimit::new(CONFIGURED);
        let mut now = start;
        for (at, idle) in closes {
            now = start + seconds(*at);
            limit.closed_after(seconds(*idle), now);
        }
        limit.limit(now + seconds(later)).as_secs_f64()
    }

    #[test]
    fn one_close_is_a_lesson_with_a_margin() {
        let check = |idle: f64, expected: f64| {
            let limit = limit_after(&[(0.0, idle)], 0.0);
            assert!((limit - expected).abs() < 1e-6, "{idle}: {limit}");
        };
        check(1.0, 0.5);
        check(2.0, 1.5);
        check(5.0, 4.0);
        check(50.0, 40.0);
        // Too short to be a timer, and longer than it was kept anyway.
        check(0.9, 55.0);
        check(0.0, 55.0);
        check(55.0, 55.0);
        check(70.0, 55.0);
    }

    #[test]
    fn a_timer_that_closes_several_at_once_is_a_lesson_and_a_restart_is_not() {
        let check = |closes: &[(f64, f64)], expected: f64| {
            let limit = limit_after(closes, 0.0);
            assert!((limit - expected).abs() < 1e-6, "{closes:?}: {limit}");
        };
        check(&[(0.0, 2.0), (0.001, 2.1), (0.1, 2.05)], 1.5);
        // The shortest counts, in whatever order they come.
        check(&[(0.0, 2.3), (0.001, 2.0)], 1.5);
        check(&[(0.0, 30.0), (0.001, 2.0), (0.002, 11.0)], 55.0);
        check(&[(0.0, 3.0), (0.001, 0.1)], 55.0);
        check(&[(0.0, 0.1), (0.001, 3.0), (0.002, 3.0)], 55.0);
        // What was known before the restart is known after it.
        check(&[(0.0, 5.0), (30.0, 4.0), (30.001, 1.5)], 4.0);
        // A restart that takes its time is still one.
        check(&[(0.0, 30.0), (0.2, 2.0), (0.4, 11.0), (0.6, 3.0)], 55.0);
    }

    #[test]
    fn a_wrong_lesson_heals_within_minutes() {
        let limit = |later| limit_after(&[(0.0, 2.0)], later);
        assert!((limit(60.0) - 1.5).abs() < 1e-6);
        assert!((limit(80.0) - 3.0).abs() < 1e-6);
        assert!((limit(100.0) - 6.0).abs() < 1e-6);
        assert!((limit(180.0) - 55.0).abs() < 1e-6);
        assert!((limit(1e9) - 55.0).abs() < 1e-6);
    }

    #[test]
    fn a_lesson_that_is_right_again_and_again_is_kept_for_longer() {
        let mut closes = vec![(0.0, 2.0)];
        for n in 1..12 {
            closes.push((f64::from(n) * 100.0, 2.0 + 0.01 * f64::from(n)));
        }
        assert!((limit_after(&closes, 3_599.0) - 1.5).abs() < 1e-6);
        assert!(limit_after(&closes, 3_800.0) > 54.9);
        // Another lesson begins anew.
        closes.push((2_000.0, 10.0));
        assert!((limit_after(&closes, 59.0) - 8.0).abs() < 1e-6);
        assert!(limit_after(&closes, 100.0) > 20.0);
    }

    #[test]
    fn what_the_endpoint_says_counts() {
        let now = Instant::now();
        let mut limit = IdleLimit::new(CONFIGURED);
        let check = |limit: &IdleLimit, expected: f64| {
            assert_eq!(limit.limit(now), seconds(expected));
        };
        limit.heard_keep_alive(5);
        check(&limit, 4.0);
        limit.closed_after(seconds(2.0), now);
        check(&limit, 1.5);
        limit.heard_keep_alive(1);
        check(&limit, 0.5);
        limit.heard_keep_alive(3_600);
        check(&limit, 1.5);
        limit.heard_keep_alive(0);
        check(&limit, 1.5);
        limit.heard_keep_alive(u64::MAX);
        check(&limit, 1.5);
    }

    #[test]
    fn the_limit_never_exceeds_what_is_configured() {
        let now = Instant::now();
        let mut limit = IdleLimit::new(seconds(0.2));
        assert_eq!(limit.limit(now), seconds(0.2));
        limit.heard_keep_alive(5);
        limit.closed_after(seconds(2.0), now);
        assert_eq!(limit.limit(now), seconds(0.2));
    }
}
