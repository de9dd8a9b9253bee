//! Steps before and after the backend: one file a kind, one line here.
//!
//! A middleware has two symmetric hooks ([`Hooks`]) and no more: it sees the request on its way down
//! and the answer on its way up. It does not know that upstreams exist; one that must call out is
//! handed a [`Caller`]. Timeouts, retries and breakers are not middlewares: they wrap sending.
//!
//! A new kind is a file with its `Settings`, its type, an `impl Kind` and an `impl Hooks`, and a line
//! in the list below, which makes it a variant of [`Settings`] and of [`Middleware`]. Settings that
//! serde alone cannot check are read through a second type, by `written_as!`.

pub mod body_limit;
mod chain;
pub mod cors;
pub mod error_pages;
pub mod native;
pub mod rate_limit;
pub mod request_id;
pub mod rewrite;
pub mod set_headers;
#[cfg(test)]
mod testing;

use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::LocalBoxFuture;
use schemars::{JsonSchema, Schema, schema_for};
use serde::Deserialize;

pub use self::chain::{Chain, Down, Outcome, Up};
pub use self::native::Natives;
use crate::base::caller::Caller;
use crate::base::message::{Request, RequestHead, Response};
use crate::telemetry::decision::Decision;

/// Makes of the list of kinds what names them: settings, middlewares, building, dispatch.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident => $Type:ident,)*) => {
        /// A middleware as it is written: a map with one key, its kind.
        #[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[schemars(rename = "Middleware")]
        pub enum Settings {$(
            $(#[$doc])*
            $Type($kind::Settings),
        )*}

        impl Settings {
            /// The kind, as it is written.
            pub fn kind(&self) -> &'static str {
                match self {$( Self::$Type(_) => stringify!($kind), )*}
            }

            /// Every kind, in the order of the reference.
            pub const fn kinds() -> &'static [&'static str] {
                &[$(stringify!($kind)),*]
            }

            /// The schema of each kind's settings, with their docs, for the reference.
            pub fn schemas() -> Vec<(&'static str, Schema)> {
                vec![$((stringify!($kind), schema_for!($kind::Settings))),*]
            }

            /// Names of the path parameters that it expects of its route's template.
            pub fn params(&self) -> Vec<&str> {
                match self {$( Self::$Type(settings) => $kind::$Type::params(settings), )*}
            }

            /// True if each place that names it needs an instance of its own.
            pub fn is_per_place(&self) -> bool {
                match self {$( Self::$Type(settings) => $kind::$Type::is_per_place(settings), )*}
            }
        }

        /// A middleware ready to run; shared by all workers, unchanged for its whole life.
        ///
        /// What it counts (the buckets of a rate limit) lives inside: whoever reloads keeps the old
        /// one where the settings are equal.
        #[derive(Debug)]
        pub enum Middleware {$(
            $(#[$doc])*
            $Type($kind::$Type),
        )*}

        impl Middleware {
            /// Builds it. `natives` holds what a Rust program has registered.
            ///
            /// # Errors
            /// One sentence, for what the settings alone cannot tell: a native kind that nobody
            /// registered, or that refuses its settings.
            pub fn build(settings: &Settings, natives: &Natives) -> Result<Arc<Self>, String> {
                let built = match settings {$(
                    Settings::$Type(settings) => {
                        Self::$Type($kind::$Type::build(settings, natives)?)
                    }
                )*};
                Ok(Arc::new(built))
            }

            /// The kind, as it is written.
            pub fn kind(&self) -> &'static str {
                match self {$( Self::$Type(_) => stringify!($kind), )*}
            }

            /// What it does on the way down.
            pub fn on_request(&self, request: &mut Request, cx: &mut Context<'_>) -> Step<Request> {
                match self {$( Self::$Type(middleware) => middleware.on_request(request, cx), )*}
            }

            /// What it looks at in a request of that head, in a few words, for whoever asks why.
            pub fn about(&self, head: &RequestHead) -> Option<String> {
                match self {$( Self::$Type(middleware) => middleware.about(head), )*}
            }

            /// What it does on the way up.
            pub fn on_response(&self, response: &mut Response, cx: &mut Context<'_>) -> Step<Response> {
                match self {$( Self::$Type(middleware) => middleware.on_response(response, cx), )*}
            }
        }
    };
}

kinds! {
    /// Gives each request an id that backend, client and log see.
    request_id => RequestId,
    /// Sets, adds and removes headers of requests and answers.
    set_headers => SetHeaders,
    /// Gives the backend another path or host than the client asked for.
    rewrite => Rewrite,
    /// Lets so many requests through in so much time.
    rate_limit => RateLimit,
    /// Refuses request bodies that are too long.
    body_limit => BodyLimit,
    /// Says which other sites' scripts may use this one.
    cors => Cors,
    /// Gives error answers a body of your own.
    error_pages => ErrorPages,
    /// Runs a middleware that the program registered under a name.
    native => Native,
}

/// Kinds that the format has and this version does not build yet.
pub const PLANNED: &[&str] = &[
    "concurrency_limit",
    "compression",
    "basic_auth",
    "api_key",
    "jwt",
    "ext_authz",
    "authorize",
    "ip_filter",
    "csrf",
    "fault",
];

