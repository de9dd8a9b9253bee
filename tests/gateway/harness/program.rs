//! A process with its output, line by line; ended by its own id when the test is over.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::{project, soon};

/// A started process.
pub(crate) struct Program {
    name: &'static str,
    child: Child,
    pub(crate) output: Lines,
    pub(crate) errors: Lines,
}

/// The lines that a process has written so far.
#[derive(Clone)]
pub(crate) struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    /// Changes with every line; closed when the process has closed its end.
    changed: watch::Receiver<usize>,
}

impl Program {
    pub(crate) fn start(name: &'static str, mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}: {command:?}"));
        let output = Lines::of(child.stdout.take().expect("standard output"));
        let errors = Lines::of(child.stderr.take().expect("standard error"));
        Self {
            name,
            child,
            output,
            errors,
        }
    }

    /// Starts a Python program of `tests/peers`, in the environment that `tests/setup` makes.
    pub(crate) fn python(script: &str, arguments: &[&str]) -> Self {
        let mut command = venv("python");
        command
            .arg("-u")
            .arg(project("tests/peers").join(script))
            .args(arguments);
        Self::start("python", command)
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end: first for that of its outputs, which are events.
    pub(crate) async fn exited(&mut self) -> ExitStatus {
        soon(format!("{} to end", self.name), self.errors.ended()).await;
        self.output.ended().await;
        self.child.wait().expect("a status")
    }

    /// CPU time used so far, in steps of ten milliseconds.
    pub(crate) fn cpu(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(path).expect("a status");
        // After the name, which is in brackets: the 12th and 13th fields are user and system time.
        let fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let ticks = fields
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().expect("a number"));
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// Memory in use, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("a status");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("VmRSS");
        let kib: usize = line
            .split_whitespace()
            .nth(1)
            .expect("a number")
            .parse()
            .expect("a number");
        kib * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            println!("--- what {} wrote ---\n{}", self.name, self.errors.text());
            println!("{}\n---", self.output.text());
        }
    }
}

impl Lines {
    fn of(source: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (sender, changed) = watch::channel(0);
        let writer = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(source).lines() {
                let Ok(line) = line else { break };
                let count = {
                    let mut lines = writer.lock().expect("no panic while locked");
                    lines.push(line);
                    lines.len()
                };
                let _nobody_waits = sender.send(count);
            }
        });
        Self { lines, changed }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no panic while locked").clone()
    }

    pub(crate) fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// The first line of which this holds; none if the process closes its output before.
    pub(crate) fn find<F: Fn(&str) -> bool>(
        &self,
        holds: F,
    ) -> impl Future<Output = Option<String>> + use<F> {
        let mut this = self.clone();
        async move {
            let mut seen = 0;
            loop {
                let lines = this.lines();
                if let Some(line) = lines[seen..].iter().find(|line| holds(line)) {
                    return Some(line.clone());
                }
                seen = lines.len();
                if this.changed.changed().await.is_err() {
                    let lines = this.lines();
                    return lines[seen..].iter().find(|line| holds(line)).cloned();
                }
            }
        }
    }

    /// The first line that contains the words.
    pub(crate) fn find_text(&self, words: &str) -> impl Future<Output = Option<String>> + use<> {
        let words = words.to_owned();
        self.find(move |line| line.contains(&words))
    }

    async fn ended(&self) {
        let mut changed = self.changed.clone();
        while changed.changed().await.is_ok() {}
    }
}

/// Sends a signal to one process, by the name without `SIG`.
pub(crate) fn signal(id: u32, name: &str) {
    let sent = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -{name} {id}"))
        .status()
        .expect("a shell");
    assert!(sent.success(), "signal {name} to process {id}");
}

/// A program of the Python environment that `tests/setup` makes.
pub(crate) fn venv(program: &str) -> Command {
    let path = project(".venv/bin").join(program);
    assert!(
        path.exists(),
        "{} is missing: run `bash tests/setup` once",
        path.display()
    );
    Command::new(path)
}

/// Runs the gateway's binary to its end.
pub(crate) fn retort(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_retort"))
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}
