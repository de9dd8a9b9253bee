//! Calls several upstreams at once and merges their JSON answers under keys.
//!
//! ```yaml
//! fan_out:
//!   timeout: 2s
//!   parts:
//!     user: {upstream: users, path: "/users/{{ path.id }}"}
//!     tips: {upstream: tips, path: "/tips?for={{ path.id }}", timeout: 200ms, required: false}
//! ```
//! answers `{"tips": […], "user": {…}}`. A part that fails and is not required becomes `null`, and
//! an object `errors` beside the parts says why, by part; without failures there is no `errors`. A
//! part fails when its upstream cannot be reached in time, answers with another status than 2xx,
//! or with something that is not JSON. When a required part fails, the answer is 504 for a timeout
//! and else 502, at once, with `{"error": …, "part": …}`. All calls that are still under way are
//! dropped then, as they are when the client leaves.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Context, Failed, Kind, Registry, Reply};
use crate::base::body::Body;
use crate::base::caller::CallError;
use crate::base::message::{Request, RequestHead, Response};
use crate::base::problem::{Problem, Spanned};
use crate::base::template::{PathTemplate, Template};
use crate::base::values::{Name, Period, Size};
use crate::telemetry::decision::Flag;

/// Settings of a fan-out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "FanOutHandler")]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The calls, by the key under which each answer appears; `errors` is taken.
    pub parts: BTreeMap<String, Part>,
    /// How long each part may take that has no `timeout` of its own, which cannot be longer.
    /// Default: 15s.
    #[serde(default = "timeout")]
    pub timeout: Period,
    /// Headers of the request that every part receives. Default: `authorization`, `traceparent`,
    /// `tracestate`, `x-request-id`.
    #[serde(default = "forward")]
    pub forward: Vec<Name>,
    /// How long the body of one part's answer may be; a longer one is a failure. Default: 1MiB.
    #[serde(default = "max_body")]
    pub max_body: Size,
}

/// One call of a fan-out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "FanOutPart")]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The upstream to call, by name.
    pub upstream: Spanned<String>,
    /// Path and query of the call, a template over the request. Values are percent-encoded, so
    /// that none can leave its place; one that may bring slashes is piped through `safe`.
    /// Example: `/users/{{ path.id }}`.
    pub path: PathTemplate,
    /// The method. Default: GET.
    #[serde(default)]
    pub method: PartMethod,
    /// Headers of the call, as templates over the request. Default: `accept: application/json`
    /// and those of `forward`, which these replace.
    #[serde(default)]
    pub headers: HashMap<Name, Template>,
    /// The body of the call, a template over the request. Default: none. Example:
    /// `{"id": {{ path.id | tojson }}}` with the header `content-type: application/json`.
    pub body: Option<Template>,
    /// How long this part may take. Default: the fan-out's `timeout`.
    pub timeout: Option<Period>,
    /// Whether the whole answer fails without this part. Default: true.
    #[serde(default = "yes")]
    pub required: bool,
}

/// The method of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[schemars(rename = "FanOutMethod")]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "their names say it")]
pub enum PartMethod {
    #[default]
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

fn timeout() -> Period {
    Period(Duration::from_secs(15))
}

fn max_body() -> Size {
    Size(1 << 20)
}

fn yes() -> bool {
    true
}

fn forward() -> Vec<Name> {
    ["authorization", "traceparent", "tracestate", "x-request-id"]
        .map(|name| Name(HeaderName::from_static(name)))
        .into()
}

/// A fan-out, checked.
#[derive(Debug)]
pub(super) struct FanOut(Settings);

impl Kind for FanOut {
    type Settings = Settings;

