//! Asking a second endpoint when the first is slow: the answer that comes first is taken.
//!
//! It costs an attempt more and spares the client the slowest answers, so it is for requests that
//! may be repeated, whose body is here already, and within the retry budget.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use smallvec::SmallVec;

use crate::base::clock::{self, Sweep, Timeout};
use crate::base::message::Request;
use crate::config::{After, Hedge};
use crate::proxy::again::{self, Tries};
use crate::proxy::attempt::{self, Outcome, attempt};
use crate::proxy::context::Exchange;
use crate::proxy::retry::Nature;
use crate::telemetry::decision::Attempt;
use crate::telemetry::metrics;
use crate::upstream::{Lane, SendOptions};

/// True if a request may be hedged.
pub(crate) fn is_for(tries: &Tries<'_>) -> bool {
    tries.route.hedge.is_some() && tries.nature == Nature::Idempotent && tries.spare.is_some()
}

/// The attempts of one request that run at once.
struct Race<'a> {
    running: FuturesUnordered<LocalBoxFuture<'a, (usize, Outcome)>>,
    /// Every attempt that was begun.
    runners: SmallVec<[Runner; 2]>,
}

/// One attempt of several.
struct Runner {
    start: Instant,
    endpoint: Rc<Cell<Option<u32>>>,
    ended: bool,
}

enum Event {
    Ended(usize, Box<Outcome>),
    /// Nothing came in time.
    Late,
}

/// Sends, and asks others as long as nothing good has come.
///
/// Gives the first good answer; if there is none, the end of the last attempt.
///
/// # Cancel safety
/// Dropping the future cancels every attempt.
pub(crate) async fn send(
    exchange: &mut Exchange,
    request: &mut Request,
    tries: &Tries<'_>,
    now: Instant,
) -> Outcome {
    let hedge = tries.route.hedge.as_deref().copied();
    let wait = hedge.and_then(|hedge| wait(hedge, tries.lane, now));
    let mut left = hedge.map_or(0, |hedge| hedge.max);
    let sweep = Rc::clone(&exchange.local.sweep);
    let mut timer = wait.map(|wait| Timeout::new(&sweep, now, wait));
    let mut race = Race {
        running: FuturesUnordered::new(),
        runners: SmallVec::new(),
    };
    race.begin(exchange, std::mem::take(request), tries, now);
    loop {
        match race.next(&mut timer).await {
            Event::Late => {
                let now = clock::now();
                timer = None;
                if race.ask_another(exchange, tries, now) {
                    left -= 1;
                    let next = wait.filter(|_| left > 0);
                    timer = next.map(|wait| Timeout::new(&sweep, now, wait));
                }
            }
            Event::Ended(number, outcome) => {
                let is_good = is_good(tries, &outcome);
                if !is_good && !race.running.is_empty() {
                    race.note(exchange, tries, number, &outcome);
                    continue;
                }
                race.give_up_others(exchange, number);
                race.note(exchange, tries, number, &outcome);
                if is_good && hedge.is_some_and(|hedge| hedge.after == After::P95) {
                    learn(tries.lane, &outcome, now);
                }
                return *outcome;
            }
        }
    }
}

/// How long the first answer is waited for; none if that is not known yet.
fn wait(hedge: Hedge, lane: &Lane, now: Instant) -> Option<Duration> {
    match hedge.after {
        After::Fixed(after) => Some(after),
        After::P95 => lane.latencies().borrow_mut().p95(now),
    }
}

/// Tells how long the client's answer took, from the first attempt on: told of the winner alone,
/// what is waited for would become shorter and shorter.
fn learn(lane: &Lane, outcome: &Outcome, start: Instant) {
    if let Ok(sent) = outcome {
        let took = sent.at.saturating_duration_since(start);
        lane.latencies().borrow_mut().observe(took, sent.at);
    }
}

/// True for an answer that is worth the race: not one that only says "not me".
fn is_good(tries: &Tries<'_>, outcome: &Outcome) -> bool {
    outcome
        .as_ref()
        .is_ok_and(|sent| !sent.response.head.says_unavailable())
        && !again::is_failed(again::policy(tries.route), outcome)
}

impl<'a> Race<'a> {
    fn begin(
        &mut self,
        exchange: &Exchange,
        mut request: Request,
        tries: &Tries<'a>,
        now: Instant,
    ) {
        let (mut options, clock) = tries.prepare(exchange, &mut request, now);
        let number = self.runners.len();
        if number > 0 {
            // Only one may speak to the client before the answer.
            options.on_informational = None;
        }
        let endpoint = Rc::new(Cell::new(None));
        let runners = self.runners.iter();
        let avoid: SmallVec<[u32; 4]> = runners.filter_map(|r| r.endpoint.get()).collect();
        self.runners.push(Runner {
            start: now,
            endpoint: Rc::clone(&endpoint),
            ended: false,
        });
        let sweep: Rc<Sweep> = Rc::clone(&exchange.local.sweep);
        let lane = tries.lane;
        self.running.push(Box::pin(async move {
            let options = SendOptions {
                avoid: &avoid,
                ..options
            };
            let outcome = attempt(lane, request, options, clock, &sweep, &endpoint).await;
            (number, outcome)
        }));
    }

    /// The next end of an attempt, or that of the wait.
    async fn next(&mut self, timer: &mut Option<Timeout>) -> Event {
        poll_fn(|cx| {
            if let Poll::Ready(Some((number, outcome))) = self.running.poll_next_unpin(cx) {
                return Poll::Ready(Event::Ended(number, Box::new(outcome)));
            }
            let Some(timer) = timer else {
                return Poll::Pending;
            };
            ready!(Pin::new(timer).poll(cx));
            Poll::Ready(Event::Late)
        })
        .await
    }

    /// Asks one more endpoint; false if that may not be.
    fn ask_another(&mut self, exchange: &mut Exchange, tries: &Tries<'a>, now: Instant) -> bool {
        let Some(spare) = tries.spare.as_ref().filter(|spare| spare.is_complete()) else {
            return false;
        };
        if !tries.lane.budget().borrow_mut().take(now) {
            again::count(exchange, metrics::Retry::Refused);
            return false;
        }
        let Some(request) = spare.again() else {
            return false;
        };
        self.begin(exchange, request, tries, now);
        exchange
            .decision
            .note("a second endpoint was asked: the first was slow");
        true
    }

    /// Notes how an attempt ended.
    fn note(
        &mut self,
        exchange: &mut Exchange,
        tries: &Tries<'_>,
        number: usize,
        outcome: &Outcome,
    ) {
        let Some(runner) = self.runners.get_mut(number) else {
            return;
        };
        runner.ended = true;
        attempt::note(exchange, outcome, runner.start);
        if number > 0 {
            let ended = if is_good(tries, outcome) {
                metrics::Retry::Succeeded
            } else {
                metrics::Retry::Failed
            };
            again::count(exchange, ended);
        }
    }

    /// Cancels all but one.
    fn give_up_others(&mut self, exchange: &mut Exchange, winner: usize) {
        self.running.clear();
        for (number, runner) in self.runners.iter_mut().enumerate() {
            if number == winner || runner.ended {
                continue;
            }
            runner.ended = true;
            exchange.decision.attempts.push(Attempt {
                endpoint: runner.endpoint.get().unwrap_or(u32::MAX),
                took: clock::since(runner.start),
                status: None,
                flag: None,
            });
            if number > 0 {
                again::count(exchange, metrics::Retry::Failed);
            }
        }
    }
}
