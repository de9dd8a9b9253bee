//! An endpoint that fails requests sits out, comes back on probation, and is never the last one.

use std::time::{Duration, Instant};

use crate::harness::service::{Stream, ask, endpoints, spread};
use crate::harness::{Gateway, Service, Upstream, eventually};
use crate::retries::logged;

fn yaml(route: &str, up: &str) -> String {
    format!(
        "runtime: {{workers: 1}}
routes:
  - {{name: up, match: {{path_prefix: /}}, upstream: up, retry: {{attempts: 1}}{route}}}
upstreams:
  up: {{balance: round_robin, {up}}}
"
    )
}

async fn gateway(up: &str) -> Gateway {
    Gateway::start(yaml("", up)).await
}

async fn who(gateway: &Gateway, count: usize) -> String {
    let found = spread(gateway, &vec![ask("/", ""); count]).await;
    let each = found.iter().map(|(who, count)| format!("{who}:{count}"));
    each.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn five_failures_in_a_row_eject_and_a_success_ends_the_probation() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let up = format!("endpoints: [\"{a}\", \"{b}\"], outlier: {{ejection: 300ms}}");
    let gateway = gateway(&up).await;
    a.says(500);
    assert_eq!(who(&gateway, 8).await, "500:4 b:4");
    a.says(200);
    assert_eq!(who(&gateway, 2).await, "a:1 b:1");
    a.says(500);
    // Four of five are forgotten: it takes five more.
    assert_eq!(who(&gateway, 14).await, "500:5 b:9");
    let line = gateway.logs("ejected after 5 failures in a row").await;
    assert!(line.contains("WARN"), "{line}");
    assert!(line.contains(&a.to_string()), "{line}");
    a.says(200);
    gateway.logs("back on probation").await;
    endpoints(&gateway, "ready", 2).await;
    assert_eq!(who(&gateway, 10).await, "a:5 b:5");
    // It is no more on probation.
    a.says(503);
    assert_eq!(who(&gateway, 8).await, "503:4 b:4");
    assert_eq!(who(&gateway, 6).await, "503:1 b:5");
}

#[tokio::test]
async fn the_ejection_shows_in_the_metric_and_in_the_access_log() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let outlier = "outlier: {consecutive_failures: 2, max_ejected: 100%}";
    let gateway = gateway(&format!("endpoints: [\"{a}\", \"{b}\"], {outlier}")).await;
    a.says(500);
    b.says(502);
    assert_eq!(who(&gateway, 4).await, "500:2 502:2");
    endpoints(&gateway, "ejected", 2).await;
    endpoints(&gateway, "ready", 0).await;
    assert_eq!(gateway.get("/nobody").await.status, 503);
    let line = logged(&gateway, "/nobody").await;
    assert_eq!(line["flag"], "UH");
    let reason = "is ejected after 2 failures in a row";
    let detail = line["detail"].as_str().expect("text");
    assert!(detail.contains(&format!("{a} {reason}")), "{detail}");
    assert!(detail.contains(&format!("{b} {reason}")), "{detail}");
}

#[tokio::test]
async fn who_fails_on_probation_is_ejected_for_longer() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let outlier = "outlier: {consecutive_failures: 3, ejection: 300ms}";
    let gateway = gateway(&format!("endpoints: [\"{a}\", \"{b}\"], {outlier}")).await;
    a.says(500);
    assert_eq!(who(&gateway, 10).await, "500:3 b:7");
    for times in 1..=3_u32 {
        let begin = Instant::now();
        gateway
            .logs_times("back on probation", times as usize)
            .await;
        let sat_out = begin.elapsed();
        assert!(sat_out >= Duration::from_millis(280) * times, "{sat_out:?}");
        assert_eq!(who(&gateway, 10).await, "500:1 b:9", "return {times}");
    }
    gateway
        .logs("ejected after a failure right after its return")
        .await;
}

#[tokio::test]
async fn no_more_are_ejected_than_may_be() {
    let services = [
        Service::start("a").await,
        Service::start("b").await,
        Service::start("c").await,
    ];
    for service in &services {
        service.says(500);
    }
    let list = services
        .each_ref()
        .map(|service| format!("\"{service}\""))
        .join(", ");
    let outlier = "outlier: {consecutive_failures: 2}";
    let gateway = gateway(&format!("endpoints: [{list}], {outlier}")).await;
    assert_eq!(who(&gateway, 40).await, "500:40");
    endpoints(&gateway, "ejected", 1).await;
    endpoints(&gateway, "ready", 2).await;
}

