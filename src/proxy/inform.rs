//! Informational responses (1xx) on their way from an upstream to the client.

use std::sync::Mutex;

use http::{HeaderMap, StatusCode, Version};

use crate::base::continuation::Permit;
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
