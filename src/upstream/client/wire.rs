//! Requests and responses in the form that each protocol wants on the wire.

use http::header::{self, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Uri, Version};
use hyper::body::{Body as _, Incoming};

use crate::base::body::Body;
use crate::base::message::{Client, Params, Request, RequestHead, Response, ResponseHead};
use crate::upstream::Endpoint;

/// What `http::Request` has no place for, kept for the case that a request comes back unsent.
pub(super) struct Aside {
    client: Client,
    params: Params,
}

impl Aside {
    pub(super) fn take(head: &mut RequestHead) -> Self {
        Self {
            client: head.client,
            params: std::mem::take(&mut head.params),
        }
    }

    /// The request as it was, but for the form of its target.
    pub(super) fn restore(self, message: http::Request<Body>) -> Request {
        let (parts, body) = message.into_parts();
        let mut head = RequestHead::from_http(parts, self.client);
        head.params = self.params;
        Request { head, body }
    }
}

/// HTTP/1.1: origin form, and a `host` in any case (RFC 9112, 3.2).
pub(super) fn http1(request: Request, endpoint: &Endpoint) -> http::Request<Body> {
    let mut message = request.head.into_http(request.body);
    *message.version_mut() = Version::HTTP_11;
    if !message.headers().contains_key(header::HOST) {
        let host = match message.uri().authority() {
            Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
            None => Some(endpoint.host.clone()),
        };
        let host = host.unwrap_or_else(|| HeaderValue::from_static("localhost"));
        message.headers_mut().insert(header::HOST, host);
    }
    if message.uri().authority().is_some() && message.method() != Method::CONNECT {
        let uri = std::mem::take(message.uri_mut());
        // Moves the bytes; nothing is copied.
        if let Some(target) = uri.into_parts().path_and_query {
            *message.uri_mut() = target.into();
        }
    }
    join_cookies(message.headers_mut());
    frame(&mut message);
    message
}

/// HTTP/2 may send each cookie in a field of its own; HTTP/1 knows one field only (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if !headers.contains_key(header::COOKIE) {
        return;
    }
    let mut cookies = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for cookie in std::iter::once(second).chain(cookies) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    // What was valid in pieces is valid as a whole.
    if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Says how the body ends, where hyper would guess otherwise.
fn frame(message: &mut http::Request<Body>) {
    if message.body().is_empty() {
        without_length(message.headers_mut());
    } else if message.body().len().is_none()
        && !message.headers().contains_key(header::CONTENT_LENGTH)
    {
        // hyper drops bodies of unknown length from GET and HEAD unless it is told.
        let chunked = HeaderValue::from_static("chunked");
        message
            .headers_mut()
            .insert(header::TRANSFER_ENCODING, chunked);
    }
}

/// Takes a length away that has no body: the endpoint would wait for it.
fn without_length(headers: &mut HeaderMap) {
    if headers
        .get(header::CONTENT_LENGTH)
        .is_some_and(|length| length != "0")
    {
        headers.remove(header::CONTENT_LENGTH);
    }
}

/// HTTP/2: absolute form, from which `:authority` comes, and no `host` (RFC 9113, 8.3.1).
pub(super) fn http2(request: Request, endpoint: &Endpoint) -> http::Request<Body> {
    let mut message = request.head.into_http(request.body);
    *message.version_mut() = Version::HTTP_2;
    if message.body().is_empty() {
        without_length(message.headers_mut());
    }
    let host = message.headers_mut().remove(header::HOST);
    let mut target = std::mem::take(message.uri_mut()).into_parts();
    // `host` is what was matched and maybe rewritten, so it wins; mostly they are the same.
    let same = match (&target.authority, &host) {
        (Some(authority), Some(host)) => authority.as_str().as_bytes() == host.as_bytes(),
        (authority, None) => authority.is_some(),
        (None, Some(_)) => false,
    };
    if !same {
        let named = host.as_ref().unwrap_or(&endpoint.host);
        target.authority = Authority::try_from(named.as_bytes())
            .ok()
            .or_else(|| Some(Authority::from_static("localhost")));
    }
    target.scheme = Some(Scheme::HTTP);
    target
        .path_and_query
        .get_or_insert_with(|| PathAndQuery::from_static("/"));
    *message.uri_mut() = Uri::from_parts(target).unwrap_or_default();
    message
}

/// The response, or why its framing cannot be trusted.
///
/// hyper decides how a body ends; here is refused what would let two readers decide differently, for
/// the next one is the client (RFC 9112, 6.1 and 6.3).
pub(super) fn http1_response(
    mut response: http::Response<Incoming>,
) -> Result<Response, &'static str> {
    let body = response.body();
    match body.size_hint().exact() {
        None => ends_plainly(response.headers())?,
        Some(length) if length > 0 => one_length(response.headers_mut(), length),
        Some(_) => {}
    }
    let (parts, body) = response.into_parts();
    Ok(Response {
        head: ResponseHead::from_http(parts),
        body: Body::wire(body),
    })
}

/// A body without a known length is chunked and nothing else, or ends with the connection.
fn ends_plainly(headers: &HeaderMap) -> Result<(), &'static str> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    if headers.contains_key(header::CONTENT_LENGTH) {
        return Err("both `content-length` and `transfer-encoding`");
    }
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err("a `transfer-encoding` other than `chunked`");
    }
    Ok(())
}

