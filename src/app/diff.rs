//! What a reload from one configuration to another would do, without a gateway that does it.
//!
//! Nothing is opened, resolved or built: natives of a Rust program need not be known here.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::app::{Checked, Source, checked};
use crate::config::{Config, Difference, KeyChange, Loaded, Pair, Place, Step, Target};
use crate::snapshot::change::{Change, CounterFate, Fate, Fixed, Moves};

/// All that differs between two configurations, and what applying the second does.
#[derive(Debug)]
pub struct Diff {
    /// What becomes of everything: what a reload would say of itself.
    pub change: Change,
    /// Requests that go to another route.
    pub moves: Moves,
    /// Items that differ, by section: listeners, routes, upstreams, middlewares, handlers.
    pub items: Vec<ItemChange>,
    /// Keys of `runtime`, `admin` and `telemetry` that differ.
    pub settings: Vec<SettingChange>,
}

/// An item that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemChange {
    /// Its section: `routes`.
    pub section: &'static str,
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub fate: Fate,
    /// What of its own section differs.
    pub difference: Difference,
    /// Middlewares and handlers that it names and that differ.
    pub through: Vec<String>,
}

/// A setting around the items that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingChange {
    /// The key, from its section on: `runtime.drain`.
    pub change: KeyChange,
    /// When it takes effect.
    pub takes_effect: TakesEffect,
}

/// When a setting takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakesEffect {
    /// With the reload.
    AtOnce,
    /// When the process starts the next time.
    AtNextStart,
    /// Never: it only says what held already.
    Never,
}

/// Configurations of which at least one cannot be used.
#[derive(Debug)]
pub struct NotComparable {
    /// The old one, if it has errors.
    pub old: Option<Checked>,
    /// The new one, if it has errors.
    pub new: Option<Checked>,
}

/// What putting `new` in force would do to a gateway that runs `old`.
///
/// # Errors
/// When one of them has errors: then nothing would be done.
pub fn diff(old: &Source, new: &Source) -> Result<Diff, Box<NotComparable>> {
    let (old, new) = (old.load(), new.load());
    let (Some(was), Some(now)) = (&old.config, &new.config) else {
        let broken = |loaded: Loaded| loaded.config.is_none().then(|| checked(loaded));
        return Err(Box::new(NotComparable {
            old: broken(old),
            new: broken(new),
        }));
    };
    let change = Change::between(was, now);
    let pair = Pair::new(&old, &new);
    let mut items = own_items(&change, &old, &new, &pair);
    add_named(&mut items, was, now);
    Ok(Diff {
        moves: Moves::between(was, now),
        settings: settings(&change, &pair),
        items,
        change,
    })
}

impl Diff {
    /// True if applying the new configuration changes nothing at all.
    pub fn is_empty(&self) -> bool {
        let mut counters = self.change.counters.iter();
        self.items.is_empty()
            && self.settings.is_empty()
            && self.moves == Moves::default()
            && counters.all(|counter| counter.fate == CounterFate::Kept)
    }

    /// The items of a section that differ.
    pub fn items_of(&self, section: &str) -> impl Iterator<Item = &ItemChange> {
        self.items
            .iter()
            .filter(move |item| item.section == section)
    }
}

fn own_items(change: &Change, old: &Loaded, new: &Loaded, pair: &Pair<'_>) -> Vec<ItemChange> {
    let mut items = Vec::new();
    let mut add = |section: &'static str, name: &str, fate: Fate| {
        let difference = pair.difference(Place::Item(section, name));
        if fate != Fate::Same || difference != Difference::None {
            items.push(ItemChange {
                section,
                name: name.to_owned(),
                fate: match fate {
                    // What is written otherwise is no other thing.
                    Fate::Same => Fate::Changed,
                    fate => fate,
                },
                difference,
                through: Vec::new(),
            });
        }
    };
    for listener in &change.listeners {
        add("listeners", &listener.name, listener.fate);
    }
    for (name, fate) in &change.routes {
        add("routes", name, *fate);
    }
    for upstream in &change.upstreams {
        add("upstreams", &upstream.name, upstream.fate.plain());
    }
    let was: BTreeSet<&str> = old.written.names("middlewares").into_iter().collect();
    let now: BTreeSet<&str> = new.written.names("middlewares").into_iter().collect();
    for name in was.union(&now) {
        let fate = match (was.contains(name), now.contains(name)) {
            (false, _) => Fate::Added,
            (_, false) => Fate::Removed,
            _ => Fate::Same,
        };
        add("middlewares", name, fate);
    }
    for (name, fate) in &change.handlers {
        add("handlers", name, *fate);
    }
    items
}

