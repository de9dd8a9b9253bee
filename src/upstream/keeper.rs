//! What happens to an upstream without any request: discovery, health checks, ejections that end.
//!
//! One future for each upstream, on the control thread. It ends when the upstream is gone; what it
//! learns it tells the roster, which decides.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::{AbortHandle, Abortable, LocalBoxFuture};
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::base::clock;
use crate::upstream::discovery::{self, Found};
use crate::upstream::endpoint::Endpoint;
use crate::upstream::health::active;
use crate::upstream::members::{Member, Members};
use crate::upstream::roster::{Changes, Due};
use crate::upstream::{Settings, Upstream};

/// How often it looks for what is due.
const LOOK: Duration = Duration::from_millis(100);

/// Looks after an upstream for as long as it is there.
pub fn keep(upstream: &Arc<Upstream>) -> impl Future<Output = ()> + 'static {
    let settings = upstream.settings().clone();
    let weak = Arc::downgrade(upstream);
    async move {
        // The first two never end by themselves.
        tokio::select! {
            _ = discover(&settings, &weak) => {}
            _ = check(&settings, &weak) => {}
            () = look(&settings, &weak) => {}
        }
    }
}

/// Follows a source of endpoints.
async fn discover(settings: &Settings, upstream: &Weak<Upstream>) -> Infallible {
    let Some(discovery) = &settings.discovery else {
        return pending().await;
    };
    discovery::follow(discovery, |found| {
        if let Some(upstream) = upstream.upgrade() {
            match found {
                Ok(found) => upstream.found(found),
                Err(why) => upstream.not_found(&why),
            }
        }
    })
    .await
}

impl Upstream {
    fn found(&self, found: Vec<Found>) {
        let endpoints = found.into_iter().map(|found| {
            let mut endpoint = Endpoint::new(found.address, found.weight, found.zone);
            if let Some(host) = found.host {
                endpoint.be_called(&host);
            }
            endpoint
        });
        let endpoints: Vec<_> = endpoints.collect();
        let (upstream, count) = (self.name(), endpoints.len());
        let now = clock::now();
        let changes = self.change(now, |roster| roster.list(endpoints, now));
        let Changes {
            added,
            removed,
            changed,
        } = changes;
        if changes == Changes::default() {
            tracing::debug!(upstream, endpoints = count, "discovered nothing new");
        } else {
            tracing::info!(
                upstream,
                endpoints = count,
                added,
                removed,
                changed,
                "discovered"
            );
        }
        self.discovered.send_replace(true);
    }

    fn not_found(&self, why: &str) {
        let kept = self.members().present().count();
        tracing::warn!(
            upstream = self.name(),
            kept,
            "discovery failed, the endpoints stay as they were: {why}"
        );
        self.discovered.send_replace(true);
    }

    fn report(&self, number: u32, endpoint: &Endpoint, report: active::Report) {
        let name = self.name();
        let label = &*endpoint.label;
        if report.healthy {
            tracing::info!(upstream = name, endpoint = label, "healthy");
        } else {
            tracing::warn!(
                upstream = name,
                endpoint = label,
                "unhealthy: {}",
                report.detail
            );
        }
        self.change(clock::now(), |roster| roster.checked(number, report));
    }
}

/// Checks every endpoint, whatever becomes of the list.
async fn check(settings: &Settings, upstream: &Weak<Upstream>) -> Infallible {
    let Some(health_check) = &settings.health_check else {
        return pending().await;
    };
    let mut checks = FuturesUnordered::new();
    let mut running: HashMap<u32, (Member, AbortHandle)> = HashMap::new();
    let mut changed = match upstream.upgrade() {
        Some(upstream) => upstream.changed.subscribe(),
        None => return pending().await,
    };
    loop {
        if let Some(members) = upstream.upgrade().map(|upstream| upstream.members()) {
            running.retain(|_, (member, check)| {
                let stays = is_there(&members, member);
                if !stays {
                    check.abort();
                }
                stays
            });
            for member in members.present() {
                if running.contains_key(&member.number) {
                    continue;
                }
                let (number, endpoint) = (member.number, Arc::clone(&member.endpoint));
                let told = Weak::clone(upstream);
                let its = Arc::clone(&endpoint);
                let check = async move {
                    let report = |report| {
                        if let Some(upstream) = told.upgrade() {
                            upstream.report(number, &its, report);
                        }
                    };
                    active::watch(health_check, settings.protocol, Arc::clone(&its), report).await
                };
                let (abort, registration) = AbortHandle::new_pair();
                checks.push(Abortable::new(check, registration));
                running.insert(number, (member.clone(), abort));
            }
        }
        tokio::select! {
            // Its end is an abort; an empty set has none.
            _ = checks.next(), if !checks.is_empty() => {}
            result = changed.changed() => if result.is_err() {
                return pending().await;
            }
        }
    }
}

/// True if that endpoint is still there, or there again, but has not been away in between.
fn is_there(members: &Members, known: &Member) -> bool {
    let member = members.get(known.number);
    member.is_some_and(|member| {
        !member.has_left()
            && member.visit == known.visit
            && member.endpoint.address == known.endpoint.address
            && member.endpoint.host == known.endpoint.host
    })
}

/// Does what is due, until the upstream is gone.
async fn look(settings: &Settings, upstream: &Weak<Upstream>) {
    let mut probes: FuturesUnordered<LocalBoxFuture<'_, (Due, Result<(), String>)>> =
        FuturesUnordered::new();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let every = settings.outlier.as_ref().map(|outlier| outlier.interval.0);
    let mut compared = clock::now();
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            Some((due, found)) = probes.next() => {
                let Some(upstream) = upstream.upgrade() else { return };
                upstream.probed(&due, &found);
                continue;
            }
        }
        let Some(upstream) = upstream.upgrade() else {
            return;
        };
        let now = clock::now();
        if every.is_some_and(|every| now.saturating_duration_since(compared) >= every) {
            compared = now;
            for (number, reason) in upstream.change(now, |roster| roster.compare(now)) {
                upstream.eject(number, reason, fastrand::u64(..), now);
            }
        }
        for due in upstream.due(now) {
            probes.push(Box::pin(async move {
                let found = probe(settings, &due.endpoint).await;
                (due, found)
            }));
        }
    }
}

/// Whether an ejected endpoint can be reached: by its health check, or a connection where it has none.
async fn probe(settings: &Settings, endpoint: &Endpoint) -> Result<(), String> {
    match &settings.health_check {
        Some(check) => active::probe(check, settings.protocol, endpoint).await,
        None => active::reachable(endpoint, settings.timeouts.connect.0).await,
    }
}

impl Upstream {
    /// What is due now; the list is made anew where the time alone has changed it.
    fn due(&self, now: Instant) -> Vec<Due> {
        if !self.roster().is_due(now) {
            return Vec::new();
        }
        self.change(now, |roster| roster.due(now))
    }

    fn probed(&self, due: &Due, found: &Result<(), String>) {
        let now = clock::now();
        let told = self.change(now, |roster| match found {
            Ok(()) => roster.readmit(due.number),
            Err(_) => roster.prolong(due.number, fastrand::u64(..), now),
        });
        let (upstream, endpoint) = (self.name(), &*due.endpoint.label);
        match found {
            _ if !told => {}
            Ok(()) => tracing::info!(upstream, endpoint, "back on probation"),
            Err(why) => tracing::info!(upstream, endpoint, "stays ejected: {why}"),
        }
    }
}
