//! Where clients come in: bound sockets, and the thread that accepts for all workers.
//!
//! One thread accepts and hands each connection to the worker with the fewest. Sockets shared by
//! `SO_REUSEPORT` would save that hand-over (once a connection) but spread connections by chance:
//! with few of them one worker is idle while another has half more than its share.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::base::address::Address;
use crate::base::socket::{self, SocketFile};
use crate::server::stream::Accepted;
use crate::telemetry::metrics::ListenerSeries;

/// A socket that is bound and listens, whoever accepts from it.
#[derive(Debug)]
pub struct Bound {
    socket: BoundSocket,
    /// Where it really listens: the port is the kernel's choice where the configuration says 0.
    pub address: Address,
}

#[derive(Debug)]
enum BoundSocket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

/// How many connections may wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

impl Bound {
    /// Binds and listens.
    ///
    /// # Errors
    /// The address is in use or not ours. A Unix socket's file that nobody listens on is replaced.
    pub fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => bind_tcp(*address),
            Address::Unix(path) => bind_unix(path),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 clients, too, as people expect of it.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = std::net::TcpListener::from(socket);
    let address = Address::Tcp(listener.local_addr()?);
    Ok(Bound {
        socket: BoundSocket::Tcp(listener),
        address,
    })
}

/// Whoever reaches the file's folder may connect: the clients of a pod run under many users.
const MODE: u32 = 0o666;

fn bind_unix(path: &Path) -> io::Result<Bound> {
    let (listener, file) = socket::bind_unix(path, MODE)?;
    Ok(Bound {
        socket: BoundSocket::Unix(listener, file),
        address: Address::Unix(path.to_owned()),
    })
}

/// What the accept loop of a listener needs to know.
#[derive(Debug)]
pub struct Gate {
    /// The listener's name.
    pub name: Arc<str>,
    /// Open connections, of all workers.
    pub open: AtomicUsize,
    /// How many may be open; a reload moves it.
    pub limit: AtomicUsize,
    /// Counts what was accepted and refused.
    pub series: Arc<ListenerSeries>,
}

/// A place among the open connections of a listener, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Gate>);

impl Gate {
    /// A place, unless all are taken.
    fn enter(self: &Arc<Self>) -> Option<Place> {
        let open = self.open.fetch_add(1, Relaxed);
        let place = Place(Arc::clone(self));
        (open < self.limit.load(Relaxed)).then_some(place)
    }
}

impl Place {
    pub(crate) fn gate(&self) -> &Gate {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Accepts until `closed` says so; then the socket is closed and its file removed.
///
/// # Cancel safety
/// Dropping it closes the socket; a connection that was accepted has been handed on.
pub(crate) async fn accept(
    bound: Bound,
    gate: Arc<Gate>,
    mut closed: watch::Receiver<bool>,
    hand_on: impl Fn(Accepted, Place),
) -> io::Result<()> {
    let socket = Acceptor::new(bound.socket)?;
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => break,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => {
                pause = FIRST_PAUSE;
                match gate.enter() {
                    Some(place) => {
                        gate.series.accepted();
                        hand_on(accepted, place);
                    }
                    None => gate.series.refused("connections"),
                }
            }
            Err(error) if is_of_one_connection(&error) => gate.series.refused("aborted"),
            Err(error) => {
                // No descriptors or memory left: trying again at once would only spin.
                gate.series.accept_failed();
                if pause == FIRST_PAUSE {
                    tracing::warn!(listener = %gate.name, %error, "cannot accept connections; trying again until it works");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    Ok(())
}

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The client was gone before we could accept: nothing is wrong with the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}

/// The listening socket in this thread's event loop.
///
/// It gives plain sockets: a worker registers them with its own loop, and only there.
enum Acceptor {
    Tcp(AsyncFd<std::net::TcpListener>),
    Unix(AsyncFd<std::os::unix::net::UnixListener>, SocketFile),
}

impl Acceptor {
    fn new(socket: BoundSocket) -> io::Result<Self> {
        match socket {
            BoundSocket::Tcp(socket) => AsyncFd::new(socket).map(Self::Tcp),
            BoundSocket::Unix(socket, file) => {
                AsyncFd::new(socket).map(|socket| Self::Unix(socket, file))
            }
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (socket, peer) = listener
                    .async_io(Interest::READABLE, std::net::TcpListener::accept)
                    .await?;
                socket.set_nonblocking(true)?;
                Ok(Accepted::Tcp(socket, peer))
            }
            Self::Unix(listener, _) => {
                let accept = std::os::unix::net::UnixListener::accept;
                let (socket, _) = listener.async_io(Interest::READABLE, accept).await?;
                socket.set_nonblocking(true)?;
                Ok(Accepted::Unix(socket))
            }
        }
    }
}
