//! The doors for operators, over real sockets.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::overview::{Check, LastReload, Status, Upstreams};
use super::v1::admin_client::AdminClient;
use super::v1::{
    EndpointCondition, GetStatusRequest, LifecycleState, ListUpstreamsRequest, ReloadOutcome,
};
use super::*;
use crate::base::address::Address;
use crate::base::lifecycle::State;
use crate::telemetry::metrics::{Metrics, Reload};
use crate::telemetry::recent::{Filter, Record, Try};
use crate::upstream::Condition;

const SECOND: Duration = Duration::from_secs(5);

struct Fake {
    ready: bool,
}

impl Overview for Fake {
    fn recent(&self, filter: &Filter) -> Vec<Arc<Record>> {
        let record = Record {
            request_id: "known".to_owned(),
            status: 503,
            attempts: vec![Try::default()],
            ..Record::default()
        };
        let is_asked_for = filter.request_id.as_deref().is_none_or(|id| id == "known");
        is_asked_for.then(|| Arc::new(record)).into_iter().collect()
    }

    fn explain(&self, question: v1::ExplainRequest) -> Result<serde_json::Value, String> {
        match question.url.as_str() {
            "" => Err("which request?".to_owned()),
            url => Ok(serde_json::json!({ "url": url })),
        }
    }

    fn status(&self) -> Status {
        Status {
            version: "1.2.3",
            revision: 7,
            source: "retort.yaml".into(),
            state: State::Ready,
            started_at: SystemTime::UNIX_EPOCH,
            uptime: Duration::from_secs(90),
            workers: 2,
            connections: 5,
            last_reload: Some(LastReload {
                outcome: Reload::Refused,
                message: "3 problems".into(),
                at: SystemTime::UNIX_EPOCH,
            }),
        }
    }

    fn upstreams(&self) -> Upstreams {
        let endpoint = |condition, share, why: Option<&str>| overview::Endpoint {
            address: "127.0.0.1:9001".into(),
            zone: why.map(|_| "eu-1a".into()),
            weight: 2,
            share,
            condition,
            why: why.map(Into::into),
        };
        Upstreams {
            revision: 7,
            upstreams: vec![overview::Upstream {
                name: "orders".into(),
                protocol: "http2",
                balance: "maglev",
                panicking: true,
                queued: 3,
                endpoints: vec![
                    endpoint(Condition::Ready, 2.0 / 3.0, None),
                    endpoint(Condition::Unhealthy, 1.0 / 3.0, Some("fails")),
                    endpoint(Condition::Ejected, 0.0, Some("is ejected")),
                    endpoint(Condition::Draining, 0.0, Some("has left")),
                    endpoint(Condition::Disabled, 0.0, Some("is out")),
                ],
            }],
        }
    }

    fn ready(&self) -> Vec<Check> {
        vec![Check {
            name: "listeners".into(),
            ok: self.ready,
            detail: "1 of 2 open".into(),
        }]
    }
}

struct Running {
    address: Address,
    lifecycle: Arc<Lifecycle>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn admin(address: &Address) -> Self {
        let door = Door::admin(address).await.expect("binds");
        let address = door.address().clone();
        let lifecycle = Arc::new(Lifecycle::default());
        let (stop, stopped) = oneshot::channel();
        let (fake, watched) = (Arc::new(Fake { ready: true }), Arc::clone(&lifecycle));
        let task = tokio::spawn(async move {
            serve(door, fake, watched, async { drop(stopped.await) }).await;
        });
        Self {
            address,
            lifecycle,
            stop,
            task,
        }
    }

    async fn telemetry(ready: bool) -> Self {
        let door = Door::telemetry(&loopback()).await.expect("binds");
        let address = door.address().clone();
        let lifecycle = Arc::new(Lifecycle::default());
        let (stop, stopped) = oneshot::channel();
        let (fake, watched) = (Arc::new(Fake { ready }), Arc::clone(&lifecycle));
        let metrics = Metrics::new(1);
        let task = tokio::spawn(async move {
            let stop = async { drop(stopped.await) };
            telemetry::serve(door, metrics, fake, watched, stop).await;
        });
        Self {
            address,
            lifecycle,
            stop,
            task,
        }
    }

    fn tcp(&self) -> SocketAddr {
        self.address.tcp().expect("TCP")
    }

    /// One request with nothing but what is written; the whole answer.
    async fn ask(&self, line: &str, headers: &str) -> String {
        let request = format!("{line} HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
        let answer = async {
            let mut answer = String::new();
            match &self.address {
                Address::Tcp(address) => {
                    let mut stream = TcpStream::connect(address).await?;
                    stream.write_all(request.as_bytes()).await?;
                    stream.read_to_string(&mut answer).await?;
                }
                Address::Unix(path) => {
                    let mut stream = UnixStream::connect(path).await?;
                    stream.write_all(request.as_bytes()).await?;
                    stream.read_to_string(&mut answer).await?;
                }
            }
            std::io::Result::Ok(answer)
        };
        let answer = tokio::time::timeout(SECOND, answer).await;
        answer.expect("in time").expect("an answer")
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path}"), "host: localhost\r\n")
            .await
    }

