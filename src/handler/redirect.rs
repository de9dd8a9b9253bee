//! Sends the client to another place.
//!
//! The target is always absolute, made from what the settings name and, for all else, from the
//! request: so nothing in a path can turn it into another host's. Only a request without a host
//! (HTTP/1.0) gets a target that is a path alone.

use http::header::{self, HeaderValue};
use http::{StatusCode, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Failed, Kind, Registry, Reply};
use crate::base::message::{Request, RequestHead, Response};
use crate::base::problem::Problem;
use crate::base::template::PathTemplate;

/// Settings of a redirect. What is not named stays as the client asked for it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "RedirectHandler")]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// 301 and 308 are permanent, 302 and 307 temporary; 307 and 308 keep the method, 303 asks for
    /// a GET. Default: 302.
    #[serde(default)]
    pub status: RedirectStatus,
    /// `http` or `https`. With another scheme and no `port`, the port is that scheme's own.
    pub scheme: Option<Scheme>,
    /// The host to go to. Example: `www.example.org`.
    pub host: Option<String>,
    /// The port to go to; 80 for `http` and 443 for `https` are not written.
    pub port: Option<u16>,
    /// The whole path, which may be a template over the request; values are percent-encoded unless
    /// piped through `safe`. Example: `/users/{{ path.id }}`.
    pub path: Option<PathTemplate>,
    /// Replaces the beginning of the path and keeps the rest.
    pub path_prefix: Option<Prefix>,
    /// Whether the query comes along. Default: true.
    #[serde(default = "yes")]
    pub query: bool,
}

fn yes() -> bool {
    true
}

/// The beginning of a path and what takes its place.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "RedirectPrefix")]
#[serde(deny_unknown_fields)]
pub struct Prefix {
    /// The segments to replace; a path that does not begin with them stays as it is. Example:
    /// `/old`.
    pub from: String,
    /// What stands there instead. Example: `/new`, or `/` to take the prefix away.
    pub to: String,
}

/// The status of a redirect (RFC 9110, 15.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedirectStatus {
    /// 301
    MovedPermanently,
    /// 302
    #[default]
    Found,
    /// 303
    SeeOther,
    /// 307
    TemporaryRedirect,
    /// 308
    PermanentRedirect,
}

impl RedirectStatus {
    fn code(self) -> StatusCode {
        match self {
            Self::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
            Self::Found => StatusCode::FOUND,
            Self::SeeOther => StatusCode::SEE_OTHER,
            Self::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
            Self::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
        }
    }
}

impl<'de> Deserialize<'de> for RedirectStatus {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = |code: u16| {
            serde::de::Error::custom(format!(
                "{code} is not a redirect: write 301, 302, 303, 307 or 308"
            ))
        };
        let code = u16::deserialize(deserializer)?;
        [
            Self::MovedPermanently,
            Self::Found,
            Self::SeeOther,
            Self::TemporaryRedirect,
            Self::PermanentRedirect,
        ]
        .into_iter()
        .find(|status| status.code().as_u16() == code)
        .ok_or_else(|| wrong(code))
    }
}

impl JsonSchema for RedirectStatus {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RedirectStatus".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"enum": [301, 302, 303, 307, 308]})
    }
}

