//! Whole texts, and what comes of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::base::pressure::Shedding;
use crate::base::report::{self, Style};
use crate::base::values::Share;
use crate::telemetry::access_log;

const GOOD: &str = include_str!("../../tests/data/good.yaml");

fn env(name: &str) -> Option<String> {
    (name == "STREAMS").then(|| "7".to_owned())
}

fn read(text: &str) -> Config {
    let loaded = parse("test.yaml", text, &env);
    let said = report::render(&loaded.problems, &loaded.sources, Style::Plain);
    loaded.config.unwrap_or_else(|| panic!("{said}"))
}

fn labels(steps: &[Arc<Step>]) -> Vec<String> {
    steps
        .iter()
        .map(|step| format!("{} {}", step.id, step.label))
        .collect()
}

#[test]
fn a_whole_configuration_is_resolved() {
    let config = read(GOOD);
    assert_eq!(config.runtime.drain, Duration::from_secs(10));
    assert_eq!(
        config.admin.address.to_string(),
        "unix:/run/retort/admin.sock"
    );
    assert_eq!(config.telemetry.access_log.output, access_log::Output::None);
    assert_eq!(config.telemetry.access_log.sample, Share(0.05));
    let [public, inner, local] = config.listeners.as_slice() else {
        panic!("three listeners")
    };
    assert_eq!(public.address.to_string(), "0.0.0.0:8080");
    assert_eq!(
        public.protocols,
        Protocols {
            http1: true,
            http2: false
        }
    );
    assert_eq!(
        public
            .trusted_proxies
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["10.0.0.0/8", "::1/128"]
    );
    assert_eq!(
        labels(&public.middlewares),
        ["edge/0 request_id", "limit-orders limit-orders"]
    );
    assert_eq!(
        (inner.limits.connections.get(), inner.limits.streams.get()),
        (5, 7)
    );
    assert_eq!(
        (local.limits.header_bytes, local.limits.connection_age),
        (65_536, None)
    );
    assert!(config.upstreams.contains_key("orders"));
    assert_eq!(config.tests.len(), 1);
}

#[test]
fn routes_know_their_listeners_steps_and_backends() {
    let config = read(GOOD);
    let [orders, cart, rest] = config.routes.as_slice() else {
        panic!("three routes")
    };
    assert_eq!(
        (&*orders.listeners, &*cart.listeners),
        (&[0, 1][..], &[0, 1, 2][..])
    );
    assert_eq!(orders.matches.len(), 2);
    assert_eq!(
        labels(&orders.middlewares),
        [
            "limit-orders limit-orders",
            "routes/orders/1 rate_limit",
            "routes/orders/2 request_id"
        ],
    );
    assert_eq!(orders.timeouts.attempt, Some(Duration::from_secs(5)));
    assert_eq!(
        rest.timeouts,
        Timeouts {
            request: None,
            attempt: None,
            idle: None
        }
    );
    let targets: Vec<_> = cart
        .backends
        .iter()
        .map(|backend| match &backend.target {
            Target::Upstream(name) => format!("{name} {}", backend.weight),
            Target::Handler(handler) => {
                format!("{} {} {}", handler.id, handler.label, backend.weight)
            }
        })
        .collect();
    assert_eq!(
        targets,
        [
            "orders 95",
            "hello hello 5",
            "routes/cart/backends/2 respond 0"
        ]
    );
}

#[test]
fn places_that_name_the_same_thing_share_it() {
    let config = read(GOOD);
    let public = config.listeners.first().expect("a listener");
    let orders = config.routes.first().expect("a route");
    let shared = public.middlewares.get(1).zip(orders.middlewares.first());
    assert!(shared.is_some_and(|(a, b)| Arc::ptr_eq(a, b)));
}

#[test]
fn an_empty_configuration_has_the_defaults() {
    let config = read("");
    assert_eq!(
        config.runtime,
        Runtime {
            workers: Workers::Auto,
            drain: Duration::from_secs(25),
            state_dir: None,
            shedding: Shedding::default(),
            zone: None,
        }
    );
    assert_eq!(config.admin.address.to_string(), "127.0.0.1:15000");
    assert_eq!(config.telemetry.address.to_string(), "0.0.0.0:15020");
    assert_eq!(config.telemetry.metrics.max_series, 10_000);
    let config = read("listeners: [{name: a, address: '127.0.0.1:1'}]\nroutes:\n");
    let limits = config.listeners.first().expect("a listener").limits;
    assert_eq!(
        (
            limits.connections.get(),
            limits.header_bytes,
            limits.headers.get(),
            limits.streams.get()
        ),
        (10_000, 65_536, 100, 128),
    );
    assert_eq!(
        (limits.header_timeout, limits.idle_timeout),
        (Duration::from_secs(10), Duration::from_secs(75))
    );
}

