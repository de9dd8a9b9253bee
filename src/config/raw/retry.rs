//! `retry:` and `hedge:` of a route.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, Unexpected, Visitor};

use crate::base::problem::Spanned;
use crate::base::values::{OneOrMany, Period, Share, Size};
use crate::config::de::tried;

/// When a request is tried again. What may have run on the upstream is tried again only if the
/// request may be repeated: GET, HEAD, OPTIONS, TRACE, PUT, DELETE, or `idempotent: true`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Retry {
    /// How many times a request is tried in all, the first included: 1 (never again) to 10.
    /// Default 3.
    #[serde(deserialize_with = "tried::field")]
    pub(crate) attempts: Option<UpTo<10>>,
    /// What is tried again: `connect_failure`, `refused_stream`, `closed` (the connection ended
    /// before a byte of the answer), `stale_connection` (the same on one that was used before),
    /// `timeout` (of an attempt), statuses from 400 to 599 such as
    /// `502`, classes such as `5xx`, and statuses of gRPC: `unavailable`, `resource_exhausted`,
    /// `deadline_exceeded`, `aborted`, `cancelled`, `internal`. Default
    /// `[connect_failure, refused_stream, closed, 502, 503, unavailable]`.
    #[serde(deserialize_with = "tried::field")]
    pub(crate) on: Option<Spanned<OneOrMany<Condition>>>,
    /// The longest wait before the second attempt. It doubles with each further attempt; the wait is
    /// a random part of it, so that clients that failed together do not come back together. Default
    /// `25ms`.
    #[serde(deserialize_with = "tried::field")]
    pub(crate) backoff: Option<Period>,
    /// What it does not grow beyond. Default: ten times `backoff`.
    #[serde(deserialize_with = "tried::field")]
    pub(crate) max_backoff: Option<Spanned<Period>>,
    /// How long an upstream may ask us to wait, by `retry-after` or `grpc-retry-pushback-ms`. If it
    /// asks for more, its answer is passed on instead. Default `1s`.
    #[serde(deserialize_with = "tried::field")]
    pub(crate) retry_after: Option<Period>,
    /// How many retries there may be, as a share of the requests of the last ten seconds; each
    /// worker may make 30 more in that time. Default `20%`.
    #[serde(deserialize_with = "tried::field")]
    pub(crate) budget: Option<Share>,
    /// How much of a request's body is kept to be sent again. A longer one is never held up, but
    /// not tried again once more than this was sent. At most `16MiB`. Default `64KiB`.
    #[serde(deserialize_with = "tried::field")]
    pub(crate) buffer: Option<Spanned<Size>>,
    /// Every request of the route may be repeated, whatever its method. Default false.
    #[serde(deserialize_with = "tried::field")]
    pub(crate) idempotent: bool,
}

/// Ask a second endpoint when the first is slow, and take the answer that comes first. Only for
/// requests that may be repeated, and whose body is there already; counts against `retry.budget`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Hedge {
    /// How long the answer's head is waited for: a duration, or `p95`, what 95 of 100 answers lately
    /// did not take longer than. Default `p95`.
    #[serde(deserialize_with = "tried::field")]
    pub(crate) after: Option<After>,
    /// How many more endpoints are asked, one after the other: 1 to 4. Default 1.
    #[serde(deserialize_with = "tried::field")]
    pub(crate) max: Option<UpTo<4>>,
}

/// A number from 1 to some other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UpTo<const MOST: u32>(pub(crate) u32);

impl<'de, const MOST: u32> Deserialize<'de> for UpTo<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number<const MOST: u32>;
        impl<const MOST: u32> Visitor<'_> for Number<MOST> {
            type Value = UpTo<MOST>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from 1 to {MOST}")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                match u32::try_from(number) {
                    Ok(number) if (1..=MOST).contains(&number) => Ok(UpTo(number)),
                    _ => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
                }
            }
        }
        deserializer.deserialize_u64(Number)
    }
}

impl<const MOST: u32> JsonSchema for UpTo<MOST> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("UpTo{MOST}").into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 1, "maximum": MOST})
    }
}

/// How an attempt may end that is worth another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// There was no connection to send the request on.
    ConnectFailure,
    /// The endpoint said that it did not begin to work on the request.
    RefusedStream,
    /// The connection ended before a byte of the answer.
    Closed,
    /// The same, on a connection that earlier requests had used: most likely it was about to be closed.
    StaleConnection,
    /// The attempt took too long.
    Timeout,
    /// An answer of that status.
    Status(u16),
    /// An answer whose status begins with that digit.
    Class(u16),
    /// An answer of gRPC with that status and nothing else.
    Grpc(u8),
}

