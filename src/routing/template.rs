//! Path templates: `/users/{id:int}/files/{rest:path}`.
//!
//! A parameter takes a whole segment, never an empty one; `path` takes the rest of the path, slashes
//! included. Values are handed on percent-decoded.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer};

use crate::base::message::Params;
use crate::routing::path::{EncodedSlashes, normalise};
use crate::routing::segments::Segments;
use crate::routing::text;

/// Segments that a template may have: one bit of a mask each.
const MOST_SEGMENTS: usize = 64;

/// The `path` of a match: a literal, or a template where it holds `{…}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// Exactly this path, in its normal form.
    Literal(Arc<str>),
    /// Paths of this form.
    Template(Arc<Template>),
}

/// A path with parameters.
#[derive(Debug, PartialEq, Eq)]
pub struct Template {
    segments: Box<[Segment]>,
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Param { name: Box<str>, kind: Converter },
}

/// What a parameter takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Converter {
    /// `{x}`: any one segment that is not empty.
    Segment,
    /// `{x:int}`: a whole number that fits into 64 bits, with an optional `-`.
    Int,
    /// `{x:float}`: digits, an optional `-` before and an optional fraction behind them.
    Float,
    /// `{x:uuid}`: 32 hexadecimal digits with dashes, as in RFC 9562.
    Uuid,
    /// `{x:any(a|b)}`: one of these words.
    OneOf(Box<[Box<str>]>),
    /// `{x:path}`: the rest of the path, slashes included, not empty.
    Rest,
}

impl Converter {
    /// True if the parameter takes this segment (this rest), still encoded.
    fn takes(&self, segment: &str) -> bool {
        match self {
            Self::Segment | Self::Rest => !segment.is_empty(),
            Self::Int => is_int(segment),
            Self::Float => is_float(segment),
            Self::Uuid => is_uuid(segment),
            Self::OneOf(words) => words.iter().any(|word| **word == *segment),
        }
    }

    /// A segment, or a rest, that it takes.
    fn example(&self) -> &str {
        match self {
            Self::Segment => "x",
            Self::Rest => "x/y",
            Self::Int => "1",
            Self::Float => "1.5",
            Self::Uuid => "00000000-0000-4000-8000-000000000000",
            Self::OneOf(words) => words.first().map_or("x", |word| word),
        }
    }

    /// True if it takes whatever `other` takes.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Rest, _) | (Self::Float, Self::Int) => true,
            (Self::Segment, other) => *other != Self::Rest,
            (_, Self::OneOf(words)) => words.iter().all(|word| self.takes(word)),
            _ => self == other,
        }
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_int(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    // Only what is long enough to overflow is worth parsing.
    is_digits(digits) && (digits.len() < 19 || text.parse::<i64>().is_ok())
}

fn is_float(text: &str) -> bool {
    let number = text.strip_prefix('-').unwrap_or(text);
    match number.split_once('.') {
        Some((whole, fraction)) => is_digits(whole) && is_digits(fraction),
        None => is_digits(number),
    }
}

fn is_uuid(text: &str) -> bool {
    let is_right = |(i, byte): (usize, u8)| match i {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == 36 && text.bytes().enumerate().all(is_right)
}

/// What a template looks like from outside: paths can be looked up by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Shape {
    /// Number of segments; the least number where `open`.
    pub(super) count: usize,
    /// Which segments are literal, the first in the lowest bit.
    pub(super) mask: u64,
    /// Whether the last takes the rest of the path.
    pub(super) open: bool,
}

impl Shape {
    pub(super) fn literals(self) -> u32 {
        self.mask.count_ones()
    }

    /// The segments of a path that are literal in this shape.
    pub(super) fn literals_of<'s>(
        self,
        segments: &'s Segments<'_>,
    ) -> impl Iterator<Item = &'s str> {
        let mut mask = self.mask;
        std::iter::from_fn(move || {
            let i = mask.trailing_zeros() as usize;
            mask &= mask.wrapping_sub(1);
            segments.get(i)
        })
    }
}

impl Template {
    /// The template of every method of a gRPC service.
    pub(super) fn of_service(service: &str) -> Self {
        let method = Segment::Param {
            name: "method".into(),
            kind: Converter::Segment,
        };
        Self {
            segments: [Segment::Literal(service.into()), method].into(),
        }
    }

    pub(super) fn shape(&self) -> Shape {
        let bit = |(i, segment): (usize, &Segment)| match segment {
            Segment::Literal(_) => 1 << i,
            Segment::Param { .. } => 0,
        };
        let bits = self.segments.iter().enumerate().map(bit);
        Shape {
            count: self.segments.len(),
            mask: bits.fold(0, |mask, bit: u64| mask | bit),
            open: matches!(
                self.segments.last(),
                Some(Segment::Param {
                    kind: Converter::Rest,
                    ..
                })
            ),
        }
    }

