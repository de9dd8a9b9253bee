//! What a rehearsal says of a request is what the gateway does with it: the same configuration, the
//! same requests, one in a world apart and one over real sockets.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Uri};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::app::{Gateway, Options, Source, Watch};
use crate::base::address::Address;
use crate::base::body::Body;
use crate::base::message::{Client, Request, RequestHead};
use crate::explain::notebook::SentTo;
use crate::explain::stage::{Act, Line, Script};
use crate::explain::world::{Heard, World};

/// A service that prints what it gets, and answers `ok`.
struct Printer {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Printer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&heads);
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                print(stream, &kept);
            }
        });
        Self { address, heads }
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.heads.lock().expect("no panic"))
    }
}

fn print(mut stream: TcpStream, heads: &Mutex<Vec<String>>) {
    let Some(head) = read_head(&mut stream) else {
        return;
    };
    heads.lock().expect("no panic").push(head);
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    stream
        .write_all(answer.as_bytes())
        .expect("the gateway waits");
}

/// A head without its end, its lines as [`crate::explain::stage`] has them.
fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).expect("text");
    Some(head.trim_end().replace("\r\n", "\n"))
}

/// One request, as it is written.
#[derive(Debug, Clone)]
struct Asking {
    method: &'static str,
    target: String,
    fields: Vec<(&'static str, &'static str)>,
}

/// What can be seen of a request from outside.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    route: Option<String>,
    upstream: Option<String>,
    handler: Option<String>,
    middleware: Option<String>,
    flag: Option<String>,
    status: u16,
    answer: Vec<String>,
    heads: Vec<String>,
}

const HOSTS: &[&str] = &["a.test", "b.test", "x.shop.test", "A.TEST:80", "other"];
const PATHS: &[&str] = &[
    "/a",
    "/a/",
    "/a/b",
    "/n/7",
    "/n/x",
    "/r12",
    "/",
    "/a/%62",
    "/a/../n/7",
    "//a",
    "/a/%2F",
    "/a/b/c.txt",
    "/a/./b",
    "/%7Ea",
    "/n/%37",
];
const QUERIES: &[&str] = &["", "?v=2", "?v=1&w=", "?v=%32", "?"];
const FIELDS: &[(&str, &str)] = &[
    ("x-a", "1"),
    ("x-a", "two"),
    ("cookie", "beta=1; s=2"),
    ("x-forwarded-for", "203.0.113.7, 10.0.0.1"),
    ("x-forwarded-proto", "https"),
    ("forwarded", "for=192.0.2.1"),
    ("connection", "close, x-b"),
    ("x-b", "gone?"),
    ("te", "trailers, gzip"),
    ("origin", "https://shop.test"),
    ("access-control-request-method", "PUT"),
    ("via", "1.1 other"),
    ("x-request-id", "mine"),
    ("user-agent", "test"),
    ("keep-alive", "timeout=5"),
];

fn asking() -> impl Strategy<Value = Asking> {
    let method = select(vec![
        "GET", "GET", "POST", "PUT", "OPTIONS", "HEAD", "DELETE",
    ]);
    let fields = proptest::collection::vec(select(FIELDS), 0..4);
    (
        method,
        select(HOSTS),
        select(PATHS),
        select(QUERIES),
        fields,
    )
        .prop_map(|(method, host, path, query, fields)| Asking {
            method,
            target: format!("{path}{query}"),
            fields: std::iter::once(("host", host)).chain(fields).collect(),
        })
}

