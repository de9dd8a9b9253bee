//! Regular expressions that must match the whole of a value.
//!
//! The whole, always: a pattern that is allowed to match somewhere inside (`internal` in
//! `not-internal`) is a hole in an authorisation rule sooner or later. `^` and `$` may be written and
//! change nothing.
//!
//! Each becomes a complete automaton, which needs no memory while it runs, and so no lock; a pattern
//! whose automaton would be too big runs on one that is built as it goes. Both take time in proportion
//! to the length of the value, whatever the pattern.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::primitives::StateID;
use regex_automata::util::{start, syntax};
use regex_automata::{Anchored, Input, MatchKind, meta};
use regex_syntax::hir::{Hir, Look};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer};

use crate::routing::text;

/// Longest pattern, in bytes.
const LONGEST: usize = 4096;

/// What one pattern may take before it is turned into an automaton: bounds `(a{1000}){1000}`.
const NFA_BYTES: usize = 1 << 20;

/// What the complete automaton of one pattern may take.
const VALUE_BYTES: usize = 64 << 10;

/// A regular expression over header values, cookies and the like; it must match the whole value.
#[derive(Clone)]
pub struct Pattern {
    parsed: Parsed,
    engine: Arc<Engine>,
}

/// A regular expression over paths; it must match the whole path. Compiled together with all others.
#[derive(Clone)]
pub struct PathRegex(Parsed);

/// A pattern that is known to be sound and small enough.
#[derive(Clone)]
struct Parsed {
    text: Arc<str>,
    hir: Arc<Hir>,
}

/// What runs one or more patterns.
pub(super) enum Engine {
    /// Complete: knows which patterns match at the end of the value.
    Dense(Box<dense::DFA<Vec<u32>>>),
    /// Built as it goes, for one pattern; takes its memory from a pool (an uncontended lock, which
    /// the few patterns that are too big for `Dense` can bear).
    Lazy(meta::Regex),
}

impl Engine {
    /// The complete automaton of all patterns together, if it stays within `bytes`; so do, about,
    /// the steps that are taken to find out.
    pub(super) fn dense(patterns: &[&Hir], bytes: usize) -> Option<Self> {
        let nfa = thompson::Compiler::new()
            .configure(nfa_config(bytes))
            .build_many_from_hir(patterns)
            .ok()?;
        let config = dense::Config::new()
            .match_kind(MatchKind::All)
            .start_kind(StartKind::Anchored)
            .dfa_size_limit(Some(bytes))
            .determinize_size_limit(Some(bytes / 2));
        let dfa = dense::Builder::new().configure(config).build_from_nfa(&nfa);
        Some(Self::Dense(Box::new(dfa.ok()?)))
    }

    /// The automaton of one pattern that is built as it goes.
    pub(super) fn lazy(pattern: &Hir) -> Result<Self, String> {
        let anchored = Hir::concat(vec![
            Hir::look(Look::Start),
            pattern.clone(),
            Hir::look(Look::End),
        ]);
        let config = meta::Config::new()
            .utf8_empty(false)
            .nfa_size_limit(Some(4 * NFA_BYTES));
        let regex = meta::Builder::new()
            .configure(config)
            .build_from_hir(&anchored);
        regex.map(Self::Lazy).map_err(|error| error.to_string())
    }

    /// Calls `visit` with the number of each pattern that matches the whole of `value`, in no order.
    #[inline]
    pub(super) fn matches(&self, value: &[u8], mut visit: impl FnMut(usize)) {
        match self {
            Self::Dense(dfa) => {
                let Some(end) = run(dfa, value) else { return };
                for i in 0..dfa.match_len(end) {
                    visit(dfa.match_pattern(end, i).as_usize());
                }
            }
            Self::Lazy(regex) => {
                if regex.is_match(Input::new(value).anchored(Anchored::Yes)) {
                    visit(0);
                }
            }
        }
    }

    fn is_match(&self, value: &[u8]) -> bool {
        match self {
            Self::Dense(dfa) => run(dfa, value).is_some(),
            Self::Lazy(regex) => regex.is_match(Input::new(value).anchored(Anchored::Yes)),
        }
    }
}

/// The state after the whole of `value`, if it is one that matches.
fn run(dfa: &dense::DFA<Vec<u32>>, value: &[u8]) -> Option<StateID> {
    let start = start::Config::new().anchored(Anchored::Yes);
    let mut state = dfa.start_state(&start).ok()?;
    for &byte in value {
        state = dfa.next_state(state, byte);
        if dfa.is_special_state(state) && (dfa.is_dead_state(state) || dfa.is_quit_state(state)) {
            return None;
        }
    }
    state = dfa.next_eoi_state(state);
    dfa.is_match_state(state).then_some(state)
}

fn nfa_config(bytes: usize) -> thompson::Config {
    thompson::Config::new()
        .utf8(false)
        .which_captures(WhichCaptures::None)
        .nfa_size_limit(Some(bytes))
}

