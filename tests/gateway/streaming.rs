//! Bodies flow as they are made, no faster than they are read, with trailers and interim answers.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use tokio::sync::Notify;

use crate::harness::http1::chunk;
use crate::harness::http2::{Http2, collect, send_all};
use crate::harness::{Conn, Gateway, Upstream, request, soon};

/// A gateway with one route to one upstream.
async fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(to(upstream, "")).await
}

fn to(upstream: &Upstream, settings: &str) -> String {
    format!(
        "routes:\n  - {{name: up, match: {{path_prefix: /}}, upstream: up}}\n\
         upstreams:\n  up: {{endpoints: [\"{}\"]{settings}}}\n",
        upstream.address
    )
}

#[tokio::test]
async fn a_response_streams_before_it_is_complete() {
    let go_on = Arc::new(Notify::new());
    let wait = Arc::clone(&go_on);
    let upstream = Upstream::start(move |mut peer| {
        let wait = Arc::clone(&wait);
        async move {
            if peer.request().await.is_none() {
                return;
            }
            peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                .await;
            peer.send(chunk("first")).await;
            wait.notified().await;
            peer.send(chunk("second")).await;
            peer.send("0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = gateway(&upstream).await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(conn.head().await.expect("a head").start.contains("200"));
    assert_eq!(conn.chunk().await.as_deref(), Some(&b"first"[..]));
    go_on.notify_one();
    assert_eq!(conn.chunk().await.as_deref(), Some(&b"second"[..]));
    assert_eq!(conn.chunk().await.as_deref(), Some(&b""[..]));
}

#[tokio::test]
async fn a_request_streams_before_it_is_complete() {
    let arrived = Arc::new(Notify::new());
    let tell = Arc::clone(&arrived);
    let upstream = Upstream::start(move |mut peer| {
        let tell = Arc::clone(&tell);
        async move {
            let Some(head) = peer.request_head().await else {
                return;
            };
            assert!(head.head.lists("transfer-encoding", "chunked"));
            assert_eq!(peer.chunk().await.as_deref(), Some(&b"first"[..]));
            tell.notify_one();
            assert_eq!(peer.chunk().await.as_deref(), Some(&b"second"[..]));
            assert_eq!(peer.chunk().await.as_deref(), Some(&b""[..]));
            let _end = peer.until(b"\r\n").await;
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")
                .await;
        }
    })
    .await;
    let gateway = gateway(&upstream).await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    conn.send(chunk("first")).await;
    soon("the first chunk to arrive", arrived.notified()).await;
    conn.send(chunk("second")).await;
    conn.send("0\r\n\r\n").await;
    assert_eq!(conn.answer().await.text(), "done");
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_upstream_not_the_gateways_memory() {
    let upstream = Upstream::start(|mut peer| async move {
        if peer.request().await.is_none() {
            return;
        }
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n")
            .await;
        let block = vec![b'x'; 1 << 20];
        let mut sent = 0;
        while sent < 1024 {
            let write =
                tokio::time::timeout(std::time::Duration::from_secs(1), peer.try_send(&block));
            match write.await {
                Ok(Ok(())) => sent += 1,
                Ok(Err(_)) => break,
                // A second in which nobody took anything: the back-pressure that is wanted.
                Err(_) => {
                    peer.record(crate::harness::Received {
                        target: format!("{sent} MiB"),
                        ..Default::default()
                    });
                    break;
                }
            }
        }
    })
    .await;
    let gateway = gateway(&upstream).await;
    let before = gateway.memory();
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(conn.head().await.expect("a head").start.contains("200"));
    let seen = upstream.received(2).await;
    let sent: usize = seen[1]
        .target
        .trim_end_matches(" MiB")
        .parse()
        .expect("a number");
    assert!(sent < 64, "{sent} MiB were taken though nobody read");
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {} KiB", grown >> 10);
}

#[tokio::test]
async fn an_upstream_that_does_not_read_stops_the_client() {
    let upstream = Upstream::start(|mut peer| async move {
        if let Some(head) = peer.request_head().await {
            peer.record(head);
            std::future::pending::<()>().await;
        }
    })
    .await;
    let gateway = gateway(&upstream).await;
    let before = gateway.memory();
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1073741824\r\n\r\n")
        .await;
    upstream.received(1).await;
    let block = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while let Ok(Ok(())) =
        tokio::time::timeout(std::time::Duration::from_secs(1), conn.try_send(&block)).await
    {
        sent += 1;
        assert!(sent < 64, "{sent} MiB were taken though nobody read");
    }
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {} KiB", grown >> 10);
}

#[tokio::test]
async fn large_bodies_pass_whole_both_ways() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    let body: String = (0..200_000).map(|number| format!("{number:>9} ")).collect();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = request(gateway.public(), head + &body).await;
    assert!(answer.complete);
    assert_eq!(
        answer.json()["body"].as_str().map(str::len),
        Some(body.len())
    );
    assert_eq!(upstream.requests()[0].body, body.as_bytes());
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let upstream = Upstream::start(|mut peer| async move {
        while peer.request().await.is_some() {
            peer.send(
                "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 42\r\n\r\n",
            )
            .await;
        }
    })
    .await;
    let gateway = gateway(&upstream).await;
    let answer = request(
        gateway.public(),
        "POST / HTTP/1.1\r\nhost: x\r\nte: trailers\r\ntransfer-encoding: chunked\r\ntrailer: x-in\r\n\r\n\
         3\r\nabc\r\n0\r\nx-in: 7\r\n\r\n",
    )
    .await;
    assert_eq!(answer.text(), "ok");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "42".to_owned())]);
    let seen = &upstream.requests()[0];
    assert_eq!(seen.trailers, [("x-in".to_owned(), "7".to_owned())]);

    let client = Http2::connect(gateway.public()).await;
    let reply = client.get("/").await.expect("an answer");
    assert_eq!(reply.body, b"ok");
    assert_eq!(reply.trailers.expect("trailers")["x-sum"], "42");
}

#[tokio::test]
async fn interim_answers_are_relayed() {
    let upstream = Upstream::start(|mut peer| async move {
        if peer.request_head().await.is_some() {
            peer.send("HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n")
                .await;
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await;
            let _left = peer.has_bytes().await;
        }
    })
    .await;
    let gateway = gateway(&upstream).await;
    let answer = gateway.get("/").await;
    assert_eq!(answer.text(), "ok");
    assert_eq!(answer.interim.len(), 1, "{:?}", answer.interim);
    assert_eq!(
        answer.interim[0].header("link"),
        Some("</style.css>; rel=preload")
    );
}

#[tokio::test]
async fn continue_comes_before_the_body_is_sent() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n")
        .await;
    let interim = conn.head().await.expect("an interim answer");
    assert!(interim.start.contains("100"), "{interim:?}");
    conn.send("body").await;
    let answer = conn.answer().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["body"], "body");
}

