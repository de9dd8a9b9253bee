//! HTTP/2 with prior knowledge: many requests on one connection.
//!
//! A worker keeps one connection to an endpoint. While it is being made, everyone waits for the same
//! attempt: without that a burst of requests opens a connection each. A further one is made only
//! when every stream that the endpoint allows is in use.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::base::body::{Body, Hold, Noted};
use crate::base::message::{Request, Response, ResponseHead};
use crate::upstream::client::exchange::{Anew, Exchange, Sent};
use crate::upstream::client::{Connections, Open, Site, Unanswered, wire};
use crate::upstream::connect::Socket;
use crate::upstream::failure::{Cause, Failure};
use crate::upstream::pool::Keep;

/// How much an endpoint may send ahead of the client, for one stream and for the connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// How much of one request's body is buffered when the endpoint does not take it.
const SEND_BUFFER: usize = 256 << 10;

/// The longest head of a response, unpacked.
const HEAD_BYTES: u32 = 64 << 10;

/// How often a request is sent again that a dying connection handed back untouched.
const TRIES: u32 = 3;

/// The connections of one worker to one endpoint.
#[derive(Debug)]
pub(super) struct Shared {
    open: RefCell<Vec<Rc<Connection>>>,
    connecting: RefCell<Option<Rc<Flight>>>,
    keep: Keep,
}

#[derive(Debug)]
struct Connection {
    sender: RefCell<SendRequest<Body>>,
    /// Streams in use: until the end of the response's body. Atomic because bodies may leave the thread.
    streams: Arc<AtomicU32>,
    /// Shared with the task that drives it; knows how many streams the endpoint allows.
    driven: Rc<RefCell<Driven>>,
    /// True once anything came back on it.
    answered: Cell<bool>,
    opened: Instant,
    used: Cell<Instant>,
}

/// hyper's side of a connection; none once it has ended, which is what tells the senders.
type Driven = Option<http2::Connection<TokioIo<Socket>, Body, Local>>;

/// A connection, or the cause and the words for there being none.
type Made = Result<Rc<Connection>, (Cause, String)>;

/// One attempt to connect, and all who wait for it.
#[derive(Debug, Default)]
struct Flight {
    landed: Notify,
    made: RefCell<Option<Made>>,
}

/// Sends a request as one more stream.
pub(super) fn send<'a>(
    site: &'a Rc<Site>,
    shared: &'a Shared,
    request: Request,
) -> impl Future<Output = Result<Response, Box<Failure>>> + use<'a> {
    match shared.take() {
        Some(connection) => Exchange::new(start(site, shared, connection, request)),
        None => Exchange::Anew {
            sending: Box::pin(send_anew(site, shared, request)),
        },
    }
}

/// The same after the first connection turned out to be dead, or there was none.
async fn send_anew(
    site: &Rc<Site>,
    shared: &Shared,
    mut request: Request,
) -> Result<Response, Box<Failure>> {
    let mut tries = 1;
    loop {
        let connection = match shared.take() {
            Some(connection) => connection,
            None => match shared.wait(site).await {
                Ok(connection) => connection,
                Err(failure) => return Err(failure.with_request(request)),
            },
        };
        let (answer, sent) = start(site, shared, connection, request);
        request = match answer.await {
            Ok(response) => return sent.answered(response),
            Err(error) => {
                let connection = Rc::clone(&sent.connection);
                let unsent = sent.unsent(error)?;
                if tries == TRIES {
                    return Err(connection.closed_early(site).with_request(unsent));
                }
                unsent
            }
        };
        tries += 1;
    }
}

