//! HTTP/1.1: one request at a time on a connection, idle connections in a pool.
//!
//! A connection goes back to the pool without a guard around the response's body, which would have
//! to be boxed and to cross threads. hyper's sender knows by itself when its connection is ready
//! again: request written, response read to its end by whoever has it, keep-alive agreed.
//!
//! - Mostly that is so already when the head of the response is there, because a short body came in
//!   the same read. Then the requesting task puts the connection back at once.
//! - Else it *parks* the sender beside the connection. The task that drives the connection looks
//!   after each step whether the parked sender has become ready, and puts it back then.
//!
//! A body that is dropped before its end makes hyper close the connection; the parked sender goes
//! with it. So do an upgrade and an answer that says `connection: close`.
//!
//! Driving a connection from the requesting task instead would spare two wake-ups a request, an
//! estimated 2 % of its instructions. But a connection wakes whoever drove it last, which after a
//! stay in the pool is another client's task, and undoing that would cost about as much.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{StatusCode, header};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;

use crate::base::body::Body;
use crate::base::message::{Request, RequestHead, Response};
use crate::upstream::client::bound::Permit;
use crate::upstream::client::exchange::{Anew, Exchange, Sent};
use crate::upstream::client::{Connections, OnInformational, Open, Site, Unanswered, wire};
use crate::upstream::connect::Traffic;
use crate::upstream::failure::{Cause, Failure};
use crate::upstream::pool::{Pool, Pooled, Stay};

/// The longest head of a response.
pub(super) const HEAD_BYTES: usize = 64 << 10;

/// The most fields in the head of a response: what hyper keeps on the stack. One more, as a setting,
/// would cost an allocation for each response.
pub(super) const HEAD_FIELDS: usize = 100;

/// How much of a message is buffered on its way, each direction: with half of it, large answers cost
/// the kernel a third more.
const BUFFER: usize = 256 << 10;

/// A connection that had no request for so long was idle.
const IDLE: Duration = Duration::from_millis(50);

/// How many pooled connections may turn out to be dead before a new one is made.
const STALE_TRIES: u32 = 3;

/// A connection without a request on it.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Body>,
    link: Rc<Link>,
}

/// What a connection shares with the task that drives it.
struct Link {
    expires: Instant,
    stay: Cell<Stay>,
    /// True once there was an answer on it.
    answered: Cell<bool>,
    traffic: Arc<Traffic>,
    /// Gone once the lane is: then there is no pool to go back to.
    site: Weak<Site>,
    /// The sender, as long as a response's head is out but its connection is still busy.
    parked: Cell<Option<SendRequest<Body>>>,
}

impl Pooled for Connection {
    fn is_open(&self) -> bool {
        // It was ready when it came into the pool, and nobody has it but the pool.
        !self.sender.is_closed()
    }

    fn expires(&self) -> Instant {
        self.link.expires
    }

    fn stay(&self) -> &Cell<Stay> {
        &self.link.stay
    }
}

/// Sends a request on a pooled connection, or on a new one.
pub(super) fn send(
    site: Rc<Site>,
    request: Request,
    on_informational: Option<OnInformational>,
) -> impl Future<Output = Result<Response, Box<Failure>>> + use<> {
    match take(&site) {
        Some(connection) => Exchange::new(start(site, connection, request, on_informational)),
        None => Exchange::Anew {
            sending: Box::pin(send_anew(site, request, on_informational)),
        },
    }
}

/// The same after the first pooled connection turned out to be dead, or there was none.
async fn send_anew(
    site: Rc<Site>,
    mut request: Request,
    mut on_informational: Option<OnInformational>,
) -> Result<Response, Box<Failure>> {
    let mut tries = 1;
    loop {
        let found = if tries < STALE_TRIES {
            connection(&site).await
        } else {
            open(&site).await
        };
        let connection = match found {
            Ok(connection) => connection,
            Err(failure) => return Err(failure.with_request(request)),
        };
        let fresh = !connection.link.answered.get();
        let (answer, sent) = start(
            Rc::clone(&site),
            connection,
            request,
            on_informational.take(),
        );
        request = match answer.await {
            Ok(response) => return sent.answered(response),
            Err(error) if fresh => return Err(sent.failed(error)),
            Err(error) => sent.unsent(error)?,
        };
        tries += 1;
    }
}

