//! An id for each request, so that logs of several programs can be joined.
//!
//! The id has the form of a random UUID (RFC 9562, version 4), which every tool accepts. It comes from
//! a generator of the worker's own, seeded once from the system's randomness: ids do not repeat, but
//! they are no secret.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

use bytes::BytesMut;
use fastrand::Rng;
use http::HeaderValue;
use http::header::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Hooks, Kind, Natives, Step};
use crate::base::message::{Request, Response};
use crate::base::per_worker::PerWorker;
use crate::base::values::Name;

/// Gives each request an id, which the backend, the client and the access log see.
///
/// Example: `request_id`, or `request_id: {trust: false}` where clients are strangers.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
#[schemars(rename = "RequestId")]
pub struct Settings {
    /// The header that carries the id. Default: `x-request-id`. Example: `x-correlation-id`.
    pub header: Name,
    /// Whether an id that the client sent is kept, if it is 1 to 128 visible ASCII characters long.
    /// Default: `true`. With `false` every request gets a new one.
    pub trust: bool,
    /// Whether the answer carries the id, too. Default: `true`.
    pub response: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            header: Name(HeaderName::from_static("x-request-id")),
            trust: true,
            response: true,
        }
    }
}

/// The longest id that is taken from a client.
const LONGEST: usize = 128;

/// Makes or keeps ids.
#[derive(Debug)]
pub struct RequestId {
    header: PerWorker<HeaderName>,
    trust: bool,
    response: bool,
}

impl Kind for RequestId {
    type Settings = Settings;

    fn build(settings: &Settings, _: &Natives) -> Result<Self, String> {
        Ok(Self {
            header: PerWorker::new(settings.header.0.clone()),
            trust: settings.trust,
            response: settings.response,
        })
    }
}

impl Hooks for RequestId {
    fn on_request(&self, request: &mut Request, cx: &mut Context<'_>) -> Step<Request> {
        let header = self.header.get();
        let sent = request.head.headers.get(header);
        let id = match sent.filter(|id| self.trust && is_usable(id)) {
            Some(id) => id.clone(),
            None => fresh(),
        };
        // Also in the place of an id that was kept: of several values only one may stay.
        request.head.set_header(header.clone(), id.clone());
        cx.record.request_id = Some(id);
        Step::Next
    }

    fn on_response(&self, response: &mut Response, cx: &mut Context<'_>) -> Step<Response> {
        if self.response
            && let Some(id) = &cx.record.request_id
        {
            let header = self.header.get().clone();
            response.head.headers.set(header, id.clone());
        }
        Step::Next
    }
}

fn is_usable(id: &HeaderValue) -> bool {
    (1..=LONGEST).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

thread_local! {
    static SOURCE: RefCell<Source> = RefCell::new(Source {
        random: [seeded(), seeded()],
        room: BytesMut::new(),
    });
}

/// What ids are made of.
struct Source {
    /// Two generators, since one has only 64 bits of state: too few for ids of a whole fleet.
    random: [Rng; 2],
    /// Room for the texts of the next ids.
    room: BytesMut,
}

/// How many ids share one allocation. It lives as long as any of them, so it must stay small: a
/// WebSocket may hold the last one for days.
const IDS_PER_ROOM: usize = 16;

/// A generator seeded from the system's randomness, which std has read once for its hash maps.
fn seeded() -> Rng {
    Rng::with_seed(RandomState::new().hash_one("request id"))
}

/// A new id: no system call, and one allocation for [`IDS_PER_ROOM`] of them.
fn fresh() -> HeaderValue {
    let text = SOURCE.with_borrow_mut(|Source { random, room }| {
        let [high, low] = random.each_mut().map(|rng| rng.u64(..));
        let text = uuid(high, low);
        if room.capacity() < text.len() {
            *room = BytesMut::with_capacity(text.len() * IDS_PER_ROOM);
        }
        room.extend_from_slice(&text);
        room.split().freeze()
    });
    // Hex digits and dashes are a valid value: the second branch is never taken.
    HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static("-"))
}

