//! Calls of our own (fan-out, middlewares that ask others) through the same lanes as clients'.

use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use smallvec::SmallVec;

use crate::base::caller::{CallError, Caller};
use crate::base::clock::{self, Timeout};
use crate::base::message::{Request, Response};
use crate::proxy::retry::{self, Ended, Facts, Pushback, Ran, Resend, Verdict, Why};
use crate::proxy::{Local, again, attempt};
use crate::snapshot::publish::View;
use crate::telemetry::metrics;
use crate::upstream::{Failure, SendOptions};

/// The real caller of a worker.
#[derive(Debug)]
pub(crate) struct Calls(Weak<Local>);

/// A call whose maker has set no deadline ends here.
const LONGEST: Duration = Duration::from_mins(1);

impl Calls {
    pub(crate) fn new(local: Weak<Local>) -> Self {
        Self(local)
    }
}

impl Caller for Calls {
    fn call(
        &self,
        upstream: &str,
        request: Request,
    ) -> LocalBoxFuture<'static, Result<Response, CallError>> {
        let local = self.0.upgrade();
        let upstream = upstream.to_owned();
        Box::pin(async move {
            let Some(local) = local else {
                return Err(CallError::Unknown(upstream));
            };
            let view = local.reader.view();
            let Some(place) = view.snapshot.upstream_named(&upstream) else {
                return Err(CallError::Unknown(upstream));
            };
            let now = clock::now();
            let timeout = Timeout::new(&local.sweep, now, LONGEST);
            tokio::select! {
                biased;
                sent = send(&local, &view, place, request, now) => sent.map_err(|failure| {
                    CallError::Failed { upstream, detail: failure.detail }
                }),
                () = timeout => Err(CallError::Timeout(upstream)),
            }
        })
    }
}

/// Sends a call, and again where it came back untouched.
async fn send(
    local: &Rc<Local>,
    view: &View,
    place: usize,
    mut request: Request,
    begin: Instant,
) -> Result<Response, Box<Failure>> {
    let lane = view.lane(place);
    let series = &view.snapshot.upstream(place).series;
    let policy = &again::DEFAULT;
    lane.budget().borrow_mut().request(policy.budget, begin);
    let mut tried = SmallVec::<[u32; 4]>::new();
    let mut facts = Facts {
        made: 0,
        nature: retry::nature(request.head.method(), policy),
        resend: Resend::Untouched,
        pushback: Pushback::Nothing,
        deadline: begin.checked_add(LONGEST),
    };
    loop {
        let now = clock::now();
        let options = SendOptions {
            avoid: &tried,
            ..SendOptions::new(now)
        };
        let outcome = lane.send(request, options).await;
        let status = outcome
            .as_ref()
            .ok()
            .map(|sent| sent.response.head.status.as_u16());
        let flag = outcome
            .as_ref()
            .err()
            .map(|failure| attempt::flag(&failure.cause));
        let end = outcome
            .as_ref()
            .map_or_else(|_| clock::now(), |sent| sent.at);
        series.attempt(local.id, status, flag, end.saturating_duration_since(now));
        if facts.made > 0 {
            let ended = if outcome.is_err() {
                metrics::Retry::Failed
            } else {
                metrics::Retry::Succeeded
            };
            series.retry(local.id, ended);
        }
        facts.made += 1;
        let mut failure = match outcome {
            Ok(sent) => return Ok(sent.response),
            Err(failure) => failure,
        };
        let Some(untouched) = failure.request.take() else {
            return Err(failure);
        };
        tried.extend(failure.endpoint);
        let ended = Ended::Failed {
            as_what: retry::condition(&failure),
            ran: Ran::Never,
        };
        let verdict = {
            let budget = &mut lane.budget().borrow_mut();
            retry::decide(policy, ended, &facts, budget, end, fastrand::u64(..))
        };
        let wait = match verdict {
            Verdict::Again(wait) => wait,
            Verdict::Over(why) => {
                if why == Why::Budget {
                    series.retry(local.id, metrics::Retry::Refused);
                }
                return Err(failure);
            }
        };
        request = untouched;
        Timeout::new(&local.sweep, end, wait).await;
    }
}