#[test]
fn only_what_changed_has_a_new_fingerprint() {
    let prints = |text: &str| {
        let config = read(text);
        let mut prints = BTreeMap::new();
        prints.extend(
            config
                .listeners
                .iter()
                .map(|l| (format!("listener {}", l.name), l.fingerprint)),
        );
        prints.extend(
            config
                .routes
                .iter()
                .map(|r| (format!("route {}", r.name), r.fingerprint)),
        );
        prints.extend(
            config
                .upstreams
                .iter()
                .map(|(name, u)| (format!("upstream {name}"), u.fingerprint)),
        );
        prints.extend(
            config
                .handlers
                .iter()
                .map(|(name, h)| (format!("handler {name}"), h.fingerprint)),
        );
        let steps = config.listeners.iter().flat_map(|l| &l.middlewares);
        prints.extend(steps.map(|step| (format!("step {}", step.id), step.fingerprint)));
        prints
    };
    let before = prints(GOOD);
    let check = |from: &str, to: &str, expected: &[&str]| {
        assert!(GOOD.contains(from), "{from}");
        let after = prints(&GOOD.replacen(from, to, 1));
        let changed: Vec<_> = after
            .iter()
            .filter(|(key, print)| before.get(*key) != Some(*print))
            .collect();
        let changed: Vec<_> = changed.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(changed, expected, "{from} -> {to}");
    };
    check("\nroutes:", "\n# a comment\n\nroutes:", &[]);
    check("workers: 2", "workers: 3", &[]);
    check("protocol: http2", "protocol: http1", &["upstream orders"]);
    check("weight: 95", "weight: 90", &["route cart"]);
    check(
        "body: hello",
        "body: hullo",
        &["handler hello", "route cart"],
    );
    check("expect: {route: orders}", "expect: {status: 200}", &[]);
    // The listener names `edge`, which names it: its own section is the same.
    check(
        "requests: 100",
        "requests: 101",
        &["route cart", "route orders", "step limit-orders"],
    );
    check(
        "protocols: [http1]",
        "protocols: [http2]",
        &["listener public"],
    );
    // By way of the merge key.
    check(
        "connections: 5",
        "connections: 6",
        &["listener inner", "listener public"],
    );
}

#[test]
fn a_text_includes_nothing() {
    let loaded = parse("text", "include: [a.yaml]", &env);
    assert!(loaded.has_errors() && loaded.config.is_none());
    assert!(
        loaded
            .problems
            .iter()
            .any(|problem| problem.message.contains("works in files only"))
    );
}

#[test]
fn files_are_merged_and_watched() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    fs::create_dir_all(at("[odd]/routes/..data")).expect("created");
    fs::write(
        at("[odd]/main.yaml"),
        "include: ['routes/*.yaml']\nlisteners: [{name: a, address: '127.0.0.1:1'}]\n",
    )
    .expect("written");
    for name in ["b", "a", "..data/hidden"] {
        let text = format!(
            "routes: [{{name: {name}, match: {{path: /{name}}}, handler: {name}}}]\nhandlers: {{{name}: echo}}"
        );
        fs::write(at(&format!("[odd]/routes/{name}.yaml")), text).expect("written");
    }
    let loaded = load(&at("[odd]/main.yaml"), &env);
    assert_eq!(loaded.problems, []);
    let config = loaded.config.expect("a configuration");
    assert_eq!(
        config
            .routes
            .iter()
            .map(|route| &*route.name)
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(
        loaded.files,
        [
            at("[odd]/main.yaml"),
            at("[odd]/routes/a.yaml"),
            at("[odd]/routes/b.yaml")
        ]
    );
    assert_eq!(loaded.directories, [at("[odd]/routes")]);
}

