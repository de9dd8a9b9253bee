//! From the end of the chain to whoever answers: a handler, or an endpoint of an upstream.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, Instant};

use http::header::{self, HeaderValue};
use http::{StatusCode, Version};

use crate::base::body::{Body, BodyError};
use crate::base::clock::{Sweep, Timeout};
use crate::base::continuation::{self, Permit};
use crate::base::message::{Request, Response, ResponseHead};
use crate::base::upgrade::Upgrade;
use crate::handler::{self, Handler};
use crate::proxy::admit::Wish;
use crate::proxy::context::{Asked, Exchange};
use crate::proxy::failure::Failure;
use crate::proxy::reply::{Limits, Tracked};
use crate::proxy::{inform, upgrade};
use crate::snapshot::{Backend, Timeouts, To};
use crate::telemetry::decision::{Attempt, Flag};
use crate::upstream::{self, Cause, Lane, SendOptions, Sent};

/// What came back.
pub(crate) enum Forwarded {
    /// An answer, and what its body may take.
    Response(Response, Limits),
    /// Both sides leave HTTP behind.
    Switched(Box<Switch>),
}

/// Two sides that have agreed to speak something else.
pub(crate) struct Switch {
    /// The answer that tells the client.
    head: ResponseHead,
    client: Upgrade,
    upstream: Upgrade,
    idle: Option<Duration>,
}

impl Switch {
    /// Starts the tunnel, which keeps the request's record until its end, and tells the client.
    pub(crate) fn start(self, mut exchange: Box<Exchange>) -> http::Response<Tracked> {
        exchange.answered(self.head.status);
        if let Some(wire) = exchange.origin.wire() {
            wire.leave_http();
        }
        let tunnel = upgrade::tunnel(exchange, self.client, self.upstream, self.idle);
        // It ends with its connections; the worker waits for those when it drains.
        drop(tokio::task::spawn_local(tunnel));
        self.head.into_http(Tracked::nothing())
    }
}

/// Sends the request to its backend.
///
/// # Cancel safety
/// Dropping the future cancels the attempt: the upstream sees its connection or stream end.
pub(crate) async fn forward(
    exchange: &mut Exchange,
    request: Request,
    wish: Wish,
    (place, backend): (usize, &Backend),
    timeouts: &Timeouts,
) -> Result<Forwarded, Failure> {
    let deadline = deadline(exchange, &request, timeouts);
    match &backend.to {
        To::Handler(handler, _) => {
            exchange.backend = Some(Asked::Handler(place));
            answer_here(exchange, request, handler, deadline).await
        }
        To::Upstream(upstream) => {
            exchange.backend = Some(Asked::Upstream(*upstream));
            let lane = Rc::clone(exchange.view.lane(*upstream));
            send(exchange, request, wish, &lane, timeouts, deadline).await
        }
    }
}

/// When the request must be over: what the route allows, or less if the client said so.
fn deadline(exchange: &Exchange, request: &Request, timeouts: &Timeouts) -> Option<Instant> {
    let asked = exchange
        .grpc
        .then(|| request.head.header("grpc-timeout").and_then(grpc_timeout))
        .flatten();
    let allowed = match (timeouts.request, asked) {
        (Some(route), Some(client)) => Some(route.min(client)),
        (route, client) => route.or(client),
    };
    allowed.and_then(|allowed| exchange.started.checked_add(allowed))
}

/// Up to eight digits and a unit, as gRPC writes it.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

async fn answer_here(
    exchange: &mut Exchange,
    request: Request,
    handler: &Arc<Handler>,
    deadline: Option<Instant>,
) -> Result<Forwarded, Failure> {
    let sent = Instant::now();
    let context = handler::Context {
        deadline,
        caller: Rc::clone(&exchange.local.caller.0),
        blocking: exchange.local.blocking.clone(),
    };
    let run = handler.run(request, context);
    let outcome = match deadline {
        None => Some(run.await),
        Some(deadline) => within(run, &exchange.local.sweep, sent, deadline).await,
    };
    exchange.waited = sent.elapsed();
    match outcome {
        Some(Ok(response)) => Ok(Forwarded::Response(response, Limits::new(None, deadline))),
        Some(Err(failed)) => match failed.answer {
            Some(answer) => {
                exchange.decision.fail(failed.flag, failed.detail);
                Ok(Forwarded::Response(*answer, Limits::default()))
            }
            None => Err(Failure::of(failed.flag, failed.detail)),
        },
        None => Err(Failure::of(
            Flag::HandlerTimeout,
            "the handler did not answer within the request's deadline",
        )),
    }
}

