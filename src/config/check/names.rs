//! Names that are declared, and who refers to them.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::Extent;
use crate::base::code::Code;
use crate::base::problem::{Problem, Span, Spanned};
use crate::config::de::Reading;
use crate::config::suggest;

/// How many unknown names get a suggestion: each is compared with every name that there is.
const SUGGESTIONS: u32 = 100;

/// The names of one section.
pub(super) struct Names<'a> {
    noun: &'static str,
    declared: BTreeMap<&'a str, Declared>,
    extent: Extent,
    suggestions: Cell<u32>,
}

struct Declared {
    span: Span,
    is_used: Cell<bool>,
}

impl<'a> Names<'a> {
    /// Where some of the configuration is missing, no name is called unknown.
    pub(super) fn new(
        noun: &'static str,
        names: impl Iterator<Item = (&'a str, Span)>,
        extent: Extent,
    ) -> Self {
        let declared = names.map(|(name, span)| {
            (
                name,
                Declared {
                    span,
                    is_used: Cell::new(false),
                },
            )
        });
        Self {
            noun,
            declared: declared.collect(),
            extent,
            suggestions: Cell::new(SUGGESTIONS),
        }
    }

    /// True if the name is declared; from now on it counts as used.
    pub(super) fn uses(&self, name: &str) -> bool {
        let declared = self.declared.get(name);
        declared
            .inspect(|declared| declared.is_used.set(true))
            .is_some()
    }

    /// Nobody knows which ones are used.
    pub(super) fn use_all(&self) {
        for declared in self.declared.values() {
            declared.is_used.set(true);
        }
    }

    /// As [`Self::uses`], and reports a name that is not declared.
    pub(super) fn find(&self, name: &Spanned<String>, reading: &Reading<'_>) -> bool {
        let is_declared = self.uses(name);
        if !is_declared {
            self.report_unknown(name, name.span, &[], reading);
        }
        is_declared
    }

    /// True if the name is declared; that is no use of it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.declared.contains_key(name)
    }

    /// As [`Self::find`] for what only speaks of it: a name in a test does not count as used.
    pub(super) fn knows(&self, name: &Spanned<String>, reading: &Reading<'_>) -> bool {
        let is_declared = self.has(name);
        if !is_declared {
            self.report_unknown(name, name.span, &[], reading);
        }
        is_declared
    }

    /// Reports a name that is neither declared nor one of the `kinds`.
    pub(super) fn report_unknown(
        &self,
        name: &str,
        span: Span,
        kinds: &[&str],
        reading: &Reading<'_>,
    ) {
        if self.extent == Extent::Torn {
            return;
        }
        let problem = Problem::error(span, format!("unknown {} `{name}`", self.noun));
        let left = self.suggestions.get();
        self.suggestions.set(left.saturating_sub(1));
        let known = self.declared.keys().copied().chain(kinds.iter().copied());
        let advice = if left > 0 {
            suggest::advice(name, known)
        } else {
            None
        };
        reading.report(match advice {
            Some(advice) => problem.help(advice),
            None => problem,
        });
    }

    pub(super) fn report_unused(&self, reading: &Reading<'_>) {
        for (name, declared) in &self.declared {
            if !declared.is_used.get() {
                let message = format!("the {} `{name}` is not used", self.noun);
                reading.report(
                    Problem::warning(declared.span, message)
                        .code(Code::UNUSED)
                        .help("remove it, or name it where it is meant to be used"),
                );
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a str, Span)> {
        self.declared
            .iter()
            .map(|(name, declared)| (*name, declared.span))
    }
}
