//! One client's connection: tells the protocol, serves it, and keeps its clocks.
//!
//! hyper's server types stay in this file. The HTTP library gets no timers: one coarse deadline a
//! connection, moved when the connection's phase changes, costs a few stores a request.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;

use crate::base::body::Body;
use crate::base::clock::Deadline;
use crate::base::message::{Client, Request, RequestHead};
use crate::proxy::{self, Local, Origin, Wire};
use crate::server::framing::HeadLimits;
use crate::server::guard::{Guard, Shared};
use crate::server::listener::Place;
use crate::server::refuse::{self, Refusal};
use crate::server::stream::Stream;
use crate::snapshot::Limits;
use crate::telemetry::metrics::{Connection as State, ListenerSeries};

/// How HTTP/2 begins (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection is served with.
pub(crate) struct Terms {
    pub local: Rc<Local>,
    pub origin: Rc<Origin>,
    pub limits: Limits,
    pub place: Place,
    pub seen: Seen,
}

/// A connection as the metrics see it, until this is dropped.
pub(crate) struct Seen {
    series: Arc<ListenerSeries>,
    worker: usize,
    state: Cell<State>,
}

impl Seen {
    pub(crate) fn new(series: Arc<ListenerSeries>, worker: usize) -> Self {
        series.connection(worker, None, Some(State::Idle));
        Self {
            series,
            worker,
            state: Cell::new(State::Idle),
        }
    }

