//! A body that can be sent again: what passes is kept, up to a limit.
//!
//! Nobody waits for it to be read: bytes pass as they come. What has passed is copied, so that no
//! more than the limit is kept, whatever the buffers are that the bytes came in; a body that grows
//! over the limit passes on, and is kept no longer.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use crate::base::body::{Body, BodyError};

/// What is kept of a body on its way.
///
/// It is shared with the body because a library drops the body of a request that failed: what is
/// left of the source must outlive that. One thread uses it, so the lock is never waited for.
/// Once it is dropped nothing more is kept, and what was is let go as soon as it was read.
#[derive(Debug)]
pub struct Replay(Arc<Mutex<Tape>>);

#[derive(Debug)]
struct Tape {
    source: Body,
    /// Every byte that has passed; none once they were too many.
    kept: Option<BytesMut>,
    limit: usize,
    end: Option<End>,
    /// The latest reader, who alone may read on from the source.
    reader: u32,
    /// Nobody will ask for the body again.
    released: bool,
}

#[derive(Debug)]
enum End {
    /// The source came to its end, with or without trailers.
    Reached(Option<HeaderMap>),
    Failed(BodyError),
}

/// The body as one attempt reads it.
struct Reader {
    tape: Arc<Mutex<Tape>>,
    number: u32,
    /// How many of the kept bytes it has read.
    at: usize,
    /// It has read the trailers.
    done: bool,
}

impl Replay {
    /// The same body, kept up to `limit` bytes as it passes.
    pub fn new(body: Body, limit: usize) -> (Body, Self) {
        let tape = Tape {
            source: body,
            kept: Some(BytesMut::new()),
            limit,
            end: None,
            reader: 0,
            released: false,
        };
        let replay = Self(Arc::new(Mutex::new(tape)));
        let body = replay.reader(0);
        (body, replay)
    }

    /// The body from its first byte on, if everything that was read so far is kept.
    ///
    /// Earlier ones fail from now on when they would read more of the source: only one can.
    pub fn again(&self) -> Option<Body> {
        let number = {
            let mut tape = lock(&self.0);
            if !tape.is_whole() {
                return None;
            }
            tape.reader += 1;
            tape.reader
        };
        Some(self.reader(number))
    }

    /// True if [`Self::again`] has an answer now.
    pub fn is_whole(&self) -> bool {
        lock(&self.0).is_whole()
    }

    /// True if all of it is kept and nothing is to come: then several may read it at once.
    pub fn is_complete(&self) -> bool {
        let mut tape = lock(&self.0);
        tape.note_end();
        tape.is_whole() && tape.end.is_some()
    }

    /// What the source failed with.
    pub fn failure(&self) -> Option<BodyError> {
        match &lock(&self.0).end {
            Some(End::Failed(error)) => Some(error.clone()),
            _ => None,
        }
    }

    fn reader(&self, number: u32) -> Body {
        Body::stream(Reader {
            tape: Arc::clone(&self.0),
            number,
            at: 0,
            done: false,
        })
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        lock(&self.0).released = true;
    }
}