/// A connection to send on: one that is idle, a new one, or the first that becomes free where no new
/// one may be made.
async fn connection(site: &Rc<Site>) -> Result<Connection, Box<Failure>> {
    if let Some(connection) = take(site) {
        return Ok(connection);
    }
    open(site).await
}

/// A connection that was idle, and not for too long.
fn take(site: &Site) -> Option<Connection> {
    let pool = pool(site)?;
    pool.take(site.tally.now.get(), site.idle_at_most.get())
}

fn pool(site: &Site) -> Option<&Pool<Connection>> {
    match &site.connections {
        Connections::Http1(pool) => Some(pool),
        Connections::Http2(_) => None,
    }
}

/// Keeps a connection for the next request.
fn put(site: &Site, connection: Connection) {
    if let Some(pool) = pool(site) {
        pool.put(connection, site.tally.now.get());
        site.came_back();
    }
}

/// Hands a request to its connection.
fn start(
    site: Rc<Site>,
    mut connection: Connection,
    mut request: Request,
    on_informational: Option<OnInformational>,
) -> (
    impl Future<Output = Result<http::Response<Incoming>, Unanswered>> + use<>,
    InFlight,
) {
    let upgrade = request.head.headers.contains(header::UPGRADE);
    let copy = may_be_stale(&connection) && !upgrade && may_be_repeated(&request);
    let copy = copy.then(|| Box::new(request.head.copy()));
    let aside = wire::Aside::take(&mut request.head);
    let mut message = wire::http1(request, &site.endpoint);
    if let Some(callback) = on_informational {
        hyper::ext::on_informational(&mut message, move |response| {
            callback(response.status(), response.headers());
        });
    }
    let answer = connection.sender.try_send_request(message);
    let sent = InFlight {
        site,
        copy,
        aside,
        written: connection.link.traffic.written(),
        upgrade,
        connection,
    };
    (answer, sent)
}

/// True for a connection that has been idle: the endpoint may be closing it in this moment.
///
/// Busy connections are closed only by an endpoint that stops, and copies for that case would cost
/// every request; who wants them says so by a policy.
fn may_be_stale(connection: &Connection) -> bool {
    matches!(connection.link.stay.get(), Stay::Until(rest, _) if rest >= IDLE)
}

fn may_be_repeated(request: &Request) -> bool {
    request.body.is_empty() && request.head.method().is_idempotent()
}

/// What a request leaves behind when it was handed to its connection.
struct InFlight {
    site: Rc<Site>,
    connection: Connection,
    /// A copy for the case that the connection was about to be closed.
    copy: Option<Box<RequestHead>>,
    aside: wire::Aside,
    /// What had been written before it.
    written: u32,
    /// Whether it asked to leave HTTP.
    upgrade: bool,
}

impl Sent for InFlight {
    fn answered(self, response: http::Response<Incoming>) -> Result<Response, Box<Failure>> {
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if !self.connection.link.answered.replace(true) {
            self.site.read_keep_alive(response.headers());
        }
        let response = wire::http1_response(response).map_err(|what| self.site.nonsense(what))?;
        if upgraded && !self.upgrade {
            return Err(self.site.nonsense("an upgrade that nobody asked for"));
        }
        if upgraded {
            return Ok(response);
        }
        if self.connection.sender.is_ready() {
            put(&self.site, self.connection);
        } else {
            let Connection { sender, link } = self.connection;
            link.parked.set(Some(sender));
        }
        Ok(response)
    }

    fn unanswered(self, error: Unanswered) -> Result<Anew, Box<Failure>> {
        let site = Rc::clone(&self.site);
        let request = self.unsent(error)?;
        Ok(Box::pin(send_anew(site, request, None)))
    }
}

impl InFlight {
    /// The request, if hyper had not begun to write it: the connection was closed between two
    /// requests, which is nobody's fault.
    fn unsent(mut self, mut error: Unanswered) -> Result<Request, Box<Failure>> {
        match error.take_message() {
            Some(message) => Ok(self.aside.restore(message)),
            None => Err(self.explain(&error.into_error())),
        }
    }

