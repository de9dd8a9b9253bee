//! What becomes of upstreams: their connections, and what is known of their endpoints.

use std::sync::Arc;

use super::{Fate, fates};
use crate::config::{self, Config};
use crate::snapshot::identity::Identity;
use crate::upstream::Settings;

/// What becomes of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamChange {
    /// Its name.
    pub name: Arc<str>,
    /// What becomes of it.
    pub fate: UpstreamFate,
}

/// What becomes of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamFate {
    /// It stays, with its connections and all that was learned.
    Kept,
    /// It is new.
    Added,
    /// It is gone: idle connections close, busy ones when their request has ended.
    Removed,
    /// It is made anew: connections as with [`Self::Removed`]; latencies, counts under limits and
    /// budgets of retries begin anew.
    Rebuilt {
        /// Its own section is another; otherwise it is only that the gateway's zone is.
        settings: bool,
        /// The zone of the gateway is another.
        zone: bool,
        /// What discovery has found.
        found: Memory,
        /// What health checks have found, of endpoints that stay.
        health: Memory,
        /// Who is ejected, of endpoints that stay.
        ejections: Memory,
    },
}

/// What becomes of something that was learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// There was nothing to learn.
    None,
    /// It is taken over.
    Kept,
    /// It is learned anew.
    Forgotten,
}

impl UpstreamFate {
    /// Without what was learned.
    pub fn plain(self) -> Fate {
        match self {
            Self::Kept => Fate::Same,
            Self::Added => Fate::Added,
            Self::Removed => Fate::Removed,
            Self::Rebuilt { .. } => Fate::Changed,
        }
    }
}

pub(super) fn changes(old: &Config, new: &Config) -> Vec<UpstreamChange> {
    let identities = |config: &Config| -> Vec<(Arc<str>, Identity)> {
        let zone = config.runtime.zone.as_deref();
        let upstreams = config.upstreams.iter();
        upstreams
            .map(|(name, upstream)| (Arc::clone(name), Identity::upstream(name, upstream, zone)))
            .collect()
    };
    let zone = old.runtime.zone != new.runtime.zone;
    let change = |(name, fate): (Arc<str>, Fate)| {
        let both = (old.upstreams.get(&name), new.upstreams.get(&name));
        let fate = match (fate, both) {
            (Fate::Added, _) => UpstreamFate::Added,
            (Fate::Removed, _) => UpstreamFate::Removed,
            (Fate::Changed, (Some(was), Some(now))) => rebuilt(was, now, zone),
            (Fate::Same | Fate::Changed, _) => UpstreamFate::Kept,
        };
        UpstreamChange { name, fate }
    };
    let fates = fates(&identities(old), &identities(new));
    fates.into_iter().map(change).collect()
}

/// The conditions under which an upstream that is built inherits from the one before it.
fn rebuilt(was: &config::Upstream, now: &config::Upstream, zone: bool) -> UpstreamFate {
    let settings = was.fingerprint != now.fingerprint;
    let (was, now) = (&was.settings, &now.settings);
    let checked = |of: &Settings| Some((of.health_check.clone()?, of.protocol));
    UpstreamFate::Rebuilt {
        settings,
        zone,
        found: memory(was.discovery.as_ref(), now.discovery.as_ref()),
        health: memory(checked(was).as_ref(), checked(now).as_ref()),
        ejections: memory(was.outlier.as_ref(), now.outlier.as_ref()),
    }
}

fn memory<T: PartialEq>(was: Option<&T>, now: Option<&T>) -> Memory {
    match (was, now) {
        (None, _) => Memory::None,
        (Some(was), Some(now)) if was == now => Memory::Kept,
        (Some(_), _) => Memory::Forgotten,
    }
}
