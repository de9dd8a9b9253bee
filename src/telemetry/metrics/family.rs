//! Series by name, so that a reload finds those of the configuration before it.
//!
//! A snapshot holds its series in `Arc`s; a family keeps them for a while after the last snapshot
//! that named them is gone. A route that comes back within that time goes on where it stopped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::exposition::{Admission, Budget, Exposition};

/// How long series outlive their last user: long enough for a last scrape of what they counted.
pub(super) const GRACE: Duration = Duration::from_mins(5);

/// What belongs to one name.
pub(super) trait Series {
    /// Adds what was counted to a scrape.
    fn collect(&self, out: &mut Exposition<'_>);
    /// Which of its series are exposed.
    fn admission(&self) -> &Admission;
}

type Names = (Box<str>, Box<str>);

/// All series of one kind.
#[derive(Debug)]
pub(super) struct Family<S>(Mutex<BTreeMap<Names, Member<S>>>);

#[derive(Debug)]
struct Member<S> {
    series: Arc<S>,
    unused_since: Option<Instant>,
}

impl<S> Default for Family<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S: Series> Family<S> {
    /// The series of these names, made if there are none.
    pub(super) fn get(&self, names: (&str, &str), make: impl FnOnce() -> S) -> Arc<S> {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let names = (names.0.into(), names.1.into());
        let member = members.entry(names).or_insert_with(|| Member {
            series: Arc::new(make()),
            unused_since: None,
        });
        member.unused_since = None;
        Arc::clone(&member.series)
    }

    pub(super) fn collect(&self, out: &mut Exposition<'_>) {
        let members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for member in members.values() {
            member.series.collect(out);
        }
    }

    /// Lets go of what nobody has used for [`GRACE`].
    pub(super) fn sweep(&self, now: Instant, budget: &Budget) {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|_, member| {
            // New users come through `get`, which needs the lock held here.
            if Arc::strong_count(&member.series) > 1 {
                member.unused_since = None;
                return true;
            }
            let since = *member.unused_since.get_or_insert(now);
            let keep = now.saturating_duration_since(since) < GRACE;
            if !keep {
                budget.give_back(member.series.admission().lines());
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::handler::HandlerSeries;
    use super::*;

    #[test]
    fn a_name_that_comes_back_in_time_goes_on_counting() {
        let family = Family::default();
        let budget = Budget::new(10);
        let get = || family.get(("a", ""), || HandlerSeries::new("a", 1));
        let start = Instant::now();
        let first = get();
        family.sweep(start, &budget);
        assert!(Arc::ptr_eq(&first, &get()), "in use");
        let weak = Arc::downgrade(&first);
        drop(first);
        family.sweep(start, &budget);
        family.sweep(start + GRACE / 2, &budget);
        assert!(weak.upgrade().is_some(), "within its grace");
        drop(get());
        family.sweep(start + GRACE, &budget);
        assert!(weak.upgrade().is_some(), "its grace began anew");
        family.sweep(start + GRACE * 2, &budget);
        assert!(weak.upgrade().is_none(), "gone");
    }
}
