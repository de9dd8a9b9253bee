//! A request that somebody asks about: written on the command line, or copied as a `curl` command.
//!
//! It becomes what the server would have parsed, had it come over the wire.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Uri, Version};

use crate::base::body::Body;
use crate::base::message::{Client, Request, RequestHead};
use crate::config::{Protocol, test};
use crate::explain::curl;

/// A request, and where it would come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The listener's name; none is the first.
    pub listener: Option<String>,
    /// GET, POST, …
    pub method: Method,
    /// With scheme and host, or a path alone; `*` for `OPTIONS *`.
    pub url: Uri,
    /// What the client speaks.
    pub version: Version,
    /// Its header fields, without those that follow from the rest.
    pub headers: HeaderMap,
    /// What it sends after the head.
    pub body: Bytes,
    /// Who sends it; none is nobody in particular.
    pub client: Option<SocketAddr>,
}

impl Asked {
    /// A request written as `[METHOD] URL`, with headers as `name: value` and data as it is sent.
    ///
    /// Without a method it is GET, and POST where there is data.
    ///
    /// # Errors
    /// A sentence about what cannot be understood.
    pub fn from_arguments(
        words: &[String],
        headers: &[String],
        data: Option<&str>,
    ) -> Result<Self, String> {
        let (written, target) = match words {
            [] => return Err("a request is missing: write `[METHOD] URL`".to_owned()),
            [method] if METHODS.contains(&method.as_str()) => {
                return Err(format!("`{method}` needs a URL: write `{method} http://…`"));
            }
            [target] => (None, target),
            [written, target] => (Some(written), target),
            [_, _, extra, ..] => {
                return Err(format!(
                    "`{extra}` is one word too many: write `[METHOD] URL`, and headers with -H"
                ));
            }
        };
        if let Some(written) = written.filter(|word| word.starts_with('/') || word.contains("://"))
        {
            return Err(format!(
                "`{target}` follows the URL `{written}`: write the method first"
            ));
        }
        let method = match written {
            Some(written) => method(written)?,
            None if data.is_some() => Method::POST,
            None => Method::GET,
        };
        let mut asked = Self {
            listener: None,
            method,
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
            body: data.map_or_else(Bytes::new, |data| Bytes::copy_from_slice(data.as_bytes())),
            client: None,
            url: Uri::default(),
        };
        for line in headers {
            let (name, value) = field(line)?;
            asked.headers.append(name, value);
        }
        let Target { url, user } = Target::read(target)?;
        asked.url = url;
        if let Some(user) = user {
            asked.default_header(header::AUTHORIZATION, basic(&decoded(&user))?);
        }
        if data.is_some() {
            asked.say_length();
        }
        Ok(asked)
    }

    /// A `curl` command as it is copied from a browser or a shell.
    ///
    /// What says where to connect, what to print or how long to wait does not change the request and is
    /// passed over.
    ///
    /// # Errors
    /// A sentence about an option that is not understood, or about a command that sends no single
    /// request.
    pub fn from_curl(command: &str) -> Result<Self, String> {
        curl::read(command)
    }

    /// The request of a test.
    pub(crate) fn of_test(request: &test::Request) -> Self {
        let mut asked = Self {
            listener: None,
            method: request.method.clone(),
            url: request.url.clone(),
            version: match request.protocol {
                Protocol::Http1 => Version::HTTP_11,
                Protocol::Http2 => Version::HTTP_2,
            },
            headers: request.headers.clone(),
            body: request.body.clone(),
            client: Some(request.client),
        };
        if !asked.body.is_empty() {
            asked.say_length();
        }
        asked
    }

    /// Where it comes from; whoever does not say is on this machine.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.client.unwrap_or_else(|| ([127, 0, 0, 1], PORT).into())
    }

    /// The port of its URL, as it is written or as its scheme has it; none for a path alone.
    pub(crate) fn port(&self) -> Option<u16> {
        let default = match self.url.scheme_str()? {
            "https" => 443,
            _ => 80,
        };
        Some(self.url.port_u16().unwrap_or(default))
    }

    /// What the server would have parsed: a path and `host` for HTTP/1, a whole URL for HTTP/2.
    pub fn into_request(self) -> Request {
        let Self {
            method,
            url,
            version,
            mut headers,
            body,
            ..
        } = self;
        let uri = if version == Version::HTTP_2 {
            with_authority(url, &mut headers)
        } else {
            with_host(&url, &mut headers)
        };
        let mut request = http::Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        *request.headers_mut() = headers;
        let (parts, ()) = request.into_parts();
        Request {
            // Who sent it is said by the connection, and believed when the request is admitted.
            head: RequestHead::from_http(parts, Client::UNKNOWN),
            body: if body.is_empty() {
                Body::empty()
            } else {
                Body::full(body)
            },
        }
    }

    /// Sets a header that is not given.
    pub(super) fn default_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.entry(name).or_insert(value);
    }

    /// Says how long the body is, as clients do.
    pub(super) fn say_length(&mut self) {
        if !self.headers.contains_key(header::TRANSFER_ENCODING) {
            let length = HeaderValue::from(self.body.len());
            self.default_header(header::CONTENT_LENGTH, length);
        }
    }
}

