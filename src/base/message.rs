//! Requests and responses as every room between the two doors sees them.
//!
//! This is the seam at which an HTTP/1 codec of our own can take hyper's place on the hot path: the
//! header map behind [`Fields`] is private, so that it can become slices of the connection's buffer
//! without a change above.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderName, HeaderValue};
use http::{Extensions, HeaderMap, Method, StatusCode, Uri, Version, request, response};

use crate::base::body::Body;
use crate::base::per_worker::Apart;

pub use crate::base::params::{ParamError, Params};

/// A request: its head, and its body as it comes.
#[derive(Debug, Default)]
pub struct Request {
    /// Method, target and headers.
    pub head: RequestHead,
    /// What follows the head.
    pub body: Body,
}

/// A response: its head, and its body as it comes.
#[derive(Debug)]
pub struct Response {
    /// Status and headers.
    pub head: ResponseHead,
    /// What follows the head.
    pub body: Body,
}

/// Header fields (RFC 9110, section 5), in the order in which they came.
#[derive(Debug, Default, Clone)]
pub struct Fields(HeaderMap);

impl Fields {
    /// The first value of a field; none if it is absent or not visible ASCII.
    pub fn text(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    /// The first value of a field, byte for byte.
    pub fn get(&self, name: impl header::AsHeaderName) -> Option<&HeaderValue> {
        self.0.get(name)
    }

    /// Every value of a field, in order.
    pub fn all(&self, name: impl header::AsHeaderName) -> impl Iterator<Item = &HeaderValue> {
        self.0.get_all(name).into_iter()
    }

    /// True if the field is there.
    pub fn contains(&self, name: impl header::AsHeaderName) -> bool {
        self.0.contains_key(name)
    }

    /// Puts one value in the place of all earlier ones.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.insert(name, value);
    }

    /// Adds a value after the earlier ones.
    pub fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.append(name, value);
    }

    /// Makes room for so many more values.
    pub fn reserve(&mut self, more: usize) {
        self.0.reserve(more);
    }

    /// Takes every value of a field away; returns the first.
    pub fn remove(&mut self, name: impl header::AsHeaderName) -> Option<HeaderValue> {
        self.0.remove(name)
    }

    /// Names and values, in order; a name comes once for each of its values.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter()
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without any field.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Apart for Fields {
    fn apart(&self) -> Self {
        let fields = self
            .iter()
            .map(|(name, value)| (name.apart(), value.apart()));
        // Not `extend`, which would put the later of two values in the place of the earlier.
        let mut apart = Self(HeaderMap::with_capacity(self.len()));
        for (name, value) in fields {
            apart.append(name, value);
        }
        apart
    }
}

impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Self {
        Self(map)
    }
}

impl From<Fields> for HeaderMap {
    fn from(fields: Fields) -> Self {
        fields.0
    }
}

/// Who sent a request, as far as it can be trusted.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// The other end of the connection; none on a Unix socket or in memory.
    pub peer: Option<SocketAddr>,
    /// The client's address: the peer's, or the one that trusted proxies vouch for.
    pub ip: Option<IpAddr>,
    /// Whether the client spoke TLS, to us or to a trusted proxy before us.
    pub secure: bool,
}

impl Default for Client {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

impl Client {
    /// A client of whom nothing is known: a Unix socket's, or a test's.
    pub const UNKNOWN: Self = Self {
        peer: None,
        ip: None,
        secure: false,
    };

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

/// Method, target and headers of a request.
#[derive(Debug, Default)]
pub struct RequestHead {
    method: Method,
    uri: Uri,
    version: Version,
    /// The path in its one normal form, where that differs from what `uri` holds.
    path: Option<Box<str>>,
    /// Header fields; `host` is among them for HTTP/2, too.
    pub headers: Fields,
    /// Who sent it.
    pub client: Client,
    /// What the route's path template took from the path.
    pub params: Params,
    /// Typed extras of libraries at the doors (an upgrade in waiting, a handler's own).
    pub extensions: Extensions,
}

impl RequestHead {
    /// A head to start from: a test's, or a call of our own.
    pub fn new(method: Method, uri: Uri) -> Self {
        let mut head = Self {
            method,
            uri: Uri::default(),
            version: Version::HTTP_11,
            path: None,
            headers: Fields::default(),
            client: Client::UNKNOWN,
            params: Params::default(),
            extensions: Extensions::default(),
        };
        if let Some(authority) = uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            head.headers.set(header::HOST, host);
        }
        head.uri = uri;
        head
    }

