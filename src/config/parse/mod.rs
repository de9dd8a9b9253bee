//! YAML text → nodes: anchors, aliases, variables and tags, under budgets.
//!
//! What breaks the file's structure ends the reading with one problem. What breaks one value leaves
//! a broken node, so that the rest is still checked. A small file that unfolds into a huge one (an
//! alias bomb) and one that nests without end are refused before they cost anything.

use std::collections::HashMap;

use serde_yaml::granit_parser::{
    Event, Parser, ScalarStyle, Span as Mark, StrInput, StructureStyle, Tag,
};

use super::interpolate::{self, Env};
use super::tree::{Kind, Node, Style};
use super::{merge, syntax};
use crate::base::problem::{Problem, Span};

/// How deep lists and maps may be nested, aliases included.
pub(super) const MAX_DEPTH: usize = 64;

/// How many values a configuration may have, all files and aliases included.
const MAX_NODES: usize = 1_000_000;

/// How many values may come from aliases: some at any rate, more in a longer file.
const FREE_COPIES: usize = 50_000;
const COPIES_PER_NODE: usize = 16;

/// What all files of a configuration may use up together.
#[derive(Debug, Default)]
pub(super) struct Budget {
    written: usize,
    copied: usize,
}

impl Budget {
    fn write(&mut self, span: Span) -> Result<(), Problem> {
        self.written += 1;
        self.check(span)
    }

    fn copy(&mut self, nodes: usize, span: Span) -> Result<(), Problem> {
        self.copied = self.copied.saturating_add(nodes);
        if self.copied > FREE_COPIES + COPIES_PER_NODE * self.written {
            let message = "the aliases unfold into too many values";
            return Err(Problem::error(span, message)
                .help("write out what is meant, or refer to smaller parts"));
        }
        self.check(span)
    }

    fn check(&self, span: Span) -> Result<(), Problem> {
        if self.written.saturating_add(self.copied) > MAX_NODES {
            let message = format!("the configuration has more than {MAX_NODES} values");
            return Err(Problem::error(span, message));
        }
        Ok(())
    }
}

/// Reads one file; none if its structure is broken, which was reported.
pub(super) fn parse(
    file: u16,
    text: &str,
    env: Env<'_>,
    budget: &mut Budget,
    problems: &mut Vec<Problem>,
) -> Option<Node> {
    let mut options = serde_yaml::granit_parser::options! {
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_DEPTH + 1,
        block_nesting_limit: MAX_DEPTH + 1,
    };
    options.set_emit_comments(false);
    let mut reader = Reader {
        file,
        text,
        env,
        events: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        open: Vec::new(),

        budget,
        problems,
    };
    match reader.document() {
        Ok(node) => Some(node),
        Err(problem) => {
            problems.push(problem);
            None
        }
    }
}

struct Reader<'a> {
    file: u16,
    text: &'a str,
    env: Env<'a>,
    events: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Anchor>,
    /// Braces and brackets that are not closed yet.
    open: Vec<Span>,
    budget: &'a mut Budget,
    problems: &'a mut Vec<Problem>,
}

