//! Informational responses (1xx) on their way from an upstream to the client.

use std::sync::Mutex;

use http::{HeaderMap, Version};

use crate::base::continuation::Permit;
use crate::proxy::context::Exchange;
use crate::upstream::OnInformational;

/// What to do with an informational response, if anything can be done.
///
/// `100 Continue` lets the request's body go, which makes the HTTP library invite the client. Any
/// other is written to the wire of an HTTP/1.1 client; the library has no way to send one on
/// HTTP/2, where they are dropped, as RFC 9110, 15.2 allows no one to rely on them.
pub(crate) fn relay(exchange: &Exchange, permit: Option<Permit>) -> Option<OnInformational> {
    let wire = (exchange.version == Version::HTTP_11)
        .then(|| exchange.origin.wire())
        .flatten();
    if permit.is_none() && wire.is_none() {
        return None;
    }
    let permit = Mutex::new(permit);
    Some(Box::new(move |status, headers| {
        if status == 100 {
            let permit = permit.lock().ok().and_then(|mut permit| permit.take());
            if let Some(permit) = permit {
                permit.grant();
            }
        } else if let Some(wire) = &wire {
            wire.inform(&written(status, headers));
        }
    }))
}

fn written(status: u16, headers: &HeaderMap) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} ");
    if let Some(reason) = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
    {
        head.push_str(reason);
    }
    let mut head = head.into_bytes();
    head.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}
