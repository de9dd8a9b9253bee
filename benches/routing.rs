//! What a look-up costs: among few routes and many, by each kind of path, and by host.
//!
//! The ratio of 10,000 routes to one is printed at the end; 1.5 is the promise.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program for developers"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{Method, Uri};
use retort::base::message::RequestHead;
use retort::routing::{EncodedSlashes, Found, Match, Table, normalise};
use serde_json::{Value, json};

fn table(matches: impl Iterator<Item = Value>) -> Table {
    let routes: Vec<Match> = matches
        .map(|written| serde_json::from_value(written).expect("a match"))
        .collect();
    let routes = routes.iter().map(std::slice::from_ref);
    Table::build((0..).zip(routes)).expect("a table")
}

fn get(target: &str) -> RequestHead {
    let uri: Uri = target.parse().expect("a target");
    RequestHead::new(Method::GET, uri)
}

fn found(table: &Table, head: &RequestHead) -> u32 {
    match table.find(black_box(head)) {
        Found::Route { route, .. } => route,
        other => panic!("{other:?}"),
    }
}

/// Prefixes as a gateway has them: a service and a part of it.
fn prefixes(number: u32) -> Table {
    table((0..number).map(|i| json!({"path_prefix": format!("/service-{i}/api")})))
}

/// A request for one route, and requests that go round over all routes, so that the table has to come
/// from the outer caches.
fn among_prefixes(c: &mut Criterion) {
    for number in [1, 1_000, 10_000] {
        let table = prefixes(number);
        let one = get(&format!(
            "http://a.example/service-{}/api/items/7",
            number / 2
        ));
        assert_eq!(found(&table, &one), number / 2);
        c.bench_function(&format!("prefix/{number}/one"), |b| {
            b.iter(|| found(&table, &one));
        });
        let all: Vec<RequestHead> = (0..number.min(1_000))
            .map(|i| i * 7 % number)
            .map(|i| get(&format!("http://a.example/service-{i}/api/items/7")))
            .collect();
        let mut next = all.iter().cycle();
        c.bench_function(&format!("prefix/{number}/round"), |b| {
            b.iter(|| found(&table, next.next().expect("endless")));
        });
    }
}

/// A name, the match of a route by its number, and a target for the route 500.
type Kind = (&'static str, fn(u32) -> Value, &'static str);

fn by_kind(c: &mut Criterion) {
    let kinds: [Kind; 6] = [
        (
            "literal",
            |i| json!({"path": format!("/service-{i}/health")}),
            "http://a/service-500/health",
        ),
        (
            "template",
            |i| json!({"path": format!("/service-{i}/users/{{id:int}}")}),
            "http://a/service-500/users/1234567",
        ),
        (
            "regex",
            |i| json!({"path_regex": format!("/service-{i}/v[0-9]+/.*")}),
            "http://a/service-500/v2/items",
        ),
        (
            "host",
            |i| json!({"host": [format!("h{i}.example.com")]}),
            "http://h500.example.com/items",
        ),
        (
            "wildcard",
            |i| json!({"host": [format!("*.h{i}.example.com")]}),
            "http://x.h500.example.com/items",
        ),
        (
            "conditions",
            |i| json!({"path_prefix": format!("/service-{i}"), "method": ["GET"], "query": {"v": "2"}}),
            "http://a/service-500/items?page=7&v=2",
        ),
    ];
    for (name, written, target) in kinds {
        let table = table((0..1_000).map(written));
        let head = get(target);
        assert_eq!(found(&table, &head), 500);
        c.bench_function(name, |b| b.iter(|| found(&table, &head)));
    }
}

fn paths(c: &mut Criterion) {
    let rows = [
        ("plain", "/service-500/api/items/7"),
        (
            "long",
            "/api/v1/namespaces/default/pods/orders-7d9f8b6c5-x2x7q/log/follow/container",
        ),
        ("rewritten", "/service-500/./api/%7eitems/7"),
    ];
    for (name, path) in rows {
        c.bench_function(&format!("normalise/{name}"), |b| {
            b.iter(|| {
                normalise(black_box(path), EncodedSlashes::Refuse)
                    .expect("sound")
                    .len()
            });
        });
    }
}

fn builds(c: &mut Criterion) {
    let routes: Vec<Match> = (0..10_000)
        .map(|i| json!({"path_prefix": format!("/service-{i}/api")}))
        .map(|written| serde_json::from_value(written).expect("a match"))
        .collect();
    c.bench_function("build/10000", |b| {
        b.iter(|| Table::build((0..).zip(routes.iter().map(std::slice::from_ref))).is_ok());
    });
}

/// Measured by turns, so that what else the machine does falls on both alike.
fn ratio(_: &mut Criterion) {
    let measured: Vec<(Table, Vec<RequestHead>)> = [1, 10_000]
        .map(|number: u32| {
            let heads = (0..1_000).map(|i| i * 7 % number);
            let heads = heads.map(|i| get(&format!("http://a/service-{i}/api/items/7")));
            (prefixes(number), heads.collect())
        })
        .into();
    let mut best = [Duration::MAX; 2];
    for _ in 0..200 {
        for ((table, heads), best) in measured.iter().zip(&mut best) {
            let start = Instant::now();
            for head in heads {
                black_box(found(table, head));
            }
            *best = start.elapsed().min(*best);
        }
    }
    let [one, many] = best.map(|time| time.as_secs_f64() * 1e9 / 1_000.0);
    println!(
        "1 route {one:.1} ns, 10,000 routes {many:.1} ns, ratio {:.2}",
        many / one
    );
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    targets = among_prefixes, by_kind, paths, builds, ratio
}
criterion_main!(benches);
