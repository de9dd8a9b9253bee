//! What is known of the running gateway, for whoever asks at the admin or telemetry port.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use crate::admin::overview::{self, Check, LastReload, Overview, Status, Upstreams};
use crate::admin::v1::ExplainRequest;
use crate::explain;
use crate::explain::asked::{Asked, client_of};
use crate::explain::world::World;
use crate::server::{Common, Loads};
use crate::telemetry::metrics::Reload;
use crate::telemetry::recent::{Filter, Record};
use crate::upstream::{Condition, Member, Members, Upstream};

/// The one place where the doors for operators look.
#[derive(Debug)]
pub(crate) struct Board {
    source: String,
    started: Instant,
    started_at: SystemTime,
    common: Common,
    loads: Loads,
    last_reload: Mutex<Option<LastReload>>,
}

impl Board {
    pub(crate) fn new(source: String, common: Common, loads: Loads) -> Arc<Self> {
        Arc::new(Self {
            source,
            started: Instant::now(),
            started_at: SystemTime::now(),
            common,
            loads,
            last_reload: Mutex::new(None),
        })
    }

    /// Notes what became of a configuration.
    pub(crate) fn reloaded(&self, outcome: Reload, message: impl Into<String>) {
        let note = LastReload {
            outcome,
            message: message.into(),
            at: SystemTime::now(),
        };
        let mut last = self
            .last_reload
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some(note);
    }

    fn last_reload(&self) -> Option<LastReload> {
        let last = self
            .last_reload
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }
}

impl Overview for Board {
    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION"),
            revision: self.common.published.load().revision,
            source: self.source.clone(),
            state: self.common.lifecycle.state(),
            started_at: self.started_at,
            uptime: self.started.elapsed(),
            workers: self.loads.workers(),
            connections: self.loads.connections() as u64,
            last_reload: self.last_reload(),
        }
    }

    fn upstreams(&self) -> Upstreams {
        let snapshot = self.common.published.load();
        let upstreams = snapshot.upstreams.iter();
        Upstreams {
            revision: snapshot.revision,
            upstreams: upstreams.map(|found| upstream(&found.upstream)).collect(),
        }
    }

    fn recent(&self, filter: &Filter) -> Vec<Arc<Record>> {
        self.common.recent.find(filter)
    }

    fn explain(&self, question: ExplainRequest) -> Result<serde_json::Value, String> {
        let asked = asked(question)?;
        let Common {
            published,
            lifecycle,
            pressure,
            ..
        } = self.common.clone();
        let world = World::beside(published.load(), lifecycle, pressure);
        let world = world.map_err(|error| error.to_string())?;
        let explanation = explain::explain(&world, asked, None)?;
        serde_json::to_value(explanation).map_err(|error| error.to_string())
    }

    fn ready(&self) -> Vec<Check> {
        let snapshot = self.common.published.load();
        vec![Check {
            name: "configuration".into(),
            // A bad reload does not make the gateway unready: the last good one is in force.
            ok: true,
            detail: format!("revision {}", snapshot.revision).into(),
        }]
    }
}

/// The request that an operator asks about.
fn asked(question: ExplainRequest) -> Result<Asked, String> {
    let ExplainRequest {
        method,
        url,
        headers,
        body,
        listener,
        client,
        http2,
    } = question;
    let mut words = vec![url];
    if !method.is_empty() {
        words.insert(0, method);
    }
    let mut asked = Asked::from_arguments(&words, &headers, None)?;
    asked.body = body.into();
    asked.listener = Some(listener).filter(|name| !name.is_empty());
    if http2 {
        asked.version = http::Version::HTTP_2;
    }
    if !client.is_empty() {
        asked.client = Some(client_of(&client)?);
    }
    Ok(asked)
}

/// An upstream as it stands now.
fn upstream(upstream: &Upstream) -> overview::Upstream {
    let members = upstream.members();
    let settings = upstream.settings();
    overview::Upstream {
        name: upstream.name().to_owned(),
        protocol: settings.protocol.name(),
        balance: settings.balance.kind(),
        panicking: members.is_panicking(),
        queued: upstream.queued(),
        endpoints: endpoints(&members, upstream.zone()),
    }
}

