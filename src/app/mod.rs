//! The running gateway: starts it, follows its configuration, ends it.
//!
//! Only this floor knows all the others. Everything here runs on the control thread: nothing of it
//! is ever waited for by a request.

mod control;
pub mod diff;
mod keepers;
mod pressure;
#[cfg(test)]
mod rehearsals;
mod reload;
mod signals;
mod source;
mod status;
mod watch;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use tokio::sync::mpsc;

use crate::base::address::Address;
use crate::base::problem::Problem;
use crate::base::source::Sources;
use crate::config::{self, Loaded};
use crate::explain::asked::Asked;
use crate::explain::world::World;
use crate::explain::{self, Explanation, trial};
use crate::handler::Registry;
use crate::lint::{self, Sifted};
use crate::middleware::Natives;
use crate::server::{CannotListen, InMemory};
use crate::snapshot;
use crate::telemetry::metrics::Metrics;

pub use reload::Rejected;
pub use source::Source;

/// What can be asked of a running gateway.
#[derive(Debug)]
pub(crate) enum Order {
    /// Read the configuration again, and tell whoever asked what came of it.
    Reload(Option<SyncSender<Result<u64, NotReloaded>>>),
    /// The same, if its files have changed.
    Look,
    /// Open the access log's file again: something has moved it.
    ReopenLogs,
    /// Finish what is in flight, then end.
    Drain,
    /// End now.
    Stop,
}

/// What a gateway is made of, besides its configuration.
#[derive(Debug, Default)]
pub struct Options {
    /// Handlers that the program registers by name.
    pub handlers: Registry,
    /// Middlewares that the program registers by name.
    pub middlewares: Natives,
    /// Whether the configuration's files are watched.
    pub watch: Watch,
    /// Who takes the process's signals.
    pub signals: Signals,
    /// Who answers operators.
    pub doors: Doors,
    /// Below which folder the system's own files are found (`proc/self/cgroup`, `sys/fs/cgroup`);
    /// none is `/`. For tests, and for machines that have them elsewhere.
    pub system: Option<PathBuf>,
}

/// Whether a change of the configuration's files is a reload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Watch {
    /// It is.
    #[default]
    Files,
    /// Only when asked.
    Nothing,
}

/// Who takes the process's signals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Signals {
    /// The program around the gateway.
    #[default]
    Ignore,
    /// The gateway: TERM and INT drain, HUP reloads, USR1 reopens logs, QUIT stops.
    Take,
}

