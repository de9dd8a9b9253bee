//! Upstreams that behave as told: an echo that says what arrived, and raw ones that may do anything.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::conn::Conn;
use super::http1::Head;
use super::soon;

/// A server that stands where a service would.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

/// A port that is taken, and on which nobody listens.
pub(crate) struct Absent(TcpSocket);

/// A request as it arrived.
#[derive(Debug, Clone, Default)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

/// What an upstream has seen so far.
#[derive(Debug)]
pub(crate) struct Seen {
    requests: Mutex<Vec<Received>>,
    connections: watch::Sender<usize>,
    closed: watch::Sender<usize>,
    count: watch::Sender<usize>,
}

/// The upstream's end of one connection.
pub(crate) struct Peer {
    conn: Conn,
    seen: Arc<Seen>,
}

impl Upstream {
    /// Runs `behave` on every connection; the connection is closed when it returns.
    pub(crate) async fn start<F, Fut>(behave: F) -> Self
    where
        F: Fn(Peer) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::start_on(listener, behave)
    }

    /// The same on a socket that listens already.
    pub(crate) fn start_on<F, Fut>(listener: TcpListener, behave: F) -> Self
    where
        F: Fn(Peer) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().expect("an address");
        let seen = Seen::new();
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).expect("no delay");
                let peer = Peer::new(Conn::new(socket), &shared);
                tokio::spawn(behave(peer));
            }
        });
        Self {
            address,
            seen,
            task,
        }
    }

    /// Answers every request with a description of it: see [`describe`] and [`answer_echo`].
    pub(crate) async fn echo(name: &str) -> Self {
        let name = name.to_owned();
        Self::start(move |mut peer| {
            let name = name.clone();
            async move {
                while let Some(request) = peer.request().await {
                    if !answer_echo(&mut peer, &name, &request).await {
                        break;
                    }
                }
            }
        })
        .await
    }

    /// The same echo on a Unix socket; the address means nothing.
    pub(crate) fn echo_unix(path: &Path, name: &str) -> Self {
        let listener = UnixListener::bind(path).expect("a socket");
        let seen = Seen::new();
        let shared = Arc::clone(&seen);
        let name = name.to_owned();
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let mut peer = Peer::new(Conn::new(socket), &shared);
                let name = name.clone();
                tokio::spawn(async move {
                    while let Some(request) = peer.request().await {
                        answer_echo(&mut peer, &name, &request).await;
                    }
                });
            }
        });
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            address,
            seen,
            task,
        }
    }

    /// Answers every request with these bytes.
    pub(crate) async fn says(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |mut peer| {
            let bytes = bytes.clone();
            async move {
                while peer.request().await.is_some() {
                    if peer.try_send(&bytes).await.is_err() {
                        break;
                    }
                }
            }
        })
        .await
    }

    /// Answers every request with these bytes and closes.
    pub(crate) async fn says_and_closes(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::start(move |mut peer| {
            let bytes = bytes.clone();
            async move {
                if peer.request().await.is_some() {
                    let _left = peer.try_send(&bytes).await;
                }
            }
        })
        .await
    }

    /// An address where nobody listens, as long as this lives.
    pub(crate) fn absent() -> Absent {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .expect("a free port");
        Absent(socket)
    }

    /// A YAML line for the map of upstreams.
    pub(crate) fn yaml(&self, name: &str) -> String {
        format!("  {name}: {{endpoints: [\"{}\"]}}\n", self.address)
    }

    /// Every request that was read whole so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.seen
            .requests
            .lock()
            .expect("no panic while locked")
            .clone()
    }

    /// How many connections were accepted so far.
    pub(crate) fn connections(&self) -> usize {
        *self.seen.connections.borrow()
    }

    /// Waits until so many connections have ended.
    pub(crate) async fn disconnected(&self, count: usize) {
        let mut closed = self.seen.closed.subscribe();
        let enough = closed.wait_for(|so_far| *so_far >= count);
        soon(format!("{count} ended connections"), enough)
            .await
            .expect("a sender");
    }

    /// Waits until so many requests were read whole.
    pub(crate) async fn received(&self, count: usize) -> Vec<Received> {
        let mut counter = self.seen.count.subscribe();
        let enough = counter.wait_for(|so_far| *so_far >= count);
        soon(format!("{count} requests"), enough)
            .await
            .expect("a sender");
        self.requests()
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.local_addr().expect("an address").fmt(f)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            requests: Mutex::new(Vec::new()),
            connections: watch::channel(0).0,
            closed: watch::channel(0).0,
            count: watch::channel(0).0,
        })
    }
}

