//! What a chain of middlewares costs a request, the making of the request not counted.
#![expect(clippy::expect_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use futures_util::future::LocalBoxFuture;
use http::{Extensions, HeaderName, HeaderValue, Method, StatusCode, Uri};
use retort::base::caller::{CallError, Caller};
use retort::base::message::{Request, Response};
use retort::middleware::{Chain, Context, Down, Effects, Hooks, Middleware, Natives, Up};
use retort::telemetry::decision::Decision;

/// Calls nobody.
struct Nobody;

impl Caller for Nobody {
    fn call(
        &self,
        upstream: &str,
        _: Request,
    ) -> LocalBoxFuture<'static, Result<Response, CallError>> {
        let error = CallError::Unknown(upstream.to_owned());
        Box::pin(async move { Err(error) })
    }
}

/// A middleware that does nothing: what is left is the cost of the chain itself.
struct Nothing;

impl Hooks for Nothing {}

fn chain(settings: &[&str]) -> Chain {
    let mut natives = Natives::default();
    natives.register("nothing", |_| Ok(Arc::new(Nothing)));
    let build = |settings: &&str| {
        let settings: retort::middleware::Settings =
            serde_json::from_str(settings).expect("valid settings");
        let built = Middleware::build(&settings, &natives).expect("registered");
        (settings.kind(), built)
    };
    Chain::new(settings.iter().map(build))
}

fn request() -> Request {
    let mut request = Request::new(Method::GET, Uri::from_static("/orders/7?x=1"), ());
    for (name, value) in [
        ("host", "api.example.com"),
        ("user-agent", "bench/1.0"),
        ("accept", "*/*"),
        ("x-api-key", "0123456789abcdef"),
    ] {
        let (name, value) = (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
        request.head.set_header(name, value);
    }
    request
}

/// An answer as backends make it: its map of headers has room for a few more.
fn response() -> Response {
    let field = |name, value| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    [
        field("content-type", "text/plain"),
        field("date", "now"),
        field("server", "bench"),
    ]
    .into_iter()
    .fold(
        Response::status(StatusCode::OK),
        |response, (name, value)| response.with_header(name, value),
    )
}

fn bench(c: &mut Criterion, name: &str, settings: &[&str]) {
    let chain = chain(settings);
    let caller: Rc<dyn Caller> = Rc::new(Nobody);
    let now = Instant::now();
    c.bench_function(name, |b| {
        let make = || {
            (
                request(),
                response(),
                Decision::default(),
                Extensions::new(),
            )
        };
        let run = |world: &mut (Request, Response, Decision, Extensions)| {
            let (request, response, record, kept) = world;
            let mut cx = Context {
                effects: Effects::Real,
                now,
                record,
                kept,
                caller: &caller,
            };
            let through = matches!(chain.down(0, request, &mut cx), Down::Through);
            let done = matches!(chain.up(chain.len(), response, &mut cx), Up::Done);
            assert!(black_box(through && done));
        };
        // Few at a time, so that they are warm, as a request that was just read is.
        b.iter_batched_ref(make, run, BatchSize::NumIterations(64));
    });
}

const REQUEST_ID: &str = r#"{"request_id": {}}"#;
/// Wide enough that nothing is refused: a refusal is cheaper than a passage.
const RATE_LIMIT: &str = r#"{"rate_limit": {"requests": 4000000000, "per": "4500s"}}"#;
const BY_HEADER: &str =
    r#"{"rate_limit": {"requests": 4000000000, "per": "4500s", "by": {"header": "x-api-key"}}}"#;
const SET_HEADERS: &str = r#"{"set_headers": {
    "request": {"set": {"x-edge": "retort"}}, "response": {"set": {"x-served-by": "retort"}}}}"#;
const REWRITE: &str = r#"{"rewrite": {"strip_prefix": "/orders"}}"#;
const BODY_LIMIT: &str = r#"{"body_limit": {"max": "1MiB"}}"#;
const CORS: &str = r#"{"cors": {"origins": ["https://shop.example"]}}"#;
const ERROR_PAGES: &str = r#"{"error_pages": {"pages": [{"status": ["5xx"], "body": "sorry"}]}}"#;
const NOTHING: &str = r#"{"native": {"name": "nothing"}}"#;

fn chains(c: &mut Criterion) {
    bench(c, "chain/empty", &[]);
    bench(c, "chain/eight that do nothing", &[NOTHING; 8]);
    bench(
        c,
        "chain/id, limit, headers",
        &[REQUEST_ID, RATE_LIMIT, SET_HEADERS],
    );
    let all = [
        REQUEST_ID,
        ERROR_PAGES,
        CORS,
        RATE_LIMIT,
        BY_HEADER,
        BODY_LIMIT,
        SET_HEADERS,
        REWRITE,
    ];
    bench(c, "chain/eight kinds", &all);
    for settings in all {
        let kind = settings.split('"').nth(1).expect("a kind");
        let by = if settings == BY_HEADER {
            " by header"
        } else {
            ""
        };
        bench(c, &format!("kind/{kind}{by}"), &[settings]);
    }
}

criterion_group!(benches, chains);
criterion_main!(benches);