/// The future's output, or none once `deadline` has passed.
async fn within<F: Future>(
    future: F,
    sweep: &Rc<Sweep>,
    now: Instant,
    deadline: Instant,
) -> Option<F::Output> {
    let timeout = Timeout::new(sweep, now, deadline.saturating_duration_since(now));
    tokio::select! {
        biased;
        output = future => Some(output),
        () = timeout => None,
    }
}

async fn send(
    exchange: &mut Exchange,
    mut request: Request,
    wish: Wish,
    lane: &Rc<Lane>,
    timeouts: &Timeouts,
    deadline: Option<Instant>,
) -> Result<Forwarded, Failure> {
    let client_upgrade = match wish {
        Wish::Upgrade => Upgrade::take(&mut request.head.extensions),
        Wish::Plain => None,
    };
    if client_upgrade.is_some() {
        request
            .head
            .set_header(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let received = count_body(&mut request);
    exchange.received.clone_from(&received);
    let now = Instant::now();
    let mut options = SendOptions::new(now);
    let permit = expect_continue(&mut request);
    options.on_informational = inform::relay(exchange, permit);

    let sent = attempt(
        exchange, request, lane, options, timeouts, deadline, received,
    )
    .await;
    let took = now.elapsed();
    exchange.waited = took;
    let sent = sent.map_err(|(failure, endpoint)| {
        note_attempt(exchange, endpoint, None, took, Some(failure.flag));
        failure
    })?;
    let status = sent.response.head.status;
    note_attempt(exchange, Some(sent.endpoint), Some(status), took, None);
    let idle = idle_of_body(exchange, timeouts);
    answer_of(sent, client_upgrade, timeouts, Limits::new(idle, deadline))
}

fn note_attempt(
    exchange: &mut Exchange,
    endpoint: Option<u32>,
    status: Option<StatusCode>,
    took: Duration,
    flag: Option<Flag>,
) {
    exchange.decision.attempts.push(Attempt {
        endpoint: endpoint.unwrap_or(u32::MAX),
        took,
        status: status.map(|status| status.as_u16()),
        flag,
    });
}

/// A silence of the answer that is normal for streams of gRPC: there only a configured limit holds.
fn idle_of_body(exchange: &Exchange, timeouts: &Timeouts) -> Option<Duration> {
    if exchange.grpc {
        timeouts.idle
    } else {
        Some(timeouts.idle.unwrap_or(IDLE))
    }
}

/// How long both sides may be silent where the route does not say.
const IDLE: Duration = Duration::from_secs(60);

/// One try, within its limits of time.
async fn attempt(
    exchange: &Exchange,
    request: Request,
    lane: &Rc<Lane>,
    options: SendOptions<'_>,
    timeouts: &Timeouts,
    deadline: Option<Instant>,
    received: Option<Arc<AtomicU64>>,
) -> Result<Sent, (Failure, Option<u32>)> {
    let now = options.now;
    let idle = idle_of_body(exchange, timeouts);
    let attempt = timeouts.attempt.map(|attempt| now + attempt);
    let mut clock = AttemptClock {
        idle,
        attempt,
        deadline,
        received,
        seen: 0,
    };
    let mut send = pin!(lane.send(request, options));
    let mut timer: Option<Timeout> = None;
    let outcome = std::future::poll_fn(|cx| {
        if let Poll::Ready(outcome) = send.as_mut().poll(cx) {
            return Poll::Ready(Ok(outcome));
        }
        loop {
            match &mut timer {
                None => {
                    let Some(wait) = clock.wait(now) else {
                        return Poll::Pending;
                    };
                    timer = Some(Timeout::new(&exchange.local.sweep, now, wait));
                }
                Some(running) => {
                    std::task::ready!(std::pin::Pin::new(running).poll(cx));
                    let now = Instant::now();
                    if let Some(failure) = clock.rang(now) {
                        return Poll::Ready(Err(failure));
                    }
                    timer = clock
                        .wait(now)
                        .map(|wait| Timeout::new(&exchange.local.sweep, now, wait));
                }
            }
        }
    })
    .await;
    match outcome {
        Ok(Ok(sent)) => Ok(sent),
        Ok(Err(failure)) => {
            let endpoint = failure.endpoint;
            Err((translate(*failure), endpoint))
        }
        Err(failure) => Err((failure, None)),
    }
}

/// Which limit of time is the next, and what its passing means.
struct AttemptClock {
    idle: Option<Duration>,
    attempt: Option<Instant>,
    deadline: Option<Instant>,
    /// Bytes of the request's body so far: while they come, nobody is idle.
    received: Option<Arc<AtomicU64>>,
    seen: u64,
}

impl AttemptClock {
    fn wait(&self, now: Instant) -> Option<Duration> {
        let until = |at: Instant| at.saturating_duration_since(now);
        [self.idle, self.attempt.map(until), self.deadline.map(until)]
            .into_iter()
            .flatten()
            .min()
    }

    fn rang(&mut self, now: Instant) -> Option<Failure> {
        if self.deadline.is_some_and(|at| at <= now) {
            return Some(Failure::of(
                Flag::Deadline,
                "the request's deadline passed before the upstream answered",
            ));
        }
        if self.attempt.is_some_and(|at| at <= now) {
            return Some(Failure::of(
                Flag::UpstreamTimeout,
                "the upstream did not answer within the route's timeouts.attempt",
            ));
        }
        let received = self
            .received
            .as_ref()
            .map_or(0, |count| count.load(Relaxed));
        if received > self.seen {
            self.seen = received;
            return None;
        }
        Some(Failure::of(
            Flag::UpstreamTimeout,
            "the upstream was silent for the route's timeouts.idle",
        ))
    }
}

/// Counts the request's body, where it has one.
fn count_body(request: &mut Request) -> Option<Arc<AtomicU64>> {
    if request.body.is_empty() {
        return None;
    }
    let count = Arc::new(AtomicU64::new(0));
    let body = std::mem::take(&mut request.body);
    request.body = body.counted(Arc::clone(&count));
    Some(count)
}

/// A client that waits for `100 Continue` gets it from the upstream, not from us.
///
/// Reading the body is what makes the HTTP library invite the client, so the body is held back
/// until the upstream has invited it, or a second has passed (RFC 9110, 10.1.1).
fn expect_continue(request: &mut Request) -> Option<Permit> {
    let expects = request
        .head
        .header(header::EXPECT)
        .is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue"));
    if !expects || request.body.is_empty() || request.head.version() < Version::HTTP_11 {
        return None;
    }
    let (permit, body) = continuation::hold(std::mem::take(&mut request.body), PATIENCE);
    request.body = body;
    Some(permit)
}

const PATIENCE: Duration = Duration::from_secs(1);

/// What the upstream's answer means for the client.
fn answer_of(
    sent: Sent,
    client: Option<Upgrade>,
    timeouts: &Timeouts,
    limits: Limits,
) -> Result<Forwarded, Failure> {
    let mut response = sent.response;
    if response.head.status == StatusCode::SWITCHING_PROTOCOLS {
        let upstream = Upgrade::take(&mut response.head.extensions);
        let (Some(client), Some(upstream)) = (client, upstream) else {
            return Err(Failure::of(
                Flag::UpstreamProtocol,
                "the upstream switched protocols without being asked",
            ));
        };
        return Ok(Forwarded::Switched(Box::new(Switch {
            head: response.head,
            client,
            upstream,
            idle: timeouts.idle,
        })));
    }
    strip_hop_by_hop(&mut response.head);
    Ok(Forwarded::Response(response, limits))
}

/// Takes away what belongs to the upstream's connection alone (RFC 9110, 7.6.1).
fn strip_hop_by_hop(head: &mut ResponseHead) {
    let fields = &mut head.headers;
    if let Some(connection) = fields.remove(header::CONNECTION) {
        let named = connection.to_str().unwrap_or_default().split(',');
        for name in named.map(str::trim) {
            // It may not take away what says how long the body is.
            if !name.eq_ignore_ascii_case("content-length")
                && let Ok(name) = http::HeaderName::try_from(name)
            {
                fields.remove(name);
            }
        }
    }
    fields.remove("keep-alive");
    fields.remove("proxy-connection");
    fields.remove(header::TRANSFER_ENCODING);
    fields.remove(header::UPGRADE);
}

/// Whose fault it was, in the words of logs and metrics.
fn translate(failure: upstream::Failure) -> Failure {
    let flag = match failure.cause {
        Cause::NoEndpoint => Flag::NoHealthyEndpoint,
        Cause::Connect(_) | Cause::ConnectTimeout => Flag::ConnectFailed,
        Cause::Closed | Cause::Refused => Flag::UpstreamClosed,
        Cause::Protocol => Flag::UpstreamProtocol,
        Cause::RequestBody(BodyError::TooLarge) => Flag::BodyTooLarge,
        Cause::RequestBody(BodyError::Peer(_)) => {
            return Failure::bad_request("the request's body broke off");
        }
        Cause::RequestBody(BodyError::Idle) => Flag::ClientLeft,
        Cause::RequestBody(BodyError::Source(_)) => Flag::HandlerFailed,
    };
    Failure::of(flag, failure.detail)
}
