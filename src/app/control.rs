//! The control thread: admin and telemetry doors, reloads, and the end.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::admin::overview::Overview;
use crate::admin::{self, Door};
use crate::app::keepers::Keepers;
use crate::app::pressure::Sampler;
use crate::app::reload::{self, Candidate, Read, Rejected};
use crate::app::status::Board;
use crate::app::watch::Watcher;
use crate::app::{Doors, NotReloaded, NotStarted, Options, Order, Signals, Source, Watch, signals};
use crate::base::address::Address;
use crate::base::lifecycle::{Lifecycle, State};
use crate::config::{Config, Workers};
use crate::handler::blocking::Pool;
use crate::server::{Common, InMemory, Loads, Server};
use crate::snapshot::Builder;
use crate::snapshot::change::{Change, Fixed};
use crate::snapshot::publish::Published;
use crate::telemetry::metrics::{Metrics, Reload};
use crate::telemetry::recent::Recent;

/// What the starter is told.
pub(crate) struct Up {
    pub in_memory: InMemory,
    pub metrics: Arc<Metrics>,
    pub addresses: Vec<(String, Address)>,
}

/// Runs the gateway on the calling thread to its end.
pub(crate) fn run(
    source: &Source,
    options: Options,
    orders: mpsc::UnboundedSender<Order>,
    inbox: mpsc::UnboundedReceiver<Order>,
    started: &SyncSender<Result<Up, NotStarted>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let failed = NotStarted::system("starting the control thread")(error);
            // Whoever started us may have given up.
            let _gone = started.send(Err(failed));
            return;
        }
    };
    runtime.block_on(async {
        match Control::start(source, options, orders).await {
            Ok((control, up)) => {
                let _gone = started.send(Ok(up));
                Box::pin(control.follow(inbox)).await;
            }
            Err(failed) => {
                let _gone = started.send(Err(failed));
            }
        }
    });
}

/// The running gateway, from its control thread.
struct Control<'a> {
    source: &'a Source,
    builder: Builder,
    published: Arc<Published>,
    keepers: Keepers,
    lifecycle: Arc<Lifecycle>,
    metrics: Arc<Metrics>,
    server: Server,
    loads: Loads,
    board: Arc<Board>,
    watcher: Option<Watcher>,
    /// What the last reading found, to tell a change from a touch.
    texts: Vec<String>,
    /// What cannot change while running, to say so.
    fixed: Fixed,
    /// The configuration in force, to say what another one changes.
    config: Config,
    drain: Duration,
    doors: Doors,
    sampler: Sampler,
    stop: watch::Sender<bool>,
    answering: tokio::task::JoinSet<()>,
}

/// How many threads serve traffic.
fn count(workers: Workers) -> usize {
    match workers {
        Workers::Count(count) => usize::from(count.get()),
        // Knows of affinity masks and of the quotas of cgroup v1 and v2.
        Workers::Auto => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
    }
}

/// How many threads handlers may block, and how many more may wait for one.
const BLOCKING: (usize, usize) = (16, 256);

impl<'a> Control<'a> {
    async fn start(
        source: &'a Source,
        options: Options,
        orders: mpsc::UnboundedSender<Order>,
    ) -> Result<(Self, Up), NotStarted> {
        let lifecycle = Arc::new(Lifecycle::default());
        // The number of workers is in the configuration, and the configuration needs the metrics.
        let early = source.load();
        let workers = early
            .config
            .as_ref()
            .map_or(1, |config| count(config.runtime.workers));
        let metrics = Metrics::new(workers);
        metrics.follow(Arc::clone(&lifecycle));
        let mut builder = Builder::new(options.handlers, options.middlewares, Arc::clone(&metrics));
        let Read {
            watched,
            sources,
            outcome,
        } = reload::make(early, &builder, options.doors);
        let Candidate {
            config,
            built,
            warnings,
        } = outcome?;
        reload::log_warnings(&warnings, &sources);
        metrics.configure(&config.telemetry.metrics);
        let published = Arc::new(Published::new(builder.keep(built)));
        let sampler = Sampler::start(options.system.as_deref(), config.runtime.shedding);
        metrics.feel(Arc::clone(sampler.gauge()));
        let recent = Recent::new(workers);
        let common = Common {
            published: Arc::clone(&published),
            lifecycle: Arc::clone(&lifecycle),
            pressure: Arc::clone(sampler.gauge()),
            blocking: Pool::new(BLOCKING.0, BLOCKING.1),
            recent: Arc::clone(&recent),
        };
        let server =
            Server::start(workers, &common).map_err(NotStarted::system("starting workers"))?;
        let loads = server.loads();
        let board = Board::new(source.name(), common, loads.clone());
        let mut control = Self {
            source,
            builder,
            published,
            keepers: Keepers::default(),
            lifecycle,
            metrics,
            server,
            loads,
            board,
            watcher: None,
            texts: texts(&sources),
            fixed: Fixed::of(&config),
            drain: config.runtime.drain,
            doors: options.doors,
            sampler,
            config,
            stop: watch::Sender::new(false),
            answering: tokio::task::JoinSet::new(),
        };
        let addresses = control.open().await?;
        if options.signals == Signals::Take {
            signals::take(&orders).map_err(NotStarted::system("taking signals"))?;
        }
        if options.watch == Watch::Files && source.path().is_some() {
            control.watch(orders, &watched);
        }
        control.note(control.applied(), "the first configuration");
        control.lifecycle.advance(State::Ready);
        let revision = control.published.load().revision;
        tracing::info!(revision, source = source.name(), workers, "ready");
        let up = Up {
            in_memory: control.server.in_memory(),
            metrics: Arc::clone(&control.metrics),
            addresses,
        };
        Ok((control, up))
    }

