//! The gateway as a service: bodies, clients that leave, listeners.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures_util::future::join_all;
use retort::base::message::Client;
use retort::http::{self, StatusCode};
use retort::{Body, Registry, Request, Response};
use tokio::sync::Barrier;
use tower::ServiceExt as _;

use crate::handlers;
use crate::harness::{
    LONG, counted, endless, example, get, guard, heard, one_worker, read, request, route, send,
    soon, start,
};

#[tokio::test]
async fn an_answer_that_is_whole_keeps_its_length() {
    let gateway = example();
    let answer = send(&gateway, request("/square/12")).await;
    assert_eq!(answer.body().len(), Some(4));
    let kind = answer.headers().get("content-type").expect("a type");
    assert_eq!(kind, "text/plain; charset=utf-8");
    let mut head = request("/square/12");
    *head.method_mut() = http::Method::HEAD;
    let answer = send(&gateway, head).await;
    assert_eq!(answer.headers().get("content-length").expect("one"), "4");
    assert!(answer.body().is_empty());
}

#[tokio::test]
async fn a_streamed_body_comes_in_pieces_and_waits_for_its_reader() {
    let written = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&written);
    let registry = handlers::registry().handle_fn("drip", move |_, _| {
        let (sender, body) = Body::channel(1);
        let counter = Arc::clone(&counter);
        tokio::task::spawn_local(async move {
            while sender.send("drop").await.is_ok() {
                counter.fetch_add(1, SeqCst);
            }
        });
        async { Response::text(StatusCode::OK, body) }
    });
    let square = "  - {name: square, match: {path: \"/square/{number}\"}, handler: {native: {name: square}}}\n";
    let gateway = start(one_worker(&(route("drip") + square)), registry);
    let mut body = send(&gateway, request("/drip")).await.into_body();
    let mut drop = async || {
        let frame = tokio::time::timeout(LONG, body.next_frame()).await;
        let frame = frame.expect("in time").expect("more").expect("whole");
        assert_eq!(frame.into_data().expect("bytes"), "drop");
    };
    drop().await;
    // The worker goes round a hundred times, and the writer could go on a hundred times.
    for _ in 0..100 {
        assert_eq!(get(&gateway, "/square/2").await.1, "4\n");
    }
    let ahead = written.load(SeqCst);
    assert!(
        ahead <= 8,
        "{ahead} pieces were written for a reader of one"
    );
    for _ in 0..20 {
        drop().await;
    }
    soon("written on", || written.load(SeqCst) >= 20).await;
    assert!(written.load(SeqCst) <= 30);
}

#[tokio::test]
async fn a_stream_that_is_silent_ends_when_its_reader_leaves() {
    let (held, dropped) = guard();
    let registry = Registry::new().handle_fn("silent", move |_, _| {
        let (sender, body) = Body::channel(1);
        let held = held.lock().expect("sound").take();
        tokio::task::spawn_local(async move {
            let _held = held;
            sender.closed().await;
        });
        async { Response::text(StatusCode::OK, body) }
    });
    let gateway = start(one_worker(&route("silent")), registry);
    let answer = send(&gateway, request("/silent")).await;
    assert_eq!(answer.status(), 200);
    drop(answer);
    heard(dropped).await;
    counted(&gateway, "silent", "DC", 1).await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_handler() {
    let (registry, begun, dropped) = endless();
    let gateway = start(one_worker(&route("endless")), registry);
    let asking = tokio::spawn(gateway.in_memory().oneshot(request("/endless")));
    soon("begun", || begun.load(SeqCst) == 1).await;
    asking.abort();
    heard(dropped).await;
    counted(&gateway, "endless", "DC", 1).await;
}

#[tokio::test]
async fn one_worker_has_hundreds_of_requests_in_flight_at_once() {
    const MANY: usize = 500;
    let all = Arc::new(Barrier::new(MANY));
    let registry = Registry::new().handle_fn("meet", move |_, _| {
        let all = Arc::clone(&all);
        async move {
            let leads = all.wait().await.is_leader();
            Response::json(StatusCode::OK, &leads)
        }
    });
    let gateway = start(one_worker(&route("meet")), registry);
    let answers = join_all((0..MANY).map(|_| get(&gateway, "/meet"))).await;
    assert!(answers.iter().all(|(status, _)| *status == 200));
    assert_eq!(answers.iter().filter(|(_, text)| text == "true").count(), 1);
}

#[tokio::test]
async fn a_request_may_say_from_whom_and_through_which_listener_it_comes() {
    let registry = Registry::new().handle_fn("who", |request: Request, _| async move {
        let ip = request.head.client.ip.map(|ip| ip.to_string());
        Response::text(StatusCode::OK, ip.unwrap_or_else(|| "nobody".into()))
    });
    let yaml = "
telemetry: {access_log: {output: none}}
listeners:
  - {name: public, address: 127.0.0.1:8080}
  - {name: private, address: 127.0.0.1:8081}
routes:
  - {name: who, listeners: [private], match: {path: /who}, handler: {native: {name: who}}}
";
    let gateway = start(yaml, registry);
    assert_eq!(get(&gateway, "/who").await.0, 404);
    let private = gateway.in_memory().through("private");
    let mut from = request("/who");
    from.extensions_mut().insert(Client {
        peer: Some(([192, 0, 2, 7], 4711).into()),
        ..Client::UNKNOWN
    });
    let unknown = gateway.in_memory().through("pirvate");
    let answer = unknown.oneshot(request("/who")).await.expect("infallible");
    assert_eq!(answer.status(), 503);
    let text = read(answer.into_body()).await;
    assert_eq!(text, "503 Service Unavailable: the listener is closed\n");
    for (request, expected) in [(from, "192.0.2.7"), (request("/who"), "nobody")] {
        let answer = private.clone().oneshot(request).await.expect("infallible");
        assert_eq!(read(answer.into_body()).await, expected);
    }
}