/// The endpoints, each with its part of the requests; `zone` is the gateway's own.
fn endpoints(members: &Members, zone: Option<&str>) -> Vec<overview::Endpoint> {
    let candidates = members.candidates();
    let weights: HashMap<u32, u32> = candidates
        .iter()
        .map(|candidate| (candidate.number, candidate.weight))
        .collect();
    let sum: f64 = weights.values().copied().map(f64::from).sum();
    let endpoint = |member: &Member| {
        let weight = weights.get(&member.number);
        overview::Endpoint {
            address: member.endpoint.label.to_string(),
            zone: member.endpoint.zone.clone(),
            weight: member.endpoint.weight,
            share: weight.map_or(0.0, |weight| f64::from(*weight) / sum),
            condition: member.condition,
            why: why(member, weight.is_some(), zone),
        }
    };
    members.all().map(endpoint).collect()
}

/// What keeps an endpoint from taking requests.
fn why(member: &Member, takes: bool, zone: Option<&str>) -> Option<String> {
    if !member.why.is_empty() {
        return Some(member.why.to_string());
    }
    if takes || member.condition != Condition::Ready {
        return None;
    }
    // Nothing else leaves out one that is ready.
    let zone = zone.unwrap_or_default();
    Some(format!(
        "is not in zone `{zone}`, whose own endpoints are enough"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::telemetry::metrics::Metrics;

    /// An upstream as the configuration writes it, with the gateway in zone `a`; its description.
    fn described(settings: Value) -> overview::Upstream {
        let settings = serde_json::from_value(settings).expect("settings");
        let series = Metrics::new(1).upstream("orders");
        let built = Upstream::build("orders", &settings, Some("a"), series, None);
        upstream(&built.expect("nothing to resolve"))
    }

    fn shares(upstream: &overview::Upstream) -> Vec<f64> {
        let endpoints = upstream.endpoints.iter();
        endpoints
            .map(|endpoint| (endpoint.share * 1000.0).round() / 1000.0)
            .collect()
    }

    fn reasons(upstream: &overview::Upstream) -> Vec<&str> {
        let endpoints = upstream.endpoints.iter();
        endpoints
            .map(|endpoint| endpoint.why.as_deref().unwrap_or_default())
            .collect()
    }

    #[test]
    fn endpoints_share_by_weight_and_who_is_skipped_says_why() {
        let seen = described(json!({
            "endpoints": [
                "127.0.0.1:1",
                {"address": "127.0.0.1:2", "weight": 3},
                {"address": "127.0.0.1:3", "weight": 0},
            ],
            "balance": "round_robin",
            "protocol": "http2",
        }));
        assert_eq!((seen.protocol, seen.balance), ("http2", "round_robin"));
        assert!(!seen.panicking);
        assert_eq!(shares(&seen), [0.25, 0.75, 0.0]);
        assert_eq!(reasons(&seen), ["", "", "has weight 0"]);
    }

    #[test]
    fn another_zone_is_a_reason_too() {
        let seen = described(json!({"endpoints": [
            {"address": "127.0.0.1:1", "zone": "a"},
            {"address": "127.0.0.1:2", "zone": "b"},
        ]}));
        assert_eq!(shares(&seen), [1.0, 0.0]);
        let zone = "is not in zone `a`, whose own endpoints are enough";
        assert_eq!(reasons(&seen), ["", zone]);
        assert_eq!(seen.endpoints[1].condition, Condition::Ready);
    }

    #[test]
    fn in_panic_those_that_are_not_ready_have_a_share_and_a_reason() {
        let endpoints = ["127.0.0.1:1", "127.0.0.1:2"];
        let check = json!({"http": {"path": "/health"}});
        let seen = |threshold: &str| {
            described(json!({
                "endpoints": endpoints, "health_check": check, "panic_threshold": threshold,
            }))
        };
        let waits = "waits for its first health check";
        let panicking = seen("50%");
        assert!(panicking.panicking);
        assert_eq!(shares(&panicking), [0.5, 0.5]);
        assert_eq!(reasons(&panicking), [waits, waits]);
        let failing_fast = seen("0%");
        assert!(!failing_fast.panicking);
        assert_eq!(shares(&failing_fast), [0.0, 0.0]);
        assert_eq!(reasons(&failing_fast), [waits, waits]);
    }
}