    /// The same head once more, without the extras of libraries, which belong to one connection.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            method: self.method.clone(),
            uri: self.uri.clone(),
            version: self.version,
            path: self.path.clone(),
            headers: self.headers.clone(),
            client: self.client,
            params: self.params.clone(),
            extensions: Extensions::default(),
        }
    }

    /// What a library parsed.
    pub fn from_http(parts: request::Parts, client: Client) -> Self {
        Self {
            method: parts.method,
            uri: parts.uri,
            version: parts.version,
            path: None,
            headers: parts.headers.into(),
            client,
            params: Params::default(),
            extensions: parts.extensions,
        }
    }

    /// The same head for a library that takes `http`'s types; the path in its normal form.
    pub fn into_http<B>(mut self, body: B) -> http::Request<B> {
        self.settle_path();
        let mut request = http::Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.into();
        *request.extensions_mut() = self.extensions;
        request
    }

    /// GET, POST, …
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Puts another method in place.
    pub fn set_method(&mut self, method: Method) {
        self.method = method;
    }

    /// The version that the client spoke.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The path, normalised, still percent-encoded; `*` for `OPTIONS *`.
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or_else(|| self.uri.path())
    }

    /// Puts another path in place; it must start with `/` and be percent-encoded already.
    pub fn set_path(&mut self, path: impl Into<Box<str>>) {
        self.path = Some(path.into());
    }

    /// The part after `?`, as it came.
    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// Path and query as an upstream would get them.
    pub fn target(&self) -> String {
        match self.query() {
            Some(query) => format!("{}?{query}", self.path()),
            None => self.path().to_owned(),
        }
    }

    /// Host and optional port: the target's authority (absolute form, `:authority`), else `Host`.
    pub fn authority(&self) -> Option<&str> {
        match self.uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => self.headers.text(header::HOST),
        }
    }

    /// The host that the client asked for, without its port, as it was written.
    pub fn host(&self) -> Option<&str> {
        let authority = self.authority()?;
        match authority.rfind(':') {
            // A colon inside brackets belongs to an IPv6 address.
            Some(colon) if !authority.ends_with(']') => authority.get(..colon),
            _ => Some(authority),
        }
    }

    /// The target as it was written.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Puts another target in place; its path counts, an earlier `set_path` no longer.
    pub fn set_uri(&mut self, uri: Uri) {
        self.uri = uri;
        self.path = None;
    }

    /// The first value of a header, if it is visible ASCII.
    pub fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.text(name)
    }

    /// Puts one value in the place of all earlier ones.
    pub fn set_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.set(name, value);
    }

    /// Takes a header away.
    pub fn remove_header(&mut self, name: impl header::AsHeaderName) -> Option<HeaderValue> {
        self.headers.remove(name)
    }

    /// The value of one cookie (RFC 6265, 4.2.1), over all `cookie` fields.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.headers
            .all(header::COOKIE)
            .filter_map(|field| field.to_str().ok())
            .flat_map(|field| field.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// True for a gRPC call, by its content type.
    pub fn is_grpc(&self) -> bool {
        self.header(header::CONTENT_TYPE)
            .is_some_and(|value| value.starts_with("application/grpc"))
    }

    /// Writes a changed path into the target.
    fn settle_path(&mut self) {
        let Some(path) = self.path.take() else {
            return;
        };
        let target = match self.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.into(),
        };
        let mut parts = std::mem::take(&mut self.uri).into_parts();
        // A normalised path always parses: the normaliser escapes what a target cannot hold.
        parts.path_and_query = target.parse().ok();
        self.uri = Uri::from_parts(parts).unwrap_or_default();
    }
}

