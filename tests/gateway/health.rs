//! Health checks take endpoints out and in, gate the start, and leave requests alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};

use crate::harness::service::{Stream, ask, endpoints, spread};
use crate::harness::{Gateway, Service, Upstream, eventually};
use crate::retries::logged;

const HTTP: &str =
    "health_check: {http: {path: /healthz}, interval: 100ms, unhealthy_after: 2, healthy_after: 2}";

fn yaml(up: &str) -> String {
    format!(
        "runtime: {{workers: 1}}
routes:
  - {{name: up, match: {{path_prefix: /}}, upstream: up}}
upstreams:
  up: {{balance: round_robin, {up}}}
"
    )
}

async fn gateway(up: &str) -> Gateway {
    Gateway::start(yaml(up)).await
}

async fn who(gateway: &Gateway) -> String {
    let found = spread(gateway, &vec![ask("/", ""); 12]).await;
    let each = found.iter().map(|(who, count)| format!("{who}:{count}"));
    each.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn an_endpoint_that_fails_its_check_takes_no_request_until_it_passes() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let gateway = gateway(&format!("endpoints: [\"{a}\", \"{b}\"], {HTTP}")).await;
    assert_eq!(who(&gateway).await, "a:6 b:6");
    a.is(503);
    endpoints(&gateway, "unhealthy", 1).await;
    assert_eq!(who(&gateway).await, "b:12");
    let line = gateway.logs("GET /healthz answered 503").await;
    assert!(line.contains("WARN"), "{line}");
    assert!(line.contains(&a.to_string()), "{line}");
    a.is(204);
    endpoints(&gateway, "ready", 2).await;
    assert_eq!(who(&gateway).await, "a:6 b:6");
    // One failure of the two that it takes.
    a.is(503);
    a.probed(1).await;
    a.is(200);
    a.probed(3).await;
    gateway.logs_times("unhealthy", 1).await;
    assert_eq!(who(&gateway).await, "a:6 b:6");
}

#[tokio::test]
async fn the_first_check_decides_before_the_first_request() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    a.is(500);
    let rarely = "health_check: {http: {path: /healthz}, interval: 1h}";
    let gateway = gateway(&format!("endpoints: [\"{a}\", \"{b}\"], {rarely}")).await;
    assert_eq!(who(&gateway).await, "b:12");
    assert_eq!((a.probes(), b.probes()), (1, 1));
    assert!(a.requests().is_empty());
}

#[tokio::test]
async fn where_nobody_is_well_requests_fail_at_once_and_the_log_says_why() {
    let a = Service::start("a").await;
    a.is(500);
    let absent = Upstream::absent();
    let gateway = gateway(&format!("endpoints: [\"{a}\", \"{absent}\"], {HTTP}")).await;
    let answer = gateway.get("/nobody").await;
    assert_eq!(answer.status, 503);
    let line = logged(&gateway, "/nobody").await;
    assert_eq!(line["flag"], "UH");
    let detail = line["detail"].as_str().expect("text");
    for words in [
        format!("{a} fails its health check: GET /healthz answered 500, expected 200-299"),
        format!("{absent} fails its health check: connection refused by {absent}"),
    ] {
        assert!(detail.contains(&words), "{detail}");
    }
    endpoints(&gateway, "unhealthy", 2).await;
}

#[tokio::test]
async fn tcp_checks_see_a_port_close_and_open() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let tcp = "health_check: {tcp: {}, interval: 100ms, unhealthy_after: 1}";
    let gateway = gateway(&format!("endpoints: [\"{a}\", \"{b}\"], {tcp}")).await;
    assert_eq!(who(&gateway).await, "a:6 b:6");
    let address = a.stop().await;
    endpoints(&gateway, "unhealthy", 1).await;
    gateway
        .logs(&format!("unhealthy: connection refused by {address}"))
        .await;
    assert_eq!(who(&gateway).await, "b:12");
    let _a = Service::start_at("again", address).await;
    endpoints(&gateway, "ready", 2).await;
    assert_eq!(who(&gateway).await, "again:6 b:6");
}

/// A gRPC server that says so of its health, and answers everything else with 200.
async fn grpc(status: &Arc<AtomicU8>) -> Upstream {
    let status = Arc::clone(status);
    Upstream::http2(move |request, mut respond, _peer| {
        let status = Arc::clone(&status);
        async move {
            let is_check = request.uri().path() == "/grpc.health.v1.Health/Check";
            let head = Response::builder().header("content-type", "application/grpc");
            let head = head.body(()).expect("a response");
            let Ok(mut stream) = respond.send_response(head, false) else {
                return;
            };
            let serving = status.load(Ordering::SeqCst);
            if is_check {
                // One message of two bytes: field 1 is the status.
                let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, serving]);
                let _left = stream.send_data(message, false);
            }
            let ok = HeaderValue::from_static("0");
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", ok);
            let _left = stream.send_trailers(trailers);
        }
    })
    .await
}

