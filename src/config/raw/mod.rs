//! The shapes that people write, as serde reads them; their docs are the reference and the JSON Schema.
//!
//! Nothing here knows of anything else in the file: names are looked up by `check`.

mod listener;
mod retry;
mod route;
mod shared;
mod telemetry;
pub(crate) mod test;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

pub use self::listener::Protocol;
pub(crate) use self::listener::{Limits, Listener};
pub use self::retry::{After, Condition};
pub(crate) use self::retry::{Hedge, Retry};
pub(crate) use self::route::{Backend, Mirror, Route, Timeouts};
pub(crate) use self::shared::{ItemName, NameOr, Timeout};
pub(crate) use self::telemetry::Telemetry;
use crate::base::address::Address;
use crate::base::pressure::Shedding;
use crate::base::problem::Spanned;
use crate::base::values::{OneOrMany, Period};
use crate::config::de::Held;
use crate::{handler, middleware, upstream};

/// A step of a chain: the name of a middleware, a kind with its settings, or a bare kind.
pub(crate) type Step = Held<NameOr<middleware::Settings>>;

/// A middleware of its own, or a list of steps under one name.
pub(crate) type Chain = OneOrMany<Step>;

/// A configuration of Retort. Keys are evaluated as data: the order of sections does not matter.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "sections are read one item at a time; this is their schema"
)]
pub(crate) struct File {
    /// Threads, shutdown, where state is kept.
    runtime: Option<Runtime>,
    /// The port for operators: gRPC and JSON.
    admin: Option<Admin>,
    /// Metrics, health endpoints, the access log.
    telemetry: Option<Telemetry>,
    /// Addresses where clients are accepted.
    listeners: Option<Vec<Listener>>,
    /// Which requests go where. The more exact match wins, whatever the order; of equals the earlier.
    routes: Option<Vec<Route>>,
    /// Middlewares that routes, listeners and other chains refer to by name. A list is a chain.
    middlewares: Option<BTreeMap<ItemName, Chain>>,
    /// Handlers that routes refer to by name; they answer inside the process.
    handlers: Option<BTreeMap<ItemName, handler::Settings>>,
    /// Named groups of endpoints that requests are sent to.
    upstreams: Option<BTreeMap<ItemName, upstream::Settings>>,
    /// Requests and what should become of them, checked by `retort test` without a network.
    tests: Option<Vec<test::Test>>,
    /// Further files, as paths or patterns such as `routes/*.yaml`, relative to this file. Their lists
    /// and maps are added to those here; a name that is declared twice is an error.
    include: Option<Vec<String>>,
}

/// Threads, shutdown, where state is kept.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Runtime {
    /// How many threads serve traffic: `auto` is one per CPU of the cgroup's quota, at least 1.
    /// Default `auto`.
    pub(crate) workers: Workers,
    /// How long a stopping gateway waits for requests in flight. Keep it below the grace period of
    /// whatever stops it. Default `25s`.
    pub(crate) drain: Period,
    /// Where the history of applied configurations is kept. Default: in memory only.
    pub(crate) state_dir: Option<PathBuf>,
    /// When requests are refused to keep the process within the limits of its cgroup, by the
    /// `priority` of their routes: `off`, or shares of its limits. Default `{memory: 90%, cpu: off}`.
    pub(crate) shedding: Shedding,
    /// The zone that this process runs in, such as `eu-1a`: endpoints of the same `zone` come first.
    /// Default: not known, and zones do not matter.
    pub(crate) zone: Option<String>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            workers: Workers::Auto,
            drain: Period(Duration::from_secs(25)),
            state_dir: None,
            shedding: Shedding::default(),
            zone: None,
        }
    }
}

/// How many threads serve traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// One per CPU of the cgroup's quota, at least 1.
    Auto,
    /// That many.
    Count(NonZeroU16),
}

/// More workers than any machine has use for are a slip.
const MOST_WORKERS: u16 = 1024;

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Workers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "`auto` or a whole number from 1 to {MOST_WORKERS}")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Workers, E> {
                match (text, text.parse()) {
                    ("auto", _) => Ok(Workers::Auto),
                    (_, Ok(number)) => self.visit_u64(number),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Workers, E> {
                let count = u16::try_from(number)
                    .ok()
                    .filter(|count| *count <= MOST_WORKERS);
                match count.and_then(NonZeroU16::new) {
                    Some(count) => Ok(Workers::Count(count)),
                    None => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Workers {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Workers".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"const": "auto"},
            {"type": "integer", "minimum": 1, "maximum": MOST_WORKERS},
        ]})
    }
}

/// The port for operators.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Admin {
    /// `ip:port` or `unix:/path`. Whoever reaches it may change the configuration, so keep it local.
    /// Default `127.0.0.1:15000`.
    pub(crate) address: Option<Spanned<Address>>,
}
