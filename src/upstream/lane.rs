//! One worker's way to an upstream: its balancer, its connections, its counts.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{self, Future};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use futures_util::future::{Either, LocalBoxFuture};

use crate::base::clock;
use crate::base::message::{Request, Response};
use crate::upstream::affinity::AffinitySettings;
use crate::upstream::balance::{Balance, Balancer, Choice};
use crate::upstream::client::{Bound, OnInformational, Site, Tally};
use crate::upstream::connect::{Dial, Dialer};
use crate::upstream::failure::{Cause, Failure};
use crate::upstream::limits::{Full, Gradient, Permit};
use crate::upstream::members::{Member, Members};
use crate::upstream::sending::{Sending, Turn};
use crate::upstream::{Latencies, Protocol, RetryBudget, Upstream};

/// One worker's way to an upstream.
///
/// When it is dropped, idle connections close at once and those in use when their answer ends.
pub struct Lane {
    upstream: Arc<Upstream>,
    /// The version of the members that the table was made of.
    seen: Cell<u64>,
    table: RefCell<Table>,
    random: RefCell<fastrand::Rng>,
    tally: Rc<Tally>,
    /// The connects that were told of already.
    told: Cell<(u64, u64)>,
    /// How many more requests listen for informational responses without a reason to.
    listens: Cell<u8>,
    /// What retries may cost.
    budget: RefCell<RetryBudget>,
    /// Told by routes that hedge.
    latencies: RefCell<Latencies>,
    /// The limit that follows latency, where there is one.
    pub(super) gradient: Option<RefCell<Gradient>>,
    /// Set while a request is given up because it took too long.
    pub(super) timed_out: Cell<bool>,
    /// Requests of this lane whose answer's head is not there yet.
    pub(super) pending: Cell<u32>,
}

/// What a lane has for each endpoint; made anew when the members change.
struct Table {
    members: Arc<Members>,
    /// By the endpoint's number.
    sites: Vec<Option<Rc<Site>>>,
    balancer: Balancer,
}

/// How to send one request.
pub struct SendOptions<'a> {
    /// The time, as the caller read it last.
    pub now: Instant,
    /// Endpoints to take only if there is no other: those where earlier attempts failed.
    pub avoid: &'a [u32],
    /// The hash of the request's key, where the policy wants one: see [`Lane::key`].
    pub key: Option<u64>,
    /// The hash of the endpoint that the client shall stay with, as long as it may take requests.
    pub stay: Option<u64>,
    /// Called for each informational answer (1xx but 101); HTTP/1.1 only.
    pub on_informational: Option<OnInformational>,
    /// Where the chosen endpoint is noted, for a caller who may not wait for the end.
    pub picked: Option<&'a Cell<Option<u32>>>,
}

/// An answer, and who gave it.
#[derive(Debug)]
pub struct Sent {
    /// Its head, and its body as it comes.
    pub response: Response,
    /// The endpoint's number.
    pub endpoint: u32,
    /// Its address, where it is one of TCP.
    pub address: Option<SocketAddr>,
    /// When the head was there; a clock reading for the caller to share.
    pub at: Instant,
    /// Room under the limit of requests, where there is one: to be kept until the answer's end.
    pub permit: Option<Permit>,
}

/// What a lane's connections do, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections with a request on them.
    pub active: u32,
    /// Connections that wait for a request.
    pub idle: u32,
    /// Connections made since the lane was.
    pub connects: u64,
    /// Connections that could not be made.
    pub connect_failures: u64,
}

impl SendOptions<'_> {
    /// Nobody to avoid, and informational answers are dropped.
    pub fn new(now: Instant) -> Self {
        Self {
            now,
            avoid: &[],
            key: None,
            stay: None,
            on_informational: None,
            picked: None,
        }
    }
}

/// Enough for a test by hand, too few to matter.
const LISTENS: u8 = 16;

impl Lane {
    /// A way to `upstream` without any connection yet.
    pub fn new(upstream: Arc<Upstream>) -> Rc<Self> {
        Self::through(upstream, None)
    }

    /// The same without a network: `dial` makes the connections.
    pub fn rehearsing(upstream: Arc<Upstream>, dial: Rc<dyn Dial>) -> Rc<Self> {
        let dialer = Dialer {
            dial,
            upstream: upstream.name().into(),
        };
        Self::through(upstream, Some(dialer))
    }

    fn through(upstream: Arc<Upstream>, dialer: Option<Dialer>) -> Rc<Self> {
        let now = clock::now();
        let mut random = fastrand::Rng::new();
        let tally = Tally::new(now).dialing(dialer);
        let limits = &upstream.limits;
        let tally = Rc::new(match &limits.slots {
            Some(slots) => tally.bounded(Bound::new(Arc::clone(slots), Arc::clone(&limits.queue))),
            None => tally,
        });
        let seen = upstream.version();
        let table = Table::new(&upstream, None, &tally, random.u64(..), now);
        let adaptive = upstream.settings().limits.adaptive.as_ref();
        Rc::new(Self {
            seen: Cell::new(seen),
            table: RefCell::new(table),
            random: RefCell::new(random),
            tally,
            told: Cell::default(),
            listens: Cell::new(LISTENS),
            budget: RefCell::new(RetryBudget::new(now)),
            latencies: RefCell::default(),
            gradient: adaptive.map(|settings| RefCell::new(Gradient::new(settings))),
            timed_out: Cell::new(false),
            pending: Cell::new(0),
            upstream,
        })
    }

