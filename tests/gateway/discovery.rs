//! Endpoints come and go by file and by DNS, and no request notices.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use crate::harness::dns::NameServer;
use crate::harness::service::{Stream, ask, endpoints, spread};
use crate::harness::{Gateway, Service, eventually};
use crate::retries::logged;

/// A gateway of one worker with an upstream `up`, made of these keys.
async fn gateway(up: &str) -> Gateway {
    Gateway::start(yaml(up)).await
}

fn yaml(up: &str) -> String {
    format!(
        "runtime: {{workers: 1}}
routes:
  - {{name: up, match: {{path_prefix: /}}, upstream: up}}
upstreams:
  up: {{{up}, balance: round_robin}}
"
    )
}

/// Writes a list of targets in one step.
fn write(path: &Path, targets: &str) {
    let new = path.with_extension("new");
    fs::write(&new, targets).expect("a file");
    fs::rename(&new, path).expect("a file in place");
}

/// The content of a file that names these.
fn targets(services: &[&Service]) -> String {
    let each = services.iter().map(|service| format!("\"{service}\""));
    let each: Vec<String> = each.collect();
    format!("[{{\"targets\": [{}]}}]", each.join(", "))
}

/// The answers to some requests, by who gave them.
async fn who(gateway: &Gateway) -> String {
    let found = spread(gateway, &vec![ask("/", ""); 12]).await;
    let each = found.iter().map(|(who, count)| format!("{who}:{count}"));
    each.collect::<Vec<_>>().join(" ")
}

/// Who answers, where others ask too.
async fn names(gateway: &Gateway) -> String {
    let found = spread(gateway, &vec![ask("/", ""); 12]).await;
    found.into_keys().collect::<Vec<_>>().join(" ")
}

/// A file of targets in a folder of its own, and the setting that names it.
fn file(services: &[&Service]) -> (TempDir, std::path::PathBuf, String) {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("targets.json");
    write(&path, &targets(services));
    let up = format!(
        "discovery: {{file: {{paths: [\"{}/*.json\"]}}}}",
        dir.path().display()
    );
    (dir, path, up)
}

#[tokio::test]
async fn a_file_adds_weighs_and_removes_endpoints_while_requests_run() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let (_dir, path, up) = file(&[&a]);
    let gateway = gateway(&up).await;
    let stream = Stream::start(&gateway, 4, "/stream");
    assert_eq!(who(&gateway).await, "a:12");
    write(&path, &targets(&[&a, &b]));
    endpoints(&gateway, "ready", 2).await;
    gateway.logs("added=1 removed=0 changed=0").await;
    stream.goes_on(100).await;
    write(
        &path,
        &format!(
            "[{{\"targets\": [\"{a}\"]}}, {{\"targets\": [\"{b}\"], \"labels\": {{\"weight\": \"3\"}}}}]"
        ),
    );
    gateway.logs("added=0 removed=0 changed=1").await;
    stream.goes_on(100).await;
    write(&path, &targets(&[&b]));
    endpoints(&gateway, "ready", 1).await;
    endpoints(&gateway, "draining", 0).await;
    let asked = a.requests().len();
    stream.goes_on(100).await;
    assert_eq!(a.requests().len(), asked, "it has left");
    write(&path, "[]");
    endpoints(&gateway, "ready", 0).await;
    let answers = stream.stop().await;
    let served: Vec<&String> = answers.keys().filter(|who| who.len() == 1).collect();
    assert_eq!(served, ["a", "b"], "{answers:?}");
    assert!(answers.len() <= 3, "503 at the end at most: {answers:?}");
    endpoints(&gateway, "draining", 0).await;
    assert_eq!(gateway.get("/none").await.status, 503);
    let line = logged(&gateway, "/none").await;
    assert_eq!(line["detail"], "upstream `up` has no endpoints");
}

