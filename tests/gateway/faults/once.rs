//! What may have run is never sent again: each POST is at most at one server, whatever befalls it there.

use std::collections::BTreeMap;
use std::time::Duration;

use super::load::{Load, Plan, Samples, post};
use super::rig::{Fault, Rig};
use super::{CONNECTIONS, RATE, RETRY, gateway, pass};

/// In turn, so that the failing one goes on getting its share.
const UPSTREAM: &str = "balance: round_robin, timeouts: {connect: 250ms}";

/// A load of POSTs while one endpoint suffers a fault after the other; and how often each was seen.
async fn suffer(route: &str, faults: &[Fault]) -> (Samples, BTreeMap<String, usize>) {
    let mut rig = Rig::start().await;
    let gateway = gateway(&rig.endpoints(), route, UPSTREAM).await;
    let load = Load::start(Plan {
        gateway: gateway.public(),
        rate: RATE,
        connections: CONNECTIONS,
        request: post,
    });
    for fault in faults {
        pass(Duration::from_millis(400)).await;
        rig.pods[2].inflict(*fault).await;
        pass(Duration::from_millis(700)).await;
        rig.pods[2].lift().await;
    }
    let samples = load.stop().await;
    println!("posts: {samples}\n{}", samples.complaints());
    (samples, rig.targets())
}

#[tokio::test]
async fn a_post_reaches_one_server_at_most() {
    let faults = [
        Fault::Killed,
        Fault::ResettingLate,
        Fault::Resetting,
        Fault::HalfClosing,
        Fault::BlackHoled,
        Fault::Cut,
    ];
    let (samples, seen) = suffer(RETRY, &faults).await;
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "seen more than once: {twice:?}");
    let failed = samples.failed().len();
    assert!(failed > 0, "no POST was lost: the faults have not struck");
    assert!(
        failed < samples.0.len() / 5,
        "what never reached a server was to be tried again: {samples}\n{}",
        samples.complaints()
    );
}

#[tokio::test]
async fn a_post_that_its_route_calls_idempotent_is_sent_again() {
    // Also the proof that the servers' journals would show a POST that was seen twice.
    let route = RETRY.replace("retry: {", "retry: {idempotent: true, ");
    let (samples, seen) = suffer(&route, &[Fault::ResettingLate]).await;
    let twice = seen.values().filter(|count| **count > 1).count();
    assert!(twice > 0, "no POST was sent again: {samples}");
}