/// Equal lengths that came twice (hyper refuses others) become one.
fn one_length(headers: &mut HeaderMap, length: u64) {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let plain = values
        .next()
        .is_none_or(|value| value.as_bytes().iter().all(u8::is_ascii_digit));
    if !plain || values.next().is_some() {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::EndpointSettings;

    fn endpoint() -> Endpoint {
        let settings = EndpointSettings::new("127.0.0.1:9001".parse().expect("valid"));
        settings.resolve().expect("nothing to resolve").remove(0)
    }

    fn request(uri: &str, host: Option<&str>) -> Request {
        let mut request = Request::new(Method::GET, "/".parse().expect("valid"), ());
        request.head.set_uri(uri.parse().expect("valid"));
        if let Some(host) = host {
            let host = HeaderValue::from_str(host).expect("valid");
            request.head.set_header(header::HOST, host);
        }
        request
    }

    #[test]
    fn http1_gets_the_path_alone_and_always_a_host() {
        let check = |uri: &str, host: Option<&str>, target: &str, expected: &str| {
            let message = http1(request(uri, host), &endpoint());
            assert_eq!(message.uri().to_string(), target);
            assert_eq!(message.headers()[header::HOST], expected);
            assert_eq!(message.version(), Version::HTTP_11);
        };
        check("/a?b=1", Some("x.example"), "/a?b=1", "x.example");
        check(
            "http://x.example/a?b=1",
            Some("y.example"),
            "/a?b=1",
            "y.example",
        );
        check("http://x.example:8080", None, "/", "x.example:8080");
        check("http://x.example?b=1", None, "/?b=1", "x.example");
        check("/", None, "/", "127.0.0.1:9001");
        check("*", Some("x"), "*", "x");
    }

    #[test]
    fn cookies_of_http2_become_one_field() {
        let check = |cookies: &[&'static str], expected: &[&str]| {
            let mut request = request("/", Some("x"));
            for cookie in cookies {
                let cookie = HeaderValue::from_static(cookie);
                request.head.headers.append(header::COOKIE, cookie);
            }
            let message = http1(request, &endpoint());
            let found: Vec<_> = message.headers().get_all(header::COOKIE).iter().collect();
            assert_eq!(found, expected);
        };
        check(&[], &[]);
        check(&["a=1; b=2"], &["a=1; b=2"]);
        check(&["a=1", "b=2", "c=3"], &["a=1; b=2; c=3"]);
    }

    #[test]
    fn http2_gets_an_authority_and_no_host() {
        let check = |uri: &str, host: Option<&str>, target: &str| {
            let message = http2(request(uri, host), &endpoint());
            assert_eq!(message.uri().to_string(), target);
            assert!(!message.headers().contains_key(header::HOST));
        };
        check("/a?b=1", Some("x.example"), "http://x.example/a?b=1");
        check(
            "https://x.example/a",
            Some("x.example"),
            "http://x.example/a",
        );
        check(
            "http://x.example/a",
            Some("y.example"),
            "http://y.example/a",
        );
        check("http://x.example/a", None, "http://x.example/a");
        check("/", None, "http://127.0.0.1:9001/");
        check("/", Some("not a host"), "http://localhost/");
    }

    #[test]
    fn the_end_of_a_body_is_said_when_hyper_would_guess() {
        let framed = |body: Body, length: Option<&'static str>| {
            let mut request = request("/", Some("x"));
            request.body = body;
            if let Some(length) = length {
                let length = HeaderValue::from_static(length);
                request.head.set_header(header::CONTENT_LENGTH, length);
            }
            let headers = http1(request, &endpoint()).headers().clone();
            let text = |name| {
                headers
                    .get(name)
                    .map(|v| v.to_str().expect("ASCII").to_owned())
            };
            (
                text(header::CONTENT_LENGTH),
                text(header::TRANSFER_ENCODING),
            )
        };
        let stream = || Body::trailers(HeaderMap::new());
        assert_eq!(framed(Body::empty(), Some("5")), (None, None));
        assert_eq!(framed(Body::empty(), Some("0")), (Some("0".into()), None));
        assert_eq!(
            framed(Body::full("12345"), Some("5")),
            (Some("5".into()), None)
        );
        assert_eq!(framed(stream(), None), (None, Some("chunked".into())));
        assert_eq!(framed(stream(), Some("5")), (Some("5".into()), None));
    }

    #[test]
    fn ambiguous_ends_are_refused() {
        let check = |fields: &[(&'static str, &'static str)], fine: bool| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(ends_plainly(&headers).is_ok(), fine, "{fields:?}");
        };
        check(&[], true);
        check(&[("transfer-encoding", "Chunked")], true);
        check(
            &[("transfer-encoding", "chunked"), ("content-length", "3")],
            false,
        );
        check(&[("transfer-encoding", "gzip, chunked")], false);
        check(
            &[
                ("transfer-encoding", "gzip"),
                ("transfer-encoding", "chunked"),
            ],
            false,
        );
        check(&[("transfer-encoding", "identity")], false);
    }

    #[test]
    fn a_length_that_came_twice_becomes_one() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONTENT_LENGTH, 5.into());
        headers.append(header::CONTENT_LENGTH, 5.into());
        one_length(&mut headers, 5);
        assert_eq!(headers.get_all(header::CONTENT_LENGTH).iter().count(), 1);
    }
}
