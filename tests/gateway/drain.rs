//! TERM: ready turns false first, what is in flight ends, who stays is told to go, then the process is gone.

use std::time::{Duration, Instant};

use crate::harness::http2::Http2;
use crate::harness::{Conn, Gateway, Upstream, eventually, get, soon};

async fn slow_gateway(drain: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::echo("up").await;
    let gateway = Gateway::start(format!(
        "runtime: {{workers: 2, drain: {drain}}}\n\
         routes:\n  - {{name: up, match: {{path_prefix: /}}, upstream: up}}\nupstreams:\n{}",
        upstream.yaml("up")
    ))
    .await;
    (upstream, gateway)
}

#[tokio::test]
async fn an_idle_gateway_ends_at_once_with_status_0() {
    let (_upstream, mut gateway) = slow_gateway("20s").await;
    let begin = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.exited().await.code(), Some(0));
    assert!(
        begin.elapsed() < Duration::from_secs(8),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn requests_in_flight_end_and_ready_is_false_meanwhile() {
    let (upstream, mut gateway) = slow_gateway("20s").await;
    let public = gateway.public();
    let slow = tokio::spawn(async move { get(public, "/?delay=2s").await });
    upstream.received(1).await;
    gateway.signal("TERM");
    eventually(
        "ready to be false",
        || async { gateway.telemetry("/readyz").await.status },
        |status| *status == 503,
    )
    .await;
    assert_eq!(
        gateway.telemetry("/livez").await.status,
        200,
        "it is alive while it drains"
    );
    let answer = slow.await.expect("no panic");
    assert_eq!(answer.status, 200);
    assert!(answer.complete);
    assert_eq!(gateway.exited().await.code(), Some(0));
}

#[tokio::test]
async fn kept_connections_are_told_to_close() {
    let (upstream, mut gateway) = slow_gateway("20s").await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("GET /?delay=1s HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    upstream.received(1).await;
    let mut idle = Conn::connect(gateway.public()).await;
    idle.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(idle.answer().await.status, 200);
    gateway.signal("TERM");
    let answer = conn.answer().await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.head.lists("connection", "close"),
        "{:?}",
        answer.head
    );
    assert!(conn.is_closed().await);
    assert!(idle.is_closed().await);
    assert_eq!(gateway.exited().await.code(), Some(0));
}

#[tokio::test]
async fn http2_connections_get_goaway_and_their_streams_end_well() {
    let (upstream, mut gateway) = slow_gateway("20s").await;
    let client = Http2::connect(gateway.public()).await;
    let slow = client.get("/?delay=1s");
    let slow = tokio::spawn(slow);
    upstream.received(1).await;
    gateway.signal("TERM");
    let reply = slow.await.expect("no panic").expect("an answer");
    assert_eq!(reply.status, 200);
    let end = soon("the connection to end", client.connection)
        .await
        .expect("no panic");
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(gateway.exited().await.code(), Some(0));
}

#[tokio::test]
async fn grace_ends_and_so_does_what_is_still_there() {
    let (upstream, mut gateway) = slow_gateway("500ms").await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("GET /?delay=60s HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    upstream.received(1).await;
    let begin = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.exited().await.code(), Some(0));
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(400), "{took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn a_second_term_ends_it_at_once() {
    let (upstream, mut gateway) = slow_gateway("60s").await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("GET /?delay=60s HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    upstream.received(1).await;
    gateway.signal("TERM");
    eventually(
        "the drain to begin",
        || async { gateway.telemetry("/readyz").await.status },
        |status| *status == 503,
    )
    .await;
    let begin = Instant::now();
    gateway.signal("TERM");
    gateway.exited().await;
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn quit_stops_now() {
    let (upstream, mut gateway) = slow_gateway("60s").await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("GET /?delay=60s HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    upstream.received(1).await;
    let begin = Instant::now();
    gateway.signal("QUIT");
    gateway.exited().await;
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn no_request_is_lost_on_term_while_grace_lasts() {
    let (_upstream, mut gateway) = slow_gateway("4s").await;
    let public = gateway.public();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                let mut answered = 0;
                // A refused connection is no lost request: it was never taken.
                'connections: while let Ok(socket) = tokio::net::TcpStream::connect(public).await {
                    let mut conn = Conn::new(socket);
                    let mut fresh = true;
                    loop {
                        if conn
                            .try_send("GET /?delay=5ms HTTP/1.1\r\nhost: x\r\n\r\n")
                            .await
                            .is_err()
                        {
                            assert!(!fresh, "a connection that was taken is dropped");
                            continue 'connections;
                        }
                        let Some(answer) = conn.answer_to("GET").await else {
                            assert!(!fresh, "the first request of a connection is lost");
                            // An idle connection that closes while the request is on its way: the
                            // client may send it again, as nothing was answered (RFC 9112, 9.3.1).
                            continue 'connections;
                        };
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        assert!(answer.complete);
                        answered += 1;
                        fresh = false;
                        if answer.head.lists("connection", "close") {
                            continue 'connections;
                        }
                    }
                }
                answered
            })
        })
        .collect();
    gateway
        .counts("retort_http_requests_total", &[("code", "200")], 0.0)
        .await;
    eventually(
        "some requests",
        || gateway.metrics(),
        |metrics| metrics.sum("retort_http_requests_total", &[("code", "200")]) > 50.0,
    )
    .await;
    gateway.signal("TERM");
    for client in clients {
        assert!(client.await.expect("no lost request") > 0);
    }
    assert_eq!(gateway.exited().await.code(), Some(0));
}

#[tokio::test]
async fn who_connects_while_a_request_is_in_flight_is_answered_and_told_to_go() {
    let (upstream, mut gateway) = slow_gateway("20s").await;
    let public = gateway.public();
    let slow = tokio::spawn(async move { get(public, "/?delay=2s").await });
    upstream.received(1).await;
    gateway.signal("TERM");
    eventually(
        "the drain to begin",
        || async { gateway.telemetry("/readyz").await.status },
        |status| *status == 503,
    )
    .await;
    for _ in 0..5 {
        let answer = get(public, "/").await;
        assert_eq!(answer.status, 200);
        assert!(answer.head.lists("connection", "close"));
    }
    assert_eq!(slow.await.expect("no panic").status, 200);
    assert_eq!(gateway.exited().await.code(), Some(0));
}