/// The scheme of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "RedirectScheme")]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Cleartext.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    fn of(head: &RequestHead) -> Self {
        if head.client.secure {
            Self::Https
        } else {
            Self::Http
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A redirect, checked.
#[derive(Debug)]
pub(super) struct Redirect(Settings);

impl Kind for Redirect {
    type Settings = Settings;

    fn build(settings: &Settings, _: &Registry) -> Result<Self, Problem> {
        let wrong = |message: String| Err(Problem::error(None, message));
        if let Some(host) = &settings.host
            && !is_host(host)
        {
            return wrong(format!(
                "`{host}` is not a host: write a name or an address, the port under `port`"
            ));
        }
        if settings.path.is_some() && settings.path_prefix.is_some() {
            return wrong("a redirect has either `path` or `path_prefix`, not both".to_owned());
        }
        if let Some(path) = &settings.path
            && !path.source().starts_with('/')
        {
            return wrong(format!("the path `{}` must begin with `/`", path.source()));
        }
        if let Some(Prefix { from, to }) = &settings.path_prefix
            && !(from.starts_with('/') && (to.starts_with('/') || to.is_empty()))
        {
            return wrong("both parts of `path_prefix` must begin with `/`".to_owned());
        }
        Ok(Self(settings.clone()))
    }

    fn reply(&self, request: Request, _: Context) -> Reply {
        self.response(&request.head).into()
    }
}

/// True for a host alone, without port, user or path.
fn is_host(host: &str) -> bool {
    let uri: Result<Uri, _> = format!("http://{host}/").parse();
    uri.is_ok_and(|uri| uri.host() == Some(host) && uri.authority().is_some_and(|a| a == host))
}

impl Redirect {
    fn response(&self, head: &RequestHead) -> Result<Response, Failed> {
        let target = self.target(head)?;
        let value = HeaderValue::from_str(&target)
            .map_err(|_| Failed::new("the redirect's target is not a header value"))?;
        Ok(Response::status(self.0.status.code()).with_header(header::LOCATION, value))
    }

    fn target(&self, head: &RequestHead) -> Result<String, Failed> {
        let mut target = String::with_capacity(128);
        if let Some(host) = self.0.host.as_deref().or(head.host()) {
            let scheme = self.0.scheme.unwrap_or(Scheme::of(head));
            target.push_str(scheme.text());
            target.push_str("://");
            target.push_str(host);
            if let Some(port) = self.port(head, scheme) {
                target.push(':');
                target.push_str(itoa::Buffer::new().format(port));
            }
            target.push_str(&self.path(head)?);
        } else {
            // Two slashes would begin a host.
            let path = self.path(head)?;
            target.push('/');
            target.push_str(path.trim_start_matches('/'));
        }
        if self.0.query
            && let Some(query) = head.query()
        {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(query);
        }
        Ok(target)
    }

    /// The port to write: the one that is set, else none where the scheme is set, else the one
    /// that the client asked for; never the scheme's own.
    fn port(&self, head: &RequestHead, scheme: Scheme) -> Option<u16> {
        let asked = || match self.0.scheme {
            Some(_) => None,
            None => port_of(head.authority()?),
        };
        self.0
            .port
            .or_else(asked)
            .filter(|port| *port != scheme.port())
    }

    fn path(&self, head: &RequestHead) -> Result<String, Failed> {
        let path = if let Some(template) = &self.0.path {
            let path = template
                .render_for(head)
                .map_err(|error| Failed::new(error.to_string()))?;
            utf8_percent_encode(&path, UNSAFE).to_string()
        } else if let Some(Prefix { from, to }) = &self.0.path_prefix {
            replaced(head.path(), from, to)
        } else {
            head.path().to_owned()
        };
        Ok(path)
    }
}

/// What may not stand in a target, wherever.
const UNSAFE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

fn port_of(authority: &str) -> Option<u16> {
    let (_, port) = authority.rsplit_once(':')?;
    port.parse().ok()
}

/// The path with another beginning; segments count, so `/a` is no beginning of `/ab`.
fn replaced(path: &str, from: &str, to: &str) -> String {
    let from = from.trim_end_matches('/');
    let rest = match path.strip_prefix(from) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => return path.to_owned(),
    };
    let path = format!("{}{rest}", to.trim_end_matches('/'));
    if path.is_empty() {
        "/".to_owned()
    } else {
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::testing::{ask, get, header, problem};
    use serde_json::{Value, json};

    async fn check(settings: Value, target: &str, expected: &str) {
        let response = ask(json!({"redirect": settings}), get(target)).await;
        assert_eq!(header(&response, "location"), Some(expected), "{settings}");
    }

    #[tokio::test]
    async fn what_is_not_named_stays() {
        let from = "http://a.example:8080/x/y?q=1";
        check(json!({}), from, "http://a.example:8080/x/y?q=1").await;
        check(json!({"query": false}), from, "http://a.example:8080/x/y").await;
        check(
            json!({"host": "b.example"}),
            from,
            "http://b.example:8080/x/y?q=1",
        )
        .await;
        check(json!({"path": "/z"}), from, "http://a.example:8080/z?q=1").await;
        check(
            json!({"path": "/z?p=2"}),
            from,
            "http://a.example:8080/z?p=2&q=1",
        )
        .await;
        check(json!({"port": 9}), from, "http://a.example:9/x/y?q=1").await;
        check(
            json!({"host": "[::1]"}),
            "http://a.example/",
            "http://[::1]/",
        )
        .await;
    }

    #[tokio::test]
    async fn a_scheme_brings_its_own_port() {
        let from = "http://a.example:8080/";
        check(json!({"scheme": "https"}), from, "https://a.example/").await;
        check(
            json!({"scheme": "https", "port": 443}),
            from,
            "https://a.example/",
        )
        .await;
        check(
            json!({"scheme": "https", "port": 8443}),
            from,
            "https://a.example:8443/",
        )
        .await;
        check(
            json!({"scheme": "http", "port": 80}),
            from,
            "http://a.example/",
        )
        .await;
        check(json!({"port": 80}), from, "http://a.example/").await;
        check(json!({}), "http://a.example:80/", "http://a.example/").await;
    }

    #[tokio::test]
    async fn a_secure_client_stays_secure() {
        let mut request = get("https://a.example/");
        request.head.client.secure = true;
        let response = ask(json!({"redirect": {"port": 443}}), request).await;
        assert_eq!(header(&response, "location"), Some("https://a.example/"));
    }

    #[test]
    fn a_prefix_is_replaced_on_segment_borders() {
        let check = |path: &str, from: &str, to: &str, expected: &str| {
            assert_eq!(replaced(path, from, to), expected, "{path} {from} {to}");
        };
        check("/foo/bar", "/foo", "/xyz", "/xyz/bar");
        check("/foo/bar", "/foo", "/xyz/", "/xyz/bar");
        check("/foo/bar", "/foo/", "/xyz", "/xyz/bar");
        check("/foo", "/foo", "/xyz", "/xyz");
        check("/foo/", "/foo", "/xyz", "/xyz/");
        check("/foo/bar", "/foo", "", "/bar");
        check("/foo/bar", "/foo", "/", "/bar");
        check("/foo", "/foo", "/", "/");
        check("/foobar", "/foo", "/xyz", "/foobar");
        check("/bar", "/", "/xyz", "/xyz/bar");
    }

    #[tokio::test]
    async fn no_path_becomes_another_host() {
        check(json!({}), "//evil.example/x", "/evil.example/x").await;
        let mut request = get("/x");
        request.head.set_path("//evil.example/x");
        let host = HeaderValue::from_static("a.example");
        request.head.set_header(header::HOST, host);
        let response = ask(json!({"redirect": {}}), request).await;
        assert_eq!(
            header(&response, "location"),
            Some("http://a.example//evil.example/x")
        );
        let settings = json!({"path": "/go/{{ query.to }}", "query": false});
        check(
            settings,
            "http://a.example/?to=//evil.example%0d%0ax:y",
            "http://a.example/go/%2F%2Fevil.example%0D%0Ax%3Ay",
        )
        .await;
        let settings = json!({"path": "/go/{{ query.to | safe }}", "query": false});
        check(
            settings,
            "http://a.example/?to=a%0d%0a/é",
            "http://a.example/go/a%0D%0A/%C3%A9",
        )
        .await;
    }

    #[tokio::test]
    async fn every_status_of_a_redirect_can_be_had() {
        for status in [301, 302, 303, 307, 308] {
            let settings = json!({"redirect": {"status": status}});
            assert_eq!(ask(settings, get("http://a/")).await.head.status, status);
        }
    }

    #[test]
    fn contradictions_are_problems() {
        let check = |settings: Value, words: &str| {
            let problem = problem(json!({"redirect": settings}));
            assert!(problem.contains(words), "{problem}");
        };
        check(json!({"status": 304}), "304 is not a redirect");
        check(json!({"host": "a.example:80"}), "the port under `port`");
        check(json!({"host": "a/b"}), "is not a host");
        check(json!({"host": "u@a"}), "is not a host");
        check(json!({"path": "x"}), "must begin with `/`");
        check(
            json!({"path": "/", "path_prefix": {"from": "/a", "to": "/b"}}),
            "not both",
        );
        check(
            json!({"path_prefix": {"from": "a", "to": "/b"}}),
            "must begin with `/`",
        );
    }
}
