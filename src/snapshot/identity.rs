//! What makes two things of two configurations one and the same, so that a reload keeps what runs.
//!
//! The [`Builder`](super::Builder) takes over by it, and [`Change`](super::Change) foretells by it:
//! one function for each kind of thing, so that the two cannot disagree.

use std::sync::Arc;

use crate::config;

/// Equal for what is taken over from one configuration to the next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Its name, or its place where it has none.
    pub id: Arc<str>,
    /// Equal for equal settings, secrets included.
    pub fingerprint: u64,
    /// The gateway's own zone, which an upstream is built for.
    zone: Option<Arc<str>>,
}

impl Identity {
    /// An upstream of a gateway that runs in `zone`.
    pub fn upstream(name: &Arc<str>, upstream: &config::Upstream, zone: Option<&str>) -> Self {
        Self {
            id: Arc::clone(name),
            fingerprint: upstream.fingerprint,
            zone: zone.map(Into::into),
        }
    }

    /// A handler.
    pub fn handler(handler: &config::Handler) -> Self {
        Self {
            id: Arc::clone(&handler.id),
            fingerprint: handler.fingerprint,
            zone: None,
        }
    }

    /// A middleware in the chain of an owner. Places that name the same one share it, unless its kind
    /// counts by place.
    pub fn middleware(owner: Owner<'_>, step: &config::Step) -> Self {
        let id = match owner {
            _ if !step.settings.is_per_place() => Arc::clone(&step.id),
            Owner::Listener => format!("{} of ", step.id).into(),
            Owner::Route(name) => format!("{} of {name}", step.id).into(),
        };
        Self {
            id,
            fingerprint: step.fingerprint,
            zone: None,
        }
    }
}

/// In whose chain a middleware stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner<'a> {
    /// A listener's: all of them are one place.
    Listener,
    /// That of the route of that name, or of one of its backends.
    Route(&'a str),
}