impl Parsed {
    fn new(written: &str) -> Result<Self, String> {
        let wrong =
            |why: &dyn fmt::Display| Err(format!("`{written}` is not a regular expression: {why}"));
        if written.len() > LONGEST {
            return Err(format!(
                "the regular expression is longer than {LONGEST} characters: split it over several matches"
            ));
        }
        // Classes are ASCII (`\d` is 0 to 9), and `.` is one byte: what is matched is ASCII but for
        // rare values, and the automata stay small.
        let config = syntax::Config::new().unicode(false).utf8(false);
        let hir = match syntax::parse_with(written, &config) {
            Ok(hir) => hir,
            Err(regex_syntax::Error::Parse(error)) => return wrong(error.kind()),
            Err(regex_syntax::Error::Translate(error)) => {
                use regex_syntax::hir::ErrorKind;
                return match error.kind() {
                    ErrorKind::UnicodeNotAllowed => wrong(
                        &"characters beyond ASCII are matched by their bytes: put `(?u)` first",
                    ),
                    kind => wrong(kind),
                };
            }
            Err(error) => return wrong(&error),
        };
        let compiled = thompson::Compiler::new()
            .configure(nfa_config(NFA_BYTES))
            .build_from_hir(&hir);
        if compiled.is_err() {
            return Err(format!(
                "the regular expression `{written}` is too big: repeat less, or split it over several matches"
            ));
        }
        Ok(Self {
            text: written.into(),
            hir: Arc::new(hir),
        })
    }
}

impl Pattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.parsed.text
    }

    /// True if it matches the whole of `value`.
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.engine.is_match(value)
    }
}

impl PathRegex {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    pub(super) fn hir(&self) -> &Hir {
        &self.0.hir
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        let parsed = Parsed::new(written)?;
        let engine = match Engine::dense(&[&parsed.hir], VALUE_BYTES) {
            Some(engine) => engine,
            None => Engine::lazy(&parsed.hir)?,
        };
        Ok(Self {
            parsed,
            engine: Arc::new(engine),
        })
    }
}

impl FromStr for PathRegex {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        if !written.is_ascii() {
            return Err(format!(
                "`{written}` could match no path: paths are matched percent-encoded, so write `é` as `%C3%A9`"
            ));
        }
        Parsed::new(written).map(Self)
    }
}

/// What both kinds of patterns are besides matching.
macro_rules! written_as_regex {
    ($($type:ident)*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "/{}/", self.as_str())
            }
        }

        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.as_str() == other.as_str()
            }
        }

        impl Eq for $type {}

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                text::read(deserializer, "a regular expression")
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                schemars::json_schema!({"type": "string", "format": "regex"})
            }
        }
    )*};
}

written_as_regex! { Pattern PathRegex }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_the_whole_value() {
        let check = |pattern: &str, value: &str, expected: bool| {
            let compiled: Pattern = pattern.parse().expect(pattern);
            assert_eq!(
                compiled.is_match(value.as_bytes()),
                expected,
                "{pattern} {value}"
            );
            let lazy = Engine::lazy(&compiled.parsed.hir).expect(pattern);
            assert_eq!(
                lazy.is_match(value.as_bytes()),
                expected,
                "{pattern} {value} (lazy)"
            );
        };
        check("[a-z]+", "abc", true);
        check("[a-z]+", "abc1", false);
        check("[a-z]+", "1abc", false);
        check("^[a-z]+$", "abc", true);
        check("a|ab", "ab", true);
        check("a|ab|abc.*", "abcd", true);
        check("internal", "not-internal", false);
        check("", "", true);
        check("", "a", false);
        check("a*?", "aaa", true);
        check(r"(?x) a b # a comment", "ab", true);
        check(r"\d+", "\u{664}", false);
        check("(?u)caf\u{e9}", "caf\u{e9}", true);
        check("(?i)abc", "aBC", true);
        check(r"\bfoo\b.*", "foo bar", true);
        check("a\nb", "a\nb", true);
        check(".", "\n", false);
    }

    #[test]
    fn a_pattern_too_big_for_a_complete_automaton_still_runs() {
        let pattern: Pattern = "(.*)a(.{14})".parse().expect("valid");
        assert!(matches!(*pattern.engine, Engine::Lazy(_)));
        assert!(pattern.is_match(b"xxaxxxxxxxxxxxxxx"));
        assert!(!pattern.is_match(b"xxbxxxxxxxxxxxxxx"));
    }

    #[test]
    fn a_bad_pattern_is_refused_with_its_reason() {
        let check = |pattern: &str, word: &str| {
            let problem = pattern.parse::<PathRegex>().expect_err(pattern);
            assert!(problem.contains(word), "{problem}");
            assert!(!problem.contains('\n'), "{problem}");
        };
        check("a)(b", "unopened group");
        check("(a", "unclosed group");
        check("[z-a]", "range");
        check("caf\u{e9}", "percent-encoded");
        check(r"\p{Greek}", "(?u)");
        check(r"(?=a)b", "look-around");
        check("((a{200}){200}){200}", "too big");
        check(&"a".repeat(5000), "longer than 4096");
    }
}
