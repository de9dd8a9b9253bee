//! Lets so many requests through in so much time, exactly, over all workers.
//!
//! The generic cell rate algorithm (ITU-T I.371): a bucket is one number, the time at which it would
//! be full again. [`buckets`] decides from that number, the time and the limit alone. One bucket is one
//! atomic; a bucket for each client or header value is a slot of a table that is bounded whatever
//! keys strangers send.
//!
//! What must hold: in any stretch of time no more than `burst` requests, and `requests` for each `per`
//! of it, are let through.

mod buckets;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Instant;

use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer};

use self::buckets::{Bucket, Limit, Table};
use super::{Context, Hooks, Kind, Natives, Step, written_as};
use crate::base::clock;
use crate::base::message::{Request, RequestHead, Response};
use crate::base::values::{Name, Period};
use crate::telemetry::decision::Flag;

/// How often, and for whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    limit: Limit,
    by: By,
    status: StatusCode,
    dry_run: bool,
    max_keys: usize,
}

/// Lets so many requests through in so much time; the others are answered with status 429 and
/// `retry-after`. The count is exact over all workers, and starts anew when its settings change.
///
/// Example: `rate_limit: {requests: 100, per: 1s, burst: 50, by: client_ip}`.
#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
#[schemars(rename = "RateLimit")]
struct Written {
    /// How many requests are let through in each `per`, at least 1, at most a billion a second.
    /// Example: `100`.
    requests: NonZeroU32,
    /// The time in which they are let through; they are spread evenly over it. Example: `1s`.
    per: Period,
    /// How many requests may come at once after a pause. Default: as many as `requests`. Example: `50`.
    burst: Option<NonZeroU32>,
    /// For whom the limit counts. Default: `route`. Example: `client_ip`.
    #[serde(default)]
    by: By,
    /// The status of the refusal, 400 to 599. Default: `429`.
    #[serde(default)]
    status: Refusal,
    /// Whether the limit only notes in the log whom it would refuse. Default: `false`.
    #[serde(default)]
    dry_run: bool,
    /// For how many clients or header values at most a bucket is kept, at 26 bytes each. Beyond it the
    /// fullest buckets are forgotten first, which lets their owners have a fresh one. Default: `10000`.
    #[serde(default = "default_max_keys")]
    max_keys: NonZeroU32,
}

/// For whom a limit counts.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RateLimitBy")]
pub enum By {
    /// One bucket for each place (route or listener) that names the middleware.
    #[default]
    Route,
    /// One for each client's address; IPv6 addresses count by their /64, which is one customer's.
    ClientIp,
    /// One for each value of a header; requests without it share one. Example: `{header: x-api-key}`.
    Header(Name),
}

/// The status of a refusal.
#[derive(Debug, Clone, Copy)]
struct Refusal(StatusCode);

impl Default for Refusal {
    fn default() -> Self {
        Self(StatusCode::TOO_MANY_REQUESTS)
    }
}

fn default_max_keys() -> NonZeroU32 {
    const { NonZeroU32::new(10_000).unwrap() }
}

impl<'de> Deserialize<'de> for Refusal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u16::deserialize(deserializer)? {
            code @ 400..=599 => StatusCode::from_u16(code)
                .map(Self)
                .map_err(de::Error::custom),
            code => Err(de::Error::custom(format!(
                "{code} is not a status of a refusal: write one from 400 to 599, such as 429"
            ))),
        }
    }
}

impl JsonSchema for Refusal {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Refusal".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 400, "maximum": 599})
    }
}

written_as!(Written);

impl TryFrom<Written> for Settings {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let burst = written.burst.unwrap_or(written.requests);
        Ok(Self {
            limit: Limit::new(written.requests, written.per, burst)?,
            by: written.by,
            status: written.status.0,
            dry_run: written.dry_run,
            max_keys: usize::try_from(written.max_keys.get()).unwrap_or(usize::MAX),
        })
    }
}

/// Lets so many requests through in so much time.
#[derive(Debug)]
pub struct RateLimit {
    limit: Limit,
    start: Instant,
    buckets: Buckets,
    status: StatusCode,
    dry_run: bool,
}

