//! What it means to put a configuration in force over another one, decided before anything is done.
//!
//! A reload logs a [`Change`], and `retort diff` shows one: both are functions of two checked
//! configurations. What is taken over follows from [`Identity`], which the builder of snapshots asks
//! as well; which sockets stay, from [`listeners::taken_over`], which the server asks; and what waits
//! for the next start, from [`Fixed`], which the control thread asks.

mod counters;
pub mod listeners;
mod moves;
mod settings;
#[cfg(test)]
mod tests;
mod upstreams;

use std::collections::HashMap;
use std::sync::Arc;

pub use counters::{Because, CounterChange, CounterFate};
pub use listeners::{Clash, ListenerChange, Socket};
pub use moves::{Move, Moves, Taker};
pub use settings::Fixed;
pub use upstreams::{Memory, UpstreamChange, UpstreamFate};

use crate::config::Config;
#[cfg(doc)]
use crate::snapshot::Identity;

/// What becomes of everything when one configuration follows another.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Every listener of both: those of the new one in its order, then those that go.
    pub listeners: Vec<ListenerChange>,
    /// Every route of both, in the same order.
    pub routes: Vec<(Arc<str>, Fate)>,
    /// Every upstream of both, in the same order.
    pub upstreams: Vec<UpstreamChange>,
    /// Every handler with a name, in the same order.
    pub handlers: Vec<(Arc<str>, Fate)>,
    /// Every middleware that counts, in the same order.
    pub counters: Vec<CounterChange>,
    /// Keys that take effect only at the next start.
    pub at_next_start: Vec<&'static str>,
    /// Addresses that cannot be had: with any of them the reload is refused.
    pub clashes: Vec<Clash>,
}

/// What becomes of something that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Its content is another.
    Changed,
    /// It is what it was.
    Same,
}

impl Change {
    /// What putting `new` in force does to a gateway that runs under `old`, and was started with it.
    pub fn between(old: &Config, new: &Config) -> Self {
        let routes = |config: &Config| -> Vec<_> {
            let routes = config.routes.iter();
            routes
                .map(|route| (Arc::clone(&route.name), route.fingerprint))
                .collect()
        };
        let handlers = |config: &Config| -> Vec<_> {
            let handlers = config.handlers.iter();
            handlers
                .map(|(name, handler)| (Arc::clone(name), handler.fingerprint))
                .collect()
        };
        Self {
            listeners: listeners::changes(old, new),
            routes: fates(&routes(old), &routes(new)),
            upstreams: upstreams::changes(old, new),
            handlers: fates(&handlers(old), &handlers(new)),
            counters: counters::changes(old, new),
            at_next_start: Fixed::of(old).differing(&Fixed::of(new)),
            clashes: listeners::clashes(old, new),
        }
    }

    /// In one line, for the log.
    pub fn summary(&self) -> String {
        let listeners = self.listeners.iter().map(|listener| listener.fate);
        let routes = self.routes.iter().map(|(_, fate)| *fate);
        let upstreams = self.upstreams.iter().map(|upstream| upstream.fate.plain());
        let parts = [
            counted("listeners", listeners),
            counted("routes", routes),
            counted("upstreams", upstreams),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() {
            "nothing but settings around them".to_owned()
        } else {
            parts.join("; ")
        }
    }
}

fn counted(word: &str, fates: impl Iterator<Item = Fate>) -> Option<String> {
    let (mut added, mut changed, mut removed) = (0, 0, 0);
    for fate in fates {
        match fate {
            Fate::Added => added += 1,
            Fate::Changed => changed += 1,
            Fate::Removed => removed += 1,
            Fate::Same => {}
        }
    }
    (added + changed + removed > 0)
        .then(|| format!("{word}: {added} added, {changed} changed, {removed} removed"))
}

/// The fates of names with something that is equal for equal content.
fn fates<T: PartialEq>(old: &[(Arc<str>, T)], new: &[(Arc<str>, T)]) -> Vec<(Arc<str>, Fate)> {
    let before: HashMap<&str, &T> = old.iter().map(|(name, of)| (&**name, of)).collect();
    let after: HashMap<&str, &T> = new.iter().map(|(name, of)| (&**name, of)).collect();
    let stay = new.iter().map(|(name, of)| {
        let fate = match before.get(&**name) {
            None => Fate::Added,
            Some(before) if *before == of => Fate::Same,
            Some(_) => Fate::Changed,
        };
        (Arc::clone(name), fate)
    });
    let gone = old.iter().filter(|(name, _)| !after.contains_key(&**name));
    stay.chain(gone.map(|(name, _)| (Arc::clone(name), Fate::Removed)))
        .collect()
}
