//! HTTP/1.1: which connection a request goes on, and which are kept.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::fake::{OK, Peer, answer, drain, get, lane, read_head, send, soon, text, until};
use crate::upstream::{Counts, SendOptions, Settings};

#[tokio::test(flavor = "local")]
async fn one_connection_serves_requests_one_after_another() {
    let peer = Peer::answering(OK).await;
    let lane = peer.lane();
    for _ in 0..20 {
        assert_eq!(text(answer(&lane, get("/")).await).await, "ok");
    }
    assert_eq!(peer.connections.get(), 1);
    let counts = Counts {
        active: 0,
        idle: 1,
        connects: 1,
        connect_failures: 0,
    };
    assert_eq!(lane.counts(), counts);
}

#[tokio::test(flavor = "local")]
async fn concurrent_requests_have_connections_of_their_own_and_share_them_later() {
    let gate = Rc::new(Notify::new());
    let opened = Rc::clone(&gate);
    let peer = Peer::start(move |_, mut socket| {
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
    .await;
    let lane = peer.lane();
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let lane = Rc::clone(&lane);
            spawn_local(async move { text(answer(&lane, get("/wait")).await).await })
        })
        .collect();
    until(|| lane.counts().active == 5 && peer.connections.get() == 5).await;
    // Each server task may have to reach its gate first.
    for task in waiting {
        opened.notify_one();
        assert_eq!(soon(task).await.expect("no panic"), "ok");
    }
    assert_eq!(lane.counts().idle, 5);
    for _ in 0..10 {
        text(answer(&lane, get("/")).await).await;
    }
    assert_eq!(peer.connections.get(), 5);
}