    /// Whom it leads to.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// What retries may cost.
    pub fn budget(&self) -> &RefCell<RetryBudget> {
        &self.budget
    }

    /// How long answers take lately, where a route wants to know.
    pub fn latencies(&self) -> &RefCell<Latencies> {
        &self.latencies
    }

    /// Sends a request to an endpoint of the balancer's choice.
    ///
    /// Deadlines are the caller's, but for those of a new connection and of a place in the queue.
    ///
    /// # Errors
    /// A [`Failure`], with the request in it where it may be sent again.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request: HTTP/1.1 closes the connection, HTTP/2 resets the
    /// stream.
    pub fn send<'a>(
        self: &Rc<Self>,
        request: Request,
        options: SendOptions<'a>,
    ) -> impl Future<Output = Result<Sent, Box<Failure>>> + use<'a> {
        self.tally.now.set(options.now);
        if self.upstream.version() != self.seen.get() {
            self.renew(options.now);
        }
        if self.is_beyond_gradient() {
            let why = "as many requests are under way as `limits.adaptive` has found useful";
            return Either::Right(future::ready(Err(self.overflow(request, why))));
        }
        match &self.upstream.limits.gate {
            None => self.start(request, options, None),
            Some(gate) => match gate.try_enter() {
                Some(permit) => self.start(request, options, Some(permit)),
                None => Either::Left(Either::Right(self.queue(request, options))),
            },
        }
    }

    fn start<'a>(
        self: &Rc<Self>,
        request: Request,
        options: SendOptions<'a>,
        permit: Option<Permit>,
    ) -> Way<'a, impl Future<Output = Result<Response, Box<Failure>>> + use<>> {
        match self.pick(&options) {
            Some(turn) => {
                let site = Rc::clone(&turn.site);
                let exchange = site.send(request, options.on_informational);
                Either::Left(Either::Left(Sending::new(exchange, turn, permit)))
            }
            None => Either::Right(future::ready(Err(self.nobody(request)))),
        }
    }

    /// Waits for room.
    #[cold]
    fn queue<'a>(
        self: &Rc<Self>,
        request: Request,
        mut options: SendOptions<'a>,
    ) -> LocalBoxFuture<'a, Result<Sent, Box<Failure>>> {
        let lane = Rc::clone(self);
        let Some(gate) = lane.upstream.limits.gate.clone() else {
            return Box::pin(future::ready(Err(self.nobody(request))));
        };
        Box::pin(async move {
            let permit = match gate.enter().await {
                Ok(permit) => permit,
                Err(full) => return Err(lane.full(request, full)),
            };
            options.now = clock::now();
            lane.tally.now.set(options.now);
            lane.start(request, options, Some(permit)).await
        })
    }

    fn is_beyond_gradient(&self) -> bool {
        let limit = |gradient: &RefCell<Gradient>| gradient.borrow().limit();
        self.gradient
            .as_ref()
            .is_some_and(|gradient| self.pending.get() >= limit(gradient))
    }

    /// The hash of the request's key, where the policy sends a key to one place.
    pub fn key(&self, head: &crate::base::message::RequestHead) -> Option<u64> {
        match &self.upstream.settings().balance {
            Balance::RingHash(hashing) | Balance::Maglev(hashing) => hashing.by.hash(head),
            _ => None,
        }
    }

    /// How clients are kept with their endpoints, if they are.
    pub fn affinity(&self) -> Option<&AffinitySettings> {
        self.upstream.settings().affinity.as_ref()
    }

    /// Whether a request should listen for informational responses (1xx).
    ///
    /// Listening costs a request five allocations, and hardly any upstream ever sends one. So the
    /// first requests of a lane listen, and all of them from the moment on when an endpoint was seen
    /// to send one: at worst a single response that nobody may rely on (RFC 9110, 15.2) is lost.
    pub fn listens(&self) -> bool {
        if self.upstream.settings().protocol != Protocol::Http1 {
            return false;
        }
        let left = self.listens.get();
        self.listens.set(left.saturating_sub(1));
        left > 0 || self.upstream.informs.load(Relaxed)
    }

    /// Closes connections that were idle for too long or are too old, and lets go of endpoints that
    /// have left; for the worker's tick.
    pub fn sweep(&self, now: Instant) {
        self.tally.now.set(now);
        if self.upstream.version() != self.seen.get() {
            self.renew(now);
        }
        for site in self.table.borrow().sites.iter().flatten() {
            site.sweep(now);
        }
        self.tally.share();
    }

    /// Connections that were made, and that could not be, since this was last asked.
    pub fn new_connects(&self) -> (u64, u64) {
        let now = (self.tally.connects.get(), self.tally.connect_failures.get());
        let (made, failed) = self.told.replace(now);
        (now.0 - made, now.1 - failed)
    }

    /// What its connections do now.
    pub fn counts(&self) -> Counts {
        let open = self.tally.open.get();
        let table = self.table.borrow();
        let idle = table.sites.iter().flatten().map(|site| site.idle());
        let idle = idle.sum::<u32>().min(open);
        Counts {
            active: open - idle,
            idle,
            connects: self.tally.connects.get(),
            connect_failures: self.tally.connect_failures.get(),
        }
    }

    /// Takes the members as they are now, and with them what the last table knew.
    #[cold]
    fn renew(&self, now: Instant) {
        self.seen.set(self.upstream.version());
        let random = self.random.borrow_mut().u64(..);
        let before = self.table.borrow();
        let table = Table::new(&self.upstream, Some(&before), &self.tally, random, now);
        drop(before);
        // What is dropped closes its idle connections, and so may look at the lane again.
        let _old = self.table.replace(table);
    }

    fn pick(self: &Rc<Self>, options: &SendOptions<'_>) -> Option<Turn> {
        let random = self.random.borrow_mut().u64(..);
        let mut table = self.table.borrow_mut();
        let table = &mut *table;
        let stays = options
            .stay
            .and_then(|hash| table.find(hash, options.avoid));
        let endpoint = match stays {
            Some(endpoint) => {
                table.balancer.begin(endpoint);
                endpoint
            }
            None => table.balancer.pick(&Choice {
                avoid: options.avoid,
                key: options.key,
                random,
                now: options.now,
            })?,
        };
        let site = table.sites.get(endpoint as usize)?.as_ref()?;
        if let Some(picked) = options.picked {
            picked.set(Some(endpoint));
        }
        let watch = table
            .members
            .get(endpoint)
            .and_then(|member| member.watch.as_ref());
        Some(Turn::new(self, site, endpoint, watch, options.now))
    }

    pub(super) fn settle(
        &self,
        endpoint: u32,
        outcome: crate::upstream::balance::Outcome,
        now: Instant,
    ) {
        self.table
            .borrow_mut()
            .balancer
            .settle(endpoint, outcome, now);
    }

    /// Gives a request up by `dropping` its future, and holds it against the endpoint.
    pub fn give_up(&self, dropping: impl FnOnce()) {
        self.timed_out.set(true);
        dropping();
        self.timed_out.set(false);
    }

    /// A random number of this worker's.
    pub(super) fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    #[cold]
    fn nobody(&self, request: Request) -> Box<Failure> {
        let detail = self.table.borrow().members.nobody(self.upstream.name());
        Failure::before(Cause::NoEndpoint, detail).with_request(request)
    }

    #[cold]
    fn full(&self, request: Request, full: Full) -> Box<Failure> {
        self.overflow(request, &full.to_string())
    }

    #[cold]
    fn overflow(&self, request: Request, why: &str) -> Box<Failure> {
        let detail = format!("upstream `{}` is at its limit: {why}", self.upstream.name());
        Failure::before(Cause::Overflow, detail).with_request(request)
    }
}

