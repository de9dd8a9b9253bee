//! New connections to an endpoint: TCP, a Unix socket, or what a rehearsal has in their place.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::base::address::Address;
use crate::base::gather;
use crate::upstream::Endpoint;

/// Makes connections in the place of the network, for rehearsals.
pub trait Dial {
    /// A pipe to an endpoint of that upstream.
    ///
    /// # Errors
    /// What the system would say of an endpoint that cannot be reached.
    ///
    /// # Cancel safety
    /// Dropping the future ends the attempt.
    fn dial(
        &self,
        upstream: &str,
        endpoint: &Endpoint,
    ) -> LocalBoxFuture<'static, io::Result<DuplexStream>>;
}

/// A connected socket, which tells when an informational response comes in, and whether anything
/// comes and goes at all.
#[derive(Debug)]
pub(super) struct Socket {
    kind: Kind,
    informs: Arc<AtomicBool>,
    traffic: Arc<Traffic>,
}

/// How often bytes came in on a connection, and how often some went out.
///
/// Atomic because an upgraded connection leaves its thread; but one task at a time moves the bytes, so
/// counting needs no locked instruction. The counts may wrap: they are compared and no more.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    heard: AtomicU32,
    written: AtomicU32,
}

impl Traffic {
    /// Changes when anything comes in.
    pub(super) fn heard(&self) -> u32 {
        self.heard.load(Relaxed)
    }

    /// Changes when anything goes out.
    pub(super) fn written(&self) -> u32 {
        self.written.load(Relaxed)
    }

    fn count(count: &AtomicU32) {
        count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
    }

    fn note_write(&self, poll: &Poll<io::Result<usize>>) {
        if matches!(poll, Poll::Ready(Ok(size)) if *size > 0) {
            Self::count(&self.written);
        }
    }
}

impl Socket {
    /// Its counts, for whoever wants to know later.
    pub(super) fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }
}

/// An enum rather than a type parameter, or every client would be compiled once for each kind; the
/// branch costs nothing beside the system call behind it.
#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
    Memory(DuplexStream),
}

/// How an upstream's endpoints are reached without a network.
pub(super) struct Dialer {
    pub(super) dial: Rc<dyn Dial>,
    pub(super) upstream: Box<str>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer")
            .field("upstream", &self.upstream)
            .finish_non_exhaustive()
    }
}

impl Dialer {
    /// What [`connect`] is to the network.
    pub(super) async fn connect(
        &self,
        endpoint: &Endpoint,
        timeout: Duration,
        informs: &Arc<AtomicBool>,
    ) -> Result<Socket, Option<io::Error>> {
        let pipe = self.dial.dial(&self.upstream, endpoint);
        within(timeout, informs, async { pipe.await.map(Kind::Memory) }).await
    }
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
    within(timeout, informs, socket).await
}

async fn within(
    timeout: Duration,
    informs: &Arc<AtomicBool>,
    socket: impl Future<Output = io::Result<Kind>>,
) -> Result<Socket, Option<io::Error>> {
    match tokio::time::timeout(timeout, socket).await {
        Ok(connected) => connected
            .map(|kind| Socket {
                kind,
                informs: Arc::clone(informs),
                traffic: Arc::default(),
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
        match &mut $self.kind {
            Kind::Tcp($stream) => $call,
            Kind::Unix($stream) => $call,
            Kind::Memory($stream) => $call,
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
        let read = either!(this, stream => Pin::new(stream).poll_read(cx, buffer));
        let new = buffer.filled().get(before..).unwrap_or_default();
        if !new.is_empty() {
            Traffic::count(&this.traffic.heard);
            if informs(new) {
                this.informs.store(true, Relaxed);
            }
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
        let this = self.get_mut();
        let written = either!(this, stream => Pin::new(stream).poll_write(cx, bytes));
        this.traffic.note_write(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = either!(this, stream => gather::poll_write(Pin::new(stream), cx, slices));
        this.traffic.note_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
