//! Endpoints that close idle connections in the very moment in which they are used.

use std::time::Duration;

use super::load::{Load, Plan, Samples, get, post};
use super::rig::Rig;
use super::{RETRY, WATCH, gateway, pass};

/// When the endpoints close.
const IDLE: Duration = Duration::from_millis(300);

/// Bursts of which each finds the connections of the one before as old as the endpoints allow.
async fn bursts(request: fn(usize) -> String, rounds: u32) -> Vec<Samples> {
    let rig = Rig::start().await;
    for pod in &rig.pods {
        pod.close_idle_after(IDLE).await;
    }
    let gateway = gateway(&rig.endpoints(), RETRY, WATCH).await;
    let mut all = Vec::new();
    for round in 0..rounds {
        let load = Load::start(Plan {
            gateway: gateway.public(),
            rate: 2000,
            connections: 20,
            request,
        });
        pass(Duration::from_millis(60)).await;
        all.push(load.stop().await);
        // Sweeps the moments around the endpoints' timeout.
        pass(Duration::from_millis(250) + Duration::from_millis(7) * (round % 8)).await;
    }
    for (round, samples) in all.iter().enumerate() {
        println!("burst {round}: {samples}\n{}", samples.complaints());
    }
    all
}

#[tokio::test]
async fn a_get_does_not_notice() {
    for samples in bursts(get, 8).await {
        assert!(samples.failed().is_empty(), "{}", samples.complaints());
    }
}

#[tokio::test]
async fn a_post_does_not_notice_either_once_the_endpoints_timeout_is_learned() {
    let rounds = bursts(post, 16).await;
    for samples in rounds.iter().skip(8) {
        assert!(samples.failed().is_empty(), "{}", samples.complaints());
    }
}
