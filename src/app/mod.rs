//! The running gateway: starts it, follows its configuration, ends it.
//!
//! Only this floor knows all the others. Everything here runs on the control thread: nothing of it
//! is ever waited for by a request.

mod reload;
mod signals;
mod source;
mod status;
mod watch;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::admin;
use crate::base::address::Address;
use crate::base::lifecycle::{Lifecycle, State};
use crate::config::Config;
use crate::handler::Registry;
use crate::handler::blocking::Blocking;
use crate::middleware::Natives;
use crate::server::{Common, InMemory, Server};
use crate::snapshot::Builder as SnapshotBuilder;
use crate::snapshot::publish::Published;
use crate::telemetry::access_log;
use crate::telemetry::metrics::Metrics;

pub use reload::Rejected;
pub use source::Source;

use reload::Reloader;
use status::Status;

/// What can be asked of a running gateway.
#[derive(Debug)]
pub(crate) enum Order {
    /// Read the configuration again.
    Reload,
    /// Open the access log's file again: something has moved it.
    ReopenLogs,
    /// Finish what is in flight, then end.
    Drain,
    /// End now.
    Stop,
}

/// What a gateway is made of, before it runs.
#[derive(Debug, Default)]
pub struct Options {
    /// Handlers that the program registers by name.
    pub handlers: Registry,
    /// Middlewares that the program registers by name.
    pub middlewares: Natives,
    /// Whether the configuration's files are watched.
    pub watch: Watch,
    /// Whether the process's signals are the gateway's.
    pub signals: Signals,
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

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// The configuration has errors.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The system refused something: a port, a thread.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl NotStarted {
    fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// A running gateway.
///
/// Dropping it stops it at once; [`Gateway::drain`] ends it gently.
#[derive(Debug)]
pub struct Gateway {
    server: Arc<tokio::sync::Mutex<Option<Server>>>,
    in_memory: InMemory,
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
            .spawn(move || control_thread(source, options, its_orders, inbox, &started))
            .map_err(NotStarted::system("starting the control thread"))?;
        let gone = || NotStarted::System {
            what: "starting the control thread".to_owned(),
            source: io::ErrorKind::BrokenPipe.into(),
        };
        let up = outcome.recv().map_err(|_| gone())??;
        Ok(Self {
            server: up.server,
            in_memory: up.in_memory,
            addresses: up.addresses,
            orders,
            control: Some(control),
        })
    }
}
