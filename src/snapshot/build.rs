//! From a checked configuration to a snapshot; what did not change is taken over from the last one.
//!
//! Upstreams keep their connections, middlewares what they count, handlers what they hold, as long
//! as their own sections are the same: that is what makes a reload cheap and harmless.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::problem::{Problem, Span, Spanned};
use crate::config::{self, Config};
use crate::handler::{Handler, Registry};
use crate::middleware::{Chain, Middleware, Natives};
use crate::routing::Table;
use crate::snapshot::identity::{Identity, Owner};
use crate::snapshot::{
    Backend, Backends, Limits, Listener, Mirror, Route, Snapshot, Split, Timeouts, To, Upstream,
    tables,
};
use crate::telemetry::access_log::{self, AccessLog};
use crate::telemetry::metrics::{Metrics, NO_ROUTE};
use crate::upstream;

/// Builds one snapshot after another, and keeps what they have in common.
#[derive(Debug)]
pub struct Builder {
    handlers: Registry,
    natives: Natives,
    metrics: Arc<Metrics>,
    revision: u64,
    kept: Kept,
    purpose: Purpose,
}

/// What snapshots are built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To serve.
    Service,
    /// To show what service would do: without a network and without a log.
    Rehearsal,
}

/// What the last snapshot was made of, by identity and fingerprint.
#[derive(Debug, Default)]
struct Kept {
    middlewares: HashMap<Identity, Arc<Middleware>>,
    handlers: HashMap<Identity, Arc<Handler>>,
    upstreams: HashMap<Identity, Arc<upstream::Upstream>>,
    access_log: Option<(access_log::Settings, Arc<AccessLog>)>,
}

/// A snapshot that is not in force yet, and what becomes the builder's memory once it is.
#[derive(Debug)]
pub struct Built {
    /// The snapshot.
    pub snapshot: Snapshot,
    kept: Kept,
}

/// Everything that is wrong with a configuration and shows only when it is built: a name that does
/// not resolve, a native handler that refuses its settings, a log file that cannot be opened.
#[derive(Debug)]
pub struct NotBuilt(pub Vec<Problem>);

impl Builder {
    /// A builder that knows what the program has registered.
    pub fn new(handlers: Registry, natives: Natives, metrics: Arc<Metrics>) -> Self {
        Self {
            handlers,
            natives,
            metrics,
            revision: 0,
            kept: Kept::default(),
            purpose: Purpose::Service,
        }
    }

    /// The same for snapshots that are rehearsed: nothing is resolved, looked for, or opened.
    #[must_use]
    pub fn for_rehearsal(self) -> Self {
        Self {
            purpose: Purpose::Rehearsal,
            ..self
        }
    }

    /// Builds the next snapshot; nothing changes until it is [kept](Self::keep).
    ///
    /// Resolves host names and opens files, and so may block.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first.
    pub fn build(&self, config: &Config) -> Result<Built, NotBuilt> {
        let mut run = Run {
            builder: self,
            problems: Vec::new(),
            kept: Kept::default(),
            zone: config.runtime.zone.clone(),
        };
        let snapshot = run.snapshot(config);
        match (snapshot, run.problems.is_empty()) {
            (Some(snapshot), true) => Ok(Built {
                snapshot,
                kept: run.kept,
            }),
            _ => Err(NotBuilt(run.problems)),
        }
    }

    /// The upstream of that name in the last snapshot.
    fn upstream_before(&self, name: &str) -> Option<&upstream::Upstream> {
        let mut kept = self.kept.upstreams.iter();
        kept.find(|(known, _)| *known.id == *name)
            .map(|(_, upstream)| &**upstream)
    }

    /// The snapshot goes in force: what it is made of can be taken over by the next.
    pub fn keep(&mut self, built: Built) -> Snapshot {
        self.revision = built.snapshot.revision;
        self.kept = built.kept;
        built.snapshot
    }
}

/// The building of one snapshot.
struct Run<'a> {
    builder: &'a Builder,
    problems: Vec<Problem>,
    kept: Kept,
    /// Where this process runs.
    zone: Option<String>,
}

