//! Proof by faults: real servers in network namespaces, a constant load, and one of three that fails.
//!
//! A test here takes the machine for itself while it runs, since it judges latencies. It wants root, and says so.

mod faults_show;
mod gunicorn;
mod keep_alive;
mod load;
mod once;
mod rig;
mod storm;
mod survives;

use std::time::Duration;

use load::{Load, Plan};
use rig::Rig;

use crate::harness::Gateway;

/// What a request at one endpoint may take; also the price of a fault for those whom it hits first.
const ATTEMPT: Duration = Duration::from_millis(500);

/// Requests a second.
const RATE: u32 = 400;

/// Keep-alive connections of the load.
const CONNECTIONS: usize = 50;

/// What an operator writes who wants an upstream to survive the loss of an endpoint.
const RETRY: &str = "timeouts: {request: 10s, attempt: 500ms},
     retry: {attempts: 3, on: [connect_failure, refused_stream, closed, timeout, \"502\", \"503\", \"504\"],
             backoff: 10ms, budget: 20%}";

/// And what for its upstream. A dead endpoint is found out after two checks: 1.3 s at most, and their jitter.
const WATCH: &str = "balance: p2c_ewma, timeouts: {connect: 250ms},
     health_check: {http: {path: /healthz}, interval: 500ms, timeout: 300ms, healthy_after: 1, unhealthy_after: 2},
     outlier: {consecutive_failures: 5, interval: 500ms, ejection: 1s, max_ejected: 50%}";

/// A gateway before endpoints, with settings of the route and of the upstream.
async fn gateway(endpoints: &str, route: &str, upstream: &str) -> Gateway {
    Gateway::start(format!(
        "telemetry: {{address: \"127.0.0.1:0\", access_log: {{output: none}}}}
routes:
  - {{name: all, match: {{path_prefix: /}}, upstream: pods,
     {route}}}
upstreams:
  pods:
    {{endpoints: [{endpoints}],
     {upstream}}}
"
    ))
    .await
}

/// A load of GETs on a gateway before the pods, once each of these takes its part.
async fn load_on(gateway: &Gateway, rig: &Rig) -> Load {
    let load = Load::start(Plan {
        gateway: gateway.public(),
        rate: RATE,
        connections: CONNECTIONS,
        request: load::get,
    });
    for pod in &rig.pods {
        pod.takes(10, Duration::ZERO).await;
    }
    load
}

/// Lets the load run on.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
