//! Trying again: what is kept of a request for it, and the attempts after the first.
//!
//! [`retry`](crate::proxy::retry) decides; here is done what it says.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use http::header;
use smallvec::SmallVec;

use crate::base::body::Body;
use crate::base::clock::{self, Timeout};
use crate::base::message::{Client, Request, RequestHead};
use crate::base::replay::Replay;
use crate::config::{Condition, Retry};
use crate::proxy::attempt::{self, Clock, Outcome, attempt};
use crate::proxy::context::{Asked, Exchange};
use crate::proxy::failure::Failure;
use crate::proxy::inform;
use crate::proxy::retry::{self, Ended, Facts, Nature, Pushback, Resend, Verdict, Why};
use crate::snapshot::Route;
use crate::telemetry::decision::Flag;
use crate::telemetry::metrics;
use crate::upstream::{Lane, Protocol, SendOptions, Sent};

/// What holds where a route says nothing: whatever was certainly not begun is tried again, and what
/// may be repeated and has no body is when its connection ends before the answer.
pub(crate) static DEFAULT: Retry = Retry::DEFAULT;

/// The policy of a route.
pub(crate) fn policy(route: &Route) -> &Retry {
    route.retry.as_deref().unwrap_or(&DEFAULT)
}

/// True for an answer that needs no second look: mostly all of them.
pub(crate) fn is_good(route: &Route, sent: &Sent) -> bool {
    match &route.retry {
        Some(policy) => !retry::names(policy, Ended::answered(&sent.response.head)),
        // The policy without a section names no answer.
        None => true,
    }
}

/// A copy of a request, for another attempt.
pub(crate) struct Spare {
    head: RequestHead,
    /// None if there is no body.
    body: Option<Replay>,
}

/// Keeps a copy of a request where the route may have use for it; its body passes as before.
pub(crate) fn keep(
    request: &mut Request,
    lane: &Lane,
    route: &Route,
    nature: Nature,
) -> Option<Box<Spare>> {
    let wanted = match &route.retry {
        _ if nature == Nature::LeavesHttp => false,
        _ if route.hedge.is_some() && nature == Nature::Idempotent => true,
        Some(policy) => is_of_use(policy, nature),
        None => is_kept_by_default(request, lane),
    };
    if !wanted {
        return None;
    }
    let body = (!request.body.is_empty()).then(|| {
        let body = std::mem::take(&mut request.body);
        let (body, replay) = Replay::new(body, policy(route).buffer);
        request.body = body;
        replay
    });
    Some(Box::new(Spare {
        head: request.head.copy(),
        body,
    }))
}

/// True if a policy may send a request again that is not handed back untouched.
fn is_of_use(policy: &Retry, nature: Nature) -> bool {
    policy.attempts > 1
        && match nature {
            // A failure to connect always hands it back.
            Nature::Idempotent => *policy.on != [Condition::ConnectFailure],
            Nature::Once => policy.on.contains(&Condition::RefusedStream),
            Nature::LeavesHttp => false,
        }
}

/// Where the route says nothing, copies are kept only where they cost little: a stream of HTTP/2 may
/// be refused. Of requests on idle connections of HTTP/1.1 the upstream's side keeps one.
fn is_kept_by_default(request: &Request, lane: &Lane) -> bool {
    request.body.is_empty() && lane.upstream().settings().protocol == Protocol::Http2
}

impl Spare {
    /// The request once more, if its body can still be sent from its first byte on.
    pub(crate) fn again(&self) -> Option<Request> {
        let body = match &self.body {
            Some(replay) => replay.again()?,
            None => Body::empty(),
        };
        Some(Request {
            head: self.head.copy(),
            body,
        })
    }

    fn is_whole(&self) -> bool {
        self.body.as_ref().is_none_or(Replay::is_whole)
    }

    /// True if the whole body is here, so that two may send it at once.
    pub(crate) fn is_complete(&self) -> bool {
        self.body.as_ref().is_none_or(Replay::is_complete)
    }
}

/// A client that stays with its endpoint.
pub(crate) struct Stay {
    client: Client,
    /// The hash of that endpoint, if it has one already.
    wanted: Option<u64>,
}

/// Whom the client shall stay with, where the upstream keeps clients.
pub(crate) fn stay(lane: &Lane, head: &RequestHead) -> Option<Box<Stay>> {
    let affinity = lane.affinity()?;
    Some(Box::new(Stay {
        client: head.client,
        wanted: affinity.wanted(head),
    }))
}

