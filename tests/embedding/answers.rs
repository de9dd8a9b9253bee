//! What handlers can answer with: the example's, and some that go wrong.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};

use retort::handler::Context;
use retort::http::StatusCode;
use retort::{Body, Gateway, Options, Registry, Request, Response, Source};
use tokio::sync::{Barrier, Semaphore};
use tower::ServiceExt as _;

use crate::handlers;
use crate::harness::{
    LONG, counted, endless, example, example_yaml, get, heard, one_worker, read, request, route,
    send, start,
};

#[tokio::test]
async fn handlers_get_parameters_of_the_path_and_settings() {
    let gateway = example();
    let check = async |path: &str, status: u16, words: &str| {
        let (got, text) = get(&gateway, path).await;
        assert_eq!(got, status, "{path}: {text}");
        assert!(text.contains(words), "{path}: {text}");
    };
    check("/square/12", 200, "144\n").await;
    check("/square/x", 404, "no route").await;
    check("/product/9999999999", 400, "`id` cannot be `9999999999`").await;
    check("/square/9999999999", 400, "too large").await;
    check("/greet/J%C3%BCrgen", 200, "Hello, Jürgen!\n").await;
    check("/tower/of/babel?x=1", 200, "GET /tower/of/babel\n").await;
    check("/primes/100", 200, "25\n").await;
    check("/primes/99999999", 400, "at most").await;
    check("/count/3", 200, "1\n2\n3\n").await;
}

#[tokio::test]
async fn a_handler_that_panics_while_it_streams_breaks_its_body_off() {
    let registry = Registry::new().handle_fn("breaks", |_, _| async {
        let (sender, body) = Body::channel(1);
        tokio::task::spawn_local(async move {
            sender.send("part").await.expect("read");
            panic!("in the middle");
        });
        Response::text(StatusCode::OK, body)
    });
    let gateway = start(one_worker(&route("breaks")), registry);
    for _ in 0..2 {
        let answer = send(&gateway, request("/breaks")).await;
        assert_eq!(answer.status(), 200);
        assert!(answer.into_body().collect(100).await.is_err());
    }
}

