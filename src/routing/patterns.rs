//! All path regexes of one host in one automaton: a single run over the path says which match.
//!
//! Some sets make an automaton that is too big to build (`.*a`, `.*b`, … multiply). Such a set is cut
//! into pieces, in order of precedence, until each fits; a look-up runs them one after the other. A
//! single pattern that is too big runs on an automaton that is built as it goes. The work spent on
//! pieces that turn out too big is bounded; once it is used up, what is left runs pattern by pattern.

use std::fmt;

use regex_syntax::hir::Hir;
use smallvec::SmallVec;

use crate::routing::paths::Entry;
use crate::routing::pattern::Engine;

/// What an automaton may take, whatever the number of its patterns, and more for each of them:
/// about 20 states of 200 bytes.
const BYTES: usize = 64 << 10;
const BYTES_EACH: usize = 4 << 10;

/// What all automata that turn out too big may take until they do; about one second.
const WASTE: usize = 16 << 20;

/// Into how many pieces a set that is too big is cut.
const PIECES: usize = 8;

#[derive(Default)]
pub(super) struct Patterns {
    parts: Vec<Part>,
}

struct Part {
    engine: Engine,
    /// The entries of the engine's patterns, in order of rank.
    entries: Box<[Entry]>,
}

impl Patterns {
    /// Compiles patterns that are given in order of rank.
    ///
    /// # Errors
    /// The rank of a pattern that cannot be compiled, and why.
    pub(super) fn build(patterns: &[(Entry, &Hir)]) -> Result<Self, (u32, String)> {
        let mut all = Self::default();
        all.add(patterns, &mut WASTE.clone())?;
        Ok(all)
    }

    fn add(&mut self, patterns: &[(Entry, &Hir)], waste: &mut usize) -> Result<(), (u32, String)> {
        if patterns.is_empty() {
            return Ok(());
        }
        let hirs: Vec<&Hir> = patterns.iter().map(|(_, hir)| *hir).collect();
        let bytes = BYTES + BYTES_EACH * patterns.len();
        let affordable = patterns.len() == 1 || bytes <= *waste;
        let dense = affordable.then(|| Engine::dense(&hirs, bytes)).flatten();
        let engine = match (dense, patterns) {
            (Some(engine), _) => engine,
            (None, [(entry, hir)]) => Engine::lazy(hir).map_err(|why| (entry.rank, why))?,
            (None, _) => {
                let mut piece = patterns.len().div_ceil(PIECES);
                if affordable {
                    *waste -= bytes;
                } else {
                    piece = piece.min(*waste / BYTES_EACH).max(1);
                }
                let mut pieces = patterns.chunks(piece);
                return pieces.try_for_each(|piece| self.add(piece, waste));
            }
        };
        let entries = patterns.iter().map(|(entry, _)| *entry).collect();
        self.parts.push(Part { engine, entries });
        Ok(())
    }

    /// Calls `visit` with the patterns that match the whole path, in order of rank.
    #[inline]
    pub(super) fn walk<T>(
        &self,
        path: &str,
        visit: &mut impl FnMut(&Entry) -> Option<T>,
    ) -> Option<T> {
        for part in &self.parts {
            let mut found: SmallVec<[usize; 16]> = SmallVec::new();
            part.engine.matches(path.as_bytes(), |i| found.push(i));
            found.sort_unstable();
            let mut found = found.iter().filter_map(|i| part.entries.get(*i));
            if let Some(answer) = found.find_map(&mut *visit) {
                return Some(answer);
            }
        }
        None
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts.iter().map(|part| part.entries.len());
        f.debug_list().entries(parts).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::matcher::{Match, PathMatch};
    use crate::routing::method::Methods;
    use crate::routing::paths::{Rest, Star};

    fn patterns(written: &[String]) -> Patterns {
        let matches: Vec<Match> = written
            .iter()
            .map(|text| serde_json::from_value(serde_json::json!({"path_regex": text})))
            .collect::<Result<_, _>>()
            .expect("valid");
        let entry = |rank| Entry {
            rank,
            route: rank,
            methods: Methods::default().mask(),
            rest: Rest::Nothing,
            star: Star::No,
        };
        let list: Vec<(Entry, &Hir)> = (0..)
            .map(entry)
            .zip(&matches)
            .map(|(entry, one)| match &one.path {
                PathMatch::Regex(regex) => (entry, regex.hir()),
                other => panic!("{other:?}"),
            })
            .collect();
        Patterns::build(&list).expect("compiles")
    }

    fn matching(patterns: &Patterns, path: &str) -> Vec<u32> {
        let mut found = Vec::new();
        let _none: Option<()> = patterns.walk(path, &mut |entry| {
            found.push(entry.rank);
            None
        });
        found
    }

    #[test]
    fn every_pattern_that_matches_is_found_in_order() {
        let written = ["/a/.*", "/[a-z]/b", "/a", "/a/b|/c", "/.*", ".*"].map(String::from);
        let patterns = patterns(&written);
        assert_eq!(patterns.parts.len(), 1);
        assert_eq!(matching(&patterns, "/a/b"), [0, 1, 3, 4, 5]);
        assert_eq!(matching(&patterns, "/c"), [3, 4, 5]);
        assert_eq!(matching(&patterns, "*"), [5]);
    }

    #[test]
    fn a_set_that_is_too_big_is_cut_and_stays_in_order() {
        let mut written: Vec<String> = (0..40)
            .map(|i| format!(".*/{i}/[a-f0-9]{{4}}/.*x.{{2}}"))
            .collect();
        written.push("(.*)a(.{14})".to_owned());
        written.push("/.*".to_owned());
        let patterns = patterns(&written);
        assert!(patterns.parts.len() > 1);
        assert_eq!(matching(&patterns, "/q/7/00ff/x11"), [7, 41]);
        assert_eq!(matching(&patterns, "/q/a23456789012345"), [40, 41]);
        assert_eq!(matching(&patterns, "/q/b23456789012345"), [41]);
        let both = "/q/39/00ff/x/7/00ff/a12345678x22";
        assert_eq!(matching(&patterns, both), [7, 39, 41]);
    }
}