    fn set(&self, state: State) {
        let before = self.state.replace(state);
        if before != state {
            self.series
                .connection(self.worker, Some(before), Some(state));
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.series
            .connection(self.worker, Some(self.state.get()), None);
    }
}

impl Terms {
    /// True once the connection should end: its listener is gone, or no longer accepts.
    fn is_ending(&self) -> bool {
        self.place.gate().is_closed()
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(terms: Rc<Terms>, mut stream: Stream) {
    let mut first = Vec::new();
    let told = tell_protocol(&terms, &mut stream, &mut first).await;
    let refusal = match told {
        Told::Http2 if terms.limits.http2 => return serve_http2(&terms, stream, first).await,
        Told::Http1 if terms.limits.http1 => return serve_http1(&terms, stream, first).await,
        Told::Http1 | Told::Http2 => Refusal::wrong_protocol(),
        Told::TooSlow if !first.is_empty() => Refusal::slow_head(),
        // Nothing was asked: nothing is owed.
        Told::TooSlow | Told::Left => return,
    };
    refuse::write(&terms, stream, &refusal).await;
}

/// What the first bytes of a connection tell.
enum Told {
    Http1,
    Http2,
    /// Too little came within the header timeout, or in the last moment of the listener.
    TooSlow,
    /// The client left.
    Left,
}

/// Reads until the first bytes tell the protocol; they stay in `first`.
async fn tell_protocol(terms: &Terms, stream: &mut Stream, first: &mut Vec<u8>) -> Told {
    let mut deadline = terms.local.sweep.deadline();
    deadline.arm(terms.local.now() + terms.limits.header_timeout);
    let mut hurried = false;
    let mut sniff = pin!(sniff(stream, first));
    poll_fn(|cx| {
        if let Poll::Ready(told) = sniff.as_mut().poll(cx) {
            return Poll::Ready(told.unwrap_or(Told::Left));
        }
        if terms.is_ending() && !std::mem::replace(&mut hurried, true) {
            deadline.arm(terms.local.now() + PARTING);
        }
        Pin::new(&mut deadline).poll(cx).map(|()| Told::TooSlow)
    })
    .await
}

async fn sniff(stream: &mut Stream, first: &mut Vec<u8>) -> std::io::Result<Told> {
    first.reserve(512);
    loop {
        if stream.read_buf(first).await? == 0 {
            return Ok(Told::Left);
        }
        if first.starts_with(PREFACE) {
            return Ok(Told::Http2);
        }
        if !PREFACE.starts_with(first) {
            return Ok(Told::Http1);
        }
    }
}

async fn serve_http1(terms: &Rc<Terms>, stream: Stream, first: Vec<u8>) {
    let shared = Arc::new(Shared::new(&terms.origin.requests));
    let wire: Arc<dyn Wire> = Arc::<Shared>::clone(&shared);
    terms.origin.attach(wire);
    let limits = HeadLimits {
        bytes: terms.limits.header_bytes,
        headers: terms.limits.headers,
    };
    let guard = Guard::http1(stream, first, limits, Arc::clone(&shared));
    let its_terms = Rc::clone(terms);
    let service = service_fn(move |request| answer(Rc::clone(&its_terms), request));
    let mut builder = http1::Builder::new();
    builder
        // The end of a client's bytes cancels what runs for it; the guard tells it when.
        .half_close(false)
        .max_headers(terms.limits.headers)
        .max_buf_size(BUFFER.max(terms.limits.header_bytes * 2));
    let connection = builder
        .serve_connection(TokioIo::new(guard), service)
        .with_upgrades();
    let end = drive(terms, &shared, GoesAway::Silently, connection).await;
    let refusal = match (shared.take_violation(), end) {
        (Some(violation), _) => Some(Refusal::of(violation)),
        (None, End::Timeout(Phase::Head)) => Some(Refusal::slow_head()),
        (None, End::Unparsable(refusal)) => {
            refuse::record(terms, &refusal);
            None
        }
        _ => None,
    };
    if let Some(refusal) = refusal
        && !shared.mid_write()
        && let Some(stream) = shared.take_stream()
    {
        refuse::write(terms, stream, &refusal).await;
    }
}

async fn serve_http2(terms: &Rc<Terms>, stream: Stream, first: Vec<u8>) {
    let shared = Arc::new(Shared::new(&terms.origin.requests));
    let guard = Guard::raw(stream, first, Arc::clone(&shared));
    let its_terms = Rc::clone(terms);
    let service = service_fn(move |request| answer(Rc::clone(&its_terms), request));
    let mut builder = http2::Builder::new(Spawn);
    builder
        .max_concurrent_streams(terms.limits.streams)
        .max_header_list_size(u32::try_from(terms.limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(256 * 1024);
    let _end = drive(
        terms,
        &shared,
        GoesAway::Announced,
        builder.serve_connection(TokioIo::new(guard), service),
    )
    .await;
}

/// What one stream may have on its way to us unread: bounds memory per stream.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for a connection: four busy streams.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How much of an HTTP/1 message is buffered on its way, each direction. It also bounds heads, which
/// the guard has counted before: it must not be less than those.
const BUFFER: usize = 256 * 1024;

/// Runs HTTP/2's streams on the worker's own thread.
#[derive(Clone, Copy)]
struct Spawn;

impl<F: Future<Output = ()> + 'static> Executor<F> for Spawn {
    fn execute(&self, future: F) {
        // The stream's task ends with its connection, which cancels it. Nothing is wrapped around
        // it: a block that awaits it would hold it twice.
        drop(tokio::task::spawn_local(future));
    }
}

/// Not an async function: that would keep hyper's request beside ours for as long as it runs.
fn answer(
    terms: Rc<Terms>,
    request: hyper::Request<Incoming>,
) -> impl Future<Output = Result<hyper::Response<proxy::Tracked>, Infallible>> {
    let (parts, incoming) = request.into_parts();
    let mut request = Request {
        head: RequestHead::from_http(parts, Client::UNKNOWN),
        body: Body::wire(incoming),
    };
    let origin = terms.origin.enter();
    async move { Ok(proxy::serve(&terms.local, origin, &mut request).await) }
}

/// How a connection ended.
enum End {
    /// Both sides were done, or one is gone.
    Done,
    /// A clock ran out in this phase.
    Timeout(Phase),
    /// The library refused a head, and has told the client so.
    Unparsable(Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between requests.
    Idle,
    /// A head is coming.
    Head,
    /// A request is being answered; its own deadlines hold.
    Busy,
    /// The same, but the client has sent its last byte and may be gone.
    Left,
    /// The client does not take the answer.
    Blocked,
}

/// How long an answer may take for a client that has sent its last byte. It is cancelled then:
/// most such clients are gone, and those that only closed one direction ask for little.
const PARTING: Duration = Duration::from_secs(1);

/// What hyper's connections have in common.
trait Serving: Future<Output = Result<(), hyper::Error>> {
    /// Finishes what is in flight and takes no more.
    fn wind_down(self: Pin<&mut Self>);
}

impl<S> Serving for http1::UpgradeableConnection<TokioIo<Guard>, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = proxy::Tracked>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn wind_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Serving for http2::Connection<TokioIo<Guard>, S, Spawn>
where
    S: hyper::service::HttpService<Incoming, ResBody = proxy::Tracked>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: 'static,
{
    fn wind_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Polls the connection, and keeps its clocks; `goes_away` if its protocol can say that it does.
async fn drive(
    terms: &Terms,
    shared: &Shared,
    goes_away: GoesAway,
    connection: impl Serving,
) -> End {
    let mut connection = pin!(connection);
    let mut clock = Clock::new(terms, goes_away);
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended(result));
            }
            let phase = phase(terms, shared);
            if terms.origin.requests.load(Relaxed) == 0 && shared.ends() && !clock.parted {
                // The library was told that there is nothing to read yet: now it may see the end.
                clock.parted = true;
                continue;
            }
            if clock.must_wind_down(terms, phase) {
                connection.as_mut().wind_down();
                continue;
            }
            clock.enter(terms, phase);
            std::task::ready!(Pin::new(&mut clock.deadline).poll(cx));
            if phase != Phase::Idle {
                return Poll::Ready(End::Timeout(phase));
            }
            if clock.winding_down {
                return Poll::Ready(End::Done);
            }
            clock.winding_down = true;
            connection.as_mut().wind_down();
        }
    })
    .await
}

fn phase(terms: &Terms, shared: &Shared) -> Phase {
    if shared.write_blocked() {
        Phase::Blocked
    } else if terms.origin.requests.load(Relaxed) > 0 {
        if shared.has_left() {
            Phase::Left
        } else {
            Phase::Busy
        }
    } else if shared.inside_head() {
        Phase::Head
    } else {
        Phase::Idle
    }
}

fn ended(result: Result<(), hyper::Error>) -> End {
    match result {
        Err(error) if error.is_parse() => End::Unparsable(Refusal::unparsable(&error)),
        Err(error) => {
            tracing::debug!(%error, "a client's connection broke off");
            End::Done
        }
        Ok(()) => End::Done,
    }
}

/// Whether a protocol can tell the other side that a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GoesAway {
    /// HTTP/2, by GOAWAY.
    Announced,
    /// HTTP/1, but for a header of the last answer.
    Silently,
}