    /// The literal segments, in order.
    pub(super) fn literals(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(text) => Some(&**text),
            Segment::Param { .. } => None,
        })
    }

    /// The parameters with what a path of this shape has in their place.
    fn taken<'t>(
        &'t self,
        segments: &'t Segments<'_>,
    ) -> impl Iterator<Item = (&'t str, &'t Converter, &'t str)> {
        let numbered = self.segments.iter().enumerate();
        numbered.filter_map(move |(i, segment)| {
            let Segment::Param { name, kind } = segment else {
                return None;
            };
            let text = match kind {
                Converter::Rest => segments.rest(i),
                _ => segments.get(i),
            };
            Some((&**name, kind, text.unwrap_or_default()))
        })
    }

    /// The first parameter that does not take its segment; the literals are known to be right.
    pub(super) fn refuses<'t>(&'t self, segments: &'t Segments<'_>) -> Option<(&'t str, &'t str)> {
        let mut taken = self.taken(segments);
        let (name, _, text) = taken.find(|(_, kind, text)| !kind.takes(text))?;
        Some((name, text))
    }

    /// True if it has a parameter of that name.
    pub(super) fn has_param(&self, name: &str) -> bool {
        self.segments.iter().any(|segment| match segment {
            Segment::Param { name: param, .. } => **param == *name,
            Segment::Literal(_) => false,
        })
    }

    /// What the parameters took, decoded.
    pub(super) fn params(&self, segments: &Segments<'_>) -> Params {
        let taken = self.taken(segments);
        Params::from_pairs(taken.map(|(name, _, text)| {
            let value = if text.contains('%') {
                // A value that is no UTF-8 stays readable rather than being a reason to refuse.
                percent_decode_str(text).decode_utf8_lossy()
            } else {
                Cow::Borrowed(text)
            };
            (name, value)
        }))
    }

    /// A path that it takes.
    pub(super) fn example(&self) -> String {
        let mut path = String::new();
        for segment in &self.segments {
            path.push('/');
            path.push_str(match segment {
                Segment::Literal(text) => text,
                Segment::Param { kind, .. } => kind.example(),
            });
        }
        path
    }

    /// True if this template takes whatever `other` takes; the literals are known to be the same.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let (mine, others) = (self.shape(), other.shape());
        let fits = if mine.open {
            others.count >= mine.count
        } else {
            others.count == mine.count && !others.open
        };
        let pairs = self.segments.iter().zip(&other.segments);
        fits && pairs.into_iter().all(|pair| match pair {
            (Segment::Param { kind: mine, .. }, Segment::Param { kind: others, .. }) => {
                mine.covers(others)
            }
            (Segment::Param { kind, .. }, Segment::Literal(_)) => *kind == Converter::Rest,
            (Segment::Literal(mine), Segment::Literal(others)) => mine == others,
            (Segment::Literal(_), Segment::Param { .. }) => false,
        })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Param { name, kind } => write!(f, "/{{{name}{kind}}}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Converter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment => Ok(()),
            Self::Int => f.write_str(":int"),
            Self::Float => f.write_str(":float"),
            Self::Uuid => f.write_str(":uuid"),
            Self::OneOf(words) => write!(f, ":any({})", words.join("|")),
            Self::Rest => f.write_str(":path"),
        }
    }
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        let inside = absolute(written)?;
        if !inside.contains(['{', '}']) {
            return literal_path(written).map(|path| Self::Literal(path.into()));
        }
        let wrong = |why: String| format!("`{written}` is not a path template: {why}");
        let mut segments: Vec<Segment> = Vec::new();
        for part in inside.split('/') {
            if segments.last().is_some_and(|segment| {
                matches!(
                    segment,
                    Segment::Param {
                        kind: Converter::Rest,
                        ..
                    }
                )
            }) {
                return Err(wrong(
                    "`{…:path}` takes the rest, so it comes last".to_owned(),
                ));
            }
            let segment = if part.contains(['{', '}']) {
                parameter(part).map_err(wrong)?
            } else {
                Segment::Literal(literal_segment(part).map_err(wrong)?.into())
            };
            if let Segment::Param { name, .. } = &segment
                && segments.iter().any(
                    |known| matches!(known, Segment::Param { name: known, .. } if known == name),
                )
            {
                return Err(wrong(format!("the parameter `{name}` is there twice")));
            }
            segments.push(segment);
        }
        if segments.len() > MOST_SEGMENTS {
            return Err(wrong(format!("it has more than {MOST_SEGMENTS} segments")));
        }
        Ok(Self::Template(Arc::new(Template {
            segments: segments.into(),
        })))
    }
}

