//! Bodies of our own for error answers.
//!
//! What was wrong is never hidden by it: the status stays, and so do the headers that tell a client
//! what to do (`retry-after`, `www-authenticate`). A gRPC call gets no page, whatever the settings say.

use std::borrow::Cow;
use std::fmt;

use http::header::{self, HeaderName, HeaderValue};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::{Context, Hooks, Kind, Natives, Step};
use crate::base::message::{Request, Response};
use crate::base::template::Template;
use crate::base::values::{OneOrMany, Value};
use crate::telemetry::decision::Decision;

/// Gives error answers a body of your own: of the pages for a status, the one whose content type the
/// client likes best; none if it takes none of them. gRPC calls are left alone.
///
/// Example: `error_pages: {pages: [{status: [404, 5xx], body: "<h1>{{ status }} {{ reason }}</h1>"}]}`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
#[schemars(rename = "ErrorPages")]
pub struct Settings {
    /// The pages, in order: among those that a client likes equally the first is taken.
    pub pages: Vec<Page>,
    /// Whose errors get a page. Default: `gateway`.
    #[serde(default)]
    pub only: Only,
}

/// A body for some statuses.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
#[schemars(rename = "ErrorPage")]
pub struct Page {
    /// For which statuses: one or several of `404`, `5xx`, `500-504`, from 400 to 599.
    pub status: OneOrMany<Statuses>,
    /// The body, a template that knows `status`, `reason` (its name), `flag` (why the gateway answered,
    /// in letters), `meaning` (of the flag), `detail` (a sentence for operators) and `request_id`. In
    /// HTML and XML they are escaped already; in JSON pipe them through `tojson`.
    /// Example: `{"error": {{ reason | tojson }}}`.
    pub body: Template,
    /// The type of the body. Default: `text/html; charset=utf-8`. Example: `application/json`.
    #[serde(default = "html")]
    pub content_type: Value,
}

fn html() -> Value {
    Value(HeaderValue::from_static("text/html; charset=utf-8"))
}

/// Whose errors get a page.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ErrorPagesOnly")]
pub enum Only {
    /// Answers that the gateway makes because something failed.
    #[default]
    Gateway,
    /// These, and what backends answer.
    All,
}

/// One status, or a range of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statuses {
    first: u16,
    last: u16,
}

impl Statuses {
    fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl std::str::FromStr for Statuses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u16>().ok();
        let range = match (text.split_once('-'), text.strip_suffix("xx")) {
            (Some((first, last)), _) => number(first).zip(number(last)),
            (_, Some(hundreds)) => number(hundreds)
                .and_then(|n| n.checked_mul(100))
                .map(|first| (first, first.saturating_add(99))),
            _ => number(text).map(|status| (status, status)),
        };
        match range {
            Some((first, last)) if 400 <= first && first <= last && last <= 599 => {
                Ok(Self { first, last })
            }
            _ => Err(format!(
                "`{text}` is no status of an error: write one from 400 to 599, or `5xx`, or `500-504`"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Statuses;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status such as `404` or `5xx`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Statuses, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Statuses, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Statuses, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Statuses {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "integer", "minimum": 400, "maximum": 599},
            {"type": "string", "pattern": r"^([45]xx|[45][0-9]{2}(-[45][0-9]{2})?)$|\$\{"},
        ]})
    }
}

/// Replaces bodies of error answers.
#[derive(Debug)]
pub struct ErrorPages {
    pages: Box<[Page]>,
    only: Only,
}

/// What a request asked for, if that is not anything; kept for the answer.
#[derive(Clone)]
enum Asked {
    Grpc,
    Accept(HeaderValue),
}

/// The answer has its page: outer ones, which know less of the route, leave it alone.
#[derive(Clone)]
struct Done;

impl Kind for ErrorPages {
    type Settings = Settings;

    fn build(settings: &Settings, _: &Natives) -> Result<Self, String> {
        Ok(Self {
            pages: settings.pages.clone().into(),
            only: settings.only,
        })
    }
}

impl Hooks for ErrorPages {
    fn on_request(&self, request: &mut Request, cx: &mut Context<'_>) -> Step<Request> {
        // Programs mostly accept anything or do not say: they pay nothing.
        let accept = request.head.headers.get(header::ACCEPT);
        if request.head.is_grpc() {
            cx.kept.insert(Asked::Grpc);
        } else if let Some(accept) = accept.filter(|accept| *accept != "*/*") {
            cx.kept.insert(Asked::Accept(accept.clone()));
        }
        Step::Next
    }

