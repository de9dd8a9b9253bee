//! HTTP/2 with prior knowledge.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use http::{Response, Version};

use super::peer::{answering, check, drain, http2, peer};
use crate::base::body::{Body, BodyError};
use crate::upstream::Protocol::{Http1, Http2};

const HASTY: &str = r#"{"http": {"path": "/healthz"}, "timeout": "150ms"}"#;

#[tokio::test]
async fn an_answer_over_http2_is_measured_alike() {
    let endpoint = http2(|request| {
        let ready = request.uri().path() == "/ready";
        let body = if ready { "ready" } else { "starting" };
        let mut response = Response::new(Body::full(body));
        *response.status_mut() = if ready { 200 } else { 503 }.try_into().expect("valid");
        response
    })
    .await;
    let ready = r#"{"http": {"path": "/ready", "body": "ready"}}"#;
    check(ready, Http2, &endpoint).await.expect("well");
    assert_eq!(
        check(HASTY, Http2, &endpoint).await,
        Err("GET /healthz answered 503, expected 200-299".to_owned())
    );
}

#[tokio::test]
async fn the_host_becomes_the_authority() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    let endpoint = http2(move |request| {
        let agent = request.headers()["user-agent"].to_str().expect("text");
        let line = format!("{} {} {agent}", request.method(), request.uri());
        assert_eq!(request.version(), Version::HTTP_2);
        assert!(!request.headers().contains_key("host"));
        hearing.lock().expect("no panic").push(line);
        Response::new(Body::empty())
    })
    .await;
    check(r#"{"http": {}}"#, Http2, &endpoint)
        .await
        .expect("well");
    let named = r#"{"http": {"method": "HEAD", "host": "shop.example", "path": "/a?b"}}"#;
    check(named, Http2, &endpoint).await.expect("well");
    let expected = [
        format!("GET http://{}/ retort-health-check", endpoint.label),
        "HEAD http://shop.example/a?b retort-health-check".to_owned(),
    ];
    assert_eq!(*heard.lock().expect("no panic"), expected);
}

#[tokio::test]
async fn an_endpoint_of_the_other_protocol_is_told_apart() {
    let http2 = http2(|_| Response::new(Body::empty())).await;
    let words = check(HASTY, Http1, &http2).await.expect_err("HTTP/2");
    // By whose bytes come first.
    let known = ["not HTTP/1.1", "does it speak HTTP/2?"];
    assert!(known.iter().any(|known| words.contains(known)), "{words}");
    let http1 = answering("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let words = check(HASTY, Http2, &http1).await.expect_err("HTTP/1.1");
    assert!(words.contains("broke the rules of HTTP/2"), "{words}");
}

#[tokio::test]
async fn silence_and_endless_bodies_are_bounded() {
    let silent = peer(|mut socket| async move { drain(&mut socket).await }).await;
    assert_eq!(
        check(HASTY, Http2, &silent).await,
        Err("no answer within 150ms".to_owned())
    );
    let endless = http2(|_| {
        let chunk = || Ok::<_, BodyError>(Bytes::from_static(&[b'x'; 999]));
        Response::new(Body::from_stream(stream::repeat_with(chunk)))
    })
    .await;
    check(r#"{"http": {}}"#, Http2, &endless)
        .await
        .expect("well");
    let stalled = http2(|_| {
        let nothing = stream::pending::<Result<Bytes, BodyError>>();
        Response::new(Body::from_stream(nothing))
    })
    .await;
    assert_eq!(
        check(HASTY, Http2, &stalled).await,
        Err("the body of the answer did not end within 150ms".to_owned())
    );
}
