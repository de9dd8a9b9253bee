//! A fixed answer: status, headers and a body, which may be a template.
//!
//! A body without places is made once: a request then costs a copy of the head and no more.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Extensions, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::status::Status;
use super::{Context, Failed, Kind, Registry, Reply};
use crate::base::body::Body;
use crate::base::message::{Fields, Request, RequestHead, Response, ResponseHead};
use crate::base::per_worker::PerWorker;
use crate::base::problem::Problem;
use crate::base::template::Template;
use crate::base::values::{Name, OneOrMany, Period, Value};

/// Settings of a fixed answer.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "RespondHandler")]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The status code, from 200 to 599. Default: 200.
    #[serde(default = "ok")]
    pub status: Status,
    /// Headers of the answer: a value, or a list of values. A body without a `content-type` here
    /// is `text/plain; charset=utf-8`.
    #[serde(default)]
    pub headers: HashMap<Name, OneOrMany<Value>>,
    /// The body: a text, or a template over the request with `path`, `query`, `headers`, `method`,
    /// `host`, `url_path` and `client_ip`. Values are written as they are; in JSON write
    /// `{{ query.name | tojson }}`, in HTML `{{ query.name | escape }}`. Default: no body.
    /// Example: `"Hello, {{ path.name }}!\n"`.
    pub body: Option<Template>,
    /// Waits before answering, as a slow service would. Default: no wait. Example: `100ms`.
    pub delay: Option<Period>,
}

fn ok() -> Status {
    Status(StatusCode::OK)
}

/// A fixed answer, ready to be copied.
#[derive(Debug)]
pub(super) struct Respond {
    status: StatusCode,
    headers: Headers,
    body: Source,
    delay: Option<Duration>,
}

/// Fields that every answer clones.
#[derive(Debug)]
enum Headers {
    /// Names and values are the program's own: nothing counts how often they are cloned.
    Static(Fields),
    /// They come from the configuration, and their clones are counted: by each worker on its own.
    /// Two workers that count together need twice the time (`benches/handlers.rs`).
    Configured(PerWorker<Fields>),
}

#[derive(Debug)]
enum Source {
    Ready(Bytes),
    Template(Template),
}

/// Up to this many bytes a body is copied rather than shared: a copy costs some 20 ns, a count of
/// references that several workers write more than twice that.
const COPIED: usize = 1024;

impl Kind for Respond {
    type Settings = Settings;

    fn build(settings: &Settings, _: &Registry) -> Result<Self, Problem> {
        let body = match &settings.body {
            None => Source::Ready(Bytes::new()),
            Some(template) => match template.is_static() {
                Some(text) => Source::Ready(Bytes::copy_from_slice(text.as_bytes())),
                None => Source::Template(template.clone()),
            },
        };
        let has_body = !matches!(&body, Source::Ready(bytes) if bytes.is_empty());
        if has_body && settings.status.has_no_body() {
            let status = settings.status.0.as_u16();
            return Err(Problem::error(
                None,
                format!("an answer with the status {status} cannot have a body"),
            )
            .help("take `body` away, or answer with another status"));
        }
        Ok(Self {
            status: settings.status.0,
            headers: headers(settings, has_body)?,
            body,
            delay: settings.delay.map(|delay| delay.0),
        })
    }

    fn reply(&self, request: Request, _: Context) -> Reply {
        let response = match self.response(&request.head) {
            Ok(response) => response,
            Err(failed) => return Reply::Failed(failed),
        };
        match self.delay {
            None => Reply::Now(response),
            Some(delay) => Reply::later(async move {
                tokio::time::sleep(delay).await;
                Ok(response)
            }),
        }
    }
}

impl Respond {
    fn response(&self, head: &RequestHead) -> Result<Response, Failed> {
        let body = match &self.body {
            Source::Ready(bytes) if bytes.len() <= COPIED => {
                Body::full(Bytes::copy_from_slice(bytes))
            }
            Source::Ready(bytes) => Body::full(bytes.clone()),
            Source::Template(template) => match template.render_for(head) {
                Ok(text) => Body::full(text),
                Err(error) => return Err(Failed::new(error.to_string())),
            },
        };
        let head = ResponseHead {
            status: self.status,
            headers: match &self.headers {
                Headers::Static(fields) => fields.clone(),
                Headers::Configured(fields) => fields.get().clone(),
            },
            extensions: Extensions::new(),
        };
        Ok(Response { head, body })
    }
}

/// What the gateway itself writes: a second opinion would break the framing.
const FRAMING: [HeaderName; 4] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
];