    fn build(settings: &Settings, _: &Registry) -> Result<Self, Problem> {
        if settings.parts.is_empty() {
            let message = "a fan-out needs at least one part";
            return Err(Problem::error(None, message));
        }
        if let Some(part) = settings.parts.get(ERRORS) {
            let message = "a part cannot be called `errors`: that key tells which parts failed";
            return Err(Problem::error(part.upstream.span, message));
        }
        for (key, part) in &settings.parts {
            let path = part.path.source();
            if !path.starts_with('/') {
                let message = format!("the path `{path}` of the part `{key}` must begin with `/`");
                return Err(Problem::error(part.upstream.span, message));
            }
        }
        Ok(Self(settings.clone()))
    }

    fn reply(&self, request: Request, context: Context) -> Reply {
        // Everything that needs the settings happens here, so that the future owns all it needs
        // and workers do not count references to them. The request's body is not used.
        let mut calls = Vec::with_capacity(self.0.parts.len());
        for (key, part) in &self.0.parts {
            match self.call(key, part, &request.head, &context) {
                Ok(call) => calls.push(call),
                Err(failed) => return Reply::Failed(failed),
            }
        }
        Reply::later(answer(calls))
    }

    fn upstreams(settings: &Settings) -> Vec<&Spanned<String>> {
        settings.parts.values().map(|part| &part.upstream).collect()
    }
}

/// The key that tells which parts failed.
const ERRORS: &str = "errors";

/// A part's outcome.
struct Outcome {
    key: Box<str>,
    required: bool,
    result: Result<Box<RawValue>, PartError>,
}

#[derive(Debug, thiserror::Error)]
enum PartError {
    #[error("no answer in time")]
    Timeout,
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("upstream `{0}` answered {1}")]
    Status(String, StatusCode),
    #[error("the answer of upstream `{0}` broke off or is too long: {1}")]
    Body(String, String),
    #[error("the answer of upstream `{0}` is not JSON")]
    NotJson(String),
}

impl FanOut {
    /// Prepares a call; nothing is sent until the future is polled.
    fn call(
        &self,
        key: &str,
        part: &Part,
        head: &RequestHead,
        context: &Context,
    ) -> Result<impl Future<Output = Outcome> + 'static, Failed> {
        let request = self
            .request(part, head)
            .map_err(|why| Failed::new(format!("the part `{key}` cannot be asked: {why}")))?;
        let limit = part.timeout.unwrap_or(self.0.timeout).min(self.0.timeout).0;
        let max_body = self.0.max_body.0.try_into().unwrap_or(usize::MAX);
        let upstream = part.upstream.value.clone();
        let (key, required) = (key.into(), part.required);
        let call = context.caller.call(&upstream, request);
        Ok(async move {
            let fetch = pin!(fetch(upstream, call, max_body));
            let result = tokio::time::timeout(limit, fetch)
                .await
                .unwrap_or(Err(PartError::Timeout));
            Outcome {
                key,
                required,
                result,
            }
        })
    }

    fn request(&self, part: &Part, head: &RequestHead) -> Result<Request, String> {
        let path = part
            .path
            .render_for(head)
            .map_err(|error| error.to_string())?;
        if climbs(&path) {
            return Err("a value would lead its path elsewhere by `..`".to_owned());
        }
        let uri: Uri = path
            .parse()
            .map_err(|_| "its path has characters that must be encoded".to_owned())?;
        let body = match &part.body {
            Some(template) => Body::full(template.render_for(head).map_err(|e| e.to_string())?),
            None => Body::empty(),
        };
        let mut request = Request::new(part.method.into(), uri, body);
        let accept = HeaderValue::from_static("application/json");
        request.head.set_header(header::ACCEPT, accept);
        for Name(name) in &self.0.forward {
            for value in head.headers.all(name) {
                request.head.headers.append(name.clone(), value.clone());
            }
        }
        for (Name(name), template) in &part.headers {
            let text = template.render_for(head).map_err(|e| e.to_string())?;
            let value = HeaderValue::try_from(text)
                .map_err(|_| format!("a value does not suit the header `{name}`"))?;
            request.head.set_header(name.clone(), value);
        }
        request.head.client = head.client;
        Ok(request)
    }
}