/// A gateway with a listener on a free port, and the example's gateway with that as its shop.
fn with_shop<F, Fut>(shop: F) -> (Gateway, Gateway)
where
    F: Fn(Request, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Response> + 'static,
{
    let yaml = "
admin: {address: 127.0.0.1:0}
telemetry: {address: 127.0.0.1:0, access_log: {output: none}}
listeners: [{name: public, address: 127.0.0.1:0}]
routes: [{name: shop, match: {path: \"/shop/{part}/{id}\"}, handler: {native: {name: shop}}}]
";
    let options = Options {
        handlers: Registry::new().handle_fn("shop", shop),
        ..Options::default()
    };
    let shop = Gateway::start(Source::text("shop.yaml", yaml), options).expect("a shop");
    let address = shop.address("public").expect("a listener").to_string();
    let yaml = example_yaml(&address);
    (start(yaml, handlers::registry()), shop)
}

#[tokio::test]
async fn three_slow_calls_are_in_flight_at_once() {
    // None is answered before all three have come.
    let all = Arc::new(Barrier::new(3));
    let (gateway, _shop) = with_shop(move |request, _| {
        let all = Arc::clone(&all);
        let part = request.head.params.get("part").map(str::to_owned);
        async move {
            all.wait().await;
            Response::json(StatusCode::OK, &part)
        }
    });
    let (status, text) = get(&gateway, "/product/7").await;
    assert_eq!(status, 200, "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let expected = serde_json::json!({"price": "price", "stock": "stock", "reviews": "reviews"});
    assert_eq!(json, expected);
}

#[tokio::test]
async fn a_call_that_is_late_is_left_out_and_one_that_fails_ends_the_others() {
    // Stock fails when reviews of the same product were asked for, which never come.
    let asked = Arc::new(Semaphore::new(0));
    let (gateway, shop) = with_shop(move |request, _| {
        let asked = Arc::clone(&asked);
        async move {
            let is_broken = request.head.path().ends_with('8');
            match request.head.params.get("part") {
                Some("reviews") => {
                    asked.add_permits(usize::from(is_broken));
                    std::future::pending().await
                }
                Some("stock") if is_broken => {
                    let _asked = asked.acquire().await;
                    Response::status(StatusCode::INTERNAL_SERVER_ERROR)
                }
                _ => Response::json(StatusCode::OK, &1),
            }
        }
    });
    let (status, text) = get(&gateway, "/product/7").await;
    assert_eq!(
        (status, &*text),
        (200, r#"{"price":1,"stock":1,"reviews":null}"#)
    );
    let (status, text) = get(&gateway, "/product/8").await;
    assert_eq!(
        (status, &*text),
        (500, "500 Internal Server Error: the handler failed\n")
    );
    // The call that would never have ended was dropped with the others.
    counted(&shop, "shop", "DC", 2).await;
    drop(shop);
    let (status, _) = get(&gateway, "/product/7").await;
    assert_eq!(
        status, 502,
        "an upstream that is gone is no fault of the handler's"
    );
}

#[tokio::test]
async fn the_example_calls_itself_where_it_listens() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = format!("unix:{}", folder.path().join("public").display());
    let yaml = example_yaml(&socket)
        .replace("127.0.0.1:8080", &socket)
        .replace("127.0.0.1:15000", "127.0.0.1:0")
        .replace("127.0.0.1:15020", "127.0.0.1:0");
    let options = Options {
        handlers: handlers::registry(),
        ..Options::default()
    };
    let gateway = Gateway::start(Source::text("handlers.yaml", yaml), options);
    let gateway = gateway.unwrap_or_else(|why| panic!("{why}"));
    let (status, text) = get(&gateway, "/product/7").await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains(r#""stock":{"from":"stock"}"#), "{text}");
}

#[tokio::test]
async fn the_deadline_ends_a_handler_and_answers_504() {
    let (registry, begun, dropped) = endless();
    let yaml = one_worker(
        "  - {name: endless, match: {path: /endless}, timeouts: {request: 50ms}, handler: {native: {name: endless}}}\n",
    );
    let gateway = start(yaml, registry);
    let (status, text) = get(&gateway, "/endless").await;
    assert_eq!(status, 504, "{text}");
    assert!(
        text.contains("the handler did not answer in time"),
        "{text}"
    );
    assert_eq!(begun.load(SeqCst), 1);
    heard(dropped).await;
    counted(&gateway, "endless", "HT", 1).await;
}

#[tokio::test]
async fn blocking_work_stops_nobody_else() {
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let (begun, has_begun) = std::sync::mpsc::channel();
    let registry = handlers::registry().handle_fn("blocks", move |_, context: Context| {
        let (gate, begun) = (Arc::clone(&gate), begun.clone());
        async move {
            context
                .blocking(move || {
                    begun.send(()).expect("heard");
                    gate.lock().expect("sound").recv().is_ok()
                })
                .await
                .map(|went_on| Response::json(StatusCode::OK, &went_on))
        }
    });
    let gateway = start(one_worker(&(route("blocks") + &route("visits"))), registry);
    let blocked = tokio::spawn(gateway.in_memory().oneshot(request("/blocks")));
    tokio::task::spawn_blocking(move || has_begun.recv_timeout(LONG).expect("begun"))
        .await
        .expect("begun");
    assert_eq!(get(&gateway, "/visits").await.1, "visit 1\n");
    assert!(!blocked.is_finished());
    go.send(()).expect("it waits");
    let answer = blocked.await.expect("answered").expect("infallible");
    assert_eq!(read(answer.into_body()).await, "true");
}

#[tokio::test]
async fn a_panic_is_a_500_and_hurts_nobody_else() {
    let yaml = one_worker(&(route("broken") + &route("visits")));
    let gateway = start(yaml, handlers::registry());
    for visit in 1..4 {
        let (status, text) = get(&gateway, "/broken").await;
        assert_eq!(
            (status, &*text),
            (500, "500 Internal Server Error: the handler failed\n")
        );
        assert_eq!(get(&gateway, "/visits").await.1, format!("visit {visit}\n"));
    }
    counted(&gateway, "broken", "HE", 3).await;
    let metrics = gateway.metrics();
    assert!(metrics.contains("retort_handler_requests_total{handler=\"visits\""));
}
