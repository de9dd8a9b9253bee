//! What a deserialization failed on, first without a place, then with one.
//!
//! The innermost node that an error passes gives it its place and its words.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use super::{Within, words};
use crate::base::problem::{Problem, Span};
use crate::config::tree::Node;
use crate::config::{later, suggest};

/// A failed deserialization.
#[derive(Debug)]
pub(in crate::config) enum Error {
    /// What serde or a type said, not yet placed.
    Loose(Cause),
    /// With a place.
    Placed(Box<Problem>),
    /// Already reported where it happened.
    Silent,
}

/// What went wrong.
#[derive(Debug)]
pub(in crate::config) enum Cause {
    /// A sentence.
    Said(String),
    /// A value of another type, with what was expected and what was found.
    Type(String),
    /// A number or a truth value where text was expected.
    Unquoted(String),
    /// A number in quotes.
    Quoted(String),
    /// A key that the map does not have.
    UnknownKey(String, &'static [&'static str]),
    /// A kind or a value that is not among those that exist.
    UnknownKind(String, &'static [&'static str]),
    /// A key that the map must have.
    Missing(&'static str),
    /// A kind was written bare and needs the key in its settings.
    Bare(String, Option<&'static str>),
}

impl Error {
    /// A sentence without a place.
    pub(in crate::config) fn said(message: impl Into<String>) -> Self {
        Self::Loose(Cause::Said(message.into()))
    }

    /// A second kind where one is due.
    pub(super) fn more_than_one(key: &Node, within: Within<'_>) -> Self {
        let message = format!("expected one kind, found also `{}`", key.key());
        let help = match within.key() {
            "middlewares" => "in a list, write it as an item of its own",
            _ => "keep one of them",
        };
        Self::Placed(Box::new(Problem::error(key.span, message).help(help)))
    }

    /// The error at a place, unless it has one.
    pub(in crate::config) fn placed(self, span: Span, within: Within<'_>) -> Self {
        match self {
            Self::Loose(cause) => Self::Placed(Box::new(cause.at(span, within))),
            placed => placed,
        }
    }
}

impl Cause {
    fn at(self, span: Span, within: Within<'_>) -> Problem {
        match self {
            Self::Said(message) | Self::Type(message) => Problem::error(span, message),
            Self::Unquoted(message) => {
                Problem::error(span, message).help("put it in quotes if it is meant as text")
            }
            Self::Quoted(message) => Problem::error(span, message).help("remove the quotes"),
            Self::UnknownKey(key, known) => unknown_key(&key, known, span, within),
            Self::UnknownKind(kind, known) => unknown_kind(&kind, known, span, within),
            Self::Missing(key) => {
                Problem::error(span, format!("the key `{key}` is missing in {within}"))
            }
            Self::Bare(kind, Some(key)) => {
                let message = format!("`{kind}` needs settings, at least `{key}`");
                Problem::error(span, message).help(format!("write `{{{kind}: {{{key}: …}}}}`"))
            }
            Self::Bare(kind, None) => Problem::error(span, format!("`{kind}` needs settings"))
                .help(format!("write `{{{kind}: …}}`")),
        }
    }
}

/// A key that nobody knows, or that a later version will.
pub(super) fn unknown_key(key: &str, known: &[&str], span: Span, within: Within<'_>) -> Problem {
    if let Within::Item { section, .. } = within
        && later::is_key(section, key)
    {
        return not_yet(key, span);
    }
    let problem = Problem::error(span, format!("unknown key `{key}` in {within}"));
    with_advice(problem, key, known)
}

fn unknown_kind(kind: &str, known: &[&str], span: Span, within: Within<'_>) -> Problem {
    let key = within.key();
    if later::is_kind(key, kind) {
        return not_yet(kind, span);
    }
    let message = match key {
        "middlewares" => format!("unknown middleware kind `{kind}`"),
        "handler" | "handlers" => format!("unknown handler kind `{kind}`"),
        _ => format!("unknown value `{kind}` for {within}"),
    };
    with_advice(Problem::error(span, message), kind, known)
}

fn not_yet(word: &str, span: Span) -> Problem {
    Problem::error(
        span,
        format!("`{word}` is not supported by this version yet"),
    )
    .help("remove it")
}

fn with_advice(problem: Problem, word: &str, known: &[&str]) -> Problem {
    match suggest::advice(word, known.iter().copied()) {
        Some(advice) => problem.help(advice),
        None => problem,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loose(cause) => write!(f, "{cause:?}"),
            Self::Placed(problem) => problem.fmt(f),
            Self::Silent => f.write_str("already reported"),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::said(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = words::expected(&expected.to_string());
        let message = format!("expected {expected}, found {}", words::found(found));
        Self::Loose(match found {
            Unexpected::Bool(_)
            | Unexpected::Unsigned(_)
            | Unexpected::Signed(_)
            | Unexpected::Float(_) => Cause::Unquoted(message),
            _ => Cause::Type(message),
        })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = words::expected(&expected.to_string());
        Self::said(format!(
            "expected {expected}, found {}",
            words::found(found)
        ))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        let expected = words::expected(&expected.to_string());
        Self::said(format!("expected {expected}, found {length} items"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::Loose(Cause::UnknownKind(variant.to_owned(), expected))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::Loose(Cause::UnknownKey(field.to_owned(), expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Loose(Cause::Missing(field))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::said(format!("the key `{field}` is written twice"))
    }
}
