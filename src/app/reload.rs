//! Puts configurations in force: the first one, and every later one.
//!
//! A configuration that has errors changes nothing: the last good one stays, and the log, the
//! metric and the status say why.

use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::app::Doors;
use crate::base::address::Address;
use crate::base::problem::{Problem, Severity, Span};
use crate::base::report::{self, Style};
use crate::base::source::Sources;
use crate::config::{Config, Limits, Listener, Loaded, Protocols};
use crate::lint;
use crate::snapshot::{Builder, Built, NotBuilt, Snapshot};

/// A configuration that cannot be used, as its author reads it.
#[derive(Debug, thiserror::Error)]
#[error("{report}")]
pub struct Rejected {
    /// Every problem, with its place in the source.
    pub report: String,
    /// How many there are.
    pub errors: usize,
}

/// What was read, and what it makes.
pub(crate) struct Read {
    /// Everything that was read, and the folders that were looked through.
    pub watched: Vec<PathBuf>,
    pub sources: Sources,
    pub outcome: Result<Candidate, Rejected>,
}

/// A configuration that may be put in force.
pub(crate) struct Candidate {
    pub config: Config,
    pub built: Built,
    /// What works, but likely not as meant.
    pub warnings: Vec<Problem>,
}

/// Makes what was read into a snapshot; nothing changes yet.
pub(crate) fn make(loaded: Loaded, builder: &Builder, doors: Doors) -> Read {
    let Loaded {
        sources,
        problems,
        config,
        mut files,
        directories,
    } = loaded;
    files.extend(directories.iter().map(|folder| folder.join("*")));
    let outcome = match config {
        Some(mut config) => {
            if doors == Doors::Closed && config.listeners.is_empty() {
                reach_from_memory(&mut config);
            }
            match builder.build(&config) {
                Ok(built) => Ok(candidate(config, built, problems, &sources)),
                Err(NotBuilt(errors)) => Err(rejected(&sources, &errors)),
            }
        }
        None => Err(rejected(&sources, &problems)),
    };
    Read {
        watched: files,
        sources,
        outcome,
    }
}

/// Gives a configuration without listeners one that is never opened: for requests from memory.
fn reach_from_memory(config: &mut Config) {
    config.listeners.push(Listener {
        name: "memory".into(),
        address: Address::Unix("memory".into()),
        protocols: Protocols {
            http1: true,
            http2: true,
        },
        trusted_proxies: Vec::new(),
        middlewares: Vec::new(),
        // These are for connections, and it has none.
        limits: Limits {
            connections: NonZeroU32::MAX,
            header_bytes: usize::MAX,
            headers: NonZeroU16::MAX,
            header_timeout: Duration::MAX,
            idle_timeout: Duration::MAX,
            connection_age: None,
            streams: NonZeroU32::MAX,
        },
        span: Span::default(),
        fingerprint: 0,
    });
    for route in &mut config.routes {
        route.listeners = Arc::from([0]);
    }
}

fn candidate(
    config: Config,
    built: Built,
    mut warnings: Vec<Problem>,
    sources: &Sources,
) -> Candidate {
    warnings.extend(lint::lint(&config));
    Candidate {
        config,
        built,
        warnings: lint::sift(warnings, sources).problems,
    }
}

pub(crate) fn rejected(sources: &Sources, problems: &[Problem]) -> Rejected {
    let is_error = |problem: &&Problem| problem.severity == Severity::Error;
    let errors: Vec<Problem> = problems.iter().filter(is_error).cloned().collect();
    Rejected {
        report: report::render(&errors, sources, Style::Plain),
        errors: errors.len(),
    }
}

/// Warnings for the log, each on one line.
pub(crate) fn log_warnings(warnings: &[Problem], sources: &Sources) {
    for warning in warnings {
        let place = warning.span.map(|span| sources.place(span));
        let place = place.unwrap_or_default();
        let code = warning.code.map(tracing::field::display);
        tracing::warn!(%place, code, "{}", warning.message);
    }
}

/// What a reload changed, in one line for the log.
pub(crate) fn difference(old: &Snapshot, new: &Snapshot) -> String {
    let names = |snapshot: &Snapshot| -> [Vec<(String, u64)>; 3] {
        [
            named(
                snapshot
                    .listeners
                    .iter()
                    .map(|of| (&*of.name, of.fingerprint)),
            ),
            named(snapshot.routes.iter().map(|of| (&*of.name, of.fingerprint))),
            named(
                snapshot
                    .upstreams
                    .iter()
                    .map(|of| (of.upstream.name(), of.fingerprint)),
            ),
        ]
    };
    let words = ["listeners", "routes", "upstreams"];
    let both = names(old).into_iter().zip(names(new));
    let changes: Vec<String> = words
        .into_iter()
        .zip(both)
        .filter_map(|(word, (old, new))| changes(word, &old, &new))
        .collect();
    if changes.is_empty() {
        "nothing but settings around them".to_owned()
    } else {
        changes.join("; ")
    }
}

fn named<S: Into<String>>(items: impl Iterator<Item = (S, u64)>) -> Vec<(String, u64)> {
    items.map(|(name, print)| (name.into(), print)).collect()
}

fn changes(word: &str, old: &[(String, u64)], new: &[(String, u64)]) -> Option<String> {
    let old: std::collections::HashMap<&str, u64> = old
        .iter()
        .map(|(name, print)| (name.as_str(), *print))
        .collect();
    let mut counts = [0_usize; 3];
    let [added, changed, removed] = &mut counts;
    for (name, print) in new {
        match old.get(name.as_str()) {
            None => *added += 1,
            Some(before) if before != print => *changed += 1,
            Some(_) => {}
        }
    }
    let stayed = new.len() - *added;
    *removed = old.len() - stayed.min(old.len());
    if counts == [0; 3] {
        return None;
    }
    let [added, changed, removed] = counts;
    Some(format!(
        "{word}: {added} added, {changed} changed, {removed} removed"
    ))
}