/// The port of clients that do not say theirs.
const PORT: u16 = 40_000;

/// An IP address, with or without a port.
///
/// # Errors
/// A sentence that says that it is none.
pub(crate) fn client_of(text: &str) -> Result<SocketAddr, String> {
    let whole = text.parse::<SocketAddr>();
    let whole = whole.or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT)));
    whole.map_err(|_| format!("`{text}` is no IP address, with or without a port"))
}

/// Words that nobody means as a host.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Whom requests ask for that name no host.
const NOBODY: &str = "localhost";

/// For HTTP/1: the path alone, and the host in its header.
fn with_host(url: &Uri, headers: &mut HeaderMap) -> Uri {
    if !headers.contains_key(header::HOST) {
        let host = url.authority().map_or(NOBODY, Authority::as_str);
        if let Ok(host) = HeaderValue::from_str(host) {
            headers.insert(header::HOST, host);
        }
    }
    let path = url.path_and_query().cloned();
    path.unwrap_or_else(|| PathAndQuery::from_static("/"))
        .into()
}

/// For HTTP/2: the host that is asked for becomes `:authority`.
fn with_authority(url: Uri, headers: &mut HeaderMap) -> Uri {
    let given = headers.get(header::HOST);
    let given = given.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    if given.is_some() {
        headers.remove(header::HOST);
    }
    let mut parts = url.into_parts();
    parts.authority = given
        .or(parts.authority)
        .or_else(|| Some(Authority::from_static(NOBODY)));
    parts.scheme.get_or_insert(Scheme::HTTP);
    parts
        .path_and_query
        .get_or_insert_with(|| PathAndQuery::from_static("/"));
    Uri::from_parts(parts).unwrap_or_default()
}

/// A method as it is written.
pub(super) fn method(written: &str) -> Result<Method, String> {
    let upper = written.to_ascii_uppercase();
    if written != upper && Method::from_bytes(upper.as_bytes()).is_ok() {
        return Err(format!("methods are case-sensitive: write `{upper}`"));
    }
    Method::from_bytes(written.as_bytes())
        .map_err(|_| format!("`{written}` is not a method such as `GET` or `POST`"))
}

/// A URL as it is written, and the user in it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) url: Uri,
    /// `name:password`, still percent-encoded.
    pub(super) user: Option<String>,
}

impl Target {
    pub(super) fn read(written: &str) -> Result<Self, String> {
        let wrong = |why: &str| Err(format!("`{written}` is not a URL: {why}"));
        let text = written.split('#').next().unwrap_or_default();
        if text.is_empty() {
            return wrong("write `https://host/path`, or a path such as `/orders`");
        }
        if text.contains(char::is_whitespace) || !text.is_ascii() {
            return wrong("what is not plain ASCII is percent-encoded there, a space as `%20`");
        }
        if text.starts_with('/') || text == "*" {
            return match text.parse() {
                Ok(url) => Ok(Self { url, user: None }),
                Err(error) => wrong(&error.to_string()),
            };
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => "http",
            "https" | "wss" => "https",
            _ => return wrong("it begins with `http://` or `https://`"),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host),
            None => (None, authority),
        };
        if host.is_empty() {
            return wrong("its host is missing");
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        match format!("{scheme}://{host}{slash}{path}").parse() {
            Ok(url) => Ok(Self { url, user }),
            Err(error) => wrong(&error.to_string()),
        }
    }
}

/// A user as it stands in a URL, percent-decoded.
pub(super) fn decoded(user: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(user).collect()
}

/// The value of `authorization` for a user and a password.
pub(super) fn basic(user: &[u8]) -> Result<HeaderValue, String> {
    let user = if user.contains(&b':') {
        user.to_vec()
    } else {
        [user, b":"].concat()
    };
    let text = STANDARD.encode(user);
    let value = HeaderValue::try_from(format!("Basic {text}"));
    value.map_err(|_| "the user is not one that fits into a header".to_owned())
}

/// A header as `name: value`.
pub(super) fn field(line: &str) -> Result<(HeaderName, HeaderValue), String> {
    let Some((name, value)) = line.split_once(':') else {
        return Err(format!(
            "`{}` is not a header: write `name: value`",
            shown(line)
        ));
    };
    Ok((field_name(name)?, field_value(name, value.trim())?))
}

