//! A request that failed, and what its client is told.

use std::borrow::Cow;

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::base::message::Response;
use crate::telemetry::decision::Flag;

/// Why there is no answer but ours.
#[derive(Debug)]
pub(crate) struct Failure {
    pub status: StatusCode,
    pub flag: Flag,
    /// For the operator: names endpoints and limits.
    pub detail: Cow<'static, str>,
    /// A header that belongs to the status.
    pub header: Option<(HeaderName, HeaderValue)>,
}

impl Failure {
    pub(crate) fn new(
        status: StatusCode,
        flag: Flag,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            flag,
            detail: detail.into(),
            header: None,
        }
    }

    pub(crate) fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Flag::BadRequest, detail)
    }

    pub(crate) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, Flag::NoRoute, Flag::NoRoute.text())
    }

    pub(crate) fn method_not_allowed(method: &Method, allow: HeaderValue) -> Self {
        let mut failure = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            Flag::MethodNotAllowed,
            format!("the path is routed, but not for {method}"),
        );
        failure.header = Some((header::ALLOW, allow));
        failure
    }

    /// The status that a flag means where nothing else was said.
    pub(crate) fn of(flag: Flag, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(status_of(flag), flag, detail)
    }

    /// The answer in HTTP's shape.
    pub(crate) fn response(&self) -> Response {
        // What is wrong with a request its sender may know; what is wrong behind us it may not.
        let why: &str = match self.flag {
            Flag::BadRequest => &self.detail,
            flag => flag.text(),
        };
        let mut response = Response::text(self.status, format!("{}: {why}\n", self.status));
        if let Some((name, value)) = &self.header {
            response.head.headers.set(name.clone(), value.clone());
        }
        response
    }
}

/// Bad or broken upstream 502, nothing available or overload 503, deadline 504.
fn status_of(flag: Flag) -> StatusCode {
    match flag {
        Flag::NoRoute => StatusCode::NOT_FOUND,
        Flag::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Flag::NoHealthyEndpoint | Flag::ConnectFailed | Flag::Overflow | Flag::Draining => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Flag::UpstreamClosed | Flag::UpstreamProtocol | Flag::RetriesExhausted => {
            StatusCode::BAD_GATEWAY
        }
        Flag::UpstreamTimeout | Flag::Deadline | Flag::HandlerTimeout => {
            StatusCode::GATEWAY_TIMEOUT
        }
        Flag::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Flag::Unauthenticated => StatusCode::UNAUTHORIZED,
        Flag::Unauthorized => StatusCode::FORBIDDEN,
        Flag::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Flag::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Flag::BadRequest => StatusCode::BAD_REQUEST,
        Flag::Loop => StatusCode::LOOP_DETECTED,
        Flag::HandlerFailed | Flag::FaultInjected => StatusCode::INTERNAL_SERVER_ERROR,
        Flag::ClientLeft => client_left(),
    }
}

/// 499, as nginx has it: nobody is there to see it, but logs and metrics are.
pub(crate) fn client_left() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

/// gRPC's status for an answer of our own (<https://grpc.io/docs/guides/status-codes/>).
pub(crate) fn grpc_status(flag: Option<Flag>, status: StatusCode) -> u8 {
    match (flag, status.as_u16()) {
        // Retries are over with 504 when the last attempt took too long.
        (Some(Flag::Deadline | Flag::UpstreamTimeout | Flag::HandlerTimeout), _)
        | (Some(Flag::RetriesExhausted), 504) => 4,
        (Some(Flag::RateLimited | Flag::BodyTooLarge | Flag::HeadersTooLarge), _) => 8,
        (Some(Flag::ClientLeft), _) => 1,
        (_, 401) => 16,
        (_, 403) => 7,
        (_, 404 | 405) => 12,
        (_, 429 | 502..=504) => 14,
        (_, 400..=599) => 13,
        _ => 2,
    }
}
