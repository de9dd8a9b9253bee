//! Upstreams: named groups of endpoints, and how requests get to them.
//!
//! An [`Upstream`] is shared by all workers and outlives a reload that does not touch its section.
//! Each worker has a [`Lane`] to it, with connections and balancer state of its own, so that nothing
//! on a request's way takes a lock or touches what another worker writes. Routes are not known here.

pub mod affinity;
pub mod balance;
mod budget;
mod client;
mod connect;
pub mod discovery;
pub mod eligible;
mod endpoint;
mod failure;
pub mod health;
mod idle_limit;
mod keeper;
mod lane;
pub mod limits;
mod members;
mod pool;
mod quantile;
mod rehearsal;
mod roster;
mod sending;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;

pub use balance::Balance;
pub use budget::{Deposit, RetryBudget};
pub use client::OnInformational;
pub use connect::Dial;
pub use eligible::Condition;
pub use endpoint::{Endpoint, EndpointSettings, Target};
pub use failure::{Cause, Failure};
pub use keeper::keep;
pub use lane::{Counts, Lane, SendOptions, Sent};
pub use members::{Member, Members};
pub use quantile::Latencies;
pub use settings::{PoolSettings, Protocol, Settings, Timeouts};

use crate::base::clock;
use crate::telemetry::metrics::{EndpointState, UpstreamSeries};
use crate::upstream::health::outlier::Reason;
use crate::upstream::limits::Limits;
use crate::upstream::roster::{Roster, Verdict};

/// A named group of endpoints.
#[derive(Debug)]
pub struct Upstream {
    name: Box<str>,
    settings: Settings,
    /// The zone that this process runs in.
    zone: Option<Box<str>>,
    series: Arc<UpstreamSeries>,
    roster: Mutex<Roster>,
    members: ArcSwap<Members>,
    /// Counts up with every change of the members, for lanes that only want to know whether.
    version: AtomicU64,
    /// The same for the keeper, which waits for it.
    changed: watch::Sender<()>,
    /// True once discovery has answered, or failed, for the first time, or its list was taken over.
    discovered: watch::Sender<bool>,
    limits: Limits,
    retired: AtomicBool,
    /// Set once an endpoint was seen to send an informational response.
    informs: Arc<AtomicBool>,
}

impl Upstream {
    /// Builds an upstream; resolves host names, and so may block: not for a worker's thread.
    ///
    /// `zone` is where this process runs, as far as it is known. What the upstream `before` this one
    /// has found by the same discovery is taken over, and what it knows of endpoints by the same checks
    /// and the same rules for outliers: a reload never begins with nothing.
    ///
    /// # Errors
    /// A sentence for the operator, when a host name cannot be resolved.
    pub fn build(
        name: &str,
        settings: &Settings,
        zone: Option<&str>,
        series: Arc<UpstreamSeries>,
        before: Option<&Self>,
    ) -> Result<Arc<Self>, String> {
        let mut endpoints = Vec::new();
        for endpoint in settings.endpoints.iter().flatten() {
            let found = endpoint
                .resolve()
                .map_err(|error| format!("upstream `{name}`: {error}"))?;
            endpoints.extend(found);
        }
        if let Some(before) = before.filter(|_| settings.discovery.is_some())
            && before.settings.discovery == settings.discovery
        {
            let members = before.members();
            let there = members.present();
            endpoints.extend(there.map(|member| Endpoint::clone(&member.endpoint)));
        }
        let is_known = settings.discovery.is_none() || !endpoints.is_empty();
        let now = clock::now();
        let mut roster = Roster::new(settings, zone);
        roster.list(endpoint::merged(endpoints), now);
        if let Some(before) = before {
            roster.inherit(&before.roster());
        }
        let members = roster.members(now);
        let settings = settings.clone();
        Ok(Self::assemble(
            name,
            settings,
            zone,
            series,
            (roster, members),
            is_known,
        ))
    }

