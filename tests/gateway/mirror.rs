//! A mirror gets copies of requests, and nothing that it does or does not do reaches the client.

use std::fmt::Display;
use std::time::{Duration, Instant};

use futures_util::stream;
use http::uri::PathAndQuery;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use tonic::Request;
use tonic_prost::ProstCodec;

use crate::harness::grpc::{Grpc, Note, client, note};
use crate::harness::websocket::{self, WebSocket};
use crate::harness::{Conn, Gateway, Upstream, request, soon};

const ATTEMPTS: &str = "retort_upstream_requests_total";

/// One worker, a route to `up`, and its mirrors; `next` is an upstream at that address.
fn yaml(up: impl Display, next: impl Display, mirror: &str) -> String {
    format!(
        "runtime: {{workers: 1, drain: 10s}}
routes:
  - name: up
    match: {{path_prefix: /}}
    middlewares: [{{set_headers: {{request: {{set: {{x-edge: retort}}}}}}}}]
    upstream: up
    mirror: {mirror}
upstreams:
  up: {{endpoints: [\"{up}\"]}}
  next: {{endpoints: [\"{next}\"]}}
"
    )
}

async fn mirrored(up: &Upstream, next: impl Display) -> Gateway {
    Gateway::start(yaml(up.address, next, "{upstream: next}")).await
}

/// Reads all that comes and says nothing.
async fn silent() -> Upstream {
    Upstream::start(|mut peer| async move {
        if let Some(head) = peer.request_head().await {
            peer.record(head);
            peer.rest().await;
        }
    })
    .await
}

/// Reads heads, and not a byte more.
async fn blocked() -> Upstream {
    Upstream::start(|mut peer| async move {
        let _head = peer.request_head().await;
        std::future::pending::<()>().await;
    })
    .await
}

#[tokio::test]
async fn a_mirror_gets_what_the_upstream_gets() {
    let (up, next) = (Upstream::echo("up").await, Upstream::echo("next").await);
    let gateway = mirrored(&up, next.address).await;
    let answer = request(
        gateway.public(),
        "POST /orders?a=b HTTP/1.1\r\nhost: shop.test\r\nx-one: 1\r\ncontent-length: 5\r\n\r\nhello",
    )
    .await;
    assert_eq!(answer.json()["upstream"], "up");
    let (original, copy) = (&up.received(1).await[0], &next.received(1).await[0]);
    assert_eq!(copy.method, "POST");
    assert_eq!(copy.target, "/orders?a=b");
    assert_eq!(copy.header("host"), Some("shop.test"));
    assert_eq!(copy.header("x-edge"), Some("retort"));
    assert_eq!(copy.body, b"hello");
    assert_eq!(copy.head.headers, original.head.headers);
    let labels = [("upstream", "next"), ("code", "200")];
    gateway.counts(ATTEMPTS, &labels, 1.0).await;
    gateway.counts("retort_http_requests_total", &[], 1.0).await;
}

#[tokio::test]
async fn chunks_and_trailers_are_copied_too() {
    let (up, next) = (Upstream::echo("up").await, Upstream::echo("next").await);
    let gateway = mirrored(&up, next.address).await;
    let answer = request(
        gateway.public(),
        "POST / HTTP/1.1\r\nhost: x\r\nte: trailers\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
         3\r\none\r\n3\r\ntwo\r\n0\r\nx-sum: 6\r\n\r\n",
    )
    .await;
    assert_eq!(answer.status, 200);
    let (original, copy) = (&up.received(1).await[0], &next.received(1).await[0]);
    assert_eq!(copy.body, b"onetwo");
    assert_eq!(copy.trailers, original.trailers);
}

#[tokio::test]
async fn each_of_several_mirrors_gets_its_share() {
    let up = Upstream::echo("up").await;
    let (all, half, none) = (
        Upstream::echo("all").await,
        Upstream::echo("half").await,
        Upstream::echo("none").await,
    );
    let mirrors = "[{upstream: next}, {upstream: half, share: 50%}, {upstream: none, share: 0%}]";
    let gateway = Gateway::start(
        yaml(up.address, all.address, mirrors) + &half.yaml("half") + &none.yaml("none"),
    )
    .await;
    for _ in 0..200 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    all.received(200).await;
    let metrics = gateway
        .counts(ATTEMPTS, &[("upstream", "next")], 200.0)
        .await;
    // 200 throws of a coin: fewer than 60 or more than 140 come once in 10^8 runs.
    let half = metrics.sum(ATTEMPTS, &[("upstream", "half")]);
    assert!((60.0..=140.0).contains(&half), "{half}");
    assert_eq!(none.connections(), 0);
}

#[tokio::test]
async fn a_dead_or_silent_mirror_is_not_waited_for() {
    let up = Upstream::echo("up").await;
    let absent = Upstream::absent();
    let gateway = mirrored(&up, &absent).await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/").await.json()["upstream"], "up");
    }
    let labels = [("upstream", "next"), ("flag", "UF")];
    gateway.counts(ATTEMPTS, &labels, 20.0).await;

    let silent = silent().await;
    let gateway = Gateway::start(
        yaml(up.address, silent.address, "{upstream: next}")
            .replace("    mirror", "    timeouts: {request: 3s}\n    mirror"),
    )
    .await;
    let begin = Instant::now();
    for _ in 0..20 {
        assert_eq!(gateway.get("/").await.json()["upstream"], "up");
    }
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    silent.received(20).await;
    // They end with what their requests were allowed to take.
    let labels = [("upstream", "next"), ("flag", "UT")];
    gateway.counts(ATTEMPTS, &labels, 20.0).await;
    silent.disconnected(20).await;
}

#[tokio::test]
async fn a_mirror_that_does_not_read_is_cut_off_and_slows_nobody() {
    let (up, blocked) = (Upstream::echo("up").await, blocked().await);
    let gateway = mirrored(&up, blocked.address).await;
    let body = vec![b'x'; 24 << 20];
    let mut upload = format!(
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    upload.extend_from_slice(&body);
    let answer = request(gateway.public(), upload).await;
    assert_eq!(answer.status, 200);
    assert_eq!(up.received(1).await[0].body.len(), body.len());
    let labels = [("upstream", "next"), ("flag", "UO")];
    gateway.counts(ATTEMPTS, &labels, 1.0).await;
}

#[tokio::test]
async fn a_mirror_that_keeps_up_gets_a_large_body_whole() {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 80;
    let up = Upstream::echo("up").await;
    let (tell, mut progress) = watch::channel(0);
    let next = Upstream::start(move |mut peer| {
        let tell = tell.clone();
        async move {
            let Some(head) = peer.request_head().await else {
                return;
            };
            for _ in 0..PIECES {
                let Some(piece) = peer.exactly(PIECE).await else {
                    return;
                };
                assert!(piece.iter().all(|byte| *byte == b'x'));
                tell.send_modify(|pieces| *pieces += 1);
            }
            peer.record(head);
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            let _left = peer.try_send(answer).await;
        }
    })
    .await;
    let gateway = mirrored(&up, next.address).await;
    let mut conn = Conn::connect(gateway.public()).await;
    let length = PIECE * PIECES;
    conn.send(format!(
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"
    ))
    .await;
    for piece in 1..=PIECES {
        conn.send(vec![b'x'; PIECE]).await;
        let read = progress.wait_for(|pieces| *pieces >= piece);
        soon("the mirror to read along", read).await.expect("alive");
    }
    assert_eq!(conn.answer().await.status, 200);
    next.received(1).await;
    let labels = [("upstream", "next"), ("code", "200")];
    gateway.counts(ATTEMPTS, &labels, 1.0).await;
}

#[tokio::test]
async fn copies_on_their_way_are_bounded() {
    let (up, silent) = (Upstream::echo("up").await, silent().await);
    let gateway = mirrored(&up, silent.address).await;
    for _ in 0..70 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    silent.received(64).await;
    let labels = [("upstream", "next"), ("flag", "UO")];
    gateway.counts(ATTEMPTS, &labels, 6.0).await;
    assert_eq!(silent.connections(), 64);
}

#[tokio::test]
async fn a_draining_gateway_does_not_wait_for_copies() {
    let (up, silent) = (Upstream::echo("up").await, silent().await);
    let mut gateway = mirrored(&up, silent.address).await;
    assert_eq!(gateway.get("/").await.status, 200);
    silent.received(1).await;
    let begin = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.exited().await.code(), Some(0));
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    silent.disconnected(1).await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_copy_along() {
    let (up, next) = (silent().await, silent().await);
    let gateway = mirrored(&up, next.address).await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\npart")
        .await;
    next.received(1).await;
    drop(conn);
    next.disconnected(1).await;
    let labels = [("upstream", "next"), ("flag", "DC")];
    gateway.counts(ATTEMPTS, &labels, 1.0).await;
}

#[tokio::test]
async fn upgrades_are_not_mirrored() {
    let (up, next) = (websocket::echo().await, Upstream::echo("next").await);
    let gateway = mirrored(&up, next.address).await;
    let mut socket = WebSocket::connect(gateway.public()).await;
    socket.echoes(Message::text("hello")).await;
    socket.close().await;
    up.disconnected(1).await;
    assert_eq!(next.connections(), 0);
}

#[tokio::test]
async fn streams_of_grpc_are_copied_as_they_come() {
    let service = Grpc::start().await;
    let next = Upstream::echo_http2("next").await;
    let gateway = Gateway::start(format!(
        "routes:
  - {{name: echo, match: {{grpc: {{service: acme.Echo}}}}, upstream: echo, mirror: {{upstream: next}}}}
upstreams:
  echo: {{endpoints: [\"{}\"], protocol: http2}}
  next: {{endpoints: [\"{}\"], protocol: http2}}
",
        service.address, next.address
    ))
    .await;
    let mut client = client(gateway.public()).await;
    client.ready().await.expect("a channel");
    let path = PathAndQuery::from_static("/acme.Echo/ClientStream");
    let texts = stream::iter(["one", "two", "three"].map(note));
    let codec = ProstCodec::<Note, Note>::default();
    let answer = client
        .client_streaming(Request::new(texts), path, codec)
        .await;
    assert_eq!(
        answer.expect("an answer").into_inner().text,
        "one two three"
    );
    let copy = &next.received(1).await[0];
    assert_eq!(copy.target, "/acme.Echo/ClientStream");
    assert_eq!(copy.header("te"), Some("trailers"));
    // Each message has five bytes before it, and a tag and a length within.
    let text = String::from_utf8_lossy(&copy.body);
    for word in ["one", "two", "three"] {
        assert!(text.contains(word), "{text:?}");
    }
    assert_eq!(copy.body.len(), 3 * 7 + "onetwothree".len());
}

#[tokio::test]
async fn what_a_handler_answers_can_be_mirrored_too() {
    let next = Upstream::echo("next").await;
    let gateway = Gateway::start(format!(
        "routes:\n  - {{name: here, match: {{path: /}}, handler: {{respond: {{body: here}}}}, \
         mirror: {{upstream: next}}}}\nupstreams:\n{}",
        next.yaml("next")
    ))
    .await;
    assert_eq!(gateway.get("/").await.text(), "here");
    assert_eq!(next.received(1).await[0].target, "/");
}
