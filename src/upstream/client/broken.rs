//! What hyper's errors mean: whose fault, and whether the request can have run.

use std::error::Error;

use h2::Reason;

use crate::base::body::BodyError;
use crate::upstream::client::Site;
use crate::upstream::failure::{Cause, Failure, words};

impl Site {
    /// Explains an error of hyper's that came in the place of an answer.
    pub(super) fn explain(&self, error: &hyper::Error) -> Box<Failure> {
        let (cause, detail) = explain(error, self.label());
        self.failure(cause, detail)
    }

    /// A failure that the endpoint's answer causes.
    pub(super) fn nonsense(&self, what: &str) -> Box<Failure> {
        let detail = format!("{} answered with {what}", self.label());
        self.failure(Cause::Protocol, detail)
    }
}

pub(in crate::upstream) fn explain(error: &hyper::Error, label: &str) -> (Cause, String) {
    if let Some(known) = find(error).map(|source| by_source(&source, label)) {
        return known;
    }
    if error.is_body_write_aborted() {
        let text = "it is shorter than its content-length".to_owned();
        return request_body(BodyError::Source(text));
    }
    if error.is_parse_version_h2() {
        let detail = format!("{label} speaks HTTP/2: set `protocol: http2`");
        return (Cause::Protocol, detail);
    }
    if error.is_parse_too_large() {
        let detail = format!(
            "the head of the answer of {label} is over {} KiB or {} fields",
            super::h1::HEAD_BYTES >> 10,
            super::h1::HEAD_FIELDS
        );
        return (Cause::Protocol, detail);
    }
    if error.is_parse() {
        let detail = format!("{label} answered with what is not HTTP/1.1: {error}");
        return (Cause::Protocol, detail);
    }
    if error.is_incomplete_message() {
        let detail =
            format!("{label} closed the connection before the head of its answer was complete");
        return (Cause::Closed, detail);
    }
    (Cause::Closed, format!("connection with {label}: {error}"))
}

/// A cause that says more than hyper's own error.
enum Source<'a> {
    Body(&'a BodyError),
    Http2(&'a h2::Error),
    Io(&'a std::io::Error),
}

fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<Source<'a>> {
    let mut next = error.source();
    while let Some(source) = next {
        if let Some(body) = source.downcast_ref() {
            return Some(Source::Body(body));
        }
        if let Some(http2) = source.downcast_ref::<h2::Error>() {
            return Some(http2.get_io().map_or(Source::Http2(http2), Source::Io));
        }
        if let Some(io) = source.downcast_ref() {
            return Some(Source::Io(io));
        }
        next = source.source();
    }
    None
}

fn by_source(source: &Source<'_>, label: &str) -> (Cause, String) {
    match source {
        Source::Body(error) => request_body((*error).clone()),
        Source::Http2(error) => http2(error, label),
        Source::Io(error) => {
            let detail = format!("{} {label} before the head of its answer", words(error));
            (Cause::Closed, detail)
        }
    }
}

fn request_body(error: BodyError) -> (Cause, String) {
    let detail = format!("the body of the request failed: {error}");
    (Cause::RequestBody(error), detail)
}

fn http2(error: &h2::Error, label: &str) -> (Cause, String) {
    let reason = error.reason().unwrap_or(Reason::INTERNAL_ERROR);
    let name = reason.description();
    match (error.is_reset(), error.is_remote()) {
        (true, true) => match reason {
            Reason::REFUSED_STREAM => (
                Cause::Refused,
                format!("{label} refused the stream before working on it"),
            ),
            Reason::HTTP_1_1_REQUIRED => (
                Cause::Protocol,
                format!("{label} wants HTTP/1.1 for this request: set `protocol: http1`"),
            ),
            _ => (Cause::Closed, format!("{label} reset the stream: {name}")),
        },
        // Streams that a GOAWAY includes never see it as their error (RFC 9113, 6.8).
        (false, true) if error.is_go_away() => (
            Cause::Refused,
            format!("{label} is closing the connection and left this stream out: {name}"),
        ),
        (_, false) if error.is_library() => (
            Cause::Protocol,
            format!("{label} broke the rules of HTTP/2, if it speaks it at all: {name}"),
        ),
        // We ourselves reset the stream, which hyper does when the body that it reads fails.
        (true, false) => request_body(BodyError::Peer("it was not sent to its end".into())),
        _ => (Cause::Closed, format!("connection with {label}: {error}")),
    }
}
