//! Values that settings are made of: durations, sizes, shares, header names.
//!
//! Each is parsed at the door, so that nothing behind it is a bare string that means something.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A length of time, written as `250ms`, `5s`, `1m30s`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// A number of bytes, written as `512B`, `64KiB`, `10MiB`, `1GiB`, or with decimal `kB`, `MB`, `GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A share of a whole, written as `5%` or `0.05`; from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(pub f64);

/// The name of a header field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name(pub HeaderName);

/// The value of a header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(pub HeaderValue);

/// One item, or a list of them; both are written often enough to deserve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl std::str::FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map(Self).map_err(|_| {
            format!(
                "`{text}` is not a duration: write a number and a unit, as in `250ms`, `5s`, `1m`"
            )
        })
    }
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a size: write a number and a unit, as in `64KiB`, `10MiB`");
        let split = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, unit) = text.split_at(split);
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let unit: u64 = match unit.trim() {
            "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(wrong()),
        };
        number.checked_mul(unit).map(Self).ok_or_else(wrong)
    }
}

impl std::str::FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = match text.strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().map(|p| p / 100.0),
            None => text.parse::<f64>(),
        };
        match number {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Self(share)),
            _ => Err(format!(
                "`{text}` is not a share: write `5%` or `0.05`, from 0 to 100%"
            )),
        }
    }
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        HeaderName::try_from(text).map(Self).map_err(|_| {
            format!("`{text}` is not a header name: letters, digits and `-` (RFC 9110, 5.6.2)")
        })
    }
}

impl std::str::FromStr for Value {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        HeaderValue::try_from(text).map(Self).map_err(|_| {
            format!("{text:?} is not a header value: control characters are not allowed")
        })
    }
}

/// Makes a type that is written as text readable by serde and known to the JSON Schema.
macro_rules! written_as_text {
    ($($type:ident: $title:literal, $pattern:expr;)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($title)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$type, E> {
                        self.visit_str(&number.to_string())
                    }
                    fn visit_f64<E: de::Error>(self, number: f64) -> Result<$type, E> {
                        self.visit_str(&number.to_string())
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let pattern: Option<&str> = $pattern;
                let mut schema = json_schema!({"type": "string"});
                if let Some(pattern) = pattern {
                    schema.insert("pattern".into(), pattern.into());
                }
                schema
            }
        }
    )*};
}

written_as_text! {
    Period: "a duration such as `250ms`", Some(r"^([0-9]+ ?(ns|us|ms|s|m|h|d) ?)+$|\$\{");
    Size: "a size such as `64KiB`", Some(r"^[0-9]+ ?(B|kB|KB|MB|GB|KiB|MiB|GiB)$|\$\{");
    Name: "a header name", None;
    Value: "a header value", None;
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Share;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share such as `5%` or `0.05`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Share, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Share, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Share, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Share {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "string", "pattern": r"^[0-9.]+ ?%?$|\$\{"},
            {"type": "number", "minimum": 0, "maximum": 1},
        ]})
    }
}

/// The name under which a deserializer is asked for one item or a list of them.
///
/// The configuration's own deserializer answers with a sequence in both cases, so that positions
/// survive; any other takes the way of [`Visitor::visit_newtype_struct`].
pub const ONE_OR_MANY: &str = "$one_or_many";

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = OneOrMany<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one item or a list of them")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(
                self,
                mut items: A,
            ) -> Result<Self::Value, A::Error> {
                let mut many = Vec::new();
                while let Some(item) = items.next_element()? {
                    many.push(item);
                }
                Ok(OneOrMany(many))
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Self::Value, D::Error> {
                Vec::deserialize(deserializer).map(OneOrMany)
            }
        }
        deserializer.deserialize_newtype_struct(ONE_OR_MANY, Items(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({"anyOf": [one, {"type": "array", "items": one}]})
    }
}

/// A text that is never written into a configuration and never printed: `{file: path}` or `{env: NAME}`.
///
/// A file's one trailing line break is not part of it. The path is relative to the configuration
/// file that names it; the file is read again at each reload.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Arc<str>);

/// The name under which a deserializer is asked for a secret's text.
///
/// The configuration's own deserializer looks up the file or the variable and answers with the
/// text; any other takes the way of [`Visitor::visit_newtype_struct`], where the text itself is
/// written: good for tests.
pub const SECRET: &str = "$secret";

impl Secret {
    /// A secret of that text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text, for the one who needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`{file: path}` or `{env: NAME}`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret::new(text))
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Secret, D::Error> {
                String::deserialize(deserializer).map(Secret::new)
            }
        }
        deserializer.deserialize_newtype_struct(SECRET, Text)
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = |key: &str, means: &str| {
            json_schema!({
                "type": "object",
                "properties": {key: {"type": "string", "minLength": 1, "description": means}},
                "required": [key],
                "additionalProperties": false,
            })
        };
        json_schema!({"oneOf": [
            one("file", "The file that holds the secret, relative to this configuration file."),
            one("env", "The environment variable that holds the secret."),
        ]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_sizes_and_shares_are_read_as_people_write_them() {
        assert_eq!("250ms".parse(), Ok(Period(Duration::from_millis(250))));
        assert_eq!("1m30s".parse(), Ok(Period(Duration::from_secs(90))));
        assert_eq!("64KiB".parse(), Ok(Size(65_536)));
        assert_eq!("1 MB".parse(), Ok(Size(1_000_000)));
        assert_eq!("5%".parse(), Ok(Share(0.05)));
        assert_eq!("0.05".parse(), Ok(Share(0.05)));
    }

    #[test]
    fn what_has_no_unit_or_is_out_of_range_is_refused() {
        assert!("250".parse::<Period>().is_err());
        assert!("64".parse::<Size>().is_err());
        assert!("18446744073709551615GiB".parse::<Size>().is_err());
        assert!("101%".parse::<Share>().is_err());
        assert!("NaN".parse::<Share>().is_err());
        assert!("two words".parse::<Name>().is_err());
        assert!("a\nb".parse::<Value>().is_err());
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret: Secret = serde_json::from_str("\"hunter2\"").expect("a secret");
        assert_eq!(format!("{secret:?}"), "[secret]");
        assert_eq!(secret.reveal(), "hunter2");
    }
}
