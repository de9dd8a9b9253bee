//! The admin API as JSON, for people with a browser or curl.
//!
//! A page in an operator's browser must not reach it: a foreign `Origin` is refused, and so is a
//! foreign `Host`, which is what a name that was re-pointed to 127.0.0.1 would send.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::overview::{Endpoint, Overview, Status, Upstream};
use super::v1::{ExplainRequest, ListRecentFailuresRequest};
use crate::base::address::Address;
use crate::telemetry::recent::Record;

/// The routes of the JSON side, for the address on which they are reached.
pub(super) fn routes(overview: Arc<dyn Overview>, address: Address) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/upstreams", get(upstreams))
        .route("/v1/why", get(why))
        .route("/v1/recent-failures", get(recent_failures))
        .route("/v1/explain", post(explain))
        .route_layer(from_fn_with_state(Arc::new(address), guard))
        .with_state(overview)
}

async fn status(State(overview): State<Arc<dyn Overview>>) -> Json<Value> {
    Json(document(&overview.status()))
}

async fn upstreams(State(overview): State<Arc<dyn Overview>>) -> Json<Value> {
    let found = overview.upstreams();
    let upstreams: Vec<Value> = found.upstreams.iter().map(upstream).collect();
    Json(json!({"revision": found.revision, "upstreams": upstreams}))
}

#[derive(serde::Deserialize)]
struct Id {
    request_id: String,
}

async fn why(State(overview): State<Arc<dyn Overview>>, Query(id): Query<Id>) -> Response {
    let found = overview.recent(&super::why::of(&id.request_id));
    if found.is_empty() {
        let sentence = super::why::unknown(&id.request_id);
        return refusal(StatusCode::NOT_FOUND, &sentence);
    }
    Json(decisions(&found)).into_response()
}

async fn recent_failures(
    State(overview): State<Arc<dyn Overview>>,
    Query(query): Query<ListRecentFailuresRequest>,
) -> Json<Value> {
    Json(decisions(&overview.recent(&query.into())))
}

fn decisions(records: &[Arc<Record>]) -> Value {
    let records: Vec<&Record> = records.iter().map(|record| &**record).collect();
    json!({"decisions": records})
}

async fn explain(
    State(overview): State<Arc<dyn Overview>>,
    Json(question): Json<ExplainRequest>,
) -> Response {
    match super::why::explain(overview, question).await {
        Ok(explanation) => Json(explanation).into_response(),
        Err(sentence) => refusal(StatusCode::BAD_REQUEST, &sentence),
    }
}

fn upstream(upstream: &Upstream) -> Value {
    let endpoints: Vec<Value> = upstream.endpoints.iter().map(endpoint).collect();
    json!({
        "name": upstream.name,
        "protocol": upstream.protocol,
        "balance": upstream.balance,
        "panicking": upstream.panicking,
        "queued": upstream.queued,
        "endpoints": endpoints,
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    json!({
        "address": endpoint.address,
        "zone": endpoint.zone,
        "weight": endpoint.weight,
        // People read this: four decimals are enough to compare.
        "share": (endpoint.share * 1e4).round() / 1e4,
        "condition": endpoint.condition.name(),
        "why": endpoint.why,
    })
}

fn document(status: &Status) -> Value {
    let time = |at| humantime::format_rfc3339_millis(at).to_string();
    json!({
        "version": status.version,
        "revision": status.revision,
        "source": status.source,
        "state": status.state.name(),
        "started_at": time(status.started_at),
        "uptime_seconds": status.uptime.as_secs(),
        "workers": status.workers,
        "connections": status.connections,
        "last_reload": status.last_reload.as_ref().map(|reload| json!({
            "outcome": reload.outcome.name(),
            "message": reload.message,
            "at": time(reload.at),
        })),
    })
}

/// For what neither side knows: gRPC clients get a gRPC status.
pub(super) async fn not_found(uri: Uri, headers: HeaderMap) -> Response {
    let kind = headers.get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        let status = tonic::Status::unimplemented(format!("there is no method {}", uri.path()));
        return status.into_http();
    }
    let sentence = format!(
        "there is no {}: try /v1/status, /v1/upstreams or /v1/recent-failures",
        uri.path()
    );
    refusal(StatusCode::NOT_FOUND, &sentence)
}

fn refusal(status: StatusCode, sentence: &str) -> Response {
    (status, Json(json!({"error": sentence}))).into_response()
}

async fn guard(State(address): State<Arc<Address>>, request: Request, next: Next) -> Response {
    match admit(&address, request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(sentence) => refusal(StatusCode::FORBIDDEN, sentence),
    }
}

fn admit(address: &Address, uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().ok().and_then(|text| text.parse().ok());
        if !origin.is_some_and(|origin: Uri| is_ours(address, origin.host())) {
            return Err("pages of other origins may not use the admin API");
        }
    }
    // Over a Unix socket no browser comes, and the name in `Host` means nothing.
    if address.unix().is_some() {
        return Ok(());
    }
    let host = match uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => headers
            .get(header::HOST)
            .and_then(|host| host.as_bytes().try_into().ok()),
    };
    if !is_ours(address, host.as_ref().map(Authority::host)) {
        return Err("the admin API answers to loopback names only: use 127.0.0.1 or localhost");
    }
    Ok(())
}

/// A loopback name or address, or the very address that we listen on.
fn is_ours(address: &Address, host: Option<&str>) -> bool {
    let Some(host) = host else {
        return false;
    };
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let Ok(ip) = bare.parse::<IpAddr>() else {
        return false;
    };
    ip.to_canonical().is_loopback() || address.tcp().is_some_and(|own| own.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_hosts_and_origins_are_refused() {
        let check = |address: &str, host: Option<&str>, origin: Option<&str>, admitted: bool| {
            let address: Address = address.parse().expect(address);
            let mut headers = HeaderMap::new();
            if let Some(host) = host {
                headers.insert(header::HOST, host.parse().expect(host));
            }
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().expect(origin));
            }
            let result = admit(&address, &Uri::from_static("/v1/status"), &headers);
            assert_eq!(result.is_ok(), admitted, "{address} {host:?} {origin:?}");
        };
        let tcp = "127.0.0.1:15000";
        for host in [
            "127.0.0.1:15000",
            "localhost",
            "LOCALHOST:1",
            "[::1]:15000",
            "127.8.8.8",
        ] {
            check(tcp, Some(host), None, true);
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "a b",
            "",
        ] {
            check(tcp, Some(host), None, false);
        }
        check(tcp, None, None, false);
        check("10.0.0.1:15000", Some("10.0.0.1:15000"), None, true);
        check("10.0.0.1:15000", Some("10.0.0.2:15000"), None, false);
        check(tcp, Some("localhost"), Some("http://localhost:3000"), true);
        check(tcp, Some("localhost"), Some("http://evil.example"), false);
        check(tcp, Some("localhost"), Some("null"), false);
        check("unix:/run/admin.sock", Some("anything"), None, true);
        check(
            "unix:/run/admin.sock",
            None,
            Some("http://evil.example"),
            false,
        );
    }
}