/// A request that is under way, waits in the queue, or has failed already.
type Way<'a, F> = Either<
    Either<Sending<F>, LocalBoxFuture<'a, Result<Sent, Box<Failure>>>>,
    future::Ready<Result<Sent, Box<Failure>>>,
>;

impl Table {
    fn new(
        upstream: &Arc<Upstream>,
        before: Option<&Self>,
        tally: &Rc<Tally>,
        random: u64,
        now: Instant,
    ) -> Self {
        let members = upstream.members();
        let site = |number: usize| {
            let number = u32::try_from(number).ok()?;
            let member = members.get(number).filter(|member| !member.has_left())?;
            Some(match before.and_then(|before| before.site(member)) {
                Some(site) => Rc::clone(site),
                None => Rc::new(Site::new(upstream, member, tally)),
            })
        };
        let sites = (0..members.size()).map(site).collect();
        let balancer = Balancer::new(
            &upstream.settings().balance,
            members.candidates(),
            random,
            now,
            before.map(|before| &before.balancer),
        );
        Self {
            members,
            sites,
            balancer,
        }
    }

    /// What there is for an endpoint, if it is still the same.
    fn site(&self, member: &Member) -> Option<&Rc<Site>> {
        let site = self.sites.get(member.number as usize)?.as_ref()?;
        let (old, new) = (&site.endpoint, &member.endpoint);
        // Another weight or zone is no reason for new connections.
        (old.address == new.address && old.host == new.host).then_some(site)
    }

    /// The candidate with that hash, unless it is to be avoided.
    fn find(&self, hash: u64, avoid: &[u32]) -> Option<u32> {
        let mut candidates = self.members.candidates().iter();
        let found = candidates.find(|candidate| candidate.hash == hash)?;
        (!avoid.contains(&found.number)).then_some(found.number)
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("upstream", &self.upstream.name())
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SendOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendOptions")
            .field("avoid", &self.avoid)
            .finish_non_exhaustive()
    }
}
