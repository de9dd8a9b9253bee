//! Answers to bytes that never became a request.

use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::proxy;
use crate::server::connection::Terms;
use crate::server::framing::Violation;
use crate::server::stream::Stream;
use crate::telemetry::decision::Flag;

/// What a client is told, and why.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    flag: Flag,
    detail: &'static str,
}

impl Refusal {
    pub(crate) fn of(violation: Violation) -> Self {
        let (status, flag, detail) = match violation {
            Violation::Malformed(detail) => (StatusCode::BAD_REQUEST, Flag::BadRequest, detail),
            Violation::UnknownCoding => (
                StatusCode::NOT_IMPLEMENTED,
                Flag::BadRequest,
                "the only transfer coding that is served is chunked",
            ),
            Violation::TargetTooLong => (
                StatusCode::URI_TOO_LONG,
                Flag::HeadersTooLarge,
                "the request line is longer than the listener's header_bytes",
            ),
            Violation::HeadTooLarge(detail) => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Flag::HeadersTooLarge,
                detail,
            ),
        };
        Self {
            status,
            flag,
            detail,
        }
    }

    pub(crate) fn slow_head() -> Self {
        Self {
            status: StatusCode::REQUEST_TIMEOUT,
            flag: Flag::BadRequest,
            detail: "the request's head did not arrive within the listener's header_timeout",
        }
    }

    pub(crate) fn wrong_protocol() -> Self {
        Self {
            status: StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            flag: Flag::BadRequest,
            detail: "the listener does not speak this version of HTTP",
        }
    }

    /// A head that the guard let pass and the library did not; it has answered 400 or 431 itself.
    pub(crate) fn unparsable(error: &hyper::Error) -> Self {
        if error.is_parse_too_large() {
            Self::of(Violation::HeadTooLarge("the head is too large"))
        } else {
            Self::of(Violation::Malformed("the head is not valid HTTP/1.1"))
        }
    }
}

/// Writes the refusal and closes; what the client still sends is read and forgotten for a moment,
/// since closing over unread bytes would reset the connection before the answer is read.
pub(crate) async fn write(terms: &Terms, mut stream: Stream, refusal: &Refusal) {
    record(terms, refusal);
    let body = format!("{}: {}\n", refusal.status, refusal.detail);
    let answer = format!(
        "HTTP/1.1 {}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        refusal.status,
        body.len(),
    );
    let say = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        linger(&mut stream).await
    };
    if !matches!(tokio::time::timeout(PATIENCE, say).await, Ok(Ok(()))) {
        tracing::debug!("a refused client did not wait for its answer");
    }
}

const PATIENCE: Duration = Duration::from_secs(1);

async fn linger(stream: &mut Stream) -> std::io::Result<()> {
    let mut forgotten = [0; 512];
    while stream.read(&mut forgotten).await? > 0 {}
    Ok(())
}

/// Counts and logs a request that had no head to speak of.
pub(crate) fn record(terms: &Terms, refusal: &Refusal) {
    proxy::record_refused(
        &terms.local,
        &terms.origin,
        refusal.status,
        refusal.flag,
        refusal.detail,
    );
}