#[tokio::test(flavor = "local")]
async fn the_connection_used_last_is_used_first() {
    let peer = Peer::start(|number, mut socket| async move {
        while read_head(&mut socket).await.is_some() {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}");
            socket.write_all(answer.as_bytes()).await.expect("written");
        }
    })
    .await;
    let lane = peer.lane();
    let (one, two) = tokio::join!(answer(&lane, get("/")), answer(&lane, get("/")));
    let (one, two) = (text(one).await, text(two).await);
    assert_ne!(one, two);
    let first = text(answer(&lane, get("/")).await).await;
    for _ in 0..5 {
        assert_eq!(text(answer(&lane, get("/")).await).await, first);
    }
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_died_in_the_pool_is_replaced_silently() {
    // Announces nothing, and closes after each answer.
    let peer = Peer::start(|_, mut socket| async move {
        read_head(&mut socket).await;
        socket.write_all(OK.as_bytes()).await.expect("written");
    })
    .await;
    let lane = peer.lane();
    for _ in 0..10 {
        assert_eq!(text(answer(&lane, get("/")).await).await, "ok");
        // The close is on its way: wait until it was seen.
        until(|| lane.counts().active + lane.counts().idle == 0).await;
    }
    assert_eq!(peer.connections.get(), 10);
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_is_to_be_closed_is_not_pooled() {
    let check = |answering: &'static str| async move {
        let peer = Peer::answering(answering).await;
        let lane = peer.lane();
        for _ in 0..3 {
            text(answer(&lane, get("/")).await).await;
        }
        assert_eq!(peer.connections.get(), 3, "{answering}");
    };
    check("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
    check("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
}

#[tokio::test(flavor = "local")]
async fn idle_connections_are_swept_after_their_time() {
    let peer = Peer::answering(OK).await;
    let lane = peer.lane();
    let start = Instant::now();
    text(answer(&lane, get("/")).await).await;
    lane.sweep(start + Duration::from_secs(54));
    assert_eq!(lane.counts().idle, 1);
    lane.sweep(start + Duration::from_secs(56));
    assert_eq!(lane.counts().idle, 0);
    until(|| lane.counts().active == 0).await;
    text(answer(&lane, get("/")).await).await;
    assert_eq!(peer.connections.get(), 2);
}

#[tokio::test(flavor = "local")]
async fn a_dropped_lane_closes_idle_connections_and_lets_answers_finish() {
    let gate = Rc::new(Notify::new());
    let open = Rc::clone(&gate);
    let closed = Rc::new(RefCell::new(0));
    let count = Rc::clone(&closed);
    let peer = Peer::start(move |_, mut socket| {
        let (gate, count) = (Rc::clone(&gate), Rc::clone(&count));
        async move {
            while let Some(head) = read_head(&mut socket).await {
                socket
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
                    .await
                    .expect("head");
                if head.starts_with("GET /slow") {
                    gate.notified().await;
                }
                socket.write_all(b"k").await.expect("body");
            }
            *count.borrow_mut() += 1;
        }
    })
    .await;
    let lane = peer.lane();
    let (idle, slow) = tokio::join!(answer(&lane, get("/")), answer(&lane, get("/slow")));
    text(idle).await;
    drop(lane);
    until(|| *closed.borrow() == 1).await;
    open.notify_one();
    assert_eq!(text(slow).await, "ok");
    until(|| *closed.borrow() == 2).await;
}

#[tokio::test(flavor = "local")]
async fn a_body_that_is_dropped_closes_its_connection() {
    let peer = Peer::start(|number, mut socket| async move {
        while read_head(&mut socket).await.is_some() {
            if number == 0 {
                socket
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n")
                    .await
                    .expect("head");
                // Until the other side is gone.
                while socket.write_all(&[b'x'; 4096]).await.is_ok() {}
                return;
            }
            socket.write_all(OK.as_bytes()).await.expect("written");
        }
    })
    .await;
    let lane = peer.lane();
    let mut response = answer(&lane, get("/")).await;
    soon(response.body.next_frame())
        .await
        .expect("some")
        .expect("bytes");
    assert_eq!(lane.counts().active, 1);
    drop(response);
    until(|| lane.counts().active == 0).await;
    assert_eq!(text(answer(&lane, get("/")).await).await, "ok");
}

#[tokio::test(flavor = "local")]
async fn a_body_that_comes_late_still_brings_its_connection_back() {
    let peer = Peer::start(|_, mut socket| async move {
        while read_head(&mut socket).await.is_some() {
            socket
                .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                .await
                .expect("head");
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(2)).await;
                socket.write_all(b"2\r\nhi\r\n").await.expect("chunk");
            }
            socket.write_all(b"0\r\n\r\n").await.expect("end");
        }
    })
    .await;
    let lane = peer.lane();
    for _ in 0..5 {
        let response = answer(&lane, get("/")).await;
        assert_eq!(lane.counts().active, 1);
        assert_eq!(text(response).await, "hihihi");
        until(|| lane.counts().idle == 1).await;
    }
    assert_eq!(peer.connections.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn what_follows_an_answer_unasked_is_never_taken_for_the_next() {
    let peer = Peer::start(|number, mut socket| async move {
        while read_head(&mut socket).await.is_some() {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}");
            let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
            let both = format!("{answer}{evil}");
            if socket.write_all(both.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await;
    let lane = peer.lane();
    for expected in ["0", "1", "2"] {
        assert_eq!(text(answer(&lane, get("/")).await).await, expected);
    }
}

#[tokio::test(flavor = "local")]
async fn a_canceled_request_closes_its_connection() {
    let peer = Peer::start(|_, mut socket| async move {
        drain(&mut socket).await;
    })
    .await;
    let lane = peer.lane();
    let wait = tokio::time::timeout(Duration::from_millis(50), send(&lane, get("/")));
    wait.await.expect_err("no answer");
    assert_eq!(lane.counts().connects, 1);
    until(|| lane.counts().active == 0).await;
}

#[tokio::test(flavor = "local")]
async fn several_endpoints_share_the_requests_and_avoided_ones_get_none() {
    let (one, two) = (Peer::answering(OK).await, Peer::answering(OK).await);
    let mut settings = Settings::new(vec![one.endpoint.clone(), two.endpoint.clone()]);
    settings.balance = crate::upstream::Balance::RoundRobin;
    let lane = lane(&settings);
    let mut seen = [0; 2];
    for _ in 0..10 {
        let sent = send(&lane, get("/")).await.expect("an answer");
        seen[sent.endpoint as usize] += 1;
        assert!(sent.address.is_some());
        text(sent.response).await;
    }
    assert_eq!(seen, [5, 5]);
    for _ in 0..5 {
        let mut options = SendOptions::new(Instant::now());
        options.avoid = &[0];
        let sent = soon(Box::pin(lane.send(get("/"), options)))
            .await
            .expect("an answer");
        assert_eq!(sent.endpoint, 1);
        text(sent.response).await;
    }
}
