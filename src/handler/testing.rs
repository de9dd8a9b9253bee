//! What the tests of this floor share: a caller with answers of its own, requests, contexts.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use http::{Method, Uri};

use super::blocking::Pool;
use super::{Context, Failed, Handler, Registry, Settings};
use crate::base::caller::{CallError, Caller};
use crate::base::message::{Request, Response};

type Answer = Box<dyn Fn(&Request) -> (Duration, Result<Response, CallError>)>;

/// Answers by upstream name, after a while, and notes whom it was asked for.
#[derive(Default)]
pub(super) struct Fake {
    answers: HashMap<&'static str, Answer>,
    pub(super) asked: RefCell<Vec<(String, Request)>>,
    /// Counts the calls that were dropped or answered.
    pub(super) over: Rc<RefCell<usize>>,
}

impl Fake {
    pub(super) fn answer(
        mut self,
        upstream: &'static str,
        after: u64,
        answer: impl Fn(&Request) -> Result<Response, CallError> + 'static,
    ) -> Self {
        let after = Duration::from_millis(after);
        self.answers
            .insert(upstream, Box::new(move |request| (after, answer(request))));
        self
    }
}

struct Count(Rc<RefCell<usize>>);

impl Drop for Count {
    fn drop(&mut self) {
        *self.0.borrow_mut() += 1;
    }
}

impl Caller for Fake {
    fn call(
        &self,
        upstream: &str,
        request: Request,
    ) -> LocalBoxFuture<'static, Result<Response, CallError>> {
        let answer = match self.answers.get(upstream) {
            Some(answer) => answer(&request),
            None => (Duration::ZERO, Err(CallError::Unknown(upstream.to_owned()))),
        };
        self.asked.borrow_mut().push((upstream.to_owned(), request));
        let count = Count(Rc::clone(&self.over));
        async move {
            let _count = count;
            tokio::time::sleep(answer.0).await;
            answer.1
        }
        .boxed_local()
    }
}

pub(super) fn context() -> Context {
    context_with(Rc::new(Fake::default()))
}

pub(super) fn context_with(caller: Rc<Fake>) -> Context {
    Context {
        deadline: None,
        caller,
        blocking: Pool::new(4, 16).for_worker(),
    }
}

pub(super) fn request(method: Method, target: &str) -> Request {
    let uri: Uri = target.parse().expect("a valid target");
    Request::new(method, uri, ())
}

pub(super) fn get(target: &str) -> Request {
    request(Method::GET, target)
}

pub(super) fn with_header(mut request: Request, name: &'static str, value: &str) -> Request {
    let value = value.parse().expect("a valid value");
    request
        .head
        .headers
        .append(http::HeaderName::from_static(name), value);
    request
}

/// Builds a handler from settings and asks it.
pub(super) async fn ask(settings: serde_json::Value, request: Request) -> Response {
    try_ask(settings, request, context())
        .await
        .expect("an answer")
}

pub(super) async fn try_ask(
    settings: serde_json::Value,
    request: Request,
    context: Context,
) -> Result<Response, Failed> {
    let settings: Settings = serde_json::from_value(settings).expect("valid settings");
    let handler = Handler::build("test", &settings, &Registry::new()).expect("a handler");
    handler.run(request, context).await
}

/// The problem with settings: serde's or that of building.
pub(super) fn problem(settings: serde_json::Value) -> String {
    let settings = match serde_json::from_value::<Settings>(settings) {
        Ok(settings) => settings,
        Err(error) => return error.to_string(),
    };
    let problem = Handler::build("test", &settings, &Registry::new()).expect_err("a problem");
    problem.to_string()
}

pub(super) async fn text(response: Response) -> String {
    let body = response.body.collect(1 << 20).await.expect("a body");
    String::from_utf8(body.to_vec()).expect("text")
}

pub(super) fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.head.headers.text(name)
}
