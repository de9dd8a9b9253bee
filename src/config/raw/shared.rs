//! What several sections are made of.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use crate::base::values::Period;

/// The longest name of an item; it becomes a label of metrics.
const LONGEST_NAME: usize = 128;

/// What an item is called: it appears in logs, metrics and messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ItemName(pub(crate) String);

impl ItemName {
    /// Says what is wrong with a name, if anything is.
    pub(crate) fn check(text: &str) -> Result<(), String> {
        let is_odd =
            |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '`' | '\\');
        if text.is_empty() {
            return Err("a name cannot be empty".to_owned());
        }
        if text.chars().any(is_odd) {
            return Err(format!(
                "{text:?} cannot be a name: it must have neither spaces nor quotes, as in `orders-v2`"
            ));
        }
        if text.len() > LONGEST_NAME {
            return Err(format!("a name may have at most {LONGEST_NAME} bytes"));
        }
        Ok(())
    }
}

impl Borrow<str> for ItemName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for ItemName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::check(&text).map_err(de::Error::custom)?;
        Ok(Self(text))
    }
}

impl JsonSchema for ItemName {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "ItemName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 1, "maxLength": LONGEST_NAME, "pattern": r#"^[^\s"'`\\]+$"#,
        })
    }
}

/// How long something may take; never zero, which nothing could meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timeout(pub(crate) Duration);

impl<'de> Deserialize<'de> for Timeout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Period(duration) = Period::deserialize(deserializer)?;
        if duration.is_zero() {
            return Err(de::Error::custom(
                "a timeout of zero lets nothing through: leave the key out for its default",
            ));
        }
        Ok(Self(duration))
    }
}

impl JsonSchema for Timeout {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        Period::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Period::json_schema(generator)
    }
}

/// A reference by name, or the thing itself in place. A bare kind looks like a name: whoever knows
/// the names tells them apart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NameOr<T> {
    /// A name, or a kind that needs no settings.
    Name(String),
    /// A kind with its settings.
    InPlace(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for NameOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = NameOr<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or a map of one kind and its settings")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<NameOr<T>, E> {
                Ok(NameOr::Name(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<NameOr<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(NameOr::InPlace)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for NameOr<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("NameOr_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let settings = generator.subschema_for::<T>();
        json_schema!({"anyOf": [
            {"type": "string", "minLength": 1, "description": "A name, or a kind that needs no settings."},
            settings,
        ]})
    }
}