/// The two hooks of a middleware; one that leaves a hook out does nothing there.
pub trait Hooks: Send + Sync {
    /// Sees the request before the backend does.
    fn on_request(&self, _request: &mut Request, _cx: &mut Context<'_>) -> Step<Request> {
        Step::Next
    }

    /// Sees the answer before the client does, also one that a middleware after it has made.
    ///
    /// It does not run for an answer that its own [`Hooks::on_request`] has made.
    fn on_response(&self, _response: &mut Response, _cx: &mut Context<'_>) -> Step<Response> {
        Step::Next
    }

    /// What it looks at in a request of that head, in a few words and without secrets, where that does
    /// not show in what it changes. For `retort explain`; it is not called for requests that are
    /// served.
    fn about(&self, _head: &RequestHead) -> Option<String> {
        None
    }
}

/// How a kind of middleware is made of its settings.
trait Kind: Hooks + Sized {
    type Settings;

    fn build(settings: &Self::Settings, natives: &Natives) -> Result<Self, String>;

    /// Path parameters that the route must have.
    fn params(_settings: &Self::Settings) -> Vec<&str> {
        Vec::new()
    }

    /// True if two places that name it must not share what it counts.
    fn is_per_place(_settings: &Self::Settings) -> bool {
        false
    }
}

/// Reads `Settings` in the form of another type, which says how they are written, and checks them.
///
/// What serde's `try_from` does; but schemars takes the schema of such a type from its own fields.
macro_rules! written_as {
    ($Written:ident) => {
        impl<'de> serde::Deserialize<'de> for Settings {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let written = <$Written as serde::Deserialize>::deserialize(deserializer)?;
                Self::try_from(written).map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for Settings {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $Written::schema_name()
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $Written::json_schema(generator)
            }
        }
    };
}
use written_as;

impl Settings {
    /// A kind with nothing but defaults, for the bare word (`middlewares: [request_id]`); none if
    /// the word is no kind, or one that needs settings.
    pub fn bare(kind: &str) -> Option<Self> {
        serde_json::from_value(serde_json::json!({ kind: {} })).ok()
    }
}

/// What a middleware may use besides the message.
pub struct Context<'a> {
    /// One clock reading for the whole chain, taken anew after a wait.
    pub now: Instant,
    /// The request's record.
    pub record: &'a mut Decision,
    /// What a middleware keeps from `on_request` to `on_response`; empty costs nothing.
    pub kept: &'a mut http::Extensions,
    /// Calls out.
    pub caller: &'a Rc<dyn Caller>,
    /// What may be changed beyond the request.
    pub effects: Effects,
}

/// What a middleware may change beyond the request that it sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Effects {
    /// Whatever it is there for.
    #[default]
    Real,
    /// Nothing: somebody asks what would happen. What is counted is looked at and not counted.
    None,
}

/// What a hook decides about `M`, a [`Request`] or a [`Response`].
pub enum Step<M> {
    /// Go on.
    Next,
    /// Answer with this: on the way down the backend and the rest of the chain are not asked, on the
    /// way up it takes the place of the answer that came.
    Answer(Box<Response>),
    /// Wait for something, then decide; the one step that allocates.
    Wait(LocalBoxFuture<'static, Resume<M>>),
}

/// The decision after a wait.
pub type Resume<M> = Box<dyn FnOnce(&mut M, &mut Context<'_>) -> Step<M>>;

impl<M> Step<M> {
    /// Answers with `response`.
    pub fn answer(response: Response) -> Self {
        Self::Answer(Box::new(response))
    }

    /// Waits for `future`, which yields what then decides.
    ///
    /// # Cancel safety
    /// The future is dropped when the client leaves.
    pub fn wait<F, R>(future: F) -> Self
    where
        F: Future<Output = R> + 'static,
        R: FnOnce(&mut M, &mut Context<'_>) -> Self + 'static,
    {
        Self::Wait(Box::pin(async move {
            let resume: Resume<M> = Box::new(future.await);
            resume
        }))
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("record", self.record)
            .finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for Step<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Next => f.write_str("Next"),
            Self::Answer(response) => write!(f, "Answer({})", response.head.status),
            Self::Wait(_) => f.write_str("Wait"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_written_as_its_file_is_named() {
        let schema = serde_json::to_value(schema_for!(Settings)).expect("a schema");
        let written: Vec<&str> = schema["oneOf"]
            .as_array()
            .expect("one variant a kind")
            .iter()
            .filter_map(|variant| variant["required"][0].as_str())
            .collect();
        assert_eq!(written, Settings::kinds());
    }

    #[test]
    fn a_bare_word_is_a_kind_that_needs_no_settings() {
        assert_eq!(
            Settings::bare("request_id").map(|s| s.kind()),
            Some("request_id")
        );
        assert_eq!(Settings::bare("rate_limit"), None);
        assert_eq!(Settings::bare("set_headers"), None);
        assert_eq!(Settings::bare("nonsense"), None);
    }

    #[test]
    fn every_kind_and_every_setting_has_docs() {
        for (kind, schema) in Settings::schemas() {
            let schema = serde_json::to_value(schema).expect("a schema");
            assert!(schema["description"].is_string(), "{kind}");
            let fields = schema["properties"].as_object().expect("a map");
            for (field, schema) in fields {
                let text = schema["description"].as_str().unwrap_or_default();
                assert!(text.len() > 20, "{kind}.{field} has no docs: {schema}");
            }
        }
    }
}