/// Hands a request to its connection.
fn start<'a>(
    site: &'a Rc<Site>,
    shared: &'a Shared,
    connection: Rc<Connection>,
    mut request: Request,
) -> (
    impl Future<Output = Result<http::Response<Incoming>, Unanswered>> + use<>,
    InFlight<'a>,
) {
    connection.used.set(site.tally.now.get());
    let aside = wire::Aside::take(&mut request.head);
    let noted = note_overflow(&mut request);
    let message = wire::http2(request, site.endpoint());
    let answer = connection.sender.borrow_mut().try_send_request(message);
    let sent = InFlight {
        site,
        shared,
        hold: Hold::new(&connection.streams),
        connection,
        aside,
        noted,
    };
    (answer, sent)
}

/// What a request leaves behind when it was handed to its connection.
struct InFlight<'a> {
    site: &'a Rc<Site>,
    shared: &'a Shared,
    hold: Hold,
    connection: Rc<Connection>,
    aside: wire::Aside,
    noted: Option<Noted>,
}

impl<'a> Sent<'a> for InFlight<'a> {
    fn answered(self, response: http::Response<Incoming>) -> Result<Response, Box<Failure>> {
        self.connection.answered.set(true);
        let (parts, body) = response.into_parts();
        Ok(Response {
            head: ResponseHead::from_http(parts),
            body: Body::wire_held(body, self.hold),
        })
    }

    fn unanswered(self, error: Unanswered) -> Result<Anew<'a>, Box<Failure>> {
        let (site, shared) = (self.site, self.shared);
        let request = self.unsent(error)?;
        Ok(Box::pin(send_anew(site, shared, request)))
    }
}

impl InFlight<'_> {
    fn unsent(self, error: Unanswered) -> Result<Request, Box<Failure>> {
        let unsent = self.aside.unsent(self.site, error);
        unsent.map_err(|failure| with_body_error(failure, self.noted.as_ref()))
    }
}

/// Has the body's failure noted, where it can be our own limit.
///
/// hyper answers a failed body with a reset of the stream and forgets why; "too large" is worth an
/// allocation, for it is the client's fault and not the endpoint's.
fn note_overflow(request: &mut Request) -> Option<Noted> {
    if !request.body.has_limit() {
        return None;
    }
    let (body, noted) = std::mem::take(&mut request.body).noted();
    request.body = body;
    Some(noted)
}

fn with_body_error(mut failure: Box<Failure>, noted: Option<&Noted>) -> Box<Failure> {
    if let Some(error) = noted.and_then(Noted::get) {
        failure.detail = format!("the body of the request failed: {error}");
        failure.cause = Cause::RequestBody(error);
    }
    failure
}

impl Shared {
    pub(super) fn new(keep: Keep) -> Self {
        Self {
            open: RefCell::default(),
            connecting: RefCell::default(),
            keep,
        }
    }

    /// A connection with a stream to spare: the first made, so that further ones can become idle.
    fn take(&self) -> Option<Rc<Connection>> {
        let mut open = self.open.borrow_mut();
        if open.iter().any(|connection| connection.is_closed()) {
            open.retain(|connection| !connection.is_closed());
        }
        open.iter()
            .find(|connection| connection.has_room())
            .cloned()
    }

    /// The same after a connection more was made, by whomever.
    async fn wait(&self, site: &Rc<Site>) -> Result<Rc<Connection>, Box<Failure>> {
        loop {
            let flight = self.flight(site);
            flight.landed.notified().await;
            match &*flight.made.borrow() {
                // Even if it was closed at once: then sending says why.
                Some(Ok(connection)) if connection.has_room() => return Ok(Rc::clone(connection)),
                Some(Err((cause, detail))) => {
                    return Err(site.failure(cause.clone(), detail.clone()));
                }
                _ => {}
            }
        }
    }

    /// The attempt that is under way, or a new one. It goes on if everyone who waits leaves.
    fn flight(&self, site: &Rc<Site>) -> Rc<Flight> {
        let mut connecting = self.connecting.borrow_mut();
        if let Some(flight) = &*connecting {
            return Rc::clone(flight);
        }
        let flight = Rc::new(Flight::default());
        *connecting = Some(Rc::clone(&flight));
        // Bounded by the connect timeout; a handshake only queues our preface.
        spawn_local(land(Rc::clone(site), Rc::clone(&flight)));
        flight
    }

