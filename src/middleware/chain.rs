//! A list of middlewares: one `for` loop down, one `for` loop up.
//!
//! Nothing is allocated unless a middleware waits. A chain is driven in two ways: step by step with
//! [`Chain::down`] and [`Chain::up`], by whoever must decide what happens during a wait, or at once
//! with [`Chain::run_down`] and [`Chain::run_up`].
//!
//! What must hold: the response hooks that run are those of the middlewares whose request hooks let
//! the request through, in reverse, each once; the one that answered is not among them.

use std::sync::Arc;

use futures_util::future::LocalBoxFuture;

use super::{Context, Middleware, Resume, Step};
use crate::base::clock;
use crate::base::message::{Request, Response};

/// Middlewares in the order in which they see a request.
#[derive(Debug, Default, Clone)]
pub struct Chain(Box<[Link]>);

#[derive(Debug, Clone)]
struct Link {
    /// The name in the configuration, or the kind of one that is written in place.
    label: Arc<str>,
    middleware: Arc<Middleware>,
}

/// Where the way down has led.
pub enum Down {
    /// Every middleware let the request through.
    Through,
    /// The middleware at this place answered; those before it have run.
    Answer {
        /// Its answer, which no response hook has seen yet.
        response: Box<Response>,
        /// Its place in the chain.
        at: usize,
    },
    /// The middleware at this place waits: go on with [`Chain::resume_down`].
    Wait {
        /// What it waits for.
        future: LocalBoxFuture<'static, Resume<Request>>,
        /// Its place in the chain.
        at: usize,
    },
}

/// Where the way up has led.
pub enum Up {
    /// The answer has passed every middleware that it had to.
    Done,
    /// The middleware at this place waits: go on with [`Chain::resume_up`].
    Wait {
        /// What it waits for.
        future: LocalBoxFuture<'static, Resume<Response>>,
        /// Its place in the chain.
        at: usize,
    },
}

/// What came of a whole way down.
#[derive(Debug)]
pub enum Outcome {
    /// Every middleware let the request through: ask the backend.
    Through,
    /// A middleware answered.
    Answer {
        /// Its answer, which no response hook has seen yet.
        response: Box<Response>,
        /// Its place in the chain, and so how many hooks the way up must run.
        at: usize,
    },
}

impl Chain {
    /// A chain of labelled middlewares, the first one outermost.
    pub fn new<L: Into<Arc<str>>>(links: impl IntoIterator<Item = (L, Arc<Middleware>)>) -> Self {
        let link = |(label, middleware): (L, _)| Link {
            label: label.into(),
            middleware,
        };
        Self(links.into_iter().map(link).collect())
    }

    /// Number of middlewares.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without any middleware.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The label of the middleware at a place.
    pub fn label(&self, at: usize) -> Option<&str> {
        self.0.get(at).map(|link| &*link.label)
    }

