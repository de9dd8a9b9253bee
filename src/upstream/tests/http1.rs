//! HTTP/1.1: pooling, framing, and servers that misbehave.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue, TRAILER};
use http::{HeaderMap, Method, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::fake::{Peer, answer, drain, failure, get, lane, read_head, send, soon, text, until};
use crate::base::body::{Body, BodyError};
use crate::upstream::{Cause, Counts, SendOptions, Settings};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

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
async fn answers_without_a_body_end_at_once() {
    let check = |method: Method, answering: &'static str| async move {
        let peer = Peer::answering(answering).await;
        let lane = peer.lane();
        for _ in 0..3 {
            let mut request = get("/");
            request.head.set_method(method.clone());
            let response = answer(&lane, request).await;
            assert_eq!(text(response).await, "", "{answering}");
        }
        assert_eq!(peer.connections.get(), 1, "{answering}");
    };
    check(
        Method::HEAD,
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n",
    )
    .await;
    check(
        Method::HEAD,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    )
    .await;
    check(Method::GET, "HTTP/1.1 204 No Content\r\n\r\n").await;
    check(
        Method::GET,
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 1000\r\n\r\n",
    )
    .await;
    check(Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
}

#[tokio::test(flavor = "local")]
async fn the_request_is_written_in_origin_form_with_its_host() {
    let peer = Peer::start(|_, mut socket| async move {
        let head = read_head(&mut socket).await.expect("a head");
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}",
            head.len()
        );
        socket.write_all(answer.as_bytes()).await.expect("written");
    })
    .await;
    let mut request = get("/a/../b?x=1");
    request.head.set_path("/b");
    request
        .head
        .set_header(HOST, HeaderValue::from_static("rewritten.example"));
    let echoed = text(answer(&peer.lane(), request).await).await;
    assert_eq!(
        echoed,
        "GET /b?x=1 HTTP/1.1\r\nhost: rewritten.example\r\n\r\n"
    );
}

#[tokio::test(flavor = "local")]
async fn trailers_pass_both_ways() {
    let peer = Peer::start(|_, mut socket| async move {
        let head = read_head(&mut socket).await.expect("a head");
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        let mut body = Vec::new();
        while !body.ends_with(b"\r\n\r\n") {
            body.push(socket.read_u8().await.expect("a body"));
        }
        assert_eq!(body, b"2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n");
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                      2\r\nho\r\n0\r\nx-sum: 8\r\n\r\n";
        socket.write_all(answer.as_bytes()).await.expect("written");
    })
    .await;
    let sum = HeaderName::from_static("x-sum");
    let mut trailers = HeaderMap::new();
    trailers.insert(sum.clone(), 7.into());
    let frames = [Frame::data(Bytes::from("hi")), Frame::trailers(trailers)];
    let frames = frames.map(Ok::<_, BodyError>);
    let mut request = get("/");
    request.head.set_method(Method::POST);
    request
        .head
        .set_header(TRAILER, HeaderValue::from_static("x-sum"));
    request.body = Body::stream(StreamBody::new(futures_util::stream::iter(frames)));
    let mut response = answer(&peer.lane(), request).await;
    let data = soon(response.body.next_frame())
        .await
        .expect("some")
        .expect("fine");
    assert_eq!(data.into_data().expect("data"), "ho");
    let last = soon(response.body.next_frame())
        .await
        .expect("some")
        .expect("fine");
    assert_eq!(last.into_trailers().expect("trailers")[&sum], "8");
}

#[tokio::test(flavor = "local")]
async fn informational_answers_are_told_and_do_not_end_the_wait() {
    let peer = Peer::answering(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&heard);
    let mut options = SendOptions::new(Instant::now());
    options.on_informational = Some(Box::new(move |status, headers| {
        let link = headers.get("link").cloned();
        told.lock().expect("no panic").push((status.as_u16(), link));
    }));
    let lane = peer.lane();
    let sent = soon(Box::pin(lane.send(get("/"), options)))
        .await
        .expect("an answer");
    assert_eq!(sent.response.head.status, StatusCode::OK);
    assert_eq!(text(sent.response).await, "ok");
    let link = HeaderValue::from_static("</a.css>");
    assert_eq!(
        *heard.lock().expect("no panic"),
        [(100, None), (103, Some(link))]
    );
    assert_eq!(text(answer(&lane, get("/")).await).await, "ok");
    assert_eq!(peer.connections.get(), 1);
}

