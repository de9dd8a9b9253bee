//! Three pods in network namespaces, each with a small real server that can be made to fail.
//!
//! Servers keep a journal of every request that reached them, which outlives them: what was tried where is
//! counted there, not believed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::harness::program::{Program, venv};
use crate::harness::{Conn, eventually, project, soon};

/// Where every pod's server listens.
const PORT: &str = "8080";

/// What takes no part in the counts: the checks of the gateway's own.
const CHECKS: &str = "/healthz";

/// Tells the rigs of one process apart.
static NEXT: AtomicU8 = AtomicU8::new(b'a');

/// Pods, their servers, and the right to disturb the machine.
pub(super) struct Rig {
    pub(super) pods: Vec<Pod>,
    _net: Net,
    _dir: TempDir,
    _turn: File,
}

/// Taken down with everything in it.
struct Net {
    name: String,
}

/// One endpoint.
pub(super) struct Pod {
    pub(super) address: String,
    net: String,
    number: usize,
    server: Option<Program>,
    control: PathBuf,
    journal: PathBuf,
}

/// What goes wrong with a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The server's process is killed: live connections end, new ones are refused.
    Killed,
    /// Packets to it vanish.
    BlackHoled,
    /// Ten times as slow as before, and without failure.
    Slowed,
    /// Every packet is answered with a reset, before the server sees it.
    Resetting,
    /// The server takes a request and resets the connection.
    ResettingLate,
    /// 503 to everything but health checks.
    Unavailable,
    /// Ends its half of a connection instead of an answer, or in the middle of a head.
    HalfClosing,
    /// Three of ten packets to it vanish.
    Lossy,
    /// Live connections are cut, once; new ones are taken.
    Cut,
}

/// A request as a server saw it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) at: Duration,
    pub(super) target: String,
}

impl Rig {
    /// Waits for its turn, then sets up three pods with their servers.
    pub(super) async fn start() -> Self {
        pods(&["check"]);
        let turn = turn();
        let dir = TempDir::new().expect("a folder");
        let letter = char::from(NEXT.fetch_add(1, Ordering::Relaxed));
        pods(&["sweep"]);
        let net = Net {
            name: format!("rf{}{letter}", std::process::id()),
        };
        let addresses = pods(&["up", &net.name, "3"]);
        let mut pods = Vec::new();
        for (index, address) in addresses.lines().enumerate() {
            let number = index + 1;
            let mut pod = Pod {
                address: format!("{address}:{PORT}"),
                net: net.name.clone(),
                number,
                server: None,
                control: dir.path().join(format!("{number}.sock")),
                journal: dir.path().join(format!("{number}.journal")),
            };
            pod.start_server().await;
            pods.push(pod);
        }
        Self {
            pods,
            _net: net,
            _dir: dir,
            _turn: turn,
        }
    }

    /// The addresses of all pods, as YAML.
    pub(super) fn endpoints(&self) -> String {
        let quoted = self.pods.iter().map(|pod| format!("\"{}\"", pod.address));
        quoted.collect::<Vec<_>>().join(", ")
    }

    /// Every request that reached a server since a moment.
    pub(super) fn seen_since(&self, since: Duration) -> Vec<Seen> {
        let all = self.pods.iter().flat_map(Pod::seen);
        all.filter(|seen| seen.at >= since).collect()
    }

    /// How often each target was seen, over all servers.
    pub(super) fn targets(&self) -> BTreeMap<String, usize> {
        let mut targets = BTreeMap::new();
        for seen in self.seen_since(Duration::ZERO) {
            *targets.entry(seen.target).or_default() += 1;
        }
        targets
    }
}

impl Pod {
    /// Makes it fail; takes effect before this returns.
    pub(super) async fn inflict(&mut self, fault: Fault) {
        match fault {
            Fault::Killed => drop(self.server.take()),
            Fault::BlackHoled => self.packets("black-hole"),
            Fault::Resetting => self.packets("reset"),
            Fault::Lossy => self.packets("lossy"),
            Fault::Cut => self.packets("cut"),
            Fault::Slowed => self.tell("mode slow").await,
            Fault::ResettingLate => self.tell("mode reset").await,
            Fault::Unavailable => self.tell("mode unavailable").await,
            Fault::HalfClosing => self.tell("mode half_close").await,
        }
    }

    /// Makes it good again; takes effect before this returns.
    pub(super) async fn lift(&mut self) {
        if self.server.is_none() {
            self.start_server().await;
        }
        self.tell("mode good").await;
        pods(&["heal", &self.net, &self.number.to_string()]);
    }

    /// Has the server close connections that are idle for so long.
    pub(super) async fn close_idle_after(&self, idle: Duration) {
        self.tell(&format!("idle {}", idle.as_secs_f64())).await;
    }

    /// Every request that reached the server, but for health checks.
    pub(super) fn seen(&self) -> Vec<Seen> {
        let journal = fs::read_to_string(&self.journal).unwrap_or_default();
        let lines = journal.lines().filter_map(Seen::parse);
        lines.filter(|seen| seen.target != CHECKS).collect()
    }

    /// How many requests reached the server between two moments.
    pub(super) fn count(&self, from: Duration, to: Duration) -> usize {
        let seen = self.seen();
        seen.iter()
            .filter(|seen| (from..to).contains(&seen.at))
            .count()
    }

    /// Waits until so many requests have reached the server since a moment.
    #[track_caller]
    pub(super) fn takes(&self, count: usize, since: Duration) -> impl Future<Output = usize> {
        eventually(
            format!("{count} requests at pod {}", self.number),
            move || std::future::ready(self.count(since, Duration::MAX)),
            move |seen| *seen >= count,
        )
    }

    async fn start_server(&mut self) {
        let mut command = script();
        command
            .args(["enter", &self.net, &self.number.to_string()])
            .arg(venv("python").get_program())
            .arg("-u")
            .arg(project("tests/peers/fault_server.py"))
            .args([&format!("pod-{}", self.number), "0.0.0.0", PORT])
            .args([&self.control, &self.journal]);
        let server = Program::start("fault_server.py", command);
        let ready = soon("a server", server.output.find_text("listening")).await;
        assert!(ready.is_some(), "the server of pod {} ended", self.number);
        self.server = Some(server);
    }

    async fn tell(&self, command: &str) {
        let mut conn = Conn::connect_unix(&self.control).await;
        conn.send(format!("{command}\n")).await;
        assert_eq!(conn.until(b"\n").await.as_deref(), Some(&b"ok\n"[..]));
    }

    fn packets(&self, fault: &str) {
        pods(&[fault, &self.net, &self.number.to_string(), PORT]);
    }
}

impl Seen {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        Some(Self {
            at: Duration::from_nanos(words.next()?.parse().ok()?),
            target: words.nth(1)?.to_owned(),
        })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // Not `pods`: a second panic would hide the first.
        let _best_effort = script().args(["down", &self.name]).output();
    }
}

/// The time of day, which servers in other processes share.
pub(super) fn now() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock that is set")
}

/// One test at a time on this machine, so that none disturbs the latencies of another.
pub(super) fn turn() -> File {
    let path = std::env::temp_dir().join("retort-faults.lock");
    let file = File::create(&path).expect("a lock file");
    file.lock().expect("a lock");
    file
}

fn script() -> Command {
    let mut command = Command::new("bash");
    command.arg(project("tests/faults/pods"));
    command
}

/// Runs the script to its end; what it says when it fails is the test's failure.
fn pods(arguments: &[&str]) -> String {
    let output = script().args(arguments).output().expect("bash");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}", errors.trim());
    String::from_utf8_lossy(&output.stdout).into_owned()
}
