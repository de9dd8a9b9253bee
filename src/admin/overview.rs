//! What the doors for operators may ask of the rest of the program.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::v1::ExplainRequest;
use crate::base::lifecycle::State;
use crate::telemetry::metrics::Reload;
use crate::telemetry::recent::{Filter, Record};
use crate::upstream::Condition;

/// Whoever knows everything: the application.
pub trait Overview: Send + Sync {
    /// What the gateway is, and what it is doing.
    fn status(&self) -> Status;

    /// Every upstream, as it stands now.
    fn upstreams(&self) -> Upstreams;

    /// Records of requests that failed or were slow, the newest first.
    fn recent(&self, filter: &Filter) -> Vec<Arc<Record>>;

    /// What would become of a request now, as the explanation's JSON. May take a while: not for an
    /// event loop.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the question.
    fn explain(&self, question: ExplainRequest) -> Result<serde_json::Value, String>;

    /// What readiness depends on besides the lifecycle.
    fn ready(&self) -> Vec<Check>;
}

/// What the gateway is, and what it is doing.
#[derive(Debug, Clone)]
pub struct Status {
    /// The version of the program.
    pub version: &'static str,
    /// The number of the configuration in force; 0 before the first.
    pub revision: u64,
    /// Where it came from.
    pub source: String,
    /// What the process is doing.
    pub state: State,
    /// When it started.
    pub started_at: SystemTime,
    /// For how long it has been running.
    pub uptime: Duration,
    /// Threads that serve requests.
    pub workers: usize,
    /// Open client connections.
    pub connections: u64,
    /// What became of the configuration that was read last.
    pub last_reload: Option<LastReload>,
}

/// One reading of the configuration.
#[derive(Debug, Clone)]
pub struct LastReload {
    /// What became of it.
    pub outcome: Reload,
    /// One sentence for people.
    pub message: String,
    /// When it was read.
    pub at: SystemTime,
}

/// The upstreams of one configuration.
#[derive(Debug, Clone)]
pub struct Upstreams {
    /// The number of that configuration.
    pub revision: u64,
    /// In the order of their names.
    pub upstreams: Vec<Upstream>,
}

/// A named group of endpoints.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name in the configuration.
    pub name: String,
    /// What its endpoints speak, as it is written.
    pub protocol: &'static str,
    /// How an endpoint is chosen, as it is written.
    pub balance: &'static str,
    /// True while so few endpoints are ready that all of them take requests.
    pub panicking: bool,
    /// Requests that wait for room under a limit.
    pub queued: u32,
    /// By the order in which they became known.
    pub endpoints: Vec<Endpoint>,
}

/// One address of an upstream.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// As people read it.
    pub address: String,
    /// Where it runs, as far as it is known.
    pub zone: Option<String>,
    /// Its weight, as configured or discovered.
    pub weight: u32,
    /// Its part of the weight of all that take requests now, from 0 to 1; 0 if it is skipped.
    pub share: f64,
    /// What is known of it.
    pub condition: Condition,
    /// What keeps it from taking requests, in words.
    pub why: Option<String>,
}

/// One condition of readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is looked at.
    pub name: Cow<'static, str>,
    /// Whether it is as it should be.
    pub ok: bool,
    /// How it is, in a few words; may be empty.
    pub detail: Cow<'static, str>,
}
