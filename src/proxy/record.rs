//! What is told of a request to whoever asks why: its record in words.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;

use crate::base::clock;
use crate::base::message::RequestHead;
use crate::proxy::context::{Asked, Exchange, X_REQUEST_ID, label};
use crate::telemetry::decision::{Attempt, Flag};
use crate::telemetry::recent::{self, Record};

/// What a record says of a head that has moved on since: one small copy. The head's own memory is the
/// connection's buffer, which a stream must not hold for as long as it lasts.
pub(super) struct Asking {
    /// The target, the host and the request's id, one after the other.
    bytes: Box<[u8]>,
    /// Where the target and the host end.
    ends: [u16; 2],
    /// The client, as far as it is believed.
    client: Option<IpAddr>,
}

impl Exchange {
    /// What is known of the request, for people.
    #[cold]
    pub(crate) fn record(&self, took: Duration) -> Record {
        let snapshot = &self.view.snapshot;
        let decision = &self.decision;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let asked = self.asked.as_ref();
        let [target, host, id] = asked.map(Asking::parts).unwrap_or_default();
        let given = decision.request_id.as_ref();
        let id = given.map_or(id, HeaderValue::as_bytes);
        let (flag, detail) = match (decision.flag, self.exhausted) {
            (None, Some(attempts)) => (Some(Flag::RetriesExhausted), exhausted(attempts).into()),
            (flag, _) => (flag, decision.detail.clone().unwrap_or_default()),
        };
        let upstream = match self.backend {
            Some(Asked::Upstream(place)) => Some(&snapshot.upstream(place).upstream),
            _ => None,
        };
        let members = upstream.map(|upstream| upstream.members());
        let attempt = |attempt: &Attempt| recent::Try {
            endpoint: label(attempt, members.as_deref())
                .unwrap_or_default()
                .to_owned(),
            duration_ms: Record::millis(attempt.took),
            status: attempt.status,
            flag: attempt.flag.map(Flag::code).unwrap_or_default().to_owned(),
        };
        let started_at = SystemTime::now().checked_sub(clock::since(self.started));
        let started_at = started_at.unwrap_or(SystemTime::UNIX_EPOCH);
        Record {
            request_id: if id.is_empty() {
                self.local.own_id()
            } else {
                text(id)
            },
            started_at: humantime::format_rfc3339_millis(started_at).to_string(),
            duration_ms: Record::millis(took),
            backend_ms: Record::millis(self.waited),
            revision: snapshot.revision,
            listener: self.listener().name.to_string(),
            client: self.client(),
            method: if self.headless {
                "-".to_owned()
            } else {
                self.method.to_string()
            },
            host: text(host),
            target: text(target),
            protocol: format!("{:?}", self.version),
            route: self
                .route
                .map(|route| snapshot.route(route).name.to_string())
                .unwrap_or_default(),
            middleware: decision.middleware.unwrap_or_default().to_owned(),
            notes: decision.notes.iter().map(ToString::to_string).collect(),
            upstream: upstream
                .map(|upstream| upstream.name().to_owned())
                .unwrap_or_default(),
            handler: self
                .handler()
                .map(|(handler, _)| handler.name().to_owned())
                .unwrap_or_default(),
            attempts: decision.attempts.iter().map(attempt).collect(),
            status: self.status.as_u16(),
            flag: flag.map(Flag::code).unwrap_or_default().to_owned(),
            meaning: flag.map(Flag::text).unwrap_or_default().to_owned(),
            detail: detail.into_owned(),
            bytes_in: self
                .received
                .as_ref()
                .map_or(0, |progress| progress.bytes()),
            bytes_out: self.sent,
        }
    }

    /// Who has asked: the believed address, and by whom it came if that is another.
    fn client(&self) -> String {
        let peer = self.origin.peer;
        let believed = self.asked.as_ref().and_then(|asked| asked.client);
        match (believed, peer) {
            (Some(ip), Some(peer)) if peer.ip().to_canonical() != ip => format!("{ip} by {peer}"),
            (_, Some(peer)) => peer.to_string(),
            (_, None) => String::new(),
        }
    }

    /// What the client is told of the decision at once; `None` where nobody ever is, as is usual.
    pub(crate) fn told(&self) -> Option<Told> {
        let told = &self.view.snapshot.decisions.header_for;
        if told.is_empty() {
            return None;
        }
        let peer = self.origin.peer.map(|peer| peer.ip().to_canonical());
        let is_told = peer.is_some_and(|peer| told.iter().any(|net| net.0.contains(&peer)));
        let line = is_told.then(|| self.record(clock::since(self.started)).line());
        Some(Told(line.flatten()))
    }
}

/// The value of the header that tells of the decision, for a client who may have it.
pub(crate) struct Told(pub Option<HeaderValue>);

/// What is said where so many attempts failed, and the last one's answer was passed on.
pub(super) fn exhausted(attempts: u32) -> String {
    format!("none of {attempts} attempts succeeded; the last answer was passed on")
}

impl Asking {
    pub(super) fn of(head: &RequestHead) -> Self {
        let target = head
            .uri()
            .path_and_query()
            .map_or("*", PathAndQuery::as_str);
        let header = |name: &HeaderName| {
            let value = head.headers.get(name);
            value.map(HeaderValue::as_bytes).unwrap_or_default()
        };
        let parts = [
            target.as_bytes(),
            header(&header::HOST),
            header(&X_REQUEST_ID),
        ];
        let parts = parts.map(|part| part.get(..recent::TEXT).unwrap_or(part));
        let [target, host, _] = parts.map(|part| u16::try_from(part.len()).unwrap_or(0));
        Self {
            bytes: parts.concat().into(),
            ends: [target, target + host],
            client: head.client.ip,
        }
    }

    /// The target, the host and the request's id.
    fn parts(&self) -> [&[u8]; 3] {
        let [target, host] = self.ends.map(usize::from);
        let part = |range| self.bytes.get(range).unwrap_or_default();
        [
            part(0..target),
            part(target..host),
            part(host..self.bytes.len()),
        ]
    }
}
