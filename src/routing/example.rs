//! Requests that a match is made for, by which two tables can be compared.

use std::fmt::Write as _;

use http::header::{self, HeaderValue};
use http::{Method, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::base::message::RequestHead;
use crate::routing::condition::ValueMatch;
use crate::routing::host::HostPattern;
use crate::routing::matcher::{Content, Match, PathMatch};

/// How many methods and hosts of one match are tried.
const TRIED: usize = 4;

/// What a value in a query is written with as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Requests for which a match holds: one for each of its hosts and methods, two for a prefix. None
/// where only a regex says what they are like.
pub fn requests(what: &Match) -> Vec<RequestHead> {
    let Some(rest) = Rest::of(what) else {
        return Vec::new();
    };
    let hosts: Vec<Option<String>> = match what.hosts.as_slice() {
        [] => vec![None],
        hosts => hosts.iter().take(TRIED).map(|of| Some(host(of))).collect(),
    };
    let methods: &[Method] = match what.methods.named() {
        [] => &[Method::GET],
        named => named,
    };
    let mut requests = Vec::new();
    for path in paths(&what.path) {
        for host in &hosts {
            for method in methods.iter().take(TRIED) {
                requests.extend(rest.request(method, host.as_deref(), &path));
            }
        }
    }
    requests
}

/// A request as one line: `GET shop.example/cart?v=2 (x-tenant: acme)`; without a host it is for any.
pub fn line(head: &RequestHead) -> String {
    let host = head.host().unwrap_or_default();
    let mut line = format!("{} {host}{}", head.method(), head.target());
    let fields = head.headers.iter();
    let fields = fields.filter(|(name, _)| **name != header::HOST);
    let fields: Vec<String> = fields
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("…")))
        .collect();
    if !fields.is_empty() {
        let _infallible = write!(line, " ({})", fields.join(", "));
    }
    line
}

fn host(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(host) => host.to_string(),
        HostPattern::Wildcard(suffix) => format!("any.{suffix}"),
    }
}

fn paths(path: &PathMatch) -> Vec<String> {
    match path {
        PathMatch::Any => vec!["/".to_owned()],
        PathMatch::Literal(path) => vec![path.to_string()],
        PathMatch::Template(template) => vec![template.example()],
        PathMatch::Prefix(path) if path.is_empty() => vec!["/".to_owned(), "/x".to_owned()],
        PathMatch::Prefix(path) => vec![path.to_string(), format!("{path}/x")],
        PathMatch::Regex(_) => Vec::new(),
    }
}

/// What a request has besides host, path and method.
struct Rest {
    headers: Vec<(header::HeaderName, HeaderValue)>,
    query: String,
}

impl Rest {
    fn of(what: &Match) -> Option<Self> {
        let mut headers = Vec::new();
        for (name, value) in values(&what.headers.0)? {
            headers.push((name.0.clone(), HeaderValue::from_str(&value).ok()?));
        }
        let cookies = values(&what.cookies.0)?.into_iter();
        let cookies: Vec<String> = cookies
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if !cookies.is_empty() {
            let value = HeaderValue::from_str(&cookies.join("; ")).ok()?;
            headers.push((header::COOKIE, value));
        }
        if what.content == Content::Grpc {
            let value = HeaderValue::from_static("application/grpc");
            headers.push((header::CONTENT_TYPE, value));
        }
        let encoded = |text: &str| utf8_percent_encode(text, QUERY).to_string();
        let query = values(&what.query.0)?.into_iter();
        let query: Vec<String> = query
            .map(|(name, value)| format!("{}={}", encoded(name), encoded(&value)))
            .collect();
        Some(Self {
            headers,
            query: query.join("&"),
        })
    }

    fn request(&self, method: &Method, host: Option<&str>, path: &str) -> Option<RequestHead> {
        let target = match self.query.as_str() {
            "" => path.to_owned(),
            query => format!("{path}?{query}"),
        };
        let uri: Uri = target.parse().ok()?;
        let mut head = RequestHead::new(method.clone(), uri);
        if let Some(host) = host {
            head.set_header(header::HOST, HeaderValue::from_str(host).ok()?);
        }
        for (name, value) in &self.headers {
            head.headers.append(name.clone(), value.clone());
        }
        Some(head)
    }
}

/// What makes a condition hold.
enum Wanted {
    /// This value.
    Value(String),
    /// None at all.
    Nothing,
    /// Only a regex says.
    Unknown,
}

fn wanted(condition: &ValueMatch) -> Wanted {
    match condition {
        ValueMatch::Exact(text) | ValueMatch::Prefix(text) => Wanted::Value(text.to_string()),
        ValueMatch::Present => Wanted::Value("x".to_owned()),
        ValueMatch::Absent => Wanted::Nothing,
        ValueMatch::Regex(_) => Wanted::Unknown,
    }
}

/// The names that shall have a value, with it; none if only a regex says what one of them is.
fn values<N>(conditions: &[(N, ValueMatch)]) -> Option<Vec<(&N, String)>> {
    let mut values = Vec::new();
    for (name, condition) in conditions {
        match wanted(condition) {
            Wanted::Value(value) => values.push((name, value)),
            Wanted::Nothing => {}
            Wanted::Unknown => return None,
        }
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{Found, Table};

    /// The examples of a match, each of which the match itself takes.
    fn check(json: &str, expected: &[&str]) {
        let what: Match = serde_json::from_str(json).expect(json);
        let table = Table::build([(0, [&what])]).expect("a table");
        let requests = requests(&what);
        let lines: Vec<String> = requests.iter().map(line).collect();
        assert_eq!(lines, expected, "{json}");
        for head in &requests {
            let found = table.find(head);
            assert!(matches!(found, Found::Route { .. }), "{json}: {found:?}");
        }
    }

    #[test]
    fn every_example_is_taken_by_its_match() {
        check("{}", &["GET /"]);
        check(r#"{"path": "/a"}"#, &["GET /a"]);
        check(r#"{"path_prefix": "/"}"#, &["GET /", "GET /x"]);
        check(r#"{"path_prefix": "/a"}"#, &["GET /a", "GET /a/x"]);
        check(
            r#"{"path": "/a/{b}/{c:int}/{d:float}/{e:any(f|g)}/{h:path}"}"#,
            &["GET /a/x/1/1.5/f/x/y"],
        );
        check(
            r#"{"path": "/{id:uuid}"}"#,
            &["GET /00000000-0000-4000-8000-000000000000"],
        );
        check(
            r#"{"host": ["a.test", "*.b.test"], "path": "/a", "method": ["PUT", "POST"]}"#,
            &[
                "PUT a.test/a",
                "POST a.test/a",
                "PUT any.b.test/a",
                "POST any.b.test/a",
            ],
        );
        check(
            r#"{"path": "/a", "headers": {"x-b": "c", "x-d": {"present": false}},
                "query": {"e f": {"prefix": "&"}}, "cookies": {"g": "h", "i": {"present": true}}}"#,
            &["GET /a?e%20f=%26 (x-b: c, cookie: g=h; i=x)"],
        );
        check(
            r#"{"grpc": {"service": "acme.Users"}}"#,
            &["POST /acme.Users/x (content-type: application/grpc)"],
        );
    }

    #[test]
    fn what_only_a_regex_says_has_no_example() {
        check(r#"{"path_regex": "/a+"}"#, &[]);
        check(r#"{"path": "/a", "headers": {"b": {"regex": "c"}}}"#, &[]);
    }
}
