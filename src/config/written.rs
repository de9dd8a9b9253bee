//! What the files hold, as it is written: which keys differ between two configurations.
//!
//! Secrets are shown as where they come from, `{file: …}` or `{env: …}`, and what variables were put
//! in as the variable: neither is ever resolved here.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::Loaded;
use super::tree::{Kind, Node, Style};
use crate::base::source::Sources;

/// The values that the files hold.
#[derive(Debug, Default)]
pub struct Written {
    roots: Arc<[Node]>,
}

/// Something that a configuration holds once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// A section such as `runtime`.
    Section(&'a str),
    /// An item of a section, by its name.
    Item(&'a str, &'a str),
}

/// A key whose value is another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    /// Where it is, as `match.path_prefix` or `endpoints[1].weight`; empty for the whole place.
    pub key: String,
    /// What was written, in one line; none if it was not there.
    pub old: Option<String>,
    /// What is written, in one line; none if it is not there.
    pub new: Option<String>,
}

/// How the content of a place differs between two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Not at all.
    None,
    /// In these keys.
    Keys(Vec<KeyChange>),
    /// Only in how it is written: in the order of its keys, or in quotes.
    Spelling,
}

impl Written {
    pub(super) fn new(roots: Arc<[Node]>) -> Self {
        Self { roots }
    }

    /// The names of the items of a section, in the order of the files.
    pub fn names(&self, section: &str) -> Vec<&str> {
        let mut names = Vec::new();
        for node in self.sections(section) {
            match &node.kind {
                Kind::List(items) => names.extend(items.iter().filter_map(name)),
                Kind::Map(entries) => names.extend(entries.iter().map(|(key, _)| key.key())),
                _ => {}
            }
        }
        names
    }

    fn sections(&self, section: &str) -> impl Iterator<Item = &Node> {
        self.roots.iter().filter_map(move |root| root.get(section))
    }

    /// Every item by its section and name.
    fn index(&self) -> HashMap<(&str, &str), &Node> {
        let mut index = HashMap::new();
        for root in self.roots.iter() {
            let Kind::Map(sections) = &root.kind else {
                continue;
            };
            for (key, section) in sections {
                let section_name = key.key();
                match &section.kind {
                    Kind::List(items) => index.extend(
                        items
                            .iter()
                            .filter_map(|item| Some(((section_name, name(item)?), item))),
                    ),
                    Kind::Map(entries) => index.extend(
                        entries
                            .iter()
                            .map(|(key, value)| ((section_name, key.key()), value)),
                    ),
                    _ => {}
                }
            }
        }
        index
    }

    fn section(&self, section: &str) -> Option<&Node> {
        self.sections(section).find(|node| !node.is_nothing())
    }
}

fn name(item: &Node) -> Option<&str> {
    item.get("name")?.text()
}

/// Two configurations to be compared place by place.
#[derive(Debug)]
pub struct Pair<'a> {
    old: &'a Loaded,
    new: &'a Loaded,
    before: HashMap<(&'a str, &'a str), &'a Node>,
    after: HashMap<(&'a str, &'a str), &'a Node>,
}

impl<'a> Pair<'a> {
    /// One configuration and another that may follow it.
    pub fn new(old: &'a Loaded, new: &'a Loaded) -> Self {
        Self {
            old,
            new,
            before: old.written.index(),
            after: new.written.index(),
        }
    }

    /// How a place differs; a place that only one of them has differs in every key.
    pub fn difference(&self, place: Place<'_>) -> Difference {
        let (was, now) = match place {
            Place::Section(section) => {
                let of = |loaded: &'a Loaded| loaded.written.section(section);
                (of(self.old), of(self.new))
            }
            Place::Item(section, name) => (
                self.before.get(&(section, name)).copied(),
                self.after.get(&(section, name)).copied(),
            ),
        };
        let mut comparison = Comparison {
            old: &self.old.sources,
            new: &self.new.sources,
            path: String::new(),
            found: Vec::new(),
        };
        comparison.both(was, now);
        if !comparison.found.is_empty() {
            return Difference::Keys(comparison.found);
        }
        match (was, now) {
            (Some(was), Some(now)) if was.fingerprint() != now.fingerprint() => {
                Difference::Spelling
            }
            _ => Difference::None,
        }
    }
}

struct Comparison<'a> {
    old: &'a Sources,
    new: &'a Sources,
    path: String,
    found: Vec<KeyChange>,
}

