//! One HTTP/2 connection: its making, its streams, its end.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::base::body::Body;
use crate::base::clock;
use crate::base::seats::{Bell, Hold, Seats};
use crate::upstream::client::bound::Permit;
use crate::upstream::client::{Open, Site, Unanswered};
use crate::upstream::connect::{Socket, Traffic};
use crate::upstream::failure::Cause;

/// The most streams at once on a connection of ours, even if the endpoint allows more.
const STREAMS: u32 = 256;

/// How much an endpoint may send ahead of the client, for one stream and for the connection: so much
/// that all streams together cannot use up what the connection has. Otherwise a few clients that read
/// slowly would stop everyone else's answers.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;

/// How much of one request's body is buffered when the endpoint does not take it.
const SEND_BUFFER: usize = 256 << 10;

/// The longest head of a response, unpacked.
const HEAD_BYTES: u32 = 64 << 10;

/// What stands for the endpoint's limit of streams until it has told one; it cannot tell this.
const UNTOLD: usize = usize::MAX - 1;

/// A connection that is open, or was.
#[derive(Debug)]
pub(super) struct Connection {
    sender: RefCell<SendRequest<Body>>,
    /// Streams in use: until the end of the response's body.
    seats: Arc<Seats>,
    /// Shared with the task that drives it; knows how many streams the endpoint allows.
    driven: Rc<RefCell<Driven>>,
    /// How many those were when it was last asked.
    limit: Cell<usize>,
    /// True once no further stream is to be opened.
    retired: Cell<bool>,
    expires: Instant,
    used: Cell<Instant>,
    pub(super) traffic: Arc<Traffic>,
}

/// hyper's side of a connection, and how it ended.
#[derive(Debug, Default)]
struct Driven {
    /// None once it has ended, which is what tells the senders.
    task: Option<http2::Connection<TokioIo<Socket>, Body, Spawn>>,
    error: Option<hyper::Error>,
}

/// The cause of there being no connection, in words.
pub(super) type Failed = (Cause, String);

impl Connection {
    /// Makes a connection, and waits for the endpoint's settings.
    pub(super) async fn make(site: &Rc<Site>, permit: Option<Permit>) -> Result<Rc<Self>, Failed> {
        let start = clock::now();
        let socket = site.connect().await?;
        let left = site.connect_timeout.saturating_sub(clock::since(start));
        let traffic = Arc::clone(socket.traffic());
        let pulse = Rc::new(Pulse::new(&site.bell));
        let spawn = Spawn(Rc::clone(&pulse));
        let (sender, task) = http2::Builder::new(spawn)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(UNTOLD)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(HEAD_BYTES)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|error| {
                let failure = site.explain(&error);
                (failure.cause, failure.detail)
            })?;
        let connection = Rc::new(Self {
            sender: RefCell::new(sender),
            seats: Seats::new(Arc::clone(&site.bell)),
            driven: Rc::new(RefCell::new(Driven {
                task: Some(task),
                error: None,
            })),
            limit: Cell::new(0),
            retired: Cell::new(false),
            expires: site.expiry(),
            used: Cell::new(site.tally.now.get()),
            traffic,
        });
        // Owned by the runtime: it ends when the last sender and the last stream are gone.
        spawn_local(Drive {
            driven: Rc::clone(&connection.driven),
            connection: Rc::downgrade(&connection),
            site: Rc::downgrade(site),
            pulse: Rc::clone(&pulse),
            _open: Open::new(site, permit),
        });
        connection.hear_settings(site, &pulse, left).await?;
        Ok(connection)
    }

    /// Waits until the endpoint has said how many streams it allows, which is the first thing it says.
    async fn hear_settings(
        &self,
        site: &Site,
        pulse: &Pulse,
        left: Duration,
    ) -> Result<(), Failed> {
        let told = tokio::time::timeout(left, async {
            loop {
                match &self.driven.borrow().task {
                    Some(task) if task.current_max_send_streams() == UNTOLD => {}
                    Some(_) => return true,
                    None => return false,
                }
                pulse.beat.notified().await;
            }
        });
        let failed = match told.await {
            Ok(true) => {
                pulse.settled.set(true);
                return Ok(());
            }
            Ok(false) => self.why_untold(site),
            Err(_) => (
                Cause::ConnectTimeout,
                format!(
                    "{} took the connection but sent no settings of HTTP/2 within {:?}",
                    site.label(),
                    site.connect_timeout
                ),
            ),
        };
        site.tally.connect_failed();
        Err(failed)
    }

    fn why_untold(&self, site: &Site) -> Failed {
        if let Some(error) = &self.driven.borrow().error {
            let failure = site.explain(error);
            if !matches!(failure.cause, Cause::Closed) {
                return (failure.cause, failure.detail);
            }
        }
        let detail = format!(
            "{} closes connections at once: if it does not speak HTTP/2, set `protocol: http1`",
            site.label()
        );
        (Cause::Closed, detail)
    }

    /// Hands over a request; the first value is its place among the streams.
    pub(super) fn send(
        &self,
        message: http::Request<Body>,
        now: Instant,
    ) -> (
        Hold,
        impl Future<Output = Result<http::Response<Incoming>, Unanswered>> + use<>,
    ) {
        self.used.set(now);
        let hold = self.seats.hold();
        (hold, self.sender.borrow_mut().try_send_request(message))
    }

    /// Lets no further stream begin.
    pub(super) fn retire(&self) {
        self.retired.set(true);
    }

    /// False once it takes no stream ever again.
    pub(super) fn is_usable(&self, now: Instant, idle_limit: Duration) -> bool {
        if self.retired.get() || self.sender.borrow().is_closed() {
            return false;
        }
        self.in_use() > 0 || now.saturating_duration_since(self.used.get()) < idle_limit
    }

    /// The same, and whether it is too old; for the tick.
    pub(super) fn is_worth_keeping(&self, now: Instant, idle_limit: Duration) -> bool {
        if self.in_use() > 0 {
            self.used.set(now);
        }
        self.is_usable(now, idle_limit) && now < self.expires
    }

    pub(super) fn in_use(&self) -> usize {
        self.seats.taken()
    }

    pub(super) fn has_room(&self) -> bool {
        self.in_use() < self.limit()
    }

    fn limit(&self) -> usize {
        // Borrowed only if a body that is being sent asks this very endpoint for its next bytes.
        if let Ok(driven) = self.driven.try_borrow()
            && let Some(task) = &driven.task
        {
            self.limit
                .set(task.current_max_send_streams().min(STREAMS as usize));
        }
        self.limit.get()
    }
}

