//! Where clients come in: bound sockets, and the thread that accepts for all workers.
//!
//! One thread accepts and hands each connection to the worker with the fewest. Sockets shared by
//! `SO_REUSEPORT` would save that hand-over (once a connection) but spread connections by chance:
//! with few of them one worker is idle while another has half more than its share.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::base::address::Address;
use crate::base::socket::{self, SocketFile};
use crate::server::stream::Accepted;
use crate::snapshot::Limits;
use crate::telemetry::metrics::{ListenerSeries, Refusal};

/// A socket that is bound and listens, whoever accepts from it.
#[derive(Debug)]
pub(super) struct Bound {
    socket: BoundSocket,
    /// Where it really listens: the port is the kernel's choice where the configuration says 0.
    pub(super) address: Address,
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
    pub(super) fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => bind_tcp(*address),
            Address::Unix(path) => bind_unix(path),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
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

/// A listener as its connections know it.
#[derive(Debug)]
pub(crate) struct Gate {
    pub name: Arc<str>,
    pub series: Arc<ListenerSeries>,
    /// Open connections, of all workers.
    open: AtomicUsize,
    /// The listener is out of the configuration: its connections shall end.
    closed: AtomicBool,
    /// A reload moves them; they hold for connections that come after it.
    limits: Mutex<Limits>,
}

/// A place among the open connections of a listener, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Gate>);

impl Gate {
    pub(crate) fn new(name: Arc<str>, limits: Limits, series: Arc<ListenerSeries>) -> Arc<Self> {
        Arc::new(Self {
            name,
            series,
            open: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            limits: Mutex::new(limits),
        })
    }

    pub(crate) fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_limits(&self, limits: Limits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// Asks its connections to end.
    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// A place, unless all are taken.
    fn enter(self: &Arc<Self>) -> Option<Place> {
        let open = self.open.fetch_add(1, Relaxed);
        let place = Place(Arc::clone(self));
        (open < self.limits().connections).then_some(place)
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

/// Accepts until `gates` is closed, then takes what is waiting already and closes the socket.
///
/// # Cancel safety
/// Dropping it closes the socket; a connection that was accepted has been handed on.
pub(crate) async fn accept(
    bound: Bound,
    mut gates: watch::Receiver<Arc<Gate>>,
    hand_on: impl Fn(Accepted, Place),
) -> io::Result<()> {
    let socket = Acceptor::new(bound.socket)?;
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            changed = gates.changed() => match changed {
                Ok(()) => continue,
                Err(_) => break,
            },
            accepted = socket.accept() => accepted,
        };
        let gate = Arc::clone(&gates.borrow());
        match accepted {
            Ok(accepted) => {
                pause = FIRST_PAUSE;
                enter(&gate, accepted, &hand_on);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // No descriptors or memory left: trying again at once would only spin.
                gate.series.accept_error(CONTROL);
                if pause == FIRST_PAUSE {
                    tracing::warn!(listener = %gate.name, %error, "cannot accept connections; trying again until it works");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    // The kernel has shaken hands with these already: closing the socket would reset them.
    while let Some(Ok(accepted)) = socket.accept().now_or_never() {
        let gate = Arc::clone(&gates.borrow());
        enter(&gate, accepted, &hand_on);
    }
    Ok(())
}

/// The accepting thread counts in the shard that no worker has.
const CONTROL: usize = usize::MAX;

fn enter(gate: &Arc<Gate>, accepted: Accepted, hand_on: &impl Fn(Accepted, Place)) {
    match gate.enter() {
        Some(place) => {
            gate.series.accepted(CONTROL);
            hand_on(accepted, place);
        }
        None => gate.series.refused(CONTROL, Refusal::Limit),
    }
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
enum Acceptor {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "held for its drop, which removes the file")] SocketFile,
    ),
}

impl Acceptor {
    fn new(socket: BoundSocket) -> io::Result<Self> {
        match socket {
            BoundSocket::Tcp(socket) => Ok(Self::Tcp(TcpListener::from_std(socket)?)),
            BoundSocket::Unix(socket, file) => {
                Ok(Self::Unix(UnixListener::from_std(socket)?, file))
            }
        }
    }

    /// The next connection, as a plain socket: a worker registers it with its own event loop.
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                Ok(Accepted::Tcp(socket.into_std()?, peer))
            }
            Self::Unix(listener, _) => {
                let (socket, _) = listener.accept().await?;
                Ok(Accepted::Unix(socket.into_std()?))
            }
        }
    }
}
