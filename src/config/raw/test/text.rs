//! What is written as text in tests: names, flags, URLs, addresses of clients.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::Uri;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer};

use crate::config::test::OrNone;
use crate::telemetry::decision::Flag;

/// The letters of a flag, or `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FlagOrNone(pub(crate) OrNone<Flag>);

impl<'de> Deserialize<'de> for FlagOrNone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "none" {
            return Ok(Self(OrNone::None));
        }
        if let Some(flag) = Flag::by_code(&text) {
            return Ok(Self(OrNone::Is(flag)));
        }
        Err(match Flag::by_code(&text.to_ascii_uppercase()) {
            Some(flag) => de::Error::custom(format!(
                "flags are written in capitals: `{}`, not `{text}`",
                flag.code()
            )),
            None => de::Error::unknown_variant(&text, Flag::CODES),
        })
    }
}

impl JsonSchema for FlagOrNone {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "FlagOrNone".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let codes = Flag::CODES.join("|");
        json_schema!({"type": "string", "pattern": format!(r"^(none|{codes})$|\$\{{")})
    }
}

/// What a test shows: a line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Title(pub(crate) String);

/// The longest title: reports have it in one line.
const LONGEST_TITLE: usize = 200;

impl<'de> Deserialize<'de> for Title {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.trim().is_empty() {
            return Err(de::Error::custom("say in a sentence what the test shows"));
        }
        if text.len() > LONGEST_TITLE || text.contains(char::is_control) {
            return Err(de::Error::custom(format!(
                "the name of a test is one line of at most {LONGEST_TITLE} bytes"
            )));
        }
        Ok(Self(text))
    }
}

impl JsonSchema for Title {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Title".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "maxLength": LONGEST_TITLE})
    }
}

/// Where a request goes: a whole URL, whatever way it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url(pub(crate) Uri);

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{text}` cannot be requested: {why}");
        let whole = match text.strip_prefix('/') {
            Some(path) => format!("http://localhost/{path}"),
            None => text.to_owned(),
        };
        if !["/", "http://", "https://"]
            .iter()
            .any(|start| text.starts_with(start))
        {
            return Err(wrong(
                "write a whole URL such as `http://api.example.com/orders`, or a path such as `/orders`",
            ));
        }
        if text.contains('#') {
            return Err(wrong("what follows `#` is never sent, so leave it out"));
        }
        let url = Uri::try_from(whole).map_err(|_| {
            wrong("a URL has no spaces and no odd characters, write them as `%20` and the like")
        })?;
        let Some(authority) = url.authority() else {
            return Err(wrong("it has no host"));
        };
        if authority.as_str().contains('@') {
            return Err(wrong(
                "write the user and the password as the header `authorization`",
            ));
        }
        if authority.host().is_empty() {
            return Err(wrong("its host is empty"));
        }
        Ok(Self(url))
    }
}

/// The address of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client(pub(crate) SocketAddr);

impl Client {
    /// The port of a client that has only an address.
    const PORT: u16 = 50_000;
}

impl Default for Client {
    fn default() -> Self {
        Self(([127, 0, 0, 1], Self::PORT).into())
    }
}

impl FromStr for Client {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let alone = text.parse::<IpAddr>().map(|ip| (ip, Self::PORT).into());
        alone.or_else(|_| text.parse()).map(Self).map_err(|_| {
            format!("`{text}` is not the address of a client: write `203.0.113.9` or `203.0.113.9:40000`")
        })
    }
}

/// Makes a type that is read by its `FromStr` known to serde and to the JSON Schema.
macro_rules! written_as_text {
    ($($type:ident: $pattern:literal;)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
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
                json_schema!({"type": "string", "pattern": $pattern})
            }
        }
    )*};
}

written_as_text! {
    Url: r"^(/|https?://)|\$\{";
    Client: r"^[0-9A-Fa-f.:\[\]%]+$|\$\{";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_whole_or_a_path() {
        let check = |text: &str, expected: &str| {
            let url = text.parse::<Url>().expect(text);
            assert_eq!(url.0.to_string(), expected);
        };
        check("/", "http://localhost/");
        check("/a/../b?c=%2F", "http://localhost/a/../b?c=%2F");
        check("//a", "http://localhost//a");
        check("http://x", "http://x/");
        check("https://[::1]:8443/a", "https://[::1]:8443/a");
        for (wrong, word) in [
            ("", "a whole URL"),
            ("x/a", "a whole URL"),
            ("ftp://x/a", "a whole URL"),
            ("http:///a", "cannot be requested"),
            ("http://:80/a", "cannot be requested"),
            ("/a b", "%20"),
            ("/a#b", "never sent"),
            ("http://me:x@y/a", "`authorization`"),
        ] {
            let problem = wrong.parse::<Url>().expect_err(wrong);
            assert!(problem.contains(word), "{wrong}: {problem}");
        }
    }

    #[test]
    fn a_client_has_a_port_or_gets_one() {
        let check = |text: &str, expected: Option<&str>| {
            let client = text.parse::<Client>().ok().map(|of| of.0.to_string());
            assert_eq!(client.as_deref(), expected, "{text}");
        };
        check("203.0.113.9", Some("203.0.113.9:50000"));
        check("203.0.113.9:1", Some("203.0.113.9:1"));
        check("::1", Some("[::1]:50000"));
        check("[::1]:1", Some("[::1]:1"));
        check("localhost", None);
        check("203.0.113.9:", None);
    }

    #[test]
    fn a_flag_is_known_by_its_letters() {
        let read = |json: &str| serde_json::from_str::<FlagOrNone>(json);
        assert_eq!(read("\"none\"").expect("none").0, OrNone::None);
        for flag in Flag::ALL {
            let json = format!("{:?}", flag.code());
            assert_eq!(read(&json).expect("a flag").0, OrNone::Is(*flag));
        }
        let problem = read("\"urx\"").expect_err("small letters");
        assert!(problem.to_string().contains("`URX`"), "{problem}");
        assert!(read("\"NONE\"").is_err());
    }
}
