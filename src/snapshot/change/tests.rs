//! What is foretold of upstreams and middlewares is what the builder does.

use std::sync::Arc;

use super::*;
use crate::config;
use crate::handler::Registry;
use crate::middleware::Natives;
use crate::snapshot::{Builder, Snapshot};
use crate::telemetry::metrics::Metrics;

fn config(yaml: &str) -> Config {
    let loaded = config::parse("x", yaml, &|_| None);
    loaded
        .config
        .unwrap_or_else(|| panic!("{yaml}: {:?}", loaded.problems))
}

/// Snapshots of two configurations, the second built upon the first.
fn built(old: &Config, new: &Config) -> (Snapshot, Snapshot) {
    let mut builder = Builder::new(Registry::new(), Natives::default(), Metrics::new(1));
    let first = builder.build(old).expect("the old one");
    let first = builder.keep(first);
    let second = builder.build(new).expect("the new one");
    (first, builder.keep(second))
}

/// The upstreams of the new configuration that are foretold to stay, and those that did.
fn check_upstreams(old: &str, new: &str, stay: &[&str]) {
    let (old, new) = (config(old), config(new));
    let change = Change::between(&old, &new);
    let kept = change.upstreams.iter();
    let kept = kept.filter(|upstream| upstream.fate == UpstreamFate::Kept);
    let kept: Vec<&str> = kept.map(|upstream| &*upstream.name).collect();
    let (before, after) = built(&old, &new);
    let is_same = |upstream: &&crate::snapshot::Upstream| {
        let mut before = before.upstreams.iter();
        before.any(|was| Arc::ptr_eq(&was.upstream, &upstream.upstream))
    };
    let really: Vec<&str> = after
        .upstreams
        .iter()
        .filter(is_same)
        .map(|upstream| upstream.upstream.name())
        .collect();
    assert_eq!((kept.as_slice(), really.as_slice()), (stay, stay));
}

#[test]
fn upstreams_stay_as_foretold() {
    let yaml = |zone: &str, balance: &str| {
        format!(
            "{zone}\nupstreams:\n  a: {{endpoints: [\"127.0.0.1:1\"]}}\n  \
             b: {{endpoints: [\"127.0.0.1:2\"], balance: {balance}}}\n"
        )
    };
    let plain = yaml("", "random");
    check_upstreams(&plain, &plain, &["a", "b"]);
    check_upstreams(&plain, &yaml("", "round_robin"), &["a"]);
    check_upstreams(&plain, &yaml("runtime: {zone: x}", "random"), &[]);
    check_upstreams(
        &plain,
        "upstreams: {a: {endpoints: [\"127.0.0.1:1\"]}}",
        &["a"],
    );
    let renamed = "upstreams: {c: {endpoints: [\"127.0.0.1:1\"]}}";
    check_upstreams(&plain, renamed, &[]);
}

#[test]
fn what_was_learned_is_kept_under_the_same_rules_alone() {
    let fate = |old: &str, new: &str| {
        let yaml = |keys: &str| {
            config(&format!(
                "upstreams: {{a: {{endpoints: [\"127.0.0.1:1\"], {keys}}}}}"
            ))
        };
        let change = Change::between(&yaml(old), &yaml(new));
        match change.upstreams[0].fate {
            UpstreamFate::Rebuilt {
                health, ejections, ..
            } => (health, ejections),
            other => panic!("{other:?}"),
        }
    };
    let check = "health_check: {http: {path: /h}}";
    let outlier = "outlier: {consecutive_failures: 5}";
    let (kept, forgotten, none) = (Memory::Kept, Memory::Forgotten, Memory::None);
    assert_eq!(
        fate(check, &format!("{check}, balance: random")),
        (kept, none)
    );
    assert_eq!(
        fate(check, &format!("{check}, protocol: http2")),
        (forgotten, none)
    );
    assert_eq!(fate(check, "balance: random"), (forgotten, none));
    assert_eq!(fate("balance: random", check), (none, none));
    assert_eq!(fate(outlier, &format!("{outlier}, {check}")), (none, kept));
    assert_eq!(
        fate(outlier, "outlier: {consecutive_failures: 6}"),
        (none, forgotten)
    );
}

