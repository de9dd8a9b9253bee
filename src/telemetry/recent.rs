//! The records of requests that failed or were slow, kept for whoever asks why.
//!
//! Each worker writes to a ring of its own; whoever asks looks through all of them. What is kept is
//! bounded in number by the settings and in size by [`TEXT`] and [`LIST`]: a record is at most some 12 KiB.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::cidr::Cidr;
use crate::base::values::Period;

/// The longest text of a record, in bytes; what is longer is cut.
pub const TEXT: usize = 512;

/// The longest value of the header that tells of a decision, in bytes.
const LINE: usize = 1024;

/// The most notes and attempts of a record.
const LIST: usize = 16;

/// Which requests are kept for `retort why`, and who is told on the spot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Decisions")]
pub struct Settings {
    /// How many requests that failed or were slow each worker keeps, up to 100000; 0 keeps none. A
    /// record is mostly 1 KiB, at most 12 KiB. Default `512`.
    #[serde(deserialize_with = "at_most")]
    #[schemars(range(max = 100_000))]
    pub recent: u32,
    /// Requests that last so long are kept though they succeed. Default `1s`.
    pub slow: Period,
    /// Clients whose answers have the header `x-retort-decision`, by the address that connects to
    /// us: networks such as `10.0.0.0/8`. Default: nobody.
    pub header_for: Vec<Cidr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            recent: 512,
            slow: Period(Duration::from_secs(1)),
            header_for: Vec::new(),
        }
    }
}

const MOST: u32 = 100_000;

fn at_most<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let recent = u32::deserialize(deserializer)?;
    if recent > MOST {
        let message = format!("{recent} requests are too many to keep: {MOST} is the most");
        return Err(serde::de::Error::custom(message));
    }
    Ok(recent)
}

/// What was decided about a request that is over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The request's id; one of our own where it had none.
    pub request_id: String,
    /// When it came, as RFC 3339 has it.
    pub started_at: String,
    /// From its head to the end of the answer, in milliseconds.
    pub duration_ms: f64,
    /// The part of it that was waited for whoever answered.
    pub backend_ms: f64,
    /// The number of the configuration under which it was answered.
    pub revision: u64,
    /// The listener that it came through.
    pub listener: String,
    /// The client's address.
    pub client: String,
    /// The method.
    pub method: String,
    /// The host that it asked for.
    pub host: String,
    /// The path and the query, as the client wrote them.
    pub target: String,
    /// The protocol of the client.
    pub protocol: String,
    /// The route; empty where there was none.
    pub route: String,
    /// The kind of the middleware that answered; empty where none did.
    pub middleware: String,
    /// What rules noted.
    pub notes: Vec<String>,
    /// The upstream; empty where it went to none.
    pub upstream: String,
    /// The handler; empty where it went to none.
    pub handler: String,
    /// Every attempt at an endpoint.
    pub attempts: Vec<Try>,
    /// The status of the answer.
    pub status: u16,
    /// The response flag; empty where there is none.
    pub flag: String,
    /// What the flag means.
    pub meaning: String,
    /// A sentence that adds to it.
    pub detail: String,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
}

/// One attempt at an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Try {
    /// Its address; empty where none was chosen.
    pub endpoint: String,
    /// How long it took to the head of its answer, or to its failure, in milliseconds.
    pub duration_ms: f64,
    /// The status of its answer; none where there was none.
    pub status: Option<u16>,
    /// How it failed; empty where it did not.
    pub flag: String,
}

impl Record {
    /// Cuts what is too long.
    fn bounded(mut self) -> Self {
        let texts = [
            &mut self.request_id,
            &mut self.host,
            &mut self.method,
            &mut self.target,
            &mut self.detail,
        ];
        for text in texts.into_iter().chain(&mut self.notes) {
            if text.len() > TEXT {
                text.truncate(text.floor_char_boundary(TEXT));
                text.push('…');
            }
        }
        self.notes.truncate(LIST);
        self.attempts.truncate(LIST);
        self
    }

    /// Times of records are for people: microseconds are enough.
    pub fn millis(time: Duration) -> f64 {
        (time.as_secs_f64() * 1e6).round() / 1e3
    }

    /// The record in one line, as the header `x-retort-decision` has it: a dictionary of structured
    /// fields (RFC 9651).
    pub fn line(&self) -> Option<HeaderValue> {
        let mut line = format!("status={}", self.status);
        // What does not fit is left out whole: half a string is no structured field.
        let mut add = |key: &str, value: &str| {
            if line.len() + key.len() + value.len() + 3 <= LINE {
                line.extend([", ", key, "=", value]);
            }
        };
        let texts = [
            ("route", &self.route),
            ("upstream", &self.upstream),
            ("handler", &self.handler),
            ("middleware", &self.middleware),
            ("flag", &self.flag),
        ];
        for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            add(key, &quoted(text));
        }
        if let Some(last) = self.attempts.last() {
            add("endpoint", &quoted(&last.endpoint));
            add("attempts", &self.attempts.len().to_string());
        }
        if !self.detail.is_empty() {
            add("detail", &quoted(&self.detail));
        }
        HeaderValue::try_from(line).ok()
    }
}

