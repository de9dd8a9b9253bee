//! A client stays with its endpoint, by a cookie that names the endpoint in its own way.
//!
//! The cookie holds a hash of the endpoint's label, and nothing else: no address can be read from
//! it. It is no secret: who already knows the addresses can tell which one is meant. A client that
//! makes up a value asks for an endpoint that nobody has, which is like having no cookie.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::HeaderValue;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error};

use crate::base::message::{Client, RequestHead};
use crate::base::values::Period;

/// How a client is kept with the endpoint that answered it first.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct AffinitySettings {
    /// By a cookie of the gateway's own. Example: `{cookie: {ttl: 1h}}`.
    pub cookie: CookieSettings,
}

/// The cookie that keeps a client with its endpoint.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
pub struct CookieSettings {
    /// What it is called; upstreams behind one host need names of their own.
    /// Default `retort-endpoint`.
    pub name: CookieName,
    /// How long a client keeps it, at least `1s`. Default: until the browser is closed.
    pub ttl: Option<CookieAge>,
    /// Below which path a client sends it. Default `/`.
    pub path: CookiePath,
}

/// The name of a cookie: a token (RFC 6265, 4.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieName(Box<str>);

/// How long a cookie is kept, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CookieAge(u64);

/// The path of a cookie (RFC 6265, 4.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookiePath(Box<str>);

impl Default for CookieSettings {
    fn default() -> Self {
        Self {
            name: CookieName("retort-endpoint".into()),
            ttl: None,
            path: CookiePath("/".into()),
        }
    }
}

impl AffinitySettings {
    /// The hash of the endpoint that the client wants to go to; none if it says nothing of use.
    pub fn wanted(&self, head: &RequestHead) -> Option<u64> {
        let value = head.cookie(&self.cookie.name.0)?;
        let is_hash = value.len() == 16 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(value, 16).ok().filter(|_| is_hash)
    }

    /// The `set-cookie` that sends a client to the endpoint of that hash from now on.
    pub fn set_cookie(&self, hash: u64, client: &Client) -> HeaderValue {
        let CookieSettings { name, ttl, path } = &self.cookie;
        let mut text = format!("{}={hash:016x}; Path={}", name.0, path.0);
        if let Some(CookieAge(seconds)) = ttl {
            // Writing to a string cannot fail.
            let _written = write!(text, "; Max-Age={seconds}");
        }
        text.push_str("; HttpOnly; SameSite=Lax");
        if client.secure {
            text.push_str("; Secure");
        }
        // Names and paths are checked where they are read: the second branch is never taken.
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

impl<'de> Deserialize<'de> for CookieName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if text.is_empty() || !text.bytes().all(is_token) {
            return Err(D::Error::custom(format!(
                "{text:?} cannot be the name of a cookie: write letters, digits, `-` and `_`"
            )));
        }
        Ok(Self(text.into()))
    }
}

impl<'de> Deserialize<'de> for CookieAge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Period::deserialize(deserializer)?.0.as_secs() {
            0 => Err(D::Error::custom(
                "a cookie is kept for whole seconds, at least `1s`: leave `ttl` out to keep it until the browser is closed",
            )),
            seconds => Ok(Self(seconds)),
        }
    }
}

impl<'de> Deserialize<'de> for CookiePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b';';
        if !text.starts_with('/') || !text.bytes().all(is_plain) {
            return Err(D::Error::custom(format!(
                "{text:?} cannot be the path of a cookie: it starts with `/` and has no spaces and no `;`"
            )));
        }
        Ok(Self(text.into()))
    }
}

macro_rules! schema_of_text {
    ($($type:ident $pattern:literal;)*) => {$(
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

schema_of_text! {
    CookieName r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$|\$\{";
    CookiePath r"^/[^\s;]*$|\$\{";
}

impl JsonSchema for CookieAge {
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

#[cfg(test)]
mod tests {
    use http::{Method, Uri, header};

    use super::*;
    use crate::base::key;

    fn read(json: &str) -> Result<AffinitySettings, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn head(cookie: &str) -> RequestHead {
        let mut head = RequestHead::new(Method::GET, Uri::from_static("/"));
        head.set_header(header::COOKIE, cookie.parse().expect("a value"));
        head
    }

    #[test]
    fn what_is_set_is_what_is_wanted() {
        let affinity = read(r#"{"cookie": {}}"#).expect("valid");
        let hash = key::hash(b"10.1.2.3:8080");
        let set = affinity.set_cookie(hash, &Client::UNKNOWN);
        let set = set.to_str().expect("text");
        let (pair, attributes) = set.split_once("; ").expect("attributes");
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
        assert!(pair.starts_with("retort-endpoint="), "{pair}");
        assert_eq!(affinity.wanted(&head(pair)), Some(hash));
        assert_eq!(affinity.wanted(&head(&format!("a=b; {pair}"))), Some(hash));
    }

    #[test]
    fn every_setting_shows_and_tls_makes_it_secure() {
        let affinity = read(r#"{"cookie": {"name": "to", "ttl": "1h", "path": "/shop"}}"#);
        let secure = Client {
            secure: true,
            ..Client::UNKNOWN
        };
        let set = affinity.expect("valid").set_cookie(7, &secure);
        assert_eq!(
            set,
            "to=0000000000000007; Path=/shop; Max-Age=3600; HttpOnly; SameSite=Lax; Secure"
        );
    }

    #[test]
    fn a_value_that_was_not_set_here_wants_nothing() {
        let affinity = read(r#"{"cookie": {"name": "to"}}"#).expect("valid");
        for cookie in [
            "from=0000000000000007",
            "to=",
            "to=7",
            "to=000000000000000g",
            "to=+00000000000007",
            "to=00000000000000007",
            "to=10.1.2.3:8080",
        ] {
            assert_eq!(affinity.wanted(&head(cookie)), None, "{cookie}");
        }
    }

    #[test]
    fn nothing_that_would_break_the_header_is_taken() {
        let refused = |json: &str, sentence: &str| {
            let error = read(json).expect_err(json);
            assert!(error.contains(sentence), "{json}: {error}");
        };
        refused("{}", "missing field `cookie`");
        refused(r#"{"cookie": {"name": ""}}"#, "cannot be the name");
        refused(r#"{"cookie": {"name": "a;b"}}"#, "cannot be the name");
        refused(r#"{"cookie": {"path": "shop"}}"#, "cannot be the path");
        refused(r#"{"cookie": {"path": "/;x"}}"#, "cannot be the path");
        refused(r#"{"cookie": {"ttl": "500ms"}}"#, "at least `1s`");
        refused(r#"{"cookie": {"domain": "x"}}"#, "unknown field `domain`");
        refused(r#"{"header": "x"}"#, "unknown field `header`");
    }
}
