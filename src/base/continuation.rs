//! A body that is held back until somebody permits it (RFC 9110, 10.1.1: `100-continue`).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::base::body::{Body, BodyError};

/// Lets a held body go; dropping it lets it go, too.
#[derive(Debug)]
pub struct Permit(oneshot::Sender<()>);

impl Permit {
    /// Lets the body go.
    pub fn grant(self) {
        // The body may be gone already.
        let _gone = self.0.send(());
    }
}

/// Holds a body back until the permit is granted, or `patience` has passed.
pub fn hold(body: Body, patience: Duration) -> (Permit, Body) {
    let (granted, wait) = oneshot::channel();
    let held = Held {
        wait: Some((wait, Box::pin(tokio::time::sleep(patience)))),
        body,
    };
    (Permit(granted), Body::stream(held))
}

struct Held {
    wait: Option<(oneshot::Receiver<()>, Pin<Box<Sleep>>)>,
    body: Body,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some((granted, patience)) = &mut self.wait {
            if Pin::new(granted).poll(cx).is_pending() {
                std::task::ready!(patience.as_mut().poll(cx));
            }
            self.wait = None;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_held_body_comes_with_the_permit() {
        let (permit, mut body) = hold(Body::full("x"), Duration::from_mins(1));
        let mut next = Box::pin(body.next_frame());
        assert!(futures_util::poll!(&mut next).is_pending());
        permit.grant();
        assert!(matches!(next.await, Some(Ok(_))));
    }

    #[tokio::test]
    async fn patience_has_an_end() {
        let (_permit, mut body) = hold(Body::full("x"), Duration::from_millis(5));
        assert!(matches!(body.next_frame().await, Some(Ok(_))));
    }
}