    fn on_response(&self, response: &mut Response, cx: &mut Context<'_>) -> Step<Response> {
        let status = response.head.status;
        let is_ours = match self.only {
            Only::All => true,
            Only::Gateway => cx.record.flag.is_some(),
        };
        let is_error = status.is_client_error() || status.is_server_error();
        if !is_error || !is_ours || cx.kept.get::<Done>().is_some() {
            return Step::Next;
        }
        let accept = match cx.kept.get() {
            Some(Asked::Grpc) => return Step::Next,
            Some(Asked::Accept(accept)) => accept.to_str().unwrap_or("*/*"),
            None => "*/*",
        };
        let Some(page) = pick(&self.pages, status.as_u16(), accept) else {
            return Step::Next;
        };
        match page.render(response, cx.record) {
            Ok(body) => {
                replace(response, body, page.content_type.0.clone());
                cx.kept.insert(Done);
            }
            Err(error) => cx.record.note(format!("`error_pages`: {error}")),
        }
        Step::Next
    }
}

/// The page for the status that the client likes best, the first of several.
fn pick<'a>(pages: &'a [Page], status: u16, accept: &str) -> Option<&'a Page> {
    pages
        .iter()
        .filter(|page| page.status.0.iter().any(|range| range.contains(status)))
        .map(|page| (quality(accept, &page.content_type.0), page))
        .filter(|(quality, _)| *quality > 0.0)
        // Of equals `max_by` takes the last.
        .rev()
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, page)| page)
}

/// How much a client likes a content type, from 0 to 1 (RFC 9110, 12.5.1): what the most specific range
/// that fits says.
fn quality(accept: &str, content_type: &HeaderValue) -> f32 {
    let content_type = content_type.to_str().unwrap_or_default();
    let mime = content_type.split(';').next().unwrap_or_default().trim();
    let main = mime.split('/').next().unwrap_or_default();
    let fit = |item: &str| {
        let mut parts = item.split(';').map(str::trim);
        let range = parts.next()?;
        let specific = match range.split_once('/')? {
            ("*", "*") => 1,
            (kind, "*") if kind.eq_ignore_ascii_case(main) => 2,
            _ if range.eq_ignore_ascii_case(mime) => 3,
            _ => return None,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let quality = weight.map_or(Some(1.0), |weight| weight.parse().ok());
        Some((specific, quality.unwrap_or(0.0)))
    };
    let best = accept
        .split(',')
        .filter_map(fit)
        .max_by_key(|(specific, _)| *specific);
    best.map_or(0.0, |(_, quality)| quality)
}

/// What a template knows.
#[derive(Serialize)]
struct Facts<'a> {
    status: u16,
    reason: &'a str,
    flag: &'a str,
    meaning: &'a str,
    detail: Cow<'a, str>,
    request_id: Cow<'a, str>,
}

impl Page {
    fn render(
        &self,
        response: &Response,
        record: &Decision,
    ) -> Result<String, impl fmt::Display + use<>> {
        let content_type = self.content_type.0.to_str().unwrap_or_default();
        let is_markup = content_type.contains("html") || content_type.contains("xml");
        let text = |text| {
            if is_markup {
                escape(text)
            } else {
                Cow::Borrowed(text)
            }
        };
        let request_id = record.request_id.as_ref().and_then(|id| id.to_str().ok());
        self.body.render(Facts {
            status: response.head.status.as_u16(),
            reason: response.head.status.canonical_reason().unwrap_or("Error"),
            flag: record.flag.map_or("", |flag| flag.code()),
            meaning: record.flag.map_or("", |flag| flag.text()),
            detail: text(record.detail.as_deref().unwrap_or_default()),
            request_id: text(request_id.unwrap_or_default()),
        })
    }
}

/// A text that means nothing in HTML and XML but itself.
fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['<', '>', '&', '"', '\'']) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped.into()
}

/// Fields that described the body that was there.
const OF_THE_OLD_BODY: [HeaderName; 8] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::CONTENT_LANGUAGE,
    header::ACCEPT_RANGES,
    header::ETAG,
    header::LAST_MODIFIED,
    header::TRAILER,
];