/// Status and headers of a response.
#[derive(Debug, Default)]
pub struct ResponseHead {
    /// The status code.
    pub status: StatusCode,
    /// Header fields.
    pub headers: Fields,
    /// Typed extras of libraries at the doors.
    pub extensions: Extensions,
}

impl ResponseHead {
    /// A head to start from.
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: Fields::default(),
            extensions: Extensions::default(),
        }
    }

    /// The number in `grpc-status`, where the head of a gRPC answer is all there is of it.
    pub fn grpc_status(&self) -> Option<u8> {
        self.headers.text("grpc-status")?.parse().ok()
    }

    /// True for an answer with which a server, or a gateway before it, says that it cannot serve now:
    /// 502, 503 or 504.
    pub fn says_unavailable(&self) -> bool {
        matches!(self.status.as_u16(), 502..=504)
    }

    /// What a library parsed.
    pub fn from_http(parts: response::Parts) -> Self {
        Self {
            status: parts.status,
            headers: parts.headers.into(),
            extensions: parts.extensions,
        }
    }

    /// The same head for a library that takes `http`'s types.
    pub fn into_http<B>(self, body: B) -> http::Response<B> {
        let mut response = http::Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.into();
        *response.extensions_mut() = self.extensions;
        response
    }
}

impl Request {
    /// A request to start from.
    pub fn new(method: Method, uri: Uri, body: impl Into<Body>) -> Self {
        Self {
            head: RequestHead::new(method, uri),
            body: body.into(),
        }
    }
}

impl Response {
    /// A response with nothing but a status.
    pub fn status(status: StatusCode) -> Self {
        Self {
            head: ResponseHead::new(status),
            body: Body::empty(),
        }
    }

    /// A plain text answer.
    pub fn text(status: StatusCode, text: impl Into<Body>) -> Self {
        let mut response = Self::status(status);
        response.head.headers.set(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        response.body = text.into();
        response
    }

    /// A JSON answer.
    pub fn json(status: StatusCode, value: &impl serde::Serialize) -> Self {
        let mut response = Self::status(status);
        response.head.headers.set(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        // A value that refuses to become JSON has no better answer than none.
        response.body = serde_json::to_vec(value).unwrap_or_default().into();
        response
    }

    /// The same response with one more header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.head.headers.append(name, value);
        self
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::full(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_the_authoritys_without_its_port() {
        let check = |authority: &str, host: &str| {
            let mut head = RequestHead::new(Method::GET, Uri::from_static("/"));
            head.set_header(
                header::HOST,
                HeaderValue::from_str(authority).expect("valid"),
            );
            assert_eq!(head.host(), Some(host));
        };
        check("example.com", "example.com");
        check("example.com:8080", "example.com");
        check("[::1]", "[::1]");
        check("[::1]:80", "[::1]");
    }

    #[test]
    fn a_changed_path_keeps_the_query() {
        let mut head = RequestHead::new(Method::GET, Uri::from_static("/a/../b?x=1"));
        head.set_path("/b");
        assert_eq!(head.target(), "/b?x=1");
        assert_eq!(head.into_http(()).uri(), "/b?x=1");
    }

    #[test]
    fn parameters_are_found_by_name() {
        let pairs = [("id", "7"), ("rest", ""), ("name", "a/b")];
        let params = Params::from_pairs(pairs.into_iter());
        assert_eq!(params.iter().collect::<Vec<_>>(), pairs);
        assert_eq!(params.get("name"), Some("a/b"));
        assert_eq!(params.get("rest"), Some(""));
        assert_eq!(params.get("7"), None);
    }

    #[test]
    fn cookies_are_found_in_any_field() {
        let mut head = RequestHead::new(Method::GET, Uri::from_static("/"));
        head.headers
            .append(header::COOKIE, HeaderValue::from_static("a=1; b=2"));
        head.headers
            .append(header::COOKIE, HeaderValue::from_static("c=3"));
        assert_eq!(head.cookie("b"), Some("2"));
        assert_eq!(head.cookie("c"), Some("3"));
        assert_eq!(head.cookie("d"), None);
    }
}
