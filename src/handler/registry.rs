//! Handlers written in Rust, by the names under which YAML refers to them.
//!
//! ```
//! use retort::handler::{Context, Failed};
//! use retort::http::StatusCode;
//! use retort::{Registry, Request, Response};
//!
//! async fn square(request: Request, _: Context) -> Result<Response, Failed> {
//!     let number: i64 = request.head.params.parse("number")?;
//!     Ok(Response::text(StatusCode::OK, format!("{}\n", number * number)))
//! }
//!
//! /// What one place of the configuration says.
//! #[derive(serde::Deserialize)]
//! struct Greeting {
//!     word: String,
//! }
//!
//! let registry = Registry::new()
//!     .handle_fn("square", square)
//!     .handler("greet", |greeting: Greeting| match greeting.word.as_str() {
//!         "" => Err("`word` is empty"),
//!         _ => Ok(move |_, _| {
//!             let text = greeting.word.clone();
//!             async move { Response::text(StatusCode::OK, text) }
//!         }),
//!     });
//! assert_eq!(registry.names().collect::<Vec<_>>(), ["greet", "square"]);
//! ```

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::{FutureExt as _, LocalBoxFuture};
use http_body::Body as HttpBody;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::blocking::BlockingError;
use super::service::Service;
use super::{Context, Failed};
use crate::base::caller::CallError;
use crate::base::message::{ParamError, Request, Response};

/// A handler's work on one request. It stays on the thread of its worker and need not be `Send`.
pub type Answering = LocalBoxFuture<'static, Result<Response, Failed>>;

/// A handler written in Rust; one value answers for all workers.
///
/// Every async function of a request and a [`Context`] is one: see [`IntoAnswer`] for what it may
/// answer with.
pub trait Handle: Send + Sync + 'static {
    /// Answers.
    ///
    /// The future is dropped when the client leaves or the deadline passes.
    fn handle(&self, request: Request, context: Context) -> Answering;
}

type Maker = Box<dyn Fn(&Value) -> Result<Arc<dyn Handle>, String> + Send + Sync>;

/// The handlers of a program, by name.
#[derive(Default)]
pub struct Registry(BTreeMap<String, Maker>);

impl Registry {
    /// A registry without handlers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a handler that is made from its `settings` in YAML: once for each place that names
    /// it, and anew when a reload changes that place. `S` may be any type that serde reads.
    ///
    /// An error of `make` is shown as a problem of the configuration. A name that was registered
    /// before now means this handler. State that shall outlive every change belongs into an `Arc`
    /// that `make` owns.
    #[must_use]
    pub fn handler<S, H, E>(
        self,
        name: impl Into<String>,
        make: impl Fn(S) -> Result<H, E> + Send + Sync + 'static,
    ) -> Self
    where
        S: DeserializeOwned,
        H: Handle,
        E: fmt::Display,
    {
        self.insert(name, move |settings| {
            let settings = S::deserialize(settings).map_err(|error| error.to_string())?;
            let handler = make(settings).map_err(|error| error.to_string())?;
            Ok(Arc::new(handler))
        })
    }

    /// Registers an async function or closure that takes no settings; it answers with whatever
    /// [`IntoAnswer`] can be made of.
    ///
    /// The one value stays over reloads, with all that it owns.
    #[must_use]
    pub fn handle_fn<F, Fut>(self, name: impl Into<String>, function: F) -> Self
    where
        F: Fn(Request, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoAnswer> + 'static,
    {
        self.shared(name, Arc::new(function))
    }

    /// Registers a `tower` service: an axum router, a service with layers, anything of that shape.
    ///
    /// Each request goes to a clone of its own, which must be ready first. The service finds the
    /// path's parameters as [`Params`](crate::base::message::Params) and the
    /// [`Client`](crate::base::message::Client) in the request's extensions.
    #[must_use]
    pub fn service<S, B>(self, name: impl Into<String>, service: S) -> Self
    where
        S: tower::Service<http::Request<crate::base::body::Body>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Error: fmt::Display,
        S::Future: 'static,
        B: HttpBody<Data = bytes::Bytes, Error: fmt::Display> + Send + 'static,
    {
        self.shared(name, Arc::new(Service::new(service)))
    }

    /// The names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.keys().map(String::as_str)
    }

    /// Makes the handler of that name; none if there is no such name.
    pub(super) fn make(
        &self,
        name: &str,
        settings: &Value,
    ) -> Option<Result<Arc<dyn Handle>, String>> {
        self.0.get(name).map(|make| make(settings))
    }

    fn shared(self, name: impl Into<String>, handler: Arc<dyn Handle>) -> Self {
        self.insert(name, move |settings| match settings {
            Value::Null => Ok(Arc::clone(&handler)),
            Value::Object(map) if map.is_empty() => Ok(Arc::clone(&handler)),
            _ => Err("it takes no settings".to_owned()),
        })
    }

    fn insert(
        mut self,
        name: impl Into<String>,
        make: impl Fn(&Value) -> Result<Arc<dyn Handle>, String> + Send + Sync + 'static,
    ) -> Self {
        self.0.insert(name.into(), Box::new(make));
        self
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// What a function may answer with: a [`Response`], or a `Result` of one.
///
/// An error becomes a failure. A [`Failed`] stays as it is; what handlers meet most
/// ([`CallError`], [`BlockingError`], [`ParamError`]) means the same here as with `?`; any other
/// answers 500 with the flag HE, and its text, causes included, is for operators alone.
pub trait IntoAnswer {
    /// The answer, or why there is none.
    fn into_answer(self) -> Result<Response, Failed>;
}

impl IntoAnswer for Response {
    fn into_answer(self) -> Result<Response, Failed> {
        Ok(self)
    }
}

impl<E: fmt::Display + 'static> IntoAnswer for Result<Response, E> {
    fn into_answer(self) -> Result<Response, Failed> {
        self.map_err(failed)
    }
}

/// Errors that mean something of their own keep it, whatever the function's type says.
fn failed<E: fmt::Display + 'static>(error: E) -> Failed {
    let mut error = Some(error);
    known::<_, Failed>(&mut error)
        .or_else(|| known::<_, CallError>(&mut error))
        .or_else(|| known::<_, BlockingError>(&mut error))
        .or_else(|| known::<_, ParamError>(&mut error))
        .or_else(|| error.map(Failed::because))
        .unwrap_or_else(|| Failed::new("the handler failed"))
}

fn known<E: 'static, K: Into<Failed> + 'static>(error: &mut Option<E>) -> Option<Failed> {
    let any: &mut dyn Any = error;
    let known = any.downcast_mut::<Option<K>>()?;
    known.take().map(Into::into)
}

impl<F, Fut> Handle for F
where
    F: Fn(Request, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: IntoAnswer> + 'static,
{
    fn handle(&self, request: Request, context: Context) -> Answering {
        self(request, context)
            .map(IntoAnswer::into_answer)
            .boxed_local()
    }
}
