//! What the tests stand on: the real binary as a process, upstreams that behave as told, clients.
//!
//! Nothing here sleeps to wait: every wait is for an event, and has a deadline.

pub(crate) mod conn;
pub(crate) mod dns;
pub(crate) mod gateway;
pub(crate) mod grpc;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod metrics;
pub(crate) mod program;
pub(crate) mod service;
pub(crate) mod upstream;
pub(crate) mod websocket;

mod tests;

use std::fmt::Display;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use conn::Conn;
pub(crate) use gateway::Gateway;
pub(crate) use http1::{Answer, Head, get, request};
pub(crate) use service::Service;
pub(crate) use upstream::{Received, Upstream};

/// Long enough for a loaded machine: it only passes when something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The future's result, or a failed test that says what did not come.
#[track_caller]
pub(crate) fn soon<F: Future>(what: impl Display, future: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        tokio::time::timeout(PATIENCE, future)
            .await
            .unwrap_or_else(|_| panic!("{place}: waited {PATIENCE:?} in vain for {what}"))
    }
}

/// Asks again and again until `holds` says so; for what has no event of its own, such as a metric.
#[track_caller]
pub(crate) fn eventually<T, F, Fut>(
    what: impl Display,
    mut ask: F,
    holds: impl Fn(&T) -> bool,
) -> impl Future<Output = T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = T>,
    T: std::fmt::Debug,
{
    let place = std::panic::Location::caller();
    async move {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let last = ask().await;
            if holds(&last) {
                return last;
            }
            assert!(
                tokio::time::Instant::now() < end,
                "{place}: waited {PATIENCE:?} in vain for {what}; last seen: {last:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A file of the project.
pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
