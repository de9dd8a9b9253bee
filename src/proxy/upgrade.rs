//! A connection that leaves HTTP behind: bytes both ways until one side ends.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::base::upgrade::Upgrade;
use crate::proxy::context::Exchange;
use crate::telemetry::decision::Flag;

/// A tunnel may be silent for long: this only ends those whose other end has vanished.
const SILENCE: Duration = Duration::from_hours(1);

/// Two sides that have agreed to speak something else.
pub(crate) struct Switch {
    pub client: Upgrade,
    pub upstream: Upgrade,
    /// How long each direction may be silent, where the route says so.
    pub idle: Option<Duration>,
}

impl Switch {
    /// Starts the tunnel, which keeps the request's record until its end.
    pub(crate) fn start(self, exchange: Box<Exchange>) {
        if let Some(wire) = exchange.origin.wire() {
            wire.leave_http();
        }
        // It ends with its connections; the worker waits for those when it drains.
        drop(tokio::task::spawn_local(tunnel(exchange, self)));
    }
}

/// Carries bytes both ways until both sides have ended, then closes the record.
async fn tunnel(mut exchange: Box<Exchange>, switch: Switch) {
    let Switch {
        client,
        upstream,
        idle,
    } = switch;
    let (client, upstream) = match tokio::join!(client.connection(), upstream.connection()) {
        (Ok(client), Ok(upstream)) => (client, upstream),
        (Err(error), _) => {
            return exchange.decision.fail(Flag::ClientLeft, error.to_string());
        }
        (_, Err(error)) => {
            return exchange
                .decision
                .fail(Flag::UpstreamClosed, error.to_string());
        }
    };
    let idle = idle.unwrap_or(SILENCE);
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_upstream, mut to_upstream) = tokio::io::split(upstream);
    let up = copy(&mut from_client, &mut to_upstream, idle);
    let down = copy(&mut from_upstream, &mut to_client, idle);
    let (_, sent) = tokio::join!(up, down);
    exchange.sent = sent;
}

/// Copies until the end or the first error, and passes the end on.
///
/// Returns the number of bytes. One direction's silence is no reason to end while the other is
/// busy, so each only ends itself; when the second ends, the tunnel does.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    idle: Duration,
) -> u64 {
    let mut buffer = vec![0; 8 * 1024];
    let mut copied = 0;
    while let Ok(Ok(length)) = tokio::time::timeout(idle, from.read(&mut buffer)).await {
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        if !matches!(
            tokio::time::timeout(idle, to.write_all(bytes)).await,
            Ok(Ok(()))
        ) {
            break;
        }
        copied += length as u64;
    }
    // The other side may be gone already; then there is nobody to tell.
    let _told = to.shutdown().await;
    copied
}
