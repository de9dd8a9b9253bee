//! What people write under `upstreams:`, parsed at the door.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::base::values::{Period, Share};
use crate::upstream::affinity::AffinitySettings;
use crate::upstream::balance::Balance;
use crate::upstream::eligible::ZoneSettings;
use crate::upstream::endpoint::EndpointSettings;
use crate::upstream::{discovery, health, limits};

/// A named group of endpoints, and how to talk to them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Settings {
    /// Where requests may go: a list of `ip:port`, `unix:/path` or `name:port`, or of maps that add
    /// a weight and a zone. An empty list is allowed and answers every request with 503. Required
    /// unless there is `discovery`.
    #[serde(default)]
    pub endpoints: Option<Vec<EndpointSettings>>,
    /// What the endpoints speak. Default `http1`.
    #[serde(default)]
    pub protocol: Protocol,
    /// How an endpoint is chosen for each request. Default `p2c_ewma`.
    #[serde(default)]
    pub balance: Balance,
    /// How long connections are kept for later requests.
    #[serde(default)]
    pub pool: PoolSettings,
    /// How long to wait for an endpoint.
    #[serde(default)]
    pub timeouts: Timeouts,

    /// Ask the endpoints themselves whether they can serve. An endpoint takes no requests before its
    /// first check has passed. Default: nobody is asked.
    #[serde(default)]
    pub health_check: Option<health::active::Settings>,
    /// Take endpoints out for a while that fail requests. Default: none is; `outlier: {}` takes every
    /// default.
    #[serde(default)]
    pub outlier: Option<health::outlier::Settings>,
    /// How much may be asked of the endpoints at once. Default: any number.
    #[serde(default)]
    pub limits: limits::Settings,
    /// Keep a client with the endpoint that answered it first. Default: every request is balanced.
    #[serde(default)]
    pub affinity: Option<AffinitySettings>,
    /// Whether endpoints of the gateway's own zone (`runtime.zone`) come first. Default: they do, as
    /// long as enough of them are ready.
    #[serde(default)]
    pub zones: ZoneSettings,
    /// How long the share of an endpoint that has become ready rises from a tenth to its whole.
    /// Default: it has all of it at once.
    #[serde(default)]
    pub slow_start: Option<Period>,
    /// The share of ready endpoints, by weight, below which all of them take requests, whatever is
    /// known of them; `0%` is never. Default `0%`.
    #[serde(default = "Panic::never")]
    pub panic_threshold: Panic,
    /// Where the endpoints are found, in the place of `endpoints`. Default: nowhere else.
    #[serde(default)]
    pub discovery: Option<discovery::Settings>,
}

impl Settings {
    /// Defaults for a list of endpoints.
    pub fn new(endpoints: Vec<EndpointSettings>) -> Self {
        Self {
            endpoints: Some(endpoints),
            protocol: Protocol::default(),
            balance: Balance::default(),
            pool: PoolSettings::default(),
            timeouts: Timeouts::default(),
            health_check: None,
            outlier: None,
            limits: limits::Settings::default(),
            affinity: None,
            zones: ZoneSettings::default(),
            slow_start: None,
            panic_threshold: Panic::never(),
            discovery: None,
        }
    }

    /// What its keys say against each other, in words that follow its name.
    pub fn contradiction(&self) -> Option<&'static str> {
        match (&self.endpoints, &self.discovery) {
            (None, None) => Some("has neither `endpoints` nor `discovery`: give it one of them"),
            (Some(_), Some(_)) => {
                Some("has `endpoints` and `discovery`: it can have only one of them")
            }
            _ => None,
        }
    }
}

/// A share of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Panic(pub Share);

// A share that was parsed is a number.
impl Eq for Panic {}

impl Panic {
    const fn never() -> Self {
        Self(Share(0.0))
    }
}

/// What the endpoints of an upstream speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1, one request at a time on a connection.
    #[default]
    Http1,
    /// HTTP/2 in cleartext with prior knowledge, many requests at once on a connection; what gRPC needs.
    Http2,
}

impl Protocol {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }
}

/// How long connections are kept for later requests.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
pub struct PoolSettings {
    /// A connection without a request for this long is closed; sooner where the endpoint is known to
    /// close connections before, for a request that meets a closing one may fail. Default `55s`.
    pub idle_timeout: Period,
    /// A connection older than this takes no further request, so that a change behind the address
    /// is noticed; a tenth more or less by chance. Default `1h`.
    pub connection_age: Period,
    /// How many idle HTTP/1.1 connections each worker keeps for each endpoint; one more is closed.
    /// Default 512.
    pub idle_connections: u32,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            idle_timeout: Period(Duration::from_secs(55)),
            connection_age: Period(Duration::from_hours(1)),
            idle_connections: 512,
        }
    }
}

/// How long to wait for an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
pub struct Timeouts {
    /// For a new connection; more than 0. Default `1s`.
    #[serde(deserialize_with = "some_time")]
    pub connect: Period,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Period(Duration::from_secs(1)),
        }
    }
}

