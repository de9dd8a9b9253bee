//! What one line of the access log tells.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use http::Version;

use super::escape;
use super::stamp::{Stamp, three_digits};
use crate::telemetry::decision::Flag;

/// One request that has ended, all names resolved.
///
/// What is `None` is left out of JSON and is `-` in text.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// When the request's head had been read.
    pub start: Instant,
    /// From there to the end of the answer's body.
    pub took: Duration,
    /// The listener that took it.
    pub listener: &'a str,
    /// The route that it found.
    pub route: Option<&'a str>,
    /// GET, POST, …
    pub method: &'a str,
    /// The host that was asked for.
    pub host: Option<&'a str>,
    /// The path in its normal form.
    pub path: &'a str,
    /// What came after `?`.
    pub query: Option<&'a str>,
    /// What the client spoke.
    pub protocol: Version,
    /// What it got.
    pub status: u16,
    /// Why the gateway answered itself, or how the upstream failed.
    pub flag: Option<Flag>,
    /// One sentence that adds to the flag.
    pub detail: Option<&'a str>,
    /// The upstream that was asked.
    pub upstream: Option<&'a str>,
    /// The endpoint that was asked last.
    pub endpoint: Option<&'a str>,
    /// How often an endpoint was asked.
    pub attempts: usize,
    /// Each of these, where it was more than once; empty otherwise.
    pub tries: &'a [Try<'a>],
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// The client's address, as far as it can be trusted.
    pub client_ip: Option<IpAddr>,
    /// The request's id.
    pub request_id: Option<&'a [u8]>,
    /// `User-Agent`, as it came.
    pub user_agent: Option<&'a [u8]>,
    /// `Referer`, as it came.
    pub referer: Option<&'a [u8]>,
    /// The handler that answered.
    pub handler: Option<&'a str>,
    /// The middleware that answered.
    pub middleware: Option<&'a str>,
    /// What rules did beside that: a limit that would have refused, say.
    pub notes: &'a [Cow<'static, str>],
}

/// One try of a request at one endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Try<'a> {
    /// The endpoint, if one was chosen and is still known.
    pub endpoint: Option<&'a str>,
    /// From the choice of the endpoint to the answer's head, or to the failure.
    pub took: Duration,
    /// What it answered.
    pub status: Option<u16>,
    /// How it failed; neither status nor flag if it was given up for another.
    pub flag: Option<Flag>,
}

macro_rules! keys {
    ($($id:ident $name:literal)*) => {
        /// What a template may name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Key { $($id,)* }

        impl Key {
            pub(super) const ALL: &[Self] = &[$(Self::$id),*];

            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$id => $name),* }
            }
        }
    };
}

keys! {
    Ts "ts"
    Time "time"
    Listener "listener"
    Route "route"
    Method "method"
    Host "host"
    Path "path"
    Query "query"
    Target "target"
    Protocol "protocol"
    Status "status"
    Flag "flag"
    Detail "detail"
    DurationMs "duration_ms"
    Upstream "upstream"
    Endpoint "endpoint"
    Attempts "attempts"
    Tries "tries"
    BytesIn "bytes_in"
    BytesOut "bytes_out"
    ClientIp "client_ip"
    RequestId "request_id"
    UserAgent "user_agent"
    Referer "referer"
    Handler "handler"
    Middleware "middleware"
    Notes "notes"
}

