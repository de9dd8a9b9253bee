//! A constant load: requests leave when they are due, whatever became of those before.
//!
//! Latency counts from the moment when a request was due, so a stalled gateway cannot hide behind a stalled
//! client. The load has a thread of its own: what a test does meanwhile does not delay it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rig::now;

/// A client that waits longer has been failed.
const PATIENCE: Duration = Duration::from_secs(12);

/// What is asked, and how often.
pub(super) struct Plan {
    pub(super) gateway: SocketAddr,
    /// Requests a second.
    pub(super) rate: u32,
    /// Keep-alive connections, used in turn; more are opened when all are busy.
    pub(super) connections: usize,
    /// The head of the request of a number, and its body.
    pub(super) request: fn(usize) -> String,
}

/// A load that is running.
pub(super) struct Load {
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How a request fared.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// When it was due.
    pub(super) at: Duration,
    pub(super) latency: Duration,
    /// The status, or why there is none.
    pub(super) outcome: Result<u16, String>,
    /// The beginning of the body.
    pub(super) says: String,
}

/// How many requests fared, in the order in which they were due.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples(pub(super) Vec<Sample>);

/// A GET for each number.
pub(super) fn get(number: usize) -> String {
    format!("GET /get/{number} HTTP/1.1\r\nhost: faults\r\n\r\n")
}

/// A POST with a small body for each number.
pub(super) fn post(number: usize) -> String {
    format!("POST /post/{number} HTTP/1.1\r\nhost: faults\r\ncontent-length: 5\r\n\r\nhello")
}

impl Load {
    pub(super) fn start(plan: Plan) -> Self {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, ended) = (Arc::clone(&samples), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(run(plan, &shared, &ended));
        });
        Self {
            samples,
            stop,
            thread: Some(thread),
        }
    }

    /// Sends no more, waits for what is under way, and says how all fared.
    pub(super) async fn stop(mut self) -> Samples {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("stopped once");
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        joined.expect("a thread").expect("the load has run");
        let mut samples = std::mem::take(&mut *self.samples.lock().expect("no panic while locked"));
        samples.sort_by_key(|sample| sample.at);
        Samples(samples)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn run(plan: Plan, samples: &Arc<Mutex<Vec<Sample>>>, stop: &AtomicBool) {
    let idle = Arc::new(Mutex::new(VecDeque::new()));
    for _ in 0..plan.connections {
        let conn = TcpStream::connect(plan.gateway).await;
        put_back(&idle, conn.expect("a connection to the gateway"));
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / plan.rate);
    let mut under_way = tokio::task::JoinSet::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        // Bursts make up for ticks that came late: the rate is kept.
        let due = ticks.tick().await;
        let at = now().saturating_sub(due.elapsed());
        let request = (plan.request)(number);
        number += 1;
        let (gateway, idle, samples) = (plan.gateway, Arc::clone(&idle), Arc::clone(samples));
        under_way.spawn(async move {
            let sample = one(gateway, &idle, request, at).await;
            samples.lock().expect("no panic while locked").push(sample);
        });
        while under_way.try_join_next().is_some() {}
    }
    under_way.join_all().await;
}

type Idle = Mutex<VecDeque<TcpStream>>;

fn put_back(idle: &Idle, conn: TcpStream) {
    conn.set_nodelay(true).expect("no delay");
    idle.lock().expect("no panic while locked").push_back(conn);
}

async fn one(gateway: SocketAddr, idle: &Idle, request: String, at: Duration) -> Sample {
    let asked = tokio::time::timeout(PATIENCE, ask(gateway, idle, &request)).await;
    let (outcome, says) = match asked {
        Ok(Ok((status, says))) => (Ok(status), says),
        Ok(Err(error)) => (Err(error.to_string()), String::new()),
        Err(_) => (Err(format!("no answer in {PATIENCE:?}")), String::new()),
    };
    Sample {
        at,
        latency: now().saturating_sub(at),
        outcome,
        says,
    }
}

async fn ask(gateway: SocketAddr, idle: &Idle, request: &str) -> std::io::Result<(u16, String)> {
    let kept = idle.lock().expect("no panic while locked").pop_front();
    let mut conn = match kept {
        Some(conn) => conn,
        None => TcpStream::connect(gateway).await?,
    };
    conn.write_all(request.as_bytes()).await?;
    let mut buffer = Vec::with_capacity(512);
    let (head, length) = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
            buffer.drain(..end + 4);
            let length = field(&head, "content-length").and_then(|text| text.parse().ok());
            break (head, length.unwrap_or(0));
        }
        more(&mut conn, &mut buffer).await?;
    };
    while buffer.len() < length {
        more(&mut conn, &mut buffer).await?;
    }
    let status = head.get(9..12).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no status: {head}")))?;
    if field(&head, "connection") != Some("close") {
        put_back(idle, conn);
    }
    let says = String::from_utf8_lossy(&buffer[..buffer.len().min(200)]);
    Ok((status, says.into_owned()))
}

async fn more(conn: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    let had = buffer.len();
    match conn.read_buf(buffer).await {
        Ok(0) => Err(std::io::Error::other(format!("the end after {had} bytes"))),
        Err(error) => Err(std::io::Error::other(format!("{error} after {had} bytes"))),
        Ok(_) => Ok(()),
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
    lines.find_map(|(key, value)| (key == name).then_some(value.trim()))
}

impl Samples {
    /// Those that were due between two moments.
    pub(super) fn between(&self, from: Duration, to: Duration) -> Self {
        let within = self.0.iter().filter(|one| (from..to).contains(&one.at));
        Self(within.cloned().collect())
    }

    /// Those that were not answered, or with an error of a server or the gateway.
    pub(super) fn failed(&self) -> Vec<&Sample> {
        let failed = |one: &&Sample| !matches!(one.outcome, Ok(status) if status < 500);
        self.0.iter().filter(failed).collect()
    }

    /// What the failures say for themselves, each with its number.
    pub(super) fn complaints(&self) -> String {
        let mut counts = BTreeMap::new();
        for one in self.failed() {
            let what = match &one.outcome {
                Ok(status) => format!("{status} {}", one.says.trim()),
                Err(error) => error.clone(),
            };
            *counts.entry(what).or_insert(0) += 1;
        }
        let lines = counts
            .iter()
            .map(|(what, count)| format!("{count} x {what:?}"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The latency that so many of a hundred do not exceed.
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let mut sorted: Vec<_> = self.0.iter().map(|one| one.latency).collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percentile = |percent| self.percentile(percent).as_secs_f64() * 1e3;
        write!(
            to,
            "{:5} requests, {:3} failed, p50 {:6.1} ms, p99 {:6.1} ms, max {:6.1} ms",
            self.0.len(),
            self.failed().len(),
            percentile(50),
            percentile(99),
            percentile(100),
        )
    }
}
