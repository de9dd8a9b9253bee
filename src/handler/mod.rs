//! Handlers answer inside the process: one file a kind, one line here.
//!
//! A handler takes a request and what it may use ([`Context`]), and answers at once or later
//! ([`Reply`]). It never blocks its thread: that is what [`Context::blocking`] is for. It may be
//! dropped at any await, when the client leaves or a deadline passes; a panic ends its request
//! alone.

pub mod blocking;
pub mod echo;
pub mod failed;
pub mod fan_out;
pub mod files;
pub mod native;
pub mod redirect;
pub mod registry;
pub mod respond;
pub mod service;
pub mod status;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use http::Method;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::caller::{CallError, Caller};
use crate::base::clock;
use crate::base::message::{Request, Response};
use crate::base::problem::{Problem, Spanned};
use crate::handler::blocking::{Blocking, BlockingError};

pub use failed::Failed;
pub use registry::{Answering, Handle, IntoAnswer, Registry};

/// Makes the family of its kinds: the enum of settings, and the one of what they build.
macro_rules! kinds {
    ($($(#[$doc:meta])* $module:ident::$Kind:ident,)*) => {
        /// A handler: it answers inside the process.
        #[derive(Debug, Clone, Deserialize, JsonSchema)]
        #[schemars(rename = "Handler")]
        #[serde(rename_all = "snake_case")]
        pub enum Settings {
            $($(#[$doc])* $Kind($module::Settings),)*
        }

        impl Settings {
            /// The kinds that can be written, in the order of the documentation.
            pub const fn kinds() -> &'static [&'static str] {
                &[$(stringify!($module)),*]
            }

            /// The kind, as it is written.
            pub const fn kind(&self) -> &'static str {
                match self { $(Self::$Kind(_) => stringify!($module)),* }
            }

            /// What metrics and logs call it where it has no name of its own.
            pub fn label(&self) -> &str {
                let label = match self { $(Self::$Kind(settings) => $module::$Kind::label(settings)),* };
                label.unwrap_or(self.kind())
            }

            /// The upstreams that it calls by name.
            pub fn upstreams(&self) -> Vec<&Spanned<String>> {
                match self { $(Self::$Kind(settings) => $module::$Kind::upstreams(settings)),* }
            }

            /// Whether it may call upstreams that it does not name here.
            pub const fn may_call_any(&self) -> bool {
                match self { $(Self::$Kind(_) => $module::$Kind::MAY_CALL_ANY),* }
            }

            fn build(&self, registry: &Registry) -> Result<Built, Problem> {
                match self {
                    $(Self::$Kind(settings) => {
                        $module::$Kind::build(settings, registry).map(Built::$Kind)
                    })*
                }
            }
        }

        #[derive(Debug)]
        enum Built {
            $($Kind($module::$Kind),)*
        }

        impl Built {
            fn reply(&self, request: Request, context: Context) -> Reply {
                match self { $(Self::$Kind(kind) => kind.reply(request, context)),* }
            }
        }
    };
}

kinds! {
    /// Answers with a fixed status, headers and body; the body may be a template.
    respond::Respond,
    /// Sends the client to another place.
    redirect::Redirect,
    /// Answers with what arrived, as JSON or as it came.
    echo::Echo,
    /// Serves files from a directory.
    files::Files,
    /// Calls several upstreams at once and merges their JSON answers.
    fan_out::FanOut,
    /// A handler that the program registered under a name.
    native::Native,
}

/// What each kind gives to the family.
trait Kind: Sized {
    /// How it is written.
    type Settings;

    /// Whether it may call upstreams that its settings do not name.
    const MAY_CALL_ANY: bool = false;

    /// Checks what serde cannot, and prepares all that requests have in common.
    fn build(settings: &Self::Settings, registry: &Registry) -> Result<Self, Problem>;

    /// Answers.
    fn reply(&self, request: Request, context: Context) -> Reply;

    /// What it is called, if more is known than its kind.
    fn label(_: &Self::Settings) -> Option<&str> {
        None
    }

    /// The upstreams that it calls by name.
    fn upstreams(_: &Self::Settings) -> Vec<&Spanned<String>> {
        Vec::new()
    }
}

/// A handler, ready to answer; shared by all workers.
#[derive(Debug)]
pub struct Handler {
    name: Box<str>,
    kind: &'static str,
    inner: Built,
    /// Whether a panic was logged as an error already.
    has_panicked: AtomicBool,
}

/// What a handler may use besides the request.
#[derive(Clone)]
pub struct Context {
    /// When the request has to be answered; the gateway drops the handler's future by then.
    pub deadline: Option<Instant>,
    /// Calls upstreams by name, with the connections, limits and health that routes use.
    pub caller: Rc<dyn Caller>,
    /// A bounded pool of threads for work that blocks.
    pub blocking: Blocking,
}

/// A handler's answer.
pub enum Reply {
    /// Here it is: nothing was waited for, nothing was boxed.
    Now(Response),
    /// It will come. Dropping the future cancels the handler.
    Later(LocalBoxFuture<'static, Result<Response, Failed>>),
    /// There is none.
    Failed(Failed),
}

impl Handler {
    /// Builds the handler that `settings` describe; `name` is for logs and metrics.
    ///
    /// # Errors
    /// When settings contradict each other or name something that `registry` does not have. The
    /// problem has a position only where it is more exact than that of the settings as a whole.
    pub fn build(
        name: &str,
        settings: &Settings,
        registry: &Registry,
    ) -> Result<Arc<Self>, Problem> {
        Ok(Arc::new(Self {
            name: name.into(),
            kind: settings.kind(),
            inner: settings.build(registry)?,
            has_panicked: AtomicBool::new(false),
        }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True for one that a Rust program has registered: it may do what cannot be undone.
    pub fn is_native(&self) -> bool {
        matches!(self.inner, Built::Native(_))
    }

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Answers, and turns a panic into a failure; what answers at once has done so when this returns.
    ///
    /// # Cancel safety
    /// Dropping the future drops the handler's work; only blocking work that has begun goes on to
    /// its end, and keeps its place in the pool until then.
    pub fn run(
        &self,
        request: Request,
        context: Context,
    ) -> impl Future<Output = Result<Response, Failed>> {
        // Nothing of a handler is looked at after its panic but what it shares with other
        // requests, and that is its own to keep sound (a poisoned lock, say).
        let reply = catch_unwind(AssertUnwindSafe(|| self.inner.reply(request, context)));
        async move {
            let outcome = match reply {
                Ok(Reply::Now(response)) => return Ok(response),
                Ok(Reply::Failed(failed)) => return Err(failed),
                Ok(Reply::Later(future)) => AssertUnwindSafe(future).catch_unwind().await,
                Err(panic) => Err(panic),
            };
            outcome.unwrap_or_else(|panic| Err(self.panicked(&*panic)))
        }
    }

    fn panicked(&self, panic: &(dyn Any + Send)) -> Failed {
        let message = panic_message(panic);
        let (handler, kind) = (&*self.name, self.kind);
        if self.has_panicked.swap(true, Ordering::Relaxed) {
            tracing::debug!(handler, kind, message, "the handler panicked again");
        } else {
            tracing::error!(
                handler,
                kind,
                message,
                "the handler panicked and answered 500; more of its panics only count in metrics",
            );
        }
        Failed::new(format!("the handler panicked: {message}"))
    }
}

/// The message of a panic, where it has one.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&'static str>().copied())
        .unwrap_or("no message")
}

impl Context {
    /// Runs work that blocks (a file, a lock, a long computation) on the bounded pool.
    ///
    /// # Errors
    /// See [`BlockingError`]: above all when the pool and its queue are full.
    ///
    /// # Cancel safety
    /// See [`Blocking::run`].
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingError> {
        self.blocking.run(work).await
    }

    /// Asks an upstream for a path: `GET`, without headers of the request that is being answered.
    ///
    /// # Errors
    /// As [`Context::call`]; also when `path` is not what can stand in a request.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub async fn get(&self, upstream: &str, path: &str) -> Result<Response, CallError> {
        let target = path.parse().map_err(|_| CallError::Failed {
            upstream: upstream.to_owned(),
            detail: format!("it cannot be asked for `{path}`, which is no path"),
        })?;
        self.call(upstream, Request::new(Method::GET, target, ()))
            .await
    }

    /// How long there is left until the deadline; none without one.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(clock::now()))
    }

    /// Sends a request to an upstream, by its name in the configuration.
    ///
    /// Several at once are awaited together, by [`tokio::join!`] and its like. A call ends after a
    /// minute; [`tokio::time::timeout`] sets it less.
    ///
    /// # Errors
    /// When there is no such upstream, or no answer. An answer with an error's status is an answer.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub async fn call(&self, upstream: &str, request: Request) -> Result<Response, CallError> {
        self.caller.call(upstream, request).await
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl Reply {
    /// An answer that will come.
    pub fn later(future: impl Future<Output = Result<Response, Failed>> + 'static) -> Self {
        Self::Later(Box::pin(future))
    }
}

impl From<Result<Response, Failed>> for Reply {
    fn from(result: Result<Response, Failed>) -> Self {
        match result {
            Ok(response) => Self::Now(response),
            Err(failed) => Self::Failed(failed),
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(response) => write!(f, "Now({response:?})"),
            Self::Later(_) => f.write_str("Later(…)"),
            Self::Failed(failed) => write!(f, "Failed({failed:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use serde_json::json;

    use crate::handler::testing::{context, get};
    use crate::telemetry::decision::Flag;

    fn handler(settings: serde_json::Value, registry: &Registry) -> Arc<Handler> {
        let settings: Settings = serde_json::from_value(settings).expect("valid settings");
        Handler::build("test", &settings, registry).expect("a handler")
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_of_this_request_alone() {
        let registry = Registry::new()
            .handle_fn("at_once", |_, _| -> std::future::Ready<Response> {
                panic!("before the future")
            })
            .handle_fn("later", |request: Request, _| async move {
                tokio::task::yield_now().await;
                assert!(request.head.path() == "/good", "in the future");
                Response::status(StatusCode::OK)
            });
        let at_once = handler(json!({"native": {"name": "at_once"}}), &registry);
        let failed = at_once.run(get("/"), context()).await.expect_err("panic");
        assert_eq!(failed.detail, "the handler panicked: before the future");
        assert_eq!(failed.flag, Flag::HandlerFailed);
        assert_eq!(failed.into_response().head.status, 500);

        let later = handler(json!({"native": {"name": "later"}}), &registry);
        let failed = later.run(get("/"), context()).await.expect_err("panic");
        assert_eq!(failed.detail, "the handler panicked: in the future");
        assert!(later.run(get("/good"), context()).await.is_ok());
    }

    #[test]
    fn kinds_are_written_as_they_are_called() {
        for kind in Settings::kinds() {
            let error = serde_json::from_value::<Settings>(json!({*kind: 5})).expect_err("no map");
            assert!(!error.to_string().contains("unknown variant"), "{error}");
        }
        let error = serde_json::from_value::<Settings>(json!({"file": {}})).expect_err("unknown");
        assert!(
            error.to_string().contains("unknown variant `file`"),
            "{error}"
        );
        let settings: Settings = serde_json::from_value(json!({"echo": {}})).expect("valid");
        assert_eq!(settings.kind(), "echo");
    }

    #[test]
    fn the_schema_documents_every_key() {
        fn undocumented(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
            let empty = serde_json::Map::new();
            let properties = schema["properties"].as_object().unwrap_or(&empty);
            for (key, property) in properties {
                if property["description"].as_str().is_none() {
                    found.push(format!("{path}.{key}"));
                }
                undocumented(&format!("{path}.{key}"), property, found);
            }
        }
        let schema = serde_json::to_value(schemars::schema_for!(Settings)).expect("JSON");
        let mut found = Vec::new();
        for (name, definition) in schema["$defs"].as_object().expect("definitions") {
            undocumented(name, definition, &mut found);
        }
        assert!(found.is_empty(), "without a description: {found:?}");
    }
}

#[cfg(test)]
mod testing;
