//! `listeners:`

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use schemars::JsonSchema;

use super::{ItemName, Step, Timeout};
use crate::base::address::Address;
use crate::base::cidr::Cidr;
use crate::base::problem::{Span, Spanned};
use crate::base::values::Size;
use crate::config::de::tried;

/// An address where clients are accepted.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listener {
    /// What it is called in routes, logs and metrics.
    pub(crate) name: Spanned<ItemName>,
    /// `ip:port`, `[ipv6]:port` or `unix:/path`; `0.0.0.0:8080` accepts on every IPv4 address,
    /// `[::]:8080` on every IPv6 address.
    pub(crate) address: Spanned<Address>,
    /// What clients may speak; cleartext HTTP/2 is known by its preface. Default `[http1, http2]`.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) protocols: Option<Spanned<Vec<Protocol>>>,
    /// Proxies in front of us, as addresses or ranges such as `10.0.0.0/8`, whose `X-Forwarded-For`
    /// and `Forwarded` are believed, read from right to left. Default: none.
    #[serde(default, deserialize_with = "tried::each")]
    pub(crate) trusted_proxies: Vec<Cidr>,
    /// Steps before those of the route, for every request of this listener. Default: none.
    #[serde(default, deserialize_with = "tried::each")]
    pub(crate) middlewares: Vec<Step>,
    /// What a client may use up.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) limits: Limits,
}

/// A version of HTTP that clients may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What clients of a listener may use up; together they bound its memory.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// How many connections are open at once, on all workers together; one more is closed at once.
    /// Default 10000.
    pub(crate) connections: NonZeroU32,
    /// How long the head of a request may be, from `8KiB` to `16MiB`; a longer one is answered 431.
    /// Default `64KiB`.
    pub(crate) header_bytes: Spanned<Size>,
    /// How many header fields a request may have; more are answered 431. Default 100.
    pub(crate) headers: NonZeroU16,
    /// How long a client may take to send the head of a request; a slower one is answered 408.
    /// Default `10s`.
    pub(crate) header_timeout: Timeout,
    /// How long a connection may be without a request before it is closed. Default `75s`.
    pub(crate) idle_timeout: Timeout,
    /// After this long a connection is closed once its requests are answered, so that clients spread
    /// again over all gateways. Default: never.
    pub(crate) connection_age: Option<Timeout>,
    /// How many requests may be open at once on one HTTP/2 connection. Default 128.
    pub(crate) streams: NonZeroU32,
}

const CONNECTIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(9_999);
const HEADERS: NonZeroU16 = NonZeroU16::MIN.saturating_add(99);
const STREAMS: NonZeroU32 = NonZeroU32::MIN.saturating_add(127);

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            header_bytes: Spanned {
                value: Size(64 << 10),
                span: Span::default(),
            },
            headers: HEADERS,
            header_timeout: Timeout(Duration::from_secs(10)),
            idle_timeout: Timeout(Duration::from_secs(75)),
            connection_age: None,
            streams: STREAMS,
        }
    }
}
