//! The bound on connections: who waits, who makes room, who is turned away.

use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_local};

use super::fake::{OK, PATIENCE, Peer, get, read_head, soon, text, until, upstream};
use super::http2::{say, streams};
use crate::upstream::client::{Bound, Site, Tally};
use crate::upstream::limits::{Queue, Slots};
use crate::upstream::{Cause, Failure, Protocol, Settings};

struct Lane {
    slots: Arc<Slots>,
    sites: Vec<Rc<Site>>,
}

/// The sites of a lane that may have so many connections, and so many requests that wait.
fn bounded(
    peers: &[&Peer],
    protocol: Protocol,
    most: u32,
    places: u32,
    patience: Duration,
) -> Lane {
    let endpoints = peers.iter().map(|peer| peer.endpoint.clone()).collect();
    let mut settings = Settings::new(endpoints);
    settings.protocol = protocol;
    let upstream = upstream(&settings);
    let slots = Slots::new(NonZeroU32::new(most).expect("not 0"));
    let queue = Arc::new(Queue::new(places, patience));
    let bound = Bound::new(Arc::clone(&slots), queue);
    let tally = Rc::new(Tally::new(Instant::now()).bounded(bound));
    let members = upstream.members();
    let sites = members
        .all()
        .map(|member| Rc::new(Site::new(&upstream, member, &tally)));
    Lane {
        sites: sites.collect(),
        slots,
    }
}

type Answer = Result<Bytes, Box<Failure>>;

fn ask(site: &Rc<Site>, path: &'static str) -> JoinHandle<Answer> {
    let site = Rc::clone(site);
    spawn_local(async move {
        let response = Box::pin(Rc::clone(&site).send(get(path), None)).await?;
        Ok(text(response).await)
    })
}

async fn done(task: JoinHandle<Answer>) -> Answer {
    soon(task).await.expect("no panic")
}

/// A server that answers `/wait` when it is told to, and anything else at once.
async fn patient(gate: &Rc<Notify>) -> Peer {
    let gate = Rc::clone(gate);
    Peer::start(move |_, mut socket| {
        let gate = Rc::clone(&gate);
        async move {
            while let Some(head) = read_head(&mut socket).await {
                if head.starts_with("GET /wait") {
                    gate.notified().await;
                }
                socket.write_all(OK.as_bytes()).await.expect("written");
            }
        }
    })
    .await
}

#[tokio::test(flavor = "local")]
async fn requests_wait_for_the_connection_there_is() {
    let gate = Rc::new(Notify::new());
    let peer = patient(&gate).await;
    let lane = bounded(&[&peer], Protocol::Http1, 1, 10, PATIENCE);
    let first = ask(&lane.sites[0], "/wait");
    until(|| peer.connections.get() == 1).await;
    let waiting: Vec<_> = (0..5).map(|_| ask(&lane.sites[0], "/")).collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(waiting.iter().all(|task| !task.is_finished()));
    let start = Instant::now();
    gate.notify_one();
    for task in [first].into_iter().chain(waiting) {
        assert_eq!(done(task).await.expect("an answer"), "ok");
    }
    assert_eq!(peer.connections.get(), 1);
    assert!(start.elapsed() < Duration::from_secs(1), "without any tick");
}

#[tokio::test(flavor = "local")]
async fn an_idle_connection_makes_room_for_another_endpoint() {
    let (one, two) = (Peer::answering(OK).await, Peer::answering(OK).await);
    // Even where nobody may wait.
    for places in [0, 10] {
        let lane = bounded(&[&one, &two], Protocol::Http1, 1, places, PATIENCE);
        let before = (one.connections.get(), two.connections.get());
        for _ in 0..2 {
            for site in &lane.sites {
                assert_eq!(done(ask(site, "/")).await.expect("an answer"), "ok");
            }
        }
        let after = (one.connections.get(), two.connections.get());
        assert_eq!((after.0 - before.0, after.1 - before.1), (2, 2));
    }
}

