//! The faults are real: a gateway that is told to do nothing about them shows each to its clients.
//!
//! Without this the other tests of this folder might pass because nothing went wrong.

use std::time::Duration;

use super::load::Samples;
use super::rig::{Fault, Rig, now};
use super::{gateway, load_on, pass};

#[tokio::test]
async fn every_fault_shows_when_nothing_is_done_about_it() {
    let mut rig = Rig::start().await;
    let upstream = "balance: round_robin, timeouts: {connect: 250ms}";
    let route = "timeouts: {request: 600ms}, retry: {attempts: 1}";
    let gateway = gateway(&rig.endpoints(), route, upstream).await;
    let load = load_on(&gateway, &rig).await;
    let before = now();
    pass(Duration::from_millis(500)).await;
    let mut spans = Vec::new();
    for fault in [
        Fault::Killed,
        Fault::BlackHoled,
        Fault::Slowed,
        Fault::Resetting,
        Fault::ResettingLate,
        Fault::Unavailable,
        Fault::HalfClosing,
        Fault::Lossy,
    ] {
        let begin = now();
        rig.pods[2].inflict(fault).await;
        pass(Duration::from_millis(500)).await;
        rig.pods[2].lift().await;
        let end = now();
        spans.push((fault, begin, end));
        rig.pods[2].takes(20, end).await;
        if matches!(fault, Fault::BlackHoled | Fault::Lossy) {
            // Connections whose packets were lost try again only now and then.
            pass(Duration::from_millis(600)).await;
        }
    }
    let samples = load.stop().await;
    // Those that were under way when the first fault struck are its own.
    let normal = samples.between(before, spans[0].1.saturating_sub(Duration::from_millis(50)));
    println!("{:14} {normal}", "before");
    let shows = |during: &Samples| {
        let slow = normal.percentile(50) * 4 + Duration::from_millis(10);
        !during.failed().is_empty() || during.percentile(90) > slow
    };
    for (fault, begin, end) in &spans {
        let during = samples.between(*begin, *end);
        println!(
            "{:14} {during}\n{}",
            format!("{fault:?}"),
            during.complaints()
        );
        assert!(shows(&during), "{fault:?} does not show: {during}");
    }
    assert!(normal.failed().is_empty(), "{}", normal.complaints());
}
