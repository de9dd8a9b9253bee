//! WebSockets and other upgrades pass as a tunnel of bytes, both ways, until either side ends it.

use std::time::Duration;

use tokio_tungstenite::tungstenite::Message;

use crate::harness::program::Program;
use crate::harness::websocket::{WebSocket, echo};
use crate::harness::{Conn, Gateway, Upstream, request, soon};

async fn gateway(address: impl std::fmt::Display) -> Gateway {
    Gateway::start(format!(
        "routes:\n  - {{name: ws, match: {{path_prefix: /}}, upstream: ws, timeouts: {{request: 1s}}}}\n\
         upstreams:\n  ws: {{endpoints: [\"{address}\"]}}\n"
    ))
    .await
}

#[tokio::test]
async fn messages_pass_both_ways_and_outlive_the_requests_deadline() {
    let upstream = echo().await;
    let gateway = gateway(upstream.address).await;
    let mut socket = WebSocket::connect(gateway.public()).await;
    let begin = tokio::time::Instant::now();
    // Longer than `timeouts.request`: what was agreed is a tunnel, not a request.
    while begin.elapsed() < Duration::from_millis(1500) {
        socket.echoes(Message::text("hello")).await;
        socket.echoes(Message::binary(vec![0, 255, 7])).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    socket.close().await;
    upstream.disconnected(1).await;
    gateway
        .counts("retort_http_requests_total", &[("code", "101")], 1.0)
        .await;
}

#[tokio::test]
async fn a_client_that_vanishes_ends_the_tunnel() {
    let upstream = echo().await;
    let gateway = gateway(upstream.address).await;
    let socket = WebSocket::connect(gateway.public()).await;
    drop(socket);
    upstream.disconnected(1).await;
}

#[tokio::test]
async fn an_upstream_that_refuses_the_upgrade_answers_for_itself() {
    let upstream = Upstream::says("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
    let gateway = gateway(upstream.address).await;
    let answer = request(
        gateway.public(),
        "GET /chat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    assert_eq!((answer.status, answer.text()), (403, "no".to_owned()));
}

#[tokio::test]
async fn any_other_upgrade_is_a_tunnel_too_with_half_closed_ends() {
    let upstream = Upstream::start(|mut peer| async move {
        let Some(request) = peer.request_head().await else { return };
        assert_eq!(request.header("upgrade"), Some("echo/1"));
        peer.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo/1\r\n\r\nfirst").await;
        let all = peer.rest().await;
        peer.send(format!("{} bytes", all.len())).await;
    })
    .await;
    let gateway = gateway(upstream.address).await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo/1\r\n\r\n")
        .await;
    let answer = conn.answer().await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("upgrade"), Some("echo/1"));
    assert_eq!(conn.exactly(5).await.as_deref(), Some(&b"first"[..]));
    conn.send("some bytes").await;
    conn.finish().await;
    assert_eq!(String::from_utf8_lossy(&conn.rest().await), "10 bytes");
}

#[tokio::test]
async fn python_talks_to_python_through_us() {
    let server = Program::python("websocket_server.py", &[]);
    let port = soon("the server", server.output.find_text("listening "))
        .await
        .expect("a port");
    let port = port.trim_start_matches("listening ");
    let gateway = gateway(format!("127.0.0.1:{port}")).await;
    let url = format!("ws://{}/chat", gateway.public());
    let mut client = Program::python("websocket_client.py", &[&url]);
    let status = client.exited().await;
    assert!(status.success(), "{}", client.errors.text());
    assert_eq!(client.output.text(), "fine");
}