impl Comparison<'_> {
    fn both(&mut self, old: Option<&Node>, new: Option<&Node>) {
        let old = old.filter(|node| !node.is_nothing());
        let new = new.filter(|node| !node.is_nothing());
        match (old.map(|node| &node.kind), new.map(|node| &node.kind)) {
            (Some(Kind::Map(was)), Some(Kind::Map(now))) => self.maps(was, now),
            // A place that one of them has not is shown key by key.
            (None, Some(Kind::Map(now))) if self.path.is_empty() => self.maps(&[], now),
            (Some(Kind::Map(was)), None) if self.path.is_empty() => self.maps(was, &[]),
            (Some(Kind::List(was)), Some(Kind::List(now))) => self.lists((old, was), (new, now)),
            (Some(Kind::Scalar { text: was, .. }), Some(Kind::Scalar { text: now, .. }))
                if was == now => {}
            (None, None) => {}
            _ => self.note(old, new),
        }
    }

    fn note(&mut self, old: Option<&Node>, new: Option<&Node>) {
        self.found.push(KeyChange {
            key: self.path.clone(),
            old: old.map(|node| flow(node, self.old)),
            new: new.map(|node| flow(node, self.new)),
        });
    }

    fn maps(&mut self, old: &[(Node, Node)], new: &[(Node, Node)]) {
        let (before, after) = (index(old), index(new));
        for (key, now) in new {
            self.within(key.key(), before.get(key.key()).copied(), Some(now));
        }
        for (key, was) in old {
            if !after.contains_key(key.key()) {
                self.within(key.key(), Some(was), None);
            }
        }
    }

    fn within(&mut self, key: &str, old: Option<&Node>, new: Option<&Node>) {
        // The name is what both were found by.
        if self.path.is_empty() && key == "name" {
            return;
        }
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        self.both(old, new);
        self.path.truncate(length);
    }

    /// Items that are in one list alone; where as many went as came they are compared one by one.
    fn lists(&mut self, old: (Option<&Node>, &[Node]), new: (Option<&Node>, &[Node])) {
        let gone = without(old.1, new.1);
        let come = without(new.1, old.1);
        match (gone.as_slice(), come.as_slice()) {
            ([], []) if same_order(old.1, new.1) => {}
            ([], []) => self.note(old.0, new.0),
            (gone, come) if gone.len() == come.len() => {
                for ((at, was), (_, now)) in gone.iter().zip(come) {
                    self.at(*at, Some(was), Some(now));
                }
            }
            (gone, come) => {
                for (at, was) in gone {
                    self.at(*at, Some(was), None);
                }
                for (at, now) in come {
                    self.at(*at, None, Some(now));
                }
            }
        }
    }

    fn at(&mut self, at: usize, old: Option<&Node>, new: Option<&Node>) {
        let length = self.path.len();
        let _infallible = write!(self.path, "[{at}]");
        match (old, new) {
            (Some(_), Some(_)) => self.both(old, new),
            // Not key by key: an item that came or went is one thing.
            _ => self.note(old, new),
        }
        self.path.truncate(length);
    }
}

fn index(entries: &[(Node, Node)]) -> HashMap<&str, &Node> {
    let entries = entries.iter();
    entries.map(|(key, value)| (key.key(), value)).collect()
}

/// The items of a list that another has not, or not as often, with their places.
fn without<'n>(list: &'n [Node], other: &[Node]) -> Vec<(usize, &'n Node)> {
    let mut left: HashMap<String, usize> = HashMap::new();
    for node in other {
        *left.entry(content(node)).or_default() += 1;
    }
    let mut missing = Vec::new();
    for (at, node) in list.iter().enumerate() {
        match left.get_mut(&content(node)) {
            Some(count) if *count > 0 => *count -= 1,
            _ => missing.push((at, node)),
        }
    }
    missing
}

fn same_order(old: &[Node], new: &[Node]) -> bool {
    let mut pairs = old.iter().zip(new);
    pairs.all(|(was, now)| content(was) == content(now))
}

/// Equal for equal content, whatever the order of keys and the quotes.
fn content(node: &Node) -> String {
    match &node.kind {
        Kind::Scalar { text, .. } => format!("{text:?}"),
        Kind::Broken => String::new(),
        Kind::List(items) => {
            let items: Vec<String> = items.iter().map(content).collect();
            format!("[{}]", items.join(","))
        }
        Kind::Map(entries) => {
            let entries = entries.iter();
            let mut entries: Vec<String> = entries
                .map(|(key, value)| format!("{:?}:{}", key.key(), content(value)))
                .collect();
            entries.sort_unstable();
            format!("{{{}}}", entries.join(","))
        }
    }
}

