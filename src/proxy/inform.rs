//! Informational responses (1xx) on their way from an upstream to the client, and the body that waits
//! for one of them.

use std::sync::Mutex;
use std::time::Duration;

use http::{HeaderMap, StatusCode, Version, header};

use crate::base::continuation::{self, Permit};
use crate::base::message::Request;
use crate::proxy::context::Exchange;
use crate::upstream::{Lane, OnInformational};

/// What to do with an informational response, if anything can be done.
///
/// `100 Continue` lets the request's body go, which makes the HTTP library invite the client. Any
/// other is written to the wire of an HTTP/1.1 client; the library has no way to send one on
/// HTTP/2, where they are dropped, as RFC 9110, 15.2 allows no one to rely on them.
pub(crate) fn relay(
    exchange: &Exchange,
    lane: &Lane,
    permit: Option<Permit>,
) -> Option<OnInformational> {
    let wire = (exchange.version == Version::HTTP_11 && lane.listens())
        .then(|| exchange.origin.wire())
        .flatten();
    if permit.is_none() && wire.is_none() {
        return None;
    }
    let permit = Mutex::new(permit);
    Some(Box::new(move |status, headers| {
        if status == StatusCode::CONTINUE {
            let permit = permit.lock().ok().and_then(|mut permit| permit.take());
            if let Some(permit) = permit {
                permit.grant();
            }
        } else if let Some(wire) = &wire {
            wire.inform(&written(status, headers));
        }
    }))
}

/// How long a body is held back for an upstream that does not say `100 Continue`.
const PATIENCE: Duration = Duration::from_secs(1);

/// A client that waits for `100 Continue` gets it from the upstream, not from us.
///
/// Reading the body is what makes the HTTP library invite the client, so the body is held back
/// until the upstream has invited it, or patience is over (RFC 9110, 10.1.1).
pub(crate) fn expect_continue(request: &mut Request) -> Option<Permit> {
    let expects = request
        .head
        .header(header::EXPECT)
        .is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue"));
    if !expects || request.body.is_empty() || request.head.version() < Version::HTTP_11 {
        return None;
    }
    let (permit, body) = continuation::hold(std::mem::take(&mut request.body), PATIENCE);
    request.body = body;
    Some(permit)
}

fn written(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}
