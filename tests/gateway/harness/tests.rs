//! The harness itself, without a gateway: what its clients and upstreams say to each other is right.

use http::Request;
use tokio_tungstenite::tungstenite::Message;

use super::http1::chunk;
use super::http2::Http2;
use super::metrics::Metrics;
use super::program::Program;
use super::websocket::{self, WebSocket};
use super::{Conn, Upstream, get, grpc, request, soon};

#[tokio::test]
async fn the_echo_says_what_arrived() {
    let upstream = Upstream::echo("up").await;
    let mut conn = Conn::connect(upstream.address).await;
    for number in 0..3 {
        let body = [
            chunk("some "),
            chunk("text"),
            b"0\r\nx-sum: 9\r\n\r\n".to_vec(),
        ]
        .concat();
        let head = format!(
            "POST /{number} HTTP/1.1\r\nhost: x\r\nX-A: b\r\nx-echo-set-header: x-c:d\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        conn.send([head.into_bytes(), body].concat()).await;
        let answer = conn.answer().await;
        assert_eq!(answer.header("x-c"), Some("d"));
        let json = answer.json();
        assert_eq!(json["target"], format!("/{number}"));
        assert_eq!(json["body"], "some text");
        assert_eq!(json["trailers"][0][1], "9");
    }
    assert_eq!((upstream.connections(), upstream.requests().len()), (1, 3));
    conn.send("HEAD / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(
        conn.answer_to("HEAD")
            .await
            .expect("an answer")
            .body
            .is_empty()
    );
    drop(conn);
    upstream.disconnected(1).await;
}

#[tokio::test]
async fn the_echo_speaks_http2_too() {
    let upstream = Upstream::echo_http2("up").await;
    let client = Http2::connect(upstream.address).await;
    let large = "x".repeat(1_000_000);
    let request = Request::post("http://test/a?b=c")
        .body(())
        .expect("a request");
    let reply = client
        .send(request, Some(large.clone().into()))
        .await
        .expect("an answer");
    let json: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert_eq!(json["target"], "/a?b=c");
    assert_eq!(json["body"], large);
    assert_eq!(client.get("/").await.expect("an answer").status, 200);
}

#[tokio::test]
async fn early_ends_are_seen() {
    let upstream =
        Upstream::says_and_closes("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort").await;
    let answer = get(upstream.address, "/").await;
    assert!(!answer.complete);
    assert_eq!(answer.text(), "short");
    let closing = Upstream::says_and_closes("").await;
    let mut conn = Conn::connect(closing.address).await;
    conn.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(conn.answer_to("GET").await.is_none());
}

#[tokio::test]
async fn the_grpc_service_and_its_client_agree() {
    let service = grpc::Grpc::start().await;
    let mut client = grpc::client(service.address).await;
    let answer = grpc::call(&mut client, "/acme.Echo/Unary", grpc::note("hello")).await;
    assert_eq!(answer.expect("an answer").into_inner().text, "hello");
    let never = grpc::call(&mut client, "/acme.Echo/Unary", grpc::note("never"));
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(100), never)
            .await
            .is_err()
    );
    service.abandoned(1).await;
}

#[tokio::test]
async fn the_websocket_echo_and_its_client_agree() {
    let upstream = websocket::echo().await;
    let mut socket = WebSocket::connect(upstream.address).await;
    socket.echoes(Message::text("hello")).await;
    socket.close().await;
    upstream.disconnected(1).await;
}

#[tokio::test]
async fn python_peers_agree_with_each_other() {
    for (server, client, scheme) in [
        ("grpc_server.py", "grpc_client.py", ""),
        ("websocket_server.py", "websocket_client.py", "ws://"),
    ] {
        let server = Program::python(server, &[]);
        let port = soon("the server", server.output.find_text("listening "))
            .await
            .expect("a port");
        let port = port.trim_start_matches("listening ");
        let mut client = Program::python(client, &[&format!("{scheme}127.0.0.1:{port}")]);
        assert!(client.exited().await.success(), "{}", client.errors.text());
        assert_eq!(client.output.text(), "fine");
    }
}

#[tokio::test]
async fn a_fake_answer_is_read_with_its_interim_ones() {
    let upstream = Upstream::says(
        "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let answer = request(upstream.address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(answer.interim[0].header("link"), Some("x"));
    assert_eq!(answer.status, 200);
}

#[test]
fn series_are_summed_by_their_labels() {
    let text = "# HELP a b\n# TYPE a counter\na{x=\"1\",y=\"p q\"} 2\na{x=\"1\",y=\"r\"} 3\na{x=\"2\",y=\"r\"} 5\nb 1.5\n";
    let metrics = Metrics::parse(text);
    let check = |name: &str, labels: &[(&str, &str)], sum: f64| {
        assert!(
            (metrics.sum(name, labels) - sum).abs() < 1e-9,
            "{name} {labels:?}"
        );
    };
    check("a", &[], 10.0);
    check("a", &[("x", "1")], 5.0);
    check("a", &[("y", "p q")], 2.0);
    check("a", &[("y", "r"), ("x", "2")], 5.0);
    check("b", &[], 1.5);
    check("c", &[], 0.0);
    assert_eq!(metrics.values("a", "y"), ["p q", "r", "r"]);
}
