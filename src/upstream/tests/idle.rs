//! What is learned about the patience of endpoints, and that it is heeded.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::fake::{OK, PATIENCE, Peer, answer, get, read_head, soon, text, until};
use crate::upstream::{Cause, Lane, SendOptions};

/// A server that answers once on each connection, and leaves it open in a hand of its own.
async fn answering_once(answer: &'static str) -> (Peer, Rc<RefCell<Vec<TcpStream>>>) {
    let open = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&open);
    let peer = Peer::start(move |_, mut socket| {
        let kept = Rc::clone(&kept);
        async move {
            read_head(&mut socket).await.expect("a head");
            socket.write_all(answer.as_bytes()).await.expect("written");
            kept.borrow_mut().push(socket);
        }
    })
    .await;
    (peer, open)
}

/// A request as it would have been sent so many seconds ago.
async fn ask(lane: &Rc<Lane>, ago: f64) {
    let options = SendOptions::new(before(ago));
    let sent = soon(Box::pin(lane.send(get("/"), options))).await;
    assert_eq!(text(sent.expect("an answer").response).await, "ok");
}

fn before(ago: f64) -> Instant {
    let now = Instant::now();
    now.checked_sub(seconds(ago)).expect("an old machine")
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[tokio::test(flavor = "local")]
async fn an_early_close_teaches_to_give_connections_up_before_it() {
    let (peer, open) = answering_once(OK).await;
    let lane = peer.lane();
    ask(&lane, 2.0).await;
    open.borrow_mut().clear();
    until(|| lane.counts().active + lane.counts().idle == 0).await;
    // Two seconds, of which half a second is left out.
    let now = Instant::now();
    ask(&lane, 0.0).await;
    lane.sweep(now + seconds(1.4));
    assert_eq!(lane.counts().idle, 1);
    lane.sweep(now + seconds(1.6));
    assert_eq!(lane.counts().idle, 0);
    // Nor is one handed out that no tick has closed yet.
    ask(&lane, 1.7).await;
    assert_eq!(lane.counts().idle, 1);
    ask(&lane, 0.0).await;
    assert_eq!(peer.connections.get(), 4);
}

#[tokio::test(flavor = "local")]
async fn a_request_that_meets_the_close_is_a_lesson_for_the_next() {
    let (peer, open) = answering_once(OK).await;
    let lane = peer.lane();
    ask(&lane, 2.0).await;
    // Nothing runs between the close and the request, so nobody has seen it.
    open.borrow_mut().clear();
    let sending = lane.send(get("/"), SendOptions::new(Instant::now()));
    let failure = soon(Box::pin(sending)).await.expect_err("closed");
    assert!(matches!(failure.cause, Cause::Closed), "{failure:?}");
    let now = Instant::now();
    ask(&lane, 0.0).await;
    lane.sweep(now + seconds(1.6));
    assert_eq!(lane.counts().idle, 0);
}

#[tokio::test(flavor = "local")]
async fn a_restart_teaches_nothing() {
    let (gate, open) = (Rc::new(Notify::new()), Rc::new(RefCell::new(Vec::new())));
    let (closed, kept) = (Rc::clone(&gate), Rc::clone(&open));
    let peer = Peer::start(move |_, mut socket| {
        let (gate, kept) = (Rc::clone(&closed), Rc::clone(&kept));
        async move {
            read_head(&mut socket).await.expect("a head");
            gate.notified().await;
            socket.write_all(OK.as_bytes()).await.expect("written");
            kept.borrow_mut().push(socket);
        }
    })
    .await;
    let lane = peer.lane();
    let requests: Vec<_> = (0..3)
        .map(|_| {
            let lane = Rc::clone(&lane);
            spawn_local(async move { ask(&lane, 0.0).await })
        })
        .collect();
    until(|| lane.counts().active == 3).await;
    for (idle, ago) in [(1, 20.0), (2, 8.0), (3, 2.0)] {
        lane.sweep(before(ago));
        gate.notify_one();
        until(|| lane.counts().idle == idle).await;
    }
    for request in requests {
        soon(request).await.expect("no panic");
    }
    until(|| lane.counts().idle == 3 && open.borrow().len() == 3).await;
    open.borrow_mut().clear();
    until(|| lane.counts().active + lane.counts().idle == 0).await;
    let now = Instant::now();
    gate.notify_one();
    ask(&lane, 0.0).await;
    lane.sweep(now + seconds(54.0));
    assert_eq!(lane.counts().idle, 1);
}

#[tokio::test(flavor = "local")]
async fn an_endpoint_that_says_how_long_it_waits_is_believed() {
    let said = "HTTP/1.1 200 OK\r\nkeep-alive: max=100, timeout=5\r\ncontent-length: 2\r\n\r\nok";
    let (peer, _open) = answering_once(said).await;
    let lane = peer.lane();
    let now = Instant::now();
    ask(&lane, 0.0).await;
    lane.sweep(now + seconds(3.9));
    assert_eq!(lane.counts().idle, 1);
    lane.sweep(now + seconds(4.1));
    assert_eq!(lane.counts().idle, 0);
}

#[tokio::test(flavor = "local")]
async fn after_one_lesson_no_request_meets_a_connection_that_is_being_closed() {
    // As gunicorn's gevent worker does it, in half the time.
    const CLOSES_AFTER: Duration = Duration::from_millis(1_050);
    let peer = Peer::start(|_, mut socket| async move {
        loop {
            let head = tokio::time::timeout(CLOSES_AFTER, read_head(&mut socket));
            if !matches!(head.await, Ok(Some(_))) {
                return;
            }
            socket.write_all(OK.as_bytes()).await.expect("written");
        }
    })
    .await;
    let lane = peer.lane();
    text(answer(&lane, get("/")).await).await;
    until(|| lane.counts().idle == 0).await;
    // The gaps end when the connection would be closed.
    let start = Instant::now();
    let mut gap = Duration::from_millis(1_044);
    while gap < Duration::from_millis(1_056) {
        text(answer(&lane, get("/")).await).await;
        tokio::time::sleep(gap).await;
        gap += Duration::from_millis(4);
    }
    assert!(start.elapsed() < PATIENCE);
}
