//! Steps before and after the backend: one file a kind, one line here.
//!
//! A middleware does not know that upstreams exist: one that must call out uses [`Context::caller`].

use std::rc::Rc;
use std::time::Instant;

use futures_util::future::LocalBoxFuture;

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
