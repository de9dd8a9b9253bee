//! Matches that can never win, because one before them takes all that they would take.
//!
//! For the checker: such a match is almost always a mistake. Found are those that can be proved by
//! comparing what was written (the same path, the same or weaker conditions); a regex that happens to
//! take less than another is not seen.

use std::collections::HashMap;

use crate::routing::condition::ValueMatch;
use crate::routing::matcher::{Content, Match, PathMatch};
use crate::routing::table::Table;

/// How many earlier matches one is compared with at most, which bounds the time for thousands of
/// matches of one path.
const COMPARED: usize = 256;

/// A match that can never win.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadow {
    /// The number of its route.
    pub route: u32,
    /// Its number among the matches of its route.
    pub match_index: u32,
    /// The match that takes its requests: route and number in the route. Where a match of several
    /// hosts is shadowed by several, the first of them.
    pub by: (u32, u32),
}

/// What two matches must have in common to be compared at all.
#[derive(PartialEq, Eq, Hash)]
struct Group<'t> {
    bucket: usize,
    path: PathKey<'t>,
    /// Names of headers, query parameters and cookies, and whether methods are named. One that comes
    /// earlier in order of precedence cannot have fewer, so only equal ones can shadow.
    names: Vec<(char, &'t str)>,
}

#[derive(PartialEq, Eq, Hash)]
enum PathKey<'t> {
    Literal(&'t str),
    /// Literals and their places; lengths and parameters may differ.
    Template(u64, String),
    Prefix(&'t str),
    Regex(&'t str),
}

impl Table {
    /// The matches that can never win, in the order of the file.
    pub fn shadowed(&self) -> Vec<Shadow> {
        let places = self.places();
        let mut groups: HashMap<Group<'_>, Members<'_>> = HashMap::new();
        let mut roots: HashMap<usize, Vec<u32>> = HashMap::new();
        // How many places each match has, in how many it is shadowed, and by which rank.
        let mut count: Vec<(usize, usize, Option<u32>)> = vec![(0, 0, None); self.matches.len()];
        for (bucket, rank, compiled) in &places {
            if is_root(&compiled.what.path) {
                roots.entry(*bucket).or_default().push(*rank);
            }
        }
        for (bucket, rank, compiled) in &places {
            let what = &compiled.what;
            let members = groups.entry(Group::of(*bucket, what)).or_default();
            let mut by = members.shadow(*rank, what);
            if by.is_none() && matches!(what.path, PathMatch::Regex(_)) {
                let roots = roots.get(bucket).into_iter().flatten().take(COMPARED);
                by = roots.copied().find(|root| {
                    let root = self.matches.get(*root as usize);
                    root.is_some_and(|root| is_weaker(&root.what, what))
                });
            }
            if let Some((all, shadowed, first)) = count.get_mut(*rank as usize) {
                *all += 1;
                *shadowed += usize::from(by.is_some());
                *first = first.or(by);
            }
        }
        let mut shadows: Vec<Shadow> = Vec::new();
        for (compiled, (all, shadowed, first)) in self.matches.iter().zip(&count) {
            if all == shadowed
                && let Some(by) = first.and_then(|by| self.matches.get(by as usize))
            {
                shadows.push(Shadow {
                    route: compiled.route,
                    match_index: compiled.index,
                    by: (by.route, by.index),
                });
            }
        }
        shadows.sort_by_key(|shadow| (shadow.route, shadow.match_index));
        shadows
    }
}

/// Matches of one group seen so far, in order of rank.
#[derive(Default)]
struct Members<'t> {
    /// Those with the same conditions, by these.
    same: HashMap<String, Vec<(u32, &'t Match)>>,
    /// Those with a condition that holds for more than one value.
    loose: Vec<(u32, &'t Match)>,
}

impl<'t> Members<'t> {
    /// The rank of an earlier member that takes all that `what` takes; adds `what` to the members.
    fn shadow(&mut self, rank: u32, what: &'t Match) -> Option<u32> {
        let mut values: Vec<String> = conditions(what)
            .map(|(kind, name, value)| format!("{kind}{name} {value:?}"))
            .collect();
        values.sort_unstable();
        let same = self.same.entry(values.join("\n")).or_default();
        let covers =
            |(_, earlier): &&(u32, &Match)| covers_path(earlier, what) && is_weaker(earlier, what);
        let by = same.iter().take(COMPARED).find(covers);
        let by = by.or_else(|| self.loose.iter().take(COMPARED).find(covers));
        let by = by.map(|(rank, _)| *rank);
        if by.is_none() {
            same.push((rank, what));
            if conditions(what).any(|(_, _, value)| !matches!(value, ValueMatch::Exact(_))) {
                self.loose.push((rank, what));
            }
        }
        by
    }
}

impl<'t> Group<'t> {
    fn of(bucket: usize, what: &'t Match) -> Self {
        let path = match &what.path {
            PathMatch::Any => PathKey::Prefix(""),
            PathMatch::Literal(path) => PathKey::Literal(path),
            PathMatch::Prefix(path) => PathKey::Prefix(path),
            PathMatch::Regex(regex) => PathKey::Regex(regex.as_str()),
            PathMatch::Template(template) => {
                let literals: Vec<&str> = template.literals().collect();
                PathKey::Template(template.shape().mask, literals.join("/"))
            }
        };
        let mut names: Vec<(char, &str)> = conditions(what).map(|(k, name, _)| (k, name)).collect();
        if what.methods.are_named() {
            names.push(('m', ""));
        }
        if what.content == Content::Grpc {
            names.push(('g', ""));
        }
        names.sort_unstable();
        Self {
            bucket,
            path,
            names,
        }
    }
}

/// All conditions by kind and name.
fn conditions(what: &Match) -> impl Iterator<Item = (char, &str, &ValueMatch)> {
    let headers = what.headers.0.iter().map(|(n, v)| ('h', n.0.as_str(), v));
    let query = what.query.0.iter().map(|(n, v)| ('q', n.as_str(), v));
    let cookies = what.cookies.0.iter().map(|(n, v)| ('c', n.as_str(), v));
    headers.chain(query).chain(cookies)
}

fn is_root(path: &PathMatch) -> bool {
    match path {
        PathMatch::Any => true,
        PathMatch::Prefix(path) => path.is_empty(),
        _ => false,
    }
}

/// True if `one` takes every path of `other`; they are of one group.
fn covers_path(one: &Match, other: &Match) -> bool {
    match (&one.path, &other.path) {
        (PathMatch::Template(one), PathMatch::Template(other)) => one.covers(other),
        _ => true,
    }
}

/// True if, paths aside, `one` holds wherever `other` does.
fn is_weaker(one: &Match, other: &Match) -> bool {
    let is_implied = |(kind, name, value): (char, &str, &ValueMatch)| {
        conditions(other).any(|(k, n, v)| k == kind && n == name && value.is_implied_by(v))
    };
    one.methods.cover(&other.methods)
        && (one.content == Content::Any || other.content == Content::Grpc)
        && conditions(one).all(is_implied)
}
