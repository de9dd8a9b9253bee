//! Middlewares by name, in place and as chains → flat lists of steps.
//!
//! Whoever names the same middleware gets the same step, so that it can share what it counts.

use std::collections::HashMap;
use std::sync::Arc;

use super::Extent;
use super::names::Names;
use crate::base::problem::{Problem, Span};
use crate::config::de::{Held, Reading, Within};
use crate::config::raw::{self, ItemName, NameOr};
use crate::config::sections::Named;
use crate::config::types::Step;
use crate::middleware;

/// How many steps a chain may come to: chains of chains double quickly.
const MOST_STEPS: usize = 100;

/// How deep chains may name chains.
const MAX_DEPTH: usize = 32;

type Steps = Vec<Arc<Step>>;

/// The named chains.
pub(super) struct Chains<'a> {
    reading: &'a Reading<'a>,
    pub(super) names: Names<'a>,
    chains: HashMap<&'a str, State>,
}

enum State {
    /// Not resolved yet.
    Written(raw::Chain),
    /// Being resolved: whoever meets it now has found a cycle.
    Open,
    /// Resolved.
    Flat(Steps),
    /// Wrong, which was reported.
    Broken,
}

/// Whose chain it is.
pub(super) enum Owner<'o> {
    /// A middleware by its name.
    Name(&'o str),
    /// A place such as `routes/orders`.
    Place(&'o str),
}

impl<'a> Chains<'a> {
    pub(super) fn new(items: &'a [Named<'a>], reading: &'a Reading<'a>, extent: Extent) -> Self {
        let names = items.iter().map(|item| (item.name, item.span));
        let within = Within::Item {
            section: "middlewares",
            noun: "a middleware",
        };
        let chains = items.iter().map(|item| {
            if let Err(message) = ItemName::check(item.name) {
                reading.report(Problem::error(item.span, message));
            }
            let chain = reading.read::<raw::Chain>(item.node, within);
            (
                item.name,
                chain.map_or(State::Broken, |held| State::Written(held.value)),
            )
        });
        Self {
            reading,
            chains: chains.collect(),
            names: Names::new("middleware", names, extent),
        }
    }

    /// Resolves every named chain, used or not: what is wrong with it is wrong.
    pub(super) fn resolve_all(&mut self) {
        let names: Vec<_> = self.names.iter().collect();
        for (name, span) in names {
            self.named(name, span, 0);
        }
    }

    pub(super) fn report_unused(&self) {
        self.names.report_unused(self.reading);
    }

    /// The steps of a chain at a place; none if any of them is wrong.
    pub(super) fn flatten(&mut self, owner: &Owner<'_>, chain: Vec<raw::Step>) -> Option<Steps> {
        self.flat(owner, chain, 0)
    }

    fn flat(&mut self, owner: &Owner<'_>, chain: Vec<raw::Step>, depth: usize) -> Option<Steps> {
        let mut steps = Vec::with_capacity(chain.len());
        let mut is_whole = true;
        let is_single = chain.len() == 1;
        for (number, step) in chain.into_iter().enumerate() {
            let span = step.span;
            match self.step(owner, (number, is_single), step, depth) {
                Some(mut some) => steps.append(&mut some),
                None => is_whole = false,
            }
            if steps.len() > MOST_STEPS {
                let message = format!("this chain comes to more than {MOST_STEPS} steps");
                self.reading.report(Problem::error(span, message));
                return None;
            }
        }
        is_whole.then_some(steps)
    }

    fn step(
        &mut self,
        owner: &Owner<'_>,
        (number, is_single): (usize, bool),
        step: raw::Step,
        depth: usize,
    ) -> Option<Steps> {
        let Held {
            value,
            span,
            fingerprint,
        } = step;
        let settings = match value {
            NameOr::InPlace(settings) => settings,
            NameOr::Name(name) if self.names.uses(&name) => {
                return self.named(&name, span, depth + 1);
            }
            NameOr::Name(kind) => self.bare(&kind, span)?,
        };
        let kind = Arc::from(settings.kind());
        let (id, label) = match owner {
            Owner::Name(name) if is_single => (Arc::from(*name), Arc::from(*name)),
            Owner::Name(place) | Owner::Place(place) => (format!("{place}/{number}").into(), kind),
        };
        let settings = Held {
            value: settings,
            span,
            fingerprint,
        }
        .spanned();
        Some(vec![Arc::new(Step {
            id,
            label,
            settings,
            fingerprint,
        })])
    }

    fn bare(&self, kind: &str, span: Span) -> Option<middleware::Settings> {
        let kinds = middleware::Settings::kinds();
        if kinds.contains(&kind) || middleware::PLANNED.contains(&kind) {
            return self.reading.bare(kind, span, Within::Key("middlewares"));
        }
        self.names.report_unknown(kind, span, kinds, self.reading);
        None
    }

    fn named(&mut self, name: &str, span: Span, depth: usize) -> Option<Steps> {
        let state = self.chains.get_mut(name)?;
        match state {
            State::Flat(steps) => return Some(steps.clone()),
            State::Broken => return None,
            State::Open => {
                let message = format!("the middleware `{name}` is part of itself");
                self.reading.report(
                    Problem::error(span, message).help("remove this name, or name what is meant"),
                );
                return None;
            }
            State::Written(_) if depth > MAX_DEPTH => {
                let message = format!("chains name each other more than {MAX_DEPTH} deep");
                self.reading.report(Problem::error(span, message));
                return None;
            }
            State::Written(_) => {}
        }
        let State::Written(chain) = std::mem::replace(state, State::Open) else {
            return None;
        };
        let steps = self.flat(&Owner::Name(name), chain.0, depth);
        if let Some(state) = self.chains.get_mut(name) {
            *state = steps.clone().map_or(State::Broken, State::Flat);
        }
        steps
    }
}
