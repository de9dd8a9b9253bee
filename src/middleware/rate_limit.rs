//! Lets so many requests through in so much time, exactly, over all workers.
//!
//! The generic cell rate algorithm (ITU-T I.371): a bucket is one number, the time at which it would
//! be full again. [`take`] decides from that number, the time and the limit alone. One bucket is one
//! atomic; a bucket for each client or header value is a slot of a table that is bounded whatever
//! keys strangers send.
//!
//! What must hold: in any stretch of time no more than `burst` requests, and `requests` for each `per`
//! of it, are let through.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer};

use super::{Context, Hooks, Kind, Natives, Step, written_as};
use crate::base::message::{Request, Response};
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
    /// How many requests are let through in each `per`, at least 1, at most a million a second.
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

/// A rate and a burst, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Limit {
    /// From one request to the next at the full rate, rounded up so that the rate is never exceeded.
    interval: u64,
    /// In which an empty bucket gets full: `burst` intervals.
    window: u64,
}

/// The longest time for an empty bucket to get full.
const LONGEST_WINDOW: u64 = 366 * 24 * 3600 * 1_000_000_000;

impl Limit {
    fn new(requests: NonZeroU32, per: Period, burst: NonZeroU32) -> Result<Self, &'static str> {
        let per = u64::try_from(per.0.as_nanos()).unwrap_or(u64::MAX);
        let interval = per.div_ceil(requests.get().into());
        if interval < 1000 {
            return Err("the rate is over a million a second: lower `requests` or lengthen `per`");
        }
        match interval.checked_mul(burst.get().into()) {
            Some(window) if window <= LONGEST_WINDOW => Ok(Self { interval, window }),
            _ => Err(
                "a used up `burst` would need more than a year to come back: lower it or shorten `per`",
            ),
        }
    }
}

/// When a bucket is full again, in nanoseconds; 0 for one that was never used.
type State = u64;

