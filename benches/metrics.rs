//! What counting one request costs, and what a scrape does.
//!
//! Targets: begin and end of a request within 15 ns; a scrape of 10,000 series within 50 ms.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use retort::telemetry::decision::Flag;
use retort::telemetry::metrics::{Method, Metrics, RouteSeries, Sample, Settings};

fn sample(status: u16, flag: Option<Flag>) -> Sample {
    Sample {
        method: Method::Get,
        status,
        flag,
        took: Duration::from_micros(130),
        overhead: Duration::from_micros(12),
    }
}

fn count_a_request(c: &mut Criterion) {
    let metrics = Metrics::new(2);
    let route = metrics.route("public", "orders");
    c.bench_function("one request", |b| {
        b.iter(|| {
            let route = black_box(&route);
            route.begin(0);
            route.end(0, &black_box(sample(200, None)));
        });
    });

    let statuses = [200, 201, 204, 304, 404, 429, 502, 503];
    for status in statuses {
        route.end(0, &sample(status, None));
    }
    let mut n = 0_usize;
    c.bench_function("one request, eight statuses", |b| {
        b.iter(|| {
            n = n.wrapping_add(1);
            let status = statuses.get(n % 8).copied().unwrap_or(200);
            route.begin(0);
            route.end(0, &black_box(sample(status, None)));
        });
    });

    let method = http::Method::POST;
    c.bench_function("label of a method", |b| {
        b.iter(|| Method::from(black_box(&method)));
    });
}

/// So many routes, each used by both workers.
fn used(metrics: &Metrics, routes: usize) -> Vec<Arc<RouteSeries>> {
    let routes = (0..routes).map(|n| {
        let route = metrics.route("public", &format!("route-{n}"));
        for worker in 0..2 {
            route.begin(worker);
            route.end(worker, &sample(200, None));
        }
        route
    });
    routes.collect()
}

fn scrape(c: &mut Criterion) {
    let mut group = c.benchmark_group("scrape");
    group.sample_size(10);
    // A used route is 40 series: two histograms of 19, one gauge, one counter.
    for (series, routes) in [(10_000, 250), (400_000, 10_000)] {
        let metrics = Metrics::new(2);
        metrics.configure(&Settings {
            max_series: usize::MAX,
        });
        let _routes = used(&metrics, routes);
        group.bench_function(format!("{series} series"), |b| b.iter(|| metrics.text()));
    }
    let metrics = Metrics::new(2);
    let _routes: Vec<_> = (0..10_000)
        .map(|n| metrics.route("public", &format!("route-{n}")))
        .collect();
    group.bench_function("10000 unused routes", |b| b.iter(|| metrics.text()));
    group.finish();
}

criterion_group!(benches, count_a_request, scrape);
criterion_main!(benches);