fn replace(response: &mut Response, body: String, content_type: HeaderValue) {
    for name in &OF_THE_OLD_BODY {
        response.head.headers.remove(name);
    }
    response
        .head
        .headers
        .set(header::CONTENT_TYPE, content_type);
    response.body = body.into();
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::super::testing::*;
    use super::*;
    use crate::telemetry::decision::Flag;

    const PAGES: &str = r#"[
        {"status": [404], "body": "<p>{{ detail }} {{ request_id }}"},
        {"status": ["5xx"], "body": "{{ status }} {{ reason }}"},
        {"status": ["500-503"], "content_type": "application/json",
         "body": "{\"error\": {{ meaning | tojson }}, \"flag\": {{ flag | tojson }}}"}
    ]"#;

    /// The type and the body that a client gets for a failure of the gateway.
    async fn page(status: u16, asked: &[(&str, &str)]) -> (String, String) {
        let it = build(&format!(r#"{{"error_pages": {{"pages": {PAGES}}}}}"#));
        let mut world = World::new();
        assert!(world.down(&it, &mut request("GET", "/", asked)).is_none());
        world.record.fail(Flag::NoRoute, "no route for <this>");
        world.record.request_id = Some(HeaderValue::from_static("'7'"));
        let mut failure = response(&[("content-length", "3"), ("retry-after", "1")]);
        failure.head.status = StatusCode::from_u16(status).expect("a status");
        failure.body = "old".into();
        let answer = world.up(&it, failure);
        assert_eq!(answer.head.status, status);
        assert!(answer.head.headers.contains("retry-after"));
        let content_type = joined(&answer.head.headers, "content-type").unwrap_or_default();
        assert_eq!(
            content_type.is_empty(),
            answer.head.headers.contains("content-length")
        );
        let body = answer.body.collect(1000).await.expect("a body");
        (content_type, String::from_utf8(body.into()).expect("UTF-8"))
    }

    #[tokio::test]
    async fn the_client_gets_the_page_that_it_likes_best() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let html = "text/html; charset=utf-8";
        let check = async |status, asked: &[(&str, &str)], content_type: &str, body: &str| {
            let page = page(status, asked).await;
            assert_eq!(
                page,
                (content_type.to_owned(), body.to_owned()),
                "{asked:?}"
            );
        };
        let not_found = "<p>no route for &lt;this&gt; &#39;7&#39;";
        check(404, &[("accept", browser)], html, not_found).await;
        check(404, &[("accept", "*/*")], html, not_found).await;
        check(404, &[], html, not_found).await;
        check(503, &[("accept", browser)], html, "503 Service Unavailable").await;
        check(503, &[], html, "503 Service Unavailable").await;
        check(504, &[], html, "504 Gateway Timeout").await;
        let json = r#"{"error": "no route matches the request", "flag": "NR"}"#;
        let accept = [("accept", "text/html;q=0.5, application/json")];
        check(503, &accept, "application/json", json).await;
        check(
            503,
            &[("accept", "application/*")],
            "application/json",
            json,
        )
        .await;
        // What the client does not take, or no page is for, stays as it was.
        check(504, &[("accept", "application/json")], "", "old").await;
        check(503, &[("accept", "image/png")], "", "old").await;
        check(403, &[], "", "old").await;
        check(
            503,
            &[("content-type", "application/grpc+proto")],
            "",
            "old",
        )
        .await;
    }

    #[test]
    fn the_most_specific_range_decides() {
        let check = |accept: &str, expected: f32| {
            let liked = quality(
                accept,
                &HeaderValue::from_static("text/html; charset=utf-8"),
            );
            assert!((liked - expected).abs() < f32::EPSILON, "{accept}: {liked}");
        };
        check("text/html", 1.0);
        check("Text/HTML ; q=0.3", 0.3);
        check("text/*;q=0.5, text/html;q=0.2, */*", 0.2);
        check("*/*, text/*;q=0", 0.0);
        check("application/json", 0.0);
        check("nonsense", 0.0);
        check("text/html;q=nonsense", 0.0);
        check("", 0.0);
    }

    /// The body of an answer of the backend's.
    fn backend(only: &str, status: StatusCode) -> Option<u64> {
        let pages = r#"[{"status": ["4xx"], "body": "page"}]"#;
        let it = build(&format!(
            r#"{{"error_pages": {{"only": "{only}", "pages": {pages}}}}}"#
        ));
        World::new().up(&it, Response::status(status)).body.len()
    }

    #[test]
    fn answers_of_backends_get_a_page_only_where_all_do() {
        assert_eq!(backend("gateway", StatusCode::NOT_FOUND), Some(0));
        assert_eq!(backend("all", StatusCode::NOT_FOUND), Some(4));
        assert_eq!(backend("all", StatusCode::OK), Some(0));
    }

    #[test]
    fn an_inner_page_is_left_alone_by_outer_ones() {
        let it = |body: &str| {
            build(&format!(
                r#"{{"error_pages": {{"only": "all", "pages": [{{"status": [404], "body": "{body}"}}]}}}}"#
            ))
        };
        let mut world = World::new();
        let inner = world.up(&it("inner"), Response::status(StatusCode::NOT_FOUND));
        let outer = world.up(&it("the outer"), inner);
        assert_eq!(outer.body.len(), Some(5));
    }

    #[test]
    fn mistakes_are_found_at_the_door() {
        let check = |page: &str, words: &str| {
            let refused = refusal(&format!(r#"{{"error_pages": {{"pages": [{page}]}}}}"#));
            assert!(refused.contains(words), "{refused}");
        };
        for status in [
            "\"6xx\"",
            "200",
            "-404",
            "\"404-\"",
            "\"504-500\"",
            "\"x\"",
            "99999",
            "\"900xx\"",
        ] {
            check(
                &format!(r#"{{"status": [{status}], "body": ""}}"#),
                "no status of an error",
            );
        }
        check(r#"{"status": [404], "body": "{{"}"#, "the template fails");
        check(r#"{"status": [404]}"#, "missing field `body`");
    }
}
