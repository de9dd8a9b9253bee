//! A handler that has no proper answer: what operators read, and what the client gets.
//!
//! What handlers meet most becomes a failure by `?`, with the status and the flag that it means.

use std::borrow::Cow;
use std::fmt;

use http::StatusCode;

use super::blocking::BlockingError;
use crate::base::body::BodyError;
use crate::base::caller::CallError;
use crate::base::message::{ParamError, Response};
use crate::telemetry::decision::Flag;

/// A handler that has no proper answer.
#[derive(Debug)]
pub struct Failed {
    /// What the record of the request says.
    pub flag: Flag,
    /// One sentence for operators; clients do not see it.
    pub detail: Cow<'static, str>,
    /// What the client gets; a plain 500 if there is nothing better.
    pub answer: Option<Box<Response>>,
}

impl Failed {
    /// A handler failed, flag HE; the client gets a plain 500.
    pub fn new(detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            flag: Flag::HandlerFailed,
            detail: detail.into(),
            answer: None,
        }
    }

    /// A handler failed by an error of any kind, flag HE; the client gets a plain 500.
    ///
    /// Meant for `.map_err(Failed::because)?`. The alternate form of the error is taken, in which
    /// `anyhow` tells the causes, too.
    pub fn because(error: impl fmt::Display) -> Self {
        Self::new(format!("{error:#}"))
    }

    /// The request is not one that can be answered: 400, flag BR. The client is told why.
    pub fn bad_request(why: impl Into<Cow<'static, str>>) -> Self {
        Self::told(Flag::BadRequest, StatusCode::BAD_REQUEST, why.into())
    }

    /// The request's body could not be read: too long (413, flag BTL) or broken off (400, flag BR).
    ///
    /// Meant for `request.body.collect(…).await.map_err(Failed::reading)?`.
    #[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
    pub fn reading(error: BodyError) -> Self {
        let (flag, status) = match error {
            BodyError::TooLarge => (Flag::BodyTooLarge, StatusCode::PAYLOAD_TOO_LARGE),
            BodyError::Idle => (Flag::BadRequest, StatusCode::REQUEST_TIMEOUT),
            BodyError::Peer(_) | BodyError::Source(_) => {
                (Flag::BadRequest, StatusCode::BAD_REQUEST)
            }
        };
        Self::told(flag, status, error.to_string().into())
    }

    /// The same failure under another flag.
    #[must_use]
    pub fn flag(mut self, flag: Flag) -> Self {
        self.flag = flag;
        self
    }

    /// The same failure with an answer of its own.
    #[must_use]
    pub fn answer(mut self, response: Response) -> Self {
        self.answer = Some(Box::new(response));
        self
    }

    /// What the client gets.
    pub fn into_response(self) -> Response {
        self.answer.map_or_else(
            || Response::text(StatusCode::INTERNAL_SERVER_ERROR, "the handler failed\n"),
            |response| *response,
        )
    }

    /// A failure whose client is told the same as the operator.
    fn told(flag: Flag, status: StatusCode, why: Cow<'static, str>) -> Self {
        let text = format!("{status}: {why}\n");
        Self::new(why)
            .flag(flag)
            .answer(Response::text(status, text))
    }

    /// A failure whose client is told no more than its kind.
    fn untold(flag: Flag, status: StatusCode, detail: String) -> Self {
        let text = format!("{status}: {}\n", flag.text());
        Self::new(detail)
            .flag(flag)
            .answer(Response::text(status, text))
    }
}

/// A call that had no answer: 504 in time's case, else 502; an upstream that does not exist is the
/// handler's own mistake.
impl From<CallError> for Failed {
    fn from(error: CallError) -> Self {
        let detail = error.to_string();
        match error {
            CallError::Unknown(_) => Self::new(detail),
            CallError::Timeout(_) => {
                Self::untold(Flag::UpstreamTimeout, StatusCode::GATEWAY_TIMEOUT, detail)
            }
            CallError::Failed { .. } => {
                Self::untold(Flag::ConnectFailed, StatusCode::BAD_GATEWAY, detail)
            }
        }
    }
}

/// A full pool is overload: 503, flag UO; a panic is the handler's failure.
impl From<BlockingError> for Failed {
    fn from(error: BlockingError) -> Self {
        let detail = error.to_string();
        match error {
            BlockingError::Panicked(_) => Self::new(detail),
            BlockingError::Busy => {
                Self::untold(Flag::Overflow, StatusCode::SERVICE_UNAVAILABLE, detail)
            }
            BlockingError::Stopped => {
                Self::untold(Flag::Draining, StatusCode::SERVICE_UNAVAILABLE, detail)
            }
        }
    }
}

/// A value in the path that is not what the handler can use: 400. A name that the route's template
/// does not have is the handler's own mistake.
impl From<ParamError> for Failed {
    fn from(error: ParamError) -> Self {
        match error {
            ParamError::Missing(_) => Self::new(error.to_string()),
            ParamError::Wrong { .. } => Self::bad_request(error.to_string()),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Failed {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::testing::text;

    #[tokio::test]
    async fn what_handlers_meet_becomes_the_status_that_it_means() {
        let check = async |failed: Failed, flag: &str, status: u16, words: &str| {
            assert_eq!(failed.flag.code(), flag, "{failed}");
            let response = failed.into_response();
            assert_eq!(response.head.status, status);
            let told = text(response).await;
            assert!(told.contains(words), "{told}");
        };
        let late = CallError::Timeout("shop".into());
        check(late.into(), "UT", 504, "504 Gateway Timeout: ").await;
        let broken = CallError::Failed {
            upstream: "shop".into(),
            detail: "10.0.0.7 refused".into(),
        };
        check(broken.into(), "UF", 502, "502 Bad Gateway: ").await;
        let unknown = CallError::Unknown("shop".into());
        check(unknown.into(), "HE", 500, "the handler failed").await;
        check(BlockingError::Busy.into(), "UO", 503, "503 ").await;
        let panicked = BlockingError::Panicked("secret".into());
        check(panicked.into(), "HE", 500, "the handler failed").await;
        let wrong = ParamError::Wrong {
            name: "id".into(),
            value: "x".into(),
        };
        check(wrong.into(), "BR", 400, "`id` cannot be `x`").await;
        let missing = ParamError::Missing("id".into());
        check(missing.into(), "HE", 500, "the handler failed").await;
        check(Failed::bad_request("no shoes"), "BR", 400, "no shoes").await;
        check(Failed::reading(BodyError::TooLarge), "BTL", 413, "413 ").await;
    }
}
