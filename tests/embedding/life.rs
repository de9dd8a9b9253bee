//! How a gateway begins, changes and ends in a program around it.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use retort::app::Watch;
use retort::handler::{Context, Failed};
use retort::http::StatusCode;
use retort::{Doors, Gateway, Options, Registry, Response, Source};
use tokio::sync::oneshot;
use tower::ServiceExt as _;

use crate::handlers;
use crate::harness::{
    EXAMPLE, LONG, counted, endless, get, heard, one_worker, read, request, route, soon, start,
    try_start,
};

#[test]
fn handlers_that_cannot_be_had_are_problems_of_the_configuration() {
    let check = |handler: &str, expected: &[&str]| {
        let yaml = format!(
            "routes:\n  - {{name: a, match: {{path: /}}, handler: {{native: {handler}}}}}\n"
        );
        let refused = try_start(yaml, handlers::registry());
        let refused = refused.err().map(|why| why.to_string()).unwrap_or_default();
        for part in expected.iter().chain(&["test.yaml:2:"]) {
            assert!(refused.contains(part), "{part} is not in {refused}");
        }
    };
    check(
        "{name: sqare}",
        &[
            "this program has no native handler `sqare`",
            "did you mean `square`?",
        ],
    );
    check(
        "{name: greet}",
        &["the native handler `greet` refuses its settings"],
    );
    check(
        "{name: greet, settings: {word: \"\"}}",
        &["`word` is empty"],
    );
    check(
        "{name: greet, settings: {world: x}}",
        &["unknown field `world`"],
    );
    check("{name: square, settings: {x: 1}}", &["takes no settings"]);
}

#[test]
fn the_example_is_without_a_warning() {
    let checked = retort::app::check(&Source::text("handlers.yaml", EXAMPLE));
    assert!(checked.problems.is_empty(), "{:?}", checked.problems);
}

#[tokio::test]
async fn a_reload_keeps_what_handlers_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("retort.yaml");
    let write = |text: &str| std::fs::write(&file, text).expect("written");
    write(&one_worker(&route("visits")));
    let options = Options {
        handlers: handlers::registry(),
        doors: Doors::Closed,
        watch: Watch::Nothing,
        ..Options::default()
    };
    let gateway = Gateway::start(Source::File(file.clone()), options).expect("started");
    assert_eq!(get(&gateway, "/visits").await, (200, "visit 1\n".into()));

    write(&one_worker(
        &route("visits").replace("path: /visits", "path: /again"),
    ));
    assert_eq!(gateway.reload().expect("a good one"), 2);
    assert_eq!(get(&gateway, "/visits").await.0, 404);
    assert_eq!(get(&gateway, "/again").await, (200, "visit 2\n".into()));

    write(&one_worker(&route("visit")));
    let refused = gateway.reload().expect_err("a bad one").to_string();
    assert!(refused.contains("did you mean `visits`?"), "{refused}");
    assert_eq!(get(&gateway, "/again").await, (200, "visit 3\n".into()));
}

#[tokio::test]
async fn a_gateway_that_is_gone_answers_503() {
    let (registry, begun, dropped) = endless();
    let gateway = start(one_worker(&route("endless")), registry);
    let service = gateway.in_memory();
    let asking = tokio::spawn(service.clone().oneshot(request("/endless")));
    soon("begun", || begun.load(SeqCst) == 1).await;
    drop(gateway);
    heard(dropped).await;
    let in_flight = asking.await.expect("answered").expect("infallible");
    let later = service.oneshot(request("/endless")).await;
    for answer in [in_flight, later.expect("infallible")] {
        assert_eq!(answer.status(), 503);
        let text = read(answer.into_body()).await;
        assert_eq!(text, "503 Service Unavailable: the gateway has stopped\n");
    }
}

#[tokio::test]
async fn blocking_work_does_not_hold_up_the_end() {
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let begun = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&begun);
    let registry = Registry::new().handle_fn("blocks", move |_, context: Context| {
        let (gate, counter) = (Arc::clone(&gate), Arc::clone(&counter));
        async move {
            let work = move || {
                counter.fetch_add(1, SeqCst);
                gate.lock().expect("sound").recv().is_ok()
            };
            let went_on = context.blocking(work).await?;
            Ok::<_, Failed>(Response::json(StatusCode::OK, &went_on))
        }
    });
    let gateway = start(one_worker(&route("blocks")), registry);
    let asking = tokio::spawn(gateway.in_memory().oneshot(request("/blocks")));
    soon("begun", || begun.load(SeqCst) == 1).await;
    let ending = tokio::task::spawn_blocking(move || drop(gateway));
    let ended = tokio::time::timeout(LONG, ending).await;
    assert!(ended.is_ok(), "the gateway waits for work that never ends");
    let answer = asking.await.expect("answered").expect("infallible");
    assert_eq!(answer.status(), 503);
    drop(go);
}

#[tokio::test]
async fn a_drain_waits_for_what_is_in_flight() {
    let begun = Arc::new(AtomicUsize::new(0));
    let (go, gate) = oneshot::channel::<()>();
    let gate = Arc::new(Mutex::new(Some(gate)));
    let counter = Arc::clone(&begun);
    let registry = Registry::new().handle_fn("slow", move |_, _| {
        let gate = gate.lock().expect("sound").take();
        counter.fetch_add(1, SeqCst);
        async move {
            let released = gate.expect("asked once").await.is_ok();
            Response::json(StatusCode::OK, &released)
        }
    });
    let gateway = start(one_worker(&route("slow")), registry);
    let asking = tokio::spawn(gateway.in_memory().oneshot(request("/slow")));
    soon("begun", || begun.load(SeqCst) == 1).await;
    let draining = tokio::task::spawn_blocking(move || gateway.drain());
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(!draining.is_finished(), "something is in flight");
    go.send(()).expect("it waits");
    let answer = asking.await.expect("answered").expect("infallible");
    assert_eq!(read(answer.into_body()).await, "true");
    draining.await.expect("drained");
}

#[tokio::test]
async fn two_gateways_in_one_process_leave_each_other_alone() {
    let yaml = one_worker(&(route("visits") + &route("broken")));
    let one = start(yaml.clone(), handlers::registry());
    let other = start(yaml, handlers::registry());
    assert_eq!(get(&one, "/visits").await.1, "visit 1\n");
    assert_eq!(get(&one, "/visits").await.1, "visit 2\n");
    assert_eq!(get(&other, "/visits").await.1, "visit 1\n");
    assert_eq!(get(&one, "/broken").await.0, 500);
    counted(&one, "broken", "HE", 1).await;
    assert!(!other.metrics().contains("flag=\"HE\""));
    drop(one);
    assert_eq!(get(&other, "/visits").await.1, "visit 2\n");
}

/// An end may overtake the start of a worker's thread, the likelier the more of them there are.
#[test]
fn a_gateway_that_is_dropped_at_once_ends() {
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let yaml = format!(
            "runtime: {{workers: 32}}\n{}\nroutes: []\n",
            crate::harness::QUIET
        );
        for _ in 0..20 {
            drop(start(yaml.as_str(), Registry::new()));
        }
        ended.send(()).expect("somebody waits");
    });
    end.recv_timeout(LONG).expect("an end");
}