fn parameter(part: &str) -> Result<Segment, String> {
    let inner = part.strip_prefix('{').and_then(|p| p.strip_suffix('}'));
    let Some(inner) = inner.filter(|inner| !inner.contains(['{', '}'])) else {
        return Err(format!(
            "`{part}`: a parameter takes a whole segment, as in `/{{name}}/` (use `path_regex` for parts of one)"
        ));
    };
    let (name, kind) = match inner.split_once(':') {
        Some((name, kind)) => (name, converter(kind)?),
        None => (inner, Converter::Segment),
    };
    let is_name = |name: &str| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        name.bytes().all(inside) && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    };
    if !is_name(name) {
        return Err(format!(
            "`{name}` is not a parameter's name: letters, digits and `_`, no digit first"
        ));
    }
    Ok(Segment::Param {
        name: name.into(),
        kind,
    })
}

fn converter(written: &str) -> Result<Converter, String> {
    let words = written
        .strip_prefix("any(")
        .and_then(|w| w.strip_suffix(')'));
    match (written, words) {
        ("int", _) => Ok(Converter::Int),
        ("float", _) => Ok(Converter::Float),
        ("uuid", _) => Ok(Converter::Uuid),
        ("path", _) => Ok(Converter::Rest),
        (_, Some(words)) => {
            let words = words.split('|').map(|word| match word {
                "" => Err("`any(…)` holds an empty word".to_owned()),
                word => literal_segment(word).map(Into::into),
            });
            words.collect::<Result<_, _>>().map(Converter::OneOf)
        }
        _ => Err(format!(
            "there is no converter `{written}`: `int`, `float`, `uuid`, `any(a|b)`, `path`"
        )),
    }
}

/// What follows the slash at the start.
fn absolute(written: &str) -> Result<&str, String> {
    let Some(inside) = written.strip_prefix('/') else {
        return Err(format!("`{written}` is not a path: it starts with `/`"));
    };
    if written.contains(['?', '#']) {
        return Err(format!(
            "`{written}` is not a path: match the query by `query`, and write `?` and `#` as `%3F` and `%23`"
        ));
    }
    Ok(inside)
}

/// A path without parameters, in its normal form.
pub(super) fn literal_path(written: &str) -> Result<String, String> {
    let mut path = String::with_capacity(written.len());
    for segment in absolute(written)?.split('/') {
        path.push('/');
        path.push_str(&literal_segment(segment).map_err(|why| format!("`{written}`: {why}"))?);
    }
    Ok(path)
}

/// One segment in its normal form.
fn literal_segment(written: &str) -> Result<String, String> {
    let slashed = format!("/{written}");
    let normal = normalise(&slashed, EncodedSlashes::Keep).map_err(|error| error.to_string())?;
    let segment = normal.strip_prefix('/').unwrap_or_default();
    if segment.is_empty() && !written.is_empty() {
        return Err(
            "`.` and `..` are resolved before matching, so no request could match".to_owned(),
        );
    }
    Ok(segment.to_owned())
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::read(
            deserializer,
            "a path such as `/health` or `/users/{id:int}`",
        )
    }
}

