//! The door of client traffic: sockets, the thread that accepts, and the workers that serve.

mod connection;
mod framing;
mod guard;
mod listener;
mod memory;
mod refuse;
mod stream;
mod worker;

use std::io;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::base::address::Address;
use crate::server::listener::{Bound, Gate};
use crate::snapshot::change::listeners::{self, Door};
use crate::snapshot::{Listener, Snapshot};

pub use memory::InMemory;
pub use worker::{Common, Loads, Workers};

use worker::{Job, Threads};

/// Workers, and the sockets that feed them.
#[derive(Debug)]
pub struct Server {
    workers: Arc<Workers>,
    threads: Threads,
    accepting: Accepting,
    open: Vec<Open>,
}

/// A listener that is accepting.
#[derive(Debug)]
struct Open {
    /// The address in the configuration, by which a reload knows it again.
    asked: Address,
    bound: Address,
    gate: Arc<Gate>,
    gates: watch::Sender<Arc<Gate>>,
    task: JoinHandle<io::Result<()>>,
}

/// Sockets for listeners that were not there before, bound and not yet accepting.
#[derive(Debug)]
pub struct Prepared(Vec<(usize, Bound)>);

/// A listener that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("listener `{name}` cannot listen on {address}: {source}")]
pub struct CannotListen {
    name: Arc<str>,
    address: Address,
    source: io::Error,
}

impl Server {
    /// Starts the workers, and the thread that accepts for them.
    ///
    /// # Errors
    /// When the system gives no thread or event loop.
    pub fn start(workers: usize, common: &Common) -> io::Result<Self> {
        let (workers, threads) = Workers::start(workers, common)?;
        Ok(Self {
            workers: Arc::new(workers),
            threads,
            accepting: Accepting::start()?,
            open: Vec::new(),
        })
    }

    /// Binds the sockets of listeners that are new, before anything changes.
    ///
    /// # Errors
    /// The first listener that cannot be bound; then nothing has changed.
    pub fn prepare(&self, snapshot: &Snapshot) -> Result<Prepared, CannotListen> {
        let listeners = snapshot.listeners.iter().enumerate();
        let new = listeners.zip(self.taken_over(snapshot));
        let new = new.filter(|(_, open)| open.is_none());
        new.map(|((place, listener), _)| {
            let bound = Bound::bind(&listener.address).map_err(|source| CannotListen {
                name: Arc::clone(&listener.name),
                address: listener.address.clone(),
                source,
            })?;
            Ok((place, bound))
        })
        .collect::<Result<_, _>>()
        .map(Prepared)
    }

    /// Opens what is new, moves limits, and closes what is gone.
    ///
    /// A listener whose address stays keeps its socket and its connections.
    pub fn apply(&mut self, prepared: Prepared, snapshot: &Snapshot) {
        let taken_over = self.taken_over(snapshot);
        let before = std::mem::take(&mut self.open).into_iter();
        let mut before: Vec<_> = before.map(Some).collect();
        let mut bound: Vec<_> = prepared.0;
        let listeners = snapshot.listeners.iter().enumerate();
        for ((place, listener), old) in listeners.zip(taken_over) {
            let old = old.and_then(|old| before.get_mut(old)?.take());
            if let Some(mut open) = old {
                open.keep(listener);
                self.open.push(open);
            } else if let Some(new) = bound.iter().position(|(of, _)| *of == place) {
                let (_, socket) = bound.swap_remove(new);
                self.open.push(self.listen(listener, socket));
            }
        }
        for gone in before.into_iter().flatten() {
            gone.gate.close();
            // Dropping the sender ends the accept loop.
        }
    }

    /// For each listener of a snapshot the place of the open one that it goes on with.
    fn taken_over(&self, snapshot: &Snapshot) -> Vec<Option<usize>> {
        let open: Vec<_> = self.open.iter().map(Open::door).collect();
        let wanted = snapshot.listeners.iter().map(|listener| Door {
            name: &listener.name,
            address: &listener.address,
        });
        listeners::taken_over(&open, &wanted.collect::<Vec<_>>())
    }

    fn listen(&self, listener: &Listener, bound: Bound) -> Open {
        let gate = gate(listener);
        let (gates, current) = watch::channel(Arc::clone(&gate));
        let workers = Arc::clone(&self.workers);
        let address = bound.address.clone();
        let accept = listener::accept(bound, current, move |accepted, place| {
            workers.take(Job::Connection(accepted, place));
        });
        Open {
            asked: listener.address.clone(),
            bound: address,
            gate,
            gates,
            task: self.accepting.handle.spawn(accept),
        }
    }

    /// Where each listener really listens, by its name.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, &Address)> {
        self.open.iter().map(|open| (&*open.gate.name, &open.bound))
    }

    /// How busy the workers are.
    pub fn loads(&self) -> Loads {
        self.workers.loads()
    }

    /// The gateway without a socket.
    pub fn in_memory(&self) -> InMemory {
        InMemory::new(Arc::clone(&self.workers))
    }

    /// Stops accepting; connections go on. What the kernel has taken already is still served.
    pub async fn stop_accepting(&mut self) {
        for open in self.open.drain(..) {
            drop(open.gates);
            open.gate.close();
            if let Ok(Err(error)) = open.task.await {
                tracing::warn!(listener = %open.gate.name, %error, "the listener had stopped before");
            }
        }
    }

    /// Waits for the workers' threads, once the process is stopped.
    pub fn join(self) {
        drop(self.accepting);
        drop(self.open);
        self.threads.join();
    }
}

fn gate(listener: &Listener) -> Arc<Gate> {
    Gate::new(
        Arc::clone(&listener.name),
        listener.limits,
        Arc::clone(&listener.series),
    )
}

impl Open {
    fn door(&self) -> Door<'_> {
        Door {
            name: &self.gate.name,
            address: &self.asked,
        }
    }

    /// The same socket under a configuration that may have changed around it.
    fn keep(&mut self, listener: &Listener) {
        if self.gate.name == listener.name {
            self.gate.set_limits(listener.limits);
        } else {
            self.gate = gate(listener);
            self.gates.send_replace(Arc::clone(&self.gate));
        }
    }
}

/// The thread that accepts.
#[derive(Debug)]
struct Accepting {
    handle: Handle,
    /// Dropped to end the thread.
    _end: oneshot::Sender<()>,
}

impl Accepting {
    fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("retort-accept".to_owned())
            .spawn(move || {
                // An error means that the sender is gone, which is the end that is meant.
                let _end = runtime.block_on(ended);
            })?;
        Ok(Self { handle, _end: end })
    }
}