impl From<PartMethod> for Method {
    fn from(method: PartMethod) -> Self {
        match method {
            PartMethod::Get => Self::GET,
            PartMethod::Post => Self::POST,
            PartMethod::Put => Self::PUT,
            PartMethod::Patch => Self::PATCH,
            PartMethod::Delete => Self::DELETE,
        }
    }
}

/// True if a segment of the path leads upwards once it is decoded.
fn climbs(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    path.split('/').any(|segment| {
        let name = percent_decode_str(segment).decode_utf8_lossy();
        matches!(&*name, "." | "..")
    })
}

/// One part's JSON, as its upstream wrote it.
async fn fetch(
    upstream: String,
    call: impl Future<Output = Result<Response, CallError>>,
    max_body: usize,
) -> Result<Box<RawValue>, PartError> {
    let response = call.await?;
    let status = response.head.status;
    if !status.is_success() {
        return Err(PartError::Status(upstream, status));
    }
    let bytes: Bytes = match response.body.collect(max_body).await {
        Ok(bytes) => bytes,
        Err(error) => return Err(PartError::Body(upstream, error.to_string())),
    };
    // Checked, but neither parsed into a tree nor written anew.
    serde_json::from_slice(&bytes).map_err(|_| PartError::NotJson(upstream))
}

/// Runs all calls at once; the first required part that fails ends them all.
async fn answer(calls: Vec<impl Future<Output = Outcome>>) -> Result<Response, Failed> {
    let mut calls: FuturesUnordered<_> = calls.into_iter().collect();
    let mut merged = BTreeMap::new();
    let mut errors = BTreeMap::new();
    while let Some(outcome) = calls.next().await {
        let Outcome {
            key,
            required,
            result,
        } = outcome;
        match result {
            Ok(json) => merged.insert(key, Entry::Json(json)),
            Err(error) if required => return Err(failure(&key, &error)),
            Err(error) => {
                errors.insert(key.clone(), error.to_string());
                merged.insert(key, Entry::Missing)
            }
        };
    }
    if !errors.is_empty() {
        merged.insert(ERRORS.into(), Entry::Errors(errors));
    }
    Ok(Response::json(StatusCode::OK, &merged))
}

#[derive(Serialize)]
#[serde(untagged)]
enum Entry {
    Json(Box<RawValue>),
    Missing,
    Errors(BTreeMap<Box<str>, String>),
}

/// What the client is told: which upstream failed, and how, is for the operator's log.
#[derive(Serialize)]
struct Told<'a> {
    error: &'a str,
    part: &'a str,
}