/// Takes one request out of a bucket: the bucket's new state, or how many nanoseconds to wait.
fn take(full_at: State, now: u64, limit: Limit) -> Result<State, u64> {
    let next = full_at.max(now).saturating_add(limit.interval);
    match next.saturating_sub(now.saturating_add(limit.window)) {
        0 => Ok(next),
        wait => Err(wait),
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
            start: Instant::now(),
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

impl Hooks for RateLimit {
    fn on_request(&self, request: &mut Request, cx: &mut Context<'_>) -> Step<Request> {
        let since = cx.now.saturating_duration_since(self.start);
        let now = since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos());
        let (taken, detail) = match &self.buckets {
            Buckets::One(bucket) => (
                bucket.take(now, self.limit),
                "`rate_limit` by route is used up",
            ),
            Buckets::ByClientIp(table) => (
                table.take(&network(request.head.client.ip), now, self.limit),
                "`rate_limit` by client_ip is used up",
            ),
            Buckets::ByHeader(name, table) => {
                let value = request.head.headers.get(name).map(HeaderValue::as_bytes);
                // The detail names no value: it may be a secret.
                (
                    table.take(&value.unwrap_or_default(), now, self.limit),
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

/// One bucket for all workers, on cache lines of its own: what stands beside it is read by all.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Bucket(AtomicU64);

impl Bucket {
    fn take(&self, now: u64, limit: Limit) -> Result<(), u64> {
        // Shared by all workers, since the limit must be exact. A refusal only reads. No other memory
        // hangs on this number, so no order beyond its own is needed.
        let mut state = self.0.load(Ordering::Relaxed);
        loop {
            let next = take(state, now, limit)?;
            let swap = |from| {
                self.0
                    .compare_exchange_weak(from, next, Ordering::Relaxed, Ordering::Relaxed)
            };
            match swap(state) {
                Ok(_) => return Ok(()),
                Err(newer) => state = newer,
            }
        }
    }
}

/// Buckets by key: a set-associative table.
///
/// A key's hash says in which set its bucket is, if it has one; a set has [`WAYS`] slots, and a new key
/// takes a free one or else that of the bucket which loses least by it: the fullest. A stranger who
/// sends ever new keys can so make others forget that they had used a little, but not that they had
/// used all, and costs 16 bytes a key up to the bound.
///
/// A lock is taken on a request's path, for some 20 ns, one of hundreds: finding and taking must be one
/// step to be exact, and two words cannot be swapped at once.
struct Table {
    /// Keyed and hard to invert, so that nobody can send keys which fall into another's slot.
    hasher: RandomState,
    sets: OnceLock<Box<[Mutex<Set>]>>,
    count: usize,
}

/// The most slots of a set.
const WAYS: usize = 32;

/// Half as many slots again as keys, since the hash spreads keys unevenly.
const KEYS_PER_SET: usize = 21;

/// Buckets that share a lock; it grows with use.
#[derive(Default)]
struct Set(Vec<Slot>);

#[derive(Clone, Copy)]
struct Slot {
    key: u64,
    full_at: State,
}

impl Table {
    fn new(max_keys: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            sets: OnceLock::new(),
            count: max_keys.div_ceil(KEYS_PER_SET),
        }
    }

    fn take(&self, key: &impl std::hash::Hash, now: u64, limit: Limit) -> Result<(), u64> {
        let key = self.hasher.hash_one(key);
        let sets = self
            .sets
            .get_or_init(|| (0..self.count).map(|_| Mutex::default()).collect());
        let place = (u128::from(key) * sets.len() as u128) >> 64;
        let Some(set) = usize::try_from(place)
            .ok()
            .and_then(|place| sets.get(place))
        else {
            return Ok(());
        };
        // A panic inside could leave no more behind than a slot: a poisoned lock is as good as any.
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        set.take(key, now, limit)
    }
}

impl Set {
    fn take(&mut self, key: u64, now: u64, limit: Limit) -> Result<(), u64> {
        let is_whole = self.0.len() >= WAYS;
        // The key's own slot comes first, then the one that is full for longest.
        let slot = self
            .0
            .iter_mut()
            .min_by_key(|slot| (slot.key != key, slot.full_at));
        match slot {
            Some(slot) if slot.key == key => slot.full_at = take(slot.full_at, now, limit)?,
            slot => {
                let full_at = take(0, now, limit)?;
                match slot {
                    Some(slot) if is_whole || slot.full_at <= now => *slot = Slot { key, full_at },
                    _ => self.0.push(Slot { key, full_at }),
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({} sets)", self.count)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::Middleware;
    use super::super::testing::*;
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limit(requests: u32, per: &str, burst: u32) -> Limit {
        let requests = NonZeroU32::new(requests).expect("not 0");
        let burst = NonZeroU32::new(burst).expect("not 0");
        Limit::new(requests, per.parse().expect(per), burst).expect("a limit")
    }

    #[test]
    fn a_full_bucket_lets_its_burst_through_and_then_its_rate() {
        let limit = limit(10, "1s", 3);
        let mut state = 0;
        let mut taken = |now| take(state, now, limit).map(|next| state = next);
        for _ in 0..3 {
            assert_eq!(taken(0), Ok(()));
        }
        assert_eq!(taken(0), Err(SECOND / 10));
        assert_eq!(taken(SECOND / 10 - 1), Err(1));
        assert_eq!(taken(SECOND / 10), Ok(()));
        assert_eq!(taken(SECOND / 10), Err(SECOND / 10));
        // After a long pause the burst is back, and no more than it.
        for _ in 0..3 {
            assert_eq!(taken(SECOND), Ok(()));
        }
        assert_eq!(taken(SECOND), Err(SECOND / 10));
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_has_more_than_burst_and_rate(
            requests in 1_u32..1000,
            per in 1_u64..5000,
            burst in 1_u32..100,
            pauses in prop::collection::vec(0_u64..SECOND, 1..200),
        ) {
            let limit = limit(requests, &format!("{per}ms"), burst);
            let (mut state, mut now) = (0, 0);
            let mut admitted = Vec::new();
            for pause in pauses {
                // Short pauses as well as long ones: the square makes most of them short.
                now += pause / 1000 * pause / SECOND;
                if let Ok(next) = take(state, now, limit) {
                    state = next;
                    admitted.push(now);
                }
            }
            let per = u128::from(per) * 1_000_000;
            for (i, from) in admitted.iter().enumerate() {
                for (j, to) in admitted.iter().enumerate().skip(i) {
                    let count = (j - i + 1) as u128;
                    let allowed = u128::from(burst) * per + u128::from(requests) * u128::from(to - from);
                    prop_assert!(count * per <= allowed, "{count} from {from} to {to}");
                }
            }
        }

        #[test]
        fn a_refusal_says_exactly_how_long_to_wait(
            requests in 1_u32..1000,
            burst in 1_u32..100,
            state in 0..2 * SECOND,
            now in 0..SECOND,
        ) {
            let limit = limit(requests, "1s", burst);
            if let Err(wait) = take(state, now, limit) {
                prop_assert!(take(state, now + wait, limit).is_ok());
                prop_assert!(take(state, now + wait - 1, limit).is_err());
            }
        }
    }

    /// How many of many takes at the same time by several threads are let through.
    fn admitted(take: impl Fn() -> Result<(), u64> + Sync) -> usize {
        std::thread::scope(|scope| {
            let takes = || (0..5000).filter(|_| take().is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(takes)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .sum()
        })
    }

    #[test]
    fn threads_together_are_let_through_exactly_the_burst() {
        let limit = limit(1000, "1s", 777);
        let bucket = Bucket::default();
        assert_eq!(admitted(|| bucket.take(0, limit)), 777);
        let table = Table::new(100);
        assert_eq!(admitted(|| table.take(&"one key", 0, limit)), 777);
    }

    #[test]
    fn a_used_up_bucket_outlives_a_flood_of_other_keys() {
        let limit = limit(10, "1s", 10);
        let table = Table::new(1000);
        for _ in 0..10 {
            assert_eq!(table.take(&"greedy", 0, limit), Ok(()));
        }
        for key in 0..100_000_u32 {
            assert_eq!(table.take(&key, 0, limit), Ok(()));
        }
        assert!(table.take(&"greedy", 0, limit).is_err());
        let sets = table.sets.get().expect("used");
        let slots: usize = sets
            .iter()
            .map(|set| set.lock().expect("no panic").0.capacity())
            .sum();
        assert!(slots <= 1000 * WAYS / KEYS_PER_SET + WAYS, "{slots}");
    }

    #[test]
    fn a_table_has_room_for_its_keys() {
        let limit = limit(10, "1s", 1);
        let table = Table::new(10_000);
        let again = || {
            (0..10_000_u32)
                .filter(|key| table.take(key, 0, limit).is_ok())
                .count()
        };
        assert_eq!(again(), 10_000);
        let forgotten = again();
        assert!(forgotten < 100, "{forgotten} of 10000 keys had no place");
    }

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
        check(r#"{"requests": 1, "per": "0s"}"#, "over a million a second");
        check(
            r#"{"requests": 2, "per": "1us"}"#,
            "over a million a second",
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