/// Whether sockets are opened at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Doors {
    /// Listeners, admin and telemetry, as the configuration says.
    #[default]
    Open,
    /// None: the gateway is reached through [`Gateway::in_memory`] alone.
    Closed,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// The configuration has errors.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// A listener's address cannot be had.
    #[error(transparent)]
    CannotListen(#[from] CannotListen),
    /// The system refused something: a port, a thread.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a reload changed nothing.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct NotReloaded(pub(crate) String);

impl NotStarted {
    fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// A running gateway, on threads of its own.
///
/// Dropping it stops it at once; [`Gateway::drain`] ends it gently. A program may run several.
///
/// Its methods block the calling thread until they are done: a program whose own event loop must
/// not stand still calls them through `tokio::task::spawn_blocking`.
#[derive(Debug)]
pub struct Gateway {
    in_memory: InMemory,
    metrics: Arc<Metrics>,
    addresses: Vec<(String, Address)>,
    orders: mpsc::UnboundedSender<Order>,
    control: Option<std::thread::JoinHandle<()>>,
}

impl Gateway {
    /// Starts a gateway; returns once it takes requests.
    ///
    /// # Errors
    /// When the configuration has errors, or the system refuses a port or a thread.
    pub fn start(source: Source, options: Options) -> Result<Self, NotStarted> {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (started, outcome) = std::sync::mpsc::sync_channel(1);
        let its_orders = orders.clone();
        let control = std::thread::Builder::new()
            .name("retort-control".to_owned())
            .spawn(move || control::run(&source, options, its_orders, inbox, &started))
            .map_err(NotStarted::system("starting the control thread"))?;
        let up = outcome.recv().unwrap_or_else(|_| {
            Err(NotStarted::System {
                what: "starting the control thread".to_owned(),
                source: io::ErrorKind::BrokenPipe.into(),
            })
        })?;
        Ok(Self {
            in_memory: up.in_memory,
            metrics: up.metrics,
            addresses: up.addresses,
            orders,
            control: Some(control),
        })
    }

    /// The gateway as a `tower::Service`: requests that need no socket. They count as those of the
    /// first listener; [`InMemory::through`] takes another.
    ///
    /// The service may outlive the gateway: it answers 503 from then on.
    pub fn in_memory(&self) -> InMemory {
        self.in_memory.clone()
    }

    /// Where a listener, `telemetry` or `admin` really listens, as of the start; none where the
    /// doors are closed.
    pub fn address(&self, name: &str) -> Option<&Address> {
        let mut addresses = self.addresses.iter();
        addresses
            .find(|(of, _)| of == name)
            .map(|(_, address)| address)
    }

    /// What Prometheus would scrape, for programs that have a door of their own for it.
    pub fn metrics(&self) -> String {
        self.metrics.text()
    }

    /// Reads the configuration again; returns the revision that is in force from now on.
    ///
    /// # Errors
    /// When the new configuration has errors, or one of its addresses cannot be had: then the last
    /// good one stays in force. The text is for the configuration's author.
    pub fn reload(&self) -> Result<u64, NotReloaded> {
        let (told, outcome) = std::sync::mpsc::sync_channel(1);
        self.order(Order::Reload(Some(told)));
        outcome
            .recv()
            .unwrap_or_else(|_| Err(NotReloaded("the gateway has ended".to_owned())))
    }

    /// Finishes what is in flight, but waits no longer than `runtime.drain` allows; returns at the
    /// end.
    ///
    /// Whoever reads a streamed answer on this very thread cannot go on meanwhile.
    pub fn drain(mut self) {
        self.order(Order::Drain);
        self.join();
    }

    /// Waits for the end that a signal or an operator orders.
    pub fn wait(mut self) {
        self.join();
    }

    fn order(&self, order: Order) {
        // A gateway that has ended has nothing left to do.
        let _ended = self.orders.send(order);
    }

    fn join(&mut self) {
        if let Some(control) = self.control.take()
            && control.join().is_err()
        {
            tracing::error!("the control thread panicked");
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.order(Order::Stop);
        self.join();
    }
}

/// A configuration and all that is wrong with it, whether or not it can be used.
#[derive(Debug)]
pub struct Checked {
    /// What was read.
    pub sources: Sources,
    /// Errors and warnings, in the order of the source.
    pub problems: Vec<Problem>,
    /// How many warnings are left out, because a comment in the source allows them.
    pub allowed: usize,
}

/// Reads and checks a configuration without running it.
///
/// What needs the network or the disk (host names, log files) is not tried.
pub fn check(source: &Source) -> Checked {
    checked(source.load())
}

fn checked(loaded: Loaded) -> Checked {
    let mut problems = loaded.problems;
    if let Some(config) = &loaded.config {
        problems.extend(lint::lint(config));
    }
    problems.sort_by_key(|problem| problem.span.map(|span| (span.file, span.start)));
    let Sifted { problems, allowed } = lint::sift(problems, &loaded.sources);
    Checked {
        sources: loaded.sources,
        problems,
        allowed,
    }
}

/// A configuration, and what came of its tests.
#[derive(Debug)]
pub struct Tested {
    /// What was read.
    pub sources: Sources,
    /// What came of it.
    pub report: trial::Report,
}

/// Runs the tests of a configuration whose names contain `filter`, without a network.
///
/// # Errors
/// When the configuration cannot be used.
pub fn test(source: &Source, filter: &str) -> Result<Tested, Rejected> {
    let (sources, config) = rehearsal(source)?;
    match trial::run(&config, filter) {
        Ok(report) => Ok(Tested { sources, report }),
        Err(no_world) => Err(reload::no_world(&sources, no_world)),
    }
}

/// What would become of a request, or a sentence that says why that cannot be told.
///
/// # Errors
/// When the configuration cannot be used.
pub fn explain(source: &Source, asked: Asked) -> Result<Result<Explanation, String>, Rejected> {
    let (sources, config) = rehearsal(source)?;
    match World::apart(&config) {
        Ok(world) => Ok(explain::explain(&world, asked, Some((&config, &sources)))),
        Err(no_world) => Err(reload::no_world(&sources, no_world)),
    }
}

/// A configuration for a rehearsal: one that can be used, and has a listener.
fn rehearsal(source: &Source) -> Result<(Sources, config::Config), Rejected> {
    let loaded = source.load();
    let Some(mut config) = loaded.config else {
        return Err(reload::rejected(&loaded.sources, &loaded.problems));
    };
    if config.listeners.is_empty() {
        config.reach_from_memory();
    }
    Ok((loaded.sources, config))
}

/// The routes of a configuration in their order of precedence, for each listener.
///
/// # Errors
/// When the configuration cannot be used.
pub fn routes(source: &Source) -> Result<Vec<snapshot::Listing>, Rejected> {
    let loaded = source.load();
    match &loaded.config {
        Some(config) => Ok(snapshot::listings(config)),
        None => Err(reload::rejected(&loaded.sources, &loaded.problems)),
    }
}
