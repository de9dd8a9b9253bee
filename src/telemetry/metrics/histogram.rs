//! Histograms of durations: where a duration falls costs a table look-up and one comparison.

use std::time::Duration;

use super::shard::{Count, Shards};

/// How many upper bounds a scale has, beside infinity.
pub(super) const BOUNDS: usize = 16;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;

/// Of answers: 100 µs to 10 s.
pub(super) static LATENCY: Scale = Scale::new([
    100 * MICROSECOND,
    250 * MICROSECOND,
    500 * MICROSECOND,
    MILLISECOND,
    2_500 * MICROSECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    250 * MILLISECOND,
    500 * MILLISECOND,
    1_000 * MILLISECOND,
    2_500 * MILLISECOND,
    5_000 * MILLISECOND,
    10_000 * MILLISECOND,
]);

/// Of the gateway's own time: 5 µs to 500 ms.
pub(super) static OVERHEAD: Scale = Scale::new([
    5 * MICROSECOND,
    10 * MICROSECOND,
    25 * MICROSECOND,
    50 * MICROSECOND,
    100 * MICROSECOND,
    250 * MICROSECOND,
    500 * MICROSECOND,
    MILLISECOND,
    2_500 * MICROSECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    250 * MILLISECOND,
    500 * MILLISECOND,
]);

/// Upper bounds in nanoseconds, each at least twice the one before it.
#[derive(Debug)]
pub(super) struct Scale {
    bounds: [u64; BOUNDS],
    /// By the number of bits of a duration: how many bounds are surely below it.
    below: [u8; 65],
}

impl Scale {
    #[expect(
        clippy::indexing_slicing,
        reason = "runs at compile time only, where a wrong index fails the build"
    )]
    const fn new(bounds: [u64; BOUNDS]) -> Self {
        let mut below = [0_u8; 65];
        let mut bits = 1;
        while bits <= 64 {
            let least = 1_u64 << (bits - 1);
            let mut n = 0;
            while n < BOUNDS && bounds[n] < least {
                n += 1;
            }
            #[expect(clippy::cast_possible_truncation, reason = "at most BOUNDS")]
            {
                below[bits] = n as u8;
            }
            bits += 1;
        }
        Self { bounds, below }
    }

    /// Which bucket counts a duration: the first whose bound is not below it.
    #[inline]
    fn bucket(&self, nanos: u64) -> usize {
        let bits = (u64::BITS - nanos.leading_zeros()) as usize;
        let below = self.below.get(bits).map_or(0, |n| usize::from(*n));
        // Between two powers of two lies at most one bound, since each is twice the one before.
        let over = self.bounds.get(below).is_some_and(|bound| nanos > *bound);
        below + usize::from(over)
    }

    /// The upper bounds in seconds, without infinity.
    #[expect(
        clippy::cast_precision_loss,
        reason = "bounds are far below the 2^53 nanoseconds that an f64 holds exactly"
    )]
    pub(super) fn seconds(&self) -> impl Iterator<Item = f64> {
        self.bounds.iter().map(|nanos| *nanos as f64 / 1e9)
    }
}

/// Counts by bucket, the last one without a bound, and the sum of all durations.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [Count; BOUNDS + 1],
    nanos: Count,
}

impl Histogram {
    #[inline]
    pub(super) fn observe(&self, scale: &Scale, took: Duration) {
        let nanos = took
            .as_secs()
            .saturating_mul(1_000_000_000)
            .saturating_add(u64::from(took.subsec_nanos()));
        if let Some(bucket) = self.buckets.get(scale.bucket(nanos)) {
            bucket.add(1);
            self.nanos.add(nanos);
        }
    }
}

/// A histogram added up over its shards.
#[derive(Debug)]
pub(super) struct Total {
    /// Counts up to and including each bucket; the last is the count of everything.
    pub(super) cumulative: [u64; BOUNDS + 1],
    pub(super) sum_seconds: f64,
}

impl Total {
    #[expect(
        clippy::cast_precision_loss,
        reason = "the text format holds f64 only; a loss begins after 104 days of summed time"
    )]
    pub(super) fn of<T: Default>(shards: &Shards<T>, part: impl Fn(&T) -> &Histogram) -> Self {
        let mut cumulative = [0_u64; BOUNDS + 1];
        let mut nanos = 0_u64;
        for histogram in shards.used().map(part) {
            for (sum, bucket) in cumulative.iter_mut().zip(&histogram.buckets) {
                *sum += bucket.get();
            }
            nanos = nanos.wrapping_add(histogram.nanos.get());
        }
        let mut so_far = 0;
        for sum in &mut cumulative {
            so_far += *sum;
            *sum = so_far;
        }
        Self {
            cumulative,
            sum_seconds: nanos as f64 / 1e9,
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.cumulative.last().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_agrees_with_a_search() {
        for scale in [&LATENCY, &OVERHEAD] {
            let slowly = |nanos: u64| scale.bounds.iter().filter(|b| nanos > **b).count();
            let edges = scale.bounds.iter().flat_map(|b| [b - 1, *b, b + 1]);
            let powers = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit]);
            for nanos in edges.chain(powers).chain([u64::MAX]) {
                assert_eq!(scale.bucket(nanos), slowly(nanos), "{nanos} ns");
            }
        }
    }

    #[test]
    fn each_bound_is_at_least_twice_the_one_before() {
        for scale in [&LATENCY, &OVERHEAD] {
            assert!(scale.bounds.windows(2).all(|w| w[1] >= 2 * w[0]));
        }
    }

    #[test]
    fn totals_are_cumulative_over_all_shards() {
        let shards = Shards::<Histogram>::new(2);
        shards.of(0).observe(&LATENCY, Duration::from_micros(100));
        shards.of(1).observe(&LATENCY, Duration::from_micros(101));
        shards.of(1).observe(&LATENCY, Duration::from_mins(1));
        let total = Total::of(&shards, |histogram| histogram);
        assert_eq!(total.cumulative[0], 1);
        assert_eq!(total.cumulative[1], 2);
        assert_eq!(total.cumulative[BOUNDS - 1], 2);
        assert_eq!(total.count(), 3);
        assert!((total.sum_seconds - 60.000_201).abs() < 1e-9);
    }
}
