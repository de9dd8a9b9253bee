//! Upstreams: named groups of endpoints, and how requests get to them.
//!
//! An [`Upstream`] is shared by all workers and outlives a reload that does not touch its section.
//! Each worker has a [`Lane`] to it, with connections and balancer state of its own, so that nothing
//! on a request's way takes a lock or touches what another worker writes. Routes are not known here.

pub mod balance;
mod client;
mod connect;
mod endpoint;
mod failure;
pub mod health;
mod idle_limit;
mod lane;
pub mod limits;
mod members;
mod pool;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use client::OnInformational;
pub use endpoint::{Endpoint, EndpointSettings, Target};
pub use failure::{Cause, Failure};
pub use lane::{Counts, Lane, SendOptions, Sent};
pub use members::Members;
pub use settings::{Balance, PoolSettings, Protocol, Settings, Timeouts};

/// A named group of endpoints.
#[derive(Debug)]
pub struct Upstream {
    name: Box<str>,
    settings: Settings,
    members: Arc<Members>,
    /// Set once an endpoint was seen to send an informational response.
    informs: Arc<AtomicBool>,
}

impl Upstream {
    /// Builds an upstream; resolves host names, and so may block: not for a worker's thread.
    ///
    /// # Errors
    /// A sentence for the operator, when a host name cannot be resolved.
    pub fn build(name: &str, settings: &Settings) -> Result<Arc<Self>, String> {
        let mut endpoints = Vec::with_capacity(settings.endpoints.len());
        for endpoint in &settings.endpoints {
            let found = endpoint
                .resolve()
                .map_err(|error| format!("upstream `{name}`: {error}"))?;
            endpoints.extend(found);
        }
        Ok(Arc::new(Self {
            name: name.into(),
            settings: settings.clone(),
            members: Arc::new(Members::new(endpoints)),
            informs: Arc::default(),
        }))
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was built from; equal settings mean that it can be kept on a reload.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its endpoints.
    pub fn members(&self) -> &Arc<Members> {
        &self.members
    }
}
