//! What a YAML file says, as nodes that know where they stand.
//!
//! Aliases, merge keys and variables are already resolved. A node's span is what to underline when
//! the whole of it is meant: a scalar or a flow collection as far as its first line goes, the key of
//! a block collection.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::base::problem::Span;

/// One value of the file.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// What to underline when this is meant.
    pub(super) span: Span,
    /// What it holds.
    pub(super) kind: Kind,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// Text, which may stand for a number or a truth value.
    Scalar {
        /// The text after escapes and variables.
        text: String,
        /// How it was written.
        style: Style,
    },
    /// A list.
    List(Vec<Node>),
    /// A map; no key is there twice.
    Map(Vec<(Node, Node)>),
    /// Something that has been reported already: whoever meets it stays silent.
    Broken,
}

/// How a scalar was written, which decides what it may stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Style {
    /// Without quotes: a number, a truth value, nothing or text, as the reader wishes.
    Plain,
    /// With quotes or as a block: text.
    Quoted,
    /// With a variable in it: text, or what a reader asks for.
    Filled,
}

impl Node {
    /// A plain scalar.
    pub(super) fn plain(text: &str, span: Span) -> Self {
        Self {
            span,
            kind: Kind::Scalar {
                text: text.to_owned(),
                style: Style::Plain,
            },
        }
    }

    /// The text of a scalar that is not nothing.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } if !self.is_nothing() => Some(text),
            _ => None,
        }
    }

    /// True for an empty value, `~` and `null`.
    pub(super) fn is_nothing(&self) -> bool {
        match &self.kind {
            Kind::Scalar { text, style } => *style == Style::Plain && is_null(text),
            _ => false,
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Kind::Map(entries) = &self.kind else {
            return None;
        };
        let entry = entries.iter().find(|(k, _)| k.key() == key);
        entry.map(|(_, value)| value)
    }

    /// The text of a node that is a key; what is no scalar was reported when it was read.
    pub(super) fn key(&self) -> &str {
        match &self.kind {
            Kind::Scalar { text, .. } => text,
            _ => "",
        }
    }

    /// A number that is the same for the same content, wherever it stands.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash_content(&mut hasher);
        hasher.finish()
    }

    fn hash_content(&self, hasher: &mut DefaultHasher) {
        match &self.kind {
            Kind::Scalar { text, style } => (0_u8, *style == Style::Plain, text).hash(hasher),
            Kind::List(items) => {
                (1_u8, items.len()).hash(hasher);
                for item in items {
                    item.hash_content(hasher);
                }
            }
            Kind::Map(entries) => {
                (2_u8, entries.len()).hash(hasher);
                for (key, value) in entries {
                    key.hash_content(hasher);
                    value.hash_content(hasher);
                }
            }
            Kind::Broken => 3_u8.hash(hasher),
        }
    }
}

/// The ways in which YAML 1.2 writes nothing.
pub(super) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}
