//! Why a request at an upstream has no answer.
//!
//! A [`Failure`] says what happened in words for the operator, and whether the endpoint can have
//! begun to work on the request: only what cannot have run may be sent again without asking.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::base::body::BodyError;
use crate::base::message::Request;

/// A request that has no answer.
#[derive(Debug)]
pub struct Failure {
    /// The kind of failure.
    pub cause: Cause,
    /// The number of the endpoint that was tried; none if there was nobody to try.
    pub endpoint: Option<u32>,
    /// Its address, where it is one of TCP.
    pub address: Option<SocketAddr>,
    /// One sentence for the operator; names the endpoint.
    pub detail: String,
    /// True if the endpoint cannot have begun to work on the request: no connection, none of its bytes
    /// written, or the endpoint's word for it.
    pub unprocessed: bool,
    /// True if the connection had carried other requests before: it may have been about to be closed.
    pub reused: bool,
    /// A copy of the request, where it may be repeated and its connection had been idle.
    pub copy: Option<Request>,
    /// The request, where not a byte of it was sent and its body is untouched. It can be gone all the
    /// same where the request is unprocessed: HTTP/2 refuses streams whose body is already on its way.
    pub request: Option<Request>,
}

/// The kinds of failure.
#[derive(Debug, Clone)]
pub enum Cause {
    /// No endpoint may take a request.
    NoEndpoint,
    /// The connection could not be made.
    Connect(io::ErrorKind),
    /// The connection was not made in time.
    ConnectTimeout,
    /// Every connection that `limits.connections` allows was busy, for as long as a request waits.
    Overflow,
    /// The endpoint said that it did not begin to work on the request (`REFUSED_STREAM`, or a
    /// `GOAWAY` that left it out).
    Refused,
    /// The endpoint closed the connection or reset the stream before the head of its answer.
    Closed,
    /// What the endpoint sent is not the protocol, or breaks a limit.
    Protocol,
    /// The body of the request failed: too large, the client left, its source broke.
    RequestBody(BodyError),
}

impl Failure {
    /// A request that was sent to nobody.
    pub(super) fn before(cause: Cause, detail: String) -> Box<Self> {
        Box::new(Self {
            cause,
            endpoint: None,
            address: None,
            detail,
            unprocessed: true,
            reused: false,
            copy: None,
            request: None,
        })
    }

    /// The same failure with the request in it, which then was not sent.
    #[must_use]
    pub(super) fn with_request(mut self: Box<Self>, request: Request) -> Box<Self> {
        self.unprocessed = true;
        self.request = Some(request);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::RequestBody(error) => Some(error),
            _ => None,
        }
    }
}

/// What an I/O error means, in words that go before the endpoint's address.
pub(super) fn words(error: &io::Error) -> String {
    use io::ErrorKind as Kind;
    let known = match error.kind() {
        Kind::ConnectionRefused => "connection refused by",
        Kind::ConnectionReset => "connection reset by",
        Kind::ConnectionAborted => "connection aborted by",
        Kind::BrokenPipe => "connection closed by",
        Kind::NotFound => "there is no socket at",
        Kind::PermissionDenied => "no permission to connect to",
        Kind::HostUnreachable => "no route to the host of",
        Kind::NetworkUnreachable => "no route to the network of",
        Kind::TimedOut => "no answer from the host of",
        Kind::AddrNotAvailable => "no local port is free for a connection to",
        _ => return format!("{error}: connection with"),
    };
    known.to_owned()
}
