//! How long answers take lately: a small histogram that forgets.

use std::time::{Duration, Instant};

/// Recent latencies to the head of an answer.
///
/// Costs nothing until the first is told. Buckets are a quarter of an octave wide, so that what is
/// said is at most a quarter too long.
#[derive(Debug, Default)]
pub struct Latencies(Option<Box<Recent>>);

#[derive(Debug)]
struct Recent {
    buckets: [u32; BUCKETS],
    total: u32,
    /// When half of all is forgotten next.
    fades: Instant,
}

/// Four for each octave of microseconds, up to 67 seconds.
const BUCKETS: usize = 4 * 27;

/// Half of what is known is forgotten after this.
const HALF_LIFE: Duration = Duration::from_secs(30);

/// And when there is more than this, so that a change shows soon under load.
const MOST: u32 = 2_000;

/// With fewer, the slowest twentieth is not known.
const FEWEST: u32 = 20;

impl Latencies {
    /// An answer's head came after `took`.
    pub fn observe(&mut self, took: Duration, now: Instant) {
        let recent = self.0.get_or_insert_with(|| {
            Box::new(Recent {
                buckets: [0; BUCKETS],
                total: 0,
                fades: now + HALF_LIFE,
            })
        });
        recent.fade(now);
        if let Some(bucket) = recent.buckets.get_mut(bucket_of(took)) {
            *bucket += 1;
            recent.total += 1;
        }
    }

    /// What 95 of 100 answers do not take longer than; none while too few are known.
    pub fn p95(&mut self, now: Instant) -> Option<Duration> {
        let recent = self.0.as_deref_mut()?;
        recent.fade(now);
        if recent.total < FEWEST {
            return None;
        }
        let slower = recent.total / 20;
        let mut seen = 0;
        let number = recent.buckets.iter().rposition(|count| {
            seen += count;
            seen > slower
        });
        number.map(upper_end)
    }
}

impl Recent {
    fn fade(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.fades);
        if now >= self.fades {
            self.fades = now + HALF_LIFE;
            // At most 32: then nothing is left.
            let halves = late.as_secs() / HALF_LIFE.as_secs() + 1;
            self.halve(u32::try_from(halves).unwrap_or(u32::MAX));
        }
        if self.total >= MOST {
            self.halve(1);
        }
    }

    fn halve(&mut self, times: u32) {
        for bucket in &mut self.buckets {
            *bucket = bucket.checked_shr(times).unwrap_or(0);
        }
        self.total = self.buckets.iter().sum();
    }
}

/// The bucket of a latency: its octave of microseconds, and the quarter of it.
fn bucket_of(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let octave = micros.ilog2();
    let quarter = ((micros << 2) >> octave) & 3;
    let number = octave as usize * 4 + usize::try_from(quarter).unwrap_or(0);
    number.min(BUCKETS - 1)
}

/// The longest latency of a bucket.
fn upper_end(number: usize) -> Duration {
    let octave = number / 4;
    let quarters = 5 + (number % 4) as u64;
    Duration::from_micros((quarters << octave).div_ceil(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn of(start: Instant, counts: &[(u32, Duration)]) -> Latencies {
        let mut latencies = Latencies::default();
        for (count, took) in counts {
            for _ in 0..*count {
                latencies.observe(*took, start);
            }
        }
        latencies
    }

    #[test]
    fn a_bucket_ends_at_most_a_quarter_above_what_is_in_it() {
        for micros in (1..3_000).chain([10_000, 123_456, 1_000_000, 60_000_000]) {
            let took = Duration::from_micros(micros);
            let end = upper_end(bucket_of(took));
            assert!(
                end >= took && end <= took * 5 / 4 + MILLISECOND / 1000,
                "{took:?}: {end:?}"
            );
        }
        assert_eq!(bucket_of(Duration::ZERO), 0);
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_slowest_twentieth_is_beyond_it() {
        let now = Instant::now();
        let check = |counts: &[(u32, Duration)], near: Option<Duration>| {
            let found = of(now, counts).p95(now);
            let is_near = match (found, near) {
                (Some(found), Some(near)) => found >= near && found <= near * 5 / 4,
                (found, near) => found == near,
            };
            assert!(is_near, "{counts:?}: {found:?}");
        };
        check(&[], None);
        check(&[(19, MILLISECOND)], None);
        check(&[(20, MILLISECOND)], Some(MILLISECOND));
        check(
            &[(95, MILLISECOND), (5, MILLISECOND * 80)],
            Some(MILLISECOND),
        );
        check(
            &[(94, MILLISECOND), (6, MILLISECOND * 80)],
            Some(MILLISECOND * 80),
        );
    }

    #[test]
    fn what_is_old_fades() {
        let start = Instant::now();
        let mut latencies = of(start, &[(100, MILLISECOND)]);
        assert!(latencies.p95(start + HALF_LIFE).is_some());
        assert!(latencies.p95(start + HALF_LIFE * 2).is_some());
        assert!(latencies.p95(start + HALF_LIFE * 5).is_none());
        let mut latencies = of(start, &[(100, MILLISECOND)]);
        assert!(latencies.p95(start + HALF_LIFE * 1_000).is_none());
    }

    #[test]
    fn under_load_a_change_shows_soon() {
        let start = Instant::now();
        let slow = MILLISECOND * 50;
        let latencies = of(start, &[(100_000, MILLISECOND), (200, slow)]);
        let mut latencies = latencies;
        assert!(latencies.p95(start).is_some_and(|found| found >= slow));
    }
}