    /// Opens listeners and the doors for operators; says where each one is.
    async fn open(&mut self) -> Result<Vec<(String, Address)>, NotStarted> {
        let snapshot = self.published.load();
        if self.doors == Doors::Closed {
            self.keepers.follow(&snapshot).await;
            self.keepers.settle(&snapshot);
            return Ok(Vec::new());
        }
        let cannot = |what: &str, address: &Address| {
            NotStarted::system(format!("{what} cannot listen on {address}"))
        };
        let admin = &self.config.admin.address;
        let admin = Door::admin(admin).await.map_err(cannot("admin", admin))?;
        let telemetry = &self.config.telemetry.address;
        let telemetry = Door::telemetry(telemetry)
            .await
            .map_err(cannot("telemetry", telemetry))?;
        let prepared = self.server.prepare(&snapshot)?;
        let mut addresses = vec![
            ("admin".to_owned(), admin.address().clone()),
            ("telemetry".to_owned(), telemetry.address().clone()),
        ];
        self.answer_operators(admin, telemetry);
        // Clients come in when there is somebody to send them to.
        self.keepers.follow(&snapshot).await;
        self.keepers.settle(&snapshot);
        self.server.apply(prepared, &snapshot);
        addresses.extend(self.listeners());
        for (name, address) in &addresses {
            tracing::info!(name, %address, "listening");
        }
        Ok(addresses)
    }

    /// Names of the open listeners, and where each really listens.
    fn listeners(&self) -> Vec<(String, Address)> {
        let addresses = self.server.addresses();
        addresses
            .map(|(name, address)| (name.to_owned(), address.clone()))
            .collect()
    }

    fn answer_operators(&mut self, admin: Door, telemetry: Door) {
        let overview: Arc<dyn Overview> = Arc::<Board>::clone(&self.board);
        let stopped = |mut stop: watch::Receiver<bool>| async move {
            // The end of the sender is an end, too.
            let _end = stop.wait_for(|stop| *stop).await;
        };
        self.answering.spawn(admin::serve(
            admin,
            Arc::clone(&overview),
            Arc::clone(&self.lifecycle),
            stopped(self.stop.subscribe()),
        ));
        self.answering.spawn(admin::telemetry::serve(
            telemetry,
            Arc::clone(&self.metrics),
            overview,
            Arc::clone(&self.lifecycle),
            stopped(self.stop.subscribe()),
        ));
    }

    fn watch(&mut self, orders: mpsc::UnboundedSender<Order>, files: &[PathBuf]) {
        match Watcher::new(orders) {
            Ok(mut watcher) => {
                watcher.follow(files);
                self.watcher = Some(watcher);
            }
            Err(error) => {
                tracing::warn!(%error, "changes of the configuration go unnoticed; send HUP to reload");
            }
        }
    }

    /// Follows orders until one of them is the end.
    async fn follow(mut self, mut inbox: mpsc::UnboundedReceiver<Order>) {
        let mut sweep = tokio::time::interval(Duration::from_secs(10));
        loop {
            let order = tokio::select! {
                order = inbox.recv() => order.unwrap_or(Order::Stop),
                _ = sweep.tick() => {
                    self.metrics.sweep(Instant::now());
                    continue;
                }
            };
            match order {
                Order::Reload(asker) => {
                    let outcome = self
                        .apply(reload::make(self.source.load(), &self.builder, self.doors))
                        .await;
                    if let Some(asker) = asker {
                        // Whoever asked may have left.
                        let _gone = asker.send(outcome);
                    }
                }
                Order::Look => Box::pin(self.look()).await,
                Order::ReopenLogs => self.published.load().access_log.reopen(),
                Order::Drain => {
                    self.finish(&mut inbox).await;
                    break;
                }
                Order::Stop => break,
            }
        }
        self.end().await;
    }

    /// Reloads if the files are not what they were.
    async fn look(&mut self) {
        let loaded = self.source.load();
        if texts(&loaded.sources) != self.texts {
            // The log tells what came of it.
            let _told = self
                .apply(reload::make(loaded, &self.builder, self.doors))
                .await;
        }
    }

