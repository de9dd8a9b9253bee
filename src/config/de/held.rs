//! A value with what a reload must know of it: where it stands, and whether it has changed.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};

use crate::base::problem::{Span, Spanned};

/// A value, its place, and a number that changes with its content.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
    /// Equal for equal content, secrets included, wherever it stands.
    pub(crate) fingerprint: u64,
}

impl<T> Held<T> {
    /// The value and its place.
    pub(crate) fn spanned(self) -> Spanned<T> {
        Spanned::new(self.value, self.span)
    }
}

/// The name under which the deserializer is asked for file, start, end, value and fingerprint.
pub(super) const HELD: &str = "$held";

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Held<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
            type Value = Held<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Held<T>, A::Error> {
                let missing = || A::Error::custom("a value without its position");
                let file = parts.next_element()?.ok_or_else(missing)?;
                let start = parts.next_element()?.ok_or_else(missing)?;
                let end = parts.next_element()?.ok_or_else(missing)?;
                let value = parts.next_element()?.ok_or_else(missing)?;
                let fingerprint = parts.next_element()?.ok_or_else(missing)?;
                let span = Span { file, start, end };
                Ok(Held {
                    value,
                    span,
                    fingerprint,
                })
            }
        }
        deserializer.deserialize_newtype_struct(HELD, Parts(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Held<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
