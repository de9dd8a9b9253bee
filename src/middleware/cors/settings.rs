//! How the policy is written: origins, methods and headers, checked where they are read.

use std::borrow::Cow;
use std::fmt;

use http::Method;
use http::header::HeaderValue;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::super::written_as;
use crate::base::values::{Name, Period};

/// Who may do what.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub(super) origins: Vec<Origin>,
    pub(super) methods: Allowed,
    pub(super) headers: Allowed,
    pub(super) expose_headers: Option<HeaderValue>,
    pub(super) credentials: bool,
    pub(super) max_age: Option<Period>,
}

/// Lets scripts of other sites use this one (CORS). Preflight requests are answered here, with 204, or
/// with 403 for a site that is not in the list; other requests pass, and browsers keep the answer from
/// scripts of sites that are not in the list. What the backend says of CORS is replaced.
///
/// Example: `cors: {origins: ["https://shop.example"], methods: [GET, PUT], headers: [content-type], max_age: 10m}`.
#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
#[schemars(rename = "Cors")]
struct Written {
    /// Sites whose scripts are let in, each as scheme, host and port, if it is not the scheme's own.
    /// `*` is every site; `https://*.shop.example` every host below that name, `https://*` every
    /// host at any port. Example: `["https://shop.example", "https://*.shop.example"]`.
    origins: Vec<Origin>,
    /// Methods that they may use; `*` for whichever they ask for. Default: `[GET, HEAD, POST]`.
    /// Example: `[GET, PUT, DELETE]`.
    #[serde(default = "default_methods")]
    methods: Vec<MethodName>,
    /// Request headers that they may send besides those that every site may; `*` for whichever they
    /// ask for. Default: none. Example: `[content-type, x-tenant]`.
    #[serde(default)]
    headers: Vec<HeaderOrAny>,
    /// Answer headers that they may read besides those that every site may. Default: none.
    /// Example: `[x-request-id]`.
    #[serde(default)]
    expose_headers: Vec<Name>,
    /// Whether browsers send cookies and certificates along, and let scripts read what comes of it.
    /// Default: `false`. Not with the origin `*`.
    #[serde(default)]
    credentials: bool,
    /// For how long browsers remember the answer to a preflight request. Default: what the browser
    /// chooses, usually 5 s. Example: `10m`.
    max_age: Option<Period>,
}

fn default_methods() -> Vec<MethodName> {
    [Method::GET, Method::HEAD, Method::POST]
        .map(|method| MethodName(method.as_str().into()))
        .into()
}

/// A list for a header, or whatever is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Allowed {
    Any,
    List(Option<HeaderValue>),
}

impl Allowed {
    fn new<'a, I: Iterator<Item = &'a str> + Clone>(items: I) -> Result<Self, String> {
        if items.clone().any(|item| item == "*") {
            return Ok(Self::Any);
        }
        list(items).map(Self::List)
    }
}

/// The value of a header that is a list; none for an empty one.
fn list<'a, I: Iterator<Item = &'a str>>(items: I) -> Result<Option<HeaderValue>, String> {
    let text = items.collect::<Vec<_>>().join(", ");
    if text.is_empty() {
        return Ok(None);
    }
    HeaderValue::from_str(&text)
        .map(Some)
        .map_err(|error| error.to_string())
}

written_as!(Written);

impl TryFrom<Written> for Settings {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        if written.origins.is_empty() {
            return Err(
                "`origins` is empty: name the sites, or write `[\"*\"]` for all".to_owned(),
            );
        }
        if written.credentials && written.origins.contains(&Origin::Any) {
            return Err(
                "`credentials` with the origin `*` would let every site read what is meant \
                for its visitor: name the sites, or, if that is what you mean, write `https://*`"
                    .to_owned(),
            );
        }
        Ok(Self {
            methods: Allowed::new(written.methods.iter().map(|method| &*method.0))?,
            headers: Allowed::new(written.headers.iter().map(|header| &*header.0))?,
            expose_headers: list(written.expose_headers.iter().map(|name| name.0.as_str()))?,
            origins: written.origins,
            credentials: written.credentials,
            max_age: written.max_age,
        })
    }
}

/// A site, or a pattern of sites, in lower case.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Origin {
    Any,
    One(Box<str>),
    /// Every host of a scheme, at any port; holds `https://`.
    Scheme(Box<str>),
    /// Every host below a name: `https://` and `.shop.example`, with a port if there is one.
    Below(Box<str>, Box<str>),
}

