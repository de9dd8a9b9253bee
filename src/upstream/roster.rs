//! What is known of each endpoint, by whom it was told, and what follows for requests.
//!
//! This is the truth behind [`Members`]: discovery, health checks and workers that see failures
//! tell it what they know, each change makes a new list. Every decision here is a function of what
//! was told and of `now`. An endpoint keeps its number as long as it is known; the number of one
//! that left is given away only long after, so that whoever still holds it finds nobody, or itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::upstream::Settings;
use crate::upstream::eligible::{self, Condition, Eligible, Rules, Standing};
use crate::upstream::endpoint::Endpoint;
use crate::upstream::health::active::Report;
use crate::upstream::health::outlier::{self, Reason};
use crate::upstream::members::{Member, Members};

/// How long a number rests after its endpoint has left.
const REST: Duration = Duration::from_mins(5);

/// What is known of the endpoints of one upstream.
#[derive(Debug)]
pub(super) struct Roster {
    entries: Vec<Option<Entry>>,
    numbers: HashMap<Box<str>, u32>,
    rules: Rules,
    /// Endpoints take requests only after their first check.
    checked: bool,
    outlier: Option<outlier::Settings>,
    /// When a weight in slow start changes next.
    next_change: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    endpoint: Arc<Endpoint>,
    /// What the last check said; none before the first.
    report: Option<Report>,
    watch: Option<Arc<outlier::Watch>>,
    record: outlier::Record,
    ejected: Option<Ejection>,
    /// When it left the list, if it did.
    left: Option<Instant>,
    /// The current members have it.
    shown: bool,
    /// Since when it may take requests; none while it may not.
    ready_since: Option<Instant>,
    /// It was there from the beginning, and has nothing to warm up after.
    seasoned: bool,
}

/// An endpoint that sits out.
#[derive(Debug)]
struct Ejection {
    until: Instant,
    reason: Reason,
    /// The time is over, and somebody looks whether it can be reached.
    probing: bool,
}

/// An endpoint that is to be probed before it may come back.
#[derive(Debug)]
pub(super) struct Due {
    pub number: u32,
    pub endpoint: Arc<Endpoint>,
}

impl Roster {
    pub(super) fn new(settings: &Settings, zone: Option<&str>) -> Self {
        Self {
            entries: Vec::new(),
            numbers: HashMap::new(),
            rules: Rules {
                zone: zone.map(Into::into),
                zones: settings.zones.clone(),
                panic_threshold: settings.panic_threshold.0.0,
                slow_start: settings.slow_start.map(|period| period.0),
            },
            checked: settings.health_check.is_some(),
            outlier: settings.outlier.clone(),
            next_change: None,
        }
    }

    /// The list is this now: who is new comes in, who is missing leaves.
    pub(super) fn list(&mut self, endpoints: Vec<Endpoint>, now: Instant) {
        let first = self.entries.is_empty();
        let mut missing: Vec<bool> = self.entries.iter().map(Option::is_some).collect();
        for endpoint in endpoints {
            let known = self.numbers.get(&endpoint.label).copied();
            let entry = known.and_then(|number| {
                if let Some(missing) = missing.get_mut(number as usize) {
                    *missing = false;
                }
                self.entries.get_mut(number as usize)?.as_mut()
            });
            match entry {
                Some(entry) => entry.renew(endpoint),
                None => self.admit(endpoint, first),
            }
        }
        for (entry, _) in self
            .entries
            .iter_mut()
            .zip(missing)
            .filter(|(_, gone)| *gone)
        {
            if let Some(entry) = entry {
                entry.left.get_or_insert(now);
                entry.ready_since = None;
            }
        }
    }

    fn admit(&mut self, endpoint: Endpoint, seasoned: bool) {
        let place = self.entries.iter().position(Option::is_none);
        let place = place.unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        let Ok(number) = u32::try_from(place) else {
            return;
        };
        self.numbers.insert(endpoint.label.clone(), number);
        if let Some(entry) = self.entries.get_mut(place) {
            *entry = Some(Entry {
                endpoint: Arc::new(endpoint),
                report: None,
                watch: self
                    .outlier
                    .as_ref()
                    .map(|of| Arc::new(outlier::Watch::new(of))),
                record: outlier::Record::default(),
                ejected: None,
                left: None,
                shown: false,
                ready_since: None,
                seasoned,
            });
        }
    }

