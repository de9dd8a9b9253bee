//! Lines from a worker to their output.

use std::fs;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::entry::tests::entry;
use super::*;
use crate::base::values::Share;
use crate::telemetry::decision::Flag;

const SECOND: Duration = Duration::from_secs(5);

fn settings(format: &str, output: Output) -> Settings {
    Settings {
        format: format.parse().expect(format),
        output,
        sample: Share(1.0),
    }
}

fn write(log: &Arc<AccessLog>, number: usize) {
    let now = Instant::now();
    let mut lines = Lines::new(Arc::clone(log), now);
    for _ in 0..number {
        lines.write(&entry(now));
    }
    lines.flush(now);
}

#[test]
fn lines_reach_the_file_and_a_reopened_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("access.log");
    let settings = settings("{status}", Output::File(path.clone()));
    let log = AccessLog::open(&settings, &Metrics::new(1)).expect("opens");
    write(&log, 2);
    assert!(log.flush(SECOND));
    assert_eq!(fs::read_to_string(&path).expect("there"), "503\n503\n");

    let old = dir.path().join("access.log.1");
    fs::rename(&path, &old).expect("moved");
    log.reopen();
    write(&log, 1);
    assert!(log.flush(SECOND));
    assert_eq!(fs::read_to_string(&path).expect("made anew"), "503\n");
    assert_eq!(fs::read_to_string(&old).expect("kept"), "503\n503\n");
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_once() {
    let settings = settings("json", Output::File("/nowhere/at/all.log".into()));
    assert!(AccessLog::open(&settings, &Metrics::new(1)).is_err());
}

#[test]
fn no_output_costs_nothing() {
    let log = AccessLog::open(&settings("json", Output::None), &Metrics::new(1)).expect("opens");
    assert!(!log.is_on());
    write(&log, 10);
    log.reopen();
    assert!(log.flush(SECOND));
}

/// Writes only when it is let.
struct Gate {
    turns: Receiver<()>,
    written: Sender<usize>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A closed channel opens the gate for good.
        let _turn = self.turns.recv();
        let lines = String::from_utf8_lossy(bytes).lines().count();
        self.written.send(lines).map_err(io::Error::other)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_hangs_loses_lines_and_blocks_nobody() {
    let metrics = Metrics::new(1);
    let (open, turns) = channel();
    let (written, counts) = channel();
    let settings = settings("json", Output::Stdout);
    let gate = Gate { turns, written };
    let log = AccessLog::to_stream(&settings, gate, &metrics).expect("starts");
    let total = 20_000;
    write(&log, total);
    assert!(!log.flush(Duration::from_millis(10)), "it hangs");
    drop(open);
    assert!(log.flush(SECOND));
    let arrived: usize = counts.try_iter().sum();
    assert!(arrived > 0 && arrived < total, "{arrived}");
    let lost = format!(
        "retort_access_log_dropped_total{{reason=\"behind\"}} {}\n",
        total - arrived
    );
    assert!(metrics.text().contains(&lost), "{lost}");
}

/// A disk that is full, then not.
struct Full(Arc<std::sync::Mutex<(u32, Vec<u8>)>>);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock().expect("not poisoned");
        state.0 += 1;
        match state.0 {
            // Half a line fits, the rest does not.
            1 => {
                state.1.extend_from_slice(&bytes[..2]);
                Ok(2)
            }
            2 => Err(io::ErrorKind::StorageFull.into()),
            _ => {
                state.1.extend_from_slice(bytes);
                Ok(bytes.len())
            }
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_counted_and_the_next_line_stands_alone() {
    let metrics = Metrics::new(1);
    let disk = Arc::default();
    let settings = settings("{status}", Output::Stdout);
    let log = AccessLog::to_stream(&settings, Full(Arc::clone(&disk)), &metrics).expect("starts");
    write(&log, 1);
    write(&log, 1);
    assert!(log.flush(SECOND));
    assert_eq!(disk.lock().expect("not poisoned").1, b"50\n503\n");
    let lost = "retort_access_log_dropped_total{reason=\"write\"} 1\n";
    assert!(metrics.text().contains(lost));
}

#[test]
fn a_sample_of_nothing_keeps_failures() {
    let log = AccessLog {
        format: Format::JSON,
        sample: 0.0,
        writer: None,
    };
    let failed = entry(Instant::now());
    let fine = Entry {
        status: 200,
        flag: None,
        ..failed
    };
    let limited = Entry {
        flag: Some(Flag::RateLimited),
        ..fine
    };
    assert!(log.wants(&failed) && log.wants(&limited));
    assert!(!log.wants(&fine));
}
