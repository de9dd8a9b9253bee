//! Active health checks: an endpoint is asked at intervals whether it is well.
//!
//! What an answer means ([`Checked`]) and when to ask next ([`pause`]) is decided purely. Asking is
//! done on a new connection for each check, never on one of the pool's: so a check sees what a new
//! client would see, costs requests no stream and no connection, and leaves nothing behind. It runs
//! on the control thread, and whatever the endpoint sends, no check takes longer than its timeout or
//! more than 64 KiB for a head and as much for a body.

mod by_grpc;
mod by_http;
mod decide;
mod exchange;
mod place;
mod settings;
mod statuses;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::decide::Course;
pub use self::decide::{Checked, Report, pause};
use self::place::{Deadline, Place};
use self::settings::Kind;
pub use self::settings::Settings;
use crate::upstream::{Endpoint, Protocol};

/// Checks an endpoint for ever: at once, and then again after each [`pause`].
///
/// Reports the first result, each change, and each change of the reason why an endpoint is unhealthy.
///
/// # Cancel safety
/// Dropping the future closes the connection of the check that is under way.
pub async fn watch(
    settings: &Settings,
    protocol: Protocol,
    endpoint: Arc<Endpoint>,
    report: impl FnMut(Report),
) -> Infallible {
    follow(settings, || probe(settings, protocol, &endpoint), report).await
}

/// [`watch`], whatever the check is.
async fn follow<C>(
    settings: &Settings,
    mut check: impl FnMut() -> C,
    mut report: impl FnMut(Report),
) -> Infallible
where
    C: Future<Output = Result<(), String>>,
{
    let mut course = Course::new(settings);
    loop {
        let began = Instant::now();
        if let Some(told) = course.learn(check().await) {
            report(told);
        }
        // From start to start, so that slow answers do not make checks rarer.
        let next = began + pause(settings.interval(), fastrand::u64(..));
        tokio::time::sleep_until(next).await;
    }
}

/// Checks an endpoint once, on a connection that is closed afterwards.
///
/// `protocol` is the upstream's, which `http` checks speak; `grpc` checks always speak HTTP/2.
///
/// # Errors
/// Why the endpoint is not well, in a sentence for the operator.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn probe(
    settings: &Settings,
    protocol: Protocol,
    endpoint: &Endpoint,
) -> Result<(), String> {
    let deadline = Deadline::after(settings.timeout());
    let place = Place::new(endpoint, settings.port());
    // Boxed, as they are large: a watch that waits for its next check must not keep room for them.
    match settings.kind() {
        Kind::Http(http) => Box::pin(by_http::check(http, protocol, &place, deadline)).await,
        Kind::Grpc(grpc) => Box::pin(by_grpc::check(grpc, &place, deadline)).await,
        Kind::Tcp(_) => place.connect(deadline).await.map(drop),
    }
}

/// Connects to an endpoint and closes the connection: the least that can be asked where no check is
/// configured.
///
/// # Errors
/// Why there is no connection, in a sentence for the operator.
///
/// # Cancel safety
/// Dropping the future closes the half-made connection.
pub async fn reachable(endpoint: &Endpoint, timeout: Duration) -> Result<(), String> {
    let place = Place::new(endpoint, None);
    place.connect(Deadline::after(timeout)).await.map(drop)
}