#[tokio::test]
async fn grpc_checks_ask_the_standard_service() {
    let (serving, not_serving) = (1, 2);
    let status = Arc::new(AtomicU8::new(serving));
    let service = grpc(&status).await;
    let gateway = gateway(&format!(
        "endpoints: [\"{}\"], protocol: http2,
         health_check: {{grpc: {{service: acme.Users}}, interval: 100ms, unhealthy_after: 1}}",
        service.address
    ))
    .await;
    endpoints(&gateway, "ready", 1).await;
    assert_eq!(gateway.get("/").await.status, 200);
    status.store(not_serving, Ordering::SeqCst);
    endpoints(&gateway, "unhealthy", 1).await;
    gateway
        .logs("the service `acme.Users` is NOT_SERVING")
        .await;
    assert_eq!(gateway.get("/").await.status, 503);
    status.store(serving, Ordering::SeqCst);
    endpoints(&gateway, "ready", 1).await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn checks_have_connections_of_their_own() {
    let a = Service::start("a").await;
    let limits = "limits: {connections: 1, queue: 0}";
    let gateway = gateway(&format!("endpoints: [\"{a}\"], {HTTP}, {limits}")).await;
    let slow = tokio::spawn(gateway.get("/?hold=head"));
    a.holds(1).await;
    a.probed(3).await;
    endpoints(&gateway, "ready", 1).await;
    a.release_all();
    assert_eq!(slow.await.expect("no panic").status, 200);
    for _ in 0..5 {
        assert_eq!(gateway.get("/").await.status, 200);
        a.probed(1).await;
    }
    eventually(
        "one connection that is no check's",
        async || a.connections() - a.probes(),
        |others| *others == 1,
    )
    .await;
}

#[tokio::test]
async fn checks_end_with_their_upstream() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let with = |services: &[&Service]| {
        let each = services.iter().enumerate().map(|(number, service)| {
            format!("  up{number}: {{endpoints: [\"{service}\"], {HTTP}}}\n")
        });
        format!(
            "routes:\n  - {{name: up, match: {{path_prefix: /}}, upstream: up0}}\nupstreams:\n{}",
            each.collect::<String>()
        )
    };
    let gateway = Gateway::start(with(&[&a, &b])).await;
    a.probed(2).await;
    b.probed(2).await;
    gateway.reload(&with(&[&a])).await;
    // Perhaps one was under way.
    a.probed(2).await;
    let asked = b.probes();
    a.probed(5).await;
    assert_eq!(b.probes(), asked);
    // So it is for an endpoint that leaves, and once for one that comes.
    gateway.reload(&with(&[&b])).await;
    b.probed(2).await;
    let asked = a.probes();
    b.probed(5).await;
    assert_eq!(a.probes(), asked);
}

#[tokio::test]
async fn a_reload_keeps_what_checks_have_found() {
    let (a, b, c) = (
        Service::start("a").await,
        Service::start("b").await,
        Service::start("c").await,
    );
    a.is(500);
    let rarely = "health_check: {http: {path: /healthz}, interval: 1h}";
    let up = format!("endpoints: [\"{a}\", \"{b}\"], {rarely}");
    let gateway = gateway(&up).await;
    let stream = Stream::start(&gateway, 2, "/");
    stream.goes_on(10).await;
    // Around it.
    let around = format!("{}  other: {{endpoints: []}}\n", yaml(&up));
    gateway.reload(&around).await;
    stream.goes_on(10).await;
    assert_eq!((a.probes(), b.probes()), (1, 1));
    // Of the same upstream.
    let other_key = format!("{up}, timeouts: {{connect: 2s}}");
    gateway.reload(&yaml(&other_key)).await;
    stream.goes_on(10).await;
    let another = format!("endpoints: [\"{a}\", \"{b}\", \"{c}\"], {rarely}");
    gateway.reload(&yaml(&another)).await;
    assert_eq!(names(&gateway).await, "b c");
    let answers = stream.stop().await;
    let names: Vec<&String> = answers.keys().collect();
    assert!(names == ["b"] || names == ["b", "c"], "{answers:?}");
    assert!(a.requests().is_empty());
}

async fn names(gateway: &Gateway) -> String {
    let found = spread(gateway, &vec![ask("/", ""); 12]).await;
    found.into_keys().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_check_that_hangs_fails_in_time_and_delays_no_request() {
    let a = Service::start("a").await;
    let silent = Upstream::start(|mut peer| async move {
        // The check, and then its end.
        while peer.until(b"\r\n\r\n").await.is_some() {}
    })
    .await;
    let gateway = gateway(&format!(
        "endpoints: [\"{a}\", \"{}\"],
         health_check: {{http: {{path: /healthz}}, interval: 200ms, timeout: 150ms}}",
        silent.address
    ))
    .await;
    endpoints(&gateway, "unhealthy", 1).await;
    gateway.logs("within 150ms").await;
    assert_eq!(who(&gateway).await, "a:12");
}
