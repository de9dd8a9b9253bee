//! Steps before and after the backend: one file a kind, one line here.
//!
//! A middleware does not know that upstreams exist: one that must call out uses [`Context::caller`].

use std::rc::Rc;
use std::time::Instant;

use futures_util::future::LocalBoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::caller::Caller;
use crate::base::message::{Request, Response};
use crate::telemetry::decision::Decision;

/// What a middleware may use besides the message.
pub struct Context<'a> {
    /// One clock reading for the whole chain.
    pub now: Instant,
    /// The request's record.
    pub record: &'a mut Decision,
    /// What a middleware keeps from `on_request` to `on_response`; empty costs nothing.
    pub kept: &'a mut http::Extensions,
    /// Calls out.
    pub caller: &'a Rc<dyn Caller>,
}

/// What a hook decides.
pub enum Step {
    /// Go on.
    Next,
    /// Answer now: the backend and the rest of the chain are not asked.
    Answer(Box<Response>),
    /// Wait for something, then decide; the one step that allocates.
    Wait(LocalBoxFuture<'static, Resume>),
}

/// The decision after a wait.
pub type Resume = Box<dyn FnOnce(&mut Request, &mut Context<'_>) -> Step>;

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

/// A middleware as it is written.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Middleware")]
pub enum Settings {
    /// Gives requests an id.
    RequestId(RequestId),
    /// Limits the rate.
    RateLimit(RateLimit),
}

/// Gives requests an id.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestId {
    /// The header.
    pub header: Option<String>,
}

/// Limits the rate.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// How many requests.
    pub requests: u32,
    /// In how long.
    pub per: crate::base::values::Period,
}

impl Settings {
    /// The kind, as it is written.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RequestId(_) => "request_id",
            Self::RateLimit(_) => "rate_limit",
        }
    }

    /// Every kind.
    pub const fn kinds() -> &'static [&'static str] {
        &["request_id", "rate_limit"]
    }
}