    fn entry(&mut self, number: u32) -> Option<&mut Entry> {
        self.entries.get_mut(number as usize)?.as_mut()
    }

    /// What a health check has found.
    pub(super) fn checked(&mut self, number: u32, report: Report) {
        if let Some(entry) = self.entry(number) {
            entry.report = Some(report);
        }
    }

    /// An endpoint has failed too often: it sits out, unless too many do. Says whether it does.
    pub(super) fn eject(&mut self, number: u32, reason: Reason, random: u64, now: Instant) -> bool {
        let Some(settings) = &self.outlier else {
            return false;
        };
        let present = self.entries.iter().flatten().filter(|e| e.left.is_none());
        let (mut endpoints, mut ejected) = (0, 0);
        for entry in present {
            endpoints += 1;
            ejected += usize::from(entry.ejected.is_some());
        }
        if !outlier::may_eject(ejected, endpoints, settings.max_ejected) {
            return false;
        }
        let settings = settings.clone();
        let Some(entry) = self.entry(number) else {
            return false;
        };
        if entry.ejected.is_some() || entry.left.is_some() {
            return false;
        }
        entry.ejected = Some(Ejection {
            until: entry.record.ejected(&settings, random, now),
            reason,
            probing: false,
        });
        true
    }

    /// Those whose time is over; each is handed out once, and then owed a [`Self::probed`].
    pub(super) fn due(&mut self, now: Instant) -> Vec<Due> {
        let entries = (0..).zip(&mut self.entries);
        let due = entries.filter_map(|(number, entry)| {
            let entry = entry.as_mut()?;
            let ejection = entry.ejected.as_mut()?;
            if ejection.probing || ejection.until > now {
                return None;
            }
            ejection.probing = true;
            Some(Due {
                number,
                endpoint: Arc::clone(&entry.endpoint),
            })
        });
        due.collect()
    }

    /// What probing an ejected endpoint has found: it comes back on probation, or sits out longer.
    pub(super) fn probed(&mut self, number: u32, reachable: bool, random: u64, now: Instant) {
        let Some(settings) = self.outlier.clone() else {
            return;
        };
        let Some(entry) = self.entry(number) else {
            return;
        };
        let Some(ejection) = &mut entry.ejected else {
            return;
        };
        if reachable {
            entry.ejected = None;
            if let Some(watch) = &entry.watch {
                watch.readmit();
            }
        } else {
            ejection.probing = false;
            ejection.until = entry.record.ejected(&settings, random, now);
        }
    }

    /// Ejects who answers clearly worse than the others; to be called once an interval.
    pub(super) fn compare(&mut self, random: u64, now: Instant) {
        let Some(settings) = self.outlier.clone() else {
            return;
        };
        let mut rates = Vec::new();
        for (number, entry) in (0..).zip(&mut self.entries) {
            let Some(entry) = entry else { continue };
            if entry.ejected.is_none() {
                entry.record.decay(&settings, now);
            }
            if let Some(watch) = &entry.watch {
                let (successes, failures) = watch.take_interval();
                if entry.left.is_none() && entry.ejected.is_none() {
                    rates.push((number, successes, failures));
                }
            }
        }
        for (number, reason) in outlier::by_success_rate(&settings, &rates) {
            self.eject(number, reason, random, now);
        }
    }

    /// True while an endpoint waits for its first check.
    pub(super) fn awaits_checks(&self) -> bool {
        let waits = |entry: &Entry| entry.left.is_none() && entry.report.is_none();
        self.checked && self.entries.iter().flatten().any(waits)
    }

