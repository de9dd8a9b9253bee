//! Calls of our own (fan-out, middlewares that ask others) through the same lanes as clients'.

use std::rc::Weak;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use crate::base::caller::{CallError, Caller};
use crate::base::clock::Timeout;
use crate::base::message::{Request, Response};
use crate::proxy::Local;
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
            let lane = view
                .snapshot
                .upstream_named(&upstream)
                .and_then(|place| view.lanes.get(place));
            let Some(lane) = lane else {
                return Err(CallError::Unknown(upstream));
            };
            let now = std::time::Instant::now();
            let timeout = Timeout::new(&local.sweep, now, LONGEST);
            let send = lane.send(request, SendOptions::new(now));
            tokio::select! {
                biased;
                sent = send => match sent {
                    Ok(sent) => Ok(sent.response),
                    Err(failure) => Err(CallError::Failed { upstream, detail: failure.detail }),
                },
                () = timeout => Err(CallError::Timeout(upstream)),
            }
        })
    }
}
