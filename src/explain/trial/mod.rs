//! The `tests:` of a configuration, run: each in a world of its own.

mod coverage;
mod expect;
mod junit;

use std::sync::Arc;
use std::time::Duration;

pub use self::coverage::{Coverage, Rule};
pub use self::junit::junit;
use crate::base::problem::{Problem, Span};
use crate::config::test::{Ask, Step};
use crate::config::{self, Config, Test};
use crate::explain::asked::Asked;
use crate::explain::stage::{Line, Script};
use crate::explain::world::{NoWorld, World};

/// What came of all tests.
#[derive(Debug)]
pub struct Report {
    /// In the order of the file.
    pub verdicts: Vec<Verdict>,
    /// What the tests have reached.
    pub coverage: Coverage,
}

/// What came of one test.
#[derive(Debug)]
pub struct Verdict {
    /// What the test is called.
    pub name: String,
    /// Where its name is written.
    pub span: Span,
    /// What was not as expected, each at its place; none if the test passes.
    pub problems: Vec<Problem>,
    /// How many requests were sent.
    pub requests: u32,
    /// How much time went by in its world.
    pub took: Duration,
}

impl Verdict {
    /// True if everything was as expected.
    pub fn passes(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Runs the tests whose names contain `filter`.
///
/// # Errors
/// When the configuration cannot be built.
pub(crate) fn run(config: &Config, filter: &str) -> Result<Report, NoWorld> {
    let mut coverage = Coverage::of(config);
    let chosen = config
        .tests
        .iter()
        .filter(|test| test.name.contains(filter));
    let verdicts = chosen
        .map(|test| run_one(config, test, &mut coverage))
        .collect::<Result<_, _>>()?;
    Ok(Report { verdicts, coverage })
}

fn run_one(config: &Config, test: &Test, coverage: &mut Coverage) -> Result<Verdict, NoWorld> {
    let world = World::apart(config)?;
    let mut verdict = Verdict {
        name: test.name.to_string(),
        span: test.span,
        problems: Vec::new(),
        requests: 0,
        took: Duration::ZERO,
    };
    for (upstream, acts) in &test.given {
        let lines = acts.iter().map(line).collect();
        world.stage().direct(upstream, Script(lines));
    }
    for step in &test.steps {
        match step {
            Step::Wait(time) => {
                world.wait(*time);
                verdict.took += *time;
            }
            Step::Ask(ask) => send(&world, ask, &mut verdict, coverage),
        }
    }
    Ok(verdict)
}

/// Sends a request as often as it says; tells of the first time that it was not as expected.
fn send(world: &World, ask: &Ask, verdict: &mut Verdict, coverage: &mut Coverage) {
    let mut tally = expect::Tally::default();
    let listener = Arc::clone(
        &world
            .snapshot()
            .listener(ask.request.listener.unwrap_or(0))
            .name,
    );
    for time in 0..ask.repeat {
        let asked = Asked::of_test(&ask.request);
        let heard = world.ask(&listener, Some(asked.peer()), asked.into_request());
        verdict.requests += 1;
        verdict.took += heard.took;
        coverage.reached(&heard.seen);
        tally.count(world, &heard);
        if verdict.problems.is_empty() {
            let mut problems = expect::check(world, &ask.expect, &heard);
            if ask.repeat > 1 {
                for problem in &mut problems {
                    let which = format!(" (request {} of {})", time + 1, ask.repeat);
                    problem.message += &which;
                }
            }
            verdict.problems.append(&mut problems);
        }
    }
    verdict.problems.extend(tally.check(&ask.expect));
}

fn line(act: &config::test::Act) -> Line {
    Line {
        endpoint: act.endpoint.as_deref().map(Into::into),
        act: act.kind.clone(),
    }
}