/// One JSON object and a line break.
pub(super) fn json(out: &mut Vec<u8>, stamp: &mut Stamp, entry: &Entry<'_>) {
    out.extend_from_slice(b"{\"ts\":\"");
    stamp.rfc3339(out, entry.start);
    out.push(b'"');
    string(out, b",\"listener\":\"", entry.listener.as_bytes());
    optional(out, b",\"route\":\"", entry.route);
    string(out, b",\"method\":\"", entry.method.as_bytes());
    optional(out, b",\"host\":\"", entry.host);
    string(out, b",\"path\":\"", entry.path.as_bytes());
    optional(out, b",\"query\":\"", entry.query);
    string(
        out,
        b",\"protocol\":\"",
        protocol(entry.protocol).as_bytes(),
    );
    out.extend_from_slice(b",\"status\":");
    integer(out, entry.status.into());
    optional(out, b",\"flag\":\"", entry.flag.map(Flag::code));
    optional(out, b",\"detail\":\"", entry.detail);
    out.extend_from_slice(b",\"duration_ms\":");
    milliseconds(out, entry.took);
    optional(out, b",\"upstream\":\"", entry.upstream);
    optional(out, b",\"endpoint\":\"", entry.endpoint);
    if entry.attempts > 0 {
        out.extend_from_slice(b",\"attempts\":");
        integer(out, entry.attempts as u64);
    }
    if !entry.tries.is_empty() {
        json_tries(out, entry.tries);
    }
    out.extend_from_slice(b",\"bytes_in\":");
    integer(out, entry.bytes_in);
    out.extend_from_slice(b",\"bytes_out\":");
    integer(out, entry.bytes_out);
    if let Some(ip) = entry.client_ip {
        out.extend_from_slice(b",\"client_ip\":\"");
        address(out, ip);
        out.push(b'"');
    }
    optional(out, b",\"request_id\":\"", entry.request_id);
    optional(out, b",\"user_agent\":\"", entry.user_agent);
    optional(out, b",\"referer\":\"", entry.referer);
    optional(out, b",\"handler\":\"", entry.handler);
    optional(out, b",\"middleware\":\"", entry.middleware);
    if !entry.notes.is_empty() {
        string(out, b",\"notes\":\"", entry.notes.join("; ").as_bytes());
    }
    out.extend_from_slice(b"}\n");
}

fn json_tries(out: &mut Vec<u8>, tries: &[Try<'_>]) {
    out.extend_from_slice(b",\"tries\":[");
    for (place, one) in tries.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        let endpoint = one.endpoint.unwrap_or("-");
        string(out, b"{\"endpoint\":\"", endpoint.as_bytes());
        out.extend_from_slice(b",\"duration_ms\":");
        milliseconds(out, one.took);
        if let Some(status) = one.status {
            out.extend_from_slice(b",\"status\":");
            integer(out, status.into());
        }
        optional(out, b",\"flag\":\"", one.flag.map(Flag::code));
        out.push(b'}');
    }
    out.push(b']');
}

#[inline]
fn string(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(key);
    escape::json(out, value);
    out.push(b'"');
}

#[inline]
fn optional<'a, T: AsRef<[u8]> + ?Sized + 'a>(out: &mut Vec<u8>, key: &[u8], value: Option<&'a T>) {
    if let Some(value) = value {
        string(out, key, value.as_ref());
    }
}

/// One field of a text line; `-` where there is nothing.
pub(super) fn text(out: &mut Vec<u8>, stamp: &mut Stamp, entry: &Entry<'_>, key: Key) {
    match key {
        Key::Ts => stamp.rfc3339(out, entry.start),
        Key::Time => stamp.apache(out, entry.start),
        Key::Listener => field(out, Some(entry.listener)),
        Key::Route => field(out, entry.route),
        Key::Method => field(out, Some(entry.method)),
        Key::Host => field(out, entry.host),
        Key::Path => field(out, Some(entry.path)),
        Key::Query => field(out, entry.query),
        Key::Target => {
            field(out, Some(entry.path));
            if let Some(query) = entry.query {
                out.push(b'?');
                escape::text(out, query.as_bytes());
            }
        }
        Key::Protocol => out.extend_from_slice(protocol(entry.protocol).as_bytes()),
        Key::Status => integer(out, entry.status.into()),
        Key::Flag => field(out, entry.flag.map(Flag::code)),
        Key::Detail => field(out, entry.detail),
        Key::DurationMs => milliseconds(out, entry.took),
        Key::Upstream => field(out, entry.upstream),
        Key::Endpoint => field(out, entry.endpoint),
        Key::Attempts => integer(out, entry.attempts as u64),
        Key::Tries => text_tries(out, entry.tries),
        Key::BytesIn => integer(out, entry.bytes_in),
        Key::BytesOut => integer(out, entry.bytes_out),
        Key::ClientIp => match entry.client_ip {
            Some(ip) => address(out, ip),
            None => out.push(b'-'),
        },
        Key::RequestId => field(out, entry.request_id),
        Key::UserAgent => field(out, entry.user_agent),
        Key::Referer => field(out, entry.referer),
        Key::Handler => field(out, entry.handler),
        Key::Middleware => field(out, entry.middleware),
        Key::Notes if entry.notes.is_empty() => field(out, None::<&str>),
        Key::Notes => field(out, Some(&entry.notes.join("; "))),
    }
}