/// What all attempts of one request have in common.
pub(crate) struct Tries<'a> {
    pub lane: &'a Rc<Lane>,
    pub route: &'a Route,
    pub nature: Nature,
    /// How long both sides may be silent.
    pub idle: Option<Duration>,
    pub spare: Option<Box<Spare>>,
    /// The endpoint that the client shall stay with.
    pub stay: Option<Box<Stay>>,
}

impl Tries<'_> {
    /// What an attempt that begins `now` needs beside its request.
    pub(crate) fn prepare(
        &self,
        exchange: &Exchange,
        request: &mut Request,
        now: Instant,
    ) -> (SendOptions<'static>, Clock) {
        let mut options = SendOptions::new(now);
        options.key = self.lane.key(&request.head);
        options.stay = self.stay.as_ref().and_then(|stay| stay.wanted);
        let permit = inform::expect_continue(request);
        options.on_informational = inform::relay(exchange, self.lane, permit);
        let clock = Clock::new(
            self.idle,
            self.route.timeouts.attempt.map(|attempt| now + attempt),
            exchange.limits.deadline,
            exchange.received.clone(),
        );
        (options, clock)
    }

    /// Has the client come back to whoever answered it.
    pub(crate) fn keep_client(&self, sent: &mut Sent) {
        let (Some(stay), Some(affinity)) = (&self.stay, self.lane.affinity()) else {
            return;
        };
        let members = self.lane.upstream().members();
        if let Some(member) = members.get(sent.endpoint)
            && stay.wanted != Some(member.endpoint.hash)
        {
            let cookie = affinity.set_cookie(member.endpoint.hash, &stay.client);
            sent.response
                .head
                .headers
                .append(header::SET_COOKIE, cookie);
        }
    }

    /// The first attempt.
    pub(crate) fn begin<'a>(
        &'a self,
        exchange: &'a Exchange,
        request: &mut Request,
        now: Instant,
        picked: &'a Cell<Option<u32>>,
    ) -> impl Future<Output = Outcome> + use<'a> {
        let (options, clock) = self.prepare(exchange, request, now);
        let request = std::mem::take(request);
        attempt(
            self.lane,
            request,
            options,
            clock,
            &exchange.local.sweep,
            picked,
        )
    }

    /// Tries again as long as that may be, and gives the last attempt's end.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the attempt that is under way; no other begins.
    pub(crate) async fn go_on(
        &self,
        exchange: &mut Exchange,
        mut outcome: Outcome,
    ) -> Result<Sent, Failure> {
        loop {
            let now = clock::now();
            let (request, wait) = match self.decide(exchange, &mut outcome, now) {
                Ok(next) => next,
                Err(why) => return self.over(exchange, outcome, why),
            };
            // The old answer goes before the wait: nobody will read it.
            drop(outcome);
            if !wait.is_zero() {
                Timeout::new(&exchange.local.sweep, now, wait).await;
            }
            outcome = self.attempt(exchange, request).await;
            let ended = if is_failed(policy(self.route), &outcome) {
                metrics::Retry::Failed
            } else {
                metrics::Retry::Succeeded
            };
            count(exchange, ended);
        }
    }

    /// The request of the next attempt and the wait before it, or why there is none.
    fn decide(
        &self,
        exchange: &Exchange,
        outcome: &mut Outcome,
        now: Instant,
    ) -> Result<(Request, Duration), Why> {
        let (ended, pushback) = match outcome {
            Ok(sent) => {
                let head = &sent.response.head;
                let pushback = retry::pushback(head, SystemTime::now());
                (Ended::answered(head), pushback)
            }
            Err(failed) => (ended(failed), Pushback::Nothing),
        };
        let (untouched, copied) = match outcome {
            Ok(_) => (None, None),
            Err(failed) => (failed.request.take(), failed.copy.take()),
        };
        let resend = match (&untouched, &copied, &self.spare) {
            (Some(_), ..) => Resend::Untouched,
            (None, Some(_), _) => Resend::Copy,
            (None, None, Some(spare)) if spare.is_whole() => Resend::Copy,
            _ => Resend::Gone,
        };
        let facts = Facts {
            made: u32::try_from(exchange.decision.attempts.len()).unwrap_or(u32::MAX),
            nature: self.nature,
            resend,
            pushback,
            deadline: exchange.limits.deadline,
        };
        let mut budget = self.lane.budget().borrow_mut();
        let policy = policy(self.route);
        match retry::decide(policy, ended, &facts, &mut budget, now, fastrand::u64(..)) {
            Verdict::Over(why) => Err(why),
            Verdict::Again(wait) => {
                // Now, not after the wait: whoever still reads the body must not take more of it.
                let copy = || self.spare.as_ref().and_then(|spare| spare.again());
                let request = untouched.or(copied).or_else(copy);
                let request = request.ok_or(Why::Gone)?;
                Ok((request, wait))
            }
        }
    }

    /// One more attempt, if possible elsewhere.
    async fn attempt(&self, exchange: &mut Exchange, mut request: Request) -> Outcome {
        let now = clock::now();
        let (options, clock) = self.prepare(exchange, &mut request, now);
        let tried = tried(exchange);
        let options = SendOptions {
            avoid: &tried,
            ..options
        };
        let (picked, sweep) = (Cell::new(None), &exchange.local.sweep);
        let outcome = attempt(self.lane, request, options, clock, sweep, &picked).await;
        attempt::note(exchange, &outcome, now);
        outcome
    }

    /// What the client gets of the last attempt.
    fn over(&self, exchange: &mut Exchange, outcome: Outcome, why: Why) -> Result<Sent, Failure> {
        if why == Why::Budget {
            count(exchange, metrics::Retry::Refused);
        }
        if let Some(words) = self.in_words(why) {
            exchange.decision.note(words);
        }
        let attempts = exchange.decision.attempts.len();
        match outcome {
            Ok(sent) => {
                if attempts > 1 && why != Why::NotNamed {
                    exchange.exhausted = u32::try_from(attempts).ok();
                }
                Ok(sent)
            }
            Err(failed) => {
                let broken = self.spare.as_ref().and_then(|spare| spare.body.as_ref());
                if let Some(error) = broken.and_then(Replay::failure) {
                    // The cause of whatever the upstream made of it.
                    let detail = format!("the body of the request failed: {error}");
                    return Err(attempt::body_failed(error, detail));
                }
                Err(self.exhausted(failed.failure, attempts))
            }
        }
    }

    /// The last failure of several, as all of them.
    fn exhausted(&self, mut failure: Failure, attempts: usize) -> Failure {
        let is_the_endpoints = matches!(
            failure.flag,
            Flag::ConnectFailed
                | Flag::UpstreamClosed
                | Flag::UpstreamTimeout
                | Flag::UpstreamProtocol
        );
        if attempts > 1 && is_the_endpoints {
            let last = &failure.detail;
            failure.detail =
                format!("none of {attempts} attempts succeeded; the last: {last}").into();
            // Who asked for no retries is told the cause, not that there were some.
            if self.route.retry.is_some() {
                failure.flag = Flag::RetriesExhausted;
            }
        }
        failure
    }

    /// What the record says where a policy was not followed to its end.
    fn in_words(&self, why: Why) -> Option<&'static str> {
        match why {
            Why::NotNamed | Why::Attempts => None,
            Why::MayHaveRun => Some("not tried again: it may have run"),
            Why::Gone if self.spare.is_none() => {
                Some("not tried again: no copy was kept, which takes a `retry` on the route")
            }
            Why::Gone => Some("not tried again: its body is over `retry.buffer`"),
            Why::Pushback => Some("not tried again: the upstream asks for a longer wait"),
            Why::Deadline => Some("not tried again: its deadline is too near"),
            Why::Budget => Some("not tried again: the retry budget of the upstream is used up"),
        }
    }
}

fn ended(failed: &attempt::Failed) -> Ended {
    Ended::Failed {
        as_what: failed.as_what,
        ran: failed.ran,
    }
}

/// True if nothing came of an attempt, or an answer that the policy names.
pub(crate) fn is_failed(policy: &Retry, outcome: &Outcome) -> bool {
    match outcome {
        Ok(sent) => retry::names(policy, Ended::answered(&sent.response.head)),
        Err(_) => true,
    }
}

/// Endpoints that were tried.
pub(crate) fn tried(exchange: &Exchange) -> SmallVec<[u32; 4]> {
    let attempts = exchange.decision.attempts.iter();
    attempts.map(|attempt| attempt.endpoint).collect()
}

/// Counts what became of a retry.
pub(crate) fn count(exchange: &Exchange, outcome: metrics::Retry) {
    if let Some(Asked::Upstream(place)) = exchange.backend {
        let series = &exchange.view.snapshot.upstream(place).series;
        series.retry(exchange.local.id, outcome);
    }
}
