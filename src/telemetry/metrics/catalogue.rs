//! Every metric there is: its name, type, labels and meaning.
//!
//! What is exposed and what `docs/metrics.md` says both come from this one table.

use std::fmt::Write as _;

use super::histogram::{LATENCY, OVERHEAD, Scale};

/// What a metric measures, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever goes up; starts again at 0 with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations counted by upper bounds, in seconds.
    Histogram,
}

impl Kind {
    /// The word of the text format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Described {
    /// The name, as it is exposed.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The names of its labels, in order.
    pub labels: &'static [&'static str],
    /// One sentence of meaning.
    pub help: &'static str,
}

macro_rules! catalogue {
    ($($id:ident $name:literal $kind:ident [$($label:literal),*] $help:literal)*) => {
        /// Each metric's place in the table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Metric { $($id,)* }

        static CATALOGUE: &[Described] = &[$(Described {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        },)*];
    };
}

catalogue! {
    HttpRequests "retort_http_requests_total" Counter ["listener", "route", "method", "code", "flag"]
        "Requests that ended, by the status that the client got and the flag that says why; the route is `-` where none matched."
    HttpDuration "retort_http_request_duration_seconds" Histogram ["listener", "route"]
        "Time from a request's head to the end of its answer's body."
    HttpOverhead "retort_http_overhead_seconds" Histogram ["listener", "route"]
        "Time spent in the gateway itself: everything but waiting for an upstream, a handler or the client."
    HttpInFlight "retort_http_requests_in_flight" Gauge ["listener", "route"]
        "Requests that have begun and not ended."
    UpstreamRequests "retort_upstream_requests_total" Counter ["upstream", "code", "flag"]
        "Attempts that ended, by the status of the upstream (`none` without an answer) and the flag of its failure."
    UpstreamDuration "retort_upstream_request_duration_seconds" Histogram ["upstream"]
        "Time from the choice of an endpoint to the head of its answer, or to the failure."
    UpstreamConnections "retort_upstream_connections" Gauge ["upstream", "state"]
        "Open connections: `active` carries a request, `idle` waits in the pool."
    UpstreamConnects "retort_upstream_connects_total" Counter ["upstream", "outcome"]
        "Connections that were tried: `ok` or `failed`."
    UpstreamEndpoints "retort_upstream_endpoints" Gauge ["upstream", "state"]
        "Endpoints by state: `ready` may take requests, `unhealthy` fails its health check, `ejected` failed too often, `draining` has left the list and ends what it has."
    UpstreamRetries "retort_upstream_retries_total" Counter ["upstream", "outcome"]
        "Retries: `succeeded`, `failed`, or `refused` by the retry budget."
    UpstreamQueue "retort_upstream_queue_depth" Gauge ["upstream"]
        "Requests that wait for a connection or for room under a limit."
    HandlerRequests "retort_handler_requests_total" Counter ["handler", "code"]
        "Requests that a handler answered, by status."
    HandlerDuration "retort_handler_duration_seconds" Histogram ["handler"]
        "Time from calling a handler to the head of its answer."
    MiddlewareAnswers "retort_middleware_answers_total" Counter ["route", "middleware", "code"]
        "Requests that a middleware answered itself, in the place of a handler or an upstream."
    ListenerConnections "retort_listener_connections" Gauge ["listener", "state"]
        "Client connections: `active` has a request in flight, `idle` waits for one."
    ListenerAccepted "retort_listener_accepted_total" Counter ["listener"]
        "Client connections that were taken."
    ListenerRefused "retort_listener_refused_total" Counter ["listener", "reason"]
        "Client connections that were closed at once: over a `limit`, while `draining`, or for a failed `handshake`."
    ListenerAcceptErrors "retort_listener_accept_errors_total" Counter ["listener"]
        "Failed attempts to take a connection, most often for want of file descriptors."
    ConfigLastReload "retort_config_last_reload_successful" Gauge []
        "1 if the configuration in force is the one last read, 0 if that was refused."
    ConfigLastSuccess "retort_config_last_reload_success_timestamp_seconds" Gauge []
        "When a configuration was last put in force, in seconds since 1970."
    ConfigRevision "retort_config_revision" Gauge []
        "The number of the configuration in force; every one that is put in force gets the next."
    ConfigReloads "retort_config_reloads_total" Counter ["outcome"]
        "Configurations that were read: `applied`, `unchanged` or `refused`."
    LifecycleState "retort_lifecycle_state" Gauge ["state"]
        "1 for what the process is doing: `starting`, `ready`, `draining` or `stopped`."
    SheddingLevel "retort_shedding_level" Gauge []
        "What is refused to keep the process within its limits: 0 nothing, 1 priority `low`, 2 also `normal`, 3 also `high`."
    SeriesDropped "retort_metrics_series_dropped_total" Counter []
        "Series that were left out because `telemetry.metrics.max_series` was reached."
    AccessLogDropped "retort_access_log_dropped_total" Counter ["reason"]
        "Lines of the access log that were lost: the writer was `behind`, or a `write` failed."
    BuildInfo "retort_build_info" Gauge ["version"]
        "1, with the version as a label."
    RuntimeWorkers "retort_runtime_workers" Gauge []
        "Threads that serve requests."
    RuntimeTasks "retort_runtime_alive_tasks" Gauge ["runtime"]
        "Tasks alive in a thread's tokio runtime."
    ProcessCpu "process_cpu_seconds_total" Counter []
        "User and system time used, in seconds."
    ProcessResident "process_resident_memory_bytes" Gauge []
        "Memory in RAM."
    ProcessVirtual "process_virtual_memory_bytes" Gauge []
        "Address space in use."
    ProcessOpenFds "process_open_fds" Gauge []
        "Open file descriptors."
    ProcessMaxFds "process_max_fds" Gauge []
        "How many file descriptors may be open."
    ProcessStart "process_start_time_seconds" Gauge []
        "When the process started, in seconds since 1970."
    ProcessThreads "process_threads" Gauge []
        "Threads of the process."
}

