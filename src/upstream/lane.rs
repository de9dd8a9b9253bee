//! One worker's way to an upstream: its balancer, its connections, its counts.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{self, Future};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_util::future::Either;
use http::StatusCode;
use pin_project_lite::pin_project;

use crate::base::message::{Request, Response};
use crate::upstream::balance::{Balancer, Outcome};
use crate::upstream::client::{OnInformational, Site, Tally};
use crate::upstream::failure::{Cause, Failure};
use crate::upstream::{Latencies, Protocol, RetryBudget, Upstream};

/// One worker's way to an upstream.
///
/// When it is dropped, idle connections close at once and those in use when their answer ends.
pub struct Lane {
    upstream: Arc<Upstream>,
    /// By the endpoint's number.
    sites: Box<[Rc<Site>]>,
    balancer: RefCell<Balancer>,
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
}

/// How to send one request.
pub struct SendOptions<'a> {
    /// The time, as the caller read it last.
    pub now: Instant,
    /// Endpoints to take only if there is no other: those where earlier attempts failed.
    pub avoid: &'a [u32],
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
        let now = Instant::now();
        let mut random = fastrand::Rng::new();
        let tally = Rc::new(Tally::new(now));
        let members = upstream.members();
        let site = |number| Rc::new(Site::new(&upstream, number, &tally));
        let balance = upstream.settings().balance;
        Rc::new(Self {
            sites: (0..).take(members.endpoints().len()).map(site).collect(),
            balancer: RefCell::new(Balancer::new(
                balance,
                members.shares(),
                random.u64(..),
                now,
            )),
            random: RefCell::new(random),
            tally,
            told: Cell::default(),
            listens: Cell::new(LISTENS),
            budget: RefCell::new(RetryBudget::new(now)),
            latencies: RefCell::default(),
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
    /// Deadlines are the caller's, but for that of a new connection.
    ///
    /// # Errors
    /// A [`Failure`], with the request in it where it may be sent again.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the request: HTTP/1.1 closes the connection, HTTP/2 resets the
    /// stream.
    pub fn send(
        self: &Rc<Self>,
        request: Request,
        options: SendOptions<'_>,
    ) -> impl Future<Output = Result<Sent, Box<Failure>>> + use<'_> {
        self.tally.now.set(options.now);
        match self.pick(&options) {
            Some((turn, site)) => Either::Left(Sending {
                exchange: site.send(request, options.on_informational),
                turn,
            }),
            None => Either::Right(future::ready(Err(self.nobody(request)))),
        }
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

    /// Closes connections that were idle for too long or are too old; for the worker's tick.
    pub fn sweep(&self, now: Instant) {
        self.tally.now.set(now);
        for site in &self.sites {
            site.sweep(now);
        }
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
        let idle = self
            .sites
            .iter()
            .map(|site| site.idle())
            .sum::<u32>()
            .min(open);
        Counts {
            active: open - idle,
            idle,
            connects: self.tally.connects.get(),
            connect_failures: self.tally.connect_failures.get(),
        }
    }

    fn pick(&self, options: &SendOptions<'_>) -> Option<(Turn<'_>, &Rc<Site>)> {
        let random = self.random.borrow_mut().u64(..);
        let mut balancer = self.balancer.borrow_mut();
        let endpoint = balancer.pick(options.avoid, random, options.now)?;
        let site = self.sites.get(endpoint as usize)?;
        if let Some(picked) = options.picked {
            picked.set(Some(endpoint));
        }
        let turn = Turn {
            lane: self,
            site,
            endpoint,
            start: options.now,
            settled: Cell::new(false),
        };
        Some((turn, site))
    }

    fn nobody(&self, request: Request) -> Box<Failure> {
        let name = self.upstream.name();
        let detail = if self.sites.is_empty() {
            format!("upstream `{name}` has no endpoints")
        } else {
            format!("no endpoint of upstream `{name}` may take a request")
        };
        let failure = Box::new(Failure {
            cause: Cause::NoEndpoint,
            endpoint: None,
            address: None,
            detail,
            unprocessed: true,
            request: None,
        });
        failure.with_request(request)
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

pin_project! {
    /// A request on its way. A future by hand, for an `async` block would keep the exchange twice.
    struct Sending<'a, F> {
        #[pin]
        exchange: F,
        turn: Turn<'a>,
    }
}

impl<F: Future<Output = Result<Response, Box<Failure>>>> Future for Sending<'_, F> {
    type Output = Result<Sent, Box<Failure>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.exchange.poll(cx));
        let at = Instant::now();
        this.turn.settle(&result, at);
        Poll::Ready(result.map(|response| Sent {
            response,
            endpoint: this.turn.endpoint,
            address: this.turn.site.tcp(),
            at,
        }))
    }
}

/// A request at an endpoint that the balancer must hear the end of, even if nobody waits for it.
struct Turn<'a> {
    lane: &'a Lane,
    site: &'a Site,
    endpoint: u32,
    start: Instant,
    settled: Cell<bool>,
}

impl Turn<'_> {
    fn settle(&self, result: &Result<Response, Box<Failure>>, now: Instant) {
        let took = now.saturating_duration_since(self.start);
        let outcome = match result {
            Ok(response) if says_not_me(response.head.status) => Outcome::Failed(took),
            Ok(_) => Outcome::Answered(took),
            // The client's fault, not the endpoint's.
            Err(failure) if matches!(failure.cause, Cause::RequestBody(_)) => {
                Outcome::Abandoned(took)
            }
            Err(_) => Outcome::Failed(took),
        };
        self.end(outcome, now);
    }

    fn end(&self, outcome: Outcome, now: Instant) {
        self.settled.set(true);
        self.lane
            .balancer
            .borrow_mut()
            .settle(self.endpoint, outcome, now);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.settled.get() {
            let now = Instant::now();
            let took = now.saturating_duration_since(self.start);
            self.end(Outcome::Abandoned(took), now);
        }
    }
}

/// Answers with which an endpoint, or a gateway before it, says that it cannot serve.
fn says_not_me(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}
