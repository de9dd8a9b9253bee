//! Conditions on one named value: a header, a query parameter, a cookie.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use smallvec::SmallVec;

use crate::routing::pattern::Pattern;

/// What a value must be: text for exactly that (`x-canary: "1"`), or one of `exact`, `prefix`,
/// `regex`, `present`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueMatch {
    /// Byte for byte this.
    Exact(Box<str>),
    /// Anything that starts like this.
    Prefix(Box<str>),
    /// Anything of which the whole matches this.
    Regex(Pattern),
    /// Anything, if only it is there.
    Present,
    /// It must not be there.
    Absent,
}

impl ValueMatch {
    /// True if `value` is as it must be; none means that there is no such value.
    #[inline]
    pub fn holds(&self, value: Option<&[u8]>) -> bool {
        match (self, value) {
            (Self::Absent, value) => value.is_none(),
            (_, None) => false,
            (Self::Exact(text), Some(value)) => text.as_bytes() == value,
            (Self::Prefix(text), Some(value)) => value.starts_with(text.as_bytes()),
            (Self::Regex(pattern), Some(value)) => pattern.is_match(value),
            (Self::Present, Some(_)) => true,
        }
    }

    /// True if whatever holds for `other` holds for this, too.
    pub(super) fn is_implied_by(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, _) | (_, Self::Absent) => self == other,
            (Self::Present, _) => true,
            (_, Self::Exact(text)) => self.holds(Some(text.as_bytes())),
            (Self::Prefix(short), Self::Prefix(long)) => long.starts_with(&**short),
            _ => self == other,
        }
    }
}

impl fmt::Display for ValueMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "= {text:?}"),
            Self::Prefix(text) => write!(f, "starts with {text:?}"),
            Self::Regex(pattern) => write!(f, "matches /{}/", pattern.as_str()),
            Self::Present => f.write_str("is present"),
            Self::Absent => f.write_str("is absent"),
        }
    }
}

/// The long form of a condition: exactly one of these.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
struct Written {
    /// The value must be exactly this.
    exact: Option<String>,
    /// The value must start with this.
    prefix: Option<String>,
    /// The whole value must match this regular expression (RE2-like syntax, ASCII classes), as in
    /// `^[a-z]+$`.
    regex: Option<Pattern>,
    /// `true`: the value must be there, whatever it is. `false`: it must not be there.
    present: Option<bool>,
}

impl Written {
    fn settle(self) -> Result<ValueMatch, &'static str> {
        match (self.exact, self.prefix, self.regex, self.present) {
            (Some(text), None, None, None) => Ok(ValueMatch::Exact(text.into())),
            (None, Some(text), None, None) => Ok(ValueMatch::Prefix(text.into())),
            (None, None, Some(pattern), None) => Ok(ValueMatch::Regex(pattern)),
            (None, None, None, Some(true)) => Ok(ValueMatch::Present),
            (None, None, None, Some(false)) => Ok(ValueMatch::Absent),
            _ => Err("a condition has exactly one of `exact`, `prefix`, `regex`, `present`"),
        }
    }
}

impl<'de> Deserialize<'de> for ValueMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ValueMatch;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the exact value, or one of `exact`, `prefix`, `regex`, `present`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ValueMatch, E> {
                Ok(ValueMatch::Exact(text.into()))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<ValueMatch, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<ValueMatch, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ValueMatch, A::Error> {
                Written::deserialize(MapAccessDeserializer::new(map))?
                    .settle()
                    .map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for ValueMatch {
    fn schema_name() -> Cow<'static, str> {
        "ValueMatch".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut long = Written::json_schema(generator);
        long.insert("minProperties".into(), 1.into());
        long.insert("maxProperties".into(), 1.into());
        json_schema!({
            "description": "What a value must be: text for exactly that, or one of `exact`, `prefix`, `regex`, `present`.",
            "anyOf": [{"type": ["string", "integer"]}, long],
        })
    }
}

/// Names and what their values must be, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditions<N>(pub Vec<(N, ValueMatch)>);

impl<N> Default for Conditions<N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, N: Deserialize<'de> + PartialEq> Deserialize<'de> for Conditions<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<N>(PhantomData<N>);
        impl<'de, N: Deserialize<'de> + PartialEq> Visitor<'de> for Pairs<N> {
            type Value = Conditions<N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of names to conditions")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Conditions<N>, A::Error> {
                let mut pairs: Vec<(N, ValueMatch)> = Vec::new();
                while let Some(name) = map.next_key()? {
                    if pairs.iter().any(|(known, _)| *known == name) {
                        return Err(de::Error::custom(
                            "the same name is given twice (header names are the same in upper and lower case)",
                        ));
                    }
                    pairs.push((name, map.next_value()?));
                }
                Ok(Conditions(pairs))
            }
        }
        deserializer.deserialize_map(Pairs(PhantomData))
    }
}

impl<N> JsonSchema for Conditions<N> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Conditions".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<ValueMatch>();
        json_schema!({"type": "object", "additionalProperties": value})
    }
}

/// The decoded value of a query parameter; on the stack where it is short, borrowed where it can be.
pub(super) enum QueryValue<'a> {
    Plain(&'a [u8]),
    Decoded(SmallVec<[u8; 128]>),
}

impl QueryValue<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Decoded(bytes) => bytes,
        }
    }
}