/// A value in one line of YAML.
fn flow(node: &Node, sources: &Sources) -> String {
    match &node.kind {
        Kind::Broken => "…".to_owned(),
        Kind::Scalar {
            style: Style::Filled,
            ..
        } => as_written(node, sources),
        Kind::Scalar { text, .. } if is_safe(text) => text.clone(),
        Kind::Scalar { text, .. } => format!("{text:?}"),
        Kind::List(items) => {
            let items: Vec<String> = items.iter().map(|item| flow(item, sources)).collect();
            format!("[{}]", items.join(", "))
        }
        Kind::Map(entries) => {
            let entries = entries.iter();
            let entries: Vec<String> = entries
                .map(|(key, value)| format!("{}: {}", key.key(), flow(value, sources)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// A scalar with its variables, which may hold what is nobody's business.
fn as_written(node: &Node, sources: &Sources) -> String {
    let source = sources.get(node.span.file);
    let text = source.and_then(|source| source.text.get(node.span.range()));
    match text.filter(|text| text.contains("${") && !text.contains('\n')) {
        Some(text) => text.trim_matches(['"', '\'']).to_owned(),
        None => "${…}".to_owned(),
    }
}

/// True for text that needs no quotes within a flow collection.
fn is_safe(text: &str) -> bool {
    let inside =
        |c: char| !c.is_control() && !matches!(c, ',' | '[' | ']' | '{' | '}' | '"' | '\'');
    let first = text.chars().next();
    first.is_some_and(|c| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '*' | '_' | '$'))
        && text.chars().all(inside)
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.ends_with([' ', ':'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn load(yaml: &str) -> Loaded {
        let env = |name: &str| (name == "KEY").then(|| "hunter2".to_owned());
        config::parse("x", yaml, &env)
    }

    /// The differing keys of the route `a`, as `key: old → new`.
    fn check(old: &str, new: &str, expected: &[&str]) {
        let yaml = |keys: &str| format!("routes:\n  - {{name: a, {keys}}}\n");
        let (old, new) = (load(&yaml(old)), load(&yaml(new)));
        let lines: Vec<String> = match Pair::new(&old, &new).difference(Place::Item("routes", "a"))
        {
            Difference::None => Vec::new(),
            Difference::Spelling => vec!["spelling".to_owned()],
            Difference::Keys(keys) => keys.iter().map(line).collect(),
        };
        assert_eq!(lines, expected);
    }

    fn line(change: &KeyChange) -> String {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        format!(
            "{}: {} → {}",
            change.key,
            text(&change.old),
            text(&change.new)
        )
    }

    #[test]
    fn keys_are_told_with_their_values() {
        check("match: {path: /a}", "match: {path: /a}", &[]);
        check(
            "match: {path: /a}",
            "match: {path: /b}",
            &["match.path: /a → /b"],
        );
        check(
            "match: {path: /a}",
            "match: {path_prefix: /a}",
            &["match.path_prefix: - → /a", "match.path: /a → -"],
        );
        check(
            "match: {path: /a}",
            "match: {path: /a}, timeouts: {request: 1s}",
            &["timeouts: - → {request: 1s}"],
        );
        check(
            "match: {path: /a}",
            "match: [{path: /a}, {path: /b}]",
            &["match: {path: /a} → [{path: /a}, {path: /b}]"],
        );
        check("upstream: ~", "handler: ~", &["spelling"]);
    }

    #[test]
    fn items_that_came_and_went_are_told_one_by_one() {
        check("l: [a, b]", "l: [a, c, b]", &["l[1]: - → c"]);
        check("l: [a, b]", "l: [b]", &["l[0]: a → -"]);
        check("l: [a, b]", "l: [b, a]", &["l: [a, b] → [b, a]"]);
        check("l: [{k: 1, m: x}]", "l: [{m: x, k: 2}]", &["l[0].k: 1 → 2"]);
        check("l: [a, a]", "l: [a]", &["l[1]: a → -"]);
    }

    #[test]
    fn another_spelling_is_no_key() {
        check("m: {k: 1, l: 2}", "m: {l: 2, k: 1}", &["spelling"]);
        check("m: {k: 1}", "m: {k: \"1\"}", &["spelling"]);
    }

    #[test]
    fn what_would_not_be_read_again_is_quoted() {
        check("m: x", "m: \"a, b\"", &["m: x → \"a, b\""]);
        check("m: x", "m: \"a\\nb\"", &["m: x → \"a\\nb\""]);
        check("m: x", "m: \"\"", &["m: x → \"\""]);
    }

    #[test]
    fn variables_and_secrets_stay_what_they_are_called() {
        check(
            "m: \"a ${KEY} b\"",
            "m: \"${KEY}\"",
            &["m: a ${KEY} b → ${KEY}"],
        );
        check(
            "m: {env: KEY}",
            "m: {file: /run/key}",
            &["m.file: - → /run/key", "m.env: KEY → -"],
        );
        check("m: \"${KEY}\"", "m: hunter2", &["spelling"]);
    }
}
