//! Counters of the hot path, and how they become Prometheus text.
//!
//! A snapshot holds an `Arc` to the series of each of its routes, upstreams and handlers, so that a
//! request finds what it counts without a look-up. Every worker counts into a shard of its own
//! ([`shard`]); a scrape adds the shards up. Labels come from the configuration only: what a
//! stranger sends never becomes one.

mod catalogue;
mod codes;
mod connections;
mod control;
mod exposition;
mod family;
mod handler;
mod histogram;
mod listener;
mod process;
mod route;
mod shard;
mod upstream;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;

use prometheus::core::{Collector, Desc};
use prometheus::{Registry, TextEncoder, proto};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::runtime::Handle;

pub use self::catalogue::{Described, Kind, catalogue, markdown};
pub use self::codes::Method;
pub use self::connections::Connection;
pub use self::control::{LostLines, Reload};
pub use self::handler::{HandlerSeries, MiddlewareSeries};
pub use self::listener::{ListenerSeries, Refusal};
pub use self::route::{RouteSeries, Sample};
pub use self::shard::REHEARSAL;
pub use self::upstream::{EndpointState, Retry, UpstreamSeries};

use self::catalogue::Metric;
use self::control::Control;
use self::exposition::{Budget, Exposition};
use self::family::Family;
use crate::base::lifecycle::Lifecycle;
use crate::base::pressure::Gauge;

/// The number under which the control thread counts what workers count too.
pub const CONTROL: usize = usize::MAX;

/// The route of requests that no route matches.
pub const NO_ROUTE: &str = "-";

/// Limits of the metrics.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
pub struct Settings {
    /// How many series `/metrics` shows at most; a histogram counts as 19. What comes later is left
    /// out and counted in `retort_metrics_series_dropped_total`. A route in use has about 40, an
    /// upstream about 32. Default 10000.
    pub max_series: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_series: 10_000 }
    }
}

/// All counters of the process.
pub struct Metrics {
    workers: usize,
    routes: Family<RouteSeries>,
    upstreams: Family<UpstreamSeries>,
    handlers: Family<HandlerSeries>,
    middlewares: Family<MiddlewareSeries>,
    listeners: Family<ListenerSeries>,
    control: Control,
    budget: Budget,
    registry: Registry,
}

impl Metrics {
    /// Counters for workers numbered from 0; anyone else counts as [`CONTROL`].
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new_cyclic(|metrics: &Weak<Self>| {
            let registry = Registry::new();
            let source = Source::new(metrics.clone());
            // Refused only for a wrong or doubled name, and those are constants that a test reads.
            let registered = registry.register(Box::new(source));
            debug_assert!(registered.is_ok(), "{registered:?}");
            Self {
                workers,
                routes: Family::default(),
                upstreams: Family::default(),
                handlers: Family::default(),
                middlewares: Family::default(),
                listeners: Family::default(),
                control: Control::default(),
                budget: Budget::new(Settings::default().max_series),
                registry,
            }
        })
    }

    /// Puts other limits in force.
    pub fn configure(&self, settings: &Settings) {
        let most = settings.max_series;
        self.budget.most.store(most, Ordering::Relaxed);
    }

    /// The series of a route on a listener; [`NO_ROUTE`] for requests without one.
    pub fn route(&self, listener: &str, route: &str) -> Arc<RouteSeries> {
        let make = || RouteSeries::new(listener, route, self.workers);
        self.routes.get((listener, route), make)
    }

    /// The series of an upstream.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamSeries> {
        let make = || UpstreamSeries::new(name, self.workers);
        self.upstreams.get((name, ""), make)
    }

    /// The series of a handler.
    pub fn handler(&self, name: &str) -> Arc<HandlerSeries> {
        let make = || HandlerSeries::new(name, self.workers);
        self.handlers.get((name, ""), make)
    }

    /// The series of a middleware on a route.
    pub fn middleware(&self, route: &str, middleware: &str) -> Arc<MiddlewareSeries> {
        let make = || MiddlewareSeries::new(route, middleware, self.workers);
        self.middlewares.get((route, middleware), make)
    }

    /// The series of a listener.
    pub fn listener(&self, name: &str) -> Arc<ListenerSeries> {
        let make = || ListenerSeries::new(name, self.workers);
        self.listeners.get((name, ""), make)
    }

    /// A configuration was read.
    pub fn reload(&self, outcome: Reload) {
        self.control.reload(outcome);
    }

    /// Lines of the access log were lost.
    pub fn lost_lines(&self, why: LostLines, lines: u64) {
        self.control.lost_lines(why, lines);
    }

    /// Shows a lifecycle from now on.
    pub fn follow(&self, lifecycle: Arc<Lifecycle>) {
        self.control.follow(lifecycle);
    }

    /// Shows the pressure on a process from now on.
    pub fn feel(&self, pressure: Arc<Gauge>) {
        self.control.feel(pressure);
    }

    /// Shows a thread's tokio runtime from now on.
    pub fn runtime(&self, name: impl Into<String>, handle: &Handle) {
        self.control.runtime(name.into(), handle.metrics());
    }

    /// Where a program that embeds the gateway registers metrics of its own.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Lets go of series whose routes left the configuration some minutes ago; a scrape does it, too.
    pub fn sweep(&self, now: Instant) {
        self.routes.sweep(now, &self.budget);
        self.upstreams.sweep(now, &self.budget);
        self.handlers.sweep(now, &self.budget);
        self.middlewares.sweep(now, &self.budget);
        self.listeners.sweep(now, &self.budget);
    }

    /// Everything, in Prometheus' text format ([`prometheus::TEXT_FORMAT`]).
    pub fn text(&self) -> String {
        let mut text = String::new();
        let families = self.registry.gather();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            tracing::warn!(%error, "the metrics could not be written in full");
        }
        text
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        self.sweep(Instant::now());
        let mut out = Exposition::new(&self.budget);
        self.listeners.collect(&mut out);
        self.upstreams.collect(&mut out);
        self.handlers.collect(&mut out);
        self.middlewares.collect(&mut out);
        self.routes.collect(&mut out);
        self.control.collect(&mut out);
        process::collect(&mut out);
        out.number(Metric::RuntimeWorkers, &[], self.workers as u64);
        out.number(Metric::SeriesDropped, &[], self.budget.dropped());
        out.number(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1);
        out.finish()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

/// What the registry asks at a scrape; weak, since the registry belongs to the metrics.
struct Source {
    metrics: Weak<Metrics>,
    descriptions: Vec<Desc>,
}

impl Source {
    fn new(metrics: Weak<Metrics>) -> Self {
        let described = catalogue().iter().filter_map(|metric| {
            let labels = metric.labels.iter().map(|l| (*l).to_owned()).collect();
            let (name, help) = (metric.name.to_owned(), metric.help.to_owned());
            Desc::new(name, help, labels, std::collections::HashMap::new()).ok()
        });
        Self {
            metrics,
            descriptions: described.collect(),
        }
    }
}

impl Collector for Source {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let metrics = self.metrics.upgrade();
        metrics.map_or_else(Vec::new, |metrics| metrics.collect())
    }
}

#[cfg(test)]
mod tests;