#[derive(Debug)]
enum Buckets {
    One(Bucket),
    ByClientIp(Table),
    ByHeader(HeaderName, Table),
}

impl Kind for RateLimit {
    type Settings = Settings;

    fn build(settings: &Settings, _: &Natives) -> Result<Self, String> {
        let table = || Table::new(settings.max_keys);
        Ok(Self {
            limit: settings.limit,
            start: clock::now(),
            buckets: match &settings.by {
                By::Route => Buckets::One(Bucket::default()),
                By::ClientIp => Buckets::ByClientIp(table()),
                By::Header(Name(name)) => Buckets::ByHeader(name.clone(), table()),
            },
            status: settings.status,
            dry_run: settings.dry_run,
        })
    }

    fn is_per_place(settings: &Settings) -> bool {
        settings.by == By::Route
    }
}

impl super::Settings {
    /// What a middleware of these settings counts, which is forgotten when it is made anew; none for
    /// those that count nothing.
    pub fn counts(&self) -> Option<&'static str> {
        match self {
            Self::RateLimit(_) => Some("buckets"),
            _ => None,
        }
    }
}

impl Hooks for RateLimit {
    fn on_request(&self, request: &mut Request, cx: &mut Context<'_>) -> Step<Request> {
        let since = cx.now.saturating_duration_since(self.start);
        let now = since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos());
        let (taken, detail) = match &self.buckets {
            Buckets::One(bucket) => (
                bucket.ask(now, self.limit, cx.effects),
                "`rate_limit` by route is used up",
            ),
            Buckets::ByClientIp(table) => (
                table.ask(
                    &network(request.head.client.ip),
                    now,
                    self.limit,
                    cx.effects,
                ),
                "`rate_limit` by client_ip is used up",
            ),
            Buckets::ByHeader(name, table) => {
                let value = request.head.headers.get(name).map(HeaderValue::as_bytes);
                // The detail names no value: it may be a secret.
                (
                    table.ask(&value.unwrap_or_default(), now, self.limit, cx.effects),
                    "`rate_limit` by header is used up",
                )
            }
        };
        match taken {
            Ok(()) => Step::Next,
            Err(_) if self.dry_run => {
                cx.record.note("`rate_limit` would refuse this request");
                Step::Next
            }
            Err(wait) => {
                cx.record.fail(Flag::RateLimited, detail);
                let seconds = HeaderValue::from(wait.div_ceil(1_000_000_000));
                let refusal = Response::status(self.status);
                Step::answer(refusal.with_header(header::RETRY_AFTER, seconds))
            }
        }
    }

    fn about(&self, head: &RequestHead) -> Option<String> {
        let whose = match &self.buckets {
            Buckets::One(_) => "all requests of this place together".to_owned(),
            Buckets::ByClientIp(_) => match network(head.client.ip) {
                Some(ip) => format!("client_ip {ip}"),
                None => "clients without an address".to_owned(),
            },
            // The value may be a secret.
            Buckets::ByHeader(name, _) if head.headers.contains(name) => {
                format!("this value of `{name}`")
            }
            Buckets::ByHeader(name, _) => format!("requests without `{name}`"),
        };
        let dry = if self.dry_run { ", only noted" } else { "" };
        Some(format!("{} for {whose}{dry}", self.limit))
    }
}

