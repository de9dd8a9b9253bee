//! A request, and whether its answer is the expected one.

use http::header::{self, HeaderValue};
use http::uri::{Parts, Scheme};
use http::{Method, Request, Uri, Version};
use memchr::memmem;

use super::exchange::{self, Answer, USER_AGENT};
use super::place::{Deadline, Place};
use super::settings::Http;
use crate::base::body::Body;
use crate::upstream::Protocol;

/// Asks once, and judges the answer.
pub(super) async fn check(
    http: &Http,
    protocol: Protocol,
    place: &Place<'_>,
    deadline: Deadline,
) -> Result<(), String> {
    let request = request(http, protocol, place);
    let answer = exchange::ask(place, protocol, request, deadline).await?;
    judge(http, &answer)
}

fn request(http: &Http, protocol: Protocol, place: &Place<'_>) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = http.method.into();
    let host = http.host.as_ref().unwrap_or(&place.host);
    let mut target = Parts::default();
    target.path_and_query = Some(http.path.clone());
    let headers = request.headers_mut();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.extend(http.headers.clone());
    match protocol {
        Protocol::Http1 => {
            if let Ok(host) = HeaderValue::from_str(host.as_str()) {
                headers.insert(header::HOST, host);
            }
            // Says that no request will follow, and spares the endpoint a wait for it.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Protocol::Http2 => {
            target.scheme = Some(Scheme::HTTP);
            target.authority = Some(host.clone());
            *request.version_mut() = Version::HTTP_2;
        }
    }
    *request.uri_mut() = Uri::from_parts(target).unwrap_or_default();
    request
}

fn judge(http: &Http, answer: &Answer) -> Result<(), String> {
    let asked = format!("{} {}", Method::from(http.method), http.path);
    if !http.status.contain(answer.status) {
        return Err(format!(
            "{asked} answered {}, expected {}",
            answer.status.as_u16(),
            http.status
        ));
    }
    match &http.body {
        Some(text) if memmem::find(&answer.body, text.as_bytes()).is_none() => Err(format!(
            "{asked} answered {}, but the first 64 KiB of the body do not contain {text:?}",
            answer.status.as_u16()
        )),
        _ => Ok(()),
    }
}
