//! A connection that leaves HTTP behind: WebSocket and every other `Upgrade` (RFC 9110, 7.8).

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// A promise of the raw connection, kept once both sides have agreed to switch.
#[derive(Clone, Debug)]
pub struct Upgrade(hyper::upgrade::OnUpgrade);

impl Upgrade {
    /// Takes the promise that hyper left in a message's extensions, if there is one.
    pub(crate) fn take(extensions: &mut http::Extensions) -> Option<Self> {
        extensions.remove::<hyper::upgrade::OnUpgrade>().map(Self)
    }

    /// Waits for the switch.
    ///
    /// # Errors
    /// When the connection ended before it.
    pub async fn connection(self) -> std::io::Result<impl AsyncRead + AsyncWrite + Unpin> {
        let upgraded = self.0.await.map_err(std::io::Error::other)?;
        Ok(TokioIo::new(upgraded))
    }
}