/// `endpoint=status/ms` or `endpoint=flag/ms`, joined by commas.
fn text_tries(out: &mut Vec<u8>, tries: &[Try<'_>]) {
    if tries.is_empty() {
        out.push(b'-');
    }
    for (place, one) in tries.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        field(out, one.endpoint);
        out.push(b'=');
        match (one.flag, one.status) {
            (None, Some(status)) => integer(out, status.into()),
            (flag, _) => field(out, flag.map(Flag::code)),
        }
        out.push(b'/');
        milliseconds(out, one.took);
    }
}

fn field<'a, T: AsRef<[u8]> + ?Sized + 'a>(out: &mut Vec<u8>, value: Option<&'a T>) {
    match value.map(AsRef::as_ref) {
        Some(value) if !value.is_empty() => escape::text(out, value),
        _ => out.push(b'-'),
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

fn integer(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Milliseconds with three decimals.
fn milliseconds(out: &mut Vec<u8>, took: Duration) {
    let micros = took.as_secs().saturating_mul(1_000_000) + u64::from(took.subsec_micros());
    integer(out, micros / 1000);
    out.push(b'.');
    three_digits(out, micros % 1000);
}

fn address(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            for (n, octet) in ip.octets().into_iter().enumerate() {
                if n > 0 {
                    out.push(b'.');
                }
                integer(out, octet.into());
            }
        }
        // Writing to a vector cannot fail.
        IpAddr::V6(ip) => {
            let _written = write!(out, "{ip}");
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    pub(in super::super) fn entry(start: Instant) -> Entry<'static> {
        Entry {
            start,
            took: Duration::from_micros(1_234),
            listener: "public",
            route: Some("orders"),
            method: "GET",
            host: Some("example.com"),
            path: "/orders/7",
            query: Some("x=\"1\""),
            protocol: Version::HTTP_11,
            status: 503,
            flag: Some(Flag::NoHealthyEndpoint),
            detail: Some("2 endpoints, none ready"),
            upstream: Some("orders"),
            endpoint: Some("127.0.0.1:9001"),
            attempts: 1,
            tries: &[],
            bytes_in: 0,
            bytes_out: 42,
            client_ip: Some(IpAddr::from([192, 0, 2, 7])),
            request_id: Some(b"abc"),
            user_agent: Some(b"curl\xff\n"),
            referer: None,
            handler: None,
            middleware: None,
            notes: &[],
        }
    }

    pub(in super::super) fn stamp(now: Instant) -> Stamp {
        Stamp::new(now, UNIX_EPOCH + Duration::from_millis(1_795_557_901_007))
    }

    #[test]
    fn json_has_stable_keys_and_leaves_out_what_is_not_known() {
        let now = Instant::now();
        let mut out = Vec::new();
        json(&mut out, &mut stamp(now), &entry(now));
        assert_eq!(
            String::from_utf8(out).expect("UTF-8"),
            concat!(
                r#"{"ts":"2026-11-24T22:05:01.007Z","listener":"public","route":"orders","#,
                r#""method":"GET","host":"example.com","path":"/orders/7","query":"x=\"1\"","#,
                r#""protocol":"HTTP/1.1","status":503,"flag":"UH","#,
                r#""detail":"2 endpoints, none ready","duration_ms":1.234,"upstream":"orders","#,
                r#""endpoint":"127.0.0.1:9001","attempts":1,"bytes_in":0,"bytes_out":42,"#,
                r#""client_ip":"192.0.2.7","request_id":"abc","#,
                "\"user_agent\":\"curl\u{fffd}\\n\"}\n"
            )
        );
    }

    #[test]
    fn every_key_of_json_is_one_that_templates_know() {
        let now = Instant::now();
        let full = Entry {
            referer: Some(b"r"),
            handler: Some("h"),
            middleware: Some("m"),
            tries: &TRIES,
            notes: &[Cow::Borrowed("n")],
            ..entry(now)
        };
        let mut out = Vec::new();
        json(&mut out, &mut stamp(now), &full);
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&out).expect("valid JSON");
        let known = |name: &str| Key::ALL.iter().any(|key| key.name() == name);
        assert!(object.keys().all(|name| known(name)), "{object:?}");
        // `time` and `target` say again what `ts`, `path` and `query` say.
        assert_eq!(object.len(), Key::ALL.len() - 2);
    }

    const TRIES: [Try<'static>; 4] = [
        Try {
            endpoint: Some("127.0.0.1:9001"),
            took: Duration::from_micros(210),
            status: None,
            flag: Some(Flag::ConnectFailed),
        },
        Try {
            endpoint: Some("127.0.0.1:9002"),
            took: Duration::from_micros(1_200),
            status: Some(503),
            flag: None,
        },
        Try {
            endpoint: None,
            took: Duration::ZERO,
            status: None,
            flag: Some(Flag::NoHealthyEndpoint),
        },
        Try {
            endpoint: Some("[::1]:9003"),
            took: Duration::from_secs(1),
            status: None,
            flag: None,
        },
    ];

    #[test]
    fn each_of_several_tries_is_told() {
        let now = Instant::now();
        let several = Entry {
            attempts: TRIES.len(),
            tries: &TRIES,
            ..entry(now)
        };
        let mut out = Vec::new();
        json(&mut out, &mut stamp(now), &several);
        let line = String::from_utf8(out).expect("UTF-8");
        let tries = concat!(
            r#","attempts":4,"tries":[{"endpoint":"127.0.0.1:9001","duration_ms":0.210,"flag":"UF"},"#,
            r#"{"endpoint":"127.0.0.1:9002","duration_ms":1.200,"status":503},"#,
            r#"{"endpoint":"-","duration_ms":0.000,"flag":"UH"},"#,
            r#"{"endpoint":"[::1]:9003","duration_ms":1000.000}],"bytes_in""#
        );
        assert!(line.contains(tries), "{line}");

        let as_text = |entry: &Entry<'_>| {
            let mut out = Vec::new();
            text(&mut out, &mut stamp(now), entry, Key::Tries);
            String::from_utf8(out).expect("UTF-8")
        };
        assert_eq!(
            as_text(&several),
            "127.0.0.1:9001=UF/0.210,127.0.0.1:9002=503/1.200,-=UH/0.000,[::1]:9003=-/1000.000"
        );
        assert_eq!(as_text(&entry(now)), "-");
    }

    #[test]
    fn addresses_are_written_as_the_library_writes_them() {
        for ip in ["0.0.0.0", "255.1.20.255", "::1", "2001:db8::7"] {
            let mut out = Vec::new();
            address(&mut out, ip.parse().expect(ip));
            assert_eq!(String::from_utf8(out).expect("ASCII"), ip);
        }
    }
}
