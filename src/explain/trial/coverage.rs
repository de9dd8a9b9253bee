//! Which rules of a configuration its tests have reached.

use std::collections::BTreeSet;

use crate::base::problem::Span;
use crate::config::{Config, Step};
use crate::explain::notebook::Seen;

/// Every rule that a test can reach: the matches of routes, and middlewares where they stand.
#[derive(Debug)]
pub struct Coverage {
    rules: Vec<Rule>,
    reached: BTreeSet<Place>,
}

/// A rule, and where it is written.
#[derive(Debug)]
pub struct Rule {
    place: Place,
    /// What it is called.
    pub name: String,
    /// Where it is written.
    pub span: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// A match of a route.
    Match { route: u32, index: u32 },
    /// A middleware in the chain of a listener.
    OfListener { listener: usize, at: usize },
    /// A middleware in the chain of a route.
    OfRoute { route: usize, at: usize },
    /// A middleware in the chain of a backend.
    OfBackend {
        route: usize,
        backend: usize,
        at: usize,
    },
}

impl Coverage {
    /// Nothing is reached yet.
    pub(super) fn of(config: &Config) -> Self {
        let mut rules = Vec::new();
        let mut chain =
            |steps: &[std::sync::Arc<Step>], of: &str, place: &dyn Fn(usize) -> Place| {
                rules.extend(steps.iter().enumerate().map(|(at, step)| Rule {
                    place: place(at),
                    name: format!("middleware `{}` of {of}", step.label),
                    span: step.settings.span,
                }));
            };
        for (listener, of) in config.listeners.iter().enumerate() {
            let name = format!("listener `{}`", of.name);
            chain(&of.middlewares, &name, &|at| Place::OfListener {
                listener,
                at,
            });
        }
        for (route, of) in config.routes.iter().enumerate() {
            let name = format!("route `{}`", of.name);
            chain(&of.middlewares, &name, &|at| Place::OfRoute { route, at });
            for (backend, of) in of.backends.iter().enumerate() {
                let place = |at| Place::OfBackend { route, backend, at };
                chain(&of.middlewares, &format!("a backend of {name}"), &place);
            }
        }
        for (route, of) in (0..).zip(&config.routes) {
            rules.extend((0..).zip(&of.matches).map(|(index, one)| Rule {
                place: Place::Match { route, index },
                name: match of.matches.len() {
                    1 => format!("route `{}`", of.name),
                    _ => format!("match {} of route `{}`", index + 1, of.name),
                },
                span: one.span,
            }));
        }
        rules.sort_by_key(|rule| (rule.span.file, rule.span.start));
        Self {
            rules,
            reached: BTreeSet::new(),
        }
    }

    pub(super) fn reached(&mut self, seen: &Seen) {
        if let (Some(winner), true) = (seen.winner(), seen.route.is_some()) {
            self.reached.insert(Place::Match {
                route: winner.row.route,
                index: winner.row.match_index,
            });
        }
        let backend = seen.forwarded.as_ref().map(|forwarded| forwarded.place);
        let mut counts = [0; 3];
        for step in &seen.steps {
            let Some(count) = counts.get_mut(step.chain) else {
                continue;
            };
            let at = *count;
            *count += 1;
            let place = match (step.chain, seen.route, backend) {
                (0, ..) => Place::OfListener {
                    listener: seen.listener,
                    at,
                },
                (1, Some(route), _) => Place::OfRoute { route, at },
                (_, Some(route), Some(backend)) => Place::OfBackend { route, backend, at },
                _ => continue,
            };
            self.reached.insert(place);
        }
    }

    /// How many rules there are.
    pub fn all(&self) -> usize {
        self.rules.len()
    }

    /// Those that no test has reached, in the order of the file.
    pub fn missed(&self) -> impl Iterator<Item = &Rule> {
        let is_missed = |rule: &&Rule| !self.reached.contains(&rule.place);
        self.rules.iter().filter(is_missed)
    }

    /// The share of rules that were reached, 0 to 1; 1 where there is none.
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 rules")]
    pub fn share(&self) -> f64 {
        let missed = self.missed().count();
        match self.all() {
            0 => 1.0,
            all => (all - missed) as f64 / all as f64,
        }
    }
}
