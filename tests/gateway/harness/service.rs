//! A service whose behaviour a test changes while it runs, and requests that count who answers.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::upstream::{Peer, Upstream};
use super::{Conn, Gateway, Received, soon};

/// Answers with its name. `/healthz` is for health checks and counts apart; a target with `hold=head` is
/// answered when the test lets it go, one with `hold=body` begins its answer and ends it then.
pub(crate) struct Service {
    upstream: Upstream,
    state: Arc<State>,
}

struct State {
    name: String,
    /// Of answers; 0 closes the connection instead.
    status: AtomicU16,
    health: AtomicU16,
    probes: watch::Sender<usize>,
    /// How many held requests may be answered.
    released: watch::Sender<usize>,
    held: watch::Sender<usize>,
    down: watch::Sender<bool>,
}

impl Service {
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_at(name, "127.0.0.1:0").await
    }

    /// At an address that is free.
    pub(crate) async fn start_at(name: &str, address: impl Display) -> Self {
        let listener = TcpListener::bind(address.to_string()).await;
        let listener = listener.expect("the address is free");
        let state = Arc::new(State {
            name: name.to_owned(),
            status: AtomicU16::new(200),
            health: AtomicU16::new(200),
            probes: watch::Sender::new(0),
            released: watch::Sender::new(0),
            held: watch::Sender::new(0),
            down: watch::Sender::new(false),
        });
        let shared = Arc::clone(&state);
        let upstream = Upstream::start_on(listener, move |peer| {
            let state = Arc::clone(&shared);
            async move {
                let mut down = state.down.subscribe();
                tokio::select! {
                    () = serve(peer, &state) => {}
                    _ = down.wait_for(|down| *down) => {}
                }
            }
        });
        Self { upstream, state }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.upstream.address
    }

    /// Answers with this status from now on; 0 closes the connection instead.
    pub(crate) fn says(&self, status: u16) {
        self.state.status.store(status, Ordering::SeqCst);
    }

    /// Answers health checks with this status from now on.
    pub(crate) fn is(&self, health: u16) {
        self.state.health.store(health, Ordering::SeqCst);
    }

    /// Lets so many more held requests go.
    pub(crate) fn release(&self, count: usize) {
        self.state
            .released
            .send_modify(|released| *released += count);
    }

    /// Lets every request go that is held now.
    pub(crate) fn release_all(&self) {
        self.state.released.send_replace(self.held());
    }

    /// Waits until so many requests in all were held.
    pub(crate) async fn holds(&self, count: usize) {
        let mut held = self.state.held.subscribe();
        let enough = held.wait_for(|held| *held >= count);
        soon(format!("{count} held requests"), enough)
            .await
            .expect("a sender");
    }

    /// How many requests in all were held.
    pub(crate) fn held(&self) -> usize {
        *self.state.held.borrow()
    }

    /// How many health checks there were.
    pub(crate) fn probes(&self) -> usize {
        *self.state.probes.borrow()
    }

    /// Waits for so many health checks more.
    pub(crate) async fn probed(&self, more: usize) {
        let mut probes = self.state.probes.subscribe();
        let all = *probes.borrow_and_update() + more;
        let enough = probes.wait_for(|probes| *probes >= all);
        soon(format!("{more} more health checks"), enough)
            .await
            .expect("a sender");
    }

    /// The requests that were no health checks.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.upstream.requests()
    }

    /// Waits until so many requests were received in all.
    pub(crate) async fn received(&self, count: usize) -> Vec<Received> {
        self.upstream.received(count).await
    }

    /// How many connections were accepted so far, those of health checks included.
    pub(crate) fn connections(&self) -> usize {
        self.upstream.connections()
    }

    /// Waits until so many connections have ended.
    pub(crate) async fn disconnected(&self, count: usize) {
        self.upstream.disconnected(count).await;
    }

    /// Closes the port and every connection; says where it was.
    pub(crate) async fn stop(self) -> SocketAddr {
        self.state.down.send_replace(true);
        let address = self.address();
        drop(self.upstream);
        let closed = async || tokio::net::TcpStream::connect(address).await.is_err();
        super::eventually("the port to be closed", closed, |closed| *closed).await;
        address
    }
}

