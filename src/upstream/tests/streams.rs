//! HTTP/2: how many streams there may be, and that none of them stops the others.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::fake::{Peer, answer, drain, failure, get, lane, send, soon, text, until};
use super::frames::Frames;
use super::http2::{http2_lane, ok, say, streams};
use crate::base::values::Period;
use crate::upstream::{Cause, Lane, Protocol, Settings};

fn ask(lane: &Rc<Lane>, path: &'static str) -> tokio::task::JoinHandle<Bytes> {
    let lane = Rc::clone(lane);
    spawn_local(async move { text(answer(&lane, get(path)).await).await })
}

#[tokio::test(flavor = "local")]
async fn answers_that_nobody_reads_do_not_stop_the_others() {
    // More than one stream may send ahead; all but one of our limit on one connection.
    const SIZE: usize = 256 << 10;
    const UNREAD: usize = 255;
    let peer = streams(300, |(_, mut respond)| async move {
        let mut body = respond.send_response(ok(), false).expect("sent");
        body.send_data(Bytes::from(vec![b'x'; SIZE]), true)
            .expect("queued");
    })
    .await;
    let lane = http2_lane(&peer);
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        unread.push(answer(&lane, get("/")).await);
    }
    // Until what may come without being read has come.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(text(answer(&lane, get("/")).await).await.len(), SIZE);
    assert_eq!(peer.connections.get(), 1);
    // What is dropped unread gives its room back, and what is read late comes to its end.
    let read_late = unread.split_off(49);
    drop(unread);
    for response in read_late {
        assert_eq!(text(response).await.len(), SIZE);
    }
    for _ in 0..49 {
        assert_eq!(text(answer(&lane, get("/")).await).await.len(), SIZE);
    }
    assert_eq!(peer.connections.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn a_burst_at_a_new_endpoint_keeps_to_its_limit() {
    let check = |most: u32, burst: usize, connections: usize| async move {
        let gate = Rc::new(Notify::new());
        let reached = Rc::new(Cell::new(0));
        let (closed, count) = (Rc::clone(&gate), Rc::clone(&reached));
        let peer = streams(most, move |(_, respond)| {
            let (gate, count) = (Rc::clone(&gate), Rc::clone(&count));
            async move {
                count.set(count.get() + 1);
                gate.notified().await;
                say(respond, "ok");
            }
        })
        .await;
        let lane = http2_lane(&peer);
        // One that is over the limit would be refused, and this is what would be seen here.
        let burst: Vec<_> = (0..burst).map(|_| ask(&lane, "/")).collect();
        until(|| reached.get() == burst.len()).await;
        closed.notify_waiters();
        for task in burst {
            assert_eq!(soon(task).await.expect("no panic"), "ok");
        }
        assert_eq!(peer.connections.get(), connections, "{most} streams");
    };
    check(1, 3, 3).await;
    check(10, 25, 3).await;
    // Our own limit.
    check(1_000, 300, 2).await;
}

#[tokio::test(flavor = "local")]
async fn an_endpoint_that_allows_no_stream_yet_is_waited_for() {
    let allow = Rc::new(Notify::new());
    let allowed = Rc::clone(&allow);
    let peer = Peer::start(move |_, socket| {
        let allowed = Rc::clone(&allowed);
        async move {
            let mut frames = Frames::accept(socket).await;
            frames.allow(0).await;
            allowed.notified().await;
            frames.allow(2).await;
            for _ in 0..2 {
                let stream = frames.stream().await.expect("a stream");
                frames.answer(stream).await;
            }
            drain(&mut frames.0).await;
        }
    })
    .await;
    let lane = http2_lane(&peer);
    let waiting: Vec<_> = (0..2).map(|_| ask(&lane, "/")).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(waiting.iter().all(|task| !task.is_finished()));
    allow.notify_one();
    for task in waiting {
        assert_eq!(soon(task).await.expect("no panic"), "");
    }
    assert_eq!(peer.connections.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn an_endpoint_that_never_speaks_gets_no_request() {
    let peer = Peer::start(|_, mut socket| async move { drain(&mut socket).await }).await;
    let mut settings = Settings::new(vec![peer.endpoint.clone()]);
    settings.protocol = Protocol::Http2;
    settings.timeouts.connect = Period(Duration::from_millis(50));
    let lane = lane(&settings);
    let failure = failure(&lane, get("/")).await;
    assert!(
        matches!(failure.cause, Cause::ConnectTimeout),
        "{failure:?}"
    );
    assert!(failure.unprocessed && failure.request.is_some());
    assert!(
        failure.detail.contains("no settings of HTTP/2 within 50ms"),
        "{failure}"
    );
    assert_eq!(lane.counts().connect_failures, 1);
    until(|| lane.counts().active + lane.counts().idle == 0).await;
}

#[tokio::test(flavor = "local")]
async fn a_connection_on_which_nothing_comes_any_more_is_not_used_again() {
    let peer = Peer::start(|number, socket| async move {
        let mut frames = Frames::accept(socket).await;
        frames.allow(10).await;
        // The first connection answers once; then it is as if the host were gone.
        let stream = frames.stream().await.expect("a stream");
        frames.answer(stream).await;
        while let Some(stream) = frames.stream().await {
            if number > 0 {
                frames.answer(stream).await;
            }
        }
    })
    .await;
    let lane = http2_lane(&peer);
    assert_eq!(answer(&lane, get("/")).await.head.status, StatusCode::OK);
    let give_up = |after| tokio::time::timeout(Duration::from_millis(after), send(&lane, get("/")));
    // Too soon to tell.
    give_up(100).await.expect_err("silence");
    let older = ask(&lane, "/older");
    give_up(600).await.expect_err("silence");
    for _ in 0..3 {
        assert_eq!(answer(&lane, get("/")).await.head.status, StatusCode::OK);
    }
    assert_eq!(peer.connections.get(), 2);
    assert!(!older.is_finished(), "what is under way is left alone");
    older.abort();
    until(|| lane.counts().active == 0).await;
}
