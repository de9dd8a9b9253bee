//! What a handler's answer costs, the making of the request not counted: alone, and while another
//! thread asks the same handler, as another worker would.
#![expect(clippy::expect_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use criterion::{BatchSize, Bencher, Criterion, criterion_group, criterion_main};
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use http::{Method, StatusCode, Uri};
use retort::base::caller::{CallError, Caller};
use retort::handler::blocking::Pool;
use retort::handler::{Context, Handler, Registry};
use retort::{Request, Response};

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

fn handler(settings: &str) -> Arc<Handler> {
    let registry = Registry::new().handle_fn("hello", |_, _| async {
        Response::text(StatusCode::OK, "Hello, World!\n")
    });
    let settings = serde_json::from_str(settings).expect("valid settings");
    Handler::build("bench", &settings, &registry).expect("a handler")
}

fn context() -> Context {
    Context {
        deadline: None,
        caller: Rc::new(Nobody),
        blocking: Pool::new(1, 1).for_worker(),
    }
}

fn request() -> Request {
    Request::new(Method::GET, Uri::from_static("/hello?name=ada"), ())
}

fn ask(handler: &Handler, context: &Context, request: Request) {
    let answer = handler.run(request, context.clone()).now_or_never();
    drop(black_box(answer.expect("at once").expect("an answer")));
}

fn measure(b: &mut Bencher<'_>, handler: &Handler) {
    let context = context();
    b.iter_batched(
        request,
        |request| ask(handler, &context, request),
        BatchSize::NumIterations(64),
    );
}

fn bench(c: &mut Criterion, name: &str, settings: &str) {
    let handler = handler(settings);
    c.bench_function(&format!("{name}/alone"), |b| measure(b, &handler));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let context = context();
            while !done.load(Relaxed) {
                ask(&handler, &context, request());
            }
        });
        c.bench_function(&format!("{name}/beside another"), |b| measure(b, &handler));
        done.store(true, Relaxed);
    });
}

fn handlers(c: &mut Criterion) {
    bench(c, "respond/status", r#"{"respond": {"status": 204}}"#);
    let body = r#"{"respond": {"body": "Hello, World!\n"}}"#;
    bench(c, "respond/body", body);
    let headers = r#"{"respond": {"body": "Hello, World!\n",
        "headers": {"content-type": ["text/plain"], "cache-control": ["no-store"], "x-served-by": ["retort"]}}}"#;
    bench(c, "respond/body and headers", headers);
    let large = format!(r#"{{"respond": {{"body": "{}"}}}}"#, "x".repeat(16 << 10));
    bench(c, "respond/16 KiB", &large);
    let template = r#"{"respond": {"body": "Hello, {{ query.name }}!\n"}}"#;
    bench(c, "respond/template", template);
    bench(c, "native", r#"{"native": {"name": "hello"}}"#);
}

criterion_group!(benches, handlers);
criterion_main!(benches);