impl Origin {
    pub(super) fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => origin.eq_ignore_ascii_case(one),
            Self::Scheme(scheme) => strip(origin, scheme).is_some_and(|host| !host.is_empty()),
            Self::Below(scheme, suffix) => strip(origin, scheme)
                .and_then(|host| {
                    host.len()
                        .checked_sub(suffix.len())
                        .and_then(|at| host.split_at_checked(at))
                })
                .is_some_and(|(host, end)| {
                    // A host, and nothing that only looks like its end.
                    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
                    !host.is_empty()
                        && host.chars().all(is_host)
                        && end.eq_ignore_ascii_case(suffix)
                }),
        }
    }
}

fn strip<'a>(origin: &'a str, scheme: &str) -> Option<&'a str> {
    let (start, rest) = origin.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

impl std::str::FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            Err(format!(
                "`{text}` is not an origin: {why}, as in `https://shop.example` or `https://shop.example:8443`"
            ))
        };
        if text == "*" {
            return Ok(Self::Any);
        }
        let lower = text.to_ascii_lowercase();
        let Some((scheme, authority)) = lower.split_once("://") else {
            return wrong("write scheme and host");
        };
        if scheme.is_empty()
            || !scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        {
            return wrong("write scheme and host");
        }
        if authority.contains(['/', '?', '#', '@']) {
            return wrong("it has a scheme, a host and a port, and nothing else");
        }
        let scheme: Box<str> = format!("{scheme}://").into();
        if authority == "*" {
            return Ok(Self::Scheme(scheme));
        }
        let (host, is_pattern) = match authority.strip_prefix("*.") {
            Some(host) => (host, true),
            None => (authority, false),
        };
        if host.contains('*') {
            return wrong("`*` stands for the whole host or for its first labels");
        }
        if host.parse::<http::uri::Authority>().is_err() || host.starts_with([':', '.']) {
            return wrong("its host is not valid");
        }
        let is_default = |port| host.ends_with(port);
        if &*scheme == "https://" && is_default(":443")
            || &*scheme == "http://" && is_default(":80")
        {
            return wrong("browsers leave the scheme's own port out");
        }
        Ok(if is_pattern {
            Self::Below(scheme, format!(".{host}").into())
        } else {
            Self::One(lower.into())
        })
    }
}

/// A method, or `*`.
#[derive(Debug, Clone, PartialEq)]
struct MethodName(Box<str>);

impl std::str::FromStr for MethodName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<Method>() {
            Ok(_) if !text.contains(|c: char| c.is_ascii_lowercase()) => Ok(Self(text.into())),
            _ => Err(format!(
                "`{text}` is not a method: write it in upper case, as in `GET`"
            )),
        }
    }
}

/// The name of a header, or `*`.
#[derive(Debug, Clone, PartialEq)]
struct HeaderOrAny(Box<str>);

impl std::str::FromStr for HeaderOrAny {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<Name>()
            .map(|Name(name)| Self(name.as_str().into()))
    }
}

/// Makes a type that is written as text readable by serde and known to the JSON Schema.
macro_rules! written_as_text {
    ($($Type:ident $what:literal)*) => {$(
        impl<'de> Deserialize<'de> for $Type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $Type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$Type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        impl JsonSchema for $Type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($Type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string"})
            }
        }
    )*};
}

written_as_text! {
    Origin "an origin such as `https://shop.example`"
    MethodName "a method such as `GET`"
    HeaderOrAny "a header name"
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::*;

    #[test]
    fn mistakes_are_found_at_the_door() {
        let check = |settings: &str, words: &str| {
            let refused = refusal(&format!(r#"{{"cors": {settings}}}"#));
            assert!(refused.contains(words), "{refused}");
        };
        let origin =
            |origin: &str, words: &str| check(&format!(r#"{{"origins": ["{origin}"]}}"#), words);
        check(r#"{"origins": []}"#, "`origins` is empty");
        check(
            r#"{"origins": ["*"], "credentials": true}"#,
            "write `https://*`",
        );
        check(r#"{"origins": ["*"], "methods": ["get"]}"#, "in upper case");
        check(
            r#"{"origins": ["*"], "headers": ["a b"]}"#,
            "is not a header name",
        );
        origin("shop.example", "write scheme and host");
        origin("https://shop.example/", "and nothing else");
        origin("https://", "is not valid");
        origin("https://a.*.example", "for its first labels");
        origin(
            "https://shop.example:443",
            "leave the scheme's own port out",
        );
        origin("null", "write scheme and host");
    }
}