    async fn status_of(&self, path: &str) -> String {
        let answer = self.get(path).await;
        answer.get(9..12).unwrap_or_default().to_owned()
    }

    async fn end(self) {
        self.stop.send(()).expect("still running");
        let ended = tokio::time::timeout(SECOND, self.task).await;
        ended.expect("in time").expect("no panic");
    }
}

fn loopback() -> Address {
    Address::Tcp(([127, 0, 0, 1], 0).into())
}

async fn channel(running: &Running) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", running.tcp()));
    endpoint.expect("valid").connect().await.expect("connects")
}

#[tokio::test]
async fn grpc_and_json_tell_the_same_on_one_port() {
    let running = Running::admin(&loopback()).await;
    let mut client = AdminClient::new(channel(&running).await);
    let status = client.get_status(GetStatusRequest {}).await;
    let status = status.expect("answers").into_inner();
    assert_eq!((status.version.as_str(), status.revision), ("1.2.3", 7));
    assert_eq!(status.state(), LifecycleState::Ready);
    assert_eq!(status.uptime.map(|uptime| uptime.seconds), Some(90));
    let reload = status.last_reload.expect("there was one");
    assert_eq!(reload.outcome(), ReloadOutcome::Refused);

    let answer = running.get("/v1/status").await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("content-type: application/json"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["revision"], 7);
    assert_eq!(body["state"], "ready");
    assert_eq!(body["started_at"], "1970-01-01T00:00:00.000Z");
    assert_eq!(body["last_reload"]["outcome"], "refused");
    running.end().await;
}

#[tokio::test]
async fn upstreams_are_listed_alike_by_grpc_and_json() {
    let running = Running::admin(&loopback()).await;
    let mut client = AdminClient::new(channel(&running).await);
    let list = client.list_upstreams(ListUpstreamsRequest {}).await;
    let list = list.expect("answers").into_inner();
    let upstream = list.upstreams.first().expect("one");
    assert_eq!((list.revision, upstream.name.as_str()), (7, "orders"));
    assert_eq!((upstream.panicking, upstream.queued), (true, 3));
    let [ready, unhealthy, ..] = upstream.endpoints.as_slice() else {
        panic!("{upstream:?}");
    };
    assert_eq!((ready.weight, ready.share), (2, 2.0 / 3.0));
    assert_eq!((ready.zone.as_str(), ready.why.as_str()), ("", ""));
    assert_eq!(unhealthy.condition(), EndpointCondition::Unhealthy);
    assert_eq!(unhealthy.why, "fails");

    let body = running.get("/v1/upstreams").await;
    let body = body.split_once("\r\n\r\n").expect("a head").1;
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let same = &body["upstreams"][0];
    assert_eq!((&body["revision"], &same["queued"]), (&7.into(), &3.into()));
    assert_eq!(same["protocol"], "http2");
    assert_eq!(same["balance"], "maglev");
    let endpoints = same["endpoints"].as_array().expect("a list");
    assert_eq!(endpoints[0]["share"], 0.6667);
    assert!(endpoints[0]["why"].is_null() && endpoints[0]["zone"].is_null());
    for (json, grpc) in endpoints.iter().zip(&upstream.endpoints) {
        let name = json["condition"].as_str().expect("text").to_uppercase();
        let condition = grpc.condition().as_str_name();
        assert_eq!(condition, format!("ENDPOINT_CONDITION_{name}"));
        assert_eq!(json["address"], grpc.address);
    }
    running.end().await;
}

#[tokio::test]
async fn health_follows_the_lifecycle() {
    let running = Running::admin(&loopback()).await;
    let mut client = HealthClient::new(channel(&running).await);
    let mut watch = {
        let request = HealthCheckRequest::default();
        client.watch(request).await.expect("known").into_inner()
    };
    let mut next = async || {
        let message = tokio::time::timeout(SECOND, watch.message()).await;
        let message = message.expect("in time").expect("open");
        message.expect("another").status().as_str_name()
    };
    assert_eq!(next().await, "NOT_SERVING");
    running.lifecycle.advance(State::Ready);
    assert_eq!(next().await, "SERVING");
    running.lifecycle.advance(State::Draining);
    assert_eq!(next().await, "NOT_SERVING");

    let request = HealthCheckRequest {
        service: "liveness".into(),
    };
    let alive = client.check(request).await.expect("known").into_inner();
    assert_eq!(alive.status().as_str_name(), "SERVING");
    // The watch is still open: the end does not wait for it for ever.
    running.end().await;
}

#[tokio::test]
async fn reflection_names_every_service() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

    let running = Running::admin(&loopback()).await;
    let mut client = ServerReflectionClient::new(channel(&running).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = client.server_reflection_info(tokio_stream::once(request));
    let answer = answers.await.expect("known").into_inner().message().await;
    let answer: ServerReflectionResponse = answer.expect("open").expect("one");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<&str> = list.service.iter().map(|s| s.name.as_str()).collect();
    assert!(names.contains(&"retort.admin.v1.Admin"), "{names:?}");
    assert!(names.contains(&"grpc.health.v1.Health"), "{names:?}");
    running.end().await;
}

