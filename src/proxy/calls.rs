//! Calls of our own (fan-out, middlewares that ask others) through the same lanes as clients'.

use std::rc::Weak;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;

use crate::base::caller::{CallError, Caller};
use crate::base::clock::Timeout;
use crate::base::message::{Request, Response};
use crate::proxy::{Local, attempt};
use crate::upstream::SendOptions;

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
            let now = Instant::now();
            let timeout = Timeout::new(&local.sweep, now, LONGEST);
            let send = view.lane(place).send(request, SendOptions::new(now));
            let sent = tokio::select! {
                biased;
                sent = send => sent.map_err(|failure| *failure),
                () = timeout => return Err(CallError::Timeout(upstream)),
            };
            let series = &view.snapshot.upstream(place).series;
            match sent {
                Ok(sent) => {
                    let status = sent.response.head.status.as_u16();
                    let took = sent.at.saturating_duration_since(now);
                    series.attempt(local.id, Some(status), None, took);
                    Ok(sent.response)
                }
                Err(failure) => {
                    let flag = attempt::flag(&failure.cause);
                    series.attempt(local.id, None, Some(flag), now.elapsed());
                    let detail = failure.detail;
                    Err(CallError::Failed { upstream, detail })
                }
            }
        })
    }
}
