//! One request at one endpoint, and all who must hear of its end: the balancer, the watch over
//! failures, the limit that follows latency.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::StatusCode;
use pin_project_lite::pin_project;

use crate::base::clock;
use crate::base::message::{Response, ResponseHead};
use crate::upstream::balance::Outcome;
use crate::upstream::client::Site;
use crate::upstream::failure::{Cause, Failure};
use crate::upstream::health::outlier::{Epoch, Failed, Watch};
use crate::upstream::lane::{Lane, Sent};
use crate::upstream::limits::Permit;

pin_project! {
    /// A request on its way. A future by hand, for an `async` block would keep the exchange twice.
    pub(super) struct Sending<F> {
        #[pin]
        exchange: F,
        turn: Turn,
        permit: Option<Permit>,
    }
}

impl<F> Sending<F> {
    pub(super) fn new(exchange: F, turn: Turn, permit: Option<Permit>) -> Self {
        Self {
            exchange,
            turn,
            permit,
        }
    }
}

impl<F: Future<Output = Result<Response, Box<Failure>>>> Future for Sending<F> {
    type Output = Result<Sent, Box<Failure>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.exchange.poll(cx));
        let at = clock::now();
        this.turn.settle(&result, at);
        Poll::Ready(result.map(|response| Sent {
            response,
            endpoint: this.turn.endpoint,
            address: this.turn.site.tcp(),
            at,
            permit: this.permit.take(),
        }))
    }
}

/// A request at an endpoint that the balancer must hear the end of, even if nobody waits for it.
pub(super) struct Turn {
    lane: Rc<Lane>,
    pub(super) site: Rc<Site>,
    endpoint: u32,
    start: Instant,
    /// Who counts the endpoint's failures, and since which return this request was under way.
    watch: Option<(Arc<Watch>, Epoch)>,
    settled: Cell<bool>,
}

impl Turn {
    pub(super) fn new(
        lane: &Rc<Lane>,
        site: &Rc<Site>,
        endpoint: u32,
        watch: Option<&Arc<Watch>>,
        start: Instant,
    ) -> Self {
        lane.pending.set(lane.pending.get() + 1);
        Self {
            lane: Rc::clone(lane),
            site: Rc::clone(site),
            endpoint,
            start,
            // A count that workers share, but only where outliers are ejected.
            watch: watch.map(|watch| (Arc::clone(watch), watch.epoch())),
            settled: Cell::new(false),
        }
    }

    fn settle(&self, result: &Result<Response, Box<Failure>>, now: Instant) {
        let took = now.saturating_duration_since(self.start);
        let outcome = match result {
            Ok(response) if says_not_me(&response.head) => Outcome::Failed(took),
            Ok(_) => Outcome::Answered(took),
            // The client's fault, not the endpoint's.
            Err(failure) if matches!(failure.cause, Cause::RequestBody(_)) => {
                Outcome::Abandoned(took)
            }
            // Ours, or nobody's.
            Err(failure) if matches!(failure.cause, Cause::Overflow) => {
                Outcome::Abandoned(Duration::ZERO)
            }
            Err(_) => Outcome::Failed(took),
        };
        self.watched(result, now);
        self.end(outcome, now);
    }

    /// Tells the watch; the endpoint may be ejected for it.
    fn watched(&self, result: &Result<Response, Box<Failure>>, now: Instant) {
        let Some((watch, epoch)) = &self.watch else {
            return;
        };
        let failed = match result {
            Ok(response) => Failed::by_status(response.head.status)
                .or_else(|| Failed::by_grpc_status(response.head.grpc_status()?)),
            Err(failure) => match Failed::by_cause(&failure.cause) {
                Some(failed) => Some(failed),
                None => return,
            },
        };
        self.watched_as(watch, *epoch, failed, now);
    }

    fn watched_as(&self, watch: &Watch, epoch: Epoch, failed: Option<Failed>, now: Instant) {
        let upstream = self.lane.upstream();
        if upstream.compares() {
            watch.add(u64::from(failed.is_none()), u64::from(failed.is_some()));
        }
        match failed {
            None => watch.success(epoch),
            Some(failed) => {
                if let Some(reason) = watch.failure(failed, epoch) {
                    upstream.eject(self.endpoint, reason, self.lane.random(), now);
                }
            }
        }
    }

    fn end(&self, outcome: Outcome, now: Instant) {
        self.settled.set(true);
        let lane = &self.lane;
        let pending = lane.pending.get();
        lane.pending.set(pending.saturating_sub(1));
        if let Some(gradient) = &lane.gradient {
            let mut gradient = gradient.borrow_mut();
            match outcome {
                Outcome::Answered(took) => gradient.observe(took, pending, false, now),
                Outcome::Failed(took) => gradient.observe(took, pending, true, now),
                Outcome::Abandoned(_) => {}
            }
        }
        lane.settle(self.endpoint, outcome, now);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.settled.get() {
            let now = clock::now();
            let took = now.saturating_duration_since(self.start);
            if !self.lane.timed_out.get() {
                return self.end(Outcome::Abandoned(took), now);
            }
            if let Some((watch, epoch)) = &self.watch {
                self.watched_as(watch, *epoch, Some(Failed::Gateway), now);
            }
            self.end(Outcome::Failed(took), now);
        }
    }
}

/// Answers with which an endpoint says that others should be asked now.
fn says_not_me(head: &ResponseHead) -> bool {
    head.says_unavailable() || head.status == StatusCode::TOO_MANY_REQUESTS
}
