//! What the doors for operators may ask of the rest of the program.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use crate::base::lifecycle::State;
use crate::telemetry::metrics::Reload;

/// Whoever knows everything: the application.
pub trait Overview: Send + Sync {
    /// What the gateway is, and what it is doing.
    fn status(&self) -> Status;

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
