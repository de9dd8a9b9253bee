//! All that keeps an upstream alive at once: each part leaves the others alone, and reloads lose nothing.

use std::fs;

use tempfile::TempDir;

use crate::harness::service::{Stream, ask, endpoints, spread};
use crate::harness::{Gateway, Service};
use crate::retries::logged;

#[tokio::test]
async fn a_retry_goes_elsewhere_until_the_ejection_makes_it_needless() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let gateway = Gateway::start(format!(
        "runtime: {{workers: 1}}
routes:
  - {{name: up, match: {{path_prefix: /}}, upstream: up, retry: {{attempts: 2, on: [503], backoff: 1ms, budget: 100%}}}}
upstreams:
  up: {{balance: round_robin, endpoints: [\"{a}\", \"{b}\"], outlier: {{consecutive_failures: 3}}}}
"
    ))
    .await;
    a.says(503);
    let requests: Vec<String> = (0..10).map(|n| ask(&format!("/{n}"), "")).collect();
    assert_eq!(spread(&gateway, &requests).await["b"], 10);
    endpoints(&gateway, "ejected", 1).await;
    assert_eq!(a.requests().len(), 3);
    let mut attempts = Vec::new();
    for number in 0..10 {
        let line = logged(&gateway, &format!("/{number}")).await;
        attempts.push(line["attempts"].as_u64().expect("a number"));
    }
    let twice = attempts.iter().filter(|attempts| **attempts == 2).count();
    assert_eq!(twice, 3, "{attempts:?}");
    assert_eq!(attempts[7..], [1, 1, 1], "who is ejected is not asked");
}

/// Everything that there is, with a number that changes an upstream's section.
fn everything(dir: &TempDir, number: usize, balance: &str) -> String {
    format!(
        "runtime: {{workers: 2, zone: here}}
routes:
  - name: up
    match: {{path_prefix: /}}
    upstream: up
    timeouts: {{request: 20s, attempt: 10s}}
    retry: {{attempts: 3, on: [connect_failure, closed, 503], backoff: 1ms}}
    hedge: {{after: 1s}}
upstreams:
  up:
    discovery: {{file: {{paths: [\"{}/*.json\"]}}}}
    balance: {balance}
    health_check: {{http: {{path: /healthz}}, interval: 100ms}}
    outlier: {{ejection: 200ms}}
    limits: {{requests: 100, connections: 50, adaptive: {{}}}}
    affinity: {{cookie: {{}}}}
    zones: {{min_ready: 50%}}
    slow_start: 1s
    panic_threshold: 20%
    timeouts: {{connect: {number}s}}
",
        dir.path().display()
    )
}

#[tokio::test]
async fn reloads_and_changes_of_the_list_under_load_lose_nothing() {
    let services = [
        Service::start("a").await,
        Service::start("b").await,
        Service::start("c").await,
    ];
    let dir = TempDir::new().expect("a folder");
    let write = |names: &[usize]| {
        let target = |name: &usize| {
            format!(
                "{{\"targets\": [\"{}\"], \"labels\": {{\"zone\": \"here\"}}}}",
                services[*name]
            )
        };
        let list: Vec<String> = names.iter().map(target).collect();
        let new = dir.path().join("targets.new");
        fs::write(&new, format!("[{}]", list.join(", "))).expect("a file");
        fs::rename(&new, dir.path().join("targets.json")).expect("in place");
    };
    write(&[0, 1]);
    let gateway = Gateway::start(everything(&dir, 1, "p2c_ewma")).await;
    let stream = Stream::start(&gateway, 8, "/");
    stream.goes_on(50).await;
    let balances = [
        "round_robin",
        "least_request",
        "{maglev: {by: client_ip, bounded_load: 150%}}",
        "random",
        "{ring_hash: {by: {header: x-user}}}",
        "p2c_ewma",
    ];
    for (round, balance) in balances.iter().enumerate() {
        write([&[1, 2][..], &[0, 2], &[0, 1, 2]][round % 3]);
        stream.goes_on(50).await;
        let metrics = gateway.reload(&everything(&dir, round + 2, balance)).await;
        assert!(metrics.sum("retort_config_last_reload_successful", &[]) > 0.5);
        stream.goes_on(50).await;
        // One is ill for a while, another answers with failures that are repeated.
        services[round % 3].is(503);
        stream.goes_on(100).await;
        services[round % 3].is(200);
    }
    let answers = stream.stop().await;
    let names: Vec<&String> = answers.keys().collect();
    assert_eq!(names, ["a", "b", "c"], "{answers:?}");
    let ended = [("upstream", "up"), ("state", "active")];
    gateway
        .counts("retort_upstream_connections", &ended, 0.0)
        .await;
    gateway
        .counts("retort_upstream_queue_depth", &[], 0.0)
        .await;
    endpoints(&gateway, "ready", 3).await;
    endpoints(&gateway, "draining", 0).await;
}