#[tokio::test]
async fn an_only_endpoint_is_never_ejected() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    a.says(500);
    b.is(500);
    let check = "health_check: {http: {path: /healthz}, interval: 1h}";
    for up in [
        format!("endpoints: [\"{a}\"]"),
        // Neither one without weight nor one that is ill could take over.
        format!("endpoints: [\"{a}\", {{address: \"{b}\", weight: 0}}]"),
        format!("endpoints: [\"{a}\", \"{b}\"], {check}"),
    ] {
        let gateway = gateway(&format!("{up}, outlier: {{}}")).await;
        assert_eq!(who(&gateway, 20).await, "500:20", "{up}");
        endpoints(&gateway, "ejected", 0).await;
    }
}

#[tokio::test]
async fn timeouts_count() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let up = format!("endpoints: [\"{a}\", \"{b}\"], outlier: {{consecutive_failures: 3}}");
    let gateway = Gateway::start(yaml(", timeouts: {attempt: 50ms}", &up)).await;
    let targets: Vec<String> = vec![ask("/?hold=head", ""); 6];
    assert_eq!(spread(&gateway, &targets).await["504"], 6);
    // The second is as slow, but somebody has to stay.
    endpoints(&gateway, "ejected", 1).await;
    assert_eq!(who(&gateway, 6).await.len(), 3, "one answers all");
    assert_eq!(a.held() + b.held(), 6);
    gateway.logs("ejected after 3 failures in a row").await;
}

#[tokio::test]
async fn who_is_out_of_reach_stays_out_until_its_port_opens() {
    let (absent, b) = (Upstream::absent(), Service::start("b").await);
    let outlier = "outlier: {consecutive_failures: 3, ejection: 200ms}";
    let gateway = gateway(&format!("endpoints: [\"{absent}\", \"{b}\"], {outlier}")).await;
    assert_eq!(who(&gateway, 12).await, "503:3 b:9");
    let address = absent.to_string();
    gateway
        .logs_times(
            &format!("stays ejected: connection refused by {address}"),
            3,
        )
        .await;
    assert_eq!(who(&gateway, 12).await, "b:12");
    drop(absent);
    let _a = Service::start_at("a", &address).await;
    gateway.logs("back on probation").await;
    endpoints(&gateway, "ready", 2).await;
    assert_eq!(who(&gateway, 12).await, "a:6 b:6");
}

#[tokio::test]
async fn who_succeeds_less_than_the_others_is_ejected_and_logged() {
    let services = [
        Service::start("a").await,
        Service::start("b").await,
        Service::start("c").await,
    ];
    let [a, b, c] = &services;
    let gateway = gateway(&format!(
        "endpoints: [\"{a}\", \"{b}\", \"{c}\"],
         outlier: {{consecutive_failures: 0, interval: 1s,
                    success_rate: {{requests: 5, endpoints: 3, deviation: 1.3}}}}"
    ))
    .await;
    let stream = Stream::start(&gateway, 1, "/");
    let flips = async {
        // Every other request fails, and so never many in a row.
        loop {
            a.says(500);
            stream.goes_on(3).await;
            a.says(200);
            stream.goes_on(3).await;
        }
    };
    tokio::select! {
        () = flips => {}
        () = endpoints(&gateway, "ejected", 1) => {}
    }
    let line = gateway.logs("of its requests succeeded").await;
    assert!(line.contains("ejected after only"), "{line}");
    assert!(line.contains(&a.to_string()), "{line}");
    drop(stream.stop().await);
    assert_eq!(who(&gateway, 10).await, "b:5 c:5");
}

#[tokio::test]
async fn a_reload_of_another_key_keeps_ejections() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let outlier = "outlier: {consecutive_failures: 1}";
    let up = format!("endpoints: [\"{a}\", \"{b}\"], {outlier}");
    let gateway = gateway(&up).await;
    a.says(500);
    assert_eq!(who(&gateway, 10).await, "500:1 b:9");
    gateway
        .reload(&yaml("", &format!("{up}, timeouts: {{connect: 2s}}")))
        .await;
    assert_eq!(who(&gateway, 10).await, "b:10");
    endpoints(&gateway, "ejected", 1).await;
    // Another rule judges anew.
    gateway.reload(&yaml("", &up.replace(": 1}", ": 2}"))).await;
    assert_eq!(who(&gateway, 10).await, "500:2 b:8");
}

#[tokio::test]
async fn what_clients_break_off_is_nobodys_failure() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let outlier = "outlier: {consecutive_failures: 1}";
    let gateway = gateway(&format!("endpoints: [\"{a}\", \"{b}\"], {outlier}")).await;
    for _ in 0..4 {
        let held = a.held() + b.held();
        let slow = tokio::spawn(gateway.get("/?hold=head"));
        eventually(
            "a held request",
            async || a.held() + b.held(),
            |now| *now > held,
        )
        .await;
        slow.abort();
    }
    gateway.flagged("DC", 4).await;
    endpoints(&gateway, "ready", 2).await;
}
