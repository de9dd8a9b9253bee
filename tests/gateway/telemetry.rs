//! What operators see: metrics that Prometheus accepts, health that tells the truth, logs in every format.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::harness::{Gateway, Upstream, request};

const ROUTES: &str = "
routes:
  - {name: ok, match: {path: \"/ok/{x}\"}, handler: {respond: {body: ok}}}
  - {name: limited, match: {path: /limited}, middlewares: [{rate_limit: {requests: 1, per: 1h}}], handler: {respond: {body: ok}}}
";

#[tokio::test]
async fn metrics_have_the_promised_names_and_labels() {
    let upstream = Upstream::echo("up").await;
    let gateway = Gateway::start(format!(
        "{ROUTES}  - {{name: up, match: {{path_prefix: /up}}, upstream: up}}\nupstreams:\n{}",
        upstream.yaml("up")
    ))
    .await;
    for target in ["/ok/1", "/ok/2", "/limited", "/limited", "/none", "/up/x"] {
        gateway.get(target).await;
    }
    let total = "retort_http_requests_total";
    gateway.counts(total, &[("listener", "public")], 6.0).await;
    gateway
        .counts(
            total,
            &[("route", "ok"), ("method", "GET"), ("code", "200")],
            2.0,
        )
        .await;
    gateway
        .counts(
            total,
            &[("route", "limited"), ("code", "429"), ("flag", "RL")],
            1.0,
        )
        .await;
    gateway
        .counts(total, &[("code", "404"), ("flag", "NR")], 1.0)
        .await;
    gateway
        .counts(
            "retort_upstream_requests_total",
            &[("upstream", "up"), ("code", "200")],
            1.0,
        )
        .await;
    let duration = "retort_http_request_duration_seconds_count";
    gateway
        .counts(duration, &[("listener", "public"), ("route", "ok")], 2.0)
        .await;
    let middleware = "retort_middleware_answers_total";
    let labels = [
        ("route", "limited"),
        ("middleware", "rate_limit"),
        ("code", "429"),
    ];
    let metrics = gateway.counts(middleware, &labels, 1.0).await;
    for name in [
        "retort_http_overhead_seconds_count",
        "retort_http_requests_in_flight",
        "retort_upstream_request_duration_seconds_count",
        "retort_upstream_connections",
        "retort_upstream_endpoints",
        "retort_handler_requests_total",
        "retort_handler_duration_seconds_count",
        "retort_listener_connections",
        "retort_config_last_reload_successful",
        "retort_config_revision",
        "retort_lifecycle_state",
        "retort_build_info",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(metrics.has(name), "{name} is missing");
    }
    for value in metrics.values(total, "route") {
        assert!(!value.contains('/'), "a path became a label: {value}");
    }
}

#[tokio::test]
async fn promtool_has_no_complaints() {
    let upstream = Upstream::echo("up").await;
    let gateway = Gateway::start(format!(
        "{ROUTES}  - {{name: up, match: {{path_prefix: /up}}, upstream: up}}\nupstreams:\n{}",
        upstream.yaml("up")
    ))
    .await;
    for target in ["/ok/1", "/limited", "/limited", "/none", "/up"] {
        gateway.get(target).await;
    }
    let answer = gateway.telemetry("/metrics").await;
    assert!(
        answer
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain"))
    );
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: run `bash tests/setup` once");
    let mut input = promtool.stdin.take().expect("standard input");
    input.write_all(&answer.body).expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().expect("promtool ends");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    assert!(complaints.trim().is_empty(), "{complaints}");
}

#[tokio::test]
async fn series_stay_bounded_whatever_clients_send() {
    let gateway = Gateway::start(ROUTES).await;
    let odd = |number: usize| {
        format!(
            "M{number} /nowhere/{number}?{number} HTTP/1.1\r\nhost: h{number}\r\nconnection: close\r\n\r\n"
        )
    };
    for number in 0..5 {
        request(gateway.public(), odd(number)).await;
    }
    let lines = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with("retort_http_requests_total"))
            .count()
    };
    let before = gateway.counts("retort_http_requests_total", &[], 5.0).await;
    for number in 5..50 {
        request(gateway.public(), odd(number)).await;
    }
    let after = gateway
        .counts("retort_http_requests_total", &[], 50.0)
        .await;
    assert_eq!(lines(&before.text), lines(&after.text), "{}", after.text);
}