/// The connection's deadline, and why it stands where it does.
struct Clock {
    deadline: Deadline,
    phase: Phase,
    /// When the connection is old enough to be asked to go.
    old_at: Option<Instant>,
    goes_away: GoesAway,
    /// A request has come.
    served: bool,
    /// The client's end was passed on.
    parted: bool,
    winding_down: bool,
}

impl Clock {
    fn new(terms: &Terms, goes_away: GoesAway) -> Self {
        Self {
            goes_away,
            served: false,
            parted: false,
            deadline: terms.local.sweep.deadline(),
            // The head's own clock goes on from the first byte.
            phase: Phase::Busy,
            old_at: terms
                .limits
                .connection_age
                .map(|age| terms.local.now() + age),
            winding_down: false,
        }
    }

    /// True once: when the gateway drains, the listener is gone, or the connection is old.
    fn must_wind_down(&mut self, terms: &Terms, phase: Phase) -> bool {
        if self.winding_down {
            return false;
        }
        if !self.served {
            // Whose first bytes are here is owed an answer.
            self.served = phase != Phase::Head;
        }
        if !self.served {
            return false;
        }
        let old = self.old_at.is_some_and(|at| at <= terms.local.now());
        // GOAWAY loses nothing. An idle client of HTTP/1 may be about to send, so it is only told
        // with its next answer, until the listener closes.
        let drains = self.goes_away == GoesAway::Announced && terms.local.draining();
        self.winding_down = old || drains || terms.is_ending();
        self.winding_down
    }

    /// Moves the deadline when the phase changes.
    fn enter(&mut self, terms: &Terms, phase: Phase) {
        if phase == self.phase {
            return;
        }
        self.phase = phase;
        terms.seen.set(if phase == Phase::Idle {
            State::Idle
        } else {
            State::Active
        });
        let now = terms.local.now();
        match self.length(terms, phase) {
            Some(length) => self.deadline.arm(now + length),
            None => self.deadline.disarm(),
        }
    }

    fn length(&self, terms: &Terms, phase: Phase) -> Option<Duration> {
        match phase {
            Phase::Idle if self.winding_down => Some(Duration::ZERO),
            Phase::Idle | Phase::Blocked => Some(terms.limits.idle_timeout),
            Phase::Head => Some(terms.limits.header_timeout),
            Phase::Busy => None,
            Phase::Left => Some(PARTING),
        }
    }
}