#[tokio::test(flavor = "local")]
async fn who_waits_for_too_long_or_is_one_too_many_is_turned_away() {
    let gate = Rc::new(Notify::new());
    let peer = patient(&gate).await;
    let lane = bounded(&[&peer], Protocol::Http1, 1, 1, Duration::from_millis(100));
    let first = ask(&lane.sites[0], "/wait");
    until(|| peer.connections.get() == 1).await;
    let second = ask(&lane.sites[0], "/");
    tokio::time::sleep(Duration::from_millis(10)).await;
    let check = |failure: &Failure, sentence: &str| {
        assert!(matches!(failure.cause, Cause::Overflow), "{failure:?}");
        assert!(failure.unprocessed && failure.request.is_some());
        assert!(failure.detail.contains(sentence), "{failure}");
    };
    let third = done(ask(&lane.sites[0], "/")).await.expect_err("too many");
    check(&third, "the queue of 1 request is full");
    let second = done(second).await.expect_err("too long");
    check(&second, "waited 100ms for one of 1 connection");
    // The place in the queue is free again.
    let fourth = ask(&lane.sites[0], "/");
    tokio::time::sleep(Duration::from_millis(10)).await;
    gate.notify_one();
    assert_eq!(done(first).await.expect("an answer"), "ok");
    assert_eq!(done(fourth).await.expect("an answer"), "ok");
}

#[tokio::test(flavor = "local")]
async fn what_another_worker_gives_up_is_seen_at_the_tick() {
    let gate = Rc::new(Notify::new());
    let peer = patient(&gate).await;
    let lane = bounded(&[&peer], Protocol::Http1, 2, 1, PATIENCE);
    let slot = lane.slots.take(0).expect("a slot");
    let first = ask(&lane.sites[0], "/wait");
    until(|| peer.connections.get() == 1).await;
    let waiting = ask(&lane.sites[0], "/");
    tokio::time::sleep(Duration::from_millis(10)).await;
    drop(slot);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(!waiting.is_finished());
    lane.sites[0].sweep(Instant::now());
    assert_eq!(done(waiting).await.expect("an answer"), "ok");
    gate.notify_one();
    assert_eq!(done(first).await.expect("an answer"), "ok");
    assert_eq!(peer.connections.get(), 2);
}

#[tokio::test(flavor = "local")]
async fn who_leaves_gives_the_place_and_the_turn_back() {
    let gate = Rc::new(Notify::new());
    let peer = patient(&gate).await;
    let lane = bounded(&[&peer], Protocol::Http1, 1, 2, PATIENCE);
    let first = ask(&lane.sites[0], "/wait");
    until(|| peer.connections.get() == 1).await;
    for _ in 0..5 {
        let leaves = ask(&lane.sites[0], "/");
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(!leaves.is_finished());
        leaves.abort();
        leaves.await.expect_err("it left");
    }
    let (leaves, stays) = (ask(&lane.sites[0], "/"), ask(&lane.sites[0], "/"));
    tokio::time::sleep(Duration::from_millis(5)).await;
    gate.notify_one();
    leaves.abort();
    assert_eq!(done(first).await.expect("an answer"), "ok");
    assert_eq!(done(stays).await.expect("an answer"), "ok");
}

#[tokio::test(flavor = "local")]
async fn streams_are_waited_for_where_no_connection_may_be_added() {
    let gate = Rc::new(Notify::new());
    let closed = Rc::clone(&gate);
    let peer = streams(2, move |(request, respond)| {
        let gate = Rc::clone(&closed);
        async move {
            if request.uri().path() == "/wait" {
                gate.notified().await;
            }
            say(respond, "ok");
        }
    })
    .await;
    let other = streams(2, |(_, respond)| async { say(respond, "ok") }).await;
    let lane = bounded(&[&peer, &other], Protocol::Http2, 1, 10, PATIENCE);
    let [site, other] = [&lane.sites[0], &lane.sites[1]];
    let busy = [ask(site, "/wait"), ask(site, "/wait")];
    until(|| peer.connections.get() == 1).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let waiting: Vec<_> = (0..6).map(|_| ask(site, "/")).collect();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(waiting.iter().all(|task| !task.is_finished()));
    gate.notify_waiters();
    for task in busy.into_iter().chain(waiting) {
        assert_eq!(done(task).await.expect("an answer"), "ok");
    }
    assert_eq!(peer.connections.get(), 1);
    // Nothing is on it now, so it makes room for the other endpoint.
    assert_eq!(done(ask(other, "/")).await.expect("an answer"), "ok");
    assert_eq!((site.idle(), other.idle()), (0, 1));
}
