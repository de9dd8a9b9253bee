//! The one body type of requests and responses, on both sides of the gateway.
//!
//! It is an enum and never boxed on the hot path: what hyper received passes through as it is.
//! Streams of our own making (files, merged answers, a handler's stream) are the one boxed kind.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use crate::base::seats::Hold;

/// Bytes on their way, with optional trailers at the end.
#[derive(Default)]
pub struct Body(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    /// Bytes at hand; `None` once they were taken.
    Full(Option<Bytes>),
    /// Trailers and nothing else.
    Trailers(Option<Box<HeaderMap>>),
    /// What hyper is receiving.
    Wire(hyper::body::Incoming),
    /// The same, counted as long as it is there.
    Held(
        hyper::body::Incoming,
        #[expect(dead_code, reason = "held for its drop")] Hold,
    ),
    /// The same, or any other body, cut when it grows over a limit.
    Limited(Box<Limited>),
    /// Any other body, with a count of the bytes that have passed.
    Counted(Box<Counted>),
    Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send>>),
}

struct Counted {
    inner: Body,
    progress: Arc<Progress>,
}

/// How far a body has come; one thread writes it.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    waiting: AtomicBool,
}

impl Progress {
    /// Bytes that have passed.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// True while its reader wants more and its sender has nothing.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Relaxed)
    }
}

struct Limited {
    inner: Body,
    left: u64,
}

/// What a body failed with, told to someone who does not read it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Noted(Arc<OnceLock<BodyError>>);

impl Noted {
    /// The failure, if there was one so far.
    pub(crate) fn get(&self) -> Option<BodyError> {
        self.0.get().cloned()
    }
}

struct Noting {
    inner: Body,
    noted: Noted,
}

impl Body {
    /// No bytes at all.
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// Bytes that are already there.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            Self::empty()
        } else {
            Self(Kind::Full(Some(bytes)))
        }
    }

    /// No bytes, but trailers (RFC 9110, 6.5).
    pub fn trailers(trailers: HeaderMap) -> Self {
        Self(Kind::Trailers(Some(Box::new(trailers))))
    }

    /// Any other body; costs one allocation and a virtual call for each frame.
    pub fn stream<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        Self(Kind::Stream(Box::pin(body)))
    }

    /// Chunks as a stream gives them; a stream that is not `Send` writes to [`Body::channel`].
    pub fn from_stream<S, C, E>(chunks: S) -> Self
    where
        S: Stream<Item = Result<C, E>> + Send + 'static,
        C: Into<Bytes>,
        E: fmt::Display,
    {
        let frames = chunks.map(|chunk| match chunk {
            Ok(chunk) => Ok(Frame::data(chunk.into())),
            Err(error) => Err(BodyError::Source(error.to_string())),
        });
        Self::stream(http_body_util::StreamBody::new(frames))
    }

    /// What hyper is receiving from a client or an upstream.
    pub(crate) fn wire(incoming: hyper::body::Incoming) -> Self {
        if incoming.is_end_stream() {
            Self::empty()
        } else {
            Self(Kind::Wire(incoming))
        }
    }

    /// The same, counted until its end or until it is dropped.
    pub(crate) fn wire_held(incoming: hyper::body::Incoming, hold: Hold) -> Self {
        if incoming.is_end_stream() {
            Self::empty()
        } else {
            Self(Kind::Held(incoming, hold))
        }
    }

    /// True if it may be one that can fail with [`BodyError::TooLarge`].
    pub(crate) fn has_limit(&self) -> bool {
        match &self.0 {
            // What is inside of a stream cannot be seen.
            Kind::Limited(_) | Kind::Stream(_) => true,
            Kind::Counted(counted) => counted.inner.has_limit(),
            _ => false,
        }
    }

    /// The same body, with its failure told to the second value as well.
    pub(crate) fn noted(self) -> (Self, Noted) {
        let noted = Noted::default();
        let noting = Noting {
            inner: self,
            noted: noted.clone(),
        };
        (Self::stream(noting), noted)
    }

    /// The same body, failing with [`BodyError::TooLarge`] at the first byte over `limit`.
    #[must_use]
    pub fn limited(self, limit: u64) -> Self {
        match self.0 {
            Kind::Empty => self,
            _ => Self(Kind::Limited(Box::new(Limited {
                inner: self,
                left: limit,
            }))),
        }
    }

    /// The same body, telling the second value how far it has come.
    pub fn counted(self) -> (Self, Arc<Progress>) {
        let progress = Arc::new(Progress::default());
        let counted = Counted {
            inner: self,
            progress: Arc::clone(&progress),
        };
        (Self(Kind::Counted(Box::new(counted))), progress)
    }

    /// True if there is nothing to come, neither bytes nor trailers.
    pub fn is_empty(&self) -> bool {
        self.is_end_stream()
    }

    /// The exact number of bytes to come, where it is known.
    pub fn len(&self) -> Option<u64> {
        self.size_hint().exact()
    }

    /// Reads the body to its end.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] when it is longer than `limit` bytes, else what the sender failed with.
    pub async fn collect(self, limit: usize) -> Result<Bytes, BodyError> {
        let mut body = self.limited(limit as u64);
        if let Kind::Full(bytes) = &mut body.0 {
            return Ok(bytes.take().unwrap_or_default());
        }
        let mut first: Option<Bytes> = None;
        let mut rest = BytesMut::new();
        while let Some(frame) = body.next_frame().await {
            let Ok(chunk) = frame?.into_data() else {
                continue;
            };
            if !rest.is_empty() {
                rest.extend_from_slice(&chunk);
            } else if let Some(first) = first.take() {
                rest.extend_from_slice(&first);
                rest.extend_from_slice(&chunk);
            } else {
                first = Some(chunk);
            }
        }
        Ok(first.unwrap_or_else(|| rest.freeze()))
    }

    /// The next frame: bytes or, last, trailers.
    pub async fn next_frame(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Trailers(map) => Poll::Ready(map.take().map(|map| Ok(Frame::trailers(*map)))),
            Kind::Wire(incoming) | Kind::Held(incoming, _) => Pin::new(incoming)
                .poll_frame(cx)
                .map_err(|error| BodyError::Peer(error.to_string())),
            Kind::Limited(limited) => limited.poll_frame(cx),
            Kind::Counted(counted) => counted.poll_frame(cx),
            Kind::Stream(stream) => {
                // The one source that is somebody's own code: its panic must end this body alone,
                // not the connection with all its other streams.
                let poll = AssertUnwindSafe(|| stream.as_mut().poll_frame(cx));
                catch_unwind(poll).unwrap_or_else(|_| {
                    self.0 = Kind::Empty;
                    Poll::Ready(Some(Err(BodyError::Source("it panicked".into()))))
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Trailers(map) => map.is_none(),
            Kind::Wire(incoming) | Kind::Held(incoming, _) => incoming.is_end_stream(),
            Kind::Limited(limited) => limited.inner.is_end_stream(),
            Kind::Counted(counted) => counted.inner.is_end_stream(),
            Kind::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            // Unknown rather than 0: a length of 0 would end the message before its trailers.
            Kind::Trailers(_) => SizeHint::default(),
            Kind::Wire(incoming) | Kind::Held(incoming, _) => incoming.size_hint(),
            Kind::Limited(limited) => limited.inner.size_hint(),
            Kind::Counted(counted) => counted.inner.size_hint(),
            Kind::Stream(stream) => stream.size_hint(),
        }
    }
}

impl http_body::Body for Noting {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Err(error)) = &frame {
            self.noted.0.get_or_init(|| error.clone());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Limited {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(chunk) = frame.data_ref()
        {
            let Some(left) = self.left.checked_sub(chunk.len() as u64) else {
                self.inner = Body::empty();
                return Poll::Ready(Some(Err(BodyError::TooLarge)));
            };
            self.left = left;
        }
        Poll::Ready(frame)
    }
}

impl Counted {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        self.progress.waiting.store(polled.is_pending(), Relaxed);
        let frame = std::task::ready!(polled);
        if let Some(Ok(frame)) = &frame
            && let Some(chunk) = frame.data_ref()
        {
            let bytes = self.progress.bytes() + chunk.len() as u64;
            self.progress.bytes.store(bytes, Relaxed);
        }
        Poll::Ready(frame)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({:?})", self.len())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::full(text)
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::full(text)
    }
}

