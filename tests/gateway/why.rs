//! Why a request failed, and what would become of one: asked of a running gateway.

use serde_json::Value;

use crate::harness::program::retort;
use crate::harness::{Gateway, Upstream, request};

const RULES: &str = "
routes:
  - {name: dead, match: {path_prefix: /dead}, upstream: dead, retry: {attempts: 2, on: [connect_failure], backoff: 1ms}}
  - {name: few, match: {path_prefix: /few}, upstream: up, middlewares: [{rate_limit: {requests: 1, per: 1h}}]}
  - {name: up, match: {path_prefix: /up}, upstream: up}
upstreams:
  dead: {endpoints: [\"127.0.0.1:1\"]}
";

async fn gateway(upstream: &Upstream, decisions: &str) -> Gateway {
    let yaml = format!(
        "{RULES}{}telemetry: {{address: \"127.0.0.1:0\", access_log: {{output: none}}, decisions: {decisions}}}\n",
        upstream.yaml("up")
    );
    Gateway::start(yaml).await
}

/// What a command prints about that gateway, and its exit status.
async fn told(gateway: &Gateway, arguments: &[&str]) -> (String, Option<i32>) {
    let admin = gateway.address("admin").to_string();
    let mut all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    all.extend(["--admin".to_owned(), admin]);
    let output = tokio::task::spawn_blocking(move || {
        retort(&all.iter().map(String::as_str).collect::<Vec<_>>())
    });
    let output = output.await.expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (
        text(output.stdout) + &text(output.stderr),
        output.status.code(),
    )
}

async fn json(gateway: &Gateway, arguments: &[&str]) -> Value {
    let (text, code) = told(gateway, arguments).await;
    assert_eq!(code, Some(0), "{text}");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn a_failed_request_is_found_by_its_id() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream, "{recent: 8}").await;
    let head =
        "GET /dead/7?a=b HTTP/1.1\r\nhost: shop\r\nx-request-id: mine\r\nconnection: close\r\n\r\n";
    assert_eq!(request(gateway.public(), head).await.status, 503);
    let (page, code) = told(&gateway, &["why", "mine"]).await;
    assert_eq!(code, Some(0), "{page}");
    for line in [
        "/dead/7?a=b (HTTP/1.1)",
        "route       dead (configuration 1)",
        "upstream    dead",
        "attempt 1   127.0.0.1:1 UF after",
        "attempt 2   127.0.0.1:1 UF after",
        "answer      503 URX",
        "connection refused by 127.0.0.1:1",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    let found = json(&gateway, &["why", "mine", "--json"]).await;
    let decision = &found["decisions"][0];
    assert_eq!(decision["flag"], "URX");
    assert_eq!(decision["attempts"].as_array().map(Vec::len), Some(2));
    let (sentence, code) = told(&gateway, &["why", "nobody"]).await;
    assert_eq!(code, Some(1), "{sentence}");
    assert!(
        sentence.contains("no request `nobody` is kept"),
        "{sentence}"
    );
}

#[tokio::test]
async fn the_last_failures_are_kept_and_no_more() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream, "{recent: 3}").await;
    for _ in 0..9 {
        assert_eq!(gateway.get("/dead").await.status, 503);
    }
    assert_eq!(gateway.get("/up").await.status, 200);
    assert_eq!(gateway.get("/nowhere").await.status, 404);
    let all = json(&gateway, &["why", "--json"]).await;
    let all = all["decisions"].as_array().expect("a list");
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    assert!(all.len() <= 3 * workers, "{all:#?}");
    assert_eq!(all[0]["flag"], "NR", "{all:#?}");
    assert!(all.iter().all(|one| one["request_id"] != ""), "{all:#?}");
    let dead = json(
        &gateway,
        &["why", "--json", "--route", "dead", "--limit", "2"],
    )
    .await;
    assert_eq!(dead["decisions"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn slow_requests_are_kept_though_they_succeed() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream, "{slow: 0s}").await;
    assert_eq!(gateway.get("/up").await.status, 200);
    let all = json(&gateway, &["why", "--json", "--upstream", "up"]).await;
    assert_eq!(all["decisions"][0]["status"], 200);
}

#[tokio::test]
async fn only_chosen_clients_are_told_at_once() {
    let upstream = Upstream::echo("up").await;
    let told = gateway(&upstream, "{header_for: [127.0.0.0/8]}").await;
    let answer = told.get("/dead").await;
    let line = answer.header("x-retort-decision").expect("the header");
    for part in ["status=503", "route=\"dead\"", "flag=\"URX\"", "attempts=2"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let untold = gateway(&upstream, "{header_for: [10.0.0.0/8]}").await;
    let head = "GET /dead HTTP/1.1\r\nhost: shop\r\nx-forwarded-for: 10.0.0.1\r\nconnection: close\r\n\r\n";
    let answer = request(untold.public(), head).await;
    assert_eq!(answer.header("x-retort-decision"), None);
}

#[tokio::test]
async fn an_explanation_knows_the_moment_and_uses_nothing_up() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream, "{}").await;
    let explain = ["explain", "--against", "running", "--json", "/few"];
    for _ in 0..3 {
        let fresh = json(&gateway, &explain).await;
        assert_eq!(fresh["answer"]["by"], "upstream up", "{fresh:#}");
    }
    assert!(upstream.requests().is_empty(), "nothing was sent");
    assert_eq!(gateway.get("/few").await.status, 200);
    let full = json(&gateway, &explain).await;
    assert_eq!(full["answer"]["status"], 429, "{full:#}");
    assert_eq!(full["answer"]["by"], "middleware rate_limit");
    let metrics = gateway.metrics().await;
    let count = metrics.sum("retort_http_requests_total", &[("route", "few")]);
    assert!((count - 1.0).abs() < f64::EPSILON, "{count}");
    let (sentence, code) = told(
        &gateway,
        &["explain", "--against", "running", "/", "--listener", "x"],
    )
    .await;
    assert_eq!(code, Some(1), "{sentence}");
    assert!(sentence.contains("there is no listener `x`"), "{sentence}");
}

#[test]
fn a_gateway_that_is_not_there_is_5() {
    for command in [&["why"][..], &["explain", "--against", "running", "/"]] {
        let mut all = command.to_vec();
        all.extend(["--admin", "127.0.0.1:1"]);
        let output = retort(&all);
        assert_eq!(output.status.code(), Some(5));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("no gateway answers at 127.0.0.1:1"), "{said}");
        assert!(said.contains("help: is it running?"), "{said}");
    }
}