/// What of an address stands for one client.
fn network(ip: Option<IpAddr>) -> Option<IpAddr> {
    match ip?.to_canonical() {
        IpAddr::V4(ip) => Some(ip.into()),
        IpAddr::V6(ip) => {
            let prefix = ip.to_bits() & !u128::from(u64::MAX);
            Some(IpAddr::V6(prefix.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Middleware;
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_refusal_says_when_to_come_back_and_why() {
        let it = build(r#"{"rate_limit": {"requests": 1, "per": "90s"}}"#);
        let mut world = World::new();
        assert!(world.down(&it, &mut get("/")).is_none());
        world.after(Duration::from_millis(500));
        let refusal = world.down(&it, &mut get("/")).expect("refused");
        assert_eq!(refusal.head.status, 429);
        assert_eq!(
            joined(&refusal.head.headers, "retry-after").as_deref(),
            Some("90")
        );
        assert!(refusal.body.is_empty());
        assert_eq!(world.record.flag, Some(Flag::RateLimited));
        world.after(Duration::from_millis(89_500));
        assert!(world.down(&it, &mut get("/")).is_none());
    }

    #[test]
    fn a_dry_run_only_notes() {
        let it = build(r#"{"rate_limit": {"requests": 1, "per": "1s", "dry_run": true}}"#);
        let mut world = World::new();
        for _ in 0..2 {
            assert!(world.down(&it, &mut get("/")).is_none());
        }
        assert_eq!(world.record.notes.len(), 1);
        assert_eq!(world.record.flag, None);
    }

    /// Which of the requests, sent at the same time, are let through.
    fn passes<const N: usize>(it: &Middleware, requests: [Request; N]) -> [bool; N] {
        let mut world = World::new();
        requests.map(|mut request| world.down(it, &mut request).is_none())
    }

    #[test]
    fn each_client_has_a_bucket() {
        let it = build(r#"{"rate_limit": {"requests": 1, "per": "1h", "by": "client_ip"}}"#);
        let from = |ip: &str| {
            let mut request = get("/");
            request.head.client.ip = ip.parse().ok();
            request
        };
        let requests = ["10.0.0.1", "10.0.0.2", "10.0.0.1", "::ffff:10.0.0.2"].map(from);
        assert_eq!(passes(&it, requests), [true, true, false, false]);
        let requests = ["2001:db8:0:1::1", "2001:db8:0:1:2::", "2001:db8:0:2::1"].map(from);
        assert_eq!(passes(&it, requests), [true, false, true]);
        assert_eq!(passes(&it, ["unix", "unix"].map(from)), [true, false]);
    }

    #[test]
    fn each_value_of_a_header_has_a_bucket() {
        let it = build(
            r#"{"rate_limit": {"requests": 1, "per": "1h", "by": {"header": "x-api-key"}, "status": 503}}"#,
        );
        let with = |key: &str| request("GET", "/", &[("x-api-key", key)]);
        let requests = [with("a"), with("b"), with("a"), get("/"), get("/")];
        assert_eq!(passes(&it, requests), [true, true, false, true, false]);
        let mut world = World::new();
        let refusal = world.down(&it, &mut with("a")).expect("refused");
        assert_eq!(refusal.head.status, 503);
        assert_eq!(
            world.record.detail.as_deref(),
            Some("`rate_limit` by header is used up")
        );
    }

    #[test]
    fn mistakes_are_found_at_the_door() {
        let check = |settings: &str, words: &str| {
            let refused = refusal(&format!(r#"{{"rate_limit": {settings}}}"#));
            assert!(refused.contains(words), "{refused}");
        };
        check(r#"{"per": "1s"}"#, "missing field `requests`");
        check(r#"{"requests": 0, "per": "1s"}"#, "nonzero");
        check(r#"{"requests": 1, "per": "0s"}"#, "over a billion a second");
        check(
            r#"{"requests": 2, "per": "1ns"}"#,
            "over a billion a second",
        );
        check(
            r#"{"requests": 1, "per": "1d", "burst": 1000}"#,
            "more than a year",
        );
        check(
            r#"{"requests": 1, "per": "1s", "status": 200}"#,
            "from 400 to 599",
        );
        check(
            r#"{"requests": 1, "per": "1s", "by": "moon"}"#,
            "unknown variant `moon`",
        );
        check(r#"{"requests": 1, "per": "1s", "max_keys": 0}"#, "nonzero");
    }

    #[test]
    fn a_limit_by_route_counts_for_each_place() {
        let settings = |by: &str| -> super::super::Settings {
            serde_json::from_str(&format!(
                r#"{{"rate_limit": {{"requests": 1, "per": "1s", "by": "{by}"}}}}"#
            ))
            .expect("valid")
        };
        assert!(settings("route").is_per_place());
        assert!(!settings("client_ip").is_per_place());
    }
}
