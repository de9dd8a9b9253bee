//! The admin port: gRPC with health and reflection, as an operator's tools expect them.

use serde_json::Value;

use crate::harness::program::Program;
use crate::harness::{Gateway, Upstream, eventually, get, request};

const ROUTES: &str = "routes:\n  - {name: ok, match: {path: /}, handler: {respond: {body: ok}}}\n";

/// An upstream that no route uses.
const UPSTREAM: &str = "upstreams:
  spare:
    endpoints: [\"127.0.0.1:9\", {address: \"127.0.0.1:10\", weight: 0}]
    balance: round_robin
";

#[tokio::test]
async fn grpcio_finds_the_service_by_reflection_and_gets_status_and_upstreams() {
    let gateway = Gateway::start(format!("{ROUTES}{UPSTREAM}")).await;
    let mut client = Program::python("admin_status.py", &[&gateway.address("admin").to_string()]);
    let status = client.exited().await;
    assert!(status.success(), "{}", client.errors.text());
    let seen: Value = serde_json::from_str(&client.output.text()).expect("JSON");
    assert_eq!(seen["health"], "SERVING");
    let services = seen["services"].to_string();
    for name in ["grpc.health.v1.Health", "retort.admin.v1."] {
        assert!(services.contains(name), "{services}");
    }
    let status = &seen["status"];
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"), "{status}");
    assert!(status.to_string().contains("revision"), "{status}");
    let upstream = &seen["upstreams"]["upstreams"][0];
    assert_eq!(upstream["name"], "spare", "{seen}");
    assert_eq!(upstream["balance"], "round_robin", "{seen}");
    let endpoints = &upstream["endpoints"];
    assert_eq!(endpoints[0]["address"], "127.0.0.1:9", "{seen}");
    assert_eq!(endpoints[0]["share"], 1.0, "{seen}");
    assert_eq!(endpoints[0]["condition"], "ENDPOINT_CONDITION_READY");
    assert_eq!(endpoints[1]["why"], "has weight 0", "{seen}");
}

#[tokio::test]
async fn upstreams_are_shown_as_they_stand_with_the_reason_why_an_endpoint_is_skipped() {
    let (up, absent) = (Upstream::echo("up").await, Upstream::absent());
    let gateway = Gateway::start(format!(
        "routes:
  - {{name: up, match: {{path_prefix: /}}, upstream: up}}
upstreams:
  up:
    endpoints: [\"{}\", \"{absent}\"]
    health_check: {{tcp: {{}}, interval: 1s}}
    panic_threshold: 0%
",
        up.address
    ))
    .await;
    let admin = gateway.address("admin");
    let ask = async || {
        let head = "GET /v1/upstreams HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        request(admin, head).await.json()["upstreams"][0].take()
    };
    let seen = eventually("both endpoints checked", ask, |seen| {
        let why = seen["endpoints"][1]["why"].as_str().unwrap_or_default();
        seen["endpoints"][0]["condition"] == "ready" && why.starts_with("fails its health check: ")
    })
    .await;
    assert_eq!(seen["name"], "up");
    assert_eq!(seen["protocol"], "http1");
    assert_eq!(seen["balance"], "p2c_ewma");
    assert_eq!(seen["panicking"], false);
    assert_eq!(seen["queued"], 0);
    let endpoints = &seen["endpoints"];
    assert_eq!(endpoints[0]["address"], up.address.to_string());
    assert_eq!(endpoints[0]["share"], 1.0);
    assert_eq!(endpoints[0]["why"], Value::Null);
    assert_eq!(endpoints[1]["address"], absent.to_string());
    assert_eq!(endpoints[1]["share"], 0.0);
    assert_eq!(endpoints[1]["condition"], "unhealthy");
}

#[tokio::test]
async fn the_admin_port_serves_no_client_traffic_and_the_other_way_round() {
    let gateway = Gateway::start(ROUTES).await;
    let answer = get(gateway.address("admin"), "/metrics").await;
    assert_ne!(answer.status, 200);
    assert_eq!(
        gateway
            .telemetry("/retort.admin.v1.Admin/GetStatus")
            .await
            .status,
        404
    );
    assert_eq!(gateway.get("/metrics").await.status, 404);
}
