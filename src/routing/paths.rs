//! The matches of one host by their paths, in constant time.
//!
//! Literals and prefixes are hashed; of the prefixes only those lengths are tried that exist, the
//! longest first. Templates and regexes have files of their own.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::routing::host::HostPattern;
use crate::routing::matcher::PathMatch;
use crate::routing::method::Mask;
use crate::routing::patterns::Patterns;
use crate::routing::segments::Segments;
use crate::routing::templates::Templates;

/// The hash of a text key.
#[inline]
pub(super) fn hash_of(state: &RandomState, key: &str) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write(key.as_bytes());
    hasher.finish()
}

/// What a look-up must know of a match before it looks at the match itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Its place among all matches in order of precedence, host and path aside: the lower wins.
    pub(super) rank: u32,
    /// Its route.
    pub(super) route: u32,
    pub(super) methods: Mask,
    /// What is left to look at.
    pub(super) rest: Rest,
    /// Whether `*` of `OPTIONS *` matches, too.
    pub(super) star: Star,
}

/// What is left to look at once host, path and method match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Nothing,
    Conditions,
}

/// Whether a match takes what is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Star {
    No,
    Yes,
}

/// Entries that stand side by side.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Range {
    start: u32,
    end: u32,
}

/// All entries of one host, each path's side by side and in order of rank.
#[derive(Debug, Default)]
pub(super) struct Entries(Vec<Entry>);

impl Entries {
    /// Puts entries side by side.
    pub(super) fn add(&mut self, entries: &[Entry]) -> Range {
        // The table refuses more matches than 32 bits can count.
        let end = |entries: &Vec<Entry>| u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let start = end(&self.0);
        self.0.extend_from_slice(entries);
        Range {
            start,
            end: end(&self.0),
        }
    }

    #[inline]
    pub(super) fn get(&self, range: Range) -> &[Entry] {
        let range = range.start as usize..range.end as usize;
        self.0.get(range).unwrap_or_default()
    }
}

/// A key and its entries.
#[derive(Debug)]
struct Node {
    key: Box<str>,
    entries: Range,
}

/// Nodes by their keys.
#[derive(Debug, Default)]
struct Keys(HashTable<Node>);

impl Keys {
    fn build(groups: &BTreeMap<&str, Vec<Entry>>, all: &mut Entries, hash: &RandomState) -> Self {
        let mut table = HashTable::with_capacity(groups.len());
        for (key, entries) in groups {
            let node = Node {
                key: (*key).into(),
                entries: all.add(entries),
            };
            let rehash = |node: &Node| hash_of(hash, &node.key);
            table.insert_unique(hash_of(hash, key), node, rehash);
        }
        Self(table)
    }

    #[inline]
    fn find(&self, key: &str, hash: &RandomState) -> Range {
        let node = self.0.find(hash_of(hash, key), |node| *node.key == *key);
        node.map(|node| node.entries).unwrap_or_default()
    }
}

/// A request's path, cut into segments when first something asks for them.
#[derive(Debug)]
pub(super) struct Path<'p> {
    pub(super) text: &'p str,
    most: usize,
    segments: OnceCell<Segments<'p>>,
}

impl<'p> Path<'p> {
    /// A path of which the first `most` slashes may matter.
    pub(super) fn new(text: &'p str, most: usize) -> Self {
        Self {
            text,
            most,
            segments: OnceCell::new(),
        }
    }

    #[inline]
    pub(super) fn segments(&self) -> &Segments<'p> {
        self.segments
            .get_or_init(|| Segments::new(self.text, self.most))
    }
}

/// The matches of one host, or those without a host.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Which host; none for the matches without.
    pub(super) host: Option<HostPattern>,
    entries: Entries,
    literals: Keys,
    templates: Templates,
    prefixes: Keys,
    /// Numbers of segments that prefixes have, the greatest first.
    depths: Box<[usize]>,
    /// The prefix `/`, and matches without a path. Not among the others, for comparing with an empty
    /// key costs 60 ns on some processors (a masked load from nowhere).
    root: Range,
    patterns: Patterns,
}

impl Bucket {
    /// Compiles the matches of one host, given in order of rank.
    ///
    /// # Errors
    /// The rank of a match whose regex cannot be compiled, and why.
    pub(super) fn build(
        host: Option<HostPattern>,
        matches: &[(Entry, &PathMatch)],
        hash: &RandomState,
    ) -> Result<Self, (u32, String)> {
        let mut literals: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
        let mut prefixes: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
        let mut templates = Vec::new();
        let mut patterns = Vec::new();
        for (entry, path) in matches {
            match path {
                PathMatch::Literal(path) => literals.entry(path).or_default().push(*entry),
                PathMatch::Prefix(path) => prefixes.entry(path).or_default().push(*entry),
                PathMatch::Any => prefixes.entry("").or_default().push(*entry),
                PathMatch::Template(template) => templates.push((*entry, &**template)),
                PathMatch::Regex(regex) => patterns.push((*entry, regex.hir())),
            }
        }
        let root = prefixes.remove("").unwrap_or_default();
        let depths: BTreeSet<usize> = prefixes.keys().map(|key| depth(key)).collect();
        let mut entries = Entries::default();
        Ok(Self {
            host,
            literals: Keys::build(&literals, &mut entries, hash),
            templates: Templates::build(&templates, &mut entries, hash),
            prefixes: Keys::build(&prefixes, &mut entries, hash),
            depths: depths.into_iter().rev().collect(),
            root: entries.add(&root),
            patterns: Patterns::build(&patterns)?,
            entries,
        })
    }

    /// Calls `visit` with each entry whose path matches, in order of precedence, until it answers.
    ///
    /// Of a template the literals are checked; its parameters are left to the visitor.
    #[inline]
    pub(super) fn walk<T>(
        &self,
        path: &Path<'_>,
        hash: &RandomState,
        visit: &mut impl FnMut(&Entry) -> Option<T>,
    ) -> Option<T> {
        if !self.literals.0.is_empty() {
            let found = self.literals.find(path.text, hash);
            if let Some(answer) = self.entries.get(found).iter().find_map(&mut *visit) {
                return Some(answer);
            }
        }
        if !self.templates.is_empty()
            && let Some(answer) = self.templates.walk(path, &self.entries, hash, visit)
        {
            return Some(answer);
        }
        if let Some(answer) = self.walk_prefixes(path, hash, visit) {
            return Some(answer);
        }
        self.patterns.walk(path.text, visit)
    }

    #[inline]
    fn walk_prefixes<T>(
        &self,
        path: &Path<'_>,
        hash: &RandomState,
        visit: &mut impl FnMut(&Entry) -> Option<T>,
    ) -> Option<T> {
        for &depth in &self.depths {
            let Some(prefix) = path.segments().prefix(depth) else {
                continue;
            };
            let found = self.prefixes.find(prefix, hash);
            if let Some(answer) = self.entries.get(found).iter().find_map(&mut *visit) {
                return Some(answer);
            }
        }
        let is_path = path.text.starts_with('/');
        let mut root = self.entries.get(self.root).iter();
        root.find_map(|entry| match entry.star {
            Star::No if !is_path => None,
            _ => visit(entry),
        })
    }
}

/// Number of segments of a prefix.
pub(super) fn depth(prefix: &str) -> usize {
    memchr::memchr_iter(b'/', prefix.as_bytes()).count()
}