    /// Labels and middlewares, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Middleware>)> {
        self.0.iter().map(|link| (&*link.label, &link.middleware))
    }

    /// Runs the request hooks from place `from` on.
    pub fn down(&self, from: usize, request: &mut Request, cx: &mut Context<'_>) -> Down {
        for (at, link) in self.0.iter().enumerate().skip(from) {
            match link.middleware.on_request(request, cx) {
                Step::Next => {}
                Step::Answer(response) => return link.answers(response, at, cx),
                Step::Wait(future) => return Down::Wait { future, at },
            }
        }
        Down::Through
    }

    /// Goes on after the wait of the middleware at place `at`.
    pub fn resume_down(
        &self,
        at: usize,
        resume: Resume<Request>,
        request: &mut Request,
        cx: &mut Context<'_>,
    ) -> Down {
        match resume(request, cx) {
            Step::Next => self.down(at + 1, request, cx),
            Step::Wait(future) => Down::Wait { future, at },
            Step::Answer(response) => match self.0.get(at) {
                Some(link) => link.answers(response, at, cx),
                None => Down::Answer { response, at },
            },
        }
    }

    /// Runs the response hooks of the first `count` middlewares, the last of them first.
    ///
    /// `count` is [`Chain::len`] for an answer of the backend, and `at` for one that the middleware
    /// at that place has made.
    pub fn up(&self, count: usize, response: &mut Response, cx: &mut Context<'_>) -> Up {
        for (at, link) in self.0.iter().enumerate().take(count).rev() {
            match link.middleware.on_response(response, cx) {
                Step::Next => {}
                Step::Answer(other) => link.replaces(response, *other, cx),
                Step::Wait(future) => return Up::Wait { future, at },
            }
        }
        Up::Done
    }

    /// Goes on after the wait of the middleware at place `at`.
    pub fn resume_up(
        &self,
        at: usize,
        resume: Resume<Response>,
        response: &mut Response,
        cx: &mut Context<'_>,
    ) -> Up {
        match resume(response, cx) {
            Step::Wait(future) => return Up::Wait { future, at },
            Step::Next => {}
            Step::Answer(other) => match self.0.get(at) {
                Some(link) => link.replaces(response, *other, cx),
                None => *response = *other,
            },
        }
        self.up(at, response, cx)
    }

    /// Runs one request hook to its end, for whoever looks at what each of them does; a response is
    /// its answer.
    ///
    /// # Cancel safety
    /// As [`Chain::run_down`].
    pub async fn step_down(
        &self,
        at: usize,
        request: &mut Request,
        cx: &mut Context<'_>,
    ) -> Option<Box<Response>> {
        let link = self.0.get(at)?;
        let mut step = link.middleware.on_request(request, cx);
        loop {
            match step {
                Step::Next => return None,
                Step::Answer(response) => {
                    cx.record.middleware = Some(link.middleware.kind());
                    return Some(response);
                }
                Step::Wait(future) => {
                    let resume = future.await;
                    cx.now = clock::now();
                    step = resume(request, cx);
                }
            }
        }
    }

    /// Runs the request hooks to the end, waiting where one must.
    ///
    /// # Cancel safety
    /// Dropping the future drops what a middleware waits for; hooks that have run are not undone.
    pub async fn run_down(&self, request: &mut Request, cx: &mut Context<'_>) -> Outcome {
        let mut down = self.down(0, request, cx);
        loop {
            match down {
                Down::Through => return Outcome::Through,
                Down::Answer { response, at } => return Outcome::Answer { response, at },
                Down::Wait { future, at } => {
                    let resume = future.await;
                    cx.now = clock::now();
                    down = self.resume_down(at, resume, request, cx);
                }
            }
        }
    }

    /// Runs the response hooks of the first `count` middlewares to the end, waiting where one must.
    ///
    /// # Cancel safety
    /// As [`Chain::run_down`].
    pub async fn run_up(&self, count: usize, response: &mut Response, cx: &mut Context<'_>) {
        let mut up = self.up(count, response, cx);
        while let Up::Wait { future, at } = up {
            let resume = future.await;
            cx.now = clock::now();
            up = self.resume_up(at, resume, response, cx);
        }
    }
}

impl Link {
    fn answers(&self, response: Box<Response>, at: usize, cx: &mut Context<'_>) -> Down {
        cx.record.middleware = Some(self.middleware.kind());
        Down::Answer { response, at }
    }

    fn replaces(&self, response: &mut Response, other: Response, cx: &mut Context<'_>) {
        cx.record.middleware = Some(self.middleware.kind());
        *response = other;
    }
}

impl std::fmt::Debug for Down {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Through => f.write_str("Through"),
            Self::Answer { response, at } => write!(f, "Answer({} at {at})", response.head.status),
            Self::Wait { at, .. } => write!(f, "Wait(at {at})"),
        }
    }
}

