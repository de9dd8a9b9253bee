//! A worker: one thread with its own event loop, connections, upstream connections and counters.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::LocalRuntime;
use tokio::sync::mpsc;

use crate::base::clock::TICK;
use crate::base::lifecycle::{Lifecycle, State};
use crate::base::pressure::Gauge;
use crate::handler::blocking::Pool;
use crate::proxy::{Local, Origin};
use crate::server::connection::{self, Seen, Terms};
use crate::server::listener::Place;
use crate::server::memory;
use crate::server::stream::Accepted;
use crate::snapshot::publish::Published;
use crate::telemetry::recent::Recent;

/// What all workers share.
#[derive(Debug, Clone)]
pub struct Common {
    /// The rules in force.
    pub published: Arc<Published>,
    /// What the process is doing.
    pub lifecycle: Arc<Lifecycle>,
    /// How near it is to its limits.
    pub pressure: Arc<Gauge>,
    /// Where handlers may block.
    pub blocking: Pool,
    /// Where records are kept for whoever asks why.
    pub recent: Arc<Recent>,
}

/// Work for a worker.
pub(crate) enum Job {
    /// A client has connected.
    Connection(Accepted, Place),
    /// A request that comes from within the process.
    Request(Box<memory::Call>),
}

/// The running workers, as the rest of the process sees them.
#[derive(Debug)]
pub struct Workers(Vec<Worker>);

/// Their threads, for whoever waits for their end.
#[derive(Debug)]
pub(crate) struct Threads(Vec<JoinHandle<()>>);

#[derive(Debug)]
struct Worker {
    jobs: mpsc::UnboundedSender<Job>,
    load: Arc<Load>,
}

impl Workers {
    /// Starts so many threads, at least one.
    pub(crate) fn start(workers: usize, common: &Common) -> std::io::Result<(Self, Threads)> {
        let started = (0..workers.max(1)).map(|id| Worker::start(id, common.clone()));
        let started: Vec<_> = started.collect::<std::io::Result<_>>()?;
        let (workers, threads) = started.into_iter().unzip();
        Ok((Self(workers), Threads(threads)))
    }

    /// Hands work to the one with the fewest connections.
    pub(crate) fn take(&self, job: Job) {
        let connections = |worker: &&Worker| worker.load.connections.load(Relaxed);
        if let Some(worker) = self.0.iter().min_by_key(connections) {
            worker.load.connections.fetch_add(1, Relaxed);
            // A worker only goes when the gateway does: a connection is closed then, and a request
            // answered by whoever made it.
            let _gone = worker.jobs.send(job);
        }
    }

    /// How busy they are.
    pub(crate) fn loads(&self) -> Loads {
        let loads = self.0.iter().map(|worker| Arc::clone(&worker.load));
        Loads(loads.collect())
    }
}

impl Threads {
    /// Waits for their end, once the lifecycle says that the gateway has stopped.
    pub(crate) fn join(self) {
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!("a worker's thread panicked");
            }
        }
    }
}

impl Worker {
    fn start(id: usize, common: Common) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (jobs, inbox) = mpsc::unbounded_channel();
        let load = Arc::new(Load::default());
        let its_load = Arc::clone(&load);
        let thread = std::thread::Builder::new()
            .name(format!("retort-{id}"))
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(tokio::runtime::LocalOptions::default());
                match runtime {
                    Ok(runtime) => {
                        run(&runtime, id, &common, inbox, &its_load);
                        runtime.shutdown_timeout(LAST);
                    }
                    Err(error) => tracing::error!(worker = id, %error, "a worker cannot start"),
                }
            })?;
        Ok((Self { jobs, load }, thread))
    }
}

/// How long the end of a worker waits for blocking work of handlers, which cannot be interrupted.
const LAST: Duration = Duration::from_secs(1);

/// How busy the workers are.
#[derive(Debug, Clone, Default)]
pub struct Loads(Vec<Arc<Load>>);

impl Loads {
    /// Open connections.
    pub fn connections(&self) -> usize {
        self.0
            .iter()
            .map(|load| load.connections.load(Relaxed))
            .sum()
    }

    /// Requests in flight, tunnels included, as of each worker's last tick.
    pub fn requests(&self) -> usize {
        self.0.iter().map(|load| load.requests.load(Relaxed)).sum()
    }

    /// Requests that were ever admitted, as of each worker's last tick.
    pub fn admitted(&self) -> u64 {
        self.0.iter().map(|load| load.admitted.load(Relaxed)).sum()
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.0.len()
    }
}

/// How busy one worker is; it writes, others read.
#[derive(Debug, Default)]
struct Load {
    /// Connections, those on their way included.
    connections: AtomicUsize,
    /// Requests in flight, as of the last tick.
    requests: AtomicUsize,
    /// Requests that were ever admitted, as of the last tick.
    admitted: AtomicU64,
}

fn run(
    runtime: &LocalRuntime,
    id: usize,
    common: &Common,
    mut inbox: mpsc::UnboundedReceiver<Job>,
    load: &Arc<Load>,
) {
    let shared = common.clone();
    let load = Arc::clone(load);
    runtime.block_on(async move {
        let lifecycle = Arc::clone(&shared.lifecycle);
        let local = Local::new(
            id,
            shared.published,
            shared.lifecycle,
            shared.pressure,
            shared.blocking.for_worker(),
            shared.recent,
        );
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut changes = lifecycle.subscribe();
        // A thread that the system starts late may have missed the end.
        changes.mark_changed();
        loop {
            tokio::select! {
                biased;
                job = inbox.recv() => match job {
                    Some(job) => start(&local, job, &load),
                    None => break,
                },
                Ok(()) = changes.changed() => {
                    // Every connection looks up and sees that it shall end.
                    local.sweep.wake_all();
                    if *changes.borrow_and_update() == State::Stopped {
                        break;
                    }
                }
                _ = ticks.tick() => {
                    local.tick(Instant::now());
                    load.requests.store(local.in_flight.get(), Relaxed);
                    load.admitted.store(local.admitted.get(), Relaxed);
                }
            }
        }
        local.tick(Instant::now());
    });
}

/// One connection less when dropped, also by a panic.
struct Counted(Arc<Load>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

fn start(local: &Rc<Local>, job: Job, load: &Arc<Load>) {
    let counted = Counted(Arc::clone(load));
    let local = Rc::clone(local);
    match job {
        Job::Connection(accepted, place) => {
            tokio::task::spawn_local(async move {
                let _counted = counted;
                serve(local, accepted, place).await;
            });
        }
        Job::Request(call) => {
            tokio::task::spawn_local(async move {
                let _counted = counted;
                memory::serve(&local, *call).await;
            });
        }
    }
}

async fn serve(local: Rc<Local>, accepted: Accepted, place: Place) {
    let (stream, peer) = match accepted.into_stream() {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "a client was gone at once"),
    };
    let id = local.id;
    let seen = Seen::new(Arc::clone(&place.gate().series), id);
    let limits = place.gate().limits();
    let terms = Terms {
        origin: Origin::new(Arc::clone(&place.gate().name), peer),
        local,
        limits,
        place,
        seen,
    };
    connection::serve(Rc::new(terms), stream).await;
}
