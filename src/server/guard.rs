//! The strict door: what stands between a client's socket and the HTTP library.
//!
//! It reads the framing of HTTP/1 before the library does and withholds everything from the first
//! violation on; it knows whether a head is half read and whether the client has stopped reading,
//! which is what timeouts need; it slips informational responses (1xx) in before the final one,
//! which the library cannot; and it hands the socket back when the library is done, so that a
//! refusal can still be written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::Wire;
use crate::server::framing::{Framing, HeadLimits, Violation};
use crate::server::stream::Stream;

/// The socket as the HTTP library gets it.
pub(crate) struct Guard {
    stream: Option<Stream>,
    framing: Framing,
    /// What was read to tell the protocol, and is still to be given on.
    first: Vec<u8>,
    shared: Arc<Shared>,
}

/// What the connection's task sees of its guard.
///
/// The library wants its socket to be `Send`, so these are atomics; they never leave the thread.
pub(crate) struct Shared {
    flags: AtomicU8,
    /// Requests in flight on this connection.
    requests: Arc<AtomicUsize>,
    slow: Mutex<Slow>,
}

/// What only unusual connections need.
#[derive(Default)]
struct Slow {
    violation: Option<Violation>,
    informational: Vec<u8>,
    returned: Option<Stream>,
}

const INSIDE_HEAD: u8 = 1;
const WRITE_BLOCKED: u8 = 2;
const VIOLATED: u8 = 4;
const INFORMATIONAL: u8 = 8;
const RAW: u8 = 16;
const MID_WRITE: u8 = 32;
const LEFT: u8 = 64;

impl Shared {
    pub(crate) fn new(requests: &Arc<AtomicUsize>) -> Self {
        Self {
            flags: AtomicU8::new(0),
            requests: Arc::clone(requests),
            slow: Mutex::default(),
        }
    }

    fn set(&self, flag: u8) {
        self.flags.store(self.flags.load(Relaxed) | flag, Relaxed);
    }

    fn clear(&self, flag: u8) {
        self.flags.store(self.flags.load(Relaxed) & !flag, Relaxed);
    }

    fn has(&self, flag: u8) -> bool {
        self.flags.load(Relaxed) & flag != 0
    }