/// Says of routes and listeners which middlewares and handlers they name that differ; adds listeners
/// that differ in nothing else.
fn add_named(items: &mut Vec<ItemChange>, old: &Config, new: &Config) {
    let changed = |section: &str| -> BTreeSet<String> {
        let items = items.iter();
        let items = items.filter(|item| item.section == section && item.fate == Fate::Changed);
        items.map(|item| item.name.clone()).collect()
    };
    let (middlewares, handlers) = (changed("middlewares"), changed("handlers"));
    let mut through = Vec::new();
    for config in [old, new] {
        for listener in &config.listeners {
            let steps: Vec<_> = listener.middlewares.iter().collect();
            let names = named(&steps, &middlewares);
            through.push(("listeners", listener.name.to_string(), names));
        }
        for route in &config.routes {
            let backends = route.backends.iter();
            let own = backends.clone().flat_map(|backend| &backend.middlewares);
            let steps: Vec<_> = route.middlewares.iter().chain(own).collect();
            let mut names = named(&steps, &middlewares);
            names.extend(backends.filter_map(|backend| match &backend.target {
                Target::Handler(handler) if handlers.contains(&*handler.id) => {
                    Some(handler.id.to_string())
                }
                _ => None,
            }));
            through.push(("routes", route.name.to_string(), names));
        }
    }
    let key = |item: &ItemChange| (item.section, item.name.clone());
    let places = items.iter().enumerate();
    let mut places: HashMap<_, usize> = places.map(|(at, item)| (key(item), at)).collect();
    for (section, name, names) in through.into_iter().filter(|(.., names)| !names.is_empty()) {
        let at = *places.entry((section, name.clone())).or_insert_with(|| {
            items.push(ItemChange {
                section,
                name,
                fate: Fate::Changed,
                difference: Difference::None,
                through: Vec::new(),
            });
            items.len() - 1
        });
        if let Some(item) = items.get_mut(at).filter(|item| item.fate == Fate::Changed) {
            item.through.extend(names);
        }
    }
    for item in items {
        item.through.sort_unstable();
        item.through.dedup();
    }
}

/// The names among steps: `limit-orders`, and `edge` for `edge/1`.
fn named(steps: &[&Arc<Step>], known: &BTreeSet<String>) -> Vec<String> {
    let names = steps.iter().filter_map(|step| step.id.split('/').next());
    let names = names.filter(|name| known.contains(*name));
    names.map(ToOwned::to_owned).collect()
}

fn settings(change: &Change, pair: &Pair<'_>) -> Vec<SettingChange> {
    let mut settings = Vec::new();
    for section in ["runtime", "admin", "telemetry"] {
        let Difference::Keys(keys) = pair.difference(Place::Section(section)) else {
            continue;
        };
        settings.extend(keys.into_iter().map(|mut key| {
            key.key = format!("{section}.{}", key.key);
            let takes_effect = if change.at_next_start.contains(&key.key.as_str()) {
                TakesEffect::AtNextStart
            } else if Fixed::KEYS.contains(&key.key.as_str()) {
                TakesEffect::Never
            } else {
                TakesEffect::AtOnce
            };
            SettingChange {
                change: key,
                takes_effect,
            }
        }));
    }
    settings
}
