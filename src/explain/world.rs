//! A gateway in small, on the calling thread: one request after the other, without a network.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::response;
use tokio::runtime::{Builder as RuntimeBuilder, LocalOptions, LocalRuntime};

use crate::base::clock::{self, TICK};
use crate::base::lifecycle::Lifecycle;
use crate::base::message::Request;
use crate::base::pressure::Gauge;
use crate::config::Config;
use crate::explain::notebook::{Notebook, Seen};
use crate::explain::stage::{Received, Stage};
use crate::explain::stand_ins;
use crate::handler::blocking::Pool;
use crate::middleware::Effects;
use crate::proxy::{self, Local, Origin};
use crate::snapshot::publish::Reader;
use crate::snapshot::{Builder, NotBuilt, Snapshot};
use crate::telemetry::metrics::Metrics;
use crate::upstream::{Dial, Upstream};

/// A gateway in small.
#[derive(Debug)]
pub(crate) struct World {
    runtime: LocalRuntime,
    local: Rc<Local>,
    stage: Rc<Stage>,
    notebook: Rc<Notebook>,
    snapshot: Arc<Snapshot>,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) struct Heard {
    /// What was decided.
    pub seen: Seen,
    /// What the client gets.
    pub answer: response::Parts,
    /// The body; none if it broke off.
    pub body: Option<Bytes>,
    /// What endpoints got, in the order in which they got it; copies and calls of our own as well.
    pub received: Vec<Received>,
    /// How long it took, to the body's end.
    pub took: Duration,
}

/// Why there is no world.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoWorld {
    /// The configuration has errors that show when it is built.
    #[error("the configuration cannot be built")]
    NotBuilt(NotBuilt),
    /// The system refused an event loop.
    #[error("an event loop cannot be started: {0}")]
    System(#[from] std::io::Error),
}

/// The longest body of an answer that is kept.
const BODY: usize = 1024 * 1024;

impl World {
    /// A world of its own: every endpoint is healthy, every bucket full, and time goes by only while
    /// everybody waits.
    ///
    /// # Errors
    /// What is wrong with the configuration, or what the system refused.
    pub(crate) fn apart(config: &Config) -> Result<Self, NoWorld> {
        let runtime = RuntimeBuilder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build_local(LocalOptions::default())?;
        // The same chances in every run.
        fastrand::seed(SEED);
        let built = runtime.block_on(async {
            let metrics = Metrics::new(1);
            let (handlers, natives) = stand_ins::of(config);
            let builder = Builder::new(handlers, natives, metrics);
            let mut builder = builder.for_rehearsal();
            let built = builder.build(config)?;
            Ok(Arc::new(builder.keep(built)))
        });
        let snapshot = built.map_err(NoWorld::NotBuilt)?;
        let notebook = Notebook::new(Effects::Real);
        let same = |upstream: &Arc<Upstream>| Arc::clone(upstream);
        Ok(Self::assemble(
            runtime,
            snapshot,
            Arc::default(),
            Arc::default(),
            notebook,
            same,
        ))
    }

    /// A world beside a running gateway: with its endpoints and its buckets as they stand now, of which
    /// nothing is used up.
    ///
    /// # Errors
    /// What the system refused.
    pub(crate) fn beside(
        snapshot: Arc<Snapshot>,
        lifecycle: Arc<Lifecycle>,
        pressure: Arc<Gauge>,
    ) -> Result<Self, NoWorld> {
        let runtime = RuntimeBuilder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())?;
        let notebook = Notebook::new(Effects::None);
        let understudy = |upstream: &Arc<Upstream>| upstream.understudy();
        Ok(Self::assemble(
            runtime, snapshot, lifecycle, pressure, notebook, understudy,
        ))
    }

    fn assemble(
        runtime: LocalRuntime,
        snapshot: Arc<Snapshot>,
        lifecycle: Arc<Lifecycle>,
        pressure: Arc<Gauge>,
        notebook: Rc<Notebook>,
        upstream: impl Fn(&Arc<Upstream>) -> Arc<Upstream>,
    ) -> Self {
        let upstreams = snapshot.upstreams.iter().map(|of| {
            let upstream = &of.upstream;
            (upstream.name().into(), upstream.settings().protocol)
        });
        let stage = Stage::new(upstreams);
        let dial: Rc<dyn Dial> = Rc::new(Rc::clone(&stage));
        let local = runtime.block_on(async {
            let reader = Reader::rehearsing(Arc::clone(&snapshot), upstream, &dial);
            let blocking = Pool::new(1, 16).for_worker();
            let witness = Rc::new(Rc::clone(&notebook));
            let local = Local::rehearsing(reader, lifecycle, pressure, blocking, witness);
            let ticking = Rc::clone(&local);
            // It ends with the runtime.
            drop(tokio::task::spawn_local(async move {
                let mut ticks = tokio::time::interval(TICK);
                loop {
                    ticks.tick().await;
                    ticking.tick(clock::now());
                }
            }));
            local
        });
        Self {
            runtime,
            local,
            stage,
            notebook,
            snapshot,
        }
    }

    /// The rules of this world.
    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The upstream at a place of the snapshot, as this world has it.
    pub(crate) fn upstream(&self, place: usize) -> Arc<Upstream> {
        Arc::clone(self.local.reader.view().lane(place).upstream())
    }

    /// Where endpoints can be told what to do.
    pub(crate) fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Sends a request through the listener of that name, and reads the answer to its end.
    pub(crate) fn ask(
        &self,
        listener: &Arc<str>,
        peer: Option<SocketAddr>,
        mut request: Request,
    ) -> Heard {
        self.runtime.block_on(async {
            let start = clock::now();
            let origin = Origin::new(Arc::clone(listener), peer);
            let served = proxy::serve(&self.local, origin.enter(), &mut request).await;
            let (answer, tracked) = served.into_parts();
            let body =
                http_body_util::BodyExt::collect(http_body_util::Limited::new(tracked, BODY));
            let body = body.await.ok().map(http_body_util::Collected::to_bytes);
            let took = clock::since(start);
            self.let_copies_arrive().await;
            Heard {
                took,
                seen: self.notebook.turn(),
                answer,
                body,
                received: self.stage.received(),
            }
        })
    }

    /// Nobody waits for a copy, but whoever asks wants to see it.
    async fn let_copies_arrive(&self) {
        // One that its endpoint does not answer stays on its way: so many turns are enough for any other.
        for _ in 0..TURNS {
            if !self.local.mirrors.any() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Lets time go by.
    pub(crate) fn wait(&self, time: Duration) {
        self.runtime
            .block_on(async { tokio::time::sleep(time).await });
    }
}

/// How often copies get their turn after their request has ended.
const TURNS: u32 = 1000;

/// Any number, as long as it stays the same.
const SEED: u64 = 0x7265_746f_7274;

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, StatusCode, Uri};

    use super::*;
    use crate::base::body::Body;
    use crate::base::message::RequestHead;
    use crate::explain::stage::{Act, Line, Script};
    use crate::telemetry::decision::Flag;

    const CONFIG: &str = r#"
