//! One try of a request at an upstream, within its limits of time.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::StatusCode;
use http::header::{self, HeaderValue};
use pin_project_lite::pin_project;

use crate::base::body::{BodyError, Progress};
use crate::base::clock::{self, Sweep, Timeout};
use crate::base::message::Request;
use crate::config::Condition;
use crate::proxy::context::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::retry::{self, Ran};
use crate::telemetry::decision::{self, Flag};
use crate::upstream::{self, Cause, Lane, SendOptions, Sent};

/// A try that failed.
pub(crate) struct Failed {
    pub failure: Failure,
    /// Which endpoint, if one was chosen.
    pub endpoint: Option<u32>,
    /// What it is called in a retry policy.
    pub as_what: Option<Condition>,
    /// Whether the endpoint can have begun to work on the request.
    pub ran: Ran,
    /// The request, where not a byte of it was sent.
    pub request: Option<Request>,
    /// A copy of it, where one was kept for a connection that had been idle.
    pub copy: Option<Request>,
}

/// What became of a try.
pub(crate) type Outcome = Result<Sent, Box<Failed>>;

/// How long a try may take, and what its passing means.
pub(crate) struct Clock {
    /// The longest silence of both sides.
    pub idle: Option<Duration>,
    /// When the head of the answer must be there.
    pub attempt: Option<Instant>,
    /// When the whole request must be over.
    pub deadline: Option<Instant>,
    /// How far the request's body has come: while it goes on, nobody is idle.
    pub received: Option<Arc<Progress>>,
    /// How many of its bytes the last ring saw.
    seen: u64,
    timer: Option<Timeout>,
}

/// A deadline that passes after so long is held against the endpoint, like a timeout.
const FAIR: Duration = Duration::from_secs(1);

/// Sends, and waits for the head of the answer; the chosen endpoint is noted in `picked` before.
///
/// # Cancel safety
/// Dropping the future cancels the try: the upstream sees its connection or stream end.
pub(crate) fn attempt<'a>(
    lane: &'a Rc<Lane>,
    request: Request,
    mut options: SendOptions<'a>,
    clock: Clock,
    sweep: &'a Rc<Sweep>,
    picked: &'a Cell<Option<u32>>,
) -> impl Future<Output = Outcome> + use<'a> {
    options.picked = Some(picked);
    Attempt {
        start: options.now,
        send: Some(lane.send(request, options)),
        lane,
        clock,
        sweep,
        picked,
    }
}

pin_project! {
    /// A try under way. A future by hand, for an `async` block would keep what it is made of twice.
    struct Attempt<'a, F> {
        #[pin]
        send: Option<F>,
        lane: &'a Rc<Lane>,
        start: Instant,
        clock: Clock,
        sweep: &'a Rc<Sweep>,
        picked: &'a Cell<Option<u32>>,
    }
}

impl<F> Future for Attempt<'_, F>
where
    F: Future<Output = Result<Sent, Box<upstream::Failure>>>,
{
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let mut this = self.project();
        if let Some(send) = this.send.as_mut().as_pin_mut()
            && let Poll::Ready(outcome) = send.poll(cx)
        {
            return Poll::Ready(outcome.map_err(|failure| Failed::of(*failure)));
        }
        let mut failure = ready!(this.clock.poll(this.sweep, *this.start, cx));
        let was_sent = this.picked.get().is_some();
        if !was_sent && failure.flag == Flag::UpstreamTimeout {
            failure =
                overflow("the request still waited for room under the upstream's `limits`".into());
        }
        let is_its_fault = match failure.flag {
            Flag::UpstreamTimeout => true,
            // Clients may set deadlines that nobody can meet.
            Flag::Deadline => clock::since(*this.start) >= FAIR,
            _ => false,
        };
        if is_its_fault {
            this.lane.give_up(|| this.send.set(None));
        }
        Poll::Ready(Err(Box::new(Failed {
            as_what: (failure.flag == Flag::UpstreamTimeout).then_some(Condition::Timeout),
            failure,
            endpoint: this.picked.get(),
            ran: if was_sent { Ran::Maybe } else { Ran::Never },
            request: None,
            copy: None,
        })))
    }
}

/// Notes an attempt that began at `start`.
pub(crate) fn note(exchange: &mut Exchange, outcome: &Outcome, start: Instant) {
    let (endpoint, end, status, flag) = match outcome {
        Ok(sent) => {
            let status = sent.response.head.status.as_u16();
            (Some(sent.endpoint), sent.at, Some(status), None)
        }
        Err(failed) => {
            let flag = failed.failure.flag;
            (failed.endpoint, clock::now(), None, Some(flag))
        }
    };
    exchange.decision.attempts.push(decision::Attempt {
        endpoint: endpoint.unwrap_or(u32::MAX),
        took: end.saturating_duration_since(start),
        status,
        flag,
    });
}

impl Failed {
    fn of(mut failure: upstream::Failure) -> Box<Self> {
        let request = failure.request.take();
        let copy = failure.copy.take();
        let never = failure.unprocessed || request.is_some();
        Box::new(Self {
            endpoint: failure.endpoint,
            as_what: retry::condition(&failure),
            ran: if never { Ran::Never } else { Ran::Maybe },
            request,
            copy,
            failure: translate(failure),
        })
    }
}