/// The first value of `name` in a query string; names and values are compared decoded (percent
/// encoding, and `+` for a space, as browsers send forms).
pub(super) fn query_value<'q>(query: &'q str, name: &str) -> Option<QueryValue<'q>> {
    let pairs = query
        .split('&')
        .map(|pair| match memchr::memchr(b'=', pair.as_bytes()) {
            Some(at) => (pair.get(..at), pair.get(at + 1..)),
            None => (Some(pair), None),
        });
    for (key, value) in pairs {
        let (key, value) = (key.unwrap_or_default(), value.unwrap_or_default());
        if !decoded(key).eq(name.bytes()) {
            continue;
        }
        let plain = memchr::memchr2(b'%', b'+', value.as_bytes()).is_none();
        return Some(if plain {
            QueryValue::Plain(value.as_bytes())
        } else {
            QueryValue::Decoded(decoded(value).collect())
        });
    }
    None
}

/// The bytes that an encoded text stands for; a `%` without two digits stands for itself.
fn decoded(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (&first, tail) = rest.split_first()?;
        rest = tail;
        match (first, tail) {
            (b'+', _) => Some(b' '),
            (b'%', [high, low, ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = digit(*high).zip(digit(*low)).map(|(h, l)| h << 4 | l);
                let Some(value) = value.and_then(|value| u8::try_from(value).ok()) else {
                    return Some(first);
                };
                rest = tail.get(2..).unwrap_or_default();
                Some(value)
            }
            _ => Some(first),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(json: &str) -> Result<ValueMatch, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn each_kind_holds_where_it_should() {
        let check = |json: &str, value: Option<&str>, expected: bool| {
            let condition = condition(json).expect(json);
            assert_eq!(
                condition.holds(value.map(str::as_bytes)),
                expected,
                "{json} {value:?}"
            );
        };
        check(r#""one""#, Some("one"), true);
        check(r#""one""#, Some("One"), false);
        check(r#""one""#, None, false);
        check("2", Some("2"), true);
        check("-2", Some("-2"), true);
        check(r#""""#, Some(""), true);
        check(r#""""#, None, false);
        check(r#"{"exact": "one"}"#, Some("one"), true);
        check(r#"{"prefix": "on"}"#, Some("one"), true);
        check(r#"{"prefix": "on"}"#, Some("o"), false);
        check(r#"{"regex": "[a-z]+"}"#, Some("one"), true);
        check(r#"{"regex": "[a-z]+"}"#, Some("one1"), false);
        check(r#"{"present": true}"#, Some(""), true);
        check(r#"{"present": true}"#, None, false);
        check(r#"{"present": false}"#, None, true);
        check(r#"{"present": false}"#, Some("one"), false);
    }

    #[test]
    fn a_condition_has_exactly_one_kind() {
        let check = |json: &str, word: &str| {
            let problem = condition(json).expect_err(json);
            assert!(problem.contains(word), "{json}: {problem}");
        };
        check("{}", "exactly one of");
        check(r#"{"exact": "a", "prefix": "b"}"#, "exactly one of");
        check(r#"{"equals": "a"}"#, "unknown field");
        check(r#"{"regex": "("}"#, "unclosed group");
        check("true", "the exact value, or one of");
        check("[1]", "the exact value, or one of");
    }

    #[test]
    fn a_name_is_given_once() {
        let twice = r#"{"X-A": "1", "x-a": "2"}"#;
        let problem = serde_json::from_str::<Conditions<crate::base::values::Name>>(twice);
        assert!(problem.is_err_and(|error| error.to_string().contains("twice")));
    }

    #[test]
    fn query_values_are_compared_decoded_and_the_first_counts() {
        let check = |query: &str, name: &str, expected: Option<&str>| {
            let value = query_value(query, name);
            let value = value.as_ref().map(QueryValue::bytes);
            assert_eq!(value, expected.map(str::as_bytes), "{query} {name}");
        };
        check("a=1&b=2", "b", Some("2"));
        check("a=1&a=2", "a", Some("1"));
        check("a", "a", Some(""));
        check("a=", "a", Some(""));
        check("", "a", None);
        check("aa=1", "a", None);
        check("A=1", "a", None);
        check("a=x=y", "a", Some("x=y"));
        check("a=1+2%20%c3%A9", "a", Some("1 2 \u{e9}"));
        check("%61%20b=1", "a b", Some("1"));
        check("a=100%", "a", Some("100%"));
        check("a=%zz%4", "a", Some("%zz%4"));
        check("&&a=1", "a", Some("1"));
    }

    #[test]
    fn one_condition_may_imply_another() {
        let check = |weak: &str, strong: &str, expected: bool| {
            let (weak, strong) = (
                condition(weak).expect(weak),
                condition(strong).expect(strong),
            );
            assert_eq!(weak.is_implied_by(&strong), expected, "{weak} {strong}");
        };
        check(r#"{"present": true}"#, r#""a""#, true);
        check(r#""a""#, r#"{"present": true}"#, false);
        check(r#"{"prefix": "a"}"#, r#""ab""#, true);
        check(r#"{"prefix": "a"}"#, r#"{"prefix": "ab"}"#, true);
        check(r#"{"prefix": "ab"}"#, r#"{"prefix": "a"}"#, false);
        check(r#"{"regex": "a+"}"#, r#""aa""#, true);
        check(r#"{"regex": "a+"}"#, r#"{"regex": "a+"}"#, true);
        check(r#"{"regex": "a+"}"#, r#"{"regex": "a"}"#, false);
        check(r#"{"present": false}"#, r#""a""#, false);
        check(r#"{"present": false}"#, r#"{"present": false}"#, true);
        check(r#"{"present": true}"#, r#"{"present": false}"#, false);
    }
}
