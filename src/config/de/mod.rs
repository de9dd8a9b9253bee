//! Nodes → settings, by serde.
//!
//! A plain scalar becomes a number or a truth value only where one is asked for, and text wherever
//! text is asked for, exactly as written. Unknown keys of a map are reported and passed over, so
//! that one does not hide the next problem; any other error ends the reading of its item.

mod access;
mod error;
mod held;
mod number;
mod secret;
pub(super) mod tried;
mod words;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::PathBuf;

use serde::de::{self, Deserialize, DeserializeOwned, DeserializeSeed, Unexpected, Visitor};

use self::access::{Attempt, Entries, Items, Parts, Variant};
use self::error::{Cause, Error};
use self::held::HELD;
pub(crate) use self::held::Held;
use self::tried::TRIED;
use super::interpolate::Env;
use super::tree::{Kind, Node, Style, is_null};
use crate::base::problem::{Problem, SPANNED, Severity, Span};
use crate::base::values::{ONE_OR_MANY, SECRET};

/// What the reading of nodes needs, and what it leaves behind.
pub(super) struct Reading<'a> {
    /// The directory of each file, by its number: relative paths start there.
    pub(super) directories: &'a [PathBuf],
    /// Environment variables, for secrets.
    pub(super) env: Env<'a>,
    /// What was wrong.
    pub(super) problems: RefCell<Vec<Problem>>,
    /// Files that secrets were read from.
    pub(super) files: RefCell<Vec<PathBuf>>,
    /// Changes with every secret that is read: a reload must notice a new one.
    secrets: Cell<u64>,
    /// How often something was wrong, reported here or before.
    failures: Cell<usize>,
}

/// In what a node stands, for messages.
#[derive(Debug, Clone, Copy)]
pub(super) enum Within<'a> {
    /// It is an item of a section.
    Item {
        /// The section's key.
        section: &'a str,
        /// What an item is called: "a route".
        noun: &'a str,
    },
    /// It is the value of a key, or in a list that is.
    Key(&'a str),
}

impl<'a> Within<'a> {
    /// The nearest key.
    fn key(self) -> &'a str {
        match self {
            Self::Item { section, .. } => section,
            Self::Key(key) => key,
        }
    }
}

impl fmt::Display for Within<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Item { noun, .. } => f.write_str(noun),
            Self::Key(key) => write!(f, "`{key}`"),
        }
    }
}

impl<'a> Reading<'a> {
    pub(super) fn new(directories: &'a [PathBuf], env: Env<'a>) -> Self {
        Self {
            directories,
            env,
            problems: RefCell::default(),
            files: RefCell::default(),
            secrets: Cell::new(0),
            failures: Cell::new(0),
        }
    }

    /// The value of a node; none if something is wrong, which was reported.
    pub(super) fn read<'de, T: Deserialize<'de>>(
        &'de self,
        node: &'de Node,
        within: Within<'de>,
    ) -> Option<Held<T>> {
        let before = self.failures.get();
        let de = De {
            node,
            reading: self,
            within,
        };
        match Held::deserialize(de) {
            Ok(value) => (self.failures.get() == before).then_some(value),
            Err(error) => {
                if let Error::Placed(problem) = error.placed(node.span, within) {
                    self.report(*problem);
                }
                None
            }
        }
    }

    /// The settings of a kind that stands alone, as if it were written where `span` is.
    pub(super) fn bare<T: DeserializeOwned>(
        &self,
        kind: &str,
        span: Span,
        within: Within<'_>,
    ) -> Option<T> {
        let node = Node::plain(kind, span);
        let value = T::deserialize(De {
            node: &node,
            reading: self,
            within,
        });
        match value.map_err(|error| error.placed(span, within)) {
            Ok(value) => Some(value),
            Err(Error::Placed(problem)) => {
                self.report(*problem);
                None
            }
            Err(_) => None,
        }
    }

    /// True if an error was reported after the first `count` problems.
    pub(super) fn has_errors_since(&self, count: usize) -> bool {
        let problems = self.problems.borrow();
        problems
            .iter()
            .skip(count)
            .any(|problem| problem.severity == Severity::Error)
    }

    pub(super) fn report(&self, problem: Problem) {
        self.fail_silently();
        self.problems.borrow_mut().push(problem);
    }

    /// Notes that a value cannot be used although nothing is to be said about it.
    fn fail_silently(&self) {
        self.failures.set(self.failures.get() + 1);
    }
}

/// A node and where it stands: serde's door.
#[derive(Clone, Copy)]
struct De<'de> {
    node: &'de Node,
    reading: &'de Reading<'de>,
    within: Within<'de>,
}