const MATCHES: &[&str] = &[
    "path: /a",
    "path: \"/a/{x}\"",
    "path: \"/n/{x:int}\"",
    "path: \"/a/{rest:path}\"",
    "path_prefix: /a",
    "path_prefix: /",
    "path_regex: \"/r[0-9]+\"",
    "path_prefix: /n",
];
const CONDITIONS: &[&str] = &[
    "",
    "",
    ", host: a.test",
    ", host: \"*.shop.test\"",
    ", method: [GET, POST]",
    ", method: PUT",
    ", headers: {x-a: \"1\"}",
    ", query: {v: \"2\"}",
    ", cookies: {beta: {present: true}}",
];
const STEPS: &[&str] = &[
    "request_id",
    "{set_headers: {request: {set: {x-edge: e}, add: {x-a: more}, remove: [x-b]}, response: {set: {x-out: o}}}}",
    "{rewrite: {path_prefix: {from: /a, to: /new}}}",
    "{rewrite: {host: inner.test}}",
    "{rate_limit: {requests: 2, per: 1h}}",
    "{rate_limit: {requests: 1, per: 1h, by: {header: x-a}}}",
    "{rate_limit: {requests: 1, per: 1h, dry_run: true}}",
    "{cors: {origins: [\"https://shop.test\"], methods: [PUT]}}",
    "{error_pages: {pages: [{status: 5xx, body: broken}, {status: 404, body: lost}]}}",
    "{body_limit: {max: 1KiB}}",
];
const TARGETS: &[&str] = &[
    "upstream: up",
    "upstream: up",
    "upstream: up",
    "upstream: dead",
    "handler: {respond: {status: 201, headers: {x-by: here}, body: made}}",
    "handler: {redirect: {path: /elsewhere}}",
];

fn route() -> impl Strategy<Value = String> {
    let steps = proptest::collection::vec(select(STEPS), 0..4);
    (select(MATCHES), select(CONDITIONS), steps, select(TARGETS)).prop_map(
        |(path, condition, steps, target)| {
            format!(
                "    match: {{{path}{condition}}}\n    middlewares: [{}]\n    {target}\n",
                steps.join(", ")
            )
        },
    )
}

fn yaml(routes: &[String], edge: &[&str], trusts: bool, up: SocketAddr, log: &str) -> String {
    let trusted = if trusts { "[127.0.0.0/8]" } else { "[]" };
    let mut text = format!(
        "runtime: {{workers: 1}}\n\
         admin: {{address: 127.0.0.1:0}}\n\
         telemetry: {{address: 127.0.0.1:0, access_log: {{output: {log}}}}}\n\
         listeners: [{{name: web, address: \"127.0.0.1:0\", trusted_proxies: {trusted}, middlewares: [{}]}}]\n\
         upstreams:\n  up: {{endpoints: [\"{up}\"]}}\n  dead: {{endpoints: [\"127.0.0.1:1\"]}}\n\
         routes:\n",
        edge.join(", ")
    );
    for (number, route) in routes.iter().enumerate() {
        text.extend(["  - name: r", &number.to_string(), "\n", route]);
    }
    text
}

/// Sends them to a real gateway, each on a connection of its own.
fn live(yaml: &str, log: &std::path::Path, up: &Printer, all: &[Asking]) -> Vec<Outcome> {
    let options = Options {
        watch: Watch::Nothing,
        ..Options::default()
    };
    let gateway = Gateway::start(Source::text("live.yaml", yaml), options).expect("it starts");
    let address = gateway.address("web").and_then(Address::tcp);
    let address = address.expect("a port");
    let mut seen = Vec::new();
    for asking in all {
        let mut text = format!("{} {} HTTP/1.1\r\n", asking.method, asking.target);
        for (name, value) in &asking.fields {
            text.extend([name, ": ", value, "\r\n"]);
        }
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a socket");
        stream
            .write_all(format!("{text}\r\n").as_bytes())
            .expect("sent");
        seen.push((read_head(&mut stream).expect("an answer"), up.taken()));
    }
    drop(gateway);
    let lines = std::fs::read_to_string(log).expect("a log");
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), all.len(), "{lines:#?}");
    let text = |line: &serde_json::Value, key: &str| line[key].as_str().map(ToOwned::to_owned);
    let outcome = |(line, (head, heads)): (&serde_json::Value, (String, Vec<String>))| {
        let mut fields = head.lines();
        let status = fields
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok());
        Outcome {
            route: text(line, "route"),
            upstream: text(line, "upstream"),
            handler: text(line, "handler"),
            middleware: text(line, "middleware"),
            flag: text(line, "flag"),
            status: status.expect("a status"),
            answer: sorted(fields.map(ToOwned::to_owned)),
            heads: heads.iter().map(|head| unstamped(head)).collect(),
        }
    };
    lines.iter().zip(seen).map(outcome).collect()
}

