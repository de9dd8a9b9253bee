//! Handlers written in Rust, by the names under which YAML refers to them.
//!
//! ```
//! use retort::base::message::Response;
//! use retort::handler::Registry;
//!
//! let registry = Registry::new().handle_fn("hello", |request, _context| async move {
//!     let name = request.head.params.get("name").unwrap_or("you").to_owned();
//!     Response::text(http::StatusCode::OK, format!("Hello, {name}!\n"))
//! });
//! assert_eq!(registry.names().collect::<Vec<_>>(), ["hello"]);
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

use super::service::Service;
use super::{Context, Failed};
use crate::base::message::{Request, Response};

/// A handler written in Rust; one value answers for all workers.
///
/// Its futures stay on the thread of their worker and need not be `Send`.
pub trait Handle: Send + Sync + 'static {
    /// Answers.
    ///
    /// The future is dropped when the client leaves or the deadline passes.
    fn handle(
        &self,
        request: Request,
        context: Context,
    ) -> LocalBoxFuture<'static, Result<Response, Failed>>;
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

    /// Registers a handler that is made from its `settings` in YAML, once for each place that
    /// names it; `S` may be any type that serde reads, or [`serde_json::Value`].
    ///
    /// An error of `make` is shown as a problem of the configuration. A name that was registered
    /// before now means this handler.
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

    /// Registers an async function or closure; it answers with a [`Response`], or a `Result` of
    /// one, whose error becomes a 500 with the flag HE.
    #[must_use]
    pub fn handle_fn<F, Fut>(self, name: impl Into<String>, function: F) -> Self
    where
        F: Fn(Request, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoAnswer> + 'static,
    {
        self.shared(name, Arc::new(Function(function)))
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
    pub fn names(&self) -> impl Iterator<Item = &str> {
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

/// What a function may answer with.
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
        let mut error = match self {
            Ok(response) => return Ok(response),
            Err(error) => Some(error),
        };
        // A failure keeps its flag and answer; any other error is the detail of one.
        let any: &mut dyn Any = &mut error;
        if let Some(failed) = any.downcast_mut::<Option<Failed>>().and_then(Option::take) {
            return Err(failed);
        }
        let detail = error.map(|error| error.to_string());
        Err(Failed::new(detail.unwrap_or_default()))
    }
}

struct Function<F>(F);

impl<F, Fut> Handle for Function<F>
where
    F: Fn(Request, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: IntoAnswer> + 'static,
{
    fn handle(
        &self,
        request: Request,
        context: Context,
    ) -> LocalBoxFuture<'static, Result<Response, Failed>> {
        (self.0)(request, context)
            .map(IntoAnswer::into_answer)
            .boxed_local()
    }
}