impl<'de> De<'de> {
    fn placed<T>(self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| error.placed(self.node.span, self.within))
    }

    /// By what the node is; scalars are text unless `resolve` finds more in them.
    fn visit<V: Visitor<'de>>(self, visitor: V, resolve: Resolve) -> Result<V::Value, Error> {
        let result = match &self.node.kind {
            Kind::Broken => Err(Error::Silent),
            Kind::List(items) => self.list(items, visitor),
            Kind::Map(entries) => self.map(entries, None, visitor),
            Kind::Scalar { .. } if self.node.is_nothing() => visitor.visit_unit(),
            Kind::Scalar {
                text,
                style: Style::Plain,
            } if resolve == Resolve::Core => number::visit_plain(text, visitor),
            Kind::Scalar { text, .. } => visitor.visit_borrowed_str(text),
        };
        self.placed(result)
    }

    fn list<V: Visitor<'de>>(self, items: &'de [Node], visitor: V) -> Result<V::Value, Error> {
        let mut access = Items {
            de: self,
            items: items.iter(),
        };
        let value = visitor.visit_seq(&mut access)?;
        match access.items.next() {
            None => Ok(value),
            Some(extra) => {
                Err(Error::said("there are too many items").placed(extra.span, self.within))
            }
        }
    }

    fn map<V: Visitor<'de>>(
        self,
        entries: &'de [(Node, Node)],
        known: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut access = Entries::new(self, entries, known);
        let result = visitor.visit_map(&mut access);
        if result.is_err() && known.is_some() {
            access.report_unknown();
        }
        match result {
            Ok(value) => access.end().map(|()| value),
            // What is missing is most likely the key that was misspelt.
            Err(Error::Loose(Cause::Missing(_))) if access.met_unknown => Err(Error::Silent),
            Err(error) => Err(error),
        }
    }

    /// The text of a scalar that may stand for a number or a truth value.
    fn unquoted(self) -> Option<&'de str> {
        match &self.node.kind {
            Kind::Scalar { text, style } if *style != Style::Quoted && !is_null(text) => Some(text),
            _ => None,
        }
    }
}

/// Whether a plain scalar is more than text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resolve {
    /// By the rules of YAML 1.2's core schema.
    Core,
    /// It is text.
    Text,
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $type:ident,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let Kind::Scalar { text, .. } = &self.node.kind else {
                return self.visit(visitor, Resolve::Text);
            };
            if self.node.is_nothing() {
                return self.visit(visitor, Resolve::Text);
            }
            let number = self.unquoted().and_then(number::integer);
            let result = match number.and_then(|number| $type::try_from(number).ok()) {
                Some(number) => visitor.$visit(number),
                None => Err(number::not_whole(text, self.unquoted(), &visitor)),
            };
            self.placed(result)
        }
    )*};
}

macro_rules! texts {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.visit(visitor, Resolve::Text)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for De<'de> {
    type Error = Error;

    whole_numbers! {
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
    }

    texts! {
        deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_identifier deserialize_map deserialize_seq deserialize_unit
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit(visitor, Resolve::Core)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.unquoted().and_then(number::truth) {
            Some(value) => self.placed(visitor.visit_bool(value)),
            None => self.visit(visitor, Resolve::Text),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.unquoted().and_then(number::fraction) {
            Some(value) => self.placed(visitor.visit_f64(value)),
            None => self.visit(visitor, Resolve::Text),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.node.is_nothing() {
            return self.placed(visitor.visit_none());
        }
        self.placed(visitor.visit_some(self))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.visit(visitor, Resolve::Text)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let result = match (name, &self.node.kind) {
            (_, Kind::Broken) => Err(Error::Silent),
            (TRIED, _) => visitor.visit_seq(Attempt(Some(self))),
            (SPANNED | HELD, _) => visitor.visit_seq(Parts::new(self)),
            (ONE_OR_MANY, Kind::List(items)) => self.list(items, visitor),
            (ONE_OR_MANY, _) => self.list(std::slice::from_ref(self.node), visitor),
            (SECRET, _) => {
                secret::read(self.node, self.reading).and_then(|text| visitor.visit_str(&text))
            }
            _ => visitor.visit_newtype_struct(self),
        };
        self.placed(result)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.visit(visitor, Resolve::Text)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.visit(visitor, Resolve::Text)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.node.kind {
            Kind::Map(entries) => self.placed(self.map(entries, Some(known), visitor)),
            // serde would take the items for the fields, in their order.
            Kind::List(_) => self.placed(Err(de::Error::invalid_type(Unexpected::Seq, &visitor))),
            Kind::Scalar { .. } | Kind::Broken => self.visit(visitor, Resolve::Text),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let variant = match &self.node.kind {
            Kind::Scalar { .. } if !self.node.is_nothing() => Ok(Variant {
                de: self,
                value: None,
            }),
            Kind::Map(entries) => match entries.as_slice() {
                [(key, value)] => Ok(Variant {
                    de: De { node: key, ..self },
                    value: Some(value),
                }),
                [] => Err(Error::said(
                    "expected a kind and its settings, found an empty map",
                )),
                [_, (extra, _), ..] => Err(Error::more_than_one(extra, self.within)),
            },
            _ => return self.visit(visitor, Resolve::Text),
        };
        self.placed(variant.and_then(|variant| visitor.visit_enum(variant)))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

/// Reads one value of a larger one.
fn seed<'de, S: DeserializeSeed<'de>>(seed: S, de: De<'de>) -> Result<S::Value, Error> {
    de.placed(seed.deserialize(de))
}

#[cfg(test)]
mod tests;
