//! A request that somebody asks about.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Uri, Version};

use crate::base::body::Body;
use crate::base::message::{Client, Request, RequestHead};
use crate::config::Protocol;
use crate::config::test::Request as TestRequest;
use crate::explain::curl;

/// A request as a client sends it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The listener that it comes through; none for that of the URL's port, or else the first.
    pub listener: Option<String>,
    /// The method.
    pub method: Method,
    /// A URL, or a path.
    pub url: Uri,
    /// HTTP/2 rather than HTTP/1.1.
    pub http2: bool,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Where it comes from.
    pub client: SocketAddr,
}

/// Where a request comes from that does not say.
pub(crate) const CLIENT: ([u8; 4], u16) = ([127, 0, 0, 1], 40_000);

impl Asked {
    /// A request of that method to that URL, without anything else.
    pub(crate) fn new(method: Method, url: Uri) -> Self {
        Self {
            listener: None,
            method,
            url,
            http2: false,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            client: CLIENT.into(),
        }
    }

    /// The request of words such as `POST http://shop/orders`, and headers such as `x-a: b`.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn from_arguments(
        words: &[String],
        headers: &[String],
        data: Option<&str>,
    ) -> Result<Self, String> {
        let (method, url) = match words {
            [url] => (None, url),
            [method, url] => (Some(method), url),
            [] => return Err("which request? Write a URL, such as http://localhost/".to_owned()),
            [_, _, more, ..] => {
                return Err(format!("`{more}` is one word too many: write METHOD URL"));
            }
        };
        let default = if data.is_some() { "POST" } else { "GET" };
        let method = method_of(method.map_or(default, String::as_str))?;
        let mut asked = Self::new(method, url_of(url)?);
        for line in headers {
            asked.add_header(line)?;
        }
        asked.body = Bytes::copy_from_slice(data.unwrap_or_default().as_bytes());
        Ok(asked)
    }

    /// The request of a command such as `curl -H 'x-a: b' http://shop/orders`.
    ///
    /// # Errors
    /// A sentence that says what is wrong, or which option has no meaning here.
    pub fn from_curl(command: &str) -> Result<Self, String> {
        curl::read(command)
    }

    /// The request of a test.
    pub(crate) fn of_test(request: &TestRequest) -> Self {
        Self {
            listener: None,
            method: request.method.clone(),
            url: request.url.clone(),
            http2: request.protocol == Protocol::Http2,
            headers: request.headers.clone(),
            body: request.body.clone(),
            client: request.client,
        }
    }

    /// Adds a header that is written as `name: value`.
    pub(super) fn add_header(&mut self, line: &str) -> Result<(), String> {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| format!("`{line}` is no header: write `name: value`"))?;
        let name = HeaderName::from_bytes(name.trim().as_bytes())
            .map_err(|_| format!("`{name}` is no name of a header"))?;
        let value = HeaderValue::from_str(value.trim())
            .map_err(|_| format!("the value of `{name}` has characters that no header may have"))?;
        self.headers.append(name, value);
        Ok(())
    }

    /// The port of its URL, as it is written or as its scheme has it; none for a path alone.
    pub(crate) fn port(&self) -> Option<u16> {
        let default = match self.url.scheme_str()? {
            "https" => 443,
            _ => 80,
        };
        Some(self.url.port_u16().unwrap_or(default))
    }

    /// The same as the server would have read it from the wire.
    pub(crate) fn into_request(self) -> Request {
        let Self {
            method,
            url,
            http2,
            mut headers,
            body,
            ..
        } = self;
        let authority = url
            .authority()
            .map_or("localhost", |authority| authority.as_str());
        let authority = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let host = host.unwrap_or(authority).to_owned();
        let target = if http2 {
            headers.remove(header::HOST);
            let uri = Uri::builder().scheme("http").authority(host.as_str());
            uri.path_and_query(path).build()
        } else {
            if !headers.contains_key(header::HOST)
                && let Ok(host) = HeaderValue::from_str(&host)
            {
                headers.insert(header::HOST, host);
            }
            path.parse().map_err(Into::into)
        };
        if !body.is_empty() && !headers.contains_key(header::CONTENT_LENGTH) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let mut parts = http::Request::new(()).into_parts().0;
        parts.method = method;
        // Whatever cannot be put together was no URL, and is none now.
        parts.uri = target.unwrap_or(url);
        parts.version = if http2 {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        };
        parts.headers = headers;
        let body = if body.is_empty() {
            Body::empty()
        } else {
            Body::full(body)
        };
        Request {
            head: RequestHead::from_http(parts, Client::UNKNOWN),
            body,
        }
    }
}

/// An IP address, with or without a port.
///
/// # Errors
/// A sentence that says that it is none.
pub(crate) fn client_of(text: &str) -> Result<SocketAddr, String> {
    let whole = text.parse::<SocketAddr>();
    let whole = whole.or_else(|_| {
        text.parse::<IpAddr>()
            .map(|ip| SocketAddr::new(ip, CLIENT.1))
    });
    whole.map_err(|_| format!("`{text}` is no IP address, with or without a port"))
}

pub(super) fn method_of(text: &str) -> Result<Method, String> {
    Method::from_bytes(text.as_bytes()).map_err(|_| format!("`{text}` is no method"))
}

/// A URL as people write it: `localhost:8080/a` and `/a`, too.
pub(super) fn url_of(text: &str) -> Result<Uri, String> {
    let whole = if text.starts_with('/') || text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let uri: Uri = whole
        .parse()
        .map_err(|error| format!("`{text}` is no URL: {error}"))?;
    match uri.scheme_str() {
        None | Some("http" | "https") => Ok(uri),
        Some("ws" | "wss") => Err(format!(
            "`{text}`: a WebSocket begins as a request of http, with `-H 'connection: upgrade' -H 'upgrade: websocket'`"
        )),
        Some(scheme) => Err(format!("`{text}`: `{scheme}` is neither http nor https")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str], headers: &[&str]) -> Result<Asked, String> {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        Asked::from_arguments(&own(words), &own(headers), None)
    }

    #[test]
    fn a_request_is_read_as_the_wire_has_it() {
        let asked = read(&["PUT", "http://shop:8080/a%20b?c=d"], &["X-A: 1", "x-a:2"]);
        let head = asked.expect("a request").into_request().head;
        assert_eq!(head.method(), "PUT");
        assert_eq!(head.target(), "/a%20b?c=d");
        assert_eq!(head.header("host"), Some("shop:8080"));
        assert_eq!(head.headers.all("x-a").count(), 2);
        let own = read(&["/x"], &["host: other"]).expect("a request");
        assert_eq!(own.into_request().head.host(), Some("other"));
    }

    #[test]
    fn what_is_no_request_is_told_in_a_sentence() {
        let check = |words: &[&str], headers: &[&str], part: &str| {
            let why = read(words, headers).expect_err(part);
            assert!(why.contains(part), "{why}");
        };
        check(&[], &[], "which request");
        check(&["GET", "http://a", "x"], &[], "one word too many");
        check(&["G T", "http://a"], &[], "no method");
        check(&["ftp://a"], &[], "neither http nor https");
        check(&["ws://a"], &[], "begins as a request of http");
        check(&["http://a b"], &[], "is no URL");
        check(&["http://a"], &["x"], "name: value");
        check(&["http://a"], &["x y: z"], "no name of a header");
    }
}
