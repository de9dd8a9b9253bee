//! From the end of the chain to whoever answers: a handler, or an endpoint of an upstream.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::header::{self, HeaderValue};
use http::{StatusCode, Version};

use crate::base::body::Progress;
use crate::base::clock::{Sweep, Timeout};
use crate::base::continuation::{self, Permit};
use crate::base::message::{Request, Response, ResponseHead};
use crate::base::upgrade::Upgrade;
use crate::handler::{self, Handler};
use crate::proxy::admit::Wish;
use crate::proxy::attempt::{self, Clock};
use crate::proxy::context::{Asked, Exchange};
use crate::proxy::failure::Failure;
use crate::proxy::inform;
use crate::proxy::mirror;
use crate::proxy::upgrade::Switch;
use crate::snapshot::{Backend, Timeouts, To};
use crate::telemetry::decision::{Attempt, Flag};
use crate::upstream::{Lane, SendOptions, Sent};

/// Sends the request to its backend.
///
/// # Cancel safety
/// Dropping the future cancels the work: a handler's future is dropped, an upstream sees its
/// connection or stream end.
pub(crate) async fn forward(
    exchange: &mut Exchange,
    request: &mut Request,
    wish: Wish,
    (place, backend): (usize, &Backend),
    timeouts: &Timeouts,
) -> Result<Response, Failure> {
    exchange.limits.deadline = deadline(exchange, request, timeouts);
    if idle(exchange, timeouts).is_some() || exchange.view.snapshot.access_log.is_on() {
        exchange.received = count_body(request);
    }
    mirror::copy(exchange, request, wish);
    match &backend.to {
        To::Handler(handler, _) => {
            exchange.backend = Some(Asked::Handler(place));
            answer_here(exchange, request, handler).await
        }
        To::Upstream(upstream) => {
            exchange.backend = Some(Asked::Upstream(*upstream));
            let lane = Rc::clone(exchange.view.lane(*upstream));
            send(exchange, request, wish, &lane, timeouts).await
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
    request: &mut Request,
    handler: &Arc<Handler>,
) -> Result<Response, Failure> {
    let start = exchange.turn();
    let deadline = exchange.limits.deadline;
    let context = handler::Context {
        deadline,
        caller: Rc::clone(&exchange.local.caller.0),
        blocking: exchange.local.blocking.clone(),
    };
    let run = handler.run(std::mem::take(request), context);
    let outcome = within(run, &exchange.local.sweep, start, deadline).await;
    let end = Instant::now();
    exchange.waited = end.saturating_duration_since(start);
    exchange.came = Some(end);
    match outcome {
        Some(Ok(response)) => Ok(response),
        Some(Err(mut failed)) => match failed.answer.take() {
            Some(answer) => {
                exchange.decision.fail(failed.flag, failed.detail);
                Ok(*answer)
            }
            None => Err(Failure::of(failed.flag, failed.detail)),
        },
        None => Err(Failure::of(
            Flag::HandlerTimeout,
            "the handler did not answer within the request's deadline",
        )),
    }
}

/// The future's output, or none once the deadline has passed.
async fn within<F: Future>(
    future: F,
    sweep: &Rc<Sweep>,
    now: Instant,
    deadline: Option<Instant>,
) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut timeout = None;
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        let left = deadline.saturating_duration_since(now);
        let timeout = timeout.get_or_insert_with(|| Timeout::new(sweep, now, left));
        Pin::new(timeout).poll(cx).map(|()| None)
    })
    .await
}

