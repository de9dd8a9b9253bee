//! The telemetry port: metrics for Prometheus, health for Kubernetes. Reading only.
//!
//! `/livez` says whether to restart us: it is 200 as long as the process can answer, also while it
//! drains. `/readyz` says whether to send requests: 503 while starting and from the first moment of
//! the drain. `/startupz` says whether starting is over. `/healthz` is `/livez` under an older name.

use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::door::Door;
use super::overview::{Check, Overview};
use crate::base::lifecycle::{self, Lifecycle};
use crate::telemetry::metrics::Metrics;

/// What the telemetry port tells about.
#[derive(Clone)]
struct Sources {
    metrics: Arc<Metrics>,
    overview: Arc<dyn Overview>,
    lifecycle: Arc<Lifecycle>,
}

/// Answers probes and scrapes until `stop` is ready.
///
/// It should outlive the drain: probes and a last scrape come until the very end.
pub async fn serve(
    door: Door,
    metrics: Arc<Metrics>,
    overview: Arc<dyn Overview>,
    lifecycle: Arc<Lifecycle>,
    stop: impl Future<Output = ()> + Send,
) {
    let sources = Sources {
        metrics,
        overview,
        lifecycle,
    };
    // `get` answers HEAD, too, and everything else with 405.
    let app = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/livez", get(live))
        .route("/healthz", get(live))
        .route("/readyz", get(ready))
        .route("/startupz", get(started))
        .fallback(not_found)
        .with_state(sources);
    door.serve(app, stop).await;
}

async fn metrics_text(State(sources): State<Sources>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], sources.metrics.text()).into_response()
}

async fn live(RawQuery(query): RawQuery) -> Response {
    report(&[], query.as_deref())
}

async fn started(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    let state = sources.lifecycle.state();
    let check = Check {
        name: "started".into(),
        ok: state > lifecycle::State::Starting,
        detail: state.name().into(),
    };
    report(&[check], query.as_deref())
}

async fn ready(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    let state = sources.lifecycle.state();
    let mut checks = vec![Check {
        name: "lifecycle".into(),
        ok: state == lifecycle::State::Ready,
        detail: state.name().into(),
    }];
    checks.extend(sources.overview.ready());
    report(&checks, query.as_deref())
}

async fn not_found() -> Response {
    let paths = "there are /metrics, /livez, /readyz, /startupz and /healthz\n";
    (StatusCode::NOT_FOUND, paths).into_response()
}

/// `ok`, or 503 and what is not; with `?verbose`, every check.
fn report(checks: &[Check], query: Option<&str>) -> Response {
    let verbose = query.is_some_and(|query| {
        let mut keys = query.split('&').map(|pair| pair.split('=').next());
        keys.any(|key| key == Some("verbose"))
    });
    let ok = checks.iter().all(|check| check.ok);
    let mut text = String::new();
    for check in checks.iter().filter(|check| verbose || !check.ok) {
        let (sign, word) = if check.ok {
            ('+', "ok")
        } else {
            ('-', "failed")
        };
        // Writing to a string cannot fail.
        let _written = write!(text, "[{sign}]{} {word}", check.name);
        if !check.detail.is_empty() {
            let _written = write!(text, ": {}", check.detail);
        }
        text.push('\n');
    }
    text.push_str(if ok { "ok\n" } else { "not ok\n" });
    let status = if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, [(header::CACHE_CONTROL, "no-store")], text).into_response()
}
