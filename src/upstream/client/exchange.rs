//! A request on its way, in as few bytes as can be.
//!
//! It is a part of every client connection's future, busy or idle. Written as nested `async` blocks
//! it took 2,472 bytes, since each block keeps what it captures beside what it awaits; so the usual
//! way is a future by hand, and the rare one (a new connection, a dead one) is boxed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::LocalBoxFuture;
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use crate::base::message::Response;
use crate::upstream::client::Unanswered;
use crate::upstream::failure::Failure;

/// The rare way to an answer.
pub(super) type Anew = LocalBoxFuture<'static, Result<Response, Box<Failure>>>;

/// What is to be done once hyper has an answer, or none.
pub(super) trait Sent {
    /// The answer.
    fn answered(self, response: http::Response<Incoming>) -> Result<Response, Box<Failure>>;

    /// Another way to an answer, if there is one.
    fn unanswered(self, error: Unanswered) -> Result<Anew, Box<Failure>>;
}

pin_project! {
    #[project = Now]
    pub(super) enum Exchange<F, S> {
        Sent {
            #[pin]
            answer: F,
            sent: Option<S>,
        },
        Anew { sending: Anew },
    }
}

impl<F, S> Exchange<F, S> {
    pub(super) fn new((answer, sent): (F, S)) -> Self {
        Self::Sent {
            answer,
            sent: Some(sent),
        }
    }
}

impl<F, S> Future for Exchange<F, S>
where
    F: Future<Output = Result<http::Response<Incoming>, Unanswered>>,
    S: Sent,
{
    type Output = Result<Response, Box<Failure>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let sending = match self.as_mut().project() {
            Now::Anew { sending } => return sending.as_mut().poll(cx),
            Now::Sent { answer, sent } => {
                let answer = ready!(answer.poll(cx));
                // Taken once: whoever polls a future after its end waits for ever.
                let Some(sent) = sent.take() else {
                    return Poll::Pending;
                };
                match answer {
                    Ok(response) => return Poll::Ready(sent.answered(response)),
                    Err(error) => sent.unanswered(error)?,
                }
            }
        };
        self.set(Self::Anew { sending });
        self.poll(cx)
    }
}
