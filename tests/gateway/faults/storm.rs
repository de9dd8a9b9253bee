//! A retry storm: when every endpoint fails, retries do not make it worse than the budget says.

use std::time::Duration;

use super::rig::{Fault, Rig, now};
use super::{RETRY, gateway, load_on, pass};

/// Retries in ten seconds that are allowed whatever the traffic: 30 for each of two workers.
const MINIMUM: f64 = 60.0;

#[tokio::test]
async fn attempts_stay_within_the_budget_when_every_endpoint_fails() {
    let mut rig = Rig::start().await;
    let upstream = "balance: p2c_ewma, timeouts: {connect: 250ms}";
    let gateway = gateway(&rig.endpoints(), RETRY, upstream).await;
    let begin = now();
    let load = load_on(&gateway, &rig).await;
    for pod in &mut rig.pods {
        pod.inflict(Fault::Unavailable).await;
    }
    let broken = now();
    pass(Duration::from_secs(3)).await;
    let samples = load.stop().await;
    let time = now().saturating_sub(begin);
    assert!(
        time < Duration::from_secs(10),
        "too slow to judge: {time:?}"
    );

    let during = samples.between(broken, Duration::MAX);
    println!("storm: {during}");
    assert_eq!(during.failed().len(), during.0.len(), "{during}");
    let requests = u32::try_from(samples.0.len()).map(f64::from).expect("few");
    let seen = rig.seen_since(Duration::ZERO).len();
    let seen = u32::try_from(seen).map(f64::from).expect("few");
    let allowed = requests * 1.2 + MINIMUM;
    println!("storm: {requests} requests, {seen} attempts, {allowed:.0} allowed");
    assert!(seen <= allowed, "{seen} attempts, over {allowed}");
    assert!(
        seen > requests * 1.05,
        "{seen} attempts: are there retries?"
    );
    // The answer is the endpoint's own, and it came without a wait.
    assert!(
        during.percentile(99) < Duration::from_millis(500),
        "{during}"
    );
}
