//! Settings that are written as text: read by their `FromStr`, known to the JSON Schema as strings.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use schemars::{Schema, json_schema};
use serde::de::{self, Deserializer, Visitor};

/// Reads a value by its `FromStr`; numbers are taken as they are written.
pub(super) fn read<'de, T, D>(deserializer: D, what: &'static str) -> Result<T, D::Error>
where
    T: FromStr<Err = String>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_str(Text {
        what,
        value: PhantomData,
    })
}

/// The schema of such a value.
pub(super) fn schema(pattern: &str, examples: &[&str]) -> Schema {
    json_schema!({"type": "string", "pattern": format!(r"{pattern}|\$\{{"), "examples": examples})
}

struct Text<T> {
    what: &'static str,
    value: PhantomData<T>,
}

impl<T: FromStr<Err = String>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}
