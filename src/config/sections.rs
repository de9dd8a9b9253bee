//! The files' maps → one list of items a section.

use std::collections::HashMap;

use super::suggest;
use super::tree::{Kind, Node};
use crate::base::problem::{Problem, Span};

/// What the top level of a file may hold.
pub(super) const KEYS: [&str; 10] = [
    "runtime",
    "admin",
    "telemetry",
    "listeners",
    "routes",
    "middlewares",
    "handlers",
    "upstreams",
    "tests",
    "include",
];

/// Every item of every file, by section.
#[derive(Default)]
pub(super) struct Sections<'n> {
    pub(super) runtime: Option<&'n Node>,
    pub(super) admin: Option<&'n Node>,
    pub(super) telemetry: Option<&'n Node>,
    pub(super) listeners: Vec<Listed<'n>>,
    pub(super) routes: Vec<Listed<'n>>,
    pub(super) tests: Vec<Listed<'n>>,
    pub(super) middlewares: Vec<Named<'n>>,
    pub(super) handlers: Vec<Named<'n>>,
    pub(super) upstreams: Vec<Named<'n>>,
}

/// An item of a list; it has its name within.
#[derive(Clone, Copy)]
pub(super) struct Listed<'n> {
    pub(super) node: &'n Node,
}

/// An entry of a map.
#[derive(Clone, Copy)]
pub(super) struct Named<'n> {
    pub(super) name: &'n str,
    pub(super) span: Span,
    pub(super) node: &'n Node,
}

impl<'n> Listed<'n> {
    /// The name, also of an item that is wrong otherwise, and where it is written.
    pub(super) fn name(self) -> Option<(&'n str, Span)> {
        let name = self.node.get("name")?;
        Some((name.text()?, name.span))
    }
}

/// Sorts what the files hold into sections; a name that is declared twice is reported.
pub(super) fn gather<'n>(roots: &'n [Node], problems: &mut Vec<Problem>) -> Sections<'n> {
    let mut sections = Sections::default();
    let mut once = HashMap::new();
    for root in roots {
        let Kind::Map(entries) = &root.kind else {
            continue;
        };
        for (key, node) in entries {
            match key.key() {
                "runtime" => single(&mut sections.runtime, key, node, &mut once, problems),
                "admin" => single(&mut sections.admin, key, node, &mut once, problems),
                "telemetry" => single(&mut sections.telemetry, key, node, &mut once, problems),
                "listeners" => listed(&mut sections.listeners, key, node, problems),
                "routes" => listed(&mut sections.routes, key, node, problems),
                "tests" => listed(&mut sections.tests, key, node, problems),
                "middlewares" => named(&mut sections.middlewares, key, node, problems),
                "handlers" => named(&mut sections.handlers, key, node, problems),
                "upstreams" => named(&mut sections.upstreams, key, node, problems),
                "include" => {}
                unknown => {
                    let problem = Problem::error(key.span, format!("unknown section `{unknown}`"));
                    problems.push(match suggest::advice(unknown, KEYS.into_iter()) {
                        Some(advice) => problem.help(advice),
                        None => problem,
                    });
                }
            }
        }
    }
    let listed = |items: &[Listed<'n>]| {
        items
            .iter()
            .filter_map(|item| item.name())
            .collect::<Vec<_>>()
    };
    let named = |items: &[Named<'n>]| {
        items
            .iter()
            .map(|item| (item.name, item.span))
            .collect::<Vec<_>>()
    };
    once_each("a listener", &listed(&sections.listeners), problems);
    once_each("a route", &listed(&sections.routes), problems);
    once_each("a test", &listed(&sections.tests), problems);
    once_each("a middleware", &named(&sections.middlewares), problems);
    once_each("a handler", &named(&sections.handlers), problems);
    once_each("an upstream", &named(&sections.upstreams), problems);
    sections
}

fn single<'n>(
    section: &mut Option<&'n Node>,
    key: &'n Node,
    node: &'n Node,
    once: &mut HashMap<&'n str, Span>,
    problems: &mut Vec<Problem>,
) {
    if let Some(first) = once.insert(key.key(), key.span) {
        let message = format!("`{}` is in two files: it can only be in one", key.key());
        problems.push(Problem::error(key.span, message).related(first, "first written here"));
    } else if !node.is_nothing() {
        *section = Some(node);
    }
}

fn listed<'n>(
    items: &mut Vec<Listed<'n>>,
    key: &Node,
    node: &'n Node,
    problems: &mut Vec<Problem>,
) {
    match &node.kind {
        Kind::List(all) => items.extend(all.iter().map(|node| Listed { node })),
        Kind::Broken => {}
        _ if node.is_nothing() => {}
        _ => problems.push(Problem::error(
            node.span,
            format!("`{}` is a list: each item begins with `- name:`", key.key()),
        )),
    }
}

fn named<'n>(items: &mut Vec<Named<'n>>, key: &Node, node: &'n Node, problems: &mut Vec<Problem>) {
    match &node.kind {
        Kind::Map(entries) => items.extend(entries.iter().map(|(name, node)| Named {
            name: name.key(),
            span: name.span,
            node,
        })),
        Kind::Broken => {}
        _ if node.is_nothing() => {}
        _ => problems.push(Problem::error(
            node.span,
            format!("`{}` is a map: each key is a name", key.key()),
        )),
    }
}

fn once_each(noun: &str, names: &[(&str, Span)], problems: &mut Vec<Problem>) {
    let mut seen = HashMap::with_capacity(names.len());
    for (name, span) in names {
        if let Some(first) = seen.get(name) {
            let message = format!("{noun} of the name `{name}` is declared twice");
            problems.push(
                Problem::error(*span, message)
                    .label("again here")
                    .related(*first, "first declared here"),
            );
        } else {
            seen.insert(*name, *span);
        }
    }
}
