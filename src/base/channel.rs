//! A body that somebody else writes: a handler's stream, with back-pressure.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

use crate::base::body::{Body, BodyError};

/// The writing end of a body.
///
/// It must be ended with [`Sender::finish`], [`Sender::finish_with`] or [`Sender::fail`]: a sender
/// that is only dropped (a panic, a cancelled task) breaks the body off, so that a reader can tell
/// a part from the whole.
#[derive(Debug)]
pub struct Sender {
    frames: mpsc::Sender<Event>,
}

#[derive(Debug)]
enum Event {
    Frame(Frame<Bytes>),
    End(Result<(), BodyError>),
}

/// Nobody reads the body any more: the client has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody reads the body any more")]
pub struct Gone;

struct Channel {
    frames: mpsc::Receiver<Event>,
    is_over: bool,
}

impl Body {
    /// A body and its writing end; the writer waits while `capacity` chunks (at least one) are
    /// not read yet.
    pub fn channel(capacity: usize) -> (Sender, Self) {
        let (sender, frames) = mpsc::channel(capacity.max(1));
        let body = Self::stream(Channel {
            frames,
            is_over: false,
        });
        (Sender { frames: sender }, body)
    }
}

impl Sender {
    /// Writes a chunk; waits while the reader is behind.
    ///
    /// # Cancel safety
    /// A dropped future has written either the whole chunk or nothing.
    ///
    /// # Errors
    /// [`Gone`] when the reader has left: there is no use in going on.
    pub async fn send(&self, chunk: impl Into<Bytes>) -> Result<(), Gone> {
        let chunk = chunk.into();
        if chunk.is_empty() {
            return Ok(());
        }
        let frame = Event::Frame(Frame::data(chunk));
        self.frames.send(frame).await.map_err(|_| Gone)
    }

    /// Passes on a frame of another body.
    pub(crate) async fn pass(&self, frame: Frame<Bytes>) -> Result<(), Gone> {
        let event = Event::Frame(frame);
        self.frames.send(event).await.map_err(|_| Gone)
    }

    /// The body is complete.
    ///
    /// # Errors
    /// [`Gone`] when the reader has left.
    pub async fn finish(self) -> Result<(), Gone> {
        self.frames.send(Event::End(Ok(()))).await.map_err(|_| Gone)
    }

    /// The body is complete but for its trailers (RFC 9110, 6.5).
    ///
    /// # Errors
    /// [`Gone`] when the reader has left.
    pub async fn finish_with(self, trailers: HeaderMap) -> Result<(), Gone> {
        let frame = Event::Frame(Frame::trailers(trailers));
        self.frames.send(frame).await.map_err(|_| Gone)?;
        self.finish().await
    }

    /// The body cannot be completed: the reader sees it broken off.
    pub async fn fail(self, why: impl Into<String>) {
        let event = Event::End(Err(BodyError::Source(why.into())));
        // If the reader has left, nobody needs to know.
        drop(self.frames.send(event).await);
    }

    /// Waits until the reader has left.
    pub async fn closed(&self) {
        self.frames.closed().await;
    }
}

impl http_body::Body for Channel {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let event = std::task::ready!(self.frames.poll_recv(cx));
        if let Some(Event::Frame(frame)) = event {
            return Poll::Ready(Some(Ok(frame)));
        }
        self.is_over = true;
        Poll::Ready(match event {
            Some(Event::End(Err(error))) => Some(Err(error)),
            Some(_) => None,
            None => Some(Err(BodyError::Source(
                "its sender was dropped before the end".into(),
            ))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn chunks_come_in_order_and_then_the_end() {
        let (sender, body) = Body::channel(1);
        let write = async {
            for chunk in ["one ", "", "two ", "three"] {
                sender.send(chunk).await.expect("read");
            }
            sender.finish().await.expect("read");
        };
        let ((), read) = tokio::join!(write, body.collect(100));
        assert_eq!(read.expect("complete"), "one two three");
    }

    #[tokio::test]
    async fn the_writer_waits_for_the_reader() {
        let (sender, mut body) = Body::channel(1);
        sender.send("first").await.expect("read");
        let mut second = Box::pin(sender.send("second"));
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(body.next_frame().await.is_some());
        assert!(futures_util::poll!(&mut second).is_ready());
    }

    #[tokio::test]
    async fn a_dropped_sender_breaks_the_body_off() {
        let (sender, body) = Body::channel(2);
        sender.send("part").await.expect("read");
        drop(sender);
        assert!(matches!(body.collect(100).await, Err(BodyError::Source(_))));

        let (sender, body) = Body::channel(2);
        sender.fail("no more").await;
        assert!(matches!(body.collect(100).await, Err(BodyError::Source(why)) if why == "no more"));
    }

    #[tokio::test]
    async fn trailers_come_last() {
        let (sender, mut body) = Body::channel(4);
        sender.send("x").await.expect("read");
        sender.finish_with(HeaderMap::new()).await.expect("read");
        let mut kinds = Vec::new();
        while let Some(Ok(frame)) = body.next_frame().await {
            kinds.push(frame.is_trailers());
        }
        assert_eq!(kinds, [false, true]);
    }

    #[tokio::test]
    async fn the_writer_learns_that_nobody_reads() {
        let (sender, body) = Body::channel(1);
        drop(body);
        sender.closed().await;
        assert_eq!(sender.send("x").await, Err(Gone));
    }
}