#[tokio::test]
async fn foreign_pages_and_unknown_paths_are_refused_with_a_sentence() {
    let running = Running::admin(&loopback()).await;
    let answer = running
        .ask("GET /v1/status", "host: evil.example\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(answer.contains("loopback names only"), "{answer}");
    let headers = "host: localhost\r\norigin: http://evil.example\r\n";
    let answer = running.ask("GET /v1/status", headers).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let answer = running.get("/nothing").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(answer.contains("try /v1/status"), "{answer}");
    running.end().await;
}

#[tokio::test]
async fn a_unix_socket_is_the_owners_alone_and_goes_away() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("admin.sock");
    let running = Running::admin(&Address::Unix(path.clone())).await;
    let mode = std::fs::metadata(&path).expect("there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    assert_eq!(running.status_of("/v1/status").await, "200");

    let socket = path.clone();
    let connect = tower::service_fn(move |_: ::http::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connect).await;
    let mut client = AdminClient::new(channel.expect("connects"));
    assert!(client.get_status(GetStatusRequest {}).await.is_ok());
    drop(client);
    running.end().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn questions_about_requests_are_answered_alike_by_grpc_and_json() {
    let running = Running::admin(&loopback()).await;
    let mut client = AdminClient::new(channel(&running).await);
    let why = |request_id: &str| v1::WhyRequest {
        request_id: request_id.to_owned(),
    };
    let found = client.why(why("known")).await.expect("answers");
    let [decision] = found.get_ref().decisions.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!((decision.status, decision.attempts.len()), (503, 1));
    let unknown = client.why(why("nobody")).await.expect_err("unknown");
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    assert!(unknown.message().contains("`nobody`"), "{unknown}");
    let all = v1::ListRecentFailuresRequest::default();
    let all = client.list_recent_failures(all).await.expect("answers");
    assert_eq!(all.get_ref().decisions.len(), 1);
    let explain = |url: &str| v1::ExplainRequest {
        url: url.to_owned(),
        ..v1::ExplainRequest::default()
    };
    let told = client.explain(explain("/a")).await.expect("answers");
    assert_eq!(told.get_ref().json, r#"{"url":"/a"}"#);
    let nothing = client.explain(explain("")).await.expect_err("no question");
    assert_eq!(nothing.code(), tonic::Code::InvalidArgument);

    let same = running.get("/v1/why?request_id=known").await;
    assert!(same.contains(r#""status":503"#), "{same}");
    assert_eq!(running.status_of("/v1/why?request_id=nobody").await, "404");
    let listed = running.get("/v1/recent-failures?limit=5").await;
    assert!(listed.contains(r#""request_id":"known""#), "{listed}");
    let strange = running.status_of("/v1/recent-failures?colour=red").await;
    assert_eq!(strange, "400");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let first = Door::admin(&loopback()).await.expect("binds");
    let error = Door::admin(first.address()).await.expect_err("taken");
    let address = first.address().to_string();
    assert!(error.to_string().contains(&address), "{error}");
}

#[tokio::test]
async fn probes_follow_the_lifecycle() {
    let running = Running::telemetry(true).await;
    let expected = [
        (State::Starting, ["200", "503", "503"]),
        (State::Ready, ["200", "200", "200"]),
        (State::Draining, ["200", "503", "200"]),
    ];
    for (state, [live, ready, started]) in expected {
        running.lifecycle.advance(state);
        assert_eq!(running.status_of("/livez").await, live, "{state:?}");
        assert_eq!(running.status_of("/healthz").await, live, "{state:?}");
        assert_eq!(running.status_of("/readyz").await, ready, "{state:?}");
        assert_eq!(running.status_of("/startupz").await, started, "{state:?}");
    }
    running.end().await;
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let running = Running::telemetry(false).await;
    running.lifecycle.advance(State::Ready);
    let answer = running.get("/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let body = answer.split_once("\r\n\r\n").expect("a head").1;
    assert_eq!(body, "[-]listeners failed: 1 of 2 open\nnot ok\n");
    let answer = running.get("/readyz?verbose").await;
    assert!(
        answer.contains("[+]lifecycle ok: ready\n[-]listeners"),
        "{answer}"
    );
    running.end().await;
}

#[tokio::test]
async fn metrics_are_text_and_only_read() {
    let running = Running::telemetry(true).await;
    let answer = running.get("/metrics").await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    assert!(body.contains("# TYPE retort_build_info gauge\n"), "{body}");
    let answer = running.ask("HEAD /metrics", "host: x\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = running
            .ask(&format!("{method} /metrics"), "host: x\r\n")
            .await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
        assert!(answer.contains("allow: GET,HEAD"), "{answer}");
    }
    assert_eq!(running.status_of("/").await, "404");
    running.end().await;
}

#[tokio::test]
async fn silent_clients_do_not_keep_the_end_waiting() {
    let running = Running::telemetry(true).await;
    let _silent = TcpStream::connect(running.tcp()).await.expect("connects");
    assert_eq!(running.status_of("/livez").await, "200");
    running.end().await;
}