    /// Puts what was read in force and returns its revision, or says why not.
    async fn apply(&mut self, read: Read) -> Result<u64, NotReloaded> {
        self.texts = texts(&read.sources);
        if let Some(watcher) = &mut self.watcher {
            watcher.follow(&read.watched);
        }
        let outcome = read
            .outcome
            .map_err(|rejected| rejected_in_words(&rejected));
        let outcome = match outcome {
            Ok(candidate) => {
                reload::log_warnings(&candidate.warnings, &read.sources);
                Box::pin(self.put_in_force(candidate)).await
            }
            Err(why) => Err(why),
        };
        match outcome {
            Ok(changes) => {
                let revision = self.published.load().revision;
                tracing::info!(revision, %changes, "a new configuration is in force");
                self.note(self.applied(), changes);
                Ok(revision)
            }
            Err(why) => {
                tracing::error!(
                    "the new configuration is refused, the last good one stays in force: {why}"
                );
                self.note(Reload::Refused, why.as_str());
                Err(NotReloaded(why))
            }
        }
    }

    fn applied(&self) -> Reload {
        Reload::Applied {
            revision: self.published.load().revision,
        }
    }

    fn note(&self, outcome: Reload, message: impl Into<String>) {
        self.metrics.reload(outcome);
        self.board.reloaded(outcome, message);
    }

    /// Binds what is new, then swaps: until the swap nothing has changed.
    async fn put_in_force(&mut self, candidate: Candidate) -> Result<String, String> {
        let Candidate { config, built, .. } = candidate;
        let prepared = match self.doors {
            Doors::Open => self.server.prepare(&built.snapshot).map(Some),
            Doors::Closed => Ok(None),
        };
        let prepared = prepared.map_err(|error| error.to_string())?;
        self.keepers.follow(&built.snapshot).await;
        let waiting = self.fixed.differing(&Fixed::of(&config));
        if !waiting.is_empty() {
            let keys = waiting.join(", ");
            tracing::warn!("{keys}: a change takes effect at the next start");
        }
        let change = Change::between(&self.config, &config);
        self.metrics.configure(&config.telemetry.metrics);
        self.drain = config.runtime.drain;
        self.sampler.configure(config.runtime.shedding);
        self.config = config;
        self.published.publish(self.builder.keep(built));
        let new = self.published.load();
        self.keepers.settle(&new);
        if let Some(prepared) = prepared {
            let had: Vec<_> = self.listeners();
            self.server.apply(prepared, &new);
            let opened = self
                .listeners()
                .into_iter()
                .filter(|one| !had.contains(one));
            for (name, address) in opened {
                tracing::info!(name, %address, "listening");
            }
        }
        Ok(change.summary())
    }

    /// Drains: says so, lets what is in flight finish, and waits no longer than it may.
    async fn finish(&mut self, inbox: &mut mpsc::UnboundedReceiver<Order>) {
        self.lifecycle.advance(State::Draining);
        tracing::info!(limit = ?self.drain, requests = self.loads.requests(), "draining");
        let limit = tokio::time::sleep(self.drain);
        tokio::pin!(limit);
        let mut look = tokio::time::interval(QUIET / 5);
        let began = Instant::now();
        let mut quiet_since = began;
        let mut admitted = self.loads.admitted();
        let mut accepting = true;
        loop {
            tokio::select! {
                () = &mut limit => {
                    tracing::warn!(requests = self.loads.requests(), "the time for draining is over; what is still in flight is cut");
                    return;
                }
                order = inbox.recv() => if matches!(order, Some(Order::Stop) | None) {
                    return;
                },
                _ = look.tick() => {
                    let seen = self.loads.admitted();
                    if self.loads.requests() > 0 || seen != admitted {
                        admitted = seen;
                        quiet_since = Instant::now();
                    }
                    // Whoever has not yet heard that we go still finds us, as long as anyone comes
                    // and there is time left to finish what has come.
                    let late = began.elapsed() >= self.drain / 2;
                    if accepting && (late || quiet_since.elapsed() >= QUIET) {
                        self.server.stop_accepting().await;
                        accepting = false;
                    }
                    if !accepting && self.loads.connections() == 0 {
                        return;
                    }
                }
            }
        }
    }

    async fn end(mut self) {
        self.lifecycle.advance(State::Stopped);
        self.server.stop_accepting().await;
        self.stop.send_replace(true);
        let ended = async { while self.answering.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(1), ended)
            .await
            .is_err()
        {
            tracing::debug!("an operator's connection did not end in time");
        }
        self.server.join();
        self.published
            .load()
            .access_log
            .flush(Duration::from_secs(1));
        tracing::info!("stopped");
    }
}

/// A draining gateway without a request for so long has heard the last of its clients.
const QUIET: Duration = Duration::from_millis(500);

fn texts(sources: &crate::base::source::Sources) -> Vec<String> {
    sources.iter().map(|source| source.text.clone()).collect()
}

fn rejected_in_words(rejected: &Rejected) -> String {
    let plural = if rejected.errors == 1 { "" } else { "s" };
    format!("{} error{plural}\n{}", rejected.errors, rejected.report)
}