fn headers(settings: &Settings, has_body: bool) -> Result<Headers, Problem> {
    let mut sorted: Vec<_> = settings.headers.iter().collect();
    sorted.sort_by(|(a, _), (b, _)| a.0.as_str().cmp(b.0.as_str()));
    let mut fields = Fields::default();
    for (Name(name), OneOrMany(values)) in sorted {
        if FRAMING.contains(name) {
            let message = format!("`{name}` is written by the gateway and cannot be set");
            return Err(Problem::error(None, message));
        }
        for Value(value) in values {
            fields.append(name.clone(), value.clone());
        }
    }
    if has_body && !fields.contains(header::CONTENT_TYPE) {
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        fields.set(header::CONTENT_TYPE, text);
    }
    if settings.headers.is_empty() {
        Ok(Headers::Static(fields))
    } else {
        Ok(Headers::Configured(PerWorker::new(fields)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use serde_json::json;
    use smallvec::smallvec;

    use super::*;
    use crate::base::message::Params;
    use crate::handler::testing::{ask, context, get, header, problem, text, try_ask};
    use crate::handler::{Handler, Settings as Any};

    #[tokio::test]
    async fn a_fixed_answer_is_given_as_written() {
        let settings = json!({"respond": {
            "status": 418,
            "headers": {"X-Kind": ["tea"], "set-cookie": ["a=1", "b=2"]},
            "body": "short and stout",
        }});
        let response = ask(settings, get("/")).await;
        assert_eq!(response.head.status, 418);
        assert_eq!(header(&response, "x-kind"), Some("tea"));
        assert_eq!(response.head.headers.all("set-cookie").count(), 2);
        assert_eq!(
            header(&response, "content-type"),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(text(response).await, "short and stout");
    }

    #[tokio::test]
    async fn all_of_it_may_be_left_out() {
        let response = ask(json!({"respond": {}}), get("/")).await;
        assert_eq!(response.head.status, 200);
        assert!(response.head.headers.is_empty());
        assert!(response.body.is_empty());
    }

    #[tokio::test]
    async fn a_template_is_filled_in_from_the_request() {
        let settings = json!({"respond": {
            "headers": {"content-type": ["application/json"]},
            "body": "{\"hello\": {{ path.name | tojson }}, \"page\": {{ query.page | tojson }}}",
        }});
        let mut request = get("/hello/x?page=2%22");
        let names: Arc<[Box<str>]> = Arc::from(["name".into()]);
        request.head.params = Params::new(names, smallvec!["A\"da".into()]);
        let response = ask(settings, request).await;
        assert_eq!(header(&response, "content-type"), Some("application/json"));
        let body: serde_json::Value =
            serde_json::from_str(&text(response).await).expect("valid JSON");
        assert_eq!(body, json!({"hello": "A\"da", "page": "2\""}));
    }

    #[tokio::test]
    async fn a_render_that_fails_is_a_failed_handler() {
        let settings = json!({"respond": {"body": "{{ 'x' * 99999999 }}"}});
        let failed = try_ask(settings, get("/"), context())
            .await
            .expect_err("fails");
        assert!(failed.detail.contains("too many steps"), "{failed}");
    }

    #[tokio::test]
    async fn large_bodies_are_shared_and_small_ones_copied() {
        for length in [COPIED, COPIED + 1] {
            let settings = json!({"respond": {"body": "x".repeat(length)}});
            let response = ask(settings, get("/")).await;
            assert_eq!(response.body.len(), Some(length as u64));
        }
    }

    #[tokio::test]
    async fn every_worker_gives_the_same_answer() {
        let settings = json!({"respond": {"body": "same", "headers": {"x-a": ["1", "2"]}}});
        let settings: Any = serde_json::from_value(settings).expect("valid");
        let handler = Handler::build("x", &settings, &Registry::new()).expect("a handler");
        let answer = |handler: Arc<Handler>| {
            let answer = handler.run(get("/"), context()).now_or_never();
            let response = answer.expect("at once").expect("an answer");
            let fields = response.head.headers.all("x-a").cloned();
            (fields.collect::<Vec<_>>(), text(response).now_or_never())
        };
        let there = Arc::clone(&handler);
        let there = std::thread::spawn(move || answer(there)).join();
        let here = answer(handler);
        assert_eq!(here.0, ["1", "2"]);
        assert_eq!(here.1.as_deref(), Some("same"));
        assert_eq!(here, there.expect("an answer"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_passes_before_the_answer() {
        let start = tokio::time::Instant::now();
        ask(json!({"respond": {"delay": "100ms"}}), get("/")).await;
        assert!(start.elapsed() >= Duration::from_millis(100));
    }

    #[test]
    fn without_a_delay_the_answer_is_there_at_once() {
        let settings: Any = serde_json::from_value(json!({"respond": {"body": "x"}})).expect("ok");
        let handler = Handler::build("x", &settings, &Registry::new()).expect("a handler");
        let reply = handler.inner.reply(get("/"), context());
        assert!(matches!(reply, Reply::Now(_)), "{reply:?}");
    }

    #[test]
    fn contradictions_are_problems() {
        let check = |settings: serde_json::Value, words: &str| {
            let problem = problem(json!({"respond": settings}));
            assert!(problem.contains(words), "{problem}");
        };
        check(
            json!({"status": 204, "body": "x"}),
            "status 204 cannot have a body",
        );
        check(json!({"status": 100}), "100 is not a status");
        check(
            json!({"headers": {"Content-Length": ["5"]}}),
            "`content-length` is written by",
        );
        check(json!({"body": "{{ path.name"}), "the template fails: ");
        check(
            json!({"headers": {"two words": ["x"]}}),
            "is not a header name",
        );
        check(json!({"text": "x"}), "unknown field `text`");
    }
}