fn lock(tape: &Mutex<Tape>) -> MutexGuard<'_, Tape> {
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tape {
    fn is_whole(&self) -> bool {
        self.kept.is_some() && !matches!(self.end, Some(End::Failed(_)))
    }

    /// A source may be at its end without anybody having asked for one frame more.
    fn note_end(&mut self) {
        if self.end.is_none() && self.source.is_end_stream() {
            self.end = Some(End::Reached(None));
        }
    }

    /// The kept bytes that a reader has not read yet.
    fn rest(&self, reader: &Reader) -> &[u8] {
        let kept = self.kept.as_deref().unwrap_or_default();
        kept.get(reader.at..).unwrap_or_default()
    }

    /// The next frame of the source, kept where it fits.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.source).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(chunk) = frame.data_ref() {
                    self.keep(chunk);
                } else {
                    self.end = Some(End::Reached(frame.trailers_ref().cloned()));
                }
            }
            Some(Err(error)) => {
                self.kept = None;
                self.end = Some(End::Failed(error.clone()));
            }
            None => self.end = Some(End::Reached(None)),
        }
        Poll::Ready(frame)
    }

    fn keep(&mut self, chunk: &[u8]) {
        let Some(kept) = &mut self.kept else {
            return;
        };
        // Whoever reads from the source has read all that is kept.
        if self.released || kept.len() + chunk.len() > self.limit {
            self.kept = None;
        } else {
            kept.extend_from_slice(chunk);
        }
    }
}

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut tape = lock(&this.tape);
        let rest = tape.rest(this);
        if !rest.is_empty() {
            let rest = Bytes::copy_from_slice(rest);
            this.at += rest.len();
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        tape.note_end();
        match &tape.end {
            Some(End::Reached(Some(trailers))) if !this.done => {
                this.done = true;
                return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
            }
            Some(End::Reached(_)) => return Poll::Ready(None),
            Some(End::Failed(error)) => return Poll::Ready(Some(Err(error.clone()))),
            None => {}
        }
        if this.number != tape.reader {
            let text = "the request is sent again elsewhere".to_owned();
            return Poll::Ready(Some(Err(BodyError::Source(text))));
        }
        let frame = ready!(tape.poll(cx));
        this.at = tape.kept.as_ref().map_or(0, BytesMut::len);
        this.done = matches!(&frame, Some(Ok(frame)) if frame.is_trailers());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let tape = lock(&self.tape);
        if !tape.rest(self).is_empty() {
            return false;
        }
        match &tape.end {
            Some(End::Reached(trailers)) => trailers.is_none() || self.done,
            Some(End::Failed(_)) => false,
            None => tape.source.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let tape = lock(&self.tape);
        let rest = tape.rest(self).len() as u64;
        let source = match &tape.end {
            None => tape.source.size_hint(),
            Some(End::Reached(None)) => SizeHint::with_exact(0),
            // Unknown: a length would end the message before its trailers.
            Some(End::Reached(Some(_)) | End::Failed(_)) => SizeHint::default(),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(source.lower().saturating_add(rest));
        if let Some(upper) = source.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a body to its end: its bytes, and whether trailers came.
    async fn read(mut body: Body) -> Result<(String, bool), BodyError> {
        let (mut text, mut has_trailers) = (String::new(), false);
        while let Some(frame) = body.next_frame().await {
            match frame?.into_data() {
                Ok(data) => text += std::str::from_utf8(&data).expect("text"),
                Err(_) => has_trailers = true,
            }
        }
        assert!(body.is_empty());
        Ok((text, has_trailers))
    }

    fn chunks(parts: &'static [&'static str]) -> Body {
        let parts = parts.iter().copied().map(Ok::<_, BodyError>);
        Body::from_stream(futures_util::stream::iter(parts))
    }

    #[tokio::test]
    async fn a_body_within_the_limit_comes_again_and_again() {
        let (body, replay) = Replay::new(chunks(&["ab", "", "c"]), 3);
        assert_eq!(read(body).await.expect("whole"), ("abc".into(), false));
        assert!(replay.is_complete());
        for _ in 0..3 {
            let again = replay.again().expect("all is kept");
            assert_eq!(again.len(), Some(3));
            assert_eq!(read(again).await.expect("whole"), ("abc".into(), false));
        }
    }

    #[tokio::test]
    async fn one_byte_over_the_limit_passes_once_and_never_again() {
        let (body, replay) = Replay::new(chunks(&["ab", "cd"]), 3);
        assert!(replay.again().is_some(), "nothing was read yet");
        let again = replay.again().expect("and nothing by the first");
        drop(body);
        assert_eq!(read(again).await.expect("whole"), ("abcd".into(), false));
        assert!(replay.again().is_none() && !replay.is_complete());
    }

    #[tokio::test]
    async fn what_was_read_comes_first_and_the_rest_from_the_source() {
        let (sender, source) = Body::channel(4);
        let (mut body, replay) = Replay::new(source, 100);
        sender.send("first ").await.expect("a reader");
        assert!(body.next_frame().await.is_some());
        assert!(!replay.is_complete(), "more may come");
        let again = replay.again().expect("all is kept");
        sender.send("second").await.expect("a reader");
        sender.finish().await.expect("a reader");
        assert_eq!(
            read(again).await.expect("whole"),
            ("first second".into(), false)
        );
        // The one before must not take what belongs to the one after.
        assert!(matches!(body.next_frame().await, None | Some(Ok(_))));
    }

    #[tokio::test]
    async fn an_earlier_reader_takes_nothing_from_a_later_one() {
        let (sender, source) = Body::channel(4);
        let (mut body, replay) = Replay::new(source, 100);
        let again = replay.again().expect("nothing was read");
        sender.send("all").await.expect("a reader");
        let frame = body.next_frame().await;
        assert!(
            matches!(frame, Some(Err(BodyError::Source(_)))),
            "{frame:?}"
        );
        sender.finish().await.expect("a reader");
        assert_eq!(read(again).await.expect("whole"), ("all".into(), false));
    }

    #[tokio::test]
    async fn a_complete_body_has_several_readers_at_once() {
        let (mut body, replay) = Replay::new(Body::full("abc"), 100);
        assert!(!replay.is_complete(), "not a byte was read");
        assert!(body.next_frame().await.is_some());
        assert!(replay.is_complete());
        let again = replay.again().expect("all is kept");
        assert!(body.next_frame().await.is_none());
        assert_eq!(read(again).await.expect("whole"), ("abc".into(), false));
    }

    #[tokio::test]
    async fn nothing_is_kept_for_nobody() {
        let (mut body, replay) = Replay::new(chunks(&["ab", "cd", "ef"]), 100);
        assert!(body.next_frame().await.is_some());
        let again = replay.again().expect("all is kept");
        let tape = Arc::clone(&replay.0);
        drop((replay, body));
        assert_eq!(read(again).await.expect("whole"), ("abcdef".into(), false));
        assert!(lock(&tape).kept.is_none());
    }

    #[tokio::test]
    async fn trailers_come_again_too() {
        let (body, replay) = Replay::new(Body::trailers(HeaderMap::new()), 0);
        assert_eq!(body.len(), None);
        assert_eq!(read(body).await.expect("whole"), (String::new(), true));
        let again = replay.again().expect("all is kept");
        assert_eq!(again.len(), None);
        assert!(!again.is_empty());
        assert_eq!(read(again).await.expect("whole"), (String::new(), true));
    }

    #[tokio::test]
    async fn a_source_that_failed_is_not_sent_again() {
        let (body, replay) = Replay::new(Body::full("abc").limited(2), 100);
        assert!(replay.failure().is_none());
        assert!(matches!(read(body).await, Err(BodyError::TooLarge)));
        assert!(matches!(replay.failure(), Some(BodyError::TooLarge)));
        assert!(replay.again().is_none());
    }
}