/// Every condition that is a word.
const WORDS: &[(&str, Condition)] = &[
    ("connect_failure", Condition::ConnectFailure),
    ("refused_stream", Condition::RefusedStream),
    ("closed", Condition::Closed),
    ("stale_connection", Condition::StaleConnection),
    ("timeout", Condition::Timeout),
    ("4xx", Condition::Class(4)),
    ("5xx", Condition::Class(5)),
    ("cancelled", Condition::Grpc(1)),
    ("deadline_exceeded", Condition::Grpc(4)),
    ("resource_exhausted", Condition::Grpc(8)),
    ("aborted", Condition::Grpc(10)),
    ("internal", Condition::Grpc(13)),
    ("unavailable", Condition::Grpc(14)),
];

/// The words alone, as deserializers want them; in the order of [`WORDS`].
const NAMES: &[&str] = &[
    "connect_failure",
    "refused_stream",
    "closed",
    "stale_connection",
    "timeout",
    "4xx",
    "5xx",
    "cancelled",
    "deadline_exceeded",
    "resource_exhausted",
    "aborted",
    "internal",
    "unavailable",
];

/// As it is written.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = WORDS.iter().find(|(_, condition)| condition == self);
        match (word, self) {
            (Some((word, _)), _) => f.write_str(word),
            (None, Self::Status(status)) => write!(f, "{status}"),
            (None, Self::Class(class)) => write!(f, "{class}xx"),
            (None, Self::Grpc(code)) => write!(f, "grpc {code}"),
            (None, _) => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = Condition;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a condition such as `connect_failure`, or a status from 400 to 599")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Condition, E> {
                if let Ok(status) = text.parse() {
                    return self.visit_u64(status);
                }
                WORDS
                    .iter()
                    .find(|(word, _)| *word == text)
                    .map(|(_, condition)| *condition)
                    .ok_or_else(|| E::unknown_variant(text, NAMES))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Condition, E> {
                match u16::try_from(number) {
                    Ok(status @ 400..=599) => Ok(Condition::Status(status)),
                    _ => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(Word)
    }
}

impl JsonSchema for Condition {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Condition".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let text = format!(r"^({}|[45][0-9][0-9])$|\$\{{", NAMES.join("|"));
        json_schema!({"anyOf": [
            {"type": "string", "pattern": text},
            {"type": "integer", "minimum": 400, "maximum": 599},
        ]})
    }
}

/// When a second endpoint is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum After {
    /// When the first takes longer than 95 of 100 answers took lately.
    #[default]
    P95,
    /// After that time.
    Fixed(Duration),
}

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either(PhantomData<After>);
        impl Visitor<'_> for Either {
            type Value = After;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`p95`, or a duration such as `50ms`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<After, E> {
                if text == "p95" {
                    return Ok(After::P95);
                }
                match text.parse() {
                    Ok(Period(after)) if !after.is_zero() => Ok(After::Fixed(after)),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<After, E> {
                Err(E::invalid_value(Unexpected::Unsigned(number), &self))
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl JsonSchema for After {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "After".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let period = Period::json_schema(generator);
        json_schema!({"anyOf": [{"const": "p95"}, period]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_words_statuses_and_classes() {
        let check = |json: &str, expected: Option<Condition>| {
            assert_eq!(serde_json::from_str(json).ok(), expected, "{json}");
        };
        check("\"connect_failure\"", Some(Condition::ConnectFailure));
        check("\"timeout\"", Some(Condition::Timeout));
        check("\"502\"", Some(Condition::Status(502)));
        check("429", Some(Condition::Status(429)));
        check("\"5xx\"", Some(Condition::Class(5)));
        check("\"unavailable\"", Some(Condition::Grpc(14)));
        for wrong in [
            "200",
            "\"200\"",
            "600",
            "\"2xx\"",
            "\"unavailble\"",
            "true",
            "-503",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn every_word_is_named() {
        let words: Vec<_> = WORDS.iter().map(|(word, _)| *word).collect();
        assert_eq!(words, NAMES);
    }

    #[test]
    fn a_hedge_waits_for_p95_or_a_time() {
        let check = |json: &str, expected: Option<After>| {
            assert_eq!(serde_json::from_str(json).ok(), expected, "{json}");
        };
        check("\"p95\"", Some(After::P95));
        check("\"50ms\"", Some(After::Fixed(Duration::from_millis(50))));
        for wrong in ["\"0s\"", "\"p99\"", "50", "\"soon\""] {
            check(wrong, None);
        }
    }
}