#[tokio::test]
async fn health_endpoints_answer_get_and_nothing_else() {
    let gateway = Gateway::start(ROUTES).await;
    for path in [
        "/livez",
        "/readyz",
        "/startupz",
        "/healthz",
        "/readyz?verbose",
        "/metrics",
    ] {
        let answer = gateway.telemetry(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    assert!(
        gateway
            .telemetry("/readyz?verbose")
            .await
            .text()
            .lines()
            .count()
            > 1
    );
    assert_eq!(gateway.telemetry("/other").await.status, 404);
    let post =
        "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert_eq!(
        request(gateway.address("telemetry"), post).await.status,
        405
    );
}

#[tokio::test]
async fn the_access_log_is_json_with_what_was_decided() {
    let gateway = Gateway::start(ROUTES).await;
    gateway.get("/ok/seen?a=1").await;
    let line = gateway.prints("/ok/seen").await;
    let entry: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(entry["method"], "GET");
    assert_eq!(entry["status"], 200);
    assert_eq!(entry["route"], "ok");
    assert_eq!(entry["listener"], "public");
    gateway.get("/missing").await;
    let entry: serde_json::Value =
        serde_json::from_str(&gateway.prints("/missing").await).expect("JSON");
    assert_eq!(entry["status"], 404);
    assert_eq!(entry["flag"], "NR");
    assert!(
        entry["detail"]
            .as_str()
            .is_some_and(|detail| !detail.is_empty()),
        "{entry}"
    );
}

#[tokio::test]
async fn the_access_log_comes_in_the_format_that_was_asked_for() {
    for (format, words) in [
        ("text", vec!["GET", "/ok/1", "200", "ok"]),
        (
            "\"{method}|{path}|{query}|{status}|{route}|{user_agent}\"",
            vec!["GET|/ok/1|-|200|ok|tester"],
        ),
        (
            "combined",
            vec![
                "127.0.0.1 - - [",
                "\"GET /ok/1 HTTP/1.1\" 200 2 \"-\" \"tester\"",
            ],
        ),
    ] {
        let gateway = Gateway::start(format!(
            "telemetry: {{address: \"127.0.0.1:0\", access_log: {{format: {format}, output: stdout}}}}{ROUTES}"
        ))
        .await;
        let get =
            "GET /ok/1 HTTP/1.1\r\nhost: x\r\nuser-agent: tester\r\nconnection: close\r\n\r\n";
        request(gateway.public(), get).await;
        let line = gateway.prints("/ok/1").await;
        for word in words {
            assert!(line.contains(word), "{format}: {word:?} is not in {line}");
        }
    }
}

#[tokio::test]
async fn what_clients_send_cannot_forge_a_line_of_the_log() {
    for format in ["json", "text", "combined"] {
        let gateway = Gateway::start(format!(
            "telemetry: {{address: \"127.0.0.1:0\", access_log: {{format: {format}, output: stdout}}}}{ROUTES}"
        ))
        .await;
        let evil = b"GET /ok/1?%22x%0aforged HTTP/1.1\r\nhost: x\r\nuser-agent: a\"b\\c\xff\x85 {{\r\nreferer: \"\\\"\r\nconnection: close\r\n\r\n";
        let answer = request(gateway.public(), evil).await;
        assert_eq!(answer.status, 200);
        gateway.get("/ok/last").await;
        let line = gateway.prints("/ok/1").await;
        assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
        if format == "json" {
            let _entry: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        }
    }
}

#[tokio::test]
async fn a_log_that_goes_to_a_file_is_opened_again_on_usr1() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("access.log");
    let gateway = Gateway::start(format!(
        "telemetry: {{address: \"127.0.0.1:0\", access_log: {{format: text, output: \"{}\"}}}}{ROUTES}",
        path.display()
    ))
    .await;
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    gateway.get("/ok/first").await;
    crate::harness::eventually(
        "the first line",
        || async { read(&path) },
        |text| text.contains("/ok/first"),
    )
    .await;
    std::fs::rename(&path, dir.path().join("access.log.1")).expect("a rotated log");
    gateway.signal("USR1");
    crate::harness::eventually("a new file", || async { path.exists() }, |there| *there).await;
    gateway.get("/ok/second").await;
    crate::harness::eventually(
        "the second line",
        || async { read(&path) },
        |text| text.contains("/ok/second"),
    )
    .await;
    assert!(!read(&dir.path().join("access.log.1")).contains("/ok/second"));
}