#[tokio::test]
async fn http2_streams_both_ways_at_once() {
    let upstream = Upstream::http2(|request, mut respond, _peer| async move {
        let mut body = request.into_body();
        let response = http::Response::new(());
        let mut stream = respond.send_response(response, false).expect("a response");
        while let Some(Ok(data)) = body.data().await {
            body.flow_control()
                .release_capacity(data.len())
                .expect("a window");
            send_all(&mut stream, data, false)
                .await
                .expect("an open stream");
        }
        stream
            .send_data(Bytes::new(), true)
            .expect("an open stream");
    })
    .await;
    let gateway = Gateway::start(to(&upstream, ", protocol: http2")).await;
    let client = Http2::connect(gateway.public()).await;
    let request = Request::post("http://test/").body(()).expect("a request");
    let mut call = client.begin(request).await.expect("a stream");
    let mut body = call.response().await.expect("a response").into_body();
    for text in ["one", "two", "three"] {
        call.body
            .send_data(Bytes::from(text), false)
            .expect("an open stream");
        let data = soon("what was sent", body.data())
            .await
            .expect("data")
            .expect("data");
        body.flow_control()
            .release_capacity(data.len())
            .expect("a window");
        assert_eq!(data, text);
    }
    call.body
        .send_data(Bytes::new(), true)
        .expect("an open stream");
    assert!(collect(&mut body).await.expect("an end").is_empty());
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_upstream() {
    let silent =
        Upstream::start(|mut peer| async move { while peer.request().await.is_some() {} }).await;
    let gateway = gateway(&silent).await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    silent.received(1).await;
    drop(conn);
    silent.disconnected(1).await;
    gateway.flagged("DC", 1).await;
    gateway
        .counts("retort_http_requests_total", &[("code", "499")], 1.0)
        .await;
}