fn failure(part: &str, error: &PartError) -> Failed {
    let is_late = matches!(
        error,
        PartError::Timeout | PartError::Call(CallError::Timeout(_))
    );
    let (status, flag) = match error {
        _ if is_late => (StatusCode::GATEWAY_TIMEOUT, Flag::UpstreamTimeout),
        PartError::Call(_) => (StatusCode::BAD_GATEWAY, Flag::ConnectFailed),
        PartError::Body(..) => (StatusCode::BAD_GATEWAY, Flag::UpstreamClosed),
        _ => (StatusCode::BAD_GATEWAY, Flag::UpstreamProtocol),
    };
    let told = Told {
        error: if is_late { "timeout" } else { "failed" },
        part,
    };
    Failed::new(format!("the part `{part}` failed: {error}"))
        .flag(flag)
        .answer(Response::json(status, &told))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use serde_json::{Value, json};

    use super::*;
    use crate::handler::testing::{
        Fake, ask, context_with, get, header, problem, text, try_ask, with_header,
    };

    fn json_answer(value: &Value) -> impl Fn(&Request) -> Result<Response, CallError> + 'static {
        let value = value.clone();
        move |_| Ok(Response::json(StatusCode::OK, &value))
    }

    fn failed(_: &Request) -> Result<Response, CallError> {
        Err(CallError::Failed {
            upstream: "tips".into(),
            detail: "refused".into(),
        })
    }

    fn settings(tips_required: bool) -> Value {
        json!({"fan_out": {"timeout": "2s", "parts": {
            "user": {"upstream": "users", "path": "/users/{{ query.id }}"},
            "tips": {"upstream": "tips", "path": "/tips", "timeout": "200ms",
                     "required": tips_required},
        }}})
    }

    async fn merged(fake: Fake, required: bool) -> (u16, Value) {
        let context = context_with(Rc::new(fake));
        let response = try_ask(settings(required), get("/?id=7"), context).await;
        let response = response.unwrap_or_else(Failed::into_response);
        let status = response.head.status.as_u16();
        assert_eq!(header(&response, "content-type"), Some("application/json"));
        let body = serde_json::from_str(&text(response).await).expect("JSON");
        (status, body)
    }

    #[tokio::test(start_paused = true)]
    async fn parts_are_asked_at_once_and_merged() {
        let fake = Fake::default()
            .answer("users", 1_900, json_answer(&json!({"name": "Ada"})))
            .answer("tips", 190, json_answer(&json!([1, 2])));
        let start = tokio::time::Instant::now();
        let expected = json!({"user": {"name": "Ada"}, "tips": [1, 2]});
        assert_eq!(merged(fake, true).await, (200, expected));
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn optional_parts_may_fail() {
        type Case = (
            u64,
            fn(&Request) -> Result<Response, CallError>,
            &'static str,
        );
        let cases: [Case; 5] = [
            (0, failed, "upstream `tips` failed: refused"),
            (300, failed, "no answer in time"),
            (
                0,
                |_| Ok(Response::status(StatusCode::NOT_FOUND)),
                "upstream `tips` answered 404 Not Found",
            ),
            (
                0,
                |_| Ok(Response::text(StatusCode::OK, "<html>")),
                "the answer of upstream `tips` is not JSON",
            ),
            (
                0,
                |_| Ok(Response::text(StatusCode::OK, vec![b' '; 2 << 20])),
                "the answer of upstream `tips` broke off or is too long: the body is longer \
                 than its limit",
            ),
        ];
        for (after, answer, why) in cases {
            let fake = Fake::default()
                .answer("users", 0, json_answer(&json!(7)))
                .answer("tips", after, answer);
            let expected = json!({"user": 7, "tips": null, "errors": {"tips": why}});
            assert_eq!(merged(fake, false).await, (200, expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_required_part_fails_the_whole_at_once() {
        let fake = Fake::default()
            .answer("users", 1_000, json_answer(&json!(7)))
            .answer("tips", 0, failed);
        let over = Rc::clone(&fake.over);
        let start = tokio::time::Instant::now();
        let expected = json!({"error": "failed", "part": "tips"});
        assert_eq!(merged(fake, true).await, (502, expected));
        assert!(start.elapsed() < Duration::from_millis(100));
        assert_eq!(*over.borrow(), 2, "the other call is dropped");

        let fake = Fake::default()
            .answer("users", 0, json_answer(&json!(7)))
            .answer("tips", 300, json_answer(&json!([])));
        let expected = json!({"error": "timeout", "part": "tips"});
        assert_eq!(merged(fake, true).await, (504, expected));
    }

    #[tokio::test(start_paused = true)]
    async fn the_failure_says_why_to_operators() {
        let context = context_with(Rc::new(Fake::default().answer("users", 0, failed)));
        let failed = try_ask(settings(true), get("/?id=7"), context).await;
        let failed = failed.expect_err("no upstream `tips`");
        assert_eq!(failed.flag, Flag::ConnectFailed);
        assert!(failed.detail.starts_with("the part `"), "{failed}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_cancels_all_calls() {
        let fake = Fake::default()
            .answer("users", 1_000, json_answer(&json!(7)))
            .answer("tips", 150, json_answer(&json!(7)));
        let over = Rc::clone(&fake.over);
        let mut asking = Box::pin(merged(fake, true));
        assert!(futures_util::poll!(&mut asking).is_pending());
        assert_eq!(*over.borrow(), 0);
        drop(asking);
        assert_eq!(*over.borrow(), 2);
    }

    #[tokio::test]
    async fn calls_carry_what_they_should() {
        let fake = Rc::new(Fake::default().answer("a", 0, json_answer(&json!(1))));
        let settings = json!({"fan_out": {"parts": {"a": {
            "upstream": "a", "method": "POST", "path": "/x/{{ query.id }}?y={{ query.id }}",
            "headers": {"x-user": "{{ headers['x-user'] | upper }}", "content-type": "text/plain"},
            "body": "id={{ query.id }}",
        }}}});
        let mut request = get("/?id=a%2F%26b");
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("x-user", "ada"),
            ("x-request-id", "r1"),
            ("cookie", "secret=1"),
        ] {
            request = with_header(request, name, value);
        }
        let answer = try_ask(settings, request, context_with(Rc::clone(&fake))).await;
        answer.expect("an answer");
        let (upstream, asked) = fake.asked.borrow_mut().pop().expect("asked");
        assert_eq!(upstream, "a");
        assert_eq!(asked.head.method(), "POST");
        assert_eq!(asked.head.target(), "/x/a%2F%26b?y=a%2F%26b");
        let mut names: Vec<_> = asked.head.headers.iter().map(|(n, _)| n.as_str()).collect();
        names.sort_unstable();
        let expected = [
            "accept",
            "authorization",
            "content-type",
            "x-request-id",
            "x-user",
        ];
        assert_eq!(names, expected);
        assert_eq!(asked.head.header("x-user"), Some("ADA"));
        assert_eq!(asked.body.collect(100).await.expect("a body"), "id=a/&b");
    }

    #[tokio::test]
    async fn no_value_leads_a_path_elsewhere() {
        let settings = json!({"fan_out": {"parts": {
            "a": {"upstream": "a", "path": "/private/{{ query.id | safe }}/x"}}}});
        for id in ["..", "%2e%2e", "a/../..", "%252e%252e", "."] {
            let context = context_with(Rc::new(Fake::default()));
            let request = get(&format!("/?id={id}"));
            let failed = try_ask(settings.clone(), request, context).await;
            let failed = failed.expect_err(id);
            assert_eq!(failed.flag, Flag::HandlerFailed);
            assert!(failed.detail.contains("elsewhere"), "{id}: {failed}");
        }
    }

    #[tokio::test]
    async fn an_unknown_upstream_is_a_failed_part() {
        let parts = json!({"a": {"upstream": "nobody", "path": "/", "required": false}});
        let response = ask(json!({"fan_out": {"parts": parts}}), get("/")).await;
        let expected = r#"{"a":null,"errors":{"a":"there is no upstream `nobody`"}}"#;
        assert_eq!(text(response).await, expected);
    }

    #[test]
    fn the_upstreams_are_told() {
        let settings: crate::handler::Settings =
            serde_json::from_value(settings(true)).expect("valid");
        let names: Vec<_> = settings
            .upstreams()
            .iter()
            .map(|n| n.value.as_str())
            .collect();
        assert_eq!(names, ["tips", "users"]);
    }

    #[test]
    fn contradictions_are_problems() {
        let check = |parts: Value, words: &str| {
            let problem = problem(json!({"fan_out": {"parts": parts}}));
            assert!(problem.contains(words), "{problem}");
        };
        check(json!({}), "at least one part");
        check(
            json!({"errors": {"upstream": "a", "path": "/"}}),
            "cannot be called `errors`",
        );
        check(
            json!({"a": {"upstream": "a", "path": "x"}}),
            "must begin with `/`",
        );
        check(
            json!({"a": {"upstream": "a", "path": "/{{"}}),
            "the template fails",
        );
        check(json!({"a": {"path": "/"}}), "missing field `upstream`");
        check(
            json!({"a": {"upstream": "a", "path": "/", "method": "get"}}),
            "unknown variant",
        );
    }
}
