//! How a middleware or a handler calls out, without knowing that upstreams exist.

use futures_util::future::LocalBoxFuture;

use crate::base::message::{Request, Response};

/// Sends a request of our own to an upstream.
///
/// The real one shares connections, limits and health with client traffic; a dry one only notes
/// whom it would have asked.
pub trait Caller {
    /// Sends `request` to the upstream of that name.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    fn call(
        &self,
        upstream: &str,
        request: Request,
    ) -> LocalBoxFuture<'static, Result<Response, CallError>>;
}

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The configuration has no upstream of that name.
    #[error("there is no upstream `{0}`")]
    Unknown(String),
    /// Nothing came in time.
    #[error("upstream `{0}` did not answer in time")]
    Timeout(String),
    /// Anything else: no endpoint, refused, broken off.
    #[error("upstream `{upstream}` failed: {detail}")]
    Failed {
        /// Whom we called.
        upstream: String,
        /// What went wrong.
        detail: String,
    },
}