impl std::fmt::Debug for Up {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => f.write_str("Done"),
            Self::Wait { at, .. } => write!(f, "Wait(at {at})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http::StatusCode;

    use super::super::testing::*;
    use super::super::{Hooks, Natives};
    use super::*;

    /// What the hooks of a test's middlewares have done, in order.
    type Log = Arc<Mutex<Vec<String>>>;

    /// A middleware that logs, and does what its script says.
    struct Scripted {
        name: &'static str,
        script: &'static str,
        log: Log,
    }

    impl Scripted {
        fn step<M: 'static>(&self, hook: &str) -> Step<M> {
            let note = format!("{}.{hook}", self.name);
            self.log.lock().expect("one thread").push(note.clone());
            let log = Arc::clone(&self.log);
            let answer = || Response::status(StatusCode::IM_A_TEAPOT);
            match self.script.strip_prefix(hook).unwrap_or_default() {
                " answers" => Step::answer(answer()),
                " waits" => Step::wait(async move {
                    tokio::task::yield_now().await;
                    move |_: &mut M, _: &mut Context<'_>| {
                        log.lock()
                            .expect("one thread")
                            .push(format!("{note} again"));
                        Step::Next
                    }
                }),
                " waits and answers" => Step::wait(async move {
                    move |_: &mut M, _: &mut Context<'_>| {
                        Step::wait(async move {
                            move |_: &mut M, _: &mut Context<'_>| Step::answer(answer())
                        })
                    }
                }),
                _ => Step::Next,
            }
        }
    }

    impl Hooks for Scripted {
        fn on_request(&self, _: &mut Request, _: &mut Context<'_>) -> Step<Request> {
            self.step("down")
        }

        fn on_response(&self, _: &mut Response, _: &mut Context<'_>) -> Step<Response> {
            self.step("up")
        }
    }

    fn chain(scripts: [&'static str; 3], log: &Log) -> Chain {
        let mut natives = Natives::default();
        for (name, script) in ["a", "b", "c"].into_iter().zip(scripts) {
            let log = Arc::clone(log);
            natives.register(name, move |_| {
                let log = Arc::clone(&log);
                Ok(Arc::new(Scripted { name, script, log }))
            });
        }
        let link = |name: &str| {
            let json = format!(r#"{{"native": {{"name": "{name}"}}}}"#);
            let settings = serde_json::from_str(&json).expect("valid settings");
            let built = Middleware::build(&settings, &natives).expect("registered");
            (name.to_owned(), built)
        };
        Chain::new(["a", "b", "c"].map(link))
    }

    /// The status that the client sees, who answered, and what ran.
    async fn run(scripts: [&'static str; 3]) -> (u16, Option<&'static str>, String) {
        let log = Log::default();
        let chain = chain(scripts, &log);
        let mut world = World::new();
        let (mut response, count) = match chain.run_down(&mut get("/"), &mut world.cx()).await {
            Outcome::Through => (Response::status(StatusCode::OK), chain.len()),
            Outcome::Answer { response, at } => (*response, at),
        };
        chain.run_up(count, &mut response, &mut world.cx()).await;
        let log = log.lock().expect("one thread").join(" ");
        let status = response.head.status.as_u16();
        (status, world.record.middleware, log)
    }

    #[tokio::test]
    async fn hooks_run_down_in_order_and_up_in_reverse() {
        let ran = run(["", "", ""]).await;
        let log = "a.down b.down c.down c.up b.up a.up".to_owned();
        assert_eq!(ran, (200, None, log));
    }

    #[tokio::test]
    async fn an_answer_passes_only_those_before_it() {
        let ran = run(["", "down answers", ""]).await;
        let log = "a.down b.down a.up".to_owned();
        assert_eq!(ran, (418, Some("native"), log));

        let ran = run(["down answers", "", ""]).await;
        assert_eq!(ran, (418, Some("native"), "a.down".to_owned()));
    }

    #[tokio::test]
    async fn an_answer_on_the_way_up_is_seen_by_the_rest() {
        let ran = run(["", "up answers", ""]).await;
        let log = "a.down b.down c.down c.up b.up a.up".to_owned();
        assert_eq!(ran, (418, Some("native"), log));
    }

    #[tokio::test]
    async fn a_wait_resumes_where_it_was() {
        let ran = run(["", "down waits", ""]).await;
        let log = "a.down b.down b.down again c.down c.up b.up a.up".to_owned();
        assert_eq!(ran, (200, None, log));

        let ran = run(["", "up waits", ""]).await;
        let log = "a.down b.down c.down c.up b.up b.up again a.up".to_owned();
        assert_eq!(ran, (200, None, log));
    }

    #[tokio::test]
    async fn a_wait_may_wait_again_and_answer() {
        let ran = run(["", "down waits and answers", ""]).await;
        let log = "a.down b.down a.up".to_owned();
        assert_eq!(ran, (418, Some("native"), log));

        let ran = run(["", "", "up waits and answers"]).await;
        let log = "a.down b.down c.down c.up b.up a.up".to_owned();
        assert_eq!(ran, (418, Some("native"), log));
    }

    #[test]
    fn a_chain_knows_its_labels() {
        let chain = chain(["", "", ""], &Log::default());
        assert_eq!(chain.label(1), Some("b"));
        assert_eq!(chain.label(3), None);
        let kinds: Vec<_> = chain.iter().map(|(label, m)| (label, m.kind())).collect();
        assert_eq!(kinds, [("a", "native"), ("b", "native"), ("c", "native")]);
        assert!(Chain::default().is_empty());
    }
}
