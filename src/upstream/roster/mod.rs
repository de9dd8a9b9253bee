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
use crate::upstream::health::active::{self, Report};
use crate::upstream::health::outlier::{self, Reason};
use crate::upstream::members::{Member, Members};
use crate::upstream::settings::Protocol;

/// How long a number rests after its endpoint has left.
const REST: Duration = Duration::from_mins(5);

/// What is known of the endpoints of one upstream.
#[derive(Debug)]
pub(super) struct Roster {
    entries: Vec<Option<Entry>>,
    numbers: HashMap<Box<str>, u32>,
    rules: Rules,
    /// How endpoints are checked: if they are, they take requests only after their first check.
    check: Option<(active::Settings, Protocol)>,
    outlier: Option<outlier::Settings>,
    /// When a weight in slow start changes next.
    next_change: Option<Instant>,
    /// Whether a panic was told of that is not over.
    panicking: bool,
}

#[derive(Debug)]
struct Entry {
    endpoint: Arc<Endpoint>,
    /// Held by whoever has a connection or a request there.
    in_use: Arc<()>,
    /// How often it has come back to the list.
    visit: u32,
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

/// How a list differs from the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub added: usize,
    pub removed: usize,
    /// Those with another weight, zone or name.
    pub changed: usize,
}

/// What became of the wish to eject an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It sits out from now on.
    Ejected,
    /// It takes no requests anyway: it is ejected already, or has left.
    Out,
    /// It stays, for as many are out as may be.
    TooMany,
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
            check: settings
                .health_check
                .clone()
                .map(|check| (check, settings.protocol)),
            outlier: settings.outlier.clone(),
            next_change: None,
            panicking: false,
        }
    }

    /// The list is this now: who is new comes in, who is missing leaves. Of those with one label the
    /// first counts.
    pub(super) fn list(&mut self, endpoints: Vec<Endpoint>, now: Instant) -> Changes {
        let mut changes = Changes::default();
        let first = self.entries.is_empty();
        let mut listed = vec![false; self.entries.len()];
        for endpoint in endpoints {
            let number = self.numbers.get(&endpoint.label).copied();
            let Some(number) = number.or_else(|| self.admit(&endpoint, first)) else {
                continue;
            };
            let place = number as usize;
            if place >= listed.len() {
                listed.resize(place + 1, false);
            }
            let Some(listed) = listed.get_mut(place).filter(|listed| !**listed) else {
                continue;
            };
            *listed = true;
            let outlier = self.outlier.as_ref();
            if let Some(Some(entry)) = self.entries.get_mut(place) {
                if entry.visit == 0 || entry.left.is_some() {
                    changes.added += 1;
                    entry.come_back(outlier);
                } else if *entry.endpoint != endpoint {
                    changes.changed += 1;
                }
                entry.renew(endpoint);
            }
        }
        let entries = self.entries.iter_mut().zip(listed);
        for entry in entries.filter_map(|(entry, listed)| entry.as_mut().filter(|_| !listed)) {
            changes.removed += usize::from(entry.left.is_none());
            entry.leave(now);
        }
        changes
    }

    /// Takes over what an earlier roster knows of endpoints that are in both, where it was learned in the
    /// same way: nobody begins anew because another key of the upstream was changed.
    pub(super) fn inherit(&mut self, before: &Self) {
        let is_checked_alike = self.check == before.check;
        let is_watched_alike = self.outlier == before.outlier;
        for entry in self.entries.iter_mut().flatten() {
            let number = before.numbers.get(&entry.endpoint.label);
            let known = number.and_then(|number| before.entries.get(*number as usize)?.as_ref());
            let Some(known) = known.filter(|known| known.left.is_none()) else {
                // Among those that were there it is new.
                entry.seasoned &= before.numbers.is_empty();
                continue;
            };
            if is_checked_alike {
                entry.report.clone_from(&known.report);
            }
            if is_watched_alike {
                entry.watch.clone_from(&known.watch);
                entry.record.clone_from(&known.record);
                entry.ejected = known.ejected.as_ref().map(Ejection::unprobed);
            }
            entry.ready_since = known.ready_since;
            entry.seasoned = known.seasoned;
        }
    }

    /// Gives a new endpoint a number.
    fn admit(&mut self, endpoint: &Endpoint, seasoned: bool) -> Option<u32> {
        let place = self.entries.iter().position(Option::is_none);
        let place = place.unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        let number = u32::try_from(place).ok()?;
        self.numbers.insert(endpoint.label.clone(), number);
        *self.entries.get_mut(place)? = Some(Entry {
            endpoint: Arc::new(endpoint.clone()),
            in_use: Arc::new(()),
            visit: 0,
            report: None,
            watch: None,
            record: outlier::Record::default(),
            ejected: None,
            left: None,
            shown: false,
            ready_since: None,
            seasoned,
        });
        Some(number)
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

    /// An endpoint has failed too often: it sits out, unless too many do.
    ///
    /// Who fails its health check is out as well, so it counts; who has no weight never was in.
    pub(super) fn eject(
        &mut self,
        number: u32,
        reason: Reason,
        random: u64,
        now: Instant,
    ) -> Verdict {
        let Some(settings) = self.outlier.clone() else {
            return Verdict::Out;
        };
        let checked = self.check.is_some();
        let (mut endpoints, mut out) = (0, 0);
        for (other, entry) in (0_u32..).zip(&self.entries) {
            if let Some(entry) = entry.as_ref().filter(|entry| entry.serves()) {
                endpoints += 1;
                let is_out = entry.condition(checked) != Condition::Ready;
                out += usize::from(is_out && other != number);
            }
        }
        let entry = self.entry(number).filter(|entry| entry.serves());
        let Some(entry) = entry.filter(|entry| entry.ejected.is_none()) else {
            return Verdict::Out;
        };
        if !outlier::may_eject(out, endpoints, settings.max_ejected) {
            return Verdict::TooMany;
        }
        entry.ejected = Some(Ejection {
            until: entry.record.ejected(&settings, random, now),
            reason,
            probing: false,
        });
        Verdict::Ejected
    }

    /// Those whose time is over; each is handed out once, and then owed a [`Self::readmit`] or a
    /// [`Self::prolong`].
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

    /// An ejected endpoint can be reached: it comes back, on probation. False if nobody waits for that
    /// any more, since it has left meanwhile.
    pub(super) fn readmit(&mut self, number: u32) -> bool {
        let entry = self.entry(number);
        let Some(entry) = entry.filter(|entry| entry.is_probed()) else {
            return false;
        };
        entry.ejected = None;
        // Before anybody can see that it is back: no request of the new epoch is counted in the old.
        if let Some(watch) = &entry.watch {
            watch.readmit();
        }
        true
    }

    /// An ejected endpoint cannot be reached: it sits out longer. False as with [`Self::readmit`].
    pub(super) fn prolong(&mut self, number: u32, random: u64, now: Instant) -> bool {
        let settings = self.outlier.clone();
        let entry = self.entry(number).filter(|entry| entry.is_probed());
        let (Some(settings), Some(entry)) = (settings, entry) else {
            return false;
        };
        if let Some(ejection) = &mut entry.ejected {
            ejection.probing = false;
            ejection.until = entry.record.prolonged(&settings, random, now);
        }
        true
    }

    /// Who answers clearly worse than the others, the worst first; to be called once an interval.
    pub(super) fn compare(&mut self, now: Instant) -> Vec<(u32, Reason)> {
        let Some(settings) = self.outlier.clone() else {
            return Vec::new();
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
        outlier::by_success_rate(&settings, &rates)
    }

    /// True while an endpoint waits for its first check.
    pub(super) fn awaits_checks(&self) -> bool {
        let waits = |entry: &Entry| entry.left.is_none() && entry.report.is_none();
        self.check.is_some() && self.entries.iter().flatten().any(waits)
    }

    /// True if that is worth telling of; a start, when nobody has been checked yet, is no panic.
    pub(super) fn is_news(&mut self, panicking: bool) -> bool {
        let is_news = panicking != self.panicking && !self.awaits_checks();
        self.panicking ^= is_news;
        is_news
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
        let checked = self.check.is_some();
        for entry in self.entries.iter_mut().flatten() {
            let is_ready = entry.condition(checked) == Condition::Ready;
            if !is_ready {
                entry.ready_since = None;
                // Until its first check, nothing is known against it.
                entry.seasoned &= entry.is_unchecked();
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

impl Ejection {
    /// The same, as somebody knows it who has no probe under way.
    fn unprobed(&self) -> Self {
        Self {
            until: self.until,
            reason: self.reason,
            probing: false,
        }
    }
}

impl Entry {
    /// The list has it, perhaps with another weight or zone.
    fn renew(&mut self, endpoint: Endpoint) {
        if *self.endpoint != endpoint {
            self.endpoint = Arc::new(endpoint);
        }
    }

    /// It was not in the list before. Nothing that was known is true of what runs there now.
    fn come_back(&mut self, outlier: Option<&outlier::Settings>) {
        self.visit = self.visit.wrapping_add(1).max(1);
        self.left = None;
        self.report = None;
        self.watch = outlier.map(|of| Arc::new(outlier::Watch::new(of)));
        self.record = outlier::Record::default();
    }

    /// The list does not have it.
    fn leave(&mut self, now: Instant) {
        self.left.get_or_insert(now);
        // Whoever probes it need not tell.
        self.ejected = None;
    }

    /// True if it takes requests when nothing is wrong with it.
    fn serves(&self) -> bool {
        self.left.is_none() && self.endpoint.weight > 0
    }

    fn is_unchecked(&self) -> bool {
        self.report.is_none() && self.left.is_none() && self.ejected.is_none()
    }

    fn is_probed(&self) -> bool {
        self.ejected
            .as_ref()
            .is_some_and(|ejection| ejection.probing)
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
            in_use: Arc::clone(&self.in_use),
            visit: self.visit,
        })
    }

    /// True while a worker has connections or requests there.
    fn is_used(&self) -> bool {
        // The roster has it once, the current members once more.
        Arc::strong_count(&self.in_use) > 1 + usize::from(self.shown)
    }

    fn has_drained(&self) -> bool {
        self.left.is_some() && self.shown && !self.is_used()
    }

    fn has_rested(&self, now: Instant) -> bool {
        let since = |left: Instant| now.saturating_duration_since(left);
        self.left.is_some_and(|left| since(left) >= REST) && !self.shown && !self.is_used()
    }
}

#[cfg(test)]
mod tests;
