//! A client stays with its backend, and moves only when the shares have to.

use std::collections::BTreeMap;

use crate::harness::{Conn, Gateway, Upstream};

const CLIENTS: usize = 400;

fn yaml(upstreams: &[Upstream; 2], weights: (u32, u32), split_by: &str) -> String {
    format!(
        "routes:
  - name: cart
    match: {{path: \"/cart/{{user}}\"}}
    backends: [{{upstream: cart, weight: {}}}, {{upstream: cart-next, weight: {}}}]
{split_by}
upstreams:
{}{}",
        weights.0,
        weights.1,
        upstreams[0].yaml("cart"),
        upstreams[1].yaml("cart-next")
    )
}

async fn upstreams() -> [Upstream; 2] {
    [Upstream::echo("cart").await, Upstream::echo("next").await]
}

/// Which upstream answers each client.
async fn places(gateway: &Gateway) -> Vec<String> {
    let mut conn = Conn::connect(gateway.public()).await;
    let mut places = Vec::with_capacity(CLIENTS);
    for client in 0..CLIENTS {
        conn.send(format!(
            "GET /cart/u{client} HTTP/1.1\r\nhost: x\r\ncookie: a=b; session=s{client}\r\n\r\n"
        ))
        .await;
        let answer = conn.answer().await.json();
        places.push(answer["upstream"].as_str().expect("a name").to_owned());
    }
    places
}

fn counts(places: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for place in places {
        *counts.entry(place.as_str()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_client_stays_and_moves_only_to_the_backend_that_grows() {
    let upstreams = upstreams().await;
    let by_cookie = "    split_by: {cookie: session}";
    let gateway = Gateway::start(yaml(&upstreams, (95, 5), by_cookie)).await;
    let first = places(&gateway).await;
    assert_eq!(places(&gateway).await, first, "every client stays");
    let next = counts(&first)["next"];
    assert!((5..50).contains(&next), "5 % of {CLIENTS}: {next}");

    gateway.reload(&yaml(&upstreams, (80, 20), by_cookie)).await;
    let second = places(&gateway).await;
    let moved = first.iter().zip(&second).filter(|(a, b)| a != b);
    let moved: Vec<_> = moved.collect();
    assert!(moved.iter().all(|(_, to)| *to == "next"), "{moved:?}");
    let share = moved.len();
    assert!((30..100).contains(&share), "15 % of {CLIENTS}: {share}");

    gateway.reload(&yaml(&upstreams, (95, 5), by_cookie)).await;
    assert_eq!(places(&gateway).await, first, "back where they were");
}

#[tokio::test]
async fn every_gateway_comes_to_the_same_split() {
    let upstreams = upstreams().await;
    let by_path = "    split_by: {path: user}";
    let one = Gateway::start(yaml(&upstreams, (50, 50), by_path)).await;
    let other = Gateway::start(yaml(&upstreams, (50, 50), by_path)).await;
    assert_eq!(places(&one).await, places(&other).await);
}

#[tokio::test]
async fn without_the_key_chance_decides() {
    let upstreams = upstreams().await;
    let by_header = "    split_by: {header: x-user}";
    let gateway = Gateway::start(yaml(&upstreams, (50, 50), by_header)).await;
    let places = places(&gateway).await;
    let next = counts(&places)["next"];
    assert!((120..280).contains(&next), "half of {CLIENTS}: {next}");

    let gateway = Gateway::start(yaml(&upstreams, (50, 50), "    split_by: client_ip")).await;
    let places = self::places(&gateway).await;
    assert_eq!(counts(&places).len(), 1, "one address, one backend");
}
