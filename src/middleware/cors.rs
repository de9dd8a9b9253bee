//! Which other sites' scripts may use this one: cross-origin resource sharing, as the Fetch standard
//! has it (<https://fetch.spec.whatwg.org/#http-cors-protocol>).
//!
//! The policy here is the only one: what the backend says of it is replaced. What must hold: an
//! answer that depends on `Origin` says so in `Vary`, also where there was no `Origin`, for a cache
//! must not give one site's answer to another.

use std::borrow::Cow;
use std::fmt;

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::{Context, Hooks, Kind, Natives, Step, written_as};
use crate::base::message::{Fields, Request, RequestHead, Response};
use crate::base::per_worker::PerWorker;
use crate::base::values::{Name, Period};
use crate::telemetry::decision::Flag;

/// Who may do what.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    origins: Vec<Origin>,
    methods: Allowed,
    headers: Allowed,
    expose_headers: Option<HeaderValue>,
    credentials: bool,
    max_age: Option<Period>,
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
enum Allowed {
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
enum Origin {
    Any,
    One(Box<str>),
    /// Every host of a scheme, at any port; holds `https://`.
    Scheme(Box<str>),
    /// Every host below a name: `https://` and `.shop.example`, with a port if there is one.
    Below(Box<str>, Box<str>),
}

impl Origin {
    fn matches(&self, origin: &str) -> bool {
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

/// Answers preflight requests, and tells browsers who may read an answer.
#[derive(Debug)]
pub struct Cors {
    settings: Settings,
    /// What every answer to a site in the list carries besides the site.
    granted: PerWorker<Box<[(HeaderName, HeaderValue)]>>,
}

/// The origin of a request, if it is in the list; kept for the answer.
#[derive(Clone)]
struct Granted(HeaderValue);

impl Kind for Cors {
    type Settings = Settings;

    fn build(settings: &Settings, _: &Natives) -> Result<Self, String> {
        let mut granted = Vec::new();
        if settings.credentials {
            let yes = HeaderValue::from_static("true");
            granted.push((header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes));
        }
        if let Some(names) = &settings.expose_headers {
            granted.push((header::ACCESS_CONTROL_EXPOSE_HEADERS, names.clone()));
        }
        Ok(Self {
            settings: settings.clone(),
            granted: PerWorker::new(granted.into()),
        })
    }
}

impl Hooks for Cors {
    fn on_request(&self, request: &mut Request, cx: &mut Context<'_>) -> Step<Request> {
        let Some(origin) = request.head.headers.get(header::ORIGIN) else {
            return Step::Next;
        };
        let granted = self.grant(origin);
        if is_preflight(&request.head) {
            return Step::answer(match granted {
                Some(origin) => self.preflight(&request.head, origin),
                None => {
                    let detail = "the origin is not in the list of `cors`";
                    cx.record.fail(Flag::Unauthorized, detail);
                    let mut refusal = Response::status(StatusCode::FORBIDDEN);
                    vary(&mut refusal.head.headers, &header::ORIGIN);
                    refusal
                }
            });
        }
        if let Some(origin) = granted
            && !self.is_open()
        {
            cx.kept.insert(Granted(origin));
        }
        Step::Next
    }

    fn on_response(&self, response: &mut Response, cx: &mut Context<'_>) -> Step<Response> {
        let fields = &mut response.head.headers;
        if self.is_open() {
            self.write(fields, HeaderValue::from_static("*"));
            return Step::Next;
        }
        vary(fields, &header::ORIGIN);
        match cx.kept.get::<Granted>() {
            Some(Granted(origin)) => self.write(fields, origin.clone()),
            None => {
                fields.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
                fields.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
            }
        }
        Step::Next
    }
}

impl Cors {
    /// True if every site is let in, and the answers are the same for all.
    fn is_open(&self) -> bool {
        self.settings.origins.contains(&Origin::Any)
    }

    /// What the answer calls the origin, if it is let in.
    fn grant(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        if self.is_open() {
            return Some(HeaderValue::from_static("*"));
        }
        let text = origin.to_str().ok()?;
        let is_listed = self
            .settings
            .origins
            .iter()
            .any(|listed| listed.matches(text));
        is_listed.then(|| origin.clone())
    }

    /// Says who may read the answer, in the place of what the backend has said.
    fn write(&self, fields: &mut Fields, origin: HeaderValue) {
        fields.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
        fields.set(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        for (name, value) in self.granted.get() {
            fields.set(name.clone(), value.clone());
        }
    }

    /// The answer to a preflight request. These are rare, so that shared counts may be counted.
    fn preflight(&self, head: &RequestHead, origin: HeaderValue) -> Response {
        let mut response = Response::status(StatusCode::NO_CONTENT);
        let fields = &mut response.head.headers;
        if !self.is_open() {
            vary(fields, &header::ORIGIN);
        }
        self.write(fields, origin);
        let lists = [
            (
                &self.settings.methods,
                header::ACCESS_CONTROL_REQUEST_METHOD,
                header::ACCESS_CONTROL_ALLOW_METHODS,
            ),
            (
                &self.settings.headers,
                header::ACCESS_CONTROL_REQUEST_HEADERS,
                header::ACCESS_CONTROL_ALLOW_HEADERS,
            ),
        ];
        for (allowed, asked, answer) in lists {
            let value = match allowed {
                Allowed::List(list) => list.clone(),
                // Not `*`: with credentials browsers take it for a name, and it never stands for
                // `authorization`.
                Allowed::Any => {
                    vary(fields, &asked);
                    head.headers.get(&asked).cloned()
                }
            };
            if let Some(value) = value {
                fields.set(answer, value);
            }
        }
        if let Some(Period(age)) = self.settings.max_age {
            fields.set(header::ACCESS_CONTROL_MAX_AGE, age.as_secs().into());
        }
        response
    }
}

/// A request by which a browser asks whether it may send another.
fn is_preflight(head: &RequestHead) -> bool {
    *head.method() == Method::OPTIONS
        && head.headers.contains(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Says that the answer depends on a header of the request.
fn vary(fields: &mut Fields, name: &HeaderName) {
    let is_said = fields
        .all(header::VARY)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim() == "*" || item.trim().eq_ignore_ascii_case(name.as_str()));
    if !is_said {
        fields.append(header::VARY, name.clone().into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Middleware;
    use super::super::testing::*;
    use super::*;

    fn cors(settings: &str) -> Arc<Middleware> {
        build(&format!(r#"{{"cors": {settings}}}"#))
    }

    const LISTED: &str = r#"{
        "origins": ["https://www.foo.com", "https://*.bar.com"], "methods": ["GET", "OPTIONS"],
        "headers": ["x-header-1", "x-header-2"], "expose_headers": ["x-header-3", "x-header-4"],
        "credentials": true, "max_age": "1h"
    }"#;
    const ANY_METHOD: &str = r#"{"origins": ["https://www.foo.com"], "methods": ["*"]}"#;
    const ANY_ORIGIN: &str = r#"{"origins": ["*"], "methods": ["PUT"]}"#;
    const ANY_OF_ALL: &str = r#"{"origins": ["http://*", "https://*"], "methods": ["*"], "headers": ["*"], "credentials": true}"#;

    /// Headers of the answer to a preflight request, without the common beginning of their names.
    fn preflight(settings: &str, origin: &str, method: &str, headers: &str) -> (u16, Vec<String>) {
        let asked = [
            ("origin", origin),
            ("access-control-request-method", method),
            ("access-control-request-headers", headers),
        ];
        let asked = &asked[..if headers.is_empty() { 2 } else { 3 }];
        let mut world = World::new();
        let answer = world
            .down(&cors(settings), &mut request("OPTIONS", "/", asked))
            .expect("an answer");
        assert!(answer.body.is_empty());
        let mut fields: Vec<String> = answer
            .head
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII")))
            .map(|field| field.replace("access-control-", ""))
            .collect();
        fields.sort();
        (answer.head.status.as_u16(), fields)
    }

    #[test]
    fn a_listed_site_may_use_what_is_listed() {
        for origin in [
            "https://www.foo.com",
            "https://www.bar.com",
            "https://xpto.www.bar.com",
        ] {
            let (status, fields) = preflight(LISTED, origin, "GET", "x-header-1, x-header-2");
            assert_eq!(status, 204);
            let expected = [
                "allow-credentials: true",
                "allow-headers: x-header-1, x-header-2",
                "allow-methods: GET, OPTIONS",
                &format!("allow-origin: {origin}"),
                "expose-headers: x-header-3, x-header-4",
                "max-age: 3600",
                "vary: origin",
            ];
            assert_eq!(fields, expected);
        }
    }

    #[test]
    fn other_sites_are_told_nothing_of_what_is_allowed() {
        let rows = [
            "https://foobar.com",
            "http://www.foo.com",
            "https://www.foo.com:8443",
            "https://bar.com",
            "https://.bar.com",
            "https://evilbar.com",
            "https://evil.com/.bar.com",
            "https://evil.com#.bar.com",
            "https://evil.com:1.bar.com",
            "https://www.bar.com.evil.com",
            "null",
            "",
        ];
        for origin in rows {
            let refused = preflight(LISTED, origin, "GET", "");
            assert_eq!(refused, (403, vec!["vary: origin".to_owned()]), "{origin}");
        }
    }

    #[test]
    fn a_star_allows_what_is_asked_for() {
        let (_, fields) = preflight(ANY_METHOD, "https://www.foo.com", "POST", "");
        let expected = [
            "allow-methods: POST",
            "allow-origin: https://www.foo.com",
            "vary: origin",
            "vary: request-method",
        ];
        assert_eq!(fields, expected);

        for origin in ["https://foobar.com", "https://foobar.com:12345", "null"] {
            let (_, fields) = preflight(ANY_ORIGIN, origin, "PUT", "");
            assert_eq!(fields, ["allow-methods: PUT", "allow-origin: *"]);
        }

        let (_, fields) = preflight(
            ANY_OF_ALL,
            "https://other.foo.com",
            "PUT",
            "x-header-1, x-header-2",
        );
        let expected = [
            "allow-credentials: true",
            "allow-headers: x-header-1, x-header-2",
            "allow-methods: PUT",
            "allow-origin: https://other.foo.com",
            "vary: origin",
            "vary: request-headers",
            "vary: request-method",
        ];
        assert_eq!(fields, expected);
    }

    /// Headers of an answer that a backend with a policy of its own has made.
    fn answer(settings: &str, method: &str, headers: &[(&str, &str)]) -> [Option<String>; 4] {
        let it = cors(settings);
        let mut world = World::new();
        assert!(
            world
                .down(&it, &mut request(method, "/", headers))
                .is_none()
        );
        let own = response(&[
            ("access-control-allow-origin", "https://backend.example"),
            ("access-control-allow-credentials", "true"),
            ("vary", "accept"),
        ]);
        let answer = world.up(&it, own);
        let field = |name: &str| joined(&answer.head.headers, name);
        [
            field("access-control-allow-origin"),
            field("access-control-allow-credentials"),
            field("access-control-expose-headers"),
            field("vary"),
        ]
    }

    #[test]
    fn an_answer_says_who_may_read_it() {
        let check = |settings, method, headers: &[(&str, &str)], expected: [Option<&str>; 4]| {
            let answer = answer(settings, method, headers);
            assert_eq!(
                answer.each_ref().map(Option::as_deref),
                expected,
                "{headers:?}"
            );
        };
        let (yes, both) = (Some("true"), Some("accept,origin"));
        let exposed = Some("x-header-3, x-header-4");
        for origin in ["https://www.foo.com", "https://www.bar.com"] {
            let sent = [("origin", origin), ("access-control-request-method", "GET")];
            check(LISTED, "GET", &sent, [Some(origin), yes, exposed, both]);
        }
        check(
            LISTED,
            "GET",
            &[("origin", "https://foobar.com")],
            [None, None, None, both],
        );
        check(LISTED, "GET", &[], [None, None, None, both]);
        // No preflight without its second header: an `OPTIONS` like any other.
        let origin = "https://www.foo.com";
        check(
            LISTED,
            "OPTIONS",
            &[("origin", origin)],
            [Some(origin), yes, exposed, both],
        );
        let star = [Some("*"), None, None, Some("accept")];
        check(
            ANY_ORIGIN,
            "PUT",
            &[("origin", "https://foobar.com:12345")],
            star,
        );
        check(ANY_ORIGIN, "GET", &[], star);
        let other = "https://other.foo.com";
        check(
            ANY_OF_ALL,
            "GET",
            &[("origin", other)],
            [Some(other), yes, None, both],
        );
    }

    #[test]
    fn a_dependence_is_said_once() {
        let check = |before: &[(&str, &str)], expected: &str| {
            let mut answer = response(before);
            vary(&mut answer.head.headers, &header::ORIGIN);
            assert_eq!(
                joined(&answer.head.headers, "vary").as_deref(),
                Some(expected)
            );
        };
        check(&[], "origin");
        check(&[("vary", "*")], "*");
        check(&[("vary", "Accept, Origin")], "Accept, Origin");
        check(
            &[("vary", "accept"), ("vary", "x-origin")],
            "accept,x-origin,origin",
        );
    }

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
