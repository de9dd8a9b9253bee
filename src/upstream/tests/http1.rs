//! HTTP/1.1: forms, framing and what passes both ways.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue, TRAILER};
use http::{HeaderMap, Method, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fake::{OK, Peer, answer, get, read_head, soon, text};
use crate::base::body::{Body, BodyError};
use crate::upstream::SendOptions;

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
async fn a_request_on_its_way_takes_little_memory() {
    let peer = Peer::answering(OK).await;
    let lane = peer.lane();
    let sending = lane.send(get("/"), SendOptions::new(Instant::now()));
    // It is a part of every client connection's future, busy or idle.
    let size = size_of_val(&sending);
    assert!(size <= 640, "{size} bytes");
}
