//! What is known of the running gateway, for whoever asks at the admin or telemetry port.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use crate::admin::overview::{Check, LastReload, Overview, Status};
use crate::base::lifecycle::Lifecycle;
use crate::server::Loads;
use crate::snapshot::publish::Published;
use crate::telemetry::metrics::Reload;

/// The one place where the doors for operators look.
#[derive(Debug)]
pub(crate) struct Board {
    source: String,
    started: Instant,
    started_at: SystemTime,
    lifecycle: Arc<Lifecycle>,
    published: Arc<Published>,
    loads: Loads,
    last_reload: Mutex<Option<LastReload>>,
}

impl Board {
    pub(crate) fn new(
        source: String,
        lifecycle: Arc<Lifecycle>,
        published: Arc<Published>,
        loads: Loads,
    ) -> Arc<Self> {
        Arc::new(Self {
            source,
            started: Instant::now(),
            started_at: SystemTime::now(),
            lifecycle,
            published,
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
            revision: self.published.load().revision,
            source: self.source.clone(),
            state: self.lifecycle.state(),
            started_at: self.started_at,
            uptime: self.started.elapsed(),
            workers: self.loads.workers(),
            connections: self.loads.connections() as u64,
            last_reload: self.last_reload(),
        }
    }

    fn ready(&self) -> Vec<Check> {
        let snapshot = self.published.load();
        vec![Check {
            name: "configuration".into(),
            // A bad reload does not make the gateway unready: the last good one is in force.
            ok: true,
            detail: format!("revision {}", snapshot.revision).into(),
        }]
    }
}
