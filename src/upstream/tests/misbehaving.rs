//! HTTP/1.1: servers and bodies that misbehave.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fake::{Peer, answer, drain, failure, get, read_head, soon, text, until};
use crate::base::body::{Body, BodyError};
use crate::upstream::{Cause, Counts};

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
