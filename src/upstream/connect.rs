//! New connections to an endpoint: TCP or a Unix socket.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::base::address::Address;
use crate::base::gather;

/// A connected socket, which tells when an informational response comes in.
#[derive(Debug)]
pub(super) struct Socket {
    kind: Kind,
    informs: Arc<AtomicBool>,
}

/// An enum rather than a type parameter, or every client would be compiled once for each kind; the
/// branch costs nothing beside the system call behind it.
#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Connects, or says why not; `None` is a timeout.
///
/// # Cancel safety
/// Dropping the future closes the half-made connection.
pub(super) async fn connect(
    address: &Address,
    timeout: Duration,
    informs: &Arc<AtomicBool>,
) -> Result<Socket, Option<io::Error>> {
    let socket = async {
        match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                // Messages are written whole, so there is nothing for Nagle's algorithm to gather.
                stream.set_nodelay(true)?;
                Ok(Kind::Tcp(stream))
            }
            Address::Unix(path) => UnixStream::connect(path).await.map(Kind::Unix),
        }
    };
    match tokio::time::timeout(timeout, socket).await {
        Ok(connected) => connected
            .map(|kind| Socket {
                kind,
                informs: Arc::clone(informs),
            })
            .map_err(Some),
        Err(_) => Err(None),
    }
}

/// True if bytes look like the head of an informational response that is worth relaying: any but
/// 100, which is asked for, and 101, which is final.
fn informs(bytes: &[u8]) -> bool {
    bytes
        .strip_prefix(b"HTTP/1.1 1")
        .is_some_and(|rest| !matches!(rest.first_chunk(), Some(b"00" | b"01") | None))
}

macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().kind {
            Kind::Tcp($stream) => $call,
            Kind::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = match &mut this.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Kind::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        if informs(buffer.filled().get(before..).unwrap_or_default()) {
            this.informs.store(true, Relaxed);
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => gather::poll_write(Pin::new(stream), cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
