//! The thread that writes, so that no worker ever waits for a disk or a pipe.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::telemetry::metrics::{LostLines, Metrics};

/// How many buffers of lines may wait; with their size this bounds the memory of a slow disk.
const WAITING: usize = 64;

/// How long a pipe in non-blocking mode may stay full before its lines are given up.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to the thread; it ends when this is dropped, after it has written what it was given.
#[derive(Debug)]
pub(super) struct Writer {
    sender: SyncSender<Message>,
    reopen: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

enum Message {
    Lines(Batch),
    /// Look at the flag.
    Reopen,
    /// Say when everything before this is written.
    Flushed(SyncSender<()>),
}

/// Lines on their way to the output.
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) number: u64,
    /// Takes the buffer back, so that its pages need not be asked for again.
    pub(super) back: SyncSender<Vec<u8>>,
}

/// Where lines go.
pub(super) enum Sink {
    File(PathBuf, File),
    Stream(Box<dyn Write + Send>),
}

impl Sink {
    /// Standard output, unbuffered: lines come in large pieces already.
    pub(super) fn stdout() -> io::Result<Self> {
        let descriptor = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::Stream(Box::new(File::from(descriptor))))
    }

    /// A file, made if need be, and never overwritten.
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        open(path).map(|file| Self::File(path.into(), file))
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Self::File(path, file) = self {
            *file = open(path)?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(_, file) => file.write(bytes),
            Self::Stream(stream) => stream.write(bytes),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

impl Writer {
    pub(super) fn start(sink: Sink, metrics: Arc<Metrics>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        let reopen = Arc::new(AtomicBool::new(false));
        let thread = Thread {
            sink,
            reopen: Arc::clone(&reopen),
            metrics: Arc::clone(&metrics),
            failing: false,
            torn: false,
        };
        // Not joined: a thread that hangs in a write must not hold up the end of the process.
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || thread.run(&receiver))?;
        Ok(Self {
            sender,
            reopen,
            metrics,
        })
    }

    /// Hands lines over; loses and counts them if the thread is too far behind.
    pub(super) fn send(&self, batch: Batch) {
        let number = batch.number;
        let why = match self.sender.try_send(Message::Lines(batch)) {
            Ok(()) => return,
            Err(TrySendError::Full(_)) => LostLines::Behind,
            Err(TrySendError::Disconnected(_)) => LostLines::Write,
        };
        self.metrics.lost_lines(why, number);
    }

    /// Opens the file anew, for who has moved it away.
    pub(super) fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        // A full channel is fine: the thread looks at the flag before each write.
        let _woken = self.sender.try_send(Message::Reopen);
    }

    /// Waits until everything that was handed over is written; false if that takes too long.
    pub(super) fn flush(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let (done, finished) = sync_channel(1);
        let mut message = Message::Flushed(done);
        loop {
            match self.sender.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => message = back,
                Err(_) => return false,
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        finished.recv_timeout(left).is_ok()
    }
}

struct Thread {
    sink: Sink,
    reopen: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    /// The last write failed; said once, until one succeeds.
    failing: bool,
    /// A line was cut by a failure: the next one must not continue it.
    torn: bool,
}

impl Thread {
    fn run(mut self, receiver: &Receiver<Message>) {
        for message in receiver {
            if self.reopen.swap(false, Ordering::AcqRel)
                && let Err(error) = self.sink.reopen()
            {
                tracing::error!(%error, "the access log could not be opened anew: it goes on in the old file");
            }
            match message {
                Message::Lines(mut batch) => {
                    self.write(&batch.bytes, batch.number);
                    batch.bytes.clear();
                    // The worker may be gone, or have enough of them.
                    drop(batch.back.try_send(batch.bytes));
                }
                Message::Reopen => {}
                // Who asked may have given up.
                Message::Flushed(done) => drop(done.try_send(())),
            }
        }
    }

    fn write(&mut self, bytes: &[u8], number: u64) {
        let mut result = Ok(());
        if self.torn {
            result = self.write_all(b"\n");
        }
        if result.is_ok() {
            result = self.write_all(bytes);
        }
        match result {
            Ok(()) => {
                if self.failing {
                    tracing::info!("the access log can be written again");
                }
                self.failing = false;
            }
            Err(error) => {
                self.metrics.lost_lines(LostLines::Write, number);
                if !self.failing {
                    tracing::error!(%error, "the access log cannot be written: its lines are lost until it can");
                }
                self.failing = true;
            }
        }
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let mut full_since = None;
        while !bytes.is_empty() {
            match self.sink.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    let done = bytes.get(..written).and_then(<[u8]>::last);
                    self.torn = done.is_some_and(|last| *last != b'\n');
                    bytes = bytes.get(written..).unwrap_or_default();
                    full_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Whoever shares our standard output has set it to non-blocking.
                    let since = *full_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > PATIENCE {
                        return Err(error);
                    }
                    thread::park_timeout(Duration::from_millis(5));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