/// The fates of sockets, each as `name: fate`.
fn check_listeners(old: &[(&str, &str)], new: &[(&str, &str)], expected: &[&str]) {
    let yaml = |listeners: &[(&str, &str)]| {
        let items = listeners.iter();
        let items: Vec<String> = items
            .map(|(name, address)| format!("{{name: {name}, address: \"{address}\"}}"))
            .collect();
        config(&format!("listeners: [{}]", items.join(", ")))
    };
    let change = Change::between(&yaml(old), &yaml(new));
    let said: Vec<String> = change
        .listeners
        .iter()
        .map(|listener| format!("{}: {:?}", listener.name, listener.socket))
        .collect();
    assert_eq!(said, expected);
}

#[test]
fn sockets_stay_by_address() {
    let (a, b) = ("127.0.0.1:1", "127.0.0.1:2");
    check_listeners(&[("x", a)], &[("x", a)], &["x: Kept"]);
    check_listeners(
        &[("x", a)],
        &[("x", b)],
        &["x: Moved { from: Tcp(127.0.0.1:1) }"],
    );
    check_listeners(
        &[("x", a)],
        &[("y", a)],
        &["y: Renamed { from: \"x\" }", "x: Yielded { to: \"y\" }"],
    );
    check_listeners(
        &[("x", a), ("y", b)],
        &[("x", b), ("y", a)],
        &["x: Renamed { from: \"y\" }", "y: Renamed { from: \"x\" }"],
    );
    check_listeners(
        &[("x", a)],
        &[("y", a), ("x", b)],
        &["y: Renamed { from: \"x\" }", "x: Opened"],
    );
    check_listeners(&[("x", a)], &[("y", b)], &["y: Opened", "x: Closed"]);
}

#[test]
fn port_0_is_known_by_its_name() {
    let any = "127.0.0.1:0";
    check_listeners(
        &[("x", any), ("y", any)],
        &[("y", any), ("z", any)],
        &["y: Kept", "z: Opened", "x: Closed"],
    );
}

#[test]
fn an_address_that_is_held_until_the_end_clashes() {
    let check = |old: &str, new: &str, expected: bool| {
        let yaml =
            |address: &str| config(&format!("listeners: [{{name: x, address: \"{address}\"}}]"));
        let change = Change::between(&yaml(old), &yaml(new));
        assert_eq!(!change.clashes.is_empty(), expected, "{old} → {new}");
    };
    check("127.0.0.1:1", "0.0.0.0:1", true);
    check("0.0.0.0:1", "127.0.0.1:1", true);
    check("[::]:1", "127.0.0.1:1", true);
    check("[::1]:1", "127.0.0.1:1", false);
    check("127.0.0.1:1", "127.0.0.2:1", false);
    check("127.0.0.1:1", "0.0.0.0:2", false);
    check("127.0.0.1:1", "127.0.0.1:1", false);
    check("127.0.0.1:0", "0.0.0.0:0", false);
    check("unix:/a", "unix:/b", false);
}

#[test]
fn a_route_without_requests_is_named() {
    let yaml = |more: &str| {
        config(&format!(
            "listeners: [{{name: p, address: \"127.0.0.1:1\"}}]\nroutes:\n{more}- {{name: a, match: {{path: /a}}, handler: {{respond: {{}}}}}}\n"
        ))
    };
    let old = yaml("");
    let new = yaml("- {name: b, match: {path: /a}, handler: {respond: {}}}\n");
    let moves = Moves::between(&old, &new);
    assert_eq!(moves.starved, ["a".into()]);
    assert_eq!(moves.moves.len(), 1);
    assert_eq!(moves.moves[0].to, Taker::Route("b".into()));
    assert_eq!(Moves::between(&new, &new), Moves::default());
    let back = Moves::between(&new, &old);
    assert_eq!((back.starved.len(), back.moves.len()), (0, 1));
}

#[test]
fn the_log_gets_one_line() {
    let plain = config("upstreams: {a: {endpoints: [\"127.0.0.1:1\"]}}");
    assert_eq!(
        Change::between(&plain, &plain).summary(),
        "nothing but settings around them"
    );
    let other = config("upstreams: {b: {endpoints: [\"127.0.0.1:1\"]}}");
    assert_eq!(
        Change::between(&plain, &other).summary(),
        "upstreams: 1 added, 0 changed, 1 removed"
    );
}