    /// An upstream of what was found out about it.
    fn assemble(
        name: &str,
        settings: Settings,
        zone: Option<&str>,
        series: Arc<UpstreamSeries>,
        (roster, members): (Roster, Members),
        is_known: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            zone: zone.map(Into::into),
            series,
            roster: Mutex::new(roster),
            members: ArcSwap::from_pointee(members),
            version: AtomicU64::new(0),
            changed: watch::Sender::new(()),
            discovered: watch::Sender::new(is_known),
            limits: Limits::new(&settings.limits),
            retired: AtomicBool::new(false),
            informs: Arc::default(),
            settings,
        })
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was built from; equal settings mean that it can be kept on a reload.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The zone that it was built for.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// What is counted of it.
    pub fn series(&self) -> &Arc<UpstreamSeries> {
        &self.series
    }

    /// Its endpoints as of now.
    pub fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// Ready once its endpoints are known and checked, or at the latest after `limit`.
    pub async fn settled(&self, limit: Duration) {
        let known = async {
            // The senders live as long as `self`.
            let mut discovered = self.discovered.subscribe();
            let _open = discovered.wait_for(|discovered| *discovered).await;
            let mut changed = self.changed.subscribe();
            while self.roster().awaits_checks() && changed.changed().await.is_ok() {}
        };
        // Whatever is not known by then is found out while it serves.
        let _in_time = tokio::time::timeout(limit, known).await;
    }

    /// It is not in force any more: metrics of its name are another's.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// How many requests wait for room under its limits.
    pub fn queued(&self) -> u32 {
        self.limits.queue.waiting()
    }

    /// Tells the metrics how many endpoints are in which state.
    pub fn count_endpoints(&self) {
        if self.retired.load(Ordering::Relaxed) {
            return;
        }
        let members = self.members.load();
        for (state, condition) in [
            (EndpointState::Ready, Condition::Ready),
            (EndpointState::Unhealthy, Condition::Unhealthy),
            (EndpointState::Ejected, Condition::Ejected),
            (EndpointState::Draining, Condition::Draining),
        ] {
            self.series.set_endpoints(state, members.count(condition));
        }
    }

    /// Which members these are; a change makes it another.
    fn version(&self) -> u64 {
        // The members are read after it: who sees the number sees at least its members.
        self.version.load(Ordering::Acquire)
    }

    /// True if endpoints are compared by their success rates.
    fn compares(&self) -> bool {
        let outlier = self.settings.outlier.as_ref();
        outlier.is_some_and(|outlier| outlier.success_rate.is_some())
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        // Nothing in it is left half done by a panic: each change is one assignment after the other.
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of the endpoints, and what follows from it.
    fn change<T>(&self, now: Instant, change: impl FnOnce(&mut Roster) -> T) -> T {
        let mut roster = self.roster();
        let told = change(&mut roster);
        let members = roster.members(now);
        if !members.is_like(&self.members.load()) {
            let panicking = members.is_panicking();
            self.members.store(Arc::new(members));
            self.version.fetch_add(1, Ordering::Release);
            self.count_endpoints();
            if roster.is_news(panicking) {
                self.say_panic(panicking);
            }
        }
        drop(roster);
        self.changed.send_replace(());
        told
    }

    fn say_panic(&self, panicking: bool) {
        let upstream = self.name();
        if panicking {
            tracing::warn!(
                upstream,
                "so few endpoints are ready that all of them take requests (panic_threshold)"
            );
        } else {
            tracing::info!(upstream, "enough endpoints are ready again");
        }
    }

    /// An endpoint has failed too often: it sits out for a while, unless too many do.
    #[cold]
    fn eject(&self, number: u32, reason: Reason, random: u64, now: Instant) {
        let why = reason.to_string();
        let verdict = self.change(now, |roster| roster.eject(number, reason, random, now));
        let members = self.members();
        let endpoint = members
            .get(number)
            .map_or("", |member| &member.endpoint.label);
        let upstream = self.name();
        match verdict {
            Verdict::Ejected => tracing::warn!(upstream, endpoint, "ejected after {why}"),
            Verdict::TooMany => tracing::debug!(
                upstream,
                endpoint,
                "not ejected after {why}: as many are out as may be (outlier.max_ejected)"
            ),
            Verdict::Out => {}
        }
    }
}