impl Clock {
    pub(crate) fn new(
        idle: Option<Duration>,
        attempt: Option<Instant>,
        deadline: Option<Instant>,
        received: Option<Arc<Progress>>,
    ) -> Self {
        Self {
            idle,
            attempt,
            deadline,
            received,
            seen: 0,
            timer: None,
        }
    }

    /// Ready with what is over; `now` is when the first wait began.
    fn poll(&mut self, sweep: &Rc<Sweep>, mut now: Instant, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            if let Some(timer) = &mut self.timer {
                ready!(Pin::new(timer).poll(cx));
                now = clock::now();
                if let Some(failure) = self.rang(now) {
                    return Poll::Ready(failure);
                }
            }
            let Some(wait) = self.wait(now) else {
                return Poll::Pending;
            };
            self.timer = Some(Timeout::new(sweep, now, wait));
        }
    }

    fn wait(&self, now: Instant) -> Option<Duration> {
        let until = |at: Instant| at.saturating_duration_since(now);
        let limits = [self.idle, self.attempt.map(until), self.deadline.map(until)];
        limits.into_iter().flatten().min()
    }

    fn rang(&mut self, now: Instant) -> Option<Failure> {
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if passed(self.deadline) {
            return Some(Failure::of(
                Flag::Deadline,
                "the request's deadline passed before the upstream answered",
            ));
        }
        if passed(self.attempt) {
            return Some(Failure::of(
                Flag::UpstreamTimeout,
                "the upstream did not answer within the route's timeouts.attempt",
            ));
        }
        if let Some(received) = &self.received {
            let bytes = received.bytes();
            if bytes > self.seen {
                self.seen = bytes;
                return None;
            }
            if received.is_waiting() {
                return Some(Failure::new(
                    StatusCode::REQUEST_TIMEOUT,
                    Flag::BadRequest,
                    "the request's body stood still for the route's timeouts.idle",
                ));
            }
        }
        Some(Failure::of(
            Flag::UpstreamTimeout,
            "the upstream was silent for the route's timeouts.idle",
        ))
    }
}

fn translate(failure: upstream::Failure) -> Failure {
    match failure.cause {
        Cause::RequestBody(error) => body_failed(error, failure.detail),
        Cause::Overflow => overflow(failure.detail),
        cause => Failure::of(flag(&cause), failure.detail),
    }
}

/// A limit of the upstream is reached: there may be room in a moment.
fn overflow(detail: String) -> Failure {
    let mut refused = Failure::of(Flag::Overflow, detail);
    refused.header = Some((header::RETRY_AFTER, HeaderValue::from_static("1")));
    refused
}

/// The request's body broke: its sender's fault, or that of our own source.
pub(crate) fn body_failed(error: BodyError, detail: String) -> Failure {
    match error {
        BodyError::Peer(_) => Failure::bad_request("the request's body broke off"),
        error => Failure::of(flag(&Cause::RequestBody(error)), detail),
    }
}

/// Whose fault it was, in the words of logs and metrics.
pub(crate) fn flag(cause: &Cause) -> Flag {
    match cause {
        Cause::NoEndpoint => Flag::NoHealthyEndpoint,
        Cause::Overflow => Flag::Overflow,
        Cause::Connect(_) | Cause::ConnectTimeout => Flag::ConnectFailed,
        Cause::Closed | Cause::Refused => Flag::UpstreamClosed,
        Cause::Protocol => Flag::UpstreamProtocol,
        Cause::RequestBody(BodyError::TooLarge) => Flag::BodyTooLarge,
        Cause::RequestBody(BodyError::Peer(_) | BodyError::Idle) => Flag::ClientLeft,
        Cause::RequestBody(BodyError::Source(_)) => Flag::HandlerFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::body::Body;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_nearest_limit_is_the_next() {
        let now = Instant::now();
        let check = |idle: Option<u32>, attempt: Option<u32>, deadline: Option<u32>, next| {
            let at = |seconds: u32| now + SECOND * seconds;
            let idle = idle.map(|seconds| SECOND * seconds);
            let clock = Clock::new(idle, attempt.map(at), deadline.map(at), None);
            assert_eq!(clock.wait(now), next);
        };
        check(None, None, None, None);
        check(Some(3), Some(2), Some(5), Some(SECOND * 2));
        check(Some(1), Some(2), Some(5), Some(SECOND));
        check(None, None, Some(5), Some(SECOND * 5));
    }

    #[tokio::test]
    async fn an_upload_that_goes_on_is_not_idle() {
        let now = Instant::now();
        let (sender, body) = Body::channel(1);
        let (mut body, progress) = body.counted();
        let mut clock = Clock::new(Some(SECOND), None, None, Some(progress));
        sender.send("bytes").await.expect("the body is there");
        assert!(body.next_frame().await.is_some());
        assert!(clock.rang(now).is_none());
        let silent = clock.rang(now).expect("nothing came since");
        assert_eq!(silent.flag, Flag::UpstreamTimeout);
        assert!(futures_util::poll!(Box::pin(body.next_frame())).is_pending());
        let stalled = clock.rang(now).expect("the client sends nothing");
        assert_eq!(stalled.status, StatusCode::REQUEST_TIMEOUT);
    }
}