#[tokio::test(flavor = "local")]
async fn large_bodies_pass_both_ways() {
    const SIZE: usize = 20 << 20;
    let peer = Peer::start(|_, socket| async move {
        let (mut reader, mut writer) = socket.into_split();
        read_head(&mut reader).await.expect("a head");
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n");
        writer.write_all(head.as_bytes()).await.expect("written");
        let mut body = reader.take(SIZE as u64);
        tokio::io::copy(&mut body, &mut writer)
            .await
            .expect("echoed");
    })
    .await;
    let chunk = Bytes::from(vec![b'x'; 64 << 10]);
    let chunks =
        (0..SIZE / chunk.len()).map(move |_| Ok::<_, BodyError>(Frame::data(chunk.clone())));
    let mut request = get("/");
    request.head.set_method(Method::POST);
    request
        .head
        .set_header(http::header::CONTENT_LENGTH, SIZE.into());
    request.body = Body::stream(StreamBody::new(futures_util::stream::iter(chunks)));
    let response = answer(&peer.lane(), request).await;
    assert_eq!(response.body.len(), Some(SIZE as u64));
    assert_eq!(text(response).await.len(), SIZE);
}

#[tokio::test(flavor = "local")]
async fn a_reader_that_stops_holds_the_server_back() {
    let written = Rc::new(RefCell::new(0_usize));
    let count = Rc::clone(&written);
    let peer = Peer::start(move |_, mut socket| {
        let count = Rc::clone(&count);
        async move {
            read_head(&mut socket).await;
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            socket.write_all(head).await.expect("written");
            let chunk = [&b"10000\r\n"[..], &vec![b'x'; 65_536], b"\r\n"].concat();
            while socket.write_all(&chunk).await.is_ok() {
                *count.borrow_mut() += 65_536;
            }
        }
    })
    .await;
    let response = answer(&peer.lane(), get("/")).await;
    // The kernel's buffers fill; then nothing moves.
    let mut before = usize::MAX;
    soon(async {
        while before != *written.borrow() {
            before = *written.borrow();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(
        before < 16 << 20,
        "{before} bytes were taken without a reader"
    );
    drop(response);
}

#[tokio::test(flavor = "local")]
async fn what_is_not_an_answer_is_a_failure_that_says_so() {
    let check = |answering: &'static str, protocol: bool, sentence: &'static str| async move {
        let peer = Peer::start(move |_, mut socket| async move {
            read_head(&mut socket).await;
            socket
                .write_all(answering.as_bytes())
                .await
                .expect("written");
        })
        .await;
        let failure = failure(&peer.lane(), get("/")).await;
        assert_eq!(
            matches!(failure.cause, Cause::Protocol),
            protocol,
            "{answering:?}: {failure:?}"
        );
        assert_eq!(
            matches!(failure.cause, Cause::Closed),
            !protocol,
            "{answering:?}: {failure:?}"
        );
        assert!(
            failure.detail.contains(sentence),
            "{answering:?}: {failure}"
        );
        assert!(failure.detail.contains(&peer.label()), "{failure}");
        assert!(!failure.unprocessed && failure.request.is_none());
        assert_eq!(failure.endpoint, Some(0));
    };
    check("", false, "closed the connection before the head").await;
    check(
        "HTTP/1.1 200 OK\r\ncontent-le",
        false,
        "closed the connection before the head",
    )
    .await;
    check(
        "HTTP/1.1 103 Early Hints\r\n\r\n",
        false,
        "closed the connection before the head",
    )
    .await;
    check("nonsense\r\n\r\n", true, "not HTTP/1.1").await;
    check("HTTP/1.1 2 OK\r\n\r\n", true, "not HTTP/1.1").await;
    check(
        "HTTP/1.1 200 OK\r\nbad header: x\r\n\r\n",
        true,
        "not HTTP/1.1",
    )
    .await;
    check(
        "HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
        true,
        "not HTTP/1.1",
    )
    .await;
    check(
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        true,
        "not HTTP/1.1",
    )
    .await;
    check(
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        true,
        "not HTTP/1.1",
    )
    .await;
    check(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        true,
        "both `content-length` and `transfer-encoding`",
    )
    .await;
    check(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        true,
        "other than `chunked`",
    )
    .await;
    check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", true, "").await;
}

#[tokio::test(flavor = "local")]
async fn heads_over_their_limits_are_refused_without_unbounded_memory() {
    let many = |lines: usize| {
        let line = format!("x-{}: y\r\n", "n".repeat(1000));
        format!(
            "HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n",
            line.repeat(lines)
        )
    };
    let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
    for head in [many(70), many(1_000), fields] {
        let head: &'static str = head.leak();
        let peer = Peer::answering(head).await;
        let failure = failure(&peer.lane(), get("/")).await;
        assert!(matches!(failure.cause, Cause::Protocol), "{failure:?}");
        assert!(
            failure.detail.contains("over 64 KiB or 100 fields"),
            "{failure}"
        );
    }
    let peer = Peer::answering(many(60).leak()).await;
    assert_eq!(text(answer(&peer.lane(), get("/")).await).await, "");
}

#[tokio::test(flavor = "local")]
async fn bodies_that_break_off_are_errors_and_never_look_complete() {
    let check = |answering: &'static str| async move {
        let peer = Peer::start(move |_, mut socket| async move {
            read_head(&mut socket).await;
            socket
                .write_all(answering.as_bytes())
                .await
                .expect("written");
        })
        .await;
        let lane = peer.lane();
        let response = answer(&lane, get("/")).await;
        let error = soon(response.body.collect(100)).await.expect_err(answering);
        assert!(
            matches!(error, BodyError::Peer(_)),
            "{answering:?}: {error}"
        );
        until(|| {
            lane.counts()
                == Counts {
                    connects: 1,
                    ..Counts::default()
                }
        })
        .await;
    };
    check("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi").await;
    check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhi").await;
    check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n").await;
    check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhi\r\n").await;
    check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhiXX0\r\n\r\n").await;
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
async fn a_request_body_that_fails_is_not_the_endpoints_fault() {
    let peer = Peer::start(|_, mut socket| async move {
        drain(&mut socket).await;
    })
    .await;
    let lane = peer.lane();
    let chunks = ["12345", "67890"].map(|text| Ok::<_, BodyError>(Frame::data(Bytes::from(text))));
    let mut request = get("/");
    request.head.set_method(Method::POST);
    request.body = Body::stream(StreamBody::new(futures_util::stream::iter(chunks))).limited(7);
    let large = failure(&lane, request).await;
    assert!(
        matches!(large.cause, Cause::RequestBody(BodyError::TooLarge)),
        "{large:?}"
    );

    let mut request = get("/");
    request.head.set_method(Method::POST);
    request
        .head
        .set_header(http::header::CONTENT_LENGTH, 100.into());
    let chunks = [Ok::<_, BodyError>(Frame::data(Bytes::from("short")))];
    request.body = Body::stream(StreamBody::new(futures_util::stream::iter(chunks)));
    let short = failure(&lane, request).await;
    assert!(matches!(short.cause, Cause::RequestBody(_)), "{short:?}");
    until(|| lane.counts().active == 0).await;
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
async fn an_early_answer_is_taken_although_the_body_was_not_read() {
    let peer = Peer::start(|_, mut socket| async move {
        read_head(&mut socket).await;
        socket
            .write_all(
                b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            )
            .await
            .expect("written");
        // Keeps the connection for a while, or a reset could overtake the answer.
        let mut some = vec![0; 1 << 20];
        while socket.read(&mut some).await.is_ok_and(|n| n > 0) {}
    })
    .await;
    let endless = futures_util::stream::repeat_with(|| {
        Ok::<_, BodyError>(Frame::data(Bytes::from_static(&[0; 1024])))
    });
    let mut request = get("/");
    request.head.set_method(Method::POST);
    request.body = Body::stream(StreamBody::new(endless));
    let lane = peer.lane();
    let response = answer(&lane, request).await;
    assert_eq!(response.head.status, StatusCode::PAYLOAD_TOO_LARGE);
    text(response).await;
}

#[tokio::test(flavor = "local")]
async fn a_request_on_its_way_takes_little_memory() {
    let peer = Peer::answering(OK).await;
    let lane = peer.lane();
    let sending = lane.send(get("/"), SendOptions::new(Instant::now()));
    // It is a part of every client connection's future, busy or idle.
    let size = size_of_val(&sending);
    assert!(size <= 640, "{size} bytes");
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