/// A finished node that aliases may stand for.
struct Anchor {
    node: Node,
    nodes: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Node, Problem> {
        let mut root = Node::plain("", self.span(Mark::default()));
        let mut documents = 0;
        loop {
            let (event, mark) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        let message = "a configuration file holds one YAML document, and here a second one begins";
                        return Err(Problem::error(self.span(mark), message)
                            .help("remove the `---`, or move what follows to a file of its own and `include` it"));
                    }
                }
                event => root = self.node(event, mark, 0)?,
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Mark), Problem> {
        match self.events.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let problem = syntax::problem(&error, self.file, self.text);
                let open = self
                    .open
                    .last()
                    .filter(|open| problem.span.is_some_and(|at| at.start > open.start));
                Err(match open {
                    Some(open) => problem.related(*open, "still open"),
                    None => problem,
                })
            }
            None => Ok((Event::StreamEnd, Mark::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, mark: Mark, depth: usize) -> Result<Node, Problem> {
        let span = self.span(mark);
        self.budget.write(span)?;
        let before = self.budget.written + self.budget.copied;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (self.scalar(&text, style, tag.as_deref(), span), anchor)
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.check_tag(tag.as_deref(), span);
                (self.list(style, span, inside(depth, span)?)?, anchor)
            }
            Event::MappingStart(style, anchor, tag) => {
                self.check_tag(tag.as_deref(), span);
                (self.map(style, span, inside(depth, span)?)?, anchor)
            }
            Event::Alias(id) => return self.alias(id, span, depth),
            Event::UnresolvedAlias(name) => {
                let message = format!("`*{name}` refers to an anchor that is not in this file");
                let help = format!(
                    "mark what it stands for with `&{name}`, above this line; quote the text if no alias is meant"
                );
                self.problems.push(Problem::error(span, message).help(help));
                (broken(span), 0)
            }
            // No other event can stand where a value is due.
            _ => (broken(span), 0),
        };
        if anchor > 0 {
            let nodes = self.budget.written + self.budget.copied - before + 1;
            // Nested anchors are kept once each: the copies must be paid for like any other.
            self.budget.copy(nodes, span)?;
            let depth = height(&node);
            self.anchors.insert(
                anchor,
                Anchor {
                    node: node.clone(),
                    nodes,
                    depth,
                },
            );
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, span: Span, depth: usize) -> Result<Node, Problem> {
        let Some(anchor) = self.anchors.get(&id) else {
            let message = "an alias stands within what it stands for";
            self.problems.push(Problem::error(span, message));
            return Ok(broken(span));
        };
        if depth + anchor.depth > MAX_DEPTH {
            return Err(too_deep(span));
        }
        self.budget.copy(anchor.nodes, span)?;
        Ok(Node {
            span,
            kind: anchor.node.kind.clone(),
        })
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Node {
        self.check_tag(tag, span);
        let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
        let style = match style {
            ScalarStyle::Plain if !is_text => Style::Plain,
            _ => Style::Quoted,
        };
        if !interpolate::is_needed(text) {
            return Node {
                span,
                kind: Kind::Scalar {
                    text: text.to_owned(),
                    style,
                },
            };
        }
        match interpolate::fill(text, self.env) {
            Ok(text) => Node {
                span,
                kind: Kind::Scalar {
                    text,
                    style: Style::Filled,
                },
            },
            Err(unfilled) => {
                let place = self.find(span, &unfilled.written);
                self.problems
                    .push(Problem::error(place, unfilled.message).help(unfilled.help));
                broken(span)
            }
        }
    }

    fn list(&mut self, style: StructureStyle, start: Span, depth: usize) -> Result<Node, Problem> {
        let mut items = Vec::new();
        self.enter(style, start);
        loop {
            let (event, mark) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                self.leave(style);

                let span = match style {
                    StructureStyle::Flow => to(start, self.span(mark)),
                    StructureStyle::Block => start,
                };
                return Ok(Node {
                    span,
                    kind: Kind::List(items),
                });
            }
            items.push(self.node(event, mark, depth)?);
        }
    }

    fn map(&mut self, style: StructureStyle, start: Span, depth: usize) -> Result<Node, Problem> {
        let mut entries = Vec::new();
        self.enter(style, start);
        let end = loop {
            let (event, mark) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break self.span(mark);
            }
            let key = self.node(event, mark, depth)?;
            let (event, mark) = self.next()?;
            let is_block = matches!(
                event,
                Event::MappingStart(StructureStyle::Block, ..)
                    | Event::SequenceStart(StructureStyle::Block, ..)
            );
            let mut value = self.node(event, mark, depth)?;
            // Nothing has no place of its own, and a block none that fits on a line.
            if is_block || value.span.start >= value.span.end {
                value.span = key.span;
            }
            match key.kind {
                Kind::Scalar { .. } => entries.push((key, value)),
                Kind::Broken => {}
                _ => self
                    .problems
                    .push(Problem::error(key.span, "a key must be text")),
            }
        };
        self.leave(style);
        let span = match (style, entries.first()) {
            (StructureStyle::Flow, _) => to(start, end),
            (StructureStyle::Block, Some((key, value))) => self.first_entry(key.span, value.span),
            (StructureStyle::Block, None) => start,
        };
        let entries = merge::resolve(entries, self.problems);
        Ok(Node {
            span,
            kind: Kind::Map(entries),
        })
    }

    fn enter(&mut self, style: StructureStyle, start: Span) {
        if style == StructureStyle::Flow {
            self.open.push(start);
        }
    }

    fn leave(&mut self, style: StructureStyle) {
        if style == StructureStyle::Flow {
            self.open.pop();
        }
    }

    /// `name: orders` stands for the block map that it begins.
    fn first_entry(&self, key: Span, value: Span) -> Span {
        let whole = to(key, value);
        match self.text.get(whole.range()) {
            Some(text) if value.start > key.start && !text.contains('\n') => whole,
            _ => key,
        }
    }

    fn check_tag(&mut self, tag: Option<&Tag>, span: Span) {
        if let Some(tag) = tag.filter(|tag| tag.is_custom()) {
            let name = format!("{}{}", tag.original_handle(), tag.suffix());
            let message = format!("tags such as `{name}` mean nothing here");
            self.problems
                .push(Problem::error(span, message).help("remove it"));
        }
    }

    /// Where a part of a scalar stands, as far as it is written in one piece.
    fn find(&self, scalar: Span, part: &str) -> Span {
        let written = self
            .text
            .get(scalar.range())
            .and_then(|text| text.find(part));
        let Some(at) = written.and_then(|at| u32::try_from(at).ok()) else {
            return scalar;
        };
        let start = scalar.start.saturating_add(at);
        let length = u32::try_from(part.len()).unwrap_or(0);
        Span {
            start,
            end: start.saturating_add(length),
            ..scalar
        }
    }

    fn span(&self, mark: Mark) -> Span {
        let byte = |at: Option<usize>| at.and_then(|at| u32::try_from(at).ok()).unwrap_or(0);
        Span {
            file: self.file,
            start: byte(mark.start.byte_offset()),
            end: byte(mark.end.byte_offset()),
        }
    }
}

/// The depth within a collection that begins at `depth`.
fn inside(depth: usize, span: Span) -> Result<usize, Problem> {
    if depth < MAX_DEPTH {
        Ok(depth + 1)
    } else {
        Err(too_deep(span))
    }
}

pub(super) fn too_deep(span: Span) -> Problem {
    Problem::error(
        span,
        format!("lists and maps are nested more than {MAX_DEPTH} deep"),
    )
}

fn broken(span: Span) -> Node {
    Node {
        span,
        kind: Kind::Broken,
    }
}

fn to(start: Span, end: Span) -> Span {
    Span {
        end: end.end.max(start.end),
        ..start
    }
}

fn height(node: &Node) -> usize {
    let below = match &node.kind {
        Kind::List(items) => items.iter().map(height).max(),
        Kind::Map(entries) => entries.iter().map(|(_, value)| height(value)).max(),
        Kind::Scalar { .. } | Kind::Broken => return 0,
    };
    below.unwrap_or(0) + 1
}

#[cfg(test)]
mod tests;
