//! Gateways without sockets, requests from memory, and waiting for what must happen.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use retort::app::{NotStarted, Watch};
use retort::http;
use retort::{Body, Doors, Gateway, Options, Registry, Response, Source};
use tokio::sync::oneshot;
use tower::ServiceExt as _;

use crate::handlers;

pub(crate) const EXAMPLE: &str = include_str!("../../examples/handlers.yaml");

/// Longer than anything here takes, even on a machine that is busy with other things.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// No access log among the lines of the tests.
pub(crate) const QUIET: &str = "telemetry: {access_log: {output: none}}";

/// The example's configuration, told so, and with its upstream at that address.
pub(crate) fn example_yaml(shop: &str) -> String {
    EXAMPLE
        .replace("15020}", "15020, access_log: {output: none}}")
        .replace("[\"127.0.0.1:8080\"]", &format!("[\"{shop}\"]"))
}

/// One worker: whatever blocks it, blocks all.
pub(crate) fn one_worker(routes: &str) -> String {
    format!("runtime: {{workers: 1}}\n{QUIET}\nroutes:\n{routes}")
}

/// A route `/name` to the native handler of that name.
pub(crate) fn route(name: &str) -> String {
    format!(
        "  - {{name: {name}, match: {{path: /{name}}}, handler: {{native: {{name: {name}}}}}}}\n"
    )
}

pub(crate) fn try_start(
    yaml: impl Into<String>,
    handlers: Registry,
) -> Result<Gateway, NotStarted> {
    let options = Options {
        handlers,
        doors: Doors::Closed,
        watch: Watch::Nothing,
        ..Options::default()
    };
    Gateway::start(Source::text("test.yaml", yaml), options)
}

pub(crate) fn start(yaml: impl Into<String>, handlers: Registry) -> Gateway {
    try_start(yaml, handlers).unwrap_or_else(|why| panic!("{why}"))
}

/// The example's routes and handlers.
pub(crate) fn example() -> Gateway {
    start(example_yaml("127.0.0.1:8080"), handlers::registry())
}

pub(crate) fn request(path: &str) -> http::Request<Body> {
    let request = http::Request::get(path).body(Body::empty());
    request.expect("a valid request")
}

/// Sends a request; the head of the answer is there in time.
pub(crate) async fn send(gateway: &Gateway, request: http::Request<Body>) -> http::Response<Body> {
    let answer = gateway.in_memory().oneshot(request);
    let answer = tokio::time::timeout(LONG, answer).await.expect("in time");
    answer.unwrap_or_else(|never| match never {})
}

pub(crate) async fn read(body: Body) -> String {
    let bytes = tokio::time::timeout(LONG, body.collect(1 << 20)).await;
    let bytes = bytes.expect("in time").expect("a whole body");
    String::from_utf8(bytes.to_vec()).expect("text")
}

pub(crate) async fn get(gateway: &Gateway, path: &str) -> (u16, String) {
    let (head, body) = send(gateway, request(path)).await.into_parts();
    (head.status.as_u16(), read(body).await)
}

/// Waits until something is so.
pub(crate) async fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let so = tokio::time::timeout(LONG, waiting).await;
    assert!(so.is_ok(), "never {what}");
}

/// Waits until at least so many requests of a route were counted with that flag.
pub(crate) async fn counted(gateway: &Gateway, route: &str, flag: &str, requests: u32) {
    let (route, flag) = (format!("route=\"{route}\""), format!("flag=\"{flag}\""));
    soon(&flag, || {
        let text = gateway.metrics();
        let lines = text.lines().filter(|line| {
            line.starts_with("retort_http_requests_total{")
                && line.contains(&route)
                && line.contains(&flag)
        });
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
        values.sum::<u32>() >= requests
    })
    .await;
}

/// What the first request of a handler takes with it.
pub(crate) type Held = Arc<Mutex<Option<oneshot::Sender<()>>>>;

/// A value for each of two sides: one that a handler owns, and one that hears of its drop.
pub(crate) fn guard() -> (Held, oneshot::Receiver<()>) {
    let (held, dropped) = oneshot::channel();
    (Arc::new(Mutex::new(Some(held))), dropped)
}

/// A handler that says that it has begun and then waits for ever; with the means to know both.
pub(crate) fn endless() -> (Registry, Arc<AtomicUsize>, oneshot::Receiver<()>) {
    let (held, dropped) = guard();
    let begun = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&begun);
    let registry = Registry::new().handle_fn("endless", move |_, _| {
        let held = held.lock().expect("sound").take();
        counter.fetch_add(1, SeqCst);
        async move {
            let _held = held;
            std::future::pending::<Response>().await
        }
    });
    (registry, begun, dropped)
}

pub(crate) async fn heard(dropped: oneshot::Receiver<()>) {
    let heard = tokio::time::timeout(LONG, dropped).await;
    assert!(heard.expect("dropped in time").is_err());
}