#[test]
fn what_is_no_text_file_is_one_problem() {
    let directory = tempfile::tempdir().expect("a directory");
    let check = |path: &Path, words: &str| {
        let loaded = load(path, &env);
        let said: Vec<_> = loaded
            .problems
            .iter()
            .map(|problem| problem.message.as_str())
            .collect();
        assert!(
            said.len() == 1 && said.iter().all(|said| said.contains(words)),
            "{said:?}"
        );
    };
    check(directory.path(), "it is a directory");
    check(&directory.path().join("x"), "there is no such file");
    let binary = directory.path().join("binary");
    fs::write(&binary, b"a: \xff").expect("written");
    check(&binary, "is not UTF-8 text, from its byte 4 on");
    let long = directory.path().join("long");
    fs::write(&long, " ".repeat((16 << 20) + 1)).expect("written");
    check(&long, "is longer than 16 MiB");
}

fn many_routes(count: usize) -> String {
    let mut text =
        String::from("listeners:\n  - {name: public, address: '127.0.0.1:8080'}\nroutes:\n");
    for n in 0..count {
        let _ = write!(
            text,
            "  - name: route-{n}\n    match:\n      - {{host: h{}.example.com, path_prefix: /r/{n}, method: [GET, POST]}}\n    \
             middlewares: [edge, {{rate_limit: {{requests: {}, per: 1s}}}}]\n    upstream: u{}\n    timeouts: {{request: 15s}}\n",
            n % 100,
            n + 1,
            n % 1000,
        );
    }
    text.push_str("middlewares:\n  edge: [request_id]\nupstreams:\n");
    for n in 0..1000 {
        let _ = writeln!(text, "  u{n}: {{endpoints: ['127.0.0.1:9001']}}");
    }
    text
}

#[test]
fn ten_thousand_routes_load_quickly() {
    let text = many_routes(10_000);
    let start = Instant::now();
    let config = read(&text);
    let took = start.elapsed();
    assert_eq!(config.routes.len(), 10_000);
    // Without optimisation and beside other work; an optimised build takes a tenth of a second.
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn ten_thousand_mistakes_are_found_quickly() {
    let text = many_routes(10_000)
        .replace("upstream: u", "upstream: v")
        .replace("edge, ", "egde, ");
    let start = Instant::now();
    let loaded = parse("test.yaml", &text, &env);
    assert_eq!(loaded.problems.len(), 20_000);
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
}

/// Reads and renders: neither may panic, and every problem must have words.
fn survives(text: &str) {
    let loaded = parse("test.yaml", text, &env);
    assert_eq!(loaded.config.is_none(), loaded.has_errors());
    let said = report::render(&loaded.problems, &loaded.sources, Style::Plain);
    assert_eq!(said.is_empty(), loaded.problems.is_empty());
    assert!(
        !said.contains("serde") && !said.contains("Unexpected"),
        "{said}"
    );
    assert!(report::json(&loaded.problems, &loaded.sources).is_array());
}

/// Pieces that a configuration is made of, and that break one.
const PIECES: &[&str] = &[
    "\n",
    "\n  ",
    "\n    - ",
    ": ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "'",
    "\"",
    "&a ",
    "*a",
    "<<: ",
    "!t ",
    "| ",
    "> ",
    "# ",
    "\t",
    "---\n",
    "%",
    "@",
    "${",
    "${X}",
    "${STREAMS}",
    "~",
    "null",
    "0",
    "-1",
    "1e999",
    "5%",
    "1s",
    "64KiB",
    "\u{feff}",
    "é",
    "\u{0}",
    "name",
    "match",
    "path",
    "upstream",
    "handler",
    "backends",
    "listeners",
    "routes",
    "middlewares",
    "upstreams",
    "tests",
    "include",
    "runtime",
    "limits",
    "rate_limit",
    "request_id",
    "edge",
    "orders",
    "127.0.0.1:80",
    "endpoints",
    "weight",
];

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        survives(&text);
    }

    #[test]
    fn arbitrary_pieces_never_panic(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..60)) {
        survives(&pieces.concat());
    }

    #[test]
    fn a_good_text_with_one_change_never_panics(
        at in 0..GOOD.len(), cut in 0_usize..20, piece in proptest::sample::select(PIECES),
    ) {
        let start = GOOD.floor_char_boundary(at);
        let end = GOOD.ceil_char_boundary((at + cut).min(GOOD.len()));
        let (before, after) = (GOOD.get(..start), GOOD.get(end..));
        survives(&[before.unwrap_or_default(), piece, after.unwrap_or_default()].concat());
    }
}