pub(super) fn field_name(name: &str) -> Result<HeaderName, String> {
    HeaderName::try_from(name.trim())
        .map_err(|_| format!("`{}` is not the name of a header", shown(name)))
}

/// The value is left out of the sentence: it may be a secret.
pub(super) fn field_value(name: &str, value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(value).or_else(|_| {
        HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
            let name = shown(name.trim());
            format!("the value of the header `{name}` has a character that no header can carry")
        })
    })
}

/// Text of unknown length and content, as a message can have it.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 40;
    let mut short: String = text
        .chars()
        .take(LONGEST)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str], headers: &[&str], data: Option<&str>) -> Result<Asked, String> {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        Asked::from_arguments(&owned(words), &owned(headers), data)
    }

    /// The request as lines: `GET /a HTTP/1.1`, then its headers by name.
    fn wire(asked: Asked) -> Vec<String> {
        let head = asked.into_request().head;
        let mut lines: Vec<String> = head
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
            .collect();
        lines.sort_unstable();
        let start = format!("{} {} {:?}", head.method(), head.uri(), head.version());
        lines.insert(0, start);
        lines
    }

    #[test]
    fn requests_are_written_as_people_think_of_them() {
        let check = |words: &[&str], headers: &[&str], data: Option<&str>, expected: &[&str]| {
            assert_eq!(wire(asked(words, headers, data).expect("valid")), expected);
        };
        check(
            &["/a?b=c"],
            &[],
            None,
            &["GET /a?b=c HTTP/1.1", "host: localhost"],
        );
        check(
            &["POST", "https://shop.example:8443/a#top"],
            &["X-A: 1", "x-a:2"],
            None,
            &[
                "POST /a HTTP/1.1",
                "host: shop.example:8443",
                "x-a: 1",
                "x-a: 2",
            ],
        );
        check(
            &["shop.example?a=b"],
            &[],
            Some("x=1"),
            &[
                "POST /?a=b HTTP/1.1",
                "content-length: 3",
                "host: shop.example",
            ],
        );
        check(
            &["PUT", "http://a.test/"],
            &["Host: b.test"],
            Some(""),
            &["PUT / HTTP/1.1", "content-length: 0", "host: b.test"],
        );
        check(
            &["OPTIONS", "*"],
            &[],
            None,
            &["OPTIONS * HTTP/1.1", "host: localhost"],
        );
        check(
            &["http://ada:secret@a.test/"],
            &[],
            None,
            &[
                "GET / HTTP/1.1",
                "authorization: Basic YWRhOnNlY3JldA==",
                "host: a.test",
            ],
        );
        check(
            &["PURGE", "http://[::1]:80/x"],
            &[],
            None,
            &["PURGE /x HTTP/1.1", "host: [::1]:80"],
        );
    }

    #[test]
    fn http2_asks_by_its_authority() {
        let check = |url: &str, headers: &[&str], expected: &[&str]| {
            let mut asked = asked(&[url], headers, None).expect("valid");
            asked.version = Version::HTTP_2;
            assert_eq!(wire(asked), expected);
        };
        check("https://a.test/x", &[], &["GET https://a.test/x HTTP/2.0"]);
        check(
            "https://a.test/x",
            &["host: b.test"],
            &["GET https://b.test/x HTTP/2.0"],
        );
        check("/x?y", &[], &["GET http://localhost/x?y HTTP/2.0"]);
    }

    #[test]
    fn what_cannot_be_understood_says_why() {
        let check = |words: &[&str], headers: &[&str], sentence: &str| {
            let error = asked(words, headers, None).expect_err(sentence);
            assert!(error.contains(sentence), "{words:?}: {error}");
        };
        check(&[], &[], "a request is missing");
        check(&["GET", "/a", "/b"], &[], "`/b` is one word too many");
        check(&["/a", "GET"], &[], "write the method first");
        check(&["get", "/a"], &[], "write `GET`");
        check(&["G T", "/a"], &[], "`G T` is not a method");
        check(&["ftp://a.test/"], &[], "begins with `http://`");
        check(&["/a b"], &[], "a space as `%20`");
        check(&["http://ä.test/"], &[], "percent-encoded");
        check(&["http:///a"], &[], "its host is missing");
        check(&["#top"], &[], "write `https://host/path`");
        check(&["/a"], &["x-a"], "write `name: value`");
        check(&["/a"], &["a b: c"], "`a b` is not the name");
        check(&["/a"], &["a: b\nc"], "the value of the header `a`");
    }
}