async fn serve(mut peer: Peer, state: &State) {
    while let Some(mut request) = peer.request_head().await {
        if request.target == "/healthz" {
            state.probes.send_modify(|probes| *probes += 1);
            let health = state.health.load(Ordering::SeqCst);
            if answer(&mut peer, health, "").await.is_err() {
                return;
            }
            continue;
        }
        if let Some(length) = request.header("content-length") {
            let length = length.parse().expect("a length");
            let Some(body) = peer.exactly(length).await else {
                return;
            };
            request.body = body;
        }
        let target = request.target.clone();
        peer.record(request);
        let sent = if target.contains("hold=head") {
            if !held(&mut peer, state).await {
                return;
            }
            answer(&mut peer, state.status.load(Ordering::SeqCst), &state.name).await
        } else if target.contains("hold=body") {
            let length = state.name.len() + 6;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\nfirst ");
            let begun = peer.try_send(head).await;
            if begun.is_err() || !held(&mut peer, state).await {
                return;
            }
            peer.try_send(&state.name).await
        } else {
            match state.status.load(Ordering::SeqCst) {
                0 => return,
                status => answer(&mut peer, status, &state.name).await,
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Waits until the test lets it go; false if the gateway has left.
async fn held(peer: &mut Peer, state: &State) -> bool {
    let mut turn = 0;
    state.held.send_modify(|held| {
        *held += 1;
        turn = *held;
    });
    let mut released = state.released.subscribe();
    tokio::select! {
        _ = released.wait_for(|released| *released >= turn) => true,
        _ = peer.has_bytes() => false,
    }
}

async fn answer(peer: &mut Peer, status: u16, body: &str) -> std::io::Result<()> {
    let length = body.len();
    peer.try_send(format!(
        "HTTP/1.1 {status} So\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
    .await
}

impl Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

/// Sends the same GETs, one after the other on one connection, and counts who answers: the body where the
/// status is 200, else the status.
pub(crate) async fn spread(gateway: &Gateway, requests: &[String]) -> BTreeMap<String, usize> {
    let mut conn = Conn::connect(gateway.public()).await;
    let mut counts = BTreeMap::new();
    for request in requests {
        conn.send(request).await;
        let answer = conn.answer().await;
        let who = match answer.status {
            200 => answer.text(),
            status => status.to_string(),
        };
        *counts.entry(who).or_default() += 1;
    }
    counts
}

/// A GET with further fields, each with its line end.
pub(crate) fn ask(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: x\r\n{fields}\r\n")
}

/// Waits until so many endpoints of the upstream `up` are in a state.
#[track_caller]
pub(crate) fn endpoints(
    gateway: &Gateway,
    state: &'static str,
    count: u32,
) -> impl Future<Output = ()> {
    let labels = [("upstream", "up"), ("state", state)];
    let name = "retort_upstream_endpoints";
    let what = format!("{count} endpoints that are {state}");
    let counted = super::eventually(
        what,
        || gateway.metrics(),
        move |metrics| (metrics.sum(name, &labels) - f64::from(count)).abs() < 0.5,
    );
    async move {
        counted.await;
    }
}

/// Requests from several clients, one after the other from each, until they are told to stop.
pub(crate) struct Stream {
    stop: watch::Sender<bool>,
    clients: Vec<tokio::task::JoinHandle<BTreeMap<String, usize>>>,
    answered: watch::Sender<usize>,
}

impl Stream {
    /// Each client has a connection of its own.
    pub(crate) fn start(gateway: &Gateway, clients: usize, target: &str) -> Self {
        let stop = watch::Sender::new(false);
        let answered = watch::Sender::new(0);
        let clients = (0..clients).map(|_| {
            let (stop, answered) = (stop.subscribe(), answered.clone());
            let (address, request) = (gateway.public(), ask(target, ""));
            tokio::spawn(async move {
                let mut conn = Conn::connect(address).await;
                let mut counts = BTreeMap::new();
                while !*stop.borrow() {
                    conn.send(&request).await;
                    let answer = conn.answer().await;
                    let who = match answer.status {
                        200 => answer.text(),
                        status => format!("{status} {}", answer.text()),
                    };
                    *counts.entry(who).or_default() += 1;
                    answered.send_modify(|answered| *answered += 1);
                }
                counts
            })
        });
        Self {
            clients: clients.collect(),
            stop,
            answered,
        }
    }

    /// Waits for so many answers more.
    pub(crate) async fn goes_on(&self, more: usize) {
        let mut answered = self.answered.subscribe();
        let all = *answered.borrow_and_update() + more;
        let enough = answered.wait_for(|answered| *answered >= all);
        soon(format!("{more} more answers"), enough)
            .await
            .expect("a sender");
    }

    /// Stops, and says who answered how often.
    pub(crate) async fn stop(self) -> BTreeMap<String, usize> {
        self.stop.send_replace(true);
        let mut counts = BTreeMap::new();
        for client in self.clients {
            for (who, count) in soon("a client to stop", client).await.expect("no panic") {
                *counts.entry(who).or_default() += count;
            }
        }
        counts
    }
}
