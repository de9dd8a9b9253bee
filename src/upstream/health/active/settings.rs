//! What people write under `health_check:`, parsed at the door.

use std::borrow::Cow;
use std::collections::HashMap;
use std::num::NonZeroU16;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::statuses::Statuses;
use crate::base::values::{Name, Period, Value};

/// How an endpoint is asked whether it is well, and what its answers mean.
///
/// It holds: the timeout is over 0 and not over the interval, which is from 100ms to 24h; thresholds
/// are from 1 to 100.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    kind: Kind,
    interval: Duration,
    timeout: Duration,
    healthy_after: u32,
    unhealthy_after: u32,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Http(Box<Http>),
    Grpc(Grpc),
    Tcp(Tcp),
}

impl Settings {
    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Another port to ask at.
    pub(super) fn port(&self) -> Option<NonZeroU16> {
        match &self.kind {
            Kind::Http(http) => http.port,
            Kind::Grpc(grpc) => grpc.port,
            Kind::Tcp(tcp) => tcp.port,
        }
    }

    /// From the start of one check to that of the next.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// For one check, from connecting to the last byte.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// So many successes in a row make an endpoint healthy.
    pub fn healthy_after(&self) -> u32 {
        self.healthy_after
    }

    /// So many failures in a row make an endpoint unhealthy.
    pub fn unhealthy_after(&self) -> u32 {
        self.unhealthy_after
    }
}

/// Asks each endpoint at intervals whether it is well; one that is not takes no requests. It has one
/// of `http`, `grpc`, `tcp`.
///
/// Example: `health_check: {http: {path: /healthz}, interval: 5s, timeout: 1s}`.
#[derive(Deserialize, JsonSchema)]
#[serde(
    deny_unknown_fields,
    rename_all = "snake_case",
    expecting = "a map such as `{http: {path: /healthz}}`"
)]
#[schemars(rename = "HealthCheck")]
struct Written {
    /// Sends a request and looks at the answer. Example: `{path: /healthz}`.
    http: Option<Box<Http>>,
    /// Asks the service `grpc.health.v1.Health` over cleartext HTTP/2. Example: `{service: acme.Users}`.
    grpc: Option<Grpc>,
    /// Connects, and closes the connection. Example: `{}`.
    tcp: Option<Tcp>,
    /// From the start of one check to that of the next, a tenth more or less by chance, so that many
    /// gateways do not ask in step; `100ms` to `24h`. Default `5s`.
    #[serde(default = "five_seconds", deserialize_with = "interval")]
    interval: Period,
    /// How long one check may take, from connecting to the last byte; not longer than `interval`.
    /// Default `1s`, or `interval` where that is shorter.
    timeout: Option<Period>,
    /// So many successes in a row make an unhealthy endpoint healthy: 1 to 100. The first check of
    /// all decides alone. Default 1.
    #[serde(default = "one", deserialize_with = "threshold")]
    #[schemars(range(min = 1, max = 100))]
    healthy_after: u32,
    /// So many failures in a row make a healthy endpoint unhealthy: 1 to 100. The first check of
    /// all decides alone. Default 3.
    #[serde(default = "three", deserialize_with = "threshold")]
    #[schemars(range(min = 1, max = 100))]
    unhealthy_after: u32,
}

/// A request, and the answer that is expected.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(
    deny_unknown_fields,
    rename_all = "snake_case",
    default,
    expecting = "a map such as `{path: /healthz}`"
)]
#[schemars(rename = "HttpCheck")]
pub(super) struct Http {
    /// The path to ask for, with a query if need be. Default `/`. Example: `/healthz`.
    #[serde(deserialize_with = "path")]
    #[schemars(with = "String")]
    pub(super) path: PathAndQuery,
    /// The method. Default `GET`.
    pub(super) method: Ask,
    /// What `host` says. Default: the endpoint's address. Example: `orders.internal`.
    #[serde(deserialize_with = "host")]
    #[schemars(with = "Option<String>")]
    pub(super) host: Option<Authority>,
    /// Further header fields. Default: `user-agent: retort-health-check` alone. Example:
    /// `{x-check: deep}`.
    #[serde(deserialize_with = "headers")]
    #[schemars(with = "HashMap<Name, Value>")]
    pub(super) headers: HeaderMap,
    /// The status codes that are expected: one, a range, or a list of them. Default `200-299`.
    /// Example: `[200, 204]`.
    pub(super) status: Statuses,
    /// A text that the first 64 KiB of the answer's body must contain. Default: any body will do.
    /// Example: `ready`.
    #[serde(deserialize_with = "body")]
    pub(super) body: Option<String>,
    /// Another port to ask at; Unix sockets are asked at their own path all the same. Default: the
    /// endpoint's own port. Example: `9901`.
    pub(super) port: Option<NonZeroU16>,
}

/// A call of the standard health service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
#[schemars(rename = "GrpcCheck")]
pub(super) struct Grpc {
    /// The service to ask about. Default: none, which asks about the server as a whole. Example:
    /// `acme.Users`.
    pub(super) service: String,
    /// Another port to ask at; Unix sockets are asked at their own path all the same. Default: the
    /// endpoint's own port. Example: `9901`.
    pub(super) port: Option<NonZeroU16>,
}

