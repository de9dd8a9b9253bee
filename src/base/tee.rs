//! A second reader of a body, whom nobody waits for.
//!
//! The first reader reads as if it were alone. What it reads is shared, not copied, with the second,
//! up to a bound: one that falls further behind loses the rest of the body and sees it broken off.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::base::body::{Body, BodyError};

/// The same body twice: for its reader, and for one who reads along; and the news that the second
/// is broken off.
///
/// The second sees frames as the first reads them, and keeps at most `ahead` bytes that it has not
/// read (or one frame, where that is longer). It ends as the first does; where the first stops
/// before its end, the second is broken off.
pub fn tee(body: Body, ahead: usize) -> (Body, Body, News) {
    if body.is_empty() {
        return (body, Body::empty(), News(None));
    }
    let hint = body.size_hint();
    let shared = Arc::new(Mutex::new(Shared::default()));
    let first = First {
        inner: body,
        ahead,
        shared: Arc::clone(&shared),
    };
    let news = News(Some(Arc::clone(&shared)));
    let second = Second {
        shared,
        hint,
        is_told: false,
    };
    (Body::stream(first), Body::stream(second), news)
}

/// Why the second of two bodies is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Its reader was too slow.
    Behind,
    /// The first reader has left, or its body has failed.
    Abandoned,
}

/// As a future, ready once the second body is broken off; never, if it is not.
///
/// Its reader may not come to hear of it by itself: one that waits for a slow socket does not look
/// at the body.
pub struct News(Option<Arc<Mutex<Shared>>>);

/// The state between the two. One thread uses it; a body may be moved to another, hence the lock,
/// which nobody else ever holds.
#[derive(Default)]
struct Shared {
    frames: VecDeque<Frame<Bytes>>,
    /// Bytes in `frames`.
    bytes: usize,
    end: Option<Result<(), (Broken, BodyError)>>,
    /// The second reader has left.
    gone: bool,
    reader: Option<Waker>,
    watcher: Option<Waker>,
}

struct First {
    inner: Body,
    ahead: usize,
    shared: Arc<Mutex<Shared>>,
}

struct Second {
    shared: Arc<Mutex<Shared>>,
    hint: SizeHint,
    /// Its reader was told that it is broken off.
    is_told: bool,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn is_over(&self) -> bool {
        self.gone || self.end.is_some()
    }

    fn push(&mut self, frame: &Frame<Bytes>, ahead: usize) {
        if self.is_over() {
            return;
        }
        if let Some(data) = frame.data_ref() {
            if self.bytes > 0 && self.bytes + data.len() > ahead {
                self.frames.clear();
                let error = BodyError::Source("its reader fell behind".into());
                return self.finish(Err((Broken::Behind, error)));
            }
            self.bytes += data.len();
            self.frames.push_back(Frame::data(data.clone()));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.frames.push_back(Frame::trailers(trailers.clone()));
        }
        self.wake();
    }

