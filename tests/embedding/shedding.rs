//! A process that nears the limits of its cgroup refuses what matters least, and says so.
//!
//! The cgroup is a folder of the test's own: what the system would write there, the test does.

use std::path::Path;

use retort::app::Watch;
use retort::http::HeaderValue;
use retort::{Doors, Gateway, Options, Registry, Source};
use tempfile::TempDir;

use crate::harness::{counted, get, request, send, soon};

/// Routes of every priority.
const ROUTES: &str = "
routes:
  - {name: low, match: {path: /low}, priority: low, handler: {respond: {body: low}}}
  - {name: normal, match: {path: /normal}, handler: {respond: {body: normal}}}
  - {name: high, match: {path: /high}, priority: high, handler: {respond: {body: high}}}
  - {name: critical, match: {path: /critical}, priority: critical, handler: {respond: {body: critical}}}
";

fn write(root: &TempDir, file: &str, text: &str) {
    let path = root.path().join(file);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    // In one step: a file that is half there has no number in it.
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(new, path).expect("in place");
}

fn memory(root: &TempDir, percent: u32) {
    let bytes = format!("{}\n", percent * 10_000);
    write(root, "sys/fs/cgroup/memory.current", &bytes);
}

/// A cgroup with 1 MB of memory.
fn cgroup() -> TempDir {
    let root = tempfile::tempdir().expect("a folder");
    write(&root, "proc/self/cgroup", "0::/\n");
    write(&root, "sys/fs/cgroup/memory.max", "1000000\n");
    write(&root, "sys/fs/cgroup/memory.stat", "anon 1\n");
    memory(&root, 10);
    root
}

fn start(root: &Path, runtime: &str) -> Gateway {
    let quiet = "telemetry: {access_log: {output: none}}";
    let yaml = format!("runtime: {{workers: 1{runtime}}}\n{quiet}\n{ROUTES}");
    let options = Options {
        handlers: Registry::new(),
        doors: Doors::Closed,
        watch: Watch::Nothing,
        system: Some(root.to_owned()),
        ..Options::default()
    };
    Gateway::start(Source::text("test.yaml", yaml), options).unwrap_or_else(|why| panic!("{why}"))
}

async fn level(gateway: &Gateway, level: u8) {
    let line = format!("retort_shedding_level {level}");
    soon(&line, || {
        gateway.metrics().lines().any(|found| found == line)
    })
    .await;
}

/// The statuses of routes of every priority, the lowest first.
async fn statuses(gateway: &Gateway) -> [u16; 4] {
    let mut statuses = [0; 4];
    let paths = ["/low", "/normal", "/high", "/critical"];
    for (status, path) in statuses.iter_mut().zip(paths) {
        *status = get(gateway, path).await.0;
    }
    statuses
}

#[tokio::test]
async fn memory_that_runs_out_refuses_the_lowest_first_and_never_the_critical() {
    let root = cgroup();
    let gateway = start(root.path(), "");
    level(&gateway, 0).await;
    assert_eq!(statuses(&gateway).await, [200, 200, 200, 200]);
    for (percent, worst, expected) in [
        (92, 1, [503, 200, 200, 200]),
        (96, 2, [503, 503, 200, 200]),
        (99, 3, [503, 503, 503, 200]),
        (94, 2, [503, 503, 200, 200]),
        (50, 0, [200, 200, 200, 200]),
    ] {
        memory(&root, percent);
        level(&gateway, worst).await;
        assert_eq!(statuses(&gateway).await, expected, "{percent} %");
    }
}

#[tokio::test]
async fn a_refusal_says_when_to_come_back_and_why() {
    let root = cgroup();
    let gateway = start(root.path(), "");
    memory(&root, 93);
    level(&gateway, 1).await;
    let answer = send(&gateway, request("/low")).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "1");
    counted(&gateway, "low", "UO", 1).await;

    // gRPC clients get it in their own words.
    let mut call = request("/low");
    let grpc = HeaderValue::from_static("application/grpc");
    call.headers_mut().insert("content-type", grpc);
    let answer = send(&gateway, call).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert_eq!(answer.headers()["retry-after"], "1");
}

#[tokio::test]
async fn pages_that_the_kernel_takes_back_do_not_count() {
    let root = cgroup();
    write(&root, "sys/fs/cgroup/memory.stat", "inactive_file 60000\n");
    memory(&root, 99);
    let gateway = start(root.path(), "");
    // 93 %, where 99 % would be the worst.
    level(&gateway, 1).await;
    assert_eq!(statuses(&gateway).await, [503, 200, 200, 200]);
}

#[tokio::test]
async fn off_refuses_nothing_and_a_trigger_of_ones_own_counts() {
    let root = cgroup();
    memory(&root, 99);
    let off = start(root.path(), ", shedding: off");
    let mine = start(root.path(), ", shedding: {memory: 50%}");
    memory(&root, 60);
    level(&mine, 1).await;
    assert_eq!(statuses(&mine).await, [503, 200, 200, 200]);
    level(&off, 0).await;
    assert_eq!(statuses(&off).await, [200, 200, 200, 200]);
}

#[tokio::test]
async fn cpu_time_refuses_low_alone_and_only_where_it_is_asked_for() {
    let root = cgroup();
    write(&root, "sys/fs/cgroup/cpu.max", "100000 100000\n");
    let used = |seconds: u64| {
        let text = format!("usage_usec {}\n", seconds * 1_000_000);
        write(&root, "sys/fs/cgroup/cpu.stat", &text);
    };
    used(1);
    let gateway = start(root.path(), ", shedding: {cpu: 95%}");
    let other = start(root.path(), "");
    // Minutes of it in a moment are far more than the quota, whenever the gateway looks.
    let mut seconds = 100;
    soon("refused", || {
        used(seconds);
        seconds += 100;
        gateway.metrics().contains("retort_shedding_level 1\n")
    })
    .await;
    assert_eq!(statuses(&gateway).await, [503, 200, 200, 200]);
    assert_eq!(statuses(&other).await, [200, 200, 200, 200]);
}