impl Peer {
    fn new(conn: Conn, seen: &Arc<Seen>) -> Self {
        let seen = Arc::clone(seen);
        seen.connections.send_modify(|count| *count += 1);
        Self { conn, seen }
    }

    /// The head of the next request, without its body; none if the gateway closed.
    pub(crate) async fn request_head(&mut self) -> Option<Received> {
        // An idle connection of a pool may stay for longer than any patience.
        self.conn.has_bytes().await?;
        let head = self.conn.head().await?;
        let mut parts = head.start.split(' ');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        Some(Received {
            method: next(),
            target: next(),
            version: next(),
            head,
            ..Received::default()
        })
    }

    /// The next request, whole; none if the gateway closed.
    pub(crate) async fn request(&mut self) -> Option<Received> {
        let mut request = self.request_head().await?;
        if request.head.header("expect").is_some() {
            self.conn
                .try_send("HTTP/1.1 100 Continue\r\n\r\n")
                .await
                .ok()?;
        }
        if request.head.lists("transfer-encoding", "chunked") {
            let whole = self
                .conn
                .chunks(&mut request.body, &mut request.trailers)
                .await;
            if !whole {
                return None;
            }
        } else if let Some(length) = request.head.header("content-length") {
            request.body = self.conn.exactly(length.parse().ok()?).await?;
        }
        self.record(request.clone());
        Some(request)
    }

    /// Counts a request as received.
    pub(crate) fn record(&self, request: Received) {
        self.seen
            .requests
            .lock()
            .expect("no panic while locked")
            .push(request);
        self.seen.count.send_modify(|count| *count += 1);
    }

    /// The connection alone, for protocols that take over.
    pub(crate) fn take_conn(&mut self) -> Conn {
        let (mine, _theirs) = tokio::io::duplex(1);
        std::mem::replace(&mut self.conn, Conn::new(mine))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.seen.closed.send_modify(|count| *count += 1);
    }
}

impl Deref for Peer {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl DerefMut for Peer {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// What an echo says about a request.
    pub(crate) fn describe(&self, upstream: &str) -> serde_json::Value {
        json!({
            "upstream": upstream,
            "method": self.method,
            "target": self.target,
            "version": self.version,
            "headers": self.head.headers,
            "body": String::from_utf8_lossy(&self.body),
            "trailers": self.trailers,
        })
    }

    /// How long an echo is asked to wait, by `?delay=250ms`.
    pub(crate) fn delay(&self) -> Option<Duration> {
        let value = self.target.split_once("delay=")?.1;
        humantime::parse_duration(value.split('&').next()?).ok()
    }

    /// Fields that an echo is asked to send, by `x-echo-set-header: a:1, b:2`.
    pub(crate) fn asked_fields(&self) -> Vec<(String, String)> {
        self.head
            .all("x-echo-set-header")
            .iter()
            .flat_map(|list| list.split(','))
            .filter_map(|field| field.split_once(':'))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect()
    }
}

/// Answers with the description; false if the gateway has left.
async fn answer_echo(peer: &mut Peer, name: &str, request: &Received) -> bool {
    if let Some(delay) = request.delay() {
        tokio::time::sleep(delay).await;
    }
    let body = request.describe(name).to_string();
    let mut head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (field, value) in request.asked_fields() {
        write!(head, "{field}: {value}\r\n").expect("text");
    }
    head += "\r\n";
    if request.method != "HEAD" {
        head += &body;
    }
    peer.try_send(head).await.is_ok()
}