    fn finish(&mut self, end: Result<(), (Broken, BodyError)>) {
        if !self.is_over() {
            self.end = Some(end);
            self.wake();
            if let Some(watcher) = self.watcher.take() {
                watcher.wake();
            }
        }
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl http_body::Body for First {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let mut shared = lock(&self.shared);
        match &frame {
            Some(Ok(frame)) => {
                shared.push(frame, self.ahead);
                // Whoever sees this does not ask for the end any more.
                if self.inner.is_end_stream() {
                    shared.finish(Ok(()));
                }
            }
            Some(Err(error)) => shared.finish(Err((Broken::Abandoned, error.clone()))),
            None => shared.finish(Ok(())),
        }
        drop(shared);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for First {
    fn drop(&mut self) {
        let end = if self.inner.is_end_stream() {
            Ok(())
        } else {
            let error = BodyError::Peer("its first reader has left".into());
            Err((Broken::Abandoned, error))
        };
        lock(&self.shared).finish(end);
    }
}

impl http_body::Body for Second {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = lock(&self.shared);
        if let Some(frame) = shared.frames.pop_front() {
            let length = frame.data_ref().map_or(0, Bytes::len);
            shared.bytes -= length;
            drop(shared);
            self.read(length as u64);
            return Poll::Ready(Some(Ok(frame)));
        }
        let end = match &shared.end {
            None => {
                shared.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Some(end) => end.clone(),
        };
        drop(shared);
        let is_told = std::mem::replace(&mut self.is_told, true);
        Poll::Ready(match end {
            Err((_, error)) if !is_told => Some(Err(error)),
            _ => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        let shared = lock(&self.shared);
        let is_over = self.is_told || matches!(shared.end, Some(Ok(())));
        shared.frames.is_empty() && is_over
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

impl Second {
    /// So many bytes less are to come.
    fn read(&mut self, length: u64) {
        let mut left = SizeHint::new();
        left.set_lower(self.hint.lower().saturating_sub(length));
        if let Some(upper) = self.hint.upper() {
            left.set_upper(upper.saturating_sub(length));
        }
        self.hint = left;
    }
}

impl Future for News {
    type Output = Broken;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Broken> {
        let Some(shared) = &self.0 else {
            return Poll::Pending;
        };
        let mut shared = lock(shared);
        match &shared.end {
            Some(Err((why, _))) => Poll::Ready(*why),
            Some(Ok(())) => Poll::Pending,
            None => {
                shared.watcher = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("News")
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.gone = true;
        shared.frames.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use http::header::{HeaderName, HeaderValue};

    /// The next frame, if there is one without waiting.
    async fn next(body: &mut Body) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        futures_util::poll!(Box::pin(body.next_frame()))
    }

    #[tokio::test]
    async fn both_read_the_same_bytes_and_trailers() {
        let (sender, body) = Body::channel(4);
        let (mut first, mut second, _) = tee(body, 100);
        assert!(next(&mut second).await.is_pending());
        sender.send("one ").await.expect("read");
        sender.send("two").await.expect("read");
        let mut trailers = HeaderMap::new();
        let name = HeaderName::from_static("x-sum");
        trailers.insert(name, HeaderValue::from_static("7"));
        sender.finish_with(trailers).await.expect("read");
        let mut seen = Vec::new();
        while let Some(frame) = first.next_frame().await {
            let frame = frame.expect("whole");
            let Poll::Ready(Some(Ok(same))) = next(&mut second).await else {
                panic!("the second sees what the first has read");
            };
            assert_eq!(same.data_ref(), frame.data_ref());
            assert_eq!(same.trailers_ref(), frame.trailers_ref());
            seen.push(same.is_data());
        }
        assert_eq!(seen, [true, true, false]);
        assert!(matches!(next(&mut second).await, Poll::Ready(None)));
        assert!(second.is_empty());
    }

    #[tokio::test]
    async fn the_length_is_known_to_both() {
        let (first, second, _) = tee(Body::full("12345"), 100);
        assert_eq!((first.len(), second.len()), (Some(5), Some(5)));
        assert_eq!(first.collect(9).await.expect("whole"), "12345");
        assert_eq!(second.collect(9).await.expect("whole"), "12345");
        let (first, second, _) = tee(Body::empty(), 100);
        assert!(first.is_empty() && second.is_empty());
    }

    #[tokio::test]
    async fn who_falls_behind_is_cut_off_and_the_first_never_waits() {
        let chunks = || futures_util::stream::iter(vec![Ok::<_, BodyError>("1234"); 4]);
        let (first, second, mut news) = tee(Body::from_stream(chunks()), 8);
        assert!(futures_util::poll!(&mut news).is_pending());
        assert_eq!(first.collect(99).await.expect("whole").len(), 16);
        assert_eq!(news.await, Broken::Behind);
        let why = second.collect(99).await.expect_err("behind");
        assert!(matches!(why, BodyError::Source(_)), "{why:?}");

        // One that keeps up sees all of it, and a frame that is too long by itself is let through.
        let (mut first, mut second, mut news) = tee(Body::from_stream(chunks()), 3);
        let mut read = 0;
        while let Some(frame) = first.next_frame().await {
            read += frame.expect("whole").data_ref().map_or(0, Bytes::len);
            assert!(matches!(next(&mut second).await, Poll::Ready(Some(Ok(_)))));
        }
        assert_eq!(read, 16);
        assert!(second.next_frame().await.is_none());
        assert!(futures_util::poll!(&mut news).is_pending());
    }

    #[tokio::test]
    async fn a_first_reader_that_leaves_breaks_the_second_off() {
        let (sender, body) = Body::channel(4);
        let (mut first, mut second, news) = tee(body, 100);
        sender.send("part").await.expect("read");
        assert!(first.next_frame().await.is_some());
        drop(first);
        assert_eq!(news.await, Broken::Abandoned);
        assert!(matches!(second.next_frame().await, Some(Ok(_))));
        let why = second.next_frame().await;
        assert!(matches!(why, Some(Err(BodyError::Peer(_)))), "{why:?}");
        assert!(second.next_frame().await.is_none());
    }

    #[tokio::test]
    async fn a_failure_is_seen_by_both() {
        let (sender, body) = Body::channel(4);
        let (first, second, _) = tee(body, 100);
        sender.fail("no more").await;
        assert!(first.collect(9).await.is_err());
        assert!(second.collect(9).await.is_err());
    }

    #[tokio::test]
    async fn a_second_reader_that_leaves_costs_the_first_nothing() {
        let (first, second, _) = tee(Body::full("12345"), 100);
        drop(second);
        assert_eq!(first.collect(9).await.expect("whole"), "12345");
    }
}
