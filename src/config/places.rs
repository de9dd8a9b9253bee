//! Where every value of a checked configuration is written, for whoever has something to say of it.
//!
//! A [`Config`](super::Config) holds what is meant, with defaults applied; here is what was written,
//! and so also what was not.

use std::fmt;
use std::sync::Arc;

use super::tree::{Kind, Node, Style};
use crate::base::problem::Span;

/// The files' contents, as values that know where they stand.
#[derive(Default)]
pub struct Places(Arc<[Node]>);

/// One value.
#[derive(Clone, Copy)]
pub struct Spot<'c>(&'c Node);

impl Places {
    pub(super) fn new(roots: Arc<[Node]>) -> Self {
        Self(roots)
    }

    /// A section, once for each file that has it.
    pub fn section<'c>(&'c self, key: &'c str) -> impl Iterator<Item = Spot<'c>> {
        self.0.iter().filter_map(move |root| Spot(root).get(key))
    }
}

impl<'c> Spot<'c> {
    /// What to underline when it is meant.
    pub fn span(self) -> Span {
        self.0.span
    }

    /// The value of a key.
    pub fn get(self, key: &str) -> Option<Self> {
        self.0.get(key).map(Self)
    }

    /// The value at the end of a path of keys.
    pub fn at(self, path: &[&str]) -> Option<Self> {
        path.iter().try_fold(self, |place, key| place.get(key))
    }

    /// The text of a scalar.
    pub fn text(self) -> Option<&'c str> {
        self.0.text()
    }

    /// True for text that stands in the file as it is: no variable brought a part of it.
    pub fn is_literal(self) -> bool {
        let Kind::Scalar { style, .. } = &self.0.kind else {
            return false;
        };
        *style != Style::Filled
    }

    /// The items of a list; a value that may be a list and is none is its own only item.
    pub fn items(self) -> impl Iterator<Item = Self> {
        let items = match &self.0.kind {
            Kind::List(items) => items.as_slice(),
            _ => std::slice::from_ref(self.0),
        };
        items.iter().map(Self)
    }

    /// Keys and values of a map; nothing of what is none.
    pub fn entries(self) -> impl Iterator<Item = (&'c str, Self)> {
        self.keys().map(|(key, value)| (key.0.key(), value))
    }

    /// The same, with the places of the keys.
    pub fn keys(self) -> impl Iterator<Item = (Self, Self)> {
        let entries = match &self.0.kind {
            Kind::Map(entries) => entries.as_slice(),
            _ => &[],
        };
        entries.iter().map(|(key, value)| (Self(key), Self(value)))
    }

    /// True for a list.
    pub fn is_list(self) -> bool {
        matches!(self.0.kind, Kind::List(_))
    }
}

// What is written may be a secret.
impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places").finish_non_exhaustive()
    }
}

impl fmt::Debug for Spot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Spot").field(&self.0.span).finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn what_is_written_is_found_and_what_is_not_is_not() {
        let text = "runtime: {drain: 7s, zone: \"${ZONE:-a}\"}\n";
        let config = parse("a.yaml", text, &|_| None).config.expect("valid");
        let runtime = config.places.section("runtime").next().expect("written");
        let drain = runtime.at(&["drain"]).expect("written");
        assert_eq!(drain.text(), Some("7s"));
        assert_eq!(text.get(drain.span().range()), Some("7s"));
        assert!(drain.is_literal());
        assert!(!runtime.get("zone").expect("written").is_literal());
        assert!(runtime.at(&["drain", "more"]).is_none());
        assert!(runtime.get("workers").is_none());
        assert_eq!(config.places.section("admin").count(), 0);
        assert!(!format!("{config:?}").contains("zone: \""));
    }
}
