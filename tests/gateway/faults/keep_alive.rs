//! Endpoints that close idle connections in the very moment in which they are used.

use std::time::Duration;

use super::load::{Load, Plan, Samples, get, post};
use super::rig::Rig;
use super::{RETRY, WATCH, gateway, pass};
use crate::harness::Gateway;

/// Endpoints that close connections after so much idle time, and a gateway before them.
struct Impatient {
    idle: Duration,
    gateway: Gateway,
    _rig: Rig,
}

impl Impatient {
    async fn start(idle: Duration) -> Self {
        let rig = Rig::start().await;
        for pod in &rig.pods {
            pod.close_idle_after(idle).await;
        }
        let gateway = gateway(&rig.endpoints(), RETRY, WATCH).await;
        Self {
            idle,
            gateway,
            _rig: rig,
        }
    }

    /// A burst that needs many connections at once.
    async fn burst(&self, request: fn(usize) -> String) -> Samples {
        let load = Load::start(Plan {
            gateway: self.gateway.public(),
            rate: 2000,
            connections: 20,
            request,
        });
        pass(Duration::from_millis(60)).await;
        load.stop().await
    }

    /// Bursts of which each finds the connections of the one before as old as the endpoints allow.
    async fn bursts(&self, request: fn(usize) -> String) -> Samples {
        let mut all = Vec::new();
        for round in 0..5 {
            // Sweeps the moments in which an endpoint has made up its mind and not yet closed.
            let before = Duration::from_millis(30 - 5 * round);
            pass(self.idle.saturating_sub(before)).await;
            let samples = self.burst(request).await;
            println!("burst {round}: {samples}");
            all.extend(samples.0);
        }
        Samples(all)
    }
}

#[tokio::test]
async fn a_get_does_not_notice() {
    let endpoints = Impatient::start(Duration::from_millis(300)).await;
    endpoints.burst(get).await;
    let samples = endpoints.bursts(get).await;
    assert!(samples.failed().is_empty(), "{}", samples.complaints());
    let metrics = endpoints.gateway.metrics().await;
    let labels = [("outcome", "succeeded")];
    let retries = metrics.sum("retort_upstream_retries_total", &labels);
    println!("{retries} retries");
    assert!(retries > 0.0, "no connection was met in its last moment");
}

#[tokio::test]
async fn a_post_does_not_notice_either_once_the_endpoints_timeout_is_learned() {
    // What is shorter than a second is not learned: it is chance, or a restart.
    let endpoints = Impatient::start(Duration::from_millis(1200)).await;
    endpoints.burst(post).await;
    // The lesson: connections that nobody needs are closed.
    pass(endpoints.idle + Duration::from_millis(200)).await;
    endpoints.burst(post).await;
    let samples = endpoints.bursts(post).await;
    assert!(samples.failed().is_empty(), "{}", samples.complaints());
}