/// A string of structured fields: printable ASCII in quotes.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars().take(TEXT) {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => quoted.push('?'),
        }
    }
    quoted + "\""
}

/// Which records somebody wants to see.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those of this request id.
    pub request_id: Option<String>,
    /// Only those of this route.
    pub route: Option<String>,
    /// Only those of this upstream.
    pub upstream: Option<String>,
    /// Only those with this flag.
    pub flag: Option<String>,
    /// At most so many.
    pub limit: usize,
}

impl Filter {
    fn takes(&self, record: &Record) -> bool {
        let is = |wanted: &Option<String>, text: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == text)
        };
        is(&self.request_id, &record.request_id)
            && is(&self.route, &record.route)
            && is(&self.upstream, &record.upstream)
            && is(&self.flag, &record.flag)
    }
}

/// The rings of all workers.
#[derive(Debug, Default)]
pub struct Recent(Box<[Mutex<VecDeque<Arc<Record>>>]>);

impl Recent {
    /// A ring for each worker.
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self((0..workers).map(|_| Mutex::default()).collect()))
    }

    /// Keeps a record in the ring of a worker, which holds at most `room` of them.
    pub fn keep(&self, worker: usize, record: Record, room: u32) {
        let Some(ring) = self.0.get(worker) else {
            return;
        };
        let record = Arc::new(record.bounded());
        // The worker's own lock: only operators who ask contend for it, for moments.
        let mut ring = lock(ring);
        ring.push_back(record);
        let over = ring.len().saturating_sub(room as usize);
        ring.drain(..over);
    }

    /// Lets go of what is more than `room` in the ring of a worker.
    pub fn trim(&self, worker: usize, room: u32) {
        if let Some(ring) = self.0.get(worker) {
            let mut ring = lock(ring);
            let over = ring.len().saturating_sub(room as usize);
            ring.drain(..over);
        }
    }

    /// The records that a filter takes, the newest first.
    pub fn find(&self, filter: &Filter) -> Vec<Arc<Record>> {
        let mut found = Vec::new();
        for ring in &self.0 {
            // Only counts of references under the lock: its worker may wait for it.
            let all: Vec<_> = lock(ring).iter().rev().cloned().collect();
            let its = all.into_iter().filter(|record| filter.takes(record));
            found.extend(its.take(filter.limit));
        }
        found.sort_by(|a: &Arc<Record>, b| b.started_at.cmp(&a.started_at));
        found.truncate(filter.limit);
        found
    }
}

fn lock(ring: &Mutex<VecDeque<Arc<Record>>>) -> MutexGuard<'_, VecDeque<Arc<Record>>> {
    // Nothing in it is left half done by a panic.
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, at: &str) -> Record {
        Record {
            request_id: id.to_owned(),
            started_at: at.to_owned(),
            ..Record::default()
        }
    }

    fn all(limit: usize) -> Filter {
        Filter {
            limit,
            ..Filter::default()
        }
    }

    #[test]
    fn the_newest_are_kept_and_found_first() {
        let recent = Recent::new(2);
        for (worker, id, at) in [(0, "a", "1"), (1, "b", "2"), (0, "c", "3"), (0, "d", "4")] {
            recent.keep(worker, record(id, at), 2);
        }
        let ids = |filter: &Filter| -> Vec<String> {
            let found = recent.find(filter);
            found
                .iter()
                .map(|record| record.request_id.clone())
                .collect()
        };
        assert_eq!(ids(&all(9)), ["d", "c", "b"]);
        assert_eq!(ids(&all(1)), ["d"]);
        let one = Filter {
            request_id: Some("b".to_owned()),
            ..all(9)
        };
        assert_eq!(ids(&one), ["b"]);
        recent.trim(1, 0);
        assert_eq!(ids(&all(9)), ["d", "c"]);
    }

    #[test]
    fn what_is_long_is_cut() {
        let mut long = record(&"ä".repeat(TEXT), "1");
        long.notes = vec!["x".repeat(9 * TEXT); 9 * LIST];
        let recent = Recent::new(1);
        recent.keep(0, long, 1);
        let kept = recent.find(&all(1));
        let kept = kept.first().expect("it is kept");
        assert!(kept.request_id.len() <= TEXT + 3);
        assert_eq!(kept.notes.len(), LIST);
        assert!(kept.notes.iter().all(|note| note.len() <= TEXT + 3));
    }

    #[test]
    fn a_line_is_a_dictionary_of_structured_fields() {
        let record = Record {
            status: 503,
            route: "orders".to_owned(),
            flag: "UF".to_owned(),
            detail: "connection refused by \"x\\y\"\u{7f}ü".to_owned(),
            ..Record::default()
        };
        assert_eq!(
            record.line().expect("a value"),
            r#"status=503, route="orders", flag="UF", detail="connection refused by \"x\\y\"??""#
        );
        let long = Record {
            detail: "\\".repeat(9 * TEXT),
            ..record
        };
        let line = long.line().expect("a value");
        assert_eq!(line, r#"status=503, route="orders", flag="UF""#);
    }
}
