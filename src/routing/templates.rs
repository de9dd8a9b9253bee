//! Templates by their shape: how many segments, and which of them are literal.
//!
//! There are few shapes, whatever the number of templates. For each shape that a path of so many
//! segments can have, one look-up by the literal segments finds the templates; the shapes with more
//! literals come first.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::routing::paths::{Entries, Entry, Path, Range};
use crate::routing::segments::Segments;
use crate::routing::template::{Shape, Template};

#[derive(Debug, Default)]
pub(super) struct Templates {
    nodes: HashTable<Node>,
    /// For a path of so many segments the shapes it can have, those with more literals first; the
    /// last for all longer paths.
    shapes: Vec<Box<[Shape]>>,
}

/// The templates of one shape with the same literals.
#[derive(Debug)]
struct Node {
    shape: Shape,
    /// The literal segments, each with a slash after it.
    literals: Box<str>,
    entries: Range,
}

impl Templates {
    pub(super) fn build(
        templates: &[(Entry, &Template)],
        all: &mut Entries,
        hash: &RandomState,
    ) -> Self {
        let mut groups: BTreeMap<(Shape, String), Vec<Entry>> = BTreeMap::new();
        for (entry, template) in templates {
            let literals = template.literals().flat_map(|literal| [literal, "/"]);
            let key = (template.shape(), literals.collect());
            groups.entry(key).or_default().push(*entry);
        }
        let mut nodes = HashTable::with_capacity(groups.len());
        let mut distinct: Vec<Shape> = Vec::new();
        for ((shape, literals), entries) in groups {
            // In order of shapes, so that equal ones are neighbours.
            if distinct.last() != Some(&shape) {
                distinct.push(shape);
            }
            let node = Node {
                shape,
                literals: literals.into(),
                entries: all.add(&entries),
            };
            nodes.insert_unique(hash_node(&node, hash), node, |node| hash_node(node, hash));
        }
        Self {
            nodes,
            shapes: by_count(&mut distinct),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shapes.is_empty()
    }

    /// Calls `visit` with the templates that have the path's literals, in order of precedence.
    #[inline]
    pub(super) fn walk<T>(
        &self,
        path: &Path<'_>,
        entries: &Entries,
        hash: &RandomState,
        visit: &mut impl FnMut(&Entry) -> Option<T>,
    ) -> Option<T> {
        let segments = path.segments();
        let longest = self.shapes.len().checked_sub(1)?;
        let shapes = self.shapes.get(segments.count().min(longest))?;
        for equals in shapes.chunk_by(|a, b| a.literals() == b.literals()) {
            let mut found: SmallVec<[&[Entry]; 4]> = SmallVec::new();
            for &shape in equals {
                if let Some(range) = self.find(shape, segments, hash) {
                    found.push(entries.get(range));
                }
            }
            let answer = match found.as_slice() {
                [] => None,
                [one] => one.iter().find_map(&mut *visit),
                _ => merge(&mut found, visit),
            };
            if answer.is_some() {
                return answer;
            }
        }
        None
    }

    #[inline]
    fn find(&self, shape: Shape, segments: &Segments<'_>, hash: &RandomState) -> Option<Range> {
        let wanted = hash_literals(shape, shape.literals_of(segments), hash);
        let node = self.nodes.find(wanted, |node| {
            node.shape == shape && has_literals(node, shape, segments)
        });
        node.map(|node| node.entries)
    }
}

/// Walks lists of entries, each in order of rank, in the order of all their ranks.
fn merge<T>(lists: &mut [&[Entry]], visit: &mut impl FnMut(&Entry) -> Option<T>) -> Option<T> {
    loop {
        let first = lists.iter_mut().min_by_key(|list| match list.first() {
            Some(entry) => u64::from(entry.rank),
            None => u64::MAX,
        })?;
        let (entry, rest) = first.split_first()?;
        *first = rest;
        if let Some(answer) = visit(entry) {
            return Some(answer);
        }
    }
}

/// The shapes that a path of 0, 1, 2 … segments can have.
fn by_count(shapes: &mut [Shape]) -> Vec<Box<[Shape]>> {
    let Some(longest) = shapes.iter().map(|shape| shape.count).max() else {
        return Vec::new();
    };
    shapes.sort_by_key(|shape| std::cmp::Reverse(shape.literals()));
    let can_be =
        |shape: &Shape, count: usize| count == shape.count || (shape.open && count > shape.count);
    let of = |count| shapes.iter().filter(move |shape| can_be(shape, count));
    (0..longest + 2)
        .map(|count| of(count).copied().collect())
        .collect()
}

fn has_literals(node: &Node, shape: Shape, segments: &Segments<'_>) -> bool {
    let mut literals = &*node.literals;
    for segment in shape.literals_of(segments) {
        let rest = literals.strip_prefix(segment);
        match rest.and_then(|rest| rest.strip_prefix('/')) {
            Some(rest) => literals = rest,
            None => return false,
        }
    }
    literals.is_empty()
}

fn hash_node(node: &Node, hash: &RandomState) -> u64 {
    let literals = node.literals.split_terminator('/');
    hash_literals(node.shape, literals, hash)
}

#[inline]
fn hash_literals<S: AsRef<str>>(
    shape: Shape,
    literals: impl Iterator<Item = S>,
    hash: &RandomState,
) -> u64 {
    let mut hasher = hash.build_hasher();
    // Shapes that differ only in their length may collide: they are compared, too.
    hasher.write_u64(shape.mask);
    for literal in literals {
        hasher.write(literal.as_ref().as_bytes());
        hasher.write_u8(b'/');
    }
    hasher.finish()
}
