//! A slow endpoint is overtaken by another, where asking twice does no harm.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Upstream, request};
use crate::retries::Does::{Says, Waits};
use crate::retries::{OK, gateway, logged, retries, scripted, with_body};

#[tokio::test]
async fn a_slow_endpoint_is_overtaken_by_another() {
    const LONG: Duration = Duration::from_secs(20);
    let slow = scripted(&[Waits(LONG)]).await;
    let fast = scripted(&[Says(OK)]).await;
    let gateway = gateway(&[&slow.address, &fast.address], ", hedge: {after: 50ms}").await;
    let begin = Instant::now();
    for number in 0..4 {
        let target = format!("/{number}");
        let bytes = with_body("PUT", &target, "x");
        assert_eq!(request(gateway.public(), bytes).await.text(), "ok");
    }
    assert!(begin.elapsed() < LONG / 2, "{:?}", begin.elapsed());
    let asked = slow.requests().len();
    assert!(asked > 0);
    slow.disconnected(asked).await;
    retries(&gateway, "succeeded", u32::try_from(asked).expect("few")).await;
    let lines = [logged(&gateway, "/0").await, logged(&gateway, "/1").await];
    let hedged = lines.iter().find(|line| line["attempts"] == 2);
    let hedged = hedged.expect("one of two in turn");
    assert_eq!(hedged["endpoint"], fast.address.to_string());
    assert_eq!(hedged["flag"], Value::Null);
    // The slow one neither answered nor failed: it was given up.
    let tries = &hedged["tries"];
    assert_eq!(tries[0]["endpoint"], slow.address.to_string(), "{tries}");
    assert_eq!(tries[0]["status"], Value::Null, "{tries}");
    assert_eq!(tries[0]["flag"], Value::Null, "{tries}");
    assert_eq!(tries[1]["status"], 200, "{tries}");
}

#[tokio::test]
async fn what_may_run_once_only_is_not_hedged() {
    const WHILE: Duration = Duration::from_millis(300);
    let up = scripted(&[Waits(WHILE)]).await;
    let gateway = gateway(&[&up.address], ", hedge: {after: 20ms}").await;
    let answer = request(gateway.public(), with_body("POST", "/", "x")).await;
    assert_eq!((answer.text(), up.requests().len()), ("ok".to_owned(), 1));
}

#[tokio::test]
async fn a_failure_waits_for_the_hedge_that_runs() {
    let failing = Upstream::start(|mut peer| async move {
        if peer.request().await.is_some() {
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    })
    .await;
    let late = scripted(&[Waits(Duration::from_millis(400))]).await;
    let route = ", retry: {attempts: 1}, hedge: {after: 50ms}";
    let gateway = gateway(&[&failing.address, &late.address], route).await;
    for _ in 0..4 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert!(!failing.requests().is_empty());
}

#[tokio::test]
async fn p95_is_learned_before_anything_is_hedged() {
    // The first answers teach; then one is slow.
    let slow = Waits(Duration::from_secs(20));
    let mut steps = vec![Says(OK); 200];
    steps.push(slow);
    steps.push(Says(OK));
    let up = scripted(&steps).await;
    let gateway = gateway(&[&up.address], ", hedge: {}").await;
    for _ in 0..200 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    let before = up.requests().len();
    let begin = Instant::now();
    assert_eq!(gateway.get("/last").await.status, 200);
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert!(up.requests().len() > before);
}
