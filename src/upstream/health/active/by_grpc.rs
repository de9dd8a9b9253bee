//! A call of `grpc.health.v1.Health/Check`, and what its answer means.
//!
//! The call is framed here, in a few lines, rather than by tonic's client, which panics on a
//! `grpc-status-details-bin` that is not base64: a broken endpoint must not end the control thread.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::uri::{Parts, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use percent_encoding::percent_decode;
use prost::Message;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::exchange::{self, Answer, BODY_BYTES, USER_AGENT};
use super::place::{Deadline, Place};
use super::settings::Grpc;
use crate::base::body::Body;
use crate::upstream::Protocol;

/// What goes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// How much of an endpoint's own words is passed on.
const WORDS: usize = 200;

/// Asks once, and judges the answer.
pub(super) async fn check(
    grpc: &Grpc,
    place: &Place<'_>,
    deadline: Deadline,
) -> Result<(), String> {
    let request = request(grpc, place, deadline);
    let answer = exchange::ask(place, Protocol::Http2, request, deadline).await?;
    judge(&grpc.service, &answer)
}

fn request(grpc: &Grpc, place: &Place<'_>, deadline: Deadline) -> Request<Body> {
    let asked = HealthCheckRequest {
        service: grpc.service.clone(),
    };
    let mut request = Request::new(Body::full(framed(&asked)));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    let mut target = Parts::default();
    target.scheme = Some(Scheme::HTTP);
    target.authority = Some(place.host.clone());
    target.path_and_query = Some(PathAndQuery::from_static("/grpc.health.v1.Health/Check"));
    *request.uri_mut() = Uri::from_parts(target).unwrap_or_default();
    let headers = request.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "application/grpc"),
        (header::TE, "trailers"),
        (header::USER_AGENT, USER_AGENT),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let timeout = format!("{}m", deadline.left().as_millis());
    if let Ok(timeout) = HeaderValue::try_from(timeout) {
        headers.insert("grpc-timeout", timeout);
    }
    request
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.put_slice(&message.encode_to_vec());
    bytes.freeze()
}

fn judge(service: &str, answer: &Answer) -> Result<(), String> {
    if answer.status != StatusCode::OK {
        return Err(format!(
            "the gRPC health check answered {}, expected 200: it is no gRPC server",
            answer.status.as_u16()
        ));
    }
    if answer.body.len() == BODY_BYTES {
        return Err("the gRPC health check answered with more than 64 KiB".into());
    }
    // An answer without a message has its status in the head.
    let ends = if answer.headers.contains_key("grpc-status") {
        &answer.headers
    } else {
        &answer.trailers
    };
    let Some(code) = ends.get("grpc-status") else {
        return Err("the gRPC health check ended without a `grpc-status`".into());
    };
    match Code::from_bytes(code.as_bytes()) {
        Code::Ok => serving(service, &answer.body),
        code => Err(refused(service, code, ends)),
    }
}

/// What the health service says of the service.
fn serving(service: &str, body: &[u8]) -> Result<(), String> {
    let wrong = |what: &str| format!("the gRPC health check answered with {what}");
    let Some((prefix, message)) = body.split_first_chunk::<PREFIX>() else {
        return Err(wrong("no message"));
    };
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(wrong("a compressed message, which was not asked for"));
    }
    if u32::from_be_bytes(length) as usize != message.len() {
        return Err(wrong("other than one message"));
    }
    let status = HealthCheckResponse::decode(message)
        .map_err(|_| wrong("a message that is no `HealthCheckResponse`"))?
        .status;
    let whom = whom(service);
    match ServingStatus::try_from(status) {
        Ok(ServingStatus::Serving) => Ok(()),
        Ok(status) => Err(format!("{whom} is {}", status.as_str_name())),
        Err(_) => Err(format!("{whom} has the unknown health {status}")),
    }
}

/// Why the health service did not answer.
fn refused(service: &str, code: Code, ends: &HeaderMap) -> String {
    match code {
        Code::Unimplemented => {
            "there is no service `grpc.health.v1.Health`: add it to the server, or check with `tcp: {}`".into()
        }
        Code::NotFound => format!("{} is not known to the health service", whom(service)),
        code => {
            let words = ends.get("grpc-message").map(HeaderValue::as_bytes);
            let words = plain(words.unwrap_or_default());
            let words = if words.is_empty() { code.description() } else { &words };
            format!("the gRPC health check answered with status {}: {words}", code as i32)
        }
    }
}

fn whom(service: &str) -> String {
    match service {
        "" => "the server".to_owned(),
        service => format!("the service `{service}`"),
    }
}

/// A `grpc-message` as one short line.
fn plain(message: &[u8]) -> String {
    let message = percent_decode(message).decode_utf8_lossy();
    message
        .chars()
        .filter(|c| !c.is_control())
        .take(WORDS)
        .collect()
}