impl Run<'_> {
    fn snapshot(&mut self, config: &Config) -> Option<Snapshot> {
        let upstreams: Vec<_> = config
            .upstreams
            .iter()
            .filter_map(|(name, upstream)| self.upstream(name, upstream))
            .collect();
        let upstream_places: HashMap<Arc<str>, usize> = upstreams
            .iter()
            .enumerate()
            .map(|(place, upstream)| (upstream.upstream.name().into(), place))
            .collect();
        let routes: Vec<_> = config
            .routes
            .iter()
            .map(|route| self.route(config, route, &upstream_places))
            .collect();
        let listeners = self.listeners(config);
        let access_log = self.access_log(&config.telemetry.access_log)?;
        Some(Snapshot {
            revision: self.builder.revision + 1,
            listeners,
            routes,
            upstreams,
            access_log,
            decisions: config.telemetry.decisions.clone(),
            upstream_places,
        })
    }

    fn problem(&mut self, span: Span, message: impl Into<String>) {
        self.problems.push(Problem::error(span, message));
    }

    fn upstream(&mut self, name: &Arc<str>, upstream: &config::Upstream) -> Option<Upstream> {
        let zone = self.zone.as_deref();
        let key = Identity::upstream(name, upstream, zone);
        let series = self.builder.metrics.upstream(name);
        let built = match self.builder.kept.upstreams.get(&key) {
            Some(same) => Arc::clone(same),
            None if self.builder.purpose == Purpose::Rehearsal => {
                upstream::Upstream::rehearsed(name, &upstream.settings, zone, Arc::clone(&series))
            }
            None => match upstream::Upstream::build(
                name,
                &upstream.settings,
                zone,
                Arc::clone(&series),
                self.builder.upstream_before(name),
            ) {
                Ok(built) => built,
                Err(message) => {
                    self.problem(upstream.span, message);
                    return None;
                }
            },
        };
        self.kept.upstreams.insert(key, Arc::clone(&built));
        Some(Upstream {
            upstream: built,
            series,
            fingerprint: upstream.fingerprint,
        })
    }

    fn listeners(&mut self, config: &Config) -> Vec<Listener> {
        let tables = tables::of(config).unwrap_or_else(|problem| {
            self.problems.push(problem);
            Vec::new()
        });
        let listeners = config.listeners.iter().zip(tables);
        listeners
            .map(|(listener, table)| self.listener(listener, table))
            .collect()
    }

    fn listener(&mut self, listener: &config::Listener, table: Arc<Table>) -> Listener {
        let metrics = &self.builder.metrics;
        let series = metrics.listener(&listener.name);
        let unrouted = metrics.route(&listener.name, NO_ROUTE);
        Listener {
            name: Arc::clone(&listener.name),
            address: listener.address.clone(),
            limits: limits(listener),
            trusted_proxies: listener.trusted_proxies.clone(),
            chain: self.chain(Owner::Listener, &listener.middlewares),
            table,
            series,
            unrouted,
            fingerprint: listener.fingerprint,
        }
    }

    fn route(
        &mut self,
        config: &Config,
        route: &config::Route,
        upstreams: &HashMap<Arc<str>, usize>,
    ) -> Route {
        let metrics = &self.builder.metrics;
        let series = route
            .listeners
            .iter()
            .filter_map(|&place| {
                let listener = config.listeners.get(place)?;
                Some((place, metrics.route(&listener.name, &route.name)))
            })
            .collect();
        let steps = route
            .listeners
            .iter()
            .filter_map(|&place| config.listeners.get(place));
        let steps = steps.flat_map(|listener| &listener.middlewares);
        let steps = steps.chain(&route.middlewares);
        let steps = steps.chain(
            route
                .backends
                .iter()
                .flat_map(|backend| &backend.middlewares),
        );
        let mut kinds: Vec<&'static str> = steps.map(|step| step.settings.kind()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let answers = kinds
            .into_iter()
            .map(|kind| (kind, metrics.middleware(&route.name, kind)))
            .collect();
        let backends = route.backends.iter().filter_map(|backend| {
            let to = self.target(&backend.target, upstreams)?;
            let chain = self.chain(Owner::Route(&route.name), &backend.middlewares);
            Some((backend.weight, Backend { chain, to }))
        });
        let backends: Vec<_> = backends.collect();
        Route {
            name: Arc::clone(&route.name),
            chain: self.chain(Owner::Route(&route.name), &route.middlewares),
            backends: Backends::new(backends),
            split: split(route).map(Box::new),
            mirrors: mirrors(route, upstreams),
            priority: route.priority,
            timeouts: Timeouts {
                request: route.timeouts.request,
                attempt: route.timeouts.attempt,
                idle: route.timeouts.idle,
            },
            retry: route.retry.clone().map(Box::new),
            hedge: route.hedge.map(Box::new),
            series,
            answers,
            fingerprint: route.fingerprint,
        }
    }

    fn target(
        &mut self,
        target: &config::Target,
        upstreams: &HashMap<Arc<str>, usize>,
    ) -> Option<To> {
        match target {
            config::Target::Upstream(name) => upstreams.get(name).copied().map(To::Upstream),
            config::Target::Handler(handler) => {
                let series = self.builder.metrics.handler(&handler.label);
                Some(To::Handler(self.handler(handler)?, series))
            }
        }
    }

    fn handler(&mut self, handler: &config::Handler) -> Option<Arc<Handler>> {
        let key = Identity::handler(handler);
        let known = self.kept.handlers.get(&key);
        if let Some(same) = known.or_else(|| self.builder.kept.handlers.get(&key)) {
            let same = Arc::clone(same);
            self.kept.handlers.insert(key, Arc::clone(&same));
            return Some(same);
        }
        match Handler::build(&handler.label, &handler.settings, &self.builder.handlers) {
            Ok(built) => {
                self.kept.handlers.insert(key, Arc::clone(&built));
                Some(built)
            }
            Err(mut problem) => {
                problem.span = problem.span.or(Some(handler.settings.span));
                self.problems.push(problem);
                None
            }
        }
    }

    fn chain(&mut self, owner: Owner<'_>, steps: &[Arc<config::Step>]) -> Chain {
        let links: Vec<_> = steps
            .iter()
            .filter_map(|step| Some((Arc::clone(&step.label), self.middleware(owner, step)?)))
            .collect();
        Chain::new(links)
    }

    fn middleware(&mut self, owner: Owner<'_>, step: &config::Step) -> Option<Arc<Middleware>> {
        let key = Identity::middleware(owner, step);
        let known = self.kept.middlewares.get(&key);
        if let Some(same) = known.or_else(|| self.builder.kept.middlewares.get(&key)) {
            let same = Arc::clone(same);
            self.kept.middlewares.insert(key, Arc::clone(&same));
            return Some(same);
        }
        let Spanned { value, span } = &step.settings;
        match Middleware::build(value, &self.builder.natives) {
            Ok(built) => {
                self.kept.middlewares.insert(key, Arc::clone(&built));
                Some(built)
            }
            Err(message) => {
                self.problem(*span, message);
                None
            }
        }
    }

    fn access_log(&mut self, settings: &access_log::Settings) -> Option<Arc<AccessLog>> {
        let silent;
        let settings = match self.builder.purpose {
            Purpose::Service => settings,
            Purpose::Rehearsal => {
                silent = access_log::Settings {
                    output: access_log::Output::None,
                    ..settings.clone()
                };
                &silent
            }
        };
        let log = match &self.builder.kept.access_log {
            Some((same, log)) if same == settings => Arc::clone(log),
            _ => match AccessLog::open(settings, &self.builder.metrics) {
                Ok(log) => log,
                Err(error) => {
                    let message = format!("the access log cannot be opened: {error}");
                    self.problems.push(Problem::error(None, message));
                    return None;
                }
            },
        };
        self.kept.access_log = Some((settings.clone(), Arc::clone(&log)));
        Some(log)
    }
}

/// The split of a route whose requests stay where their key says.
fn split(route: &config::Route) -> Option<Split> {
    let by = route.split_by.clone()?;
    let backends = route.backends.iter().map(|backend| {
        let name = match &backend.target {
            config::Target::Upstream(name) => name,
            config::Target::Handler(handler) => &handler.id,
        };
        (&**name, backend.weight)
    });
    Some(Split::new(by, backends))
}

fn mirrors(route: &config::Route, upstreams: &HashMap<Arc<str>, usize>) -> Box<[Mirror]> {
    let mirrors = route.mirrors.iter();
    mirrors
        .filter_map(|mirror| Some(Mirror::new(*upstreams.get(&mirror.upstream)?, mirror.share)))
        .collect()
}

fn limits(listener: &config::Listener) -> Limits {
    let limits = &listener.limits;
    Limits {
        connections: limits.connections.get() as usize,
        header_bytes: limits.header_bytes,
        headers: usize::from(limits.headers.get()),
        header_timeout: limits.header_timeout,
        idle_timeout: limits.idle_timeout,
        connection_age: limits.connection_age,
        streams: limits.streams.get(),
        http1: listener.protocols.http1,
        http2: listener.protocols.http2,
    }
}