/// The text of a random UUID: 122 of the 128 bits, and the marks of its version.
fn uuid(high: u64, low: u64) -> [u8; 36] {
    let [a, b] = digits(high & !0xf000 | 0x4000);
    let [c, d] = digits(low & !(0xc << 60) | 0x8 << 60);
    let (b1, b2) = b.split_at(4);
    let (c1, c2) = c.split_at(4);
    let mut text = [b'-'; 36];
    for (at, digits) in [
        (0, &a[..]),
        (9, b1),
        (14, b2),
        (19, c1),
        (24, c2),
        (28, &d[..]),
    ] {
        if let Some(place) = text.get_mut(at..at + digits.len()) {
            place.copy_from_slice(digits);
        }
    }
    text
}

/// The 16 hex digits of a number, in two halves.
fn digits(number: u64) -> [[u8; 8]; 2] {
    let half = |bits: u64| {
        // Spread eight nibbles over eight bytes, then lift all of them to ASCII at once.
        let mut x = bits & 0xffff_ffff;
        x = (x << 16 | x) & 0x0000_ffff_0000_ffff;
        x = (x << 8 | x) & 0x00ff_00ff_00ff_00ff;
        x = (x << 4 | x) & 0x0f0f_0f0f_0f0f_0f0f;
        let letters = (x + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
        (x + 0x3030_3030_3030_3030 + letters * 0x27).to_be_bytes()
    };
    [half(number >> 32), half(number)]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::testing::*;
    use super::*;

    /// The id that the backend sees, checked against the record and the answer.
    fn id(settings: &str, sent: &[(&str, &str)]) -> String {
        let it = build(&format!(r#"{{"request_id": {settings}}}"#));
        let mut world = World::new();
        let mut request = request("GET", "/", sent);
        assert!(world.down(&it, &mut request).is_none());
        let seen = joined(&request.head.headers, "x-request-id").expect("an id");
        assert_eq!(world.record.request_id.as_ref().expect("an id"), &*seen);
        let answer = world.up(&it, response(&[("x-request-id", "the backend's")]));
        assert_eq!(
            joined(&answer.head.headers, "x-request-id"),
            Some(seen.clone())
        );
        seen
    }

    #[test]
    fn a_usable_id_of_the_client_is_kept() {
        let long = "a".repeat(128);
        for sent in ["7", "a-b_c.d:e/f+g=", &long] {
            assert_eq!(id("{}", &[("x-request-id", sent)]), sent);
        }
        assert_eq!(
            id("{}", &[("x-request-id", "1"), ("x-request-id", "2")]),
            "1"
        );
    }

    #[test]
    fn an_unusable_or_untrusted_id_is_replaced() {
        let long = "a".repeat(129);
        for sent in ["", "two words", "tab\tbed", &long] {
            assert_eq!(id("{}", &[("x-request-id", sent)]).len(), 36);
        }
        assert_eq!(
            id(r#"{"trust": false}"#, &[("x-request-id", "7")]).len(),
            36
        );
    }

    #[test]
    fn new_ids_are_random_uuids_and_never_the_same() {
        let ids: HashSet<String> = (0..1000).map(|_| id("{}", &[])).collect();
        assert_eq!(ids.len(), 1000);
        for id in &ids {
            let dashes: Vec<usize> = id.match_indices('-').map(|(at, _)| at).collect();
            assert_eq!(dashes, [8, 13, 18, 23]);
            assert_eq!(id.as_bytes()[14], b'4');
            assert!(b"89ab".contains(&id.as_bytes()[19]));
        }
    }

    #[test]
    fn the_text_of_an_id_has_every_bit_in_its_place() {
        let text = uuid(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
        assert_eq!(&text, b"01234567-89ab-4def-bedc-ba9876543210");
    }

    #[test]
    fn the_answer_carries_no_id_where_none_is_wanted() {
        let it = build(r#"{"request_id": {"response": false, "header": "X-Id"}}"#);
        let mut world = World::new();
        let mut request = get("/");
        world.down(&it, &mut request);
        assert!(request.head.headers.contains("x-id"));
        let answer = world.up(&it, response(&[]));
        assert!(answer.head.headers.is_empty());
    }
}
