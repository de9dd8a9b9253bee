//! What a scrape shows of what was counted.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::base::lifecycle::State;
use crate::telemetry::decision::Flag;

fn sample(status: u16, flag: Option<Flag>) -> Sample {
    Sample {
        method: Method::Get,
        status,
        flag,
        took: Duration::from_millis(3),
        overhead: Duration::from_micros(20),
    }
}

/// Uses everything there is, so that every family has a sample.
fn busy() -> Arc<Metrics> {
    let metrics = Metrics::new(2);
    let route = metrics.route("public", "orders");
    for worker in 0..2 {
        route.begin(worker);
        route.begin(worker);
        route.end(worker, &sample(200, None));
    }
    let took = Duration::from_millis(1);
    let upstream = metrics.upstream("orders");
    upstream.connected(0, 1, 1);
    upstream.connections(0, 1, 1);
    upstream.attempt(0, Some(200), None, took);
    upstream.attempt(1, None, Some(Flag::ConnectFailed), took);
    upstream.retry(1, Retry::Refused);
    upstream.set_queue(1);
    upstream.set_endpoints(EndpointState::Ready, 3);
    metrics.handler("hello").answer(0, 200, took);
    metrics.middleware("orders", "rate_limit").answer(1, 429);
    let listener = metrics.listener("public");
    listener.accepted(CONTROL);
    listener.connection(0, None, Some(Connection::Idle));
    listener.refused(CONTROL, Refusal::Limit);
    listener.accept_error(CONTROL);
    metrics.reload(Reload::Applied { revision: 7 });
    metrics.lost_lines(LostLines::Behind, 4);
    let lifecycle = Arc::new(Lifecycle::default());
    lifecycle.advance(State::Ready);
    metrics.follow(lifecycle);
    metrics.feel(Arc::default());
    metrics
}

#[test]
fn shards_of_all_workers_are_one_number() {
    let text = busy().text();
    for line in [
        r#"retort_http_requests_total{listener="public",route="orders",method="GET",code="200",flag=""} 2"#,
        r#"retort_http_requests_in_flight{listener="public",route="orders"} 2"#,
        r#"retort_http_request_duration_seconds_bucket{listener="public",route="orders",le="0.0025"} 0"#,
        r#"retort_http_request_duration_seconds_bucket{listener="public",route="orders",le="0.005"} 2"#,
        r#"retort_http_request_duration_seconds_bucket{listener="public",route="orders",le="+Inf"} 2"#,
        r#"retort_http_request_duration_seconds_sum{listener="public",route="orders"} 0.006"#,
        r#"retort_http_overhead_seconds_bucket{listener="public",route="orders",le="0.00001"} 0"#,
        r#"retort_http_overhead_seconds_bucket{listener="public",route="orders",le="0.000025"} 2"#,
        r#"retort_upstream_requests_total{upstream="orders",code="none",flag="UF"} 1"#,
        r#"retort_upstream_connections{upstream="orders",state="active"} 1"#,
        r#"retort_upstream_connections{upstream="orders",state="idle"} 1"#,
        r#"retort_upstream_connects_total{upstream="orders",outcome="failed"} 1"#,
        r#"retort_upstream_endpoints{upstream="orders",state="ready"} 3"#,
        r#"retort_upstream_retries_total{upstream="orders",outcome="refused"} 1"#,
        r#"retort_upstream_queue_depth{upstream="orders"} 1"#,
        r#"retort_handler_requests_total{handler="hello",code="200"} 1"#,
        r#"retort_middleware_answers_total{route="orders",middleware="rate_limit",code="429"} 1"#,
        r#"retort_listener_connections{listener="public",state="idle"} 1"#,
        r#"retort_listener_refused_total{listener="public",reason="limit"} 1"#,
        "retort_config_last_reload_successful 1",
        "retort_config_revision 7",
        r#"retort_config_reloads_total{outcome="applied"} 1"#,
        r#"retort_lifecycle_state{state="ready"} 1"#,
        r#"retort_lifecycle_state{state="starting"} 0"#,
        r#"retort_access_log_dropped_total{reason="behind"} 4"#,
        "retort_shedding_level 0",
        "retort_metrics_series_dropped_total 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
    }
}

#[tokio::test]
async fn every_metric_is_in_the_catalogue_and_every_entry_can_be_seen() {
    let metrics = busy();
    metrics.runtime("control", &Handle::current());
    let families = metrics.registry().gather();
    let seen: BTreeSet<String> = families.iter().map(|f| f.name().to_owned()).collect();
    let listed: BTreeSet<String> = catalogue().iter().map(|m| m.name.to_owned()).collect();
    assert_eq!(seen, listed);
    for family in &families {
        let described = catalogue().iter().find(|m| m.name == family.name());
        let described = described.expect("listed");
        for metric in family.get_metric() {
            let labels: Vec<&str> = metric
                .get_label()
                .iter()
                .map(proto::LabelPair::name)
                .collect();
            assert_eq!(labels, described.labels, "{}", family.name());
        }
    }
}

#[test]
fn the_process_is_measured() {
    let text = Metrics::new(1).text();
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap_or_else(|| panic!("{name} is not in\n{text}"));
        value.trim().parse().expect("a number")
    };
    assert!(value("process_resident_memory_bytes ") > 1e5);
    assert!(value("process_open_fds ") >= 3.0);
    assert!(value("process_threads ") >= 1.0);
    assert!(value("process_start_time_seconds ") > 1.6e9);
}

#[test]
fn routes_that_were_never_used_show_nothing() {
    let metrics = Metrics::new(2);
    let _routes: Vec<_> = (0..100)
        .map(|n| metrics.route("public", &n.to_string()))
        .collect();
    assert!(!metrics.text().contains("retort_http_"));
}

#[test]
fn series_over_the_limit_are_left_out_and_counted() {
    let metrics = Metrics::new(1);
    metrics.configure(&Settings { max_series: 85 });
    for name in ["a", "b", "c"] {
        let route = metrics.route("public", name);
        route.begin(0);
        route.end(0, &sample(200, None));
    }
    for _ in 0..2 {
        let text = metrics.text();
        let of = |name: &str| text.matches(&format!("route=\"{name}\"")).count();
        // 19 lines for each of two histograms, one gauge, one counter.
        assert_eq!((of("a"), of("b"), of("c")), (40, 40, 1), "{text}");
        assert!(text.contains("retort_metrics_series_dropped_total 39\n"));
    }
}

#[test]
fn a_reload_finds_the_series_of_the_configuration_before_it() {
    let metrics = Metrics::new(1);
    metrics.handler("a").answer(0, 200, Duration::ZERO);
    metrics.handler("a").answer(0, 200, Duration::ZERO);
    let line = r#"retort_handler_requests_total{handler="a",code="200"} 2"#;
    assert!(metrics.text().contains(line));
}

#[test]
fn metrics_of_an_embedding_program_stand_beside_ours() {
    let metrics = Metrics::new(1);
    let own = prometheus::IntCounter::new("shop_orders_total", "Orders.").expect("valid");
    own.inc();
    metrics
        .registry()
        .register(Box::new(own))
        .expect("a new name");
    assert!(metrics.text().contains("\nshop_orders_total 1\n"));
}
