//! Puts configurations in force: the first one, and every later one.
//!
//! A configuration that has errors changes nothing: the last good one stays, and the log, the
//! metric and the status say why.

use std::path::PathBuf;

use crate::app::Doors;
use crate::base::problem::{Problem, Severity};
use crate::base::report::{self, Style};
use crate::base::source::Sources;
use crate::config::{Config, Loaded};
use crate::explain::world::NoWorld;
use crate::lint;
use crate::snapshot::{Builder, Built, NotBuilt};

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
        ..
    } = loaded;
    files.extend(directories.iter().map(|folder| folder.join("*")));
    let outcome = match config {
        Some(mut config) => {
            if doors == Doors::Closed && config.listeners.is_empty() {
                config.reach_from_memory();
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

/// Why there can be no rehearsal.
pub(crate) fn no_world(sources: &Sources, why: NoWorld) -> Rejected {
    match why {
        NoWorld::NotBuilt(NotBuilt(errors)) => rejected(sources, &errors),
        NoWorld::System(error) => Rejected {
            report: format!("an event loop cannot be started: {error}\n"),
            errors: 1,
        },
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