/// Every metric, in the order of the documentation.
pub fn catalogue() -> &'static [Described] {
    CATALOGUE
}

impl Metric {
    pub(super) fn described(self) -> Option<&'static Described> {
        CATALOGUE.get(self as usize)
    }

    /// The bounds of a histogram.
    pub(super) fn scale(self) -> &'static Scale {
        match self {
            Self::HttpOverhead => &OVERHEAD,
            _ => &LATENCY,
        }
    }
}

/// The table of `docs/metrics.md`.
pub fn markdown() -> String {
    let mut page = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for metric in CATALOGUE {
        let labels: Vec<String> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        // Writing to a string cannot fail.
        let _written = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            metric.name,
            metric.kind.name(),
            labels.join(" "),
            metric.help
        );
    }
    let bounds = |scale: &Scale| {
        let bounds: Vec<String> = scale.seconds().map(|s| s.to_string()).collect();
        bounds.join(" ")
    };
    let _written = write!(
        page,
        "\nUpper bounds of the histograms, in seconds: {}. Of `{}`: {}.\n",
        bounds(&LATENCY),
        Metric::HttpOverhead.described().map_or("", |m| m.name),
        bounds(&OVERHEAD)
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_count() {
        for metric in catalogue() {
            let name = metric.name;
            assert_eq!(
                name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{name}"
            );
            if metric.kind == Kind::Histogram {
                assert!(name.ends_with("_seconds"), "{name}");
            }
            assert!(metric.help.ends_with('.'), "{name}");
        }
        let mut names: Vec<_> = catalogue().iter().map(|m| m.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), catalogue().len());
    }

    #[test]
    fn the_page_has_a_row_for_each() {
        let page = markdown();
        for metric in catalogue() {
            assert!(page.contains(&format!("| `{}` |", metric.name)));
        }
        assert!(page.contains("0.0001 0.00025"), "{page}");
    }
}
