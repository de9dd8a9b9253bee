//! YAML → checked configuration; pure but for reading files at the door, and names no kind.
//!
//! Text becomes positioned nodes (`load`, `parse`), nodes become items of sections (`sections`,
//! `de`, `raw`), and items, checked against each other, become a [`Config`] (`check`, `types`).
//! Every stage reports all that it finds and passes on what it could read, so that one problem
//! hides no other; a [`Config`] comes of it only where nothing is wrong.

mod check;
mod de;
mod interpolate;
mod later;
mod load;
mod merge;
mod parse;
mod places;
mod raw;
mod schema;
mod sections;
mod syntax;
pub mod test;
mod tree;
mod types;
mod written;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::places::{Places, Spot};
pub use self::schema::schema;
pub use self::test::Test;
pub use self::types::{
    Admin, After, Backend, Condition, Config, Handler, Hedge, Limits, Listener, Mirror, Protocol,
    Protocols, Retry, Route, Runtime, Step, Target, Telemetry, Timeouts, Upstream, Workers,
};
pub use self::written::{Difference, KeyChange, Pair, Place, Written};
use crate::base::problem::{Problem, Severity};
use crate::base::source::Sources;
use crate::base::suggest;

/// What came of reading a configuration.
#[derive(Debug)]
pub struct Loaded {
    /// The texts that problems point into.
    pub sources: Sources,
    /// Errors and warnings, by file and position.
    pub problems: Vec<Problem>,
    /// The configuration; none if there is any error.
    pub config: Option<Config>,
    /// What it was made of.
    pub written: Written,
    /// Every file that was read or should have been, secrets among them: a change of one may
    /// change the configuration.
    pub files: Vec<PathBuf>,
    /// Directories in which `include` looked for files: a new one there may change it, too.
    pub directories: Vec<PathBuf>,
}

impl Loaded {
    /// True if there is any error.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(is_error)
    }
}

fn is_error(problem: &Problem) -> bool {
    problem.severity == Severity::Error
}

/// Reads a file and all that it includes. `env` looks up environment variables.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Loaded {
    finish(load::load(path, env), env)
}

/// Reads a text, which can include nothing. `name` is what problems call it.
pub fn parse(name: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Loaded {
    finish(load::text(name, text, env), env)
}

fn finish(files: load::Files, env: &dyn Fn(&str) -> Option<String>) -> Loaded {
    let load::Files {
        sources,
        directories,
        roots,
        mut paths,
        searched,
        mut problems,
        is_complete,
    } = files;
    let sections = sections::gather(&roots, &mut problems);
    let reading = de::Reading::new(&directories, env);
    let extent = match (is_complete, problems.iter().any(is_error)) {
        (false, _) => check::Extent::Torn,
        (true, true) => check::Extent::Flawed,
        (true, false) => check::Extent::Whole,
    };
    let mut config = check::check(&sections, &reading, extent);
    problems.append(&mut reading.problems.borrow_mut());
    paths.append(&mut reading.files.borrow_mut());
    problems.sort_by_key(|problem| problem.span.map(|span| (span.file, span.start, span.end)));
    // One value that is used at several places (by an alias) is wrong once.
    problems.dedup();
    // Sections and readings point into them no more.
    let roots: Arc<[_]> = Arc::from(roots);
    if let Some(config) = &mut config {
        config.places = Places::new(Arc::clone(&roots));
    }
    let mut loaded = Loaded {
        sources,
        problems,
        config,
        written: Written::new(roots),
        files: paths,
        directories: searched,
    };
    if loaded.has_errors() {
        loaded.config = None;
    }
    loaded
}

#[cfg(test)]
mod tests;
