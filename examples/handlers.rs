//! A gateway with handlers of its own, written in Rust: `cargo run --example handlers`.
//!
//! A handler is an async function of a request and of what it may use besides ([`Context`]). It runs
//! on the thread of the worker that has the request, beside thousands of others: so it awaits, and
//! never blocks. Which requests it gets says the configuration, `handlers.yaml` beside this file.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use retort::handler::{Context, Failed, Handle};
use retort::http::{self, StatusCode};
use retort::telemetry::log;
use retort::{Body, Gateway, Options, Registry, Request, Response, Signals, Source};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

fn main() -> anyhow::Result<()> {
    let settings = log::Settings::from_env();
    settings.and_then(log::start).map_err(anyhow::Error::msg)?;
    let yaml = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/handlers.yaml");
    let options = Options {
        handlers: registry(),
        signals: Signals::Take,
        ..Options::default()
    };
    let gateway = Gateway::start(Source::File(yaml.into()), options)?;
    writeln!(std::io::stdout(), "{TRY}")?;
    gateway.wait();
    Ok(())
}

const TRY: &str = "Try:
  curl http://127.0.0.1:8080/square/12      a parameter of the path, as a number
  curl http://127.0.0.1:8080/greet/ada      settings of the handler's own
  curl http://127.0.0.1:8080/visits         state that outlives reloads
  curl -N http://127.0.0.1:8080/count/5     a body that comes in pieces
  curl http://127.0.0.1:8080/product/7      three slow calls in the time of one
  curl http://127.0.0.1:8080/primes/1000000 work that blocks, on threads of its own
  curl -i http://127.0.0.1:8080/broken      a panic, which hurts nobody else
  curl http://127.0.0.1:8080/tower/any      a tower service
  curl http://127.0.0.1:15020/metrics       what Prometheus sees of all this";

/// The handlers, by the names under which the configuration refers to them.
pub(crate) fn registry() -> Registry {
    let visits = AtomicU64::new(0);
    Registry::new()
        .handle_fn("square", square)
        .handle_fn("count", count)
        .handle_fn("product", product)
        .handle_fn("shop", shop)
        .handle_fn("primes", primes)
        .handle_fn("broken", broken)
        .handler("greet", greet)
        // One closure answers for all workers and over all reloads, with all that it owns.
        .handle_fn("visits", move |_, _| {
            let visit = visits.fetch_add(1, Ordering::Relaxed) + 1;
            async move { Response::text(StatusCode::OK, format!("visit {visit}\n")) }
        })
        // Anything of tower's shape: an axum router, a stack of layers.
        .service("tower", tower::service_fn(tower))
}

/// Answers with a parameter of the path; what is no `i64` gets 400.
async fn square(request: Request, _: Context) -> Result<Response, Failed> {
    let number: i64 = request.head.params.parse("number")?;
    let square = number
        .checked_mul(number)
        .ok_or_else(|| Failed::bad_request("that is too large"))?;
    Ok(Response::text(StatusCode::OK, format!("{square}\n")))
}

/// Settings of `greet`, as they are written in the configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Greeting {
    word: String,
}

/// Makes a handler from its settings; what is wrong with them is a problem of the configuration.
fn greet(greeting: Greeting) -> Result<impl Handle, &'static str> {
    if greeting.word.is_empty() {
        return Err("`word` is empty");
    }
    Ok(move |request: Request, _: Context| {
        let name = request.head.params.get("name").unwrap_or("you");
        let text = format!("{}, {name}!\n", greeting.word);
        async move { Response::text(StatusCode::OK, text) }
    })
}

/// Streams: each number leaves as it is written, and no faster than the client reads.
async fn count(request: Request, _: Context) -> Result<Response, Failed> {
    let last: u32 = request.head.params.parse("last")?;
    let (sender, body) = Body::channel(1);
    // The task outlives this function, but not its client: once that has left, `send` fails.
    tokio::task::spawn_local(async move {
        for number in 1..=last {
            sender.send(format!("{number}\n")).await?;
            sleep(Duration::from_millis(100)).await;
        }
        // Without this word the client would see the body broken off.
        sender.finish().await
    });
    Ok(Response::text(StatusCode::OK, body))
}

/// Makes one answer of three, asked for at once: it takes as long as the slowest.
async fn product(request: Request, context: Context) -> Result<Response, Failed> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let id: u32 = request.head.params.parse("id")?;
    // Reviews are welcome, but not waited for: late or broken ones are left out.
    let reviews = async {
        let reviews = timeout(PATIENCE, ask(&context, "reviews", id)).await;
        Ok(reviews.ok().and_then(Result::ok))
    };
    // The first failure ends the other calls. So does the client, when it leaves.
    let (price, stock, reviews) = tokio::try_join!(
        ask(&context, "price", id),
        ask(&context, "stock", id),
        reviews
    )?;
    let product = json!({"price": price, "stock": stock, "reviews": reviews});
    Ok(Response::json(StatusCode::OK, &product))
}

/// Asks an upstream of the configuration, over its connections and within its limits.
async fn ask(context: &Context, part: &str, id: u32) -> Result<Value, Failed> {
    // No answer in time is 504 to the client, a broken one 502: `?` knows.
    let response = context.get("shop", &format!("/shop/{part}/{id}")).await?;
    let status = response.head.status;
    if !status.is_success() {
        return Err(Failed::new(format!("`{part}` answered {status}")));
    }
    let body = response.body.collect(64 << 10).await;
    serde_json::from_slice(&body.map_err(Failed::because)?).map_err(Failed::because)
}

/// Stands in for three services that take their time.
async fn shop(request: Request, _: Context) -> Response {
    sleep(Duration::from_millis(300)).await;
    let part = request.head.params.get("part");
    Response::json(StatusCode::OK, &json!({"from": part}))
}

/// Computes for long: on a thread of the bounded pool, for here all other requests would wait.
async fn primes(request: Request, context: Context) -> Result<Response, Failed> {
    let below: u32 = request.head.params.parse("below")?;
    if below > 10_000_000 {
        return Err(Failed::bad_request("at most 10000000, please"));
    }
    let is_prime = |n: &u32| !(2..=n.isqrt()).any(|d| n.is_multiple_of(d));
    // A full pool is 503 to the client: `?` knows that, too.
    let count = context
        .blocking(move || (2..below).filter(is_prime).count())
        .await?;
    Ok(Response::text(StatusCode::OK, format!("{count}\n")))
}

/// Panics: its client gets 500, the log says why once, and everybody else is served.
async fn broken(request: Request, _: Context) -> Response {
    let query = request.head.query();
    assert!(
        query.is_some(),
        "nobody thought of requests without a query"
    );
    Response::status(StatusCode::NO_CONTENT)
}

/// A service in the types of `http`, which knows nothing of gateways.
async fn tower(request: http::Request<Body>) -> Result<http::Response<String>, Infallible> {
    let text = format!("{} {}\n", request.method(), request.uri().path());
    Ok(http::Response::new(text))
}
