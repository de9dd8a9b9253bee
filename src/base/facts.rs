//! What a template may know of a request.
//!
//! | name | is |
//! |---|---|
//! | `path` | what the route's path template took, percent-decoded: `{{ path.id }}` |
//! | `query` | the first value of each query parameter, decoded: `{{ query.page }}` |
//! | `headers` | the first value of each header, names in lower case: `{{ headers['x-user'] }}` |
//! | `method`, `host`, `url_path` | as the client sent them, the path in its normal form |
//! | `client_ip` | the client's address, empty on a Unix socket |
//!
//! Only what a template asks for is gathered.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::base::message::RequestHead;
use crate::base::template::{Template, TemplateError};

/// A request as templates see it.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    head: &'a RequestHead,
    asked_by: Option<&'a Template>,
}

impl<'a> Facts<'a> {
    /// Everything: for a context that holds more than the request.
    pub fn of(head: &'a RequestHead) -> Self {
        Self {
            head,
            asked_by: None,
        }
    }

    fn is_asked_for(&self, name: &str) -> bool {
        self.asked_by.is_none_or(|template| template.uses(name))
    }
}

impl Template {
    /// The text with its places filled in from a request.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render_for(&self, head: &RequestHead) -> Result<String, TemplateError> {
        self.render(Facts {
            head,
            asked_by: Some(self),
        })
    }
}

impl Serialize for Facts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let head = self.head;
        if self.is_asked_for("path") {
            map.serialize_entry("path", &Pairs(|| head.params.iter()))?;
        }
        if self.is_asked_for("query") {
            map.serialize_entry("query", &Pairs(|| first_of_each(head)))?;
        }
        if self.is_asked_for("headers") {
            map.serialize_entry("headers", &Pairs(|| headers(head)))?;
        }
        if self.is_asked_for("method") {
            map.serialize_entry("method", head.method().as_str())?;
        }
        if self.is_asked_for("host") {
            map.serialize_entry("host", head.host().unwrap_or_default())?;
        }
        if self.is_asked_for("url_path") {
            map.serialize_entry("url_path", head.path())?;
        }
        if self.is_asked_for("client_ip") {
            let ip = head.client.ip.map(|ip| ip.to_string());
            map.serialize_entry("client_ip", &ip.unwrap_or_default())?;
        }
        map.end()
    }
}

/// The pairs of a query (`a=1&b=2`), decoded as forms are; a name without `=` has an empty value.
pub fn query_pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
}

fn decoded(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
    } else {
        percent_decode_str(text).decode_utf8_lossy()
    }
}

fn first_of_each(head: &RequestHead) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    // Later entries of a map win, and the first value is the one to keep.
    let pairs: Vec<_> = query_pairs(head.query().unwrap_or_default()).collect();
    pairs.into_iter().rev()
}

fn headers(head: &RequestHead) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
    let pairs: Vec<_> = head.headers.iter().collect();
    let text =
        |value: &'_ http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    pairs
        .into_iter()
        .rev()
        .map(move |(name, value)| (name.as_str(), Cow::Owned(text(value))))
}

/// Pairs, made when they are written.
struct Pairs<F>(F);

impl<F, I, K, V> Serialize for Pairs<F>
where
    F: Fn() -> I,
    I: Iterator<Item = (K, V)>,
    K: Serialize,
    V: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map((self.0)())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderValue, Method, Uri, header};
    use smallvec::smallvec;

    use super::*;
    use crate::base::message::Params;

    fn head() -> RequestHead {
        let uri = Uri::from_static("/users/7/a%20b?q=caf%C3%A9+noir&q=second&flag&bad=%FF");
        let mut head = RequestHead::new(Method::POST, uri);
        let names: Arc<[Box<str>]> = Arc::from(["id".into(), "rest".into()]);
        head.params = Params::new(names, smallvec!["7".into(), "a b".into()]);
        head.set_header(header::HOST, HeaderValue::from_static("shop.example:8080"));
        let first = HeaderValue::from_bytes(b"caf\xe9").expect("obs-text is a value");
        head.headers.append("x-user".parse().expect("valid"), first);
        head.headers.append(
            "x-user".parse().expect("valid"),
            HeaderValue::from_static("b"),
        );
        head.client.ip = Some([10, 0, 0, 1].into());
        head
    }

    #[test]
    fn a_template_sees_the_request() {
        let check = |source: &str, expected: &str| {
            let template: Template = source.parse().expect("valid");
            assert_eq!(template.render_for(&head()).as_deref(), Ok(expected));
        };
        check("{{ path.id }} {{ path.rest }}", "7 a b");
        check(
            "{{ query.q }}|{{ query.flag }}|{{ query.bad }}",
            "café noir||\u{fffd}",
        );
        check("{{ headers['x-user'] }}", "caf\u{fffd}");
        check(
            "{{ method }} {{ host }}{{ url_path }}",
            "POST shop.example/users/7/a%20b",
        );
        check("{{ client_ip }}", "10.0.0.1");
        check("{{ path | tojson }}", r#"{"id": "7", "rest": "a b"}"#);
    }

    #[test]
    fn only_what_is_asked_for_is_gathered() {
        let template: Template = "{{ method }}".parse().expect("valid");
        let head = head();
        let facts = Facts {
            head: &head,
            asked_by: Some(&template),
        };
        let json = serde_json::to_string(&facts).expect("serializes");
        assert_eq!(json, r#"{"method":"POST"}"#);
        let json = serde_json::to_value(Facts::of(&head)).expect("serializes");
        assert_eq!(json.as_object().map(serde_json::Map::len), Some(7));
    }
}
