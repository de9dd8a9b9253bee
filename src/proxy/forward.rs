//! From the end of the chain to whoever answers: a handler, or an endpoint of an upstream.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};

use crate::base::body::Progress;
use crate::base::clock::{self, Sweep, Timeout};
use crate::base::message::{Request, Response, ResponseHead};
use crate::base::upgrade::Upgrade;
use crate::handler::{self, Handler};
use crate::proxy::admit::Wish;
use crate::proxy::again::{self, Tries};
use crate::proxy::attempt::{self, Outcome};
use crate::proxy::context::{Asked, Exchange};
use crate::proxy::failure::Failure;
use crate::proxy::hedge;
use crate::proxy::mirror;
use crate::proxy::retry::{self, Nature};
use crate::proxy::upgrade::Switch;
use crate::snapshot::{Backend, Route, Timeouts, To};
use crate::telemetry::decision::Flag;
use crate::upstream::{Lane, Sent};

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
    route: &Route,
) -> Result<Response, Failure> {
    let timeouts = &route.timeouts;
    exchange.limits.deadline = deadline(exchange, request, timeouts);
    if idle(exchange, timeouts).is_some() || exchange.view.snapshot.access_log.is_on() {
        exchange.received = count_body(request);
    }
    if let Some(witness) = &exchange.local.witness {
        witness.forwarded(exchange, place);
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
            send(exchange, request, wish, &lane, route).await
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
    let witness = exchange.local.witness.as_ref();
    if let Some(answer) = witness.and_then(|witness| witness.stands_in(handler)) {
        return Ok(answer);
    }
    let start = exchange.turn();
    let deadline = exchange.limits.deadline;
    let context = handler::Context {
        deadline,
        caller: Rc::clone(&exchange.local.caller.0),
        blocking: exchange.local.blocking.clone(),
    };
    let run = handler.run(std::mem::take(request), context);
    let outcome = within(run, &exchange.local.sweep, start, deadline).await;
    let end = clock::now();
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

/// The first attempt, and whatever else it takes.
///
/// A request that succeeds at once pays for no retry but its share of the budget; everything after
/// the first attempt lies in a future of its own, so that the usual way stays small.
async fn send(
    exchange: &mut Exchange,
    request: &mut Request,
    wish: Wish,
    lane: &Rc<Lane>,
    route: &Route,
) -> Result<Response, Failure> {
    let now = exchange.turn();
    let policy = again::policy(route);
    lane.budget().borrow_mut().request(policy.budget, now);
    let client = ask_to_switch(request, wish);
    let nature = match wish {
        Wish::Plain => retry::nature(request.head.method(), policy),
        Wish::Upgrade => Nature::LeavesHttp,
    };
    if let Some(witness) = &exchange.local.witness {
        witness.nature(nature);
    }
    let tries = Tries {
        lane,
        route,
        nature,
        idle: idle(exchange, &route.timeouts),
        spare: again::keep(request, lane, route, nature),
        stay: again::stay(lane, &request.head),
    };
    if hedge::is_for(&tries) {
        return Box::pin(hedged(exchange, request, tries, now)).await;
    }
    // What an attempt leaves behind is large: it must not stand in this future beside the next.
    let again = {
        let picked = Cell::new(None);
        let outcome = tries.begin(exchange, request, now, &picked).await;
        attempt::note(exchange, &outcome, now);
        match outcome {
            Ok(sent) if again::is_good(route, &sent) => {
                return answered(exchange, Ok(sent), client, &tries, now);
            }
            outcome => go_on(exchange, outcome, client, tries, now),
        }
    };
    again.await
}

/// Everything after the first attempt.
fn go_on<'a>(
    exchange: &'a mut Exchange,
    outcome: Outcome,
    client: Option<Upgrade>,
    tries: Tries<'a>,
    start: Instant,
) -> LocalBoxFuture<'a, Result<Response, Failure>> {
    Box::pin(async move {
        let sent = tries.go_on(exchange, outcome).await;
        answered(exchange, sent, client, &tries, start)
    })
}

/// The same for a request that asks several endpoints; it never leaves HTTP.
async fn hedged(
    exchange: &mut Exchange,
    request: &mut Request,
    tries: Tries<'_>,
    start: Instant,
) -> Result<Response, Failure> {
    let sent = match hedge::send(exchange, request, &tries, start).await {
        Ok(sent) if again::is_good(tries.route, &sent) => Ok(sent),
        outcome => tries.go_on(exchange, outcome).await,
    };
    answered(exchange, sent, None, &tries, start)
}

/// What the last attempt's end means for the client.
fn answered(
    exchange: &mut Exchange,
    sent: Result<Sent, Failure>,
    client: Option<Upgrade>,
    tries: &Tries<'_>,
    start: Instant,
) -> Result<Response, Failure> {
    match sent {
        Ok(mut sent) => {
            exchange.waited = sent.at.saturating_duration_since(start);
            exchange.came = Some(sent.at);
            exchange.limits.idle = tries.idle;
            exchange.permit = sent.permit.take();
            tries.keep_client(&mut sent);
            answer_of(exchange, sent, client, &tries.route.timeouts)
        }
        Err(failure) => {
            exchange.waited = clock::since(start);
            Err(failure)
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
    // One walk over a few names is cheaper than five look-ups, which mostly find nothing.
    if !fields.iter().any(|(name, _)| is_hop_by_hop(name)) {
        return;
    }
    if let Some(connection) = fields.remove(header::CONNECTION) {
        let named = connection.to_str().unwrap_or_default().split(',');
        for name in named.map(str::trim) {
            // It may not take away what says how long the body is.
            if !name.eq_ignore_ascii_case("content-length")
                && let Ok(name) = HeaderName::try_from(name)
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

fn is_hop_by_hop(name: &HeaderName) -> bool {
    name == header::CONNECTION
        || name == header::TRANSFER_ENCODING
        || name == header::UPGRADE
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
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
