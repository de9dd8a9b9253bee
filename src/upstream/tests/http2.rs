//! HTTP/2: one connection for many, limits of streams, and connections that end.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::{CONTENT_TYPE, HOST, HeaderValue, TE};
use http::{HeaderMap, Method, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::fake::{Peer, answer, drain, failure, get, lane, read_head, send, soon, text, until};
use crate::base::body::{Body, BodyError};
use crate::upstream::{Cause, Lane, Protocol, Settings};

pub(super) type Exchange = (http::Request<RecvStream>, SendResponse<Bytes>);

pub(super) fn http2_lane(peer: &Peer) -> Rc<Lane> {
    let mut settings = Settings::new(vec![peer.endpoint.clone()]);
    settings.protocol = Protocol::Http2;
    lane(&settings)
}

/// A server that runs `serve` for each stream and allows so many at once.
pub(super) async fn streams<F>(most: u32, serve: impl Fn(Exchange) -> F + 'static) -> Peer
where
    F: Future<Output = ()> + 'static,
{
    let serve = Rc::new(serve);
    Peer::start(move |_, socket| {
        let serve = Rc::clone(&serve);
        async move {
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(most);
            let Ok(mut connection) = builder.handshake(socket).await else {
                return;
            };
            while let Some(Ok(exchange)) = connection.accept().await {
                spawn_local(serve(exchange));
            }
        }
    })
    .await
}

pub(super) fn ok() -> http::Response<()> {
    http::Response::new(())
}

pub(super) fn say(mut respond: SendResponse<Bytes>, text: &'static str) {
    let mut body = respond.send_response(ok(), false).expect("sent");
    body.send_data(Bytes::from(text), true).expect("sent");
}

#[tokio::test(flavor = "local")]
async fn a_burst_of_requests_shares_one_connection() {
    let peer = streams(200, |(_, respond)| async { say(respond, "ok") }).await;
    let lane = http2_lane(&peer);
    let burst: Vec<_> = (0..100)
        .map(|_| {
            let lane = Rc::clone(&lane);
            spawn_local(async move { text(answer(&lane, get("/")).await).await })
        })
        .collect();
    for task in burst {
        assert_eq!(soon(task).await.expect("no panic"), "ok");
    }
    assert_eq!(peer.connections.get(), 1);
    assert_eq!((lane.counts().active, lane.counts().idle), (0, 1));
}

#[tokio::test(flavor = "local")]
async fn a_further_connection_is_made_only_when_all_streams_are_in_use() {
    let gate = Rc::new(Notify::new());
    let closed = Rc::clone(&gate);
    let reached = Rc::new(Cell::new(0));
    let count = Rc::clone(&reached);
    let peer = streams(2, move |(request, respond)| {
        let (gate, count) = (Rc::clone(&gate), Rc::clone(&count));
        async move {
            if request.uri().path() == "/" {
                count.set(count.get() + 1);
                gate.notified().await;
            }
            say(respond, "ok");
        }
    })
    .await;
    let lane = http2_lane(&peer);
    let ask = |path: &'static str| {
        let lane = Rc::clone(&lane);
        spawn_local(async move { text(answer(&lane, get(path)).await).await })
    };
    assert_eq!(soon(ask("/now")).await.expect("no panic"), "ok");
    let waiting = [ask("/"), ask("/")];
    until(|| reached.get() == 2).await;
    assert_eq!(peer.connections.get(), 1);
    let further = ask("/");
    until(|| reached.get() == 3).await;
    assert_eq!(peer.connections.get(), 2);
    assert_eq!(soon(ask("/now")).await.expect("no panic"), "ok");
    assert_eq!(peer.connections.get(), 2);
    closed.notify_waiters();
    for task in waiting.into_iter().chain([further]) {
        assert_eq!(soon(task).await.expect("no panic"), "ok");
    }
    assert_eq!((lane.counts().active, lane.counts().idle), (0, 2));
}

#[tokio::test(flavor = "local")]
async fn the_request_has_an_authority_and_no_host() {
    let peer = streams(10, |(request, mut respond)| async move {
        let headers = request.headers();
        assert!(!headers.contains_key(HOST));
        assert_eq!(headers[TE], "trailers");
        let mut response = ok();
        let uri = request.uri().to_string();
        response
            .headers_mut()
            .insert("x-uri", HeaderValue::from_str(&uri).expect("ASCII"));
        respond.send_response(response, true).expect("sent");
    })
    .await;
    let mut request = get("/a?b=1");
    request
        .head
        .set_header(TE, HeaderValue::from_static("trailers"));
    let response = answer(&http2_lane(&peer), request).await;
    assert_eq!(
        response.head.headers.text("x-uri"),
        Some("http://shop.example/a?b=1")
    );
}

#[tokio::test(flavor = "local")]
async fn bodies_and_trailers_pass_both_ways() {
    let peer = streams(10, |(request, mut respond)| async move {
        let mut response = ok();
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(CONTENT_TYPE, grpc);
        let mut writer = respond.send_response(response, false).expect("sent");
        let mut body = request.into_body();
        while let Some(Ok(chunk)) = body.data().await {
            body.flow_control()
                .release_capacity(chunk.len())
                .expect("released");
            writer.send_data(chunk, false).expect("sent");
        }
        let trailers = body.trailers().await.expect("fine").expect("trailers");
        writer.send_trailers(trailers).expect("sent");
    })
    .await;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    let chunk = Bytes::from(vec![b'x'; 16 << 10]);
    let frames = (0..256)
        .map(move |_| Frame::data(chunk.clone()))
        .chain([Frame::trailers(trailers)])
        .map(Ok::<_, BodyError>);
    let mut request = get("/");
    request.head.set_method(Method::POST);
    request.body = Body::stream(StreamBody::new(futures_util::stream::iter(frames)));
    let mut response = answer(&http2_lane(&peer), request).await;
    let (mut size, mut status) = (0, None);
    while let Some(frame) = soon(response.body.next_frame()).await {
        match frame.expect("fine").into_data() {
            Ok(data) => size += data.len(),
            Err(frame) => status = frame.into_trailers().ok(),
        }
    }
    assert_eq!(size, 4 << 20);
    assert_eq!(status.expect("trailers")["grpc-status"], "0");
}

#[tokio::test(flavor = "local")]
async fn a_refused_stream_cannot_have_run() {
    let peer = streams(10, |(_, mut respond)| async move {
        respond.send_reset(Reason::REFUSED_STREAM);
    })
    .await;
    let refused = failure(&http2_lane(&peer), get("/")).await;
    assert!(matches!(refused.cause, Cause::Refused), "{refused:?}");
    assert!(refused.unprocessed);
    assert_eq!(
        refused.detail,
        format!("{} refused the stream before working on it", peer.label())
    );
}

#[tokio::test(flavor = "local")]
async fn any_other_reset_may_have_run() {
    let check = |reason: Reason, sentence: &'static str| async move {
        let peer = streams(10, move |(_, mut respond)| async move {
            respond.send_reset(reason);
        })
        .await;
        let failure = failure(&http2_lane(&peer), get("/")).await;
        assert!(
            !failure.unprocessed && failure.request.is_none(),
            "{failure:?}"
        );
        assert!(failure.detail.contains(sentence), "{failure}");
        failure.cause
    };
    let cause = check(
        Reason::INTERNAL_ERROR,
        "reset the stream: unexpected internal error",
    )
    .await;
    assert!(matches!(cause, Cause::Closed));
    let cause = check(Reason::HTTP_1_1_REQUIRED, "set `protocol: http1`").await;
    assert!(matches!(cause, Cause::Protocol));
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_says_goodbye_is_replaced_and_its_streams_finish() {
    let gate = Rc::new(Notify::new());
    let open = Rc::clone(&gate);
    let peer = Peer::start(move |_, socket| {
        let gate = Rc::clone(&gate);
        async move {
            let mut connection = h2::server::handshake(socket).await.expect("a preface");
            let mut first = true;
            while let Some(Ok((_, respond))) = connection.accept().await {
                if std::mem::take(&mut first) {
                    let gate = Rc::clone(&gate);
                    spawn_local(async move {
                        gate.notified().await;
                        say(respond, "late");
                    });
                    connection.graceful_shutdown();
                } else {
                    say(respond, "ok");
                }
            }
        }
    })
    .await;
    let lane = http2_lane(&peer);
    let first = Rc::clone(&lane);
    let first = spawn_local(async move { text(answer(&first, get("/")).await).await });
    until(|| peer.connections.get() == 1).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    let second = Rc::clone(&lane);
    let second = spawn_local(async move { text(answer(&second, get("/")).await).await });
    until(|| peer.connections.get() == 2).await;
    open.notify_waiters();
    assert_eq!(soon(first).await.expect("no panic"), "late");
    tokio::time::sleep(Duration::from_millis(5)).await;
    open.notify_waiters();
    open.notify_one();
    assert_eq!(soon(second).await.expect("no panic"), "late");
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_breaks_is_replaced() {
    let peer = Peer::start(|_, socket| async move {
        let mut connection = h2::server::handshake(socket).await.expect("a preface");
        if let Some(Ok((_, respond))) = connection.accept().await {
            say(respond, "ok");
            // Driven until the answer is out, then dropped without a word.
            let drive = std::future::poll_fn(|cx| connection.poll_closed(cx));
            let closed = tokio::time::timeout(Duration::from_millis(20), drive).await;
            assert!(closed.is_err(), "the client keeps it open");
        }
    })
    .await;
    let lane = http2_lane(&peer);
    for connections in 1..=3 {
        assert_eq!(text(answer(&lane, get("/")).await).await, "ok");
        assert_eq!(peer.connections.get(), connections);
        until(|| lane.counts().active + lane.counts().idle == 0).await;
    }
}

#[tokio::test(flavor = "local")]
async fn a_server_of_http1_is_recognised() {
    let peer = Peer::start(|_, mut socket| async move {
        read_head(&mut socket).await;
        let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        socket.write_all(answer).await.expect("written");
        drain(&mut socket).await;
    })
    .await;
    let failure = failure(&http2_lane(&peer), get("/")).await;
    assert!(failure.unprocessed && failure.request.is_some());
    let known = [
        "if it speaks it at all",
        "if it does not speak HTTP/2, set `protocol: http1`",
    ];
    assert!(
        known.iter().any(|known| failure.detail.contains(known)),
        "{failure}"
    );
}

#[tokio::test(flavor = "local")]
async fn idle_connections_are_swept_and_busy_ones_are_not() {
    let gate = Rc::new(Notify::new());
    let open = Rc::clone(&gate);
    let peer = streams(10, move |(_, respond)| {
        let gate = Rc::clone(&gate);
        async move {
            gate.notified().await;
            say(respond, "ok");
        }
    })
    .await;
    let lane = http2_lane(&peer);
    let start = Instant::now();
    let task = Rc::clone(&lane);
    let task = spawn_local(async move { text(answer(&task, get("/")).await).await });
    until(|| lane.counts().active == 1).await;
    let later = start + Duration::from_mins(1);
    lane.sweep(later);
    assert_eq!(lane.counts().active, 1);
    open.notify_one();
    assert_eq!(soon(task).await.expect("no panic"), "ok");
    lane.sweep(later + Duration::from_secs(50));
    assert_eq!(lane.counts().idle, 1);
    lane.sweep(later + Duration::from_mins(1));
    until(|| lane.counts().idle + lane.counts().active == 0).await;
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_is_too_old_finishes_its_streams_and_takes_no_more() {
    let gate = Rc::new(Notify::new());
    let open = Rc::clone(&gate);
    let peer = streams(10, move |(request, mut respond)| {
        let gate = Rc::clone(&gate);
        async move {
            let mut body = respond.send_response(ok(), false).expect("sent");
            if request.uri().path() == "/wait" {
                gate.notified().await;
            }
            body.send_data(Bytes::from("ok"), true).expect("sent");
        }
    })
    .await;
    let lane = http2_lane(&peer);
    let waiting = answer(&lane, get("/wait")).await;
    lane.sweep(Instant::now() + Duration::from_hours(2));
    assert_eq!(text(answer(&lane, get("/")).await).await, "ok");
    assert_eq!(peer.connections.get(), 2);
    open.notify_one();
    assert_eq!(text(waiting).await, "ok");
}

#[tokio::test(flavor = "local")]
async fn a_body_over_its_limit_is_told_from_one_that_broke() {
    let peer = streams(10, |(request, respond)| async move {
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.data().await {}
        drop(respond);
    })
    .await;
    let lane = http2_lane(&peer);
    let chunks =
        || ["12345", "67890"].map(|text| Ok::<_, BodyError>(Frame::data(Bytes::from(text))));
    let mut request = get("/");
    request.head.set_method(Method::POST);
    request.body = Body::stream(StreamBody::new(futures_util::stream::iter(chunks()))).limited(7);
    let large = failure(&lane, request).await;
    assert!(
        matches!(large.cause, Cause::RequestBody(BodyError::TooLarge)),
        "{large:?}"
    );
    let broken = chunks().into_iter().chain([Err(BodyError::Idle)]);
    let mut request = get("/");
    request.head.set_method(Method::POST);
    request.body = Body::stream(StreamBody::new(futures_util::stream::iter(broken)));
    let failed = failure(&lane, request).await;
    assert!(matches!(failed.cause, Cause::RequestBody(_)), "{failed:?}");
    assert_eq!(peer.connections.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn a_canceled_request_resets_its_stream_and_keeps_the_connection() {
    let reset = Rc::new(Notify::new());
    let told = Rc::clone(&reset);
    let peer = streams(10, move |(request, mut respond)| {
        let told = Rc::clone(&told);
        async move {
            if request.uri().path() == "/wait" {
                let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                assert_eq!(reason.expect("a reset"), Reason::CANCEL);
                told.notify_one();
            } else {
                say(respond, "ok");
            }
        }
    })
    .await;
    let lane = http2_lane(&peer);
    assert_eq!(text(answer(&lane, get("/")).await).await, "ok");
    let wait = tokio::time::timeout(Duration::from_millis(30), send(&lane, get("/wait")));
    wait.await.expect_err("no answer");
    soon(reset.notified()).await;
    let response = answer(&lane, get("/")).await;
    assert_eq!(response.head.status, StatusCode::OK);
    assert_eq!(peer.connections.get(), 1);
    assert_eq!(lane.counts().connects, 1);
}