#[tokio::test]
async fn who_leaves_takes_no_request_and_finishes_those_under_way() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    for (held, answer) in [("/?hold=head", "a"), ("/?hold=body", "first a")] {
        let (_dir, path, up) = file(&[&a]);
        let gateway = gateway(&up).await;
        let begun = a.held();
        let slow = tokio::spawn(gateway.get(held));
        a.holds(begun + 1).await;
        // Another weight on the way does not hide what is under way.
        write(
            &path,
            &format!("[{{\"targets\": [\"{a}\"], \"labels\": {{\"weight\": \"3\"}}}}]"),
        );
        gateway.logs("changed=1").await;
        write(&path, &targets(&[&b]));
        endpoints(&gateway, "draining", 1).await;
        let asked = a.requests().len();
        assert_eq!(who(&gateway).await, "b:12");
        assert_eq!(a.requests().len(), asked);
        let metrics = gateway.metrics().await;
        let draining = [("upstream", "up"), ("state", "draining")];
        let draining = metrics.sum("retort_upstream_endpoints", &draining);
        assert!(draining > 0.5, "{held}: its request is under way");
        a.release(1);
        assert_eq!(slow.await.expect("no panic").text(), answer);
        endpoints(&gateway, "draining", 0).await;
    }
}

#[tokio::test]
async fn who_comes_back_while_it_drains_takes_requests_again() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let (_dir, path, up) = file(&[&a, &b]);
    let checked = "health_check: {http: {path: /healthz}, interval: 100ms}";
    let gateway = gateway(&format!("{up}, {checked}")).await;
    for round in 1..=3 {
        let slow = tokio::spawn(gateway.get("/?hold=head"));
        eventually(
            "a held request",
            || async { a.held() + b.held() },
            |held| *held == round,
        )
        .await;
        write(&path, "[]");
        endpoints(&gateway, "draining", 1).await;
        write(&path, &targets(&[&a, &b]));
        endpoints(&gateway, "ready", 2).await;
        endpoints(&gateway, "draining", 0).await;
        assert_eq!(who(&gateway).await, "a:6 b:6");
        a.release_all();
        b.release_all();
        assert_eq!(slow.await.expect("no panic").status, 200);
    }
}

#[tokio::test]
async fn a_broken_file_changes_nothing() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let (_dir, path, up) = file(&[&a]);
    let gateway = gateway(&up).await;
    write(&path, "[{\"targets\": [");
    gateway
        .logs("discovery failed, the endpoints stay as they were")
        .await;
    assert_eq!(who(&gateway).await, "a:12");
    fs::remove_file(&path).expect("it is there");
    assert_eq!(who(&gateway).await, "a:12");
    write(&path, &targets(&[&b]));
    endpoints(&gateway, "draining", 0).await;
    eventually("b alone", || who(&gateway), |who| who == "b:12").await;
}

#[tokio::test]
async fn a_config_map_is_followed() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let dir = TempDir::new().expect("a folder");
    let version = |number: u32, service: &Service| {
        let folder = dir.path().join(format!("..2026_{number}"));
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("orders.json"), targets(&[service])).expect("a file");
        symlink(format!("..2026_{number}"), dir.path().join("..data_tmp")).expect("a link");
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).expect("swapped");
    };
    version(1, &a);
    symlink("..data/orders.json", dir.path().join("orders.json")).expect("a link");
    let up = format!(
        "discovery: {{file: {{paths: [\"{}/orders.json\"]}}}}",
        dir.path().display()
    );
    let gateway = gateway(&up).await;
    assert_eq!(who(&gateway).await, "a:12");
    let stream = Stream::start(&gateway, 2, "/");
    for number in 2..6 {
        version(number, if number % 2 == 0 { &b } else { &a });
        let expected = if number % 2 == 0 { "b:12" } else { "a:12" };
        eventually("the other", || who(&gateway), |who| who == expected).await;
    }
    let answers = stream.stop().await;
    assert!(answers.keys().all(|who| who.len() == 1), "{answers:?}");
}

/// Services on one port of several addresses.
async fn on_one_port(names: &[(&str, &str)]) -> (u16, Vec<Service>) {
    'ports: loop {
        let first = Service::start_at(names[0].0, format!("{}:0", names[0].1)).await;
        let port = first.address().port();
        let mut services = vec![first];
        for (name, ip) in &names[1..] {
            let at = format!("{ip}:{port}");
            // Taken by somebody else, perhaps.
            if tokio::net::TcpListener::bind(&at).await.is_err() {
                continue 'ports;
            }
            services.push(Service::start_at(name, at).await);
        }
        return (port, services);
    }
}

fn dns(server: &NameServer, port: u16) -> String {
    format!(
        "discovery: {{dns: {{host: up.test., port: {port}, server: \"{}\", min_ttl: 1s, timeout: 300ms}}}}",
        server.address
    )
}