    fn slow(&self) -> std::sync::MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the library reads when there is no more: the end, once no request is in flight.
    ///
    /// Whoever drives the connection polls it once more when it has answered.
    fn end_of_input(&self) -> Poll<io::Result<()>> {
        if self.requests.load(Relaxed) > 0 {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    /// True once the client has sent all it will while a request of its is in flight.
    ///
    /// It may have closed one direction and be waiting, or be gone: TCP does not tell which.
    pub(crate) fn has_left(&self) -> bool {
        self.has(LEFT)
    }

    /// True once there is nothing more to read, which the library may not have been told yet.
    pub(crate) fn ends(&self) -> bool {
        self.has(LEFT | VIOLATED)
    }

    /// True while part of a head has arrived, and not all of it.
    pub(crate) fn inside_head(&self) -> bool {
        self.has(INSIDE_HEAD)
    }

    /// True while the client does not take what we have for it.
    pub(crate) fn write_blocked(&self) -> bool {
        self.has(WRITE_BLOCKED)
    }

    /// What the client did wrong, once.
    pub(crate) fn take_violation(&self) -> Option<Violation> {
        if self.has(VIOLATED) {
            self.slow().violation.take()
        } else {
            None
        }
    }

    /// True while a part of a response is on the wire, and a refusal would only add to it.
    pub(crate) fn mid_write(&self) -> bool {
        self.has(MID_WRITE)
    }

    /// The socket, once the library has dropped its guard.
    pub(crate) fn take_stream(&self) -> Option<Stream> {
        self.slow().returned.take()
    }
}

impl Wire for Shared {
    /// Slips it in before the final response; it is dropped where a part of an earlier one is still
    /// on its way.
    fn inform(&self, head: &[u8]) {
        self.slow().informational.extend_from_slice(head);
        self.set(INFORMATIONAL);
    }

    fn leave_http(&self) {
        self.set(RAW);
    }
}

impl Guard {
    /// Guards a connection of HTTP/1 whose first bytes were read already.
    pub(crate) fn http1(
        stream: Stream,
        first: Vec<u8>,
        limits: HeadLimits,
        shared: Arc<Shared>,
    ) -> Self {
        let mut guard = Self::new(stream, first, Framing::new(limits), shared);
        let first = std::mem::take(&mut guard.first);
        let keep = guard.inspect(&first);
        guard.first = first;
        guard.first.truncate(keep);
        guard
    }

    /// Passes another protocol through.
    pub(crate) fn raw(stream: Stream, first: Vec<u8>, shared: Arc<Shared>) -> Self {
        let mut framing = Framing::new(HeadLimits {
            bytes: 0,
            headers: 0,
        });
        framing.leave_http();
        Self::new(stream, first, framing, shared)
    }

    fn new(stream: Stream, first: Vec<u8>, framing: Framing, shared: Arc<Shared>) -> Self {
        Self {
            stream: Some(stream),
            framing,
            first,
            shared,
        }
    }

    /// How many of the new bytes may be passed on.
    fn inspect(&mut self, bytes: &[u8]) -> usize {
        match self.framing.read(bytes) {
            Ok(()) => {
                if self.framing.inside_head() {
                    self.shared.set(INSIDE_HEAD);
                } else {
                    self.shared.clear(INSIDE_HEAD);
                }
                bytes.len()
            }
            Err(violation) => {
                self.shared.slow().violation = Some(violation);
                self.shared.set(VIOLATED);
                0
            }
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Stream>> {
        match &mut self.stream {
            Some(stream) => Ok(Pin::new(stream)),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Writes what was slipped in; ready when nothing of it is left.
    fn poll_informational(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shared.has(INFORMATIONAL) {
            return Poll::Ready(Ok(()));
        }
        let shared = Arc::clone(&self.shared);
        let mut slow = shared.slow();
        if shared.has(MID_WRITE) {
            slow.informational.clear();
        }
        while !slow.informational.is_empty() {
            let written = std::task::ready!(self.stream()?.poll_write(cx, &slow.informational))?;
            slow.informational.drain(..written);
        }
        shared.clear(INFORMATIONAL);
        Poll::Ready(Ok(()))
    }

    /// Notes what became of a write of `length` bytes.
    fn note_write(
        &mut self,
        length: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => self.shared.set(WRITE_BLOCKED),
            Poll::Ready(Ok(written)) => {
                self.shared.clear(WRITE_BLOCKED);
                if *written < length {
                    self.shared.set(MID_WRITE);
                } else {
                    self.shared.clear(MID_WRITE);
                }
            }
            Poll::Ready(Err(_)) => self.shared.clear(WRITE_BLOCKED),
        }
        written
    }
}

impl AsyncRead for Guard {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let step = this.first.len().min(buffer.remaining());
            buffer.put_slice(this.first.drain(..step).as_slice());
            return Poll::Ready(Ok(()));
        }
        if this.shared.has(VIOLATED | RAW) {
            if this.shared.has(VIOLATED) {
                return this.shared.end_of_input();
            }
            this.framing.leave_http();
        }
        let before = buffer.filled().len();
        std::task::ready!(this.stream()?.poll_read(cx, buffer))?;
        let new = buffer.filled().get(before..).unwrap_or_default();
        if new.is_empty() && this.framing.between_messages() {
            if this.shared.requests.load(Relaxed) > 0 {
                this.shared.set(LEFT);
            }
            return this.shared.end_of_input();
        }
        let keep = this.inspect(new);
        buffer.set_filled(before + keep);
        if keep == 0 && this.shared.has(VIOLATED) {
            return this.shared.end_of_input();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guard {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        std::task::ready!(this.poll_informational(cx))?;
        let written = this.stream()?.poll_write(cx, bytes);
        this.note_write(bytes.len(), written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        std::task::ready!(this.poll_informational(cx))?;
        let length = bytes.iter().map(|slice| slice.len()).sum();
        let written = this.stream()?.poll_write_vectored(cx, bytes);
        this.note_write(length, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        std::task::ready!(this.poll_informational(cx))?;
        this.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.shared.has(VIOLATED) {
            // The refusal is still to be written.
            return Poll::Ready(Ok(()));
        }
        this.stream()?.poll_shutdown(cx)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.slow().returned = self.stream.take();
    }
}