/// A connection, and no more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
#[schemars(rename = "TcpCheck")]
pub(super) struct Tcp {
    /// Another port to connect to; Unix sockets are connected to at their own path all the same.
    /// Default: the endpoint's own port. Example: `9901`.
    pub(super) port: Option<NonZeroU16>,
}

/// A method that changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(rename = "HttpCheckMethod")]
pub(super) enum Ask {
    /// The answer has a body.
    #[default]
    Get,
    /// The answer has none.
    Head,
}

impl From<Ask> for Method {
    fn from(ask: Ask) -> Self {
        match ask {
            Ask::Get => Self::GET,
            Ask::Head => Self::HEAD,
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            path: PathAndQuery::from_static("/"),
            method: Ask::default(),
            host: None,
            headers: HeaderMap::new(),
            status: Statuses::default(),
            body: None,
            port: None,
        }
    }
}

impl TryFrom<Written> for Settings {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let kind = match (written.http, written.grpc, written.tcp) {
            (Some(http), None, None) => Kind::Http(http),
            (None, Some(grpc), None) => Kind::Grpc(grpc),
            (None, None, Some(tcp)) => Kind::Tcp(tcp),
            (None, None, None) => {
                return Err(
                    "it does not say what to ask: write one of `http: {path: /healthz}`, `grpc: {}`, `tcp: {}`"
                        .into(),
                );
            }
            _ => {
                return Err(
                    "an endpoint is checked in one way only: keep one of `http`, `grpc`, `tcp`"
                        .into(),
                );
            }
        };
        if let Kind::Http(http) = &kind
            && http.method == Ask::Head
            && http.body.is_some()
        {
            return Err(
                "an answer to HEAD has no body: write `method: GET`, or take `body` away".into(),
            );
        }
        let interval = written.interval.0;
        Ok(Self {
            kind,
            interval,
            timeout: timeout(written.timeout, interval)?,
            healthy_after: written.healthy_after,
            unhealthy_after: written.unhealthy_after,
        })
    }
}

fn timeout(written: Option<Period>, interval: Duration) -> Result<Duration, String> {
    match written {
        None => Ok(interval.min(Duration::from_secs(1))),
        Some(Period(Duration::ZERO)) => {
            Err("a `timeout` of 0 leaves no time for anything: write more, such as `1s`".into())
        }
        Some(Period(timeout)) if timeout > interval => Err(format!(
            "a check must end before the next one: write a `timeout` of at most the `interval`, which is {interval:?}"
        )),
        Some(Period(timeout)) => Ok(timeout),
    }
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        Self::try_from(written).map_err(D::Error::custom)
    }
}

impl JsonSchema for Settings {
    fn schema_name() -> Cow<'static, str> {
        Written::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Written::json_schema(generator)
    }
}

fn five_seconds() -> Period {
    Period(Duration::from_secs(5))
}

fn one() -> u32 {
    1
}

fn three() -> u32 {
    3
}

fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Period, D::Error> {
    let period = Period::deserialize(deserializer)?;
    if (Duration::from_millis(100)..=Duration::from_hours(24)).contains(&period.0) {
        Ok(period)
    } else {
        Err(D::Error::custom(format!(
            "{:?} is no interval of checks: write `100ms` to `24h`, such as `5s`",
            period.0
        )))
    }
}

fn threshold<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u64::deserialize(deserializer)? {
        number @ 1..=100 => u32::try_from(number).map_err(D::Error::custom),
        number => Err(D::Error::custom(format!(
            "{number} is no number of results in a row: write 1 to 100"
        ))),
    }
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathAndQuery, D::Error> {
    let text = String::deserialize(deserializer)?;
    // http would cut a fragment off in silence.
    let plain = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    match text.parse() {
        Ok(path) if plain => Ok(path),
        _ => Err(D::Error::custom(format!(
            "{text:?} is no path: begin with `/`, as in `/healthz`, and write other than plain characters as `%20`"
        ))),
    }
}

fn host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Authority>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.parse() {
        Ok(host) if !text.contains('@') => Ok(Some(host)),
        _ => Err(D::Error::custom(format!(
            "{text:?} is no host: write a name or an address, with a port if need be, as in `orders.internal:8080`"
        ))),
    }
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HeaderMap, D::Error> {
    let mut headers = HeaderMap::new();
    for (Name(name), Value(value)) in HashMap::<Name, Value>::deserialize(deserializer)? {
        match name.as_str() {
            "host" => {
                return Err(D::Error::custom(
                    "`host` has a key of its own: write it beside `headers`",
                ));
            }
            // RFC 9110, 7.6.1, and RFC 9112, 6.
            "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "upgrade"
            | "content-length" | "transfer-encoding" => {
                return Err(D::Error::custom(format!(
                    "`{name}` belongs to the connection: the gateway writes it itself"
                )));
            }
            _ => headers.insert(name, value),
        };
    }
    Ok(headers)
}