/// The task that hands requests to a connection.
struct Drive {
    driven: Rc<RefCell<Driven>>,
    /// Gone once it is not to be used again.
    connection: Weak<Connection>,
    site: Weak<Site>,
    pulse: Rc<Pulse>,
    _open: Open,
}

impl Future for Drive {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut driven = self.driven.borrow_mut();
        let Some(task) = &mut driven.task else {
            return Poll::Ready(());
        };
        let Poll::Ready(end) = Pin::new(task).poll(cx) else {
            return Poll::Pending;
        };
        // The requests on it were told; only who waits for its settings has to be told as well.
        driven.error = end.err();
        driven.task = None;
        drop(driven);
        self.ended();
        Poll::Ready(())
    }
}

impl Drive {
    fn ended(&self) {
        self.pulse.beat();
        if let (Some(connection), Some(site)) = (self.connection.upgrade(), self.site.upgrade())
            && connection.in_use() == 0
            && !connection.retired.replace(true)
        {
            site.closed_while_idle(connection.used.get());
        }
    }
}

/// Tells when something happens on a connection, be it new settings.
#[derive(Debug)]
struct Pulse {
    /// For who waits for the first settings.
    beat: Notify,
    settled: Cell<bool>,
    /// For who waits for a stream.
    bell: Arc<Bell>,
    /// True once hyper's task for the socket was spawned.
    has_task: Cell<bool>,
}

impl Pulse {
    fn new(bell: &Arc<Bell>) -> Self {
        Self {
            beat: Notify::new(),
            settled: Cell::new(false),
            bell: Arc::clone(bell),
            has_task: Cell::new(false),
        }
    }

    fn beat(&self) {
        if !self.settled.get() {
            self.beat.notify_one();
        }
        self.bell.ring();
    }
}

/// Spawns hyper's tasks on the worker's own thread.
#[derive(Debug, Clone)]
struct Spawn(Rc<Pulse>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Spawn {
    fn execute(&self, future: F) {
        // The first one moves the bytes of the connection, the others those of a stream.
        if self.0.has_task.replace(true) {
            spawn_local(future);
        } else {
            let pulse = Rc::clone(&self.0);
            spawn_local(Watched { future, pulse });
        }
    }
}

pin_project! {
    struct Watched<F> {
        #[pin]
        future: F,
        pulse: Rc<Pulse>,
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.future.poll(cx);
        this.pulse.beat();
        polled
    }
}