impl JsonSchema for PathPattern {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "PathPattern".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        text::schema("^/", &["/health", "/users/{id:int}/files/{rest:path}"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(written: &str) -> Arc<Template> {
        match written.parse() {
            Ok(PathPattern::Template(template)) => template,
            other => panic!("{written}: {other:?}"),
        }
    }

    #[test]
    fn literals_are_brought_to_the_normal_form_of_requests() {
        let check = |written: &str, expected: &str| {
            let literal = PathPattern::Literal(expected.into());
            assert_eq!(written.parse(), Ok(literal));
        };
        check("/", "/");
        check("/a/b/", "/a/b/");
        check("/a//b", "/a//b");
        check("/caf\u{e9} x", "/caf%C3%A9%20x");
        check("/%7euser", "/~user");
        check("/a%2fb", "/a%2Fb");
        check("/.well-known", "/.well-known");
    }

    #[test]
    fn templates_are_read_and_shown_as_written() {
        let check = |written: &str, count: usize, mask: u64, open: bool| {
            let template = template(written);
            assert_eq!(template.to_string(), written);
            assert_eq!(template.shape(), Shape { count, mask, open });
        };
        check("/{x}", 1, 0b0, false);
        check("/hello/{name}", 2, 0b01, false);
        check("/{a}/b/{c:int}/", 4, 0b1010, false);
        check("/files/{rest:path}", 2, 0b01, true);
        check("/{kind:any(cat|dog)}/{id:uuid}/{w:float}", 3, 0, false);
    }

    #[test]
    fn bad_paths_and_templates_are_refused_with_their_reason() {
        let check = |written: &str, word: &str| {
            let problem = written.parse::<PathPattern>().expect_err(written);
            assert!(problem.contains(word), "{written}: {problem}");
        };
        check("", "starts with `/`");
        check("a", "starts with `/`");
        check("/a?b=1", "by `query`");
        check("/a/../b", "resolved before matching");
        check("/a/%2e/{x}", "resolved before matching");
        check("/a\\b", "backslash");
        check("/100%", "two hexadecimal digits");
        check("/v{n}", "a whole segment");
        check("/{a}{b}", "a whole segment");
        check("/{a", "a whole segment");
        check("/a}", "a whole segment");
        check("/{}", "not a parameter's name");
        check("/{1a}", "not a parameter's name");
        check("/{a-b}", "not a parameter's name");
        check("/{a:integer}", "no converter `integer`");
        check("/{a:any()}", "an empty word");
        check("/{a:any(x|)}", "an empty word");
        check("/{a:path}/b", "comes last");
        check("/{a}/{a}", "there twice");
        check(
            &"/{a}"
                .replace("{a}", "b/")
                .repeat(70)
                .replace("//", "/")
                .replacen('b', "{x}", 1),
            "more than 64",
        );
    }

    #[test]
    fn converters_take_what_they_say() {
        let check = |written: &str, path: &str, expected: &[(&str, &str)]| {
            let template = template(written);
            let segments = Segments::new(path, 10);
            let refused = template.refuses(&segments).is_some();
            assert_eq!(refused, expected.is_empty(), "{written} {path}");
            if !refused {
                let params = template.params(&segments);
                assert_eq!(params.iter().collect::<Vec<_>>(), expected);
            }
        };
        check("/u/{x}", "/u/7", &[("x", "7")]);
        check("/u/{x}", "/u/", &[]);
        check("/u/{x}", "/u/a%20b%2F", &[("x", "a b/")]);
        check("/u/{x}", "/u/%FF", &[("x", "\u{fffd}")]);
        check("/u/{x:int}", "/u/7", &[("x", "7")]);
        check("/u/{x:int}", "/u/-007", &[("x", "-007")]);
        check("/u/{x:int}", "/u/7.5", &[]);
        check("/u/{x:int}", "/u/-", &[]);
        check("/u/{x:int}", "/u/+7", &[]);
        check("/u/{x:int}", "/u/", &[]);
        check(
            "/u/{x:int}",
            "/u/9223372036854775807",
            &[("x", "9223372036854775807")],
        );
        check("/u/{x:int}", "/u/9223372036854775808", &[]);
        check("/u/{x:float}", "/u/7", &[("x", "7")]);
        check("/u/{x:float}", "/u/-7.25", &[("x", "-7.25")]);
        check("/u/{x:float}", "/u/7.", &[]);
        check("/u/{x:float}", "/u/.5", &[]);
        check("/u/{x:float}", "/u/1e5", &[]);
        check("/u/{x:float}", "/u/NaN", &[]);
        let id = "123e4567-E89B-12d3-a456-426614174000";
        check("/u/{x:uuid}", &format!("/u/{id}"), &[("x", id)]);
        check("/u/{x:uuid}", "/u/123e4567e89b12d3a456426614174000", &[]);
        check(
            "/u/{x:uuid}",
            "/u/123e4567-E89B-12d3-a456-42661417400g",
            &[],
        );
        check("/u/{x:any(a|b c)}", "/u/b%20c", &[("x", "b c")]);
        check("/u/{x:any(a|b)}", "/u/c", &[]);
        check("/u/{x:any(a|b)}", "/u/", &[]);
        check("/u/{x:path}", "/u/a/b/", &[("x", "a/b/")]);
        check("/u/{x:path}", "/u/", &[]);
        check(
            "/{a}/{b:int}/{c:path}",
            "/x/1/y//z",
            &[("a", "x"), ("b", "1"), ("c", "y//z")],
        );
    }

    #[test]
    fn a_template_covers_what_takes_less() {
        let check = |wide: &str, narrow: &str, expected: bool| {
            assert_eq!(
                template(wide).covers(&template(narrow)),
                expected,
                "{wide} {narrow}"
            );
        };
        check("/a/{x}", "/a/{y}", true);
        check("/a/{x}", "/a/{y:int}", true);
        check("/a/{x:int}", "/a/{y}", false);
        check("/a/{x:float}", "/a/{y:int}", true);
        check("/a/{x:any(b|c)}", "/a/{y:any(c)}", true);
        check("/a/{x:any(b|c)}", "/a/{y:any(d)}", false);
        check("/a/{x:int}", "/a/{y:any(1|2)}", true);
        check("/a/{x:path}", "/a/{y}", true);
        check("/a/{x:path}", "/a/{y}/{z}", true);
        check("/a/{x}", "/a/{y:path}", false);
        check("/a/{x}/{y:path}", "/a/{z:path}", false);
    }
}
