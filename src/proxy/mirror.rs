//! Copies of requests for upstreams that are being tried out: sent, counted and forgotten.
//!
//! Nobody waits for a copy, and nothing of one reaches the client. What copies may cost is bounded
//! for each worker: so many at once ([`AT_ONCE`]), each with so much of its request's body waiting
//! for it ([`AHEAD`]), for so long as its request may take ([`LONGEST`] where that has no limit).
//! One that would be too much is not sent; one that falls behind is broken off.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::header;

use crate::base::body::Body;
use crate::base::clock::{self, Timeout};
use crate::base::message::Request;
use crate::base::pressure::Level;
use crate::base::tee::{self, Broken, News};
use crate::proxy::admit::Wish;
use crate::proxy::context::Exchange;
use crate::proxy::{Local, attempt};
use crate::snapshot::publish::View;
use crate::telemetry::decision::Flag;
use crate::upstream::SendOptions;

/// How many copies of one worker may be on their way.
const AT_ONCE: u32 = 64;

/// How many bytes of its request's body a copy may be behind. A new connection on a fast network
/// takes a millisecond, in which a fast client sends 100 KiB.
const AHEAD: usize = 256 * 1024;

/// How long a copy may take where its request has no limit.
const LONGEST: Duration = Duration::from_secs(15);

/// How much of an answer is read, so that its connection can be used again.
const ANSWER: u64 = 1024 * 1024;

/// A worker's count of copies on their way.
#[derive(Debug, Default)]
pub(crate) struct Running(Cell<u32>);

/// One of them, until it is dropped.
struct Place(Rc<Local>);

/// Sends copies of the request to whom the route says, each by chance of its share.
///
/// The request's body is read through a tee from now on. What leaves HTTP behind cannot be copied,
/// and a process that ends, or is short of memory, has no room for copies.
pub(crate) fn copy(exchange: &Exchange, request: &mut Request, wish: Wish) {
    let (local, view) = (&exchange.local, &exchange.view);
    let Some(route) = exchange.route else { return };
    let mirrors = &view.snapshot.route(route).mirrors;
    if mirrors.is_empty() || wish != Wish::Plain || local.draining() {
        return;
    }
    for mirror in mirrors {
        if !mirror.takes(fastrand::u64(..)) {
            continue;
        }
        match Place::take(local) {
            Some(place) => send(place, exchange, request, mirror.upstream),
            None => count(
                local,
                view,
                mirror.upstream,
                Err(Flag::Overflow),
                Duration::ZERO,
            ),
        }
    }
}

fn send(place: Place, exchange: &Exchange, request: &mut Request, upstream: usize) {
    let (body, second, news) = tee::tee(std::mem::take(&mut request.body), AHEAD);
    request.body = body;
    let mut head = request.head.copy();
    // The body comes without being asked for.
    head.remove_header(header::EXPECT);
    let copy = Request { head, body: second };
    let now = exchange.turn();
    let deadline = exchange.limits.deadline;
    let left = deadline.map_or(LONGEST, |at| at.saturating_duration_since(now));
    let timeout = Timeout::new(&exchange.local.sweep, now, left);
    let view = Rc::clone(&exchange.view);
    // It ends with its timeout at the latest, and is dropped with the worker's runtime.
    drop(tokio::task::spawn_local(async move {
        run(&place.0, &view, upstream, (copy, news), timeout).await;
    }));
}

async fn run(
    local: &Local,
    view: &View,
    upstream: usize,
    (request, news): (Request, News),
    mut timeout: Timeout,
) {
    let now = clock::now();
    let send = view.lane(upstream).send(request, SendOptions::new(now));
    let sent = tokio::select! {
        biased;
        // First, for the endpoint is not to blame for it.
        why = news => Err(match why {
            Broken::Behind => Flag::Overflow,
            Broken::Abandoned => Flag::ClientLeft,
        }),
        sent = send => sent.map_err(|failure| attempt::flag(&failure.cause)),
        () = &mut timeout => Err(Flag::UpstreamTimeout),
    };
    match sent {
        Ok(sent) => {
            let status = sent.response.head.status.as_u16();
            let took = sent.at.saturating_duration_since(now);
            count(local, view, upstream, Ok(status), took);
            tokio::select! {
                biased;
                () = read_away(sent.response.body) => {}
                () = timeout => {}
            }
        }
        Err(flag) => count(local, view, upstream, Err(flag), clock::since(now)),
    }
}

/// Copies count as attempts of their upstream.
fn count(local: &Local, view: &View, upstream: usize, ended: Result<u16, Flag>, took: Duration) {
    let series = &view.snapshot.upstream(upstream).series;
    series.attempt(local.id, ended.ok(), ended.err(), took);
}

async fn read_away(body: Body) {
    let mut body = body.limited(ANSWER);
    while let Some(Ok(_)) = body.next_frame().await {}
}

impl Running {
    /// True while a copy is on its way.
    pub(crate) fn any(&self) -> bool {
        self.0.get() > 0
    }
}

impl Place {
    /// None if there are too many already, or if memory is short: a copy is worth less than any
    /// request.
    fn take(local: &Rc<Local>) -> Option<Self> {
        let running = local.mirrors.0.get();
        let is_calm = local.pressure.load().level == Level::Calm;
        (is_calm && running < AT_ONCE).then(|| {
            local.mirrors.0.set(running + 1);
            Self(Rc::clone(local))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let running = &self.0.mirrors.0;
        running.set(running.get().saturating_sub(1));
    }
}