    /// The failure, with the request in it if hyper had not begun to write it.
    fn failed(mut self, mut error: Unanswered) -> Box<Failure> {
        let message = error.take_message();
        let failure = self.explain(&error.into_error());
        match message {
            Some(message) => failure.with_request(self.aside.restore(message)),
            None => failure,
        }
    }

    fn explain(&mut self, error: &hyper::Error) -> Box<Failure> {
        let link = &self.connection.link;
        let mut failure = self.site.explain(error);
        if matches!(failure.cause, Cause::Closed | Cause::Protocol) {
            // Where already the first write failed, the endpoint got no byte.
            failure.unprocessed = link.traffic.written() == self.written;
            failure.reused = link.answered.get();
            failure.copy = self.copy.take().map(|head| Request {
                head: *head,
                body: Body::empty(),
            });
            if failure.reused {
                self.site.closed_when_used(link.stay.get());
                failure
                    .detail
                    .push_str(", on a connection that was used before");
            }
        }
        failure
    }
}

/// A new connection. Where no more may be made, the first that becomes free instead.
async fn open(site: &Rc<Site>) -> Result<Connection, Box<Failure>> {
    match site.permit() {
        Ok(permit) => connect(site, permit).await,
        Err(_in_use) => match site.wait_for(|| free(site)).await? {
            Free::Connection(connection) => Ok(connection),
            Free::Permit(permit) => connect(site, permit).await,
        },
    }
}

/// What one who waits is waiting for.
enum Free {
    Connection(Connection),
    Permit(Option<Permit>),
}

fn free(site: &Rc<Site>) -> Option<Free> {
    if let Some(connection) = take(site) {
        return Some(Free::Connection(connection));
    }
    site.permit().ok().map(Free::Permit)
}

async fn connect(site: &Rc<Site>, permit: Option<Permit>) -> Result<Connection, Box<Failure>> {
    let socket = site
        .connect()
        .await
        .map_err(|(cause, detail)| site.failure(cause, detail))?;
    let traffic = Arc::clone(socket.traffic());
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .max_header_size(HEAD_BYTES)
        .handshake(TokioIo::new(socket))
        .await
        .map_err(|error| site.explain(&error))?;
    let link = Rc::new(Link {
        expires: site.expiry(),
        stay: Cell::new(Stay::None),
        answered: Cell::new(false),
        traffic,
        site: Rc::downgrade(site),
        parked: Cell::new(None),
    });
    // Owned by the runtime: it ends when the connection does, which is when its sender is gone.
    spawn_local(Drive {
        connection: connection.with_upgrades(),
        link: Rc::clone(&link),
        _open: Open::new(site, permit),
    });
    Ok(Connection { sender, link })
}

/// The task that moves a connection's bytes.
struct Drive<C> {
    connection: C,
    link: Rc<Link>,
    _open: Open,
}

impl<C: Future + Unpin> Future for Drive<C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // How a connection ends is told to whoever waits for its response; to no one else.
        if Pin::new(&mut self.connection).poll(cx).is_ready() {
            self.link.ended();
            return Poll::Ready(());
        }
        if let Some(sender) = self.link.parked.take() {
            Link::settle(&self.link, sender);
        }
        Poll::Pending
    }
}

impl Link {
    /// Puts a parked sender back into the pool if its connection is ready again.
    fn settle(link: &Rc<Self>, sender: SendRequest<Body>) {
        if !sender.is_ready() {
            link.parked.set(Some(sender));
            return;
        }
        // Without a lane the sender is dropped, and the connection closes.
        if let Some(site) = link.site.upgrade() {
            let link = Rc::clone(link);
            put(&site, Connection { sender, link });
        }
    }

    /// The connection is closed; by the endpoint, if it was in the pool.
    fn ended(&self) {
        self.parked.take();
        if let Stay::Since(since) = self.stay.get()
            && let Some(site) = self.site.upgrade()
        {
            site.closed_while_idle(since);
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}
