//! What endpoints do in tests, and statuses of answers.

use std::borrow::Cow;
use std::fmt;

use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Unexpected, Visitor};

use super::Pairs;
use crate::base::problem::Spanned;
use crate::base::values::{Name, OneOrMany, Period, Value};
use crate::upstream::Target;

/// What an endpoint does about a request: a status, a word, or a map.
#[derive(Debug)]
pub(crate) struct Act(pub(crate) WholeAct);

/// What an endpoint does about a request. It has `status` or `failure`, not both.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WholeAct {
    /// The status of its answer, from 200 to 599. Default 200.
    pub(crate) status: Option<Status>,
    /// What it does in the place of an answer.
    pub(crate) failure: Option<Failure>,
    /// Headers of its answer: by name one value or a list of them. Default: none.
    #[serde(default)]
    pub(crate) headers: Pairs<Spanned<Name>, OneOrMany<Value>>,
    /// The body of its answer, as text. Default: empty.
    pub(crate) body: Option<String>,
    /// How long after the request it answers, up to `7d`. Default: at once.
    pub(crate) after: Option<Spanned<Period>>,
    /// The one endpoint of the upstream that does it, as it is written there. Default: whichever is
    /// asked.
    pub(crate) endpoint: Option<Spanned<Target>>,
}

/// How an endpoint fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "EndpointFailure")]
pub(crate) enum Failure {
    /// It refuses the connection.
    Refused,
    /// It takes the request and never answers.
    Timeout,
    /// It takes the request and closes the connection.
    Reset,
}

impl<'de> Deserialize<'de> for Act {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Act;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a status such as `503`, one of `refused`, `timeout`, `reset`, or a map with `status` or `failure`",
                )
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Act, E> {
                let failure = match (text, text.parse()) {
                    ("refused", _) => Failure::Refused,
                    ("timeout", _) => Failure::Timeout,
                    ("reset", _) => Failure::Reset,
                    (_, Ok(status)) => return self.visit_u64(status),
                    _ => return Err(E::invalid_value(Unexpected::Str(text), &self)),
                };
                let failure = Some(failure);
                Ok(Act(WholeAct {
                    failure,
                    ..WholeAct::default()
                }))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Act, E> {
                let status = Some(Status::of(number)?);
                Ok(Act(WholeAct {
                    status,
                    ..WholeAct::default()
                }))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Act, A::Error> {
                WholeAct::deserialize(MapAccessDeserializer::new(map)).map(Act)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Act {
    fn schema_name() -> Cow<'static, str> {
        "Act".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let status = generator.subschema_for::<Status>();
        let failure = generator.subschema_for::<Failure>();
        let whole = WholeAct::json_schema(generator);
        json_schema!({"anyOf": [status, failure, whole]})
    }
}

/// A status of an answer, as a number or as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) StatusCode);

impl Status {
    /// Informational ones are no answers.
    fn of<E: de::Error>(number: u64) -> Result<Self, E> {
        u16::try_from(number)
            .ok()
            .filter(|number| (200..600).contains(number))
            .and_then(|number| StatusCode::from_u16(number).ok())
            .map(Self)
            .ok_or_else(|| E::custom(format!("{number} is not a status from 200 to 599")))
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Status;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status from 200 to 599")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Status, E> {
                match text.parse() {
                    Ok(number) => Status::of(number),
                    Err(_) => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Status, E> {
                Status::of(number)
            }
        }
        deserializer.deserialize_any(Number)
    }
}

impl JsonSchema for Status {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "StatusOrText".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "integer", "minimum": 200, "maximum": 599},
            {"type": "string", "pattern": r"^[2-5][0-9][0-9]$|\$\{"},
        ]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_is_a_status_a_word_or_a_map() {
        let check = |json: &str, status: Option<u16>, failure: Option<Failure>| {
            let Act(act) = serde_json::from_str(json).expect(json);
            let found = act.status.map(|status| status.0.as_u16());
            assert_eq!((found, act.failure), (status, failure), "{json}");
        };
        check("503", Some(503), None);
        check("\"503\"", Some(503), None);
        check("\"refused\"", None, Some(Failure::Refused));
        check("\"timeout\"", None, Some(Failure::Timeout));
        check("\"reset\"", None, Some(Failure::Reset));
        check("{}", None, None);
        check(r#"{"status": "201", "after": "20ms"}"#, Some(201), None);
        check(
            r#"{"failure": "reset", "endpoint": "127.0.0.1:1"}"#,
            None,
            Some(Failure::Reset),
        );
        for wrong in [
            "100",
            "600",
            "-1",
            "true",
            "\"hang\"",
            "[503]",
            r#"{"failure": "hang"}"#,
            r#"{"endpoint": "9001"}"#,
        ] {
            assert!(serde_json::from_str::<Act>(wrong).is_err(), "{wrong}");
        }
    }
}