fn body<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Err(D::Error::custom(
            "every body contains an empty text: write what must be in it, or take `body` away",
        ));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Settings, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let settings = read(r#"{"http": {}}"#).expect("valid");
        assert_eq!(settings.interval(), Duration::from_secs(5));
        assert_eq!(settings.timeout(), Duration::from_secs(1));
        assert_eq!(
            (settings.healthy_after(), settings.unhealthy_after()),
            (1, 3)
        );
        assert_eq!(settings.kind(), &Kind::Http(Box::default()));
        let short = read(r#"{"tcp": {}, "interval": "200ms"}"#).expect("valid");
        assert_eq!(short.timeout(), Duration::from_millis(200));
        let grpc = read(r#"{"grpc": {}}"#).expect("valid");
        assert_eq!(grpc.kind(), &Kind::Grpc(Grpc::default()));
    }

    #[test]
    fn every_key_is_read() {
        let settings = read(
            r#"{"http": {"path": "/healthz?deep=1", "method": "GET", "host": "orders.internal",
                         "headers": {"X-Check": "deep"}, "status": [200, "204-299"], "body": "ok",
                         "port": 9901},
                "interval": "2s", "timeout": "2s", "healthy_after": 2, "unhealthy_after": 100}"#,
        )
        .expect("valid");
        assert_eq!(settings.port().map(NonZeroU16::get), Some(9901));
        assert_eq!(settings.timeout(), settings.interval());
        let Kind::Http(http) = settings.kind() else {
            panic!("{settings:?}");
        };
        assert_eq!(http.path, "/healthz?deep=1");
        assert_eq!(http.headers["x-check"], "deep");
        assert_eq!(http.status.to_string(), "200, 204-299");
        let grpc = read(r#"{"grpc": {"service": "acme.Users", "port": 1}}"#).expect("valid");
        let again = read(r#"{"grpc": {"port": 1, "service": "acme.Users"}}"#).expect("valid");
        assert_eq!(grpc, again);
        assert_ne!(grpc, read(r#"{"grpc": {"port": 2}}"#).expect("valid"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_a_sentence() {
        let check = |json: &str, sentence: &str| {
            let error = read(json).expect_err(json);
            assert!(error.contains(sentence), "{json}: {error}");
        };
        check("{}", "write one of `http: {path: /healthz}`");
        check(r#"{"http": {}, "tcp": {}}"#, "keep one of");
        check(r#"{"http": {}, "grpc": {}, "tcp": {}}"#, "keep one of");
        check(r#"{"redis": {}}"#, "unknown field `redis`");
        check(r#"{"tcp": {"send": "PING"}}"#, "unknown field `send`");
        check(r#"{"tcp": {}, "interval": "99ms"}"#, "99ms is no interval");
        check(r#"{"tcp": {}, "interval": "25h"}"#, "`100ms` to `24h`");
        check(r#"{"tcp": {}, "timeout": "0s"}"#, "leaves no time");
        check(
            r#"{"tcp": {}, "timeout": "6s"}"#,
            "the `interval`, which is 5s",
        );
        check(r#"{"tcp": {}, "healthy_after": 0}"#, "write 1 to 100");
        check(r#"{"tcp": {}, "unhealthy_after": 101}"#, "write 1 to 100");
        check(r#"{"http": {"path": "healthz"}}"#, "begin with `/`");
        check(r#"{"http": {"path": ""}}"#, "begin with `/`");
        check(r#"{"http": {"path": "/a b"}}"#, "is no path");
        check(r#"{"http": {"path": "/a#b"}}"#, "is no path");
        check(r#"{"http": {"method": "POST"}}"#, "unknown variant `POST`");
        check(
            r#"{"http": {"method": "HEAD", "body": "ok"}}"#,
            "HEAD has no body",
        );
        check(r#"{"http": {"body": ""}}"#, "every body contains");
        check(r#"{"http": {"host": "a b"}}"#, "is no host");
        check(r#"{"http": {"host": "me@there"}}"#, "is no host");
        check(
            r#"{"http": {"headers": {"Host": "x"}}}"#,
            "a key of its own",
        );
        check(
            r#"{"http": {"headers": {"TE": "x"}}}"#,
            "belongs to the connection",
        );
        check(r#"{"http": {"port": 0}}"#, "nonzero");
        check(r#"{"http": {"port": 65536}}"#, "65536");
    }

    #[test]
    fn the_schema_knows_every_key() {
        let schema = schemars::schema_for!(Settings).to_value();
        let keys = |of: &serde_json::Value| -> Vec<String> {
            of["properties"]
                .as_object()
                .expect("a map")
                .keys()
                .cloned()
                .collect()
        };
        let expected = [
            "http",
            "grpc",
            "tcp",
            "interval",
            "timeout",
            "healthy_after",
            "unhealthy_after",
        ];
        assert_eq!(keys(&schema), expected);
        let http = &schema["$defs"]["HttpCheck"];
        let expected = [
            "path", "method", "host", "headers", "status", "body", "port",
        ];
        assert_eq!(keys(http), expected);
        assert!(schema.get("required").is_none(), "{schema}");
        assert!(http.get("required").is_none(), "{http}");
    }
}
