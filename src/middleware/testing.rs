//! What the tests of all kinds need: settings from JSON, a context, a call of each hook.

use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::*;
use crate::base::body::Body;
use crate::base::caller::CallError;

/// Calls nobody.
struct Nobody;

impl Caller for Nobody {
    fn call(
        &self,
        upstream: &str,
        _: Request,
    ) -> LocalBoxFuture<'static, Result<Response, CallError>> {
        let error = CallError::Unknown(upstream.to_owned());
        Box::pin(async move { Err(error) })
    }
}

/// One request's surroundings.
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) record: Decision,
    kept: http::Extensions,
    caller: Rc<dyn Caller>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            now: Instant::now(),
            record: Decision::default(),
            kept: http::Extensions::new(),
            caller: Rc::new(Nobody),
        }
    }

    pub(super) fn cx(&mut self) -> Context<'_> {
        Context {
            effects: Effects::Real,
            now: self.now,
            record: &mut self.record,
            kept: &mut self.kept,
            caller: &self.caller,
        }
    }

    pub(super) fn after(&mut self, period: Duration) {
        self.now += period;
    }

    /// Runs the request hook of a middleware that does not wait.
    pub(super) fn down(&mut self, it: &Middleware, request: &mut Request) -> Option<Response> {
        match it.on_request(request, &mut self.cx()) {
            Step::Next => None,
            Step::Answer(response) => Some(*response),
            Step::Wait(_) => panic!("{it:?} waits"),
        }
    }

    /// Runs the response hook of a middleware that does not wait.
    pub(super) fn up(&mut self, it: &Middleware, mut response: Response) -> Response {
        match it.on_response(&mut response, &mut self.cx()) {
            Step::Next => response,
            Step::Answer(response) => *response,
            Step::Wait(_) => panic!("{it:?} waits"),
        }
    }
}

/// A middleware from its settings as JSON.
pub(super) fn build(json: &str) -> Arc<Middleware> {
    let settings: Settings = serde_json::from_str(json).expect(json);
    Middleware::build(&settings, &Natives::default()).expect(json)
}

/// What is wrong with settings.
pub(super) fn refusal(json: &str) -> String {
    serde_json::from_str::<Settings>(json)
        .expect_err(json)
        .to_string()
}

/// A request of `GET` without headers.
pub(super) fn get(target: &str) -> Request {
    Request::new(Method::GET, target.parse().expect(target), Body::empty())
}

/// A request with headers.
pub(super) fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Request {
    let method = method.parse().expect(method);
    let mut request = Request::new(method, target.parse().expect(target), Body::empty());
    for (name, value) in headers {
        request.head.headers.append(
            HeaderName::try_from(*name).expect(name),
            HeaderValue::try_from(*value).expect(value),
        );
    }
    request
}

/// A plain answer with headers.
pub(super) fn response(headers: &[(&str, &str)]) -> Response {
    headers.iter().fold(
        Response::status(StatusCode::OK),
        |response, (name, value)| {
            response.with_header(
                HeaderName::try_from(*name).expect(name),
                HeaderValue::try_from(*value).expect(value),
            )
        },
    )
}

/// Every value of a header, as it would be read by someone who joins them.
pub(super) fn joined(fields: &crate::base::message::Fields, name: &str) -> Option<String> {
    let values: Vec<&str> = fields
        .all(name)
        .map(|v| v.to_str().expect("ASCII"))
        .collect();
    (!values.is_empty()).then(|| values.join(","))
}