async fn send(
    exchange: &mut Exchange,
    request: &mut Request,
    wish: Wish,
    lane: &Rc<Lane>,
    timeouts: &Timeouts,
) -> Result<Response, Failure> {
    let client = ask_to_switch(request, wish);
    let now = exchange.turn();
    let mut options = SendOptions::new(now);
    let permit = expect_continue(request);
    options.on_informational = inform::relay(exchange, lane, permit);
    let idle = idle(exchange, timeouts);
    let clock = Clock::new(
        idle,
        timeouts.attempt.map(|attempt| now + attempt),
        exchange.limits.deadline,
        exchange.received.clone(),
    );
    let sent = attempt::attempt(lane, request, options, clock, &exchange.local.sweep).await;
    match sent {
        Ok(sent) => {
            exchange.waited = sent.at.saturating_duration_since(now);
            exchange.came = Some(sent.at);
            let status = sent.response.head.status;
            note_attempt(exchange, Some(sent.endpoint), Some(status), None);
            exchange.limits.idle = idle;
            answer_of(exchange, sent, client, timeouts)
        }
        Err(failed) => {
            exchange.waited = now.elapsed();
            note_attempt(exchange, failed.endpoint, None, Some(failed.failure.flag));
            Err(failed.failure)
        }
    }
}

/// Passes the client's wish to leave HTTP on, and keeps its side of it.
fn ask_to_switch(request: &mut Request, wish: Wish) -> Option<Upgrade> {
    if wish == Wish::Plain {
        return None;
    }
    let client = Upgrade::take(&mut request.head.extensions)?;
    let upgrade = HeaderValue::from_static("upgrade");
    request.head.set_header(header::CONNECTION, upgrade);
    Some(client)
}

fn note_attempt(
    exchange: &mut Exchange,
    endpoint: Option<u32>,
    status: Option<StatusCode>,
    flag: Option<Flag>,
) {
    exchange.decision.attempts.push(Attempt {
        endpoint: endpoint.unwrap_or(u32::MAX),
        took: exchange.waited,
        status: status.map(|status| status.as_u16()),
        flag,
    });
}

/// How long both sides may be silent where the route does not say.
const IDLE: Duration = Duration::from_mins(1);

/// Silence is normal for streams of gRPC: there only a configured limit holds.
fn idle(exchange: &Exchange, timeouts: &Timeouts) -> Option<Duration> {
    let default = (!exchange.grpc).then_some(IDLE);
    timeouts.idle.or(default)
}

/// Counts the request's body, where it has one.
fn count_body(request: &mut Request) -> Option<Arc<Progress>> {
    if request.body.is_empty() {
        return None;
    }
    let (body, progress) = std::mem::take(&mut request.body).counted();
    request.body = body;
    Some(progress)
}

/// How long a body is held back for an upstream that does not say `100 Continue`.
const PATIENCE: Duration = Duration::from_secs(1);

/// A client that waits for `100 Continue` gets it from the upstream, not from us.
///
/// Reading the body is what makes the HTTP library invite the client, so the body is held back
/// until the upstream has invited it, or patience is over (RFC 9110, 10.1.1).
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

/// What the upstream's answer means for the client.
fn answer_of(
    exchange: &mut Exchange,
    sent: Sent,
    client: Option<Upgrade>,
    timeouts: &Timeouts,
) -> Result<Response, Failure> {
    let mut response = sent.response;
    if response.head.status == StatusCode::SWITCHING_PROTOCOLS {
        let upstream = Upgrade::take(&mut response.head.extensions);
        let (Some(client), Some(upstream)) = (client, upstream) else {
            return Err(Failure::of(
                Flag::UpstreamProtocol,
                "the upstream switched protocols without being asked",
            ));
        };
        exchange.switch = Some(Box::new(Switch {
            client,
            upstream,
            idle: timeouts.idle,
        }));
    } else {
        strip_hop_by_hop(&mut response.head);
    }
    Ok(response)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_have_eight_digits_and_a_unit() {
        let check = |text: &str, milliseconds: Option<u64>| {
            assert_eq!(
                grpc_timeout(text),
                milliseconds.map(Duration::from_millis),
                "{text}"
            );
        };
        check("1H", Some(3_600_000));
        check("2M", Some(120_000));
        check("3S", Some(3_000));
        check("250m", Some(250));
        check("5000u", Some(5));
        assert_eq!(grpc_timeout("7n"), Some(Duration::from_nanos(7)));
        for wrong in ["", "5", "S", "-1S", "123456789S", "1x", "1 S"] {
            check(wrong, None);
        }
    }
}
