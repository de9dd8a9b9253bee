//! What the requests of one worker share, and what those of one connection do.

use std::cell::{Cell, RefCell, RefMut};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use http::header::HeaderValue;

use crate::base::caller::Caller;
use crate::base::clock::{self, Sweep};
use crate::base::lifecycle::Lifecycle;
use crate::base::pressure::Gauge;
use crate::handler::blocking::Blocking;
use crate::middleware::Effects;
use crate::proxy::calls::Calls;
use crate::proxy::mirror::Running;
use crate::proxy::witness::Witness;
use crate::snapshot::publish::{Published, Reader, View};
use crate::telemetry::access_log::{AccessLog, Entry, Lines};
use crate::telemetry::metrics::REHEARSAL;
use crate::telemetry::recent::{Recent, Record};

/// Everything that the requests of one worker share; it never leaves the worker's thread.
#[derive(Debug)]
pub struct Local {
    /// Which worker, from 0 on.
    pub id: usize,
    /// The rules in force.
    pub reader: Reader,
    /// The worker's coarse deadlines.
    pub sweep: Rc<Sweep>,
    /// The worker's lines of the access log.
    lines: RefCell<Lines>,
    /// How middlewares and handlers call out.
    pub(crate) caller: CallerHandle,
    /// Where handlers may block.
    pub blocking: Blocking,
    /// Requests that are not closed yet, tunnels included.
    pub in_flight: Cell<usize>,
    /// Requests that were ever admitted.
    pub admitted: Cell<u64>,
    /// How near the process is to its limits.
    pub pressure: Arc<Gauge>,
    /// Copies of requests that are on their way.
    pub(crate) mirrors: Running,
    /// Who watches, where this is a rehearsal.
    pub(crate) witness: Option<WitnessHandle>,
    /// Where records are kept for whoever asks why.
    recent: Arc<Recent>,
    /// How many ids were given to requests that had none.
    ids: Cell<u64>,
    lifecycle: Arc<Lifecycle>,
    now: Cell<Instant>,
    /// The revision that the last tick saw.
    revision: Cell<u64>,
}

/// A caller that can be printed, as its owners want to be.
pub(crate) struct CallerHandle(pub Rc<dyn Caller>);

impl std::fmt::Debug for CallerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Caller")
    }
}

/// A witness that can be printed, as its owners want to be.
pub(crate) struct WitnessHandle(Rc<dyn Witness>);

impl std::ops::Deref for WitnessHandle {
    type Target = dyn Witness;

    fn deref(&self) -> &(dyn Witness + 'static) {
        &*self.0
    }
}

impl std::fmt::Debug for WitnessHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Witness")
    }
}

impl Local {
    /// For the calling thread.
    pub fn new(
        id: usize,
        published: Arc<Published>,
        lifecycle: Arc<Lifecycle>,
        pressure: Arc<Gauge>,
        blocking: Blocking,
        recent: Arc<Recent>,
    ) -> Rc<Self> {
        let reader = Reader::new(published);
        Self::assemble((id, recent), reader, lifecycle, pressure, blocking, None)
    }

    /// For a rehearsal on the calling thread: what happens there is counted and logged nowhere.
    pub(crate) fn rehearsing(
        reader: Reader,
        lifecycle: Arc<Lifecycle>,
        pressure: Arc<Gauge>,
        blocking: Blocking,
        witness: Rc<dyn Witness>,
    ) -> Rc<Self> {
        let witness = Some(WitnessHandle(witness));
        let who = (REHEARSAL, Arc::default());
        Self::assemble(who, reader, lifecycle, pressure, blocking, witness)
    }

    fn assemble(
        (id, recent): (usize, Arc<Recent>),
        reader: Reader,
        lifecycle: Arc<Lifecycle>,
        pressure: Arc<Gauge>,
        blocking: Blocking,
        witness: Option<WitnessHandle>,
    ) -> Rc<Self> {
        let now = clock::now();
        let view = reader.view();
        Rc::new_cyclic(|this| Self {
            id,
            lines: RefCell::new(Lines::new(Arc::clone(&view.snapshot.access_log), now)),
            revision: Cell::new(view.snapshot.revision),
            reader,
            sweep: Rc::default(),
            caller: CallerHandle(Rc::new(Calls::new(this.clone()))),
            blocking,
            in_flight: Cell::new(0),
            admitted: Cell::new(0),
            pressure,
            mirrors: Running::default(),
            witness,
            recent,
            ids: Cell::new(0),
            lifecycle,
            now: Cell::new(now),
        })
    }

    /// The time of the last tick: good enough for what is seconds away, and free.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// What middlewares may change beyond their request.
    pub(crate) fn effects(&self) -> Effects {
        self.witness
            .as_ref()
            .map_or(Effects::Real, |witness| witness.effects())
    }

    /// True once the gateway takes no new work.
    pub fn draining(&self) -> bool {
        self.lifecycle.is_draining()
    }

