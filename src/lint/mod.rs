//! What works, but likely not as meant: rules over a configuration that has no errors.
//!
//! A rule is for what can be proved from the configuration alone, and stays silent where it cannot: a
//! false alarm costs more trust than a missed mistake. Each has a code that never changes
//! (`base::code`), an explanation ([`explain`]), and a way to be told that a thing is meant ([`allow`]).
//! What is noticed already while a configuration is read (names that nobody uses, weights of 0) is
//! reported there, under codes of the same table.
//!
//! Rules are pure: no clock, no disk, no network. A group of them is a file, and a line in [`lint`].

mod allow;
mod ejection;
mod explain;
mod loops;
mod ourselves;
mod redirects;
mod regexes;
mod retries;
mod rollout;
mod scene;
mod secrets;
mod security;
#[cfg(test)]
mod testing;
mod time;
mod unused;

pub use self::allow::{Sifted, sift};
pub use self::explain::{Explanation, all, find, markdown};

use self::scene::Scene;
use crate::base::problem::Problem;
use crate::config::Config;
use crate::snapshot;

/// Every warning about a configuration that the one who reads it does not have yet, each once.
pub fn lint(config: &Config) -> Vec<Problem> {
    let scene = Scene::new(config);
    let mut found = snapshot::shadowed(config);
    loops::check(&scene, &mut found);
    redirects::check(&scene, &mut found);
    regexes::check(&scene, &mut found);
    time::check(&scene, &mut found);
    rollout::check(&scene, &mut found);
    ourselves::check(&scene, &mut found);
    retries::check(&scene, &mut found);
    ejection::check(&scene, &mut found);
    security::check(&scene, &mut found);
    secrets::check(&scene, &mut found);
    unused::check(&scene, &mut found);
    found.sort_by_key(|problem| {
        (
            problem.span.map(|span| (span.file, span.start)),
            problem.code,
        )
    });
    // What an alias stands for is wrong once.
    found.dedup();
    found
}