    /// Closes what was idle for too long or is too old; streams in use go on to their end.
    pub(super) fn sweep(&self, now: Instant) {
        self.open.borrow_mut().retain(|connection| {
            if connection.in_use() > 0 {
                connection.used.set(now);
            }
            let idle = now.saturating_duration_since(connection.used.get());
            let age = now.saturating_duration_since(connection.opened);
            !connection.is_closed() && idle < self.keep.idle && age < self.keep.age
        });
    }

    /// How many have no stream in use.
    pub(super) fn idle(&self) -> usize {
        let open = self.open.borrow();
        let idle = |connection: &&Rc<Connection>| connection.in_use() == 0;
        open.iter().filter(idle).count()
    }
}

impl Connection {
    fn is_closed(&self) -> bool {
        self.sender.borrow().is_closed()
    }

    fn in_use(&self) -> usize {
        self.streams.load(Ordering::Relaxed) as usize
    }

    fn has_room(&self) -> bool {
        // One request at least, even if the endpoint allows none at the moment: hyper has it wait.
        self.in_use() < self.limit().max(1)
    }

    fn limit(&self) -> usize {
        // Borrowed only if a body that is being sent asks this very endpoint for its next bytes.
        match self.driven.try_borrow().as_deref() {
            Ok(Some(driven)) => driven.current_max_send_streams(),
            _ => 0,
        }
    }

    /// Why a request was handed back by one new connection after the other.
    fn closed_early(&self, site: &Site) -> Box<Failure> {
        let label = site.label();
        let detail = if self.answered.get() {
            format!("{label} closed the connection before the request was sent")
        } else {
            format!(
                "{label} closes every connection at once: if it does not speak HTTP/2, set `protocol: http1`"
            )
        };
        site.failure(Cause::Closed, detail)
    }
}

/// Makes a connection and tells everyone who waits for it.
async fn land(site: Rc<Site>, flight: Rc<Flight>) {
    let made = match site.connect().await {
        Ok(socket) => handshake(&site, socket).await.map(Rc::new),
        Err(failed) => Err(failed),
    };
    if let Connections::Http2(shared) = &site.connections {
        shared.connecting.take();
        if let Ok(connection) = &made {
            shared.open.borrow_mut().push(Rc::clone(connection));
        }
    }
    flight.made.replace(Some(made));
    flight.landed.notify_waiters();
}

async fn handshake(site: &Rc<Site>, socket: Socket) -> Result<Connection, (Cause, String)> {
    let (sender, connection) = http2::Builder::new(Local)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEAD_BYTES)
        .handshake(TokioIo::new(socket))
        .await
        .map_err(|error| {
            let failure = site.explain(&error);
            (failure.cause, failure.detail)
        })?;
    let driven = Rc::new(RefCell::new(Some(connection)));
    // Owned by the runtime: it ends when the last sender and the last stream are gone.
    spawn_local(Drive {
        connection: Rc::clone(&driven),
        _open: Open::new(&site.tally),
    });
    let now = site.tally.now.get();
    Ok(Connection {
        sender: RefCell::new(sender),
        streams: Arc::default(),
        driven,
        answered: Cell::new(false),
        opened: now,
        used: Cell::new(now),
    })
}

/// The task that hands requests to a connection.
struct Drive {
    connection: Rc<RefCell<Driven>>,
    _open: Open,
}

impl Future for Drive {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut driven = self.connection.borrow_mut();
        let Some(connection) = &mut *driven else {
            return Poll::Ready(());
        };
        // How it ended was told to the requests on it.
        Pin::new(connection).poll(cx).map(|_| *driven = None)
    }
}

/// Spawns hyper's tasks on the worker's own thread.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}
