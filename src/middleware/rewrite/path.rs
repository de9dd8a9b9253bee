//! Paths: how one is made of a template, and whether it is in normal form.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Text with names in braces.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template(Box<[Piece]>);

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Literal(Box<str>),
    Name(Box<str>, Text),
}

/// How a value is written into a path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Text {
    /// Percent-encoded, slashes too.
    Segment,
    /// Percent-encoded, but for slashes.
    Path,
    /// As it is: it is part of a path already.
    Raw,
}

impl Template {
    pub(super) fn parse(text: &str, default: Text) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let Some((inner, after)) = after.split_once('}') else {
                return Err(format!("`{text}`: a `{{` has no `}}`"));
            };
            let (name, kind) = match inner.split_once(':') {
                Some((name, "path")) => (name, Text::Path),
                Some((_, kind)) => {
                    return Err(format!(
                        "`{{{inner}}}`: only `:path` may follow a name here, not `:{kind}`"
                    ));
                }
                None => (inner, default),
            };
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || !name.chars().all(is_name) {
                return Err(format!("`{{{inner}}}`: `{name}` is not a name"));
            }
            pieces.push(Piece::Literal(literal.into()));
            pieces.push(Piece::Name(name.into(), kind));
            rest = after;
        }
        pieces.push(Piece::Literal(rest.into()));
        Ok(Self(pieces.into()))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Name(name, _) => Some(&**name),
        })
    }

    /// The text with each name's value; empty for one that has none.
    pub(super) fn fill<'a>(&self, value: impl Fn(&str) -> Option<Cow<'a, str>>) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Name(name, kind) => {
                    let value = value(name).unwrap_or_default();
                    match kind {
                        Text::Raw => text.push_str(&value),
                        Text::Segment => text.extend(utf8_percent_encode(&value, &SEGMENT)),
                        Text::Path => text.extend(utf8_percent_encode(&value, &PATH)),
                    }
                }
            }
        }
        text
    }
}

/// What is escaped in a segment: all but RFC 3986's `pchar`, and `;`, behind which some servers read
/// parameters.
const SEGMENT: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// The same for a text of several segments.
const PATH: AsciiSet = SEGMENT.remove(b'/');

/// True for a path in normal form: rooted, only characters that a path may hold, escapes in upper case
/// and only where they are needed, no dot segments, nothing that is read in two ways.
pub(super) fn is_normal(path: &str) -> bool {
    path.starts_with('/')
        && path
            .split('/')
            .all(|segment| !matches!(segment, "." | ".."))
        && has_path_characters(path.as_bytes())
}

fn has_path_characters(mut bytes: &[u8]) -> bool {
    while let [first, rest @ ..] = bytes {
        bytes = match (first, rest) {
            (b'%', [high, low, rest @ ..]) if is_needed_escape(*high, *low) => rest,
            (c, rest) if is_unreserved(*c) || b"!$&'()*+,;=:@/".contains(c) => rest,
            _ => return false,
        };
    }
    true
}

fn is_needed_escape(high: u8, low: u8) -> bool {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    };
    match (value(high), value(low)) {
        (Some(high), Some(low)) => {
            let byte = high << 4 | low;
            !is_unreserved(byte) && byte != 0 && byte != b'\\'
        }
        _ => false,
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}
