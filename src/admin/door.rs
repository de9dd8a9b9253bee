//! A listener for operators: few connections, each with its deadlines, and an orderly end.
//!
//! Telemetry may be open to a whole network, so a client that connects and says nothing must not
//! keep a probe out.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::base::address::Address;
use crate::base::socket::{SocketFile, bind_unix};

/// More connections than this wait in the kernel's queue.
const MOST: usize = 512;

/// How long a client may take for a request's head, and be idle between two.
const HEAD: Duration = Duration::from_secs(15);

/// How long requests in flight may take to end after the stop.
const GRACE: Duration = Duration::from_secs(1);

/// Waits before the next try when taking a connection fails, most often for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// An open listener.
#[derive(Debug)]
pub struct Door {
    listener: Listener,
    address: Address,
    versions: Versions,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    /// The file goes when the door does.
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "kept for its drop")] SocketFile,
    ),
}

/// What may be spoken.
#[derive(Debug, Clone, Copy)]
enum Versions {
    /// HTTP/1 alone. Waiting for the preface of HTTP/2 has no deadline in hyper-util, so a door
    /// that is open to everybody does without.
    One,
    /// HTTP/1, and HTTP/2 with prior knowledge.
    OneAndTwo,
}

impl Door {
    /// Listens for operators: HTTP/1 and gRPC; a Unix socket is open to its owner alone.
    ///
    /// # Errors
    /// When the address cannot be bound; the message names it.
    pub async fn admin(address: &Address) -> io::Result<Self> {
        Self::open(address, 0o600, Versions::OneAndTwo).await
    }

    /// Listens for probes and scrapes: HTTP/1; a Unix socket is open to everybody.
    ///
    /// # Errors
    /// When the address cannot be bound; the message names it.
    pub async fn telemetry(address: &Address) -> io::Result<Self> {
        Self::open(address, 0o666, Versions::One).await
    }

    async fn open(address: &Address, mode: u32, versions: Versions) -> io::Result<Self> {
        let opened = match address {
            Address::Tcp(address) => tcp(*address).await,
            Address::Unix(path) => unix(path, mode),
        };
        let (listener, bound) = opened.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        })?;
        Ok(Self {
            listener,
            address: bound,
            versions,
        })
    }

    /// Where it listens; the port is the real one if 0 was asked for.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Answers until `stop` is ready and what is in flight has had a second to end.
    pub(super) async fn serve(self, app: Router, stop: impl Future<Output = ()> + Send) {
        let mut stop = pin!(stop);
        let closing = watch::Sender::new(());
        let server = Arc::new(self.server());
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(_ended) = connections.join_next() => {}
                accepted = self.listener.accept(), if connections.len() < MOST => match accepted {
                    Ok(stream) => {
                        let (server, app) = (Arc::clone(&server), app.clone());
                        connections.spawn(serve_one(server, stream, app, closing.subscribe()));
                    }
                    Err(error) => {
                        tracing::warn!(address = %self.address, %error, "cannot take a connection");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
        closing.send_replace(());
        // Who is not done by then is cut off: a health watch, for one, never ends by itself.
        let ended = async { while connections.join_next().await.is_some() {} };
        let _in_time = tokio::time::timeout(GRACE, ended).await;
    }

    fn server(&self) -> Builder<TokioExecutor> {
        let mut server = Builder::new(TokioExecutor::new());
        server
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD);
        server
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(HEAD)
            .keep_alive_timeout(HEAD);
        match self.versions {
            Versions::One => server.http1_only(),
            Versions::OneAndTwo => server,
        }
    }
}

async fn tcp(address: std::net::SocketAddr) -> io::Result<(Listener, Address)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    Ok((Listener::Tcp(listener), bound.into()))
}

fn unix(path: &std::path::Path, mode: u32) -> io::Result<(Listener, Address)> {
    let (listener, file) = bind_unix(path, mode)?;
    let listener = UnixListener::from_std(listener)?;
    Ok((Listener::Unix(listener, file), Address::Unix(path.into())))
}

impl Listener {
    /// # Cancel safety
    /// No connection is lost when the future is dropped.
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // A refusal costs latency only.
                let _set = stream.set_nodelay(true);
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

async fn serve_one(
    server: Arc<Builder<TokioExecutor>>,
    stream: Stream,
    app: Router,
    closing: watch::Receiver<()>,
) {
    match stream {
        Stream::Tcp(stream) => {
            let first = stream.readable();
            if matches!(tokio::time::timeout(HEAD, first).await, Ok(Ok(()))) {
                answer(&server, stream, app, closing).await;
            }
        }
        Stream::Unix(stream) => answer(&server, stream, app, closing).await,
    }
}

async fn answer<S>(
    server: &Builder<TokioExecutor>,
    stream: S,
    app: Router,
    mut closing: watch::Receiver<()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(app);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _closing = closing.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an operator's connection ended early");
    }
}