    /// True if the time alone may have changed what follows.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let due = |entry: &Entry| {
            let over = |ejection: &Ejection| !ejection.probing && ejection.until <= now;
            entry.ejected.as_ref().is_some_and(over) || entry.has_drained() || entry.has_rested(now)
        };
        self.next_change.is_some_and(|at| at <= now) || self.entries.iter().flatten().any(due)
    }

    /// What follows for requests now.
    pub(super) fn members(&mut self, now: Instant) -> Members {
        self.forget(now);
        let checked = self.checked;
        for entry in self.entries.iter_mut().flatten() {
            let is_ready = entry.condition(checked) == Condition::Ready;
            if !is_ready {
                entry.ready_since = None;
                entry.seasoned = false;
            } else if entry.ready_since.is_none() {
                entry.ready_since = Some(now);
            }
        }
        let standing: Vec<_> = (0..)
            .zip(&self.entries)
            .filter_map(|(number, entry)| Some(entry.as_ref()?.standing(number, checked)))
            .collect();
        let Eligible {
            candidates,
            panic,
            next_change,
            ..
        } = eligible::eligible(&standing, &self.rules, now);
        self.next_change = next_change;
        let entries = (0..).zip(&mut self.entries);
        let slots = entries.map(|(number, entry)| entry.as_mut()?.show(number, checked));
        Members::new(slots.collect(), &candidates, panic)
    }

    /// Gives numbers back whose endpoints left long ago.
    fn forget(&mut self, now: Instant) {
        for entry in &mut self.entries {
            if entry.as_ref().is_some_and(|entry| entry.has_rested(now))
                && let Some(gone) = entry.take()
            {
                self.numbers.remove(&gone.endpoint.label);
            }
        }
        while matches!(self.entries.last(), Some(None)) {
            self.entries.pop();
        }
    }
}

impl Entry {
    /// The list has it again, perhaps with another weight or zone.
    fn renew(&mut self, endpoint: Endpoint) {
        if self.left.take().is_some() {
            // Nothing that was known is true of what runs there now.
            self.report = None;
            self.ejected = None;
            self.ready_since = None;
        }
        if *self.endpoint != endpoint {
            self.endpoint = Arc::new(endpoint);
        }
    }

    fn condition(&self, checked: bool) -> Condition {
        if self.left.is_some() {
            return Condition::Draining;
        }
        if self.ejected.is_some() {
            return Condition::Ejected;
        }
        match &self.report {
            Some(report) if !report.healthy => Condition::Unhealthy,
            None if checked => Condition::Unhealthy,
            _ => Condition::Ready,
        }
    }

    fn why(&self, checked: bool) -> Box<str> {
        match (self.condition(checked), &self.ejected, &self.report) {
            (Condition::Draining, ..) => "has left the list of endpoints".into(),
            (Condition::Ejected, Some(ejection), _) => {
                format!("is ejected after {}", ejection.reason).into()
            }
            (Condition::Unhealthy, _, Some(report)) => {
                format!("fails its health check: {}", report.detail).into()
            }
            (Condition::Unhealthy, _, None) => "waits for its first health check".into(),
            _ if self.endpoint.weight == 0 => "has weight 0".into(),
            _ => "".into(),
        }
    }

    fn standing(&self, number: u32, checked: bool) -> Standing<'_> {
        Standing {
            number,
            weight: self.endpoint.weight,
            zone: self.endpoint.zone.as_deref(),
            condition: self.condition(checked),
            ready_since: self.ready_since.filter(|_| !self.seasoned),
        }
    }

    /// Its place in the members; none once it has left and serves nobody any more.
    fn show(&mut self, number: u32, checked: bool) -> Option<Member> {
        self.shown = self.left.is_none() || self.is_used();
        self.shown.then(|| Member {
            number,
            endpoint: Arc::clone(&self.endpoint),
            condition: self.condition(checked),
            why: self.why(checked),
            watch: self.watch.clone(),
        })
    }

    /// True while a worker has connections or requests there.
    fn is_used(&self) -> bool {
        // The roster has it once, the current members once more.
        Arc::strong_count(&self.endpoint) > 1 + usize::from(self.shown)
    }

    fn has_drained(&self) -> bool {
        self.left.is_some() && self.shown && !self.is_used()
    }

    fn has_rested(&self, now: Instant) -> bool {
        let since = |left: Instant| now.saturating_duration_since(left);
        self.left.is_some_and(|left| since(left) >= REST) && !self.shown && !self.is_used()
    }
}
