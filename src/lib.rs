//! Retort: a service-mesh sidecar gateway.
//!
//! The binary serves a configuration; this library lets a program serve one, too, with handlers of
//! its own in Rust. What such a program needs first stands at the root: [`Gateway`] and its
//! [`Options`], the [`Registry`] of handlers, [`Request`], [`Response`] and [`Body`]. A gateway
//! need not open a socket: [`Gateway::in_memory`] is a `tower::Service`, for tests above all.
//!
//! ```
//! use retort::http::{self, StatusCode};
//! use retort::{Body, Doors, Gateway, Options, Registry, Request, Response, Source};
//! use tower::ServiceExt as _;
//!
//! let hello = |request: Request, _| async move {
//!     let name = request.head.params.get("name").unwrap_or("you");
//!     Response::text(StatusCode::OK, format!("Hello, {name}!\n"))
//! };
//! let yaml = r#"
//! routes:
//!   - name: hello
//!     match: {path: "/hello/{name}"}
//!     handler: {native: {name: hello}}
//! "#;
//! let options = Options {
//!     handlers: Registry::new().handle_fn("hello", hello),
//!     doors: Doors::Closed,
//!     ..Options::default()
//! };
//! let gateway = Gateway::start(Source::text("hello.yaml", yaml), options)?;
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # let text = runtime.block_on(async {
//! let request = http::Request::get("/hello/ada").body(Body::empty()).unwrap();
//! let response = gateway.in_memory().oneshot(request).await.unwrap();
//! let text = response.into_body().collect(1024).await.unwrap();
//! # text
//! # });
//! assert_eq!(text, "Hello, ada!\n");
//! # Ok::<(), retort::app::NotStarted>(())
//! ```
//!
//! `examples/handlers.rs` shows what handlers can do: stream, call upstreams, block, fail.
//!
//! # The house
//!
//! Floors, from the bottom up; a module uses only what stands below it:
//! [`base`] · [`telemetry`] · [`routing`], [`middleware`], [`handler`], [`upstream`] · [`config`] ·
//! [`snapshot`] · [`proxy`] · [`server`], [`admin`], [`lint`] · [`app`], [`cli`].

pub mod admin;
pub mod app;
pub mod base;
pub mod cli;
pub mod config;
pub mod handler;
pub mod lint;
pub mod middleware;
pub mod proxy;
pub mod routing;
pub mod server;
pub mod snapshot;
pub mod telemetry;
pub mod upstream;

pub use app::{Doors, Gateway, Options, Signals, Source};
pub use base::body::Body;
pub use base::message::{Request, Response};
pub use handler::Registry;

/// The crate whose statuses, methods and header names stand in this library's signatures.
#[doc(no_inline)]
pub use http;

/// The programs in `docs/embedding.md`, which must compile and run.
#[cfg(doctest)]
#[doc = include_str!("../docs/embedding.md")]
pub struct Embedding;
