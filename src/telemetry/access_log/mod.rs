//! The access log: one line for each request, written off the hot path.
//!
//! A worker formats a line into a buffer of its own, about as fast as copying it. Full buffers, and
//! at each tick whatever there is, go through a bounded channel to a thread that writes. When that
//! one cannot keep up, lines are lost and counted; a request never waits for its log line.
//!
//! Memory: at most 64 buffers of 16 KiB and one line wait for the writer, and one fills per worker.

mod entry;
mod escape;
mod format;
mod settings;
mod stamp;
mod writer;

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

pub use self::entry::{Entry, Try};
pub use self::format::Format;
pub use self::settings::{Output, Settings};

use self::stamp::Stamp;
use self::writer::{Batch, Sink, Writer};
use crate::telemetry::metrics::Metrics;

/// A buffer of this size is handed to the writer without waiting for the tick.
const FULL: usize = 16 * 1024;

/// How many empty buffers a worker keeps.
const SPARE: usize = 2;

/// An access log that is open; a changed setting makes a new one.
pub struct AccessLog {
    format: Format,
    sample: f64,
    writer: Option<Writer>,
}

impl AccessLog {
    /// Opens the output.
    ///
    /// # Errors
    /// When the file cannot be opened, or no thread can be started.
    pub fn open(settings: &Settings, metrics: &Arc<Metrics>) -> io::Result<Arc<Self>> {
        let sink = match &settings.output {
            Output::None => None,
            Output::Stdout => Some(Sink::stdout()?),
            Output::File(path) => Some(Sink::file(path)?),
        };
        Self::start(settings, sink, metrics)
    }

    /// Writes to a stream in the place of the configured output.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn to_stream(
        settings: &Settings,
        stream: impl Write + Send + 'static,
        metrics: &Arc<Metrics>,
    ) -> io::Result<Arc<Self>> {
        Self::start(settings, Some(Sink::Stream(Box::new(stream))), metrics)
    }

    fn start(
        settings: &Settings,
        sink: Option<Sink>,
        metrics: &Arc<Metrics>,
    ) -> io::Result<Arc<Self>> {
        let writer = sink.map(|sink| Writer::start(sink, Arc::clone(metrics)));
        Ok(Arc::new(Self {
            format: settings.format.clone(),
            sample: settings.sample.0,
            writer: writer.transpose()?,
        }))
    }

    /// False if no line is ever written, so that none need be put together.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.writer.is_some()
    }

    /// Opens the file anew, after logrotate has moved it away.
    pub fn reopen(&self) {
        if let Some(writer) = &self.writer {
            writer.reopen();
        }
    }

    /// Waits until every line that workers have handed over is written; false if it takes too long.
    ///
    /// Blocks the thread: for the end of the process, after the workers have ended.
    pub fn flush(&self, within: Duration) -> bool {
        let writer = self.writer.as_ref();
        writer.is_none_or(|writer| writer.flush(within))
    }

    /// Failures are always wanted; of the rest, a share.
    fn wants(&self, entry: &Entry<'_>) -> bool {
        self.sample >= 1.0
            || entry.flag.is_some()
            || entry.status >= 500
            || fastrand::f64() < self.sample
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog")
            .field("format", &self.format)
            .field("sample", &self.sample)
            .finish_non_exhaustive()
    }
}

/// One worker's lines on their way to an access log.
#[derive(Debug)]
pub struct Lines {
    log: Arc<AccessLog>,
    stamp: Stamp,
    buffer: Vec<u8>,
    number: u64,
    /// Buffers that the writer has given back.
    spare: Receiver<Vec<u8>>,
    back: SyncSender<Vec<u8>>,
}

impl Lines {
    /// A worker's own buffer for a log.
    pub fn new(log: Arc<AccessLog>, now: Instant) -> Self {
        let (back, spare) = sync_channel(SPARE);
        Self {
            log,
            stamp: Stamp::new(now, SystemTime::now()),
            buffer: Vec::new(),
            number: 0,
            spare,
            back,
        }
    }

    /// The log that they go to.
    pub fn log(&self) -> &Arc<AccessLog> {
        &self.log
    }

    /// Adds a line; never blocks.
    pub fn write(&mut self, entry: &Entry<'_>) {
        if !self.log.is_on() || !self.log.wants(entry) {
            return;
        }
        if self.buffer.capacity() == 0 {
            self.buffer = self.spare.try_recv().unwrap_or_default();
            self.buffer.reserve(FULL + FULL / 8);
        }
        self.log
            .format
            .line(&mut self.buffer, &mut self.stamp, entry);
        self.number += 1;
        if self.buffer.len() >= FULL {
            self.send();
        }
    }

    /// Hands over what there is; called at each tick, and on it the time of the lines depends.
    pub fn flush(&mut self, now: Instant) {
        if self.log.is_on() {
            self.stamp.set(now, SystemTime::now());
            self.send();
        }
    }

    fn send(&mut self) {
        if let Some(writer) = &self.log.writer
            && self.number > 0
        {
            writer.send(Batch {
                bytes: std::mem::take(&mut self.buffer),
                number: std::mem::take(&mut self.number),
                back: self.back.clone(),
            });
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.send();
    }
}

#[cfg(test)]
mod tests;