fn some_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Period, D::Error> {
    match Period::deserialize(deserializer)? {
        Period(Duration::ZERO) => Err(D::Error::custom(
            "a timeout of 0 leaves no time for anything: write more, such as `1s`",
        )),
        period => Ok(period),
    }
}

/// A kind without settings, of which some are known and not built yet.
trait Kind: Sized + Copy + 'static {
    const WHAT: &'static str;
    const KNOWN: &'static [&'static str];
    const LATER: &'static [&'static str];
    fn named(name: &str) -> Option<Self>;
}

impl Kind for Protocol {
    const WHAT: &'static str = "a protocol";
    const KNOWN: &'static [&'static str] = &["http1", "http2"];
    const LATER: &'static [&'static str] = &["auto"];

    fn named(name: &str) -> Option<Self> {
        match name {
            "http1" => Some(Self::Http1),
            "http2" => Some(Self::Http2),
            _ => None,
        }
    }
}

struct KindVisitor<K>(PhantomData<K>);

impl<'de, K: Kind> Visitor<'de> for KindVisitor<K> {
    type Value = K;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`", K::WHAT, K::KNOWN.join("` or `"))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<K, E> {
        if let Some(kind) = K::named(name) {
            return Ok(kind);
        }
        if K::LATER.contains(&name) {
            return Err(E::custom(format!(
                "`{name}` is not supported by this version yet: write `{}`",
                K::KNOWN.join("` or `")
            )));
        }
        Err(E::unknown_variant(name, K::KNOWN))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<K, A::Error> {
        let Some(name) = map.next_key::<String>()? else {
            return Err(A::Error::custom(format!("name {}", K::WHAT)));
        };
        // A later kind has settings, and its sentence is the better one.
        self.visit_str::<A::Error>(&name)?;
        map.next_value::<IgnoredAny>()?;
        Err(A::Error::custom(format!(
            "`{name}` has no settings: write it alone, without a map"
        )))
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Settings, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let settings = read(r#"{"endpoints": ["127.0.0.1:9001"]}"#).expect("valid");
        assert_eq!(settings.protocol, Protocol::Http1);
        assert_eq!(settings.balance, Balance::P2cEwma);
        assert_eq!(settings.pool.idle_timeout.0, Duration::from_secs(55));
        assert_eq!(settings.timeouts.connect.0, Duration::from_secs(1));
        let endpoints = settings.endpoints.clone().expect("written");
        assert_eq!(settings, Settings::new(endpoints));
    }

    #[test]
    fn every_key_is_read() {
        let settings = read(
            r#"{"endpoints": [], "protocol": "http2", "balance": "round_robin",
                "pool": {"idle_timeout": "5s", "connection_age": "10m", "idle_connections": 7},
                "health_check": {"tcp": {}}, "outlier": {}, "limits": {"requests": 5},
                "affinity": {"cookie": {}}, "zones": "ignore", "slow_start": "30s",
                "panic_threshold": "20%", "timeouts": {"connect": "250ms"}}"#,
        )
        .expect("valid");
        assert_eq!(settings.protocol, Protocol::Http2);
        assert_eq!(settings.balance, Balance::RoundRobin);
        assert_eq!(settings.pool.idle_connections, 7);
        assert_eq!(settings.timeouts.connect.0, Duration::from_millis(250));
        assert!(settings.health_check.is_some() && settings.outlier.is_some());
        assert!(settings.affinity.is_some());
        assert_eq!(settings.zones, ZoneSettings::Ignore);
        assert_eq!(settings.slow_start, Some(Period(Duration::from_secs(30))));
        assert_eq!(settings.panic_threshold, Panic(Share(0.2)));
    }

    #[test]
    fn endpoints_are_written_or_found() {
        let contradicts = |json: &str| read(json).expect(json).contradiction().is_some();
        let dns = r#""discovery": {"dns": {"host": "orders.internal", "port": 80}}"#;
        assert!(contradicts("{}"));
        assert!(contradicts(&format!(r#"{{"endpoints": [], {dns}}}"#)));
        assert!(!contradicts(r#"{"endpoints": []}"#));
        assert!(!contradicts(&format!("{{{dns}}}")));
    }

    #[test]
    fn what_comes_later_or_never_is_refused_in_a_sentence() {
        let check = |rest: &str, sentence: &str| {
            let error = read(&format!(r#"{{"endpoints": [], {rest}}}"#)).expect_err(rest);
            assert!(error.contains(sentence), "{rest}: {error}");
        };
        check(r#""balance": {"p2c_ewma": {}}"#, "has no settings");
        check(
            r#""protocol": "auto""#,
            "`auto` is not supported by this version yet",
        );
        check(r#""protocol": "http3""#, "unknown variant `http3`");
        check(r#""pool": {"idle": "5s"}"#, "unknown field `idle`");
        check(r#""timeouts": {"connect": "0s"}"#, "leaves no time");
    }

    #[test]
    fn the_schema_shows_only_what_works() {
        let schema = serde_json::to_string(&schemars::schema_for!(Settings)).expect("JSON");
        assert!(schema.contains("round_robin"), "{schema}");
        assert!(!schema.contains("\"tls\""), "{schema}");
    }
}
