//! What is counted once for the whole process: reloads, lifecycle, lost log lines, runtimes.
//!
//! All of it is rare, so it is counted the plain way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::runtime::RuntimeMetrics;

use super::catalogue::Metric;
use super::exposition::Exposition;
use crate::base::lifecycle::{Lifecycle, State};
use crate::base::pressure::Gauge;

/// What became of a configuration that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// It is in force, as this revision.
    Applied {
        /// Its number.
        revision: u64,
    },
    /// It says what is in force already.
    Unchanged,
    /// It has problems; the one before stays.
    Refused,
}

impl Reload {
    /// The word in metrics and the admin API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applied { .. } => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// Why lines of the access log were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostLines {
    /// The writer did not keep up.
    Behind,
    /// The file or pipe refused them.
    Write,
}

const RELOADS: [Reload; 3] = [
    Reload::Applied { revision: 0 },
    Reload::Unchanged,
    Reload::Refused,
];
const LOST: [&str; 2] = ["behind", "write"];

#[derive(Debug, Default)]
pub(super) struct Control {
    reloads: [AtomicU64; 3],
    last_refused: AtomicBool,
    last_success: AtomicU64,
    revision: AtomicU64,
    lost: [AtomicU64; 2],
    lifecycle: OnceLock<Arc<Lifecycle>>,
    pressure: OnceLock<Arc<Gauge>>,
    runtimes: Mutex<Vec<(String, RuntimeMetrics)>>,
}

impl Control {
    pub(super) fn reload(&self, outcome: Reload) {
        let place = match outcome {
            Reload::Applied { revision } => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                let seconds = now.map_or(0, |since| since.as_secs());
                self.last_success.store(seconds, Ordering::Relaxed);
                self.revision.store(revision, Ordering::Relaxed);
                0
            }
            Reload::Unchanged => 1,
            Reload::Refused => 2,
        };
        let refused = outcome == Reload::Refused;
        self.last_refused.store(refused, Ordering::Relaxed);
        if let Some(count) = self.reloads.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn lost_lines(&self, why: LostLines, lines: u64) {
        if let Some(count) = self.lost.get(why as usize) {
            count.fetch_add(lines, Ordering::Relaxed);
        }
    }

    pub(super) fn follow(&self, lifecycle: Arc<Lifecycle>) {
        // The first one stays: a process has one lifecycle.
        let _known = self.lifecycle.set(lifecycle);
    }

    pub(super) fn feel(&self, pressure: Arc<Gauge>) {
        // The first one stays: a process has one.
        let _known = self.pressure.set(pressure);
    }

    pub(super) fn runtime(&self, name: String, metrics: RuntimeMetrics) {
        let mut runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        runtimes.retain(|(known, _)| *known != name);
        runtimes.push((name, metrics));
    }

    pub(super) fn collect(&self, out: &mut Exposition<'_>) {
        let successful = !self.last_refused.load(Ordering::Relaxed);
        out.number(Metric::ConfigLastReload, &[], successful.into());
        let last_success = self.last_success.load(Ordering::Relaxed);
        out.number(Metric::ConfigLastSuccess, &[], last_success);
        let revision = self.revision.load(Ordering::Relaxed);
        out.number(Metric::ConfigRevision, &[], revision);
        for (outcome, count) in RELOADS.iter().zip(&self.reloads) {
            let count = count.load(Ordering::Relaxed);
            out.number(Metric::ConfigReloads, &[outcome.name()], count);
        }
        for (reason, count) in LOST.iter().zip(&self.lost) {
            let count = count.load(Ordering::Relaxed);
            out.number(Metric::AccessLogDropped, &[reason], count);
        }
        if let Some(lifecycle) = self.lifecycle.get() {
            let now = lifecycle.state();
            for state in State::ALL {
                let value = u64::from(state == now);
                out.number(Metric::LifecycleState, &[state.name()], value);
            }
        }
        if let Some(pressure) = self.pressure.get() {
            let level = pressure.load().level as u64;
            out.number(Metric::SheddingLevel, &[], level);
        }
        let runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, metrics) in &*runtimes {
            let tasks = metrics.num_alive_tasks() as u64;
            out.number(Metric::RuntimeTasks, &[name], tasks);
        }
    }
}
