//! A status that a handler may answer with.

use std::borrow::Cow;
use std::fmt;

use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A final status code, from 200 to 599: informational ones are not answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub StatusCode);

impl Status {
    /// True if the status forbids a body (RFC 9110, 6.4.1).
    pub fn has_no_body(self) -> bool {
        matches!(
            self.0,
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
        )
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
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Status, E> {
                u16::try_from(number)
                    .ok()
                    .filter(|number| (200..600).contains(number))
                    .and_then(|number| StatusCode::from_u16(number).ok())
                    .map(Status)
                    .ok_or_else(|| E::custom(format!("{number} is not a status from 200 to 599")))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Status, E> {
                self.visit_u64(number.try_into().unwrap_or_default())
            }
        }
        deserializer.deserialize_u16(Number)
    }
}

impl JsonSchema for Status {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Status".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 200, "maximum": 599})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_final_statuses_are_answers() {
        let check = |number: i64, valid: bool| {
            assert_eq!(
                serde_json::from_value::<Status>(number.into()).is_ok(),
                valid
            );
        };
        check(200, true);
        check(599, true);
        check(101, false);
        check(600, false);
        check(-1, false);
        check(65_736, false);
    }
}
