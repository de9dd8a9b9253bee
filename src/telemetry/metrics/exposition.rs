//! One scrape: series become the prometheus crate's families, within a limit.
//!
//! The limit counts what Prometheus stores: a histogram is as many series as it has lines. A series
//! that was exposed once stays until its owner is gone, so that no counter ever disappears and
//! comes back.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use prometheus::proto;

use super::catalogue::{Kind, Metric, catalogue};
use super::codes::Key;
use super::histogram::{BOUNDS, Total};

/// Lines of one histogram: its bounds, infinity, sum and count.
pub(super) const HISTOGRAM_LINES: usize = BOUNDS + 3;

/// How many series may be exposed, and how many are.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) most: AtomicUsize,
    used: AtomicUsize,
    dropped: AtomicU64,
}

impl Budget {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: AtomicUsize::new(most),
            used: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    fn take(&self, lines: usize) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let more = |used: usize| used.checked_add(lines).filter(|used| *used <= most);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    pub(super) fn give_back(&self, lines: usize) {
        self.used.fetch_sub(lines, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Which series of one owner are exposed; touched by scrapes only.
#[derive(Debug, Default)]
pub(super) struct Admission(Mutex<Vec<Admitted>>);

#[derive(Debug)]
struct Admitted {
    key: u32,
    lines: usize,
    exposed: bool,
}

impl Admission {
    /// Whether the series of `key` may be exposed.
    pub(super) fn by_key(&self, budget: &Budget, key: Key) -> bool {
        self.ask(budget, key.number(), 1)
    }

    /// Whether the series that an owner has from the beginning may be exposed, all or none.
    pub(super) fn all(&self, budget: &Budget, lines: usize) -> bool {
        self.ask(budget, 0, lines)
    }

    fn ask(&self, budget: &Budget, key: u32, lines: usize) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.iter_mut().find(|a| a.key == key) {
            // What was refused gets in once there is room.
            found.exposed = found.exposed || budget.take(found.lines);
            return found.exposed;
        }
        let exposed = budget.take(lines);
        if !exposed {
            budget.dropped.fetch_add(lines as u64, Ordering::Relaxed);
        }
        known.push(Admitted {
            key,
            lines,
            exposed,
        });
        exposed
    }

    /// Lines that are exposed, to be given back when the owner goes.
    pub(super) fn lines(&self) -> usize {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let exposed = known.iter().filter(|a| a.exposed);
        exposed.map(|a| a.lines).sum()
    }
}

/// What a scrape has gathered so far.
#[derive(Debug)]
pub(super) struct Exposition<'a> {
    pub(super) budget: &'a Budget,
    families: Vec<Vec<proto::Metric>>,
}

impl<'a> Exposition<'a> {
    pub(super) fn new(budget: &'a Budget) -> Self {
        let families = catalogue().iter().map(|_| Vec::new()).collect();
        Self { budget, families }
    }

    /// One sample of a counter or gauge; label values in the order of the catalogue.
    #[expect(
        clippy::cast_precision_loss,
        reason = "the text format holds f64 only; a loss begins at 2^53"
    )]
    pub(super) fn number(&mut self, metric: Metric, labels: &[&str], value: u64) {
        self.float(metric, labels, value as f64);
    }

    /// The same with a fraction.
    pub(super) fn float(&mut self, metric: Metric, labels: &[&str], value: f64) {
        self.push(metric, labels, |sample, kind| match kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                sample.set_counter(counter);
            }
            Kind::Gauge | Kind::Histogram => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                sample.set_gauge(gauge);
            }
        });
    }

    /// One histogram.
    pub(super) fn histogram(&mut self, metric: Metric, labels: &[&str], total: &Total) {
        let mut histogram = proto::Histogram::default();
        let bounds = metric.scale().seconds().zip(total.cumulative);
        let buckets = bounds.map(|(bound, count)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(total.count());
        histogram.set_sample_sum(total.sum_seconds);
        self.push(metric, labels, |sample, _| sample.set_histogram(histogram));
    }

    fn push(
        &mut self,
        metric: Metric,
        values: &[&str],
        fill: impl FnOnce(&mut proto::Metric, Kind),
    ) {
        let (Some(described), Some(family)) =
            (metric.described(), self.families.get_mut(metric as usize))
        else {
            return;
        };
        debug_assert_eq!(described.labels.len(), values.len(), "{}", described.name);
        let pairs = described.labels.iter().zip(values).map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut sample = proto::Metric::from_label(pairs.collect());
        fill(&mut sample, described.kind);
        family.push(sample);
    }

    /// The families that have at least one sample.
    pub(super) fn finish(self) -> Vec<proto::MetricFamily> {
        let filled = catalogue().iter().zip(self.families);
        filled
            .filter(|(_, samples)| !samples.is_empty())
            .map(|(described, samples)| {
                let mut family = proto::MetricFamily::default();
                family.set_name(described.name.to_owned());
                family.set_help(described.help.to_owned());
                family.set_field_type(match described.kind {
                    Kind::Counter => proto::MetricType::COUNTER,
                    Kind::Gauge => proto::MetricType::GAUGE,
                    Kind::Histogram => proto::MetricType::HISTOGRAM,
                });
                family.set_metric(samples);
                family
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::codes::Method;
    use super::*;

    #[test]
    fn what_is_exposed_stays_and_what_is_refused_is_counted_once() {
        let budget = Budget::new(3);
        let key = |status| Key::new(Method::Get, Some(status), None);
        let admission = Admission::default();
        assert!(admission.all(&budget, 2));
        assert!(admission.by_key(&budget, key(200)));
        for _ in 0..2 {
            assert!(!admission.by_key(&budget, key(404)));
            assert!(admission.by_key(&budget, key(200)));
            assert!(admission.all(&budget, 2));
        }
        assert_eq!(budget.dropped(), 1);
        assert_eq!(admission.lines(), 3);
    }

    #[test]
    fn room_that_is_given_back_goes_to_who_was_refused() {
        let budget = Budget::new(1);
        let (gone, waiting) = (Admission::default(), Admission::default());
        assert!(gone.all(&budget, 1));
        assert!(!waiting.all(&budget, 1));
        budget.give_back(gone.lines());
        assert!(waiting.all(&budget, 1));
        assert_eq!(budget.used.load(Ordering::Relaxed), 1);
    }
}
