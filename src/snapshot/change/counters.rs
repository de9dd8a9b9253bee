//! Middlewares that count: whose counts go on, and whose begin anew.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::config::{Config, Route, Step};
use crate::snapshot::identity::{Identity, Owner};

/// What becomes of what a middleware counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterChange {
    /// Which one it is: a middleware's name, or its place; with its route where each has its own.
    pub id: Arc<str>,
    /// The kind of middleware.
    pub kind: &'static str,
    /// What it counts.
    pub counts: &'static str,
    /// The listeners and routes that it stands in, as `listeners/public` and `routes/orders`.
    pub places: Vec<String>,
    /// What becomes of it.
    pub fate: CounterFate,
}

/// What becomes of a middleware that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CounterFate {
    /// It goes on counting.
    Kept,
    /// It is made anew, and what it counted is forgotten.
    Reset(Because),
    /// It is new.
    Added,
    /// It is gone.
    Removed,
}

/// Why something that counts is made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Because {
    /// Its settings are others.
    Settings,
    /// Its settings are the same, but it stands at another place, or has another name.
    Place {
        /// What it was before.
        from: Arc<str>,
    },
}

/// A middleware that counts, with all places that share it.
struct Counter<'c> {
    identity: Identity,
    step: &'c Step,
    places: Vec<String>,
}

pub(super) fn changes(old: &Config, new: &Config) -> Vec<CounterChange> {
    let (old, new) = (counters(old), counters(new));
    let after: HashSet<&Identity> = new.iter().map(|of| &of.identity).collect();
    let mut gone: Vec<&Counter<'_>> = old
        .iter()
        .filter(|counter| !after.contains(&counter.identity))
        .collect();
    let before: HashSet<&Identity> = old.iter().map(|of| &of.identity).collect();
    let mut successor = |counter: &Counter<'_>, like: fn(&Counter<'_>, &Counter<'_>) -> bool| {
        let place = gone.iter().position(|gone| {
            gone.step.settings.kind() == counter.step.settings.kind() && like(gone, counter)
        });
        place.map(|place| Arc::clone(&gone.remove(place).identity.id))
    };
    let mut fates: Vec<Option<CounterFate>> = Vec::with_capacity(new.len());
    for counter in &new {
        let is_known = before.contains(&counter.identity);
        let fate = is_known.then_some(CounterFate::Kept).or_else(|| {
            successor(counter, |was, now| was.identity.id == now.identity.id)
                .map(|_| CounterFate::Reset(Because::Settings))
        });
        fates.push(fate);
    }
    // Only who still has its own id may be missed by another place.
    for (counter, fate) in new.iter().zip(&mut fates) {
        if fate.is_none() {
            let from = successor(counter, Counter::is_moved);
            *fate = from.map(|from| CounterFate::Reset(Because::Place { from }));
        }
    }
    let stay = new.iter().zip(fates);
    let stay = stay.map(|(counter, fate)| counter.change(fate.unwrap_or(CounterFate::Added)));
    let removed = gone
        .iter()
        .map(|counter| counter.change(CounterFate::Removed));
    stay.chain(removed).collect()
}

impl Counter<'_> {
    /// True if a chain that had the one has the other, with the same settings.
    fn is_moved(was: &Counter<'_>, now: &Counter<'_>) -> bool {
        was.identity.fingerprint == now.identity.fingerprint
            && was.places.iter().any(|place| now.places.contains(place))
    }

    fn change(&self, fate: CounterFate) -> CounterChange {
        CounterChange {
            // The one place of all listeners has no name.
            id: match self.identity.id.strip_suffix(" of ") {
                Some(id) => format!("{id} of the listeners").into(),
                None => Arc::clone(&self.identity.id),
            },
            kind: self.step.settings.kind(),
            counts: self.step.settings.counts().unwrap_or_default(),
            places: self.places.clone(),
            fate,
        }
    }
}

/// Every middleware of a configuration that counts, in the order of the file.
fn counters(config: &Config) -> Vec<Counter<'_>> {
    let mut found: Vec<Counter<'_>> = Vec::new();
    let mut known: HashMap<Identity, usize> = HashMap::new();
    for (owner, place, step) in steps(config) {
        if step.settings.counts().is_none() {
            continue;
        }
        let identity = Identity::middleware(owner, step);
        let at = *known.entry(identity.clone()).or_insert_with(|| {
            found.push(Counter {
                identity,
                step,
                places: Vec::new(),
            });
            found.len() - 1
        });
        if let Some(counter) = found.get_mut(at)
            && !counter.places.contains(&place)
        {
            counter.places.push(place);
        }
    }
    found
}

/// Every step, in whose chain it is, and where that stands.
fn steps(config: &Config) -> impl Iterator<Item = (Owner<'_>, String, &Step)> {
    let listeners = config.listeners.iter().flat_map(|listener| {
        let place = format!("listeners/{}", listener.name);
        let steps = listener.middlewares.iter();
        steps.map(move |step| (Owner::Listener, place.clone(), &**step))
    });
    let of_route = |route: &'_ Route| format!("routes/{}", route.name);
    let routes = config.routes.iter().flat_map(move |route| {
        let place = of_route(route);
        let backends = route.backends.iter();
        let backends = backends.flat_map(|backend| &backend.middlewares);
        let steps = route.middlewares.iter().chain(backends);
        steps.map(move |step| (Owner::Route(&route.name), place.clone(), &**step))
    });
    listeners.chain(routes)
}