listeners: [{name: web, address: "127.0.0.1:0"}]
routes:
  - name: orders
    match: {path_prefix: /orders}
    middlewares: [limit, {set_headers: {request: {set: {x-edge: retort}}}}]
    retry: {attempts: 3, on: ["503", connect_failure, timeout], backoff: 100ms}
    timeouts: {request: 15s, attempt: 5s}
    upstream: orders
middlewares:
  limit: {rate_limit: {requests: 2, per: 1s}}
upstreams:
  orders: {endpoints: ["127.0.0.1:1", "127.0.0.1:2"]}
"#;

    fn world() -> World {
        let loaded = crate::config::parse("test.yaml", CONFIG, &|_| None);
        let config = loaded.config.expect("a configuration");
        World::apart(&config).expect("a world")
    }

    fn get(world: &World, path: &'static str) -> Heard {
        let mut head = RequestHead::new(Method::GET, Uri::from_static(path));
        let host = http::HeaderValue::from_static("shop");
        head.set_header(http::header::HOST, host);
        let body = Body::empty();
        world.ask(
            &"web".into(),
            Some(([127, 0, 0, 1], 9).into()),
            Request { head, body },
        )
    }

    fn does(acts: impl IntoIterator<Item = Act>) -> Script {
        let line = |act| Line {
            endpoint: None,
            act,
        };
        Script(acts.into_iter().map(line).collect())
    }

    fn status(status: StatusCode) -> Act {
        Act::Answer {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            after: Duration::ZERO,
        }
    }

    #[test]
    fn a_request_is_served_as_it_would_be() {
        let world = world();
        let heard = get(&world, "/orders/7?a=b");
        assert_eq!(heard.answer.status, 200);
        let [received] = heard.received.as_slice() else {
            panic!("{:?}", heard.received)
        };
        assert!(
            received.head.starts_with("GET /orders/7?a=b HTTP/1.1\n"),
            "{}",
            received.head
        );
        assert!(
            received.head.contains("x-edge: retort"),
            "{}",
            received.head
        );
        let labels: Vec<_> = heard.seen.steps.iter().map(|step| &*step.label).collect();
        assert_eq!(labels, ["limit", "set_headers"]);
        assert_eq!(heard.seen.steps[1].changes[0].what, "x-edge");
        assert_eq!(heard.seen.route, Some(0));
        assert_eq!(heard.seen.ended.expect("an end").attempts.len(), 1);
    }

    #[test]
    fn failures_are_retried_and_time_is_virtual() {
        let world = world();
        let stage = world.stage();
        stage.direct(
            "orders",
            does([Act::Refused, Act::Timeout, status(StatusCode::OK)]),
        );
        let heard = get(&world, "/orders");
        assert_eq!(heard.answer.status, 200);
        let ended = heard.seen.ended.expect("an end");
        let flags: Vec<_> = ended.attempts.iter().map(|attempt| attempt.flag).collect();
        assert_eq!(
            flags,
            [Some(Flag::ConnectFailed), Some(Flag::UpstreamTimeout), None]
        );
        assert!(heard.took >= Duration::from_secs(5), "{:?}", heard.took);
        stage.direct("orders", does([status(StatusCode::SERVICE_UNAVAILABLE)]));
        let heard = get(&world, "/orders");
        assert_eq!(heard.answer.status, 503);
        let ended = heard.seen.ended.expect("an end");
        assert_eq!(ended.flag, Some(Flag::RetriesExhausted));
        assert_eq!(ended.attempts.len(), 3);
    }

    #[test]
    fn limits_recover_when_time_goes_by() {
        let world = world();
        let statuses: Vec<_> = (0..3)
            .map(|_| get(&world, "/orders").answer.status.as_u16())
            .collect();
        assert_eq!(statuses, [200, 200, 429]);
        world.wait(Duration::from_millis(600));
        assert_eq!(get(&world, "/orders").answer.status, 200);
    }
}
