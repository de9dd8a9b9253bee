//! Each policy spreads requests, or keeps a key in one place; weights, zones, slow starts and panics count.

use std::collections::BTreeMap;

use crate::harness::service::{ask, endpoints, spread};
use crate::harness::{Gateway, Service};
use crate::retries::logged;

/// A request of a number.
type Numbered = fn(usize) -> String;

/// Keys that decide, as a policy names them, and how a request has one.
const KEYS: [(&str, Numbered); 4] = [
    ("{header: x-user}", |n| {
        ask("/k/x", &format!("x-user: u{n}\r\n"))
    }),
    ("{cookie: session}", |n| {
        ask("/k/x", &format!("cookie: a=b; session=s{n}\r\n"))
    }),
    ("client_ip", |n| {
        ask("/k/x", &format!("x-forwarded-for: 10.0.0.{n}\r\n"))
    }),
    ("{path: user}", |n| ask(&format!("/k/u{n}"), "")),
];

async fn three() -> [Service; 3] {
    [
        Service::start("a").await,
        Service::start("b").await,
        Service::start("c").await,
    ]
}

fn list(services: &[Service]) -> String {
    let each = services.iter().map(|service| format!("\"{service}\""));
    each.collect::<Vec<_>>().join(", ")
}

/// A gateway of one worker with an upstream `up`, made of these keys.
async fn gateway(runtime: &str, up: &str) -> Gateway {
    Gateway::start(format!(
        "runtime: {{workers: 1{runtime}}}
listeners: [{{name: public, address: \"127.0.0.1:0\", trusted_proxies: [127.0.0.0/8]}}]
routes:
  - {{name: keys, match: {{path: \"/k/{{user}}\"}}, upstream: up}}
  - {{name: up, match: {{path_prefix: /}}, upstream: up}}
upstreams:
  up: {{{up}}}
"
    ))
    .await
}

fn plain(count: usize) -> Vec<String> {
    vec![ask("/", ""); count]
}

#[track_caller]
fn about(found: &BTreeMap<String, usize>, expected: &[(&str, usize)], tolerance: usize) {
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let expected_names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, expected_names, "{found:?}");
    for (name, count) in expected {
        assert!(found[*name].abs_diff(*count) <= tolerance, "{found:?}");
    }
}

#[tokio::test]
async fn each_policy_spreads_over_all_endpoints() {
    let services = three().await;
    for policy in [
        "round_robin",
        "random",
        "least_request",
        "p2c_ewma",
        // Without a key, chance decides.
        "{ring_hash: {by: {header: x-user}}}",
        "{maglev: {by: {cookie: session}}}",
    ] {
        let up = format!("endpoints: [{}], balance: {policy}", list(&services));
        let gateway = gateway("", &up).await;
        let found = spread(&gateway, &plain(120)).await;
        let tolerance = match policy {
            "round_robin" => 0,
            // Whose first connection took long is asked little for a while.
            "p2c_ewma" => 120,
            _ => 35,
        };
        about(&found, &[("a", 40), ("b", 40), ("c", 40)], tolerance);
    }
}

#[tokio::test]
async fn a_key_leads_to_one_endpoint_in_every_gateway_and_keys_spread() {
    let services = three().await;
    for policy in ["ring_hash", "maglev"] {
        for (by, request) in KEYS {
            let mut homes: Vec<Vec<String>> = Vec::new();
            // Two gateways, which know the endpoints in another order.
            for order in [[0, 1, 2], [2, 0, 1]] {
                let list = order.map(|n| format!("\"{}\"", services[n])).join(", ");
                let up = format!("endpoints: [{list}], balance: {{{policy}: {{by: {by}}}}}");
                let gateway = gateway("", &up).await;
                let mut home = Vec::new();
                for number in 0..60 {
                    let found = spread(&gateway, &vec![request(number); 3]).await;
                    assert_eq!(found.len(), 1, "{policy} {by} {number}: {found:?}");
                    home.extend(found.into_keys());
                }
                homes.push(home);
            }
            assert_eq!(homes[0], homes[1], "{policy} {by}");
            for name in ["a", "b", "c"] {
                let count = homes[0].iter().filter(|home| *home == name).count();
                assert!(count > 0, "{policy} {by}: {name} has no key");
            }
        }
    }
}

#[tokio::test]
async fn a_key_of_an_unhealthy_endpoint_has_one_other_home_and_comes_back() {
    let services = three().await;
    for policy in ["ring_hash", "maglev"] {
        let gateway = gateway(
            "",
            &format!(
                "endpoints: [{}], balance: {{{policy}: {{by: {{header: x-user}}}}}},
                 health_check: {{http: {{path: /healthz}}, interval: 100ms, unhealthy_after: 1}}",
                list(&services)
            ),
        )
        .await;
        let homes = async || {
            let mut homes = Vec::new();
            for number in 0..30 {
                let found = spread(&gateway, &vec![KEYS[0].1(number); 3]).await;
                assert_eq!(found.len(), 1, "{found:?}");
                homes.extend(found.into_keys());
            }
            homes
        };
        let before = homes().await;
        services[1].is(503);
        endpoints(&gateway, "unhealthy", 1).await;
        let meanwhile = homes().await;
        for (before, meanwhile) in before.iter().zip(&meanwhile) {
            assert_ne!(meanwhile, "b");
            if policy == "ring_hash" && before != "b" {
                assert_eq!(before, meanwhile, "only keys of the one that left move");
            }
        }
        services[1].is(200);
        endpoints(&gateway, "ready", 3).await;
        assert_eq!(homes().await, before);
    }
}

#[tokio::test]
async fn weights_count_and_weight_0_takes_nothing() {
    let services = three().await;
    let [a, b, c] = &services;
    let up = format!(
        "endpoints: [{{address: \"{a}\", weight: 3}}, \"{b}\", {{address: \"{c}\", weight: 0}}]"
    );
    for (policy, tolerance) in [
        ("round_robin", 0),
        ("random", 40),
        ("least_request", 40),
        ("{ring_hash: {by: {header: x-user}}}", 50),
        ("{maglev: {by: {header: x-user}}}", 40),
    ] {
        let gateway = gateway("", &format!("{up}, balance: {policy}")).await;
        let keys: Vec<String> = (0..200).map(KEYS[0].1).collect();
        let found = spread(&gateway, &keys).await;
        about(&found, &[("a", 150), ("b", 50)], tolerance);
        endpoints(&gateway, "ready", 3).await;
    }
    assert!(c.requests().is_empty());
    // One that is written twice counts twice.
    let up = format!("endpoints: [\"{a}\", \"{b}\", \"{a}\"], balance: round_robin");
    let gateway = gateway("", &up).await;
    let found = spread(&gateway, &plain(30)).await;
    about(&found, &[("a", 20), ("b", 10)], 0);
}

#[tokio::test]
async fn where_all_weights_are_0_nobody_is_asked_and_the_log_says_so() {
    let service = Service::start("a").await;
    let up = format!("endpoints: [{{address: \"{service}\", weight: 0}}]");
    let gateway = gateway("", &up).await;
    assert_eq!(gateway.get("/none").await.status, 503);
    let line = logged(&gateway, "/none").await;
    assert_eq!(line["flag"], "UH");
    assert_eq!(
        line["detail"],
        format!("no endpoint of upstream `up` may take a request: {service} has weight 0")
    );
}

#[tokio::test]
async fn requests_stay_in_the_own_zone_while_it_is_well() {
    let services = three().await;
    let [a, b, c] = &services;
    let up = format!(
        "endpoints: [{{address: \"{a}\", zone: here}}, {{address: \"{b}\", zone: here}},
                     {{address: \"{c}\", zone: there}}],
         balance: round_robin,
         health_check: {{http: {{path: /healthz}}, interval: 100ms, unhealthy_after: 1}}"
    );
    let gateway = gateway(", zone: here", &up).await;
    let own = [("a", 15), ("b", 15)];
    about(&spread(&gateway, &plain(30)).await, &own, 0);
    // Half of the zone is less than `min_ready`.
    a.is(503);
    endpoints(&gateway, "unhealthy", 1).await;
    let both = [("b", 15), ("c", 15)];
    about(&spread(&gateway, &plain(30)).await, &both, 0);
    b.is(503);
    endpoints(&gateway, "unhealthy", 2).await;
    about(&spread(&gateway, &plain(10)).await, &[("c", 10)], 0);
    a.is(200);
    b.is(200);
    endpoints(&gateway, "ready", 3).await;
    about(&spread(&gateway, &plain(30)).await, &own, 0);
}

#[tokio::test]
async fn zones_do_not_matter_without_an_own_one_or_where_they_are_ignored() {
    let [a, b, _] = &three().await;
    let up = format!(
        "endpoints: [{{address: \"{a}\", zone: here}}, {{address: \"{b}\", zone: there}}], balance: round_robin"
    );
    for (runtime, zones) in [
        ("", ""),
        (", zone: elsewhere", ""),
        (", zone: here", ", zones: ignore"),
    ] {
        let gateway = gateway(runtime, &format!("{up}{zones}")).await;
        let found = spread(&gateway, &plain(20)).await;
        about(&found, &[("a", 10), ("b", 10)], 0);
    }
}

#[tokio::test]
async fn an_endpoint_that_is_well_again_starts_slowly() {
    let [a, b, _] = &three().await;
    let gateway = gateway(
        "",
        &format!(
            "endpoints: [\"{a}\", \"{b}\"], balance: round_robin, slow_start: 10m,
             health_check: {{http: {{path: /healthz}}, interval: 100ms, unhealthy_after: 1}}"
        ),
    )
    .await;
    let even = [("a", 10), ("b", 10)];
    about(&spread(&gateway, &plain(20)).await, &even, 0);
    a.is(500);
    endpoints(&gateway, "unhealthy", 1).await;
    about(&spread(&gateway, &plain(10)).await, &[("b", 10)], 0);
    a.is(200);
    endpoints(&gateway, "ready", 2).await;
    // One of eleven, to begin with.
    let found = spread(&gateway, &plain(110)).await;
    about(&found, &[("a", 10), ("b", 100)], 2);
}

#[tokio::test]
async fn below_the_panic_threshold_all_endpoints_take_requests() {
    let services = three().await;
    let [a, b, c] = &services;
    let gateway = gateway(
        "",
        &format!(
            "endpoints: [{}], balance: round_robin, panic_threshold: 50%,
             health_check: {{http: {{path: /healthz}}, interval: 100ms, unhealthy_after: 1}}",
            list(&services)
        ),
    )
    .await;
    a.is(503);
    endpoints(&gateway, "unhealthy", 1).await;
    let two = [("b", 10), ("c", 10)];
    about(&spread(&gateway, &plain(20)).await, &two, 0);
    b.is(503);
    endpoints(&gateway, "unhealthy", 2).await;
    gateway.logs("so few endpoints are ready").await;
    let all = [("a", 10), ("b", 10), ("c", 10)];
    about(&spread(&gateway, &plain(30)).await, &all, 0);
    c.is(503);
    endpoints(&gateway, "unhealthy", 3).await;
    about(&spread(&gateway, &plain(30)).await, &all, 0);
    for service in &services {
        service.is(200);
    }
    endpoints(&gateway, "ready", 3).await;
    gateway.logs("enough endpoints are ready again").await;
}