    /// The worker's regular housekeeping: clocks, idle connections, counters, the access log.
    pub fn tick(&self, now: Instant) {
        self.now.set(now);
        self.sweep.tick(now);
        let view = self.reader.view();
        let reloaded = self.revision.replace(view.snapshot.revision) != view.snapshot.revision;
        if reloaded && self.witness.is_none() {
            self.recent.trim(self.id, view.snapshot.decisions.recent);
        }
        if reloaded || self.draining() {
            // Connections of listeners that are gone, or no longer accept, shall see it.
            self.sweep.wake_all();
        }
        for (lane, upstream) in view.lanes.iter().zip(&view.snapshot.upstreams) {
            lane.sweep(now);
            if self.witness.is_some() {
                continue;
            }
            let counts = lane.counts();
            let series = &upstream.series;
            series.connections(self.id, counts.active, counts.idle);
            let (made, failed) = lane.new_connects();
            series.connected(self.id, made, failed);
            series.set_queue(lane.upstream().queued());
        }
        if self.witness.is_none() {
            self.lines_to(&view.snapshot.access_log, now).flush(now);
        }
    }

    /// Keeps a record for whoever asks why, with at most so many others of this worker.
    pub(crate) fn keep(&self, record: Record, room: u32) {
        self.recent.keep(self.id, record, room);
    }

    /// An id for a request that has none.
    pub(crate) fn own_id(&self) -> String {
        self.ids.set(self.ids.get() + 1);
        format!("retort-{}-{}", self.id, self.ids.get())
    }

    /// Writes a line of the access log.
    pub(crate) fn log(&self, log: &Arc<AccessLog>, entry: &Entry<'_>) {
        if self.witness.is_none() {
            self.lines_to(log, self.now()).write(entry);
        }
    }

    /// The worker's lines to that log; lines to an earlier one are handed over first.
    fn lines_to(&self, log: &Arc<AccessLog>, now: Instant) -> RefMut<'_, Lines> {
        let mut lines = self.lines.borrow_mut();
        if !Arc::ptr_eq(lines.log(), log) {
            lines.flush(now);
            *lines = Lines::new(Arc::clone(log), now);
        }
        lines
    }
}

/// The way back from a request to its client's wire, for what the HTTP library cannot do.
///
/// The library's callbacks want it to be `Send`; it never leaves the thread.
pub trait Wire: Send + Sync {
    /// Sends an informational response (1xx) before the final one.
    fn inform(&self, head: &[u8]);
    /// The connection is about to speak another protocol.
    fn leave_http(&self);
}

/// Where requests come from: one connection of one listener.
pub struct Origin {
    listener: Arc<str>,
    /// The listener's place in the snapshot of that revision.
    place: Cell<(u64, usize)>,
    /// The last rules that knew the listener.
    known: RefCell<Option<Rc<View>>>,
    /// The other end; none for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The same as a header value, made once.
    pub(crate) peer_text: HeaderValue,
    /// Whether it is TLS.
    pub secure: bool,
    /// Requests in flight on this connection. Atomic only because the HTTP library wants the
    /// socket, which looks at it, to be `Send`.
    pub requests: Arc<AtomicUsize>,
    wire: RefCell<Option<Arc<dyn Wire>>>,
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin")
            .field("listener", &self.listener)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Origin {
    /// A connection that a listener has accepted.
    pub fn new(listener: Arc<str>, peer: Option<SocketAddr>) -> Rc<Self> {
        let peer_text = peer
            .and_then(|peer| HeaderValue::try_from(peer.ip().to_canonical().to_string()).ok())
            .unwrap_or_else(|| HeaderValue::from_static("unknown"));
        Rc::new(Self {
            listener,
            place: Cell::new((u64::MAX, 0)),
            known: RefCell::new(None),
            peer,
            peer_text,
            secure: false,
            requests: Arc::default(),
            wire: RefCell::new(None),
        })
    }

    /// Says how to reach the client's wire.
    pub fn attach(&self, wire: Arc<dyn Wire>) {
        self.wire.replace(Some(wire));
    }

    /// The client's wire, where it is HTTP/1's.
    pub(crate) fn wire(&self) -> Option<Arc<dyn Wire>> {
        self.wire.borrow().clone()
    }

    /// A request begins, from the moment on when its head is here: whoever looks at the connection
    /// must not take it for idle before its work has begun.
    pub fn enter(self: &Rc<Self>) -> Entered {
        self.requests
            .store(self.requests.load(Relaxed) + 1, Relaxed);
        Entered(Rc::clone(self))
    }

    /// The rules for a new request, and the listener's place in them.
    ///
    /// A listener that was taken out of the configuration keeps its last rules until its
    /// connections have ended. None if it was taken out before the connection's first request:
    /// no rules are its own then, and those of another are not for its clients.
    pub(crate) fn pin(&self, local: &Local) -> Option<(Rc<View>, usize)> {
        let view = local.reader.view();
        let (revision, place) = self.place.get();
        if view.snapshot.revision == revision {
            return Some((view, place));
        }
        if let Some(place) = view.snapshot.listener_named(&self.listener) {
            self.place.set((view.snapshot.revision, place));
            self.known.replace(Some(Rc::clone(&view)));
            return Some((view, place));
        }
        let known = self.known.borrow().clone();
        known.map(|known| (known, place))
    }
}

/// A request's connection, on which it counts as in flight until this is dropped.
#[derive(Debug)]
pub struct Entered(Rc<Origin>);

impl std::ops::Deref for Entered {
    type Target = Origin;

    fn deref(&self) -> &Origin {
        &self.0
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.requests
            .store(self.requests.load(Relaxed) - 1, Relaxed);
    }
}