#[tokio::test]
async fn traffic_follows_the_addresses_of_a_name() {
    let server = NameServer::start().await;
    let ips = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
    let (port, _services) = on_one_port(&[("a", ips[0]), ("b", ips[1]), ("c", ips[2])]).await;
    server.has("up.test", &ips[..2]);
    let gateway = gateway(&dns(&server, port)).await;
    // The first answer was waited for.
    assert_eq!(who(&gateway).await, "a:6 b:6");
    let stream = Stream::start(&gateway, 2, "/");
    server.has("up.test", &ips[1..]);
    eventually("the new list", || names(&gateway), |who| who == "b c").await;
    // No answer, an empty one and none at all change nothing.
    server.is_silent();
    gateway.logs("discovery failed").await;
    assert_eq!(names(&gateway).await, "b c");
    server.has("up.test", &[]);
    server.speaks();
    server.asked(1).await;
    assert_eq!(names(&gateway).await, "b c");
    server.has("up.test", &ips[..1]);
    eventually("the new list", || who(&gateway), |who| who == "a:12").await;
    let answers = stream.stop().await;
    assert!(answers.keys().all(|who| who.len() == 1), "{answers:?}");
}

#[tokio::test]
async fn the_start_waits_for_a_first_answer_and_not_for_ever() {
    let server = NameServer::start().await;
    let (port, _services) = on_one_port(&[("a", "127.0.0.1")]).await;
    server.has("up.test", &["127.0.0.1"]);
    server.is_silent();
    let slow = server.clone();
    let late = tokio::spawn(async move {
        slow.asked(1).await;
        slow.speaks();
    });
    let gateway = gateway(&dns(&server, port)).await;
    assert_eq!(who(&gateway).await, "a:12");
    late.await.expect("no panic");
    drop(gateway);
    server.is_silent();
    let gateway = self::gateway(&dns(&server, port)).await;
    let answer = gateway.get("/nobody").await;
    assert_eq!(answer.status, 503);
    assert_eq!(logged(&gateway, "/nobody").await["flag"], "UH");
    server.speaks();
    eventually("the endpoint", || who(&gateway), |who| who == "a:12").await;
}

#[tokio::test]
async fn a_reload_of_another_key_keeps_what_was_discovered() {
    let server = NameServer::start().await;
    let (port, services) = on_one_port(&[("a", "127.0.0.1"), ("b", "127.0.0.2")]).await;
    let (_dir, _path, file) = file(&[&services[0], &services[1]]);
    server.has("up.test", &["127.0.0.1", "127.0.0.2"]);
    for up in [dns(&server, port), file] {
        server.speaks();
        let checked = "health_check: {http: {path: /healthz}, interval: 200ms}";
        let up = format!("{up}, {checked}");
        let gateway = gateway(&up).await;
        let stream = Stream::start(&gateway, 4, "/");
        stream.goes_on(20).await;
        // Not even where nothing answers any more.
        server.is_silent();
        for round in 1..=3 {
            let other = format!("{up}, timeouts: {{connect: {round}s}}");
            let metrics = gateway.reload(&yaml(&other)).await;
            assert!(metrics.sum("retort_config_last_reload_successful", &[]) > 0.5);
            stream.goes_on(20).await;
        }
        let answers = stream.stop().await;
        assert!(answers.keys().all(|who| who.len() == 1), "{answers:?}");
        endpoints(&gateway, "ready", 2).await;
    }
}

#[tokio::test]
async fn srv_records_say_ports_and_weights() {
    let server = NameServer::start().await;
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let (port_a, port_b) = (a.address().port(), b.address().port());
    server.has("one.test", &["127.0.0.1"]);
    server.has("two.test", &["127.0.0.1"]);
    let name = "_http._tcp.up.test";
    server.serves(name, &[(3, port_a, "one.test"), (1, port_b, "two.test")]);
    let up = format!(
        "discovery: {{dns: {{host: {name}., record: srv, server: \"{}\", min_ttl: 1s}}}}",
        server.address
    );
    let gateway = gateway(&up).await;
    assert_eq!(who(&gateway).await, "a:9 b:3");
    server.serves(name, &[(1, port_a, "one.test"), (1, port_b, "two.test")]);
    eventually("other weights", || who(&gateway), |who| who == "a:6 b:6").await;
    server.serves(name, &[(1, port_b, "two.test")]);
    eventually("one target", || who(&gateway), |who| who == "b:12").await;
}