/// Fields of an answer that the rules decide; not those of the connection and of the moment.
fn sorted(fields: impl Iterator<Item = String>) -> Vec<String> {
    let of_the_moment = [
        "date:",
        "connection:",
        "content-length:",
        "transfer-encoding:",
        "retry-after:",
    ];
    let mut fields: Vec<String> = fields
        .filter(|field| !of_the_moment.iter().any(|name| field.starts_with(name)))
        .map(|field| unstamped(&field))
        .collect();
    fields.sort();
    fields
}

/// A head without the ids that are made at random.
fn unstamped(head: &str) -> String {
    let line = |line: &str| match line.split_once("x-request-id: ") {
        Some((before, id)) if id.len() == 36 => format!("{before}x-request-id: (made)"),
        _ => line.to_owned(),
    };
    head.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The same in a world apart.
fn rehearsed(yaml: &str, all: &[Asking]) -> Vec<Outcome> {
    let loaded = crate::config::parse("apart.yaml", yaml, &|_| None);
    let config = loaded.config.expect("a configuration");
    let world = World::apart(&config).expect("a world");
    let line = |act| Line {
        endpoint: None,
        act,
    };
    world
        .stage()
        .direct("dead", Script(vec![line(Act::Refused)]));
    let peer = Some(SocketAddr::from(([127, 0, 0, 1], 40_000)));
    let ask = |asking: &Asking| {
        let heard = world.ask(&"web".into(), peer, request(asking));
        told(&world, &heard)
    };
    all.iter().map(ask).collect()
}

fn request(asking: &Asking) -> Request {
    let method = Method::from_bytes(asking.method.as_bytes()).expect("a method");
    let uri: Uri = asking.target.parse().expect("a target");
    let mut parts = http::Request::builder()
        .method(method)
        .uri(uri)
        .body(())
        .expect("a head")
        .into_parts()
        .0;
    for (name, value) in &asking.fields {
        parts.headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    Request {
        head: RequestHead::from_http(parts, Client::UNKNOWN),
        body: Body::empty(),
    }
}

fn told(world: &World, heard: &Heard) -> Outcome {
    let snapshot = world.snapshot();
    let ended = heard.seen.ended.as_ref().expect("an end");
    let route = heard.seen.route.map(|place| snapshot.route(place));
    let sent_to = heard.seen.sent_to(snapshot);
    let upstream = sent_to.and_then(SentTo::upstream);
    let handler = sent_to.and_then(SentTo::handler);
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        format!("{name}: {}", value.to_str().expect("text"))
    };
    Outcome {
        route: route.map(|route| route.name.to_string()),
        upstream: upstream.map(ToOwned::to_owned),
        handler: handler.map(|handler| handler.name().to_owned()),
        middleware: heard.seen.answered().map(|step| step.label.to_string()),
        flag: ended.flag.map(|flag| flag.code().to_owned()),
        status: heard.answer.status.as_u16(),
        answer: sorted(heard.answer.headers.iter().map(field)),
        heads: heard
            .received
            .iter()
            .map(|received| unstamped(&received.head))
            .collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rehearsal_is_what_the_gateway_then_does(
        routes in proptest::collection::vec(route(), 1..6),
        edge in proptest::collection::vec(select(STEPS), 0..2),
        trusts in any::<bool>(),
        asks in proptest::collection::vec(asking(), 1..16),
        name in any::<Index>(),
    ) {
        let log = std::env::temp_dir().join(format!("retort-rehearsal-{}-{}.log", std::process::id(), name.index(1 << 30)));
        let printer = Printer::start();
        let yaml = yaml(&routes, &edge, trusts, printer.address, &log.display().to_string());
        let live = live(&yaml, &log, &printer, &asks);
        std::fs::remove_file(&log).expect("the log was there");
        let rehearsed = rehearsed(&yaml, &asks);
        for ((asking, live), rehearsed) in asks.iter().zip(&live).zip(&rehearsed) {
            prop_assert_eq!(rehearsed, live, "{:?} of\n{}", asking, yaml);
        }
    }

    #[test]
    fn a_test_passes_where_it_expects_what_the_gateway_does_and_fails_elsewhere(
        routes in proptest::collection::vec(route(), 1..5),
        trusts in any::<bool>(),
        asks in proptest::collection::vec(asking(), 1..8),
        spoilt in any::<Index>(),
        name in any::<Index>(),
    ) {
        let log = std::env::temp_dir().join(format!("retort-tests-{}-{}.log", std::process::id(), name.index(1 << 30)));
        let printer = Printer::start();
        let yaml = yaml(&routes, &[], trusts, printer.address, &log.display().to_string());
        let live = live(&yaml, &log, &printer, &asks);
        std::fs::remove_file(&log).expect("the log was there");
        let steps: Vec<String> = asks.iter().zip(&live).map(|(asking, live)| step(asking, live, 0)).collect();
        prop_assert!(passes(&yaml, &steps), "{}\n{}", yaml, steps.join("\n"));
        let mut wrong = steps;
        let at = spoilt.index(wrong.len());
        wrong[at] = step(&asks[at], &live[at], 1);
        prop_assert!(!passes(&yaml, &wrong), "{}\n{}", yaml, wrong.join("\n"));
    }
}

/// A step of a test that expects what the gateway did, but for a status that is off by so much.
fn step(asking: &Asking, live: &Outcome, off: u16) -> String {
    let (hosts, fields): (Vec<_>, Vec<_>) =
        asking.fields.iter().partition(|(name, _)| *name == "host");
    let host = hosts.first().map_or("localhost", |(_, host)| host);
    let mut headers: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, value) in fields {
        match headers.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, values)) => values.push(value),
            None => headers.push((name, vec![value])),
        }
    }
    let headers: Vec<String> = headers
        .iter()
        .map(|(name, values)| format!("{name}: {values:?}"))
        .collect();
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "none".to_owned());
    let mut expect = format!(
        "status: {}, route: {}, upstream: {}, flag: {}",
        live.status + off,
        name(&live.route),
        name(&live.upstream),
        name(&live.flag)
    );
    // The head's first line, of those that an endpoint has got.
    if let Some(mut words) = live.heads.last().map(|head| head.split(' ')) {
        let (method, path) = (
            words.next().expect("a method"),
            words.next().expect("a path"),
        );
        let path = format!("{path:?}");
        expect.extend([", sent: {method: ", method, ", path: ", &path, "}"]);
    }
    format!(
        "      - {{request: {{method: {}, url: {:?}, headers: {{{}}}}}, expect: {{{expect}}}}}",
        asking.method,
        format!("http://{host}{}", asking.target),
        headers.join(", ")
    )
}

/// Whether a test of those steps passes, with the endpoints that the gateway had.
fn passes(yaml: &str, steps: &[String]) -> bool {
    let yaml = format!(
        "{yaml}tests:\n  - name: what the gateway did\n    given: {{dead: refused, up: {{body: ok}}}}\n    steps:\n{}\n",
        steps.join("\n")
    );
    let tested = crate::app::test(&Source::text("tests.yaml", &yaml), "");
    let tested = tested.unwrap_or_else(|why| panic!("{why}\n{yaml}"));
    tested
        .report
        .verdicts
        .iter()
        .all(crate::explain::trial::Verdict::passes)
}
