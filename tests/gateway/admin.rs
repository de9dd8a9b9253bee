//! The admin port: gRPC with health and reflection, as an operator's tools expect them.

use crate::harness::Gateway;
use crate::harness::program::Program;

const ROUTES: &str = "routes:\n  - {name: ok, match: {path: /}, handler: {respond: {body: ok}}}\n";

#[tokio::test]
async fn grpcio_finds_the_service_by_reflection_and_gets_the_status() {
    let gateway = Gateway::start(ROUTES).await;
    let mut client = Program::python("admin_status.py", &[&gateway.address("admin").to_string()]);
    let status = client.exited().await;
    assert!(status.success(), "{}", client.errors.text());
    let seen: serde_json::Value = serde_json::from_str(&client.output.text()).expect("JSON");
    assert_eq!(seen["health"], "SERVING");
    let services = seen["services"].to_string();
    for name in ["grpc.health.v1.Health", "retort.admin.v1."] {
        assert!(services.contains(name), "{services}");
    }
    let status = &seen["status"];
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"), "{status}");
    assert!(status.to_string().contains("revision"), "{status}");
}

#[tokio::test]
async fn the_admin_port_serves_no_client_traffic_and_the_other_way_round() {
    let gateway = Gateway::start(ROUTES).await;
    let answer = crate::harness::get(gateway.address("admin"), "/metrics").await;
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
