//! Status codes that an answer may have, as people write them.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::base::values::OneOrMany;

/// Codes that count as healthy: never none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statuses(Vec<Codes>);

/// One code, or all from one to another, written as `200` or `200-299`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Codes(RangeInclusive<u16>);

impl Statuses {
    pub(super) fn contain(&self, status: StatusCode) -> bool {
        self.0
            .iter()
            .any(|codes| codes.0.contains(&status.as_u16()))
    }
}

impl Default for Statuses {
    fn default() -> Self {
        Self(vec![Codes(200..=299)])
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Codes(range)) in self.0.iter().enumerate() {
            let comma = if n > 0 { ", " } else { "" };
            write!(f, "{comma}{}", range.start())?;
            if range.start() != range.end() {
                write!(f, "-{}", range.end())?;
            }
        }
        Ok(())
    }
}

impl FromStr for Codes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let code = |text: &str| {
            let code: u16 = text.trim().parse().ok()?;
            (200..600).contains(&code).then_some(code)
        };
        match (code(first), code(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first..=last)),
            _ => Err(format!(
                "`{text}` is no status from 200 to 599: write a code or a range, as in `200` or `200-299`"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Codes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Codes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status such as `200`, or a range such as `200-299`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Codes, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, code: u64) -> Result<Codes, E> {
                self.visit_str(&code.to_string())
            }
            fn visit_i64<E: de::Error>(self, code: i64) -> Result<Codes, E> {
                self.visit_str(&code.to_string())
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let OneOrMany(codes) = OneOrMany::deserialize(deserializer)?;
        if codes.is_empty() {
            return Err(de::Error::custom(
                "an empty list lets no answer pass: write the expected codes, as in `[200, 204]`",
            ));
        }
        Ok(Self(codes))
    }
}

impl JsonSchema for Codes {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "StatusCodes".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "integer", "minimum": 200, "maximum": 599},
            {"type": "string", "pattern": r"^[2-5][0-9]{2} ?(- ?[2-5][0-9]{2})?$|\$\{"},
        ]})
    }
}

impl JsonSchema for Statuses {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        OneOrMany::<Codes>::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_ranges_are_read_and_shown() {
        let check = |json: &str, shown: &str, within: &[u16], without: &[u16]| {
            let statuses: Statuses = serde_json::from_str(json).expect(json);
            assert_eq!(statuses.to_string(), shown, "{json}");
            let contain =
                |code: &u16| statuses.contain(StatusCode::from_u16(*code).expect("a status"));
            assert!(within.iter().all(contain), "{json}");
            assert!(!without.iter().any(contain), "{json}");
        };
        check("[200, 204]", "200, 204", &[200, 204], &[201, 404]);
        check(r#"["200-399"]"#, "200-399", &[200, 399], &[199, 400]);
        check(r#"["200-204", "404"]"#, "200-204, 404", &[202, 404], &[205]);
        assert_eq!(Statuses::default().to_string(), "200-299");
    }

    #[test]
    fn what_is_no_status_is_refused_in_a_sentence() {
        let check = |json: &str, sentence: &str| {
            let error = serde_json::from_str::<Statuses>(json).expect_err(json);
            assert!(error.to_string().contains(sentence), "{json}: {error}");
        };
        check("[]", "lets no answer pass");
        check("[199]", "`199` is no status");
        check("[600]", "`600` is no status");
        check("[-200]", "`-200` is no status");
        check(r#"["299-200"]"#, "`299-200` is no status");
        check(r#"["2xx"]"#, "`2xx` is no status");
        check(r#"["200-"]"#, "as in `200` or `200-299`");
        check("[true]", "a status such as `200`");
    }
}
