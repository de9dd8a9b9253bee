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
use std::task::{Context, Poll};
use std::time::Instant;

use http::{StatusCode, header};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;

use crate::base::body::Body;
use crate::base::message::{Request, Response};
use crate::upstream::client::exchange::{Anew, Exchange, Sent};
use crate::upstream::client::{Connections, OnInformational, Open, Site, Unanswered, wire};
use crate::upstream::failure::Failure;
use crate::upstream::pool::{Pool, Pooled};

/// The longest head of a response.
pub(super) const HEAD_BYTES: usize = 64 << 10;

/// The most fields in the head of a response: what hyper keeps on the stack. One more, as a setting,
/// would cost an allocation for each response.
pub(super) const HEAD_FIELDS: usize = 100;

/// How much of a message is buffered on its way, each direction: with half of it, large answers cost
/// the kernel a third more.
const BUFFER: usize = 256 << 10;

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
    opened: Instant,
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

    fn opened(&self) -> Instant {
        self.link.opened
    }
}

/// Sends a request on a pooled connection, or on a new one.
pub(super) fn send<'a>(
    site: &'a Rc<Site>,
    pool: &'a Pool<Connection>,
    request: Request,
    on_informational: Option<OnInformational>,
) -> impl Future<Output = Result<Response, Box<Failure>>> + use<'a> {
    match pool.take() {
        Some(connection) => Exchange::new(start(site, pool, connection, request, on_informational)),
        None => Exchange::Anew {
            sending: Box::pin(send_anew(site, pool, request, on_informational)),
        },
    }
}

/// The same after the first pooled connection turned out to be dead, or there was none.
async fn send_anew(
    site: &Rc<Site>,
    pool: &Pool<Connection>,
    mut request: Request,
    mut on_informational: Option<OnInformational>,
) -> Result<Response, Box<Failure>> {
    let mut tries = 1;
    loop {
        let pooled = if tries < STALE_TRIES {
            pool.take()
        } else {
            None
        };
        let fresh = pooled.is_none();
        let connection = match pooled {
            Some(connection) => connection,
            None => match open(site).await {
                Ok(connection) => connection,
                Err(failure) => return Err(failure.with_request(request)),
            },
        };
        let (answer, sent) = start(site, pool, connection, request, on_informational.take());
        request = match answer.await {
            Ok(response) => return sent.answered(response),
            Err(error) if fresh => return Err(sent.aside.failed(site, error)),
            Err(error) => sent.aside.unsent(site, error)?,
        };
        tries += 1;
    }
}

/// Hands a request to its connection.
fn start<'a>(
    site: &'a Rc<Site>,
    pool: &'a Pool<Connection>,
    mut connection: Connection,
    mut request: Request,
    on_informational: Option<OnInformational>,
) -> (
    impl Future<Output = Result<http::Response<Incoming>, Unanswered>> + use<>,
    InFlight<'a>,
) {
    let upgrade = request.head.headers.contains(header::UPGRADE);
    let aside = wire::Aside::take(&mut request.head);
    let mut message = wire::http1(request, site.endpoint());
    if let Some(callback) = on_informational {
        hyper::ext::on_informational(&mut message, move |response| {
            callback(response.status(), response.headers());
        });
    }
    let answer = connection.sender.try_send_request(message);
    let sent = InFlight {
        site,
        pool,
        connection,
        aside,
        upgrade,
    };
    (answer, sent)
}

/// What a request leaves behind when it was handed to its connection.
struct InFlight<'a> {
    site: &'a Rc<Site>,
    pool: &'a Pool<Connection>,
    connection: Connection,
    aside: wire::Aside,
    /// Whether it asked to leave HTTP.
    upgrade: bool,
}

impl<'a> Sent<'a> for InFlight<'a> {
    fn answered(self, response: http::Response<Incoming>) -> Result<Response, Box<Failure>> {
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let response = wire::http1_response(response).map_err(|what| self.site.nonsense(what))?;
        if upgraded && !self.upgrade {
            return Err(self.site.nonsense("an upgrade that nobody asked for"));
        }
        if upgraded {
            return Ok(response);
        }
        if self.connection.sender.is_ready() {
            self.pool.put(self.connection, self.site.tally.now.get());
        } else {
            let Connection { sender, link } = self.connection;
            link.parked.set(Some(sender));
        }
        Ok(response)
    }

    fn unanswered(self, error: Unanswered) -> Result<Anew<'a>, Box<Failure>> {
        let request = self.aside.unsent(self.site, error)?;
        Ok(Box::pin(send_anew(self.site, self.pool, request, None)))
    }
}

async fn open(site: &Rc<Site>) -> Result<Connection, Box<Failure>> {
    let socket = site
        .connect()
        .await
        .map_err(|(cause, detail)| site.failure(cause, detail))?;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .max_header_size(HEAD_BYTES)
        .handshake(TokioIo::new(socket))
        .await
        .map_err(|error| site.explain(&error))?;
    let link = Rc::new(Link {
        opened: site.tally.now.get(),
        site: Rc::downgrade(site),
        parked: Cell::new(None),
    });
    // Owned by the runtime: it ends when the connection does, which is when its sender is gone.
    spawn_local(Drive {
        connection: connection.with_upgrades(),
        link: Rc::clone(&link),
        _open: Open::new(&site.tally),
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
            self.link.parked.take();
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
        if let Some(site) = link.site.upgrade()
            && let Connections::Http1(pool) = &site.connections
        {
            let link = Rc::clone(link);
            pool.put(Connection { sender, link }, site.tally.now.get());
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("opened", &self.opened)
            .finish_non_exhaustive()
    }
}