/// Why a body ended before its end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BodyError {
    /// Longer than the limit that [`Body::limited`] set.
    #[error("the body is longer than its limit")]
    TooLarge,
    /// Nothing came within the idle timeout.
    #[error("no byte of the body came within the idle timeout")]
    Idle,
    /// The sender closed the connection or broke the protocol.
    #[error("the sender broke off the body: {0}")]
    Peer(String),
    /// A source of our own (a file, a handler's stream) failed.
    #[error("the body's source failed: {0}")]
    Source(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limit_lets_exactly_its_length_through() {
        let body = Body::full("12345").limited(5);
        assert_eq!(body.collect(100).await.expect("within the limit"), "12345");
        let body = Body::full("123456").limited(5);
        assert!(matches!(body.collect(100).await, Err(BodyError::TooLarge)));
        assert!(matches!(
            Body::full("123456").collect(5).await,
            Err(BodyError::TooLarge)
        ));
    }

    #[tokio::test]
    async fn a_stream_that_panics_breaks_the_body_off() {
        let chunks = futures_util::stream::iter(0..2).map(|n| {
            assert!(n == 0, "as this test wants it");
            Ok::<_, BodyError>("part")
        });
        let mut body = Body::from_stream(chunks);
        assert!(matches!(body.next_frame().await, Some(Ok(_))));
        assert!(matches!(
            body.next_frame().await,
            Some(Err(BodyError::Source(_)))
        ));
        assert!(body.next_frame().await.is_none());
    }

    #[test]
    fn a_limit_is_seen_through_a_count() {
        let limited = || Body::full("12345").limited(5);
        assert!(limited().has_limit());
        assert!(limited().counted().0.has_limit());
        assert!(!Body::full("12345").counted().0.has_limit());
    }

    #[test]
    fn a_body_of_trailers_has_no_length() {
        let body = Body::trailers(HeaderMap::new());
        assert_eq!(body.len(), None);
        assert!(!body.is_empty());
    }
}
