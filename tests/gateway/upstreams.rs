//! What passes between client and upstream arrives as it was sent, over every protocol and socket.

use bytes::Bytes;
use http::Request;

use crate::harness::http2::Http2;
use crate::harness::{Conn, Gateway, Upstream, get, request};

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
async fn method_target_fields_and_body_arrive_as_sent() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    let answer = request(
        gateway.public(),
        "PATCH /a%20b/c?d=e&f=%2F HTTP/1.1\r\nhost: shop.test:8080\r\nx-one: 1\r\nx-two: a\r\nx-two: b\r\n\
         content-length: 5\r\n\r\nhello",
    )
    .await;
    assert_eq!(answer.status, 200);
    let seen = &upstream.requests()[0];
    assert_eq!(seen.method, "PATCH");
    assert_eq!(seen.target, "/a%20b/c?d=e&f=%2F");
    assert_eq!(seen.header("host"), Some("shop.test:8080"));
    assert_eq!(seen.header("x-one"), Some("1"));
    assert_eq!(seen.head.all("x-two"), ["a", "b"]);
    assert_eq!(seen.header("content-length"), Some("5"));
    assert_eq!(seen.body, b"hello");
}

#[tokio::test]
async fn hop_by_hop_fields_stay_and_forwarding_fields_tell_only_what_we_know() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    let answer = request(
        gateway.public(),
        "GET / HTTP/1.1\r\nhost: a.test\r\nconnection: x-mine, close\r\nx-mine: 1\r\nkeep-alive: 5\r\nte: trailers\r\n\
         proxy-connection: x\r\nproxy-authorization: x\r\nx-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\n\
         x-forwarded-host: evil.test\r\nforwarded: for=6.6.6.6\r\nx-echo-set-header: connection:x-up, x-up:1, keep-alive:5, x-kept:1\r\n\r\n",
    )
    .await;
    let seen = &upstream.requests()[0];
    for gone in ["x-mine", "keep-alive", "proxy-connection"] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    assert_eq!(seen.head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.head.all("x-forwarded-host"), ["a.test"]);
    assert!(!seen.head.all("forwarded").join(",").contains("6.6.6.6"));
    assert_eq!(answer.header("x-kept"), Some("1"));
    assert_eq!(answer.header("x-up"), None);
    assert_eq!(answer.header("keep-alive"), None);
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_read_from_the_right() {
    let upstream = Upstream::echo("up").await;
    let gateway = Gateway::start(format!(
        "listeners:\n  - {{name: public, address: \"127.0.0.1:0\", trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]}}\n{}",
        to(&upstream, "")
    ))
    .await;
    let forwarded = "GET / HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 6.6.6.6, 203.0.113.7, 10.1.2.3\r\n\
                     x-forwarded-proto: https\r\n\r\n";
    let _answer = request(gateway.public(), forwarded).await;
    let seen = &upstream.requests()[0];
    let chain = seen.header("x-forwarded-for").expect("a chain");
    assert!(
        chain.ends_with("203.0.113.7, 10.1.2.3, 127.0.0.1"),
        "{chain}"
    );
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    let line = gateway.prints("203.0.113.7").await;
    assert!(
        !line.contains("6.6.6.6"),
        "the client is not who it claims to be: {line}"
    );
}

#[tokio::test]
async fn answers_without_a_body_are_framed_right() {
    let upstream = Upstream::start(|mut peer| async move {
        while let Some(request) = peer.request().await {
            let answer = match request.target.as_str() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\netag: \"a\"\r\n\r\n",
                "/head" => "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n",
                "/empty" => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlast",
            };
            peer.send(answer).await;
        }
    })
    .await;
    let gateway = gateway(&upstream).await;
    let mut conn = Conn::connect(gateway.public()).await;
    for (method, target, status, length) in [
        ("GET", "/204", 204, None),
        // Its length is optional (RFC 9110, 15.4.5); hyper leaves it out.
        ("GET", "/304", 304, None),
        ("HEAD", "/head", 200, Some("1234")),
        ("GET", "/empty", 200, Some("0")),
        ("GET", "/last", 200, Some("4")),
    ] {
        conn.send(format!("{method} {target} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await;
        let answer = conn.answer_to(method).await.expect("an answer");
        assert_eq!(answer.status, status, "{target}");
        assert_eq!(answer.header("transfer-encoding"), None, "{target}");
        if length.is_some() || status == 204 {
            assert_eq!(answer.header("content-length"), length, "{target}");
        }
    }
}

#[tokio::test]
async fn connections_to_the_upstream_are_reused() {
    let upstream = Upstream::echo("up").await;
    let gateway = Gateway::start(format!("runtime: {{workers: 1}}\n{}", to(&upstream, ""))).await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn an_idle_connection_of_the_pool_is_closed_in_time() {
    let upstream = Upstream::echo("up").await;
    let gateway = Gateway::start(to(&upstream, ", pool: {idle_timeout: 1s}")).await;
    assert_eq!(gateway.get("/").await.status, 200);
    upstream.disconnected(1).await;
}

#[tokio::test]
async fn requests_in_a_row_on_one_connection_are_answered_in_order() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send(
        "GET /1?delay=200ms HTTP/1.1\r\nhost: x\r\n\r\nGET /2 HTTP/1.1\r\nhost: x\r\n\r\n\
         POST /3 HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\naGET /4 HTTP/1.1\r\nhost: x\r\n\r\n",
    )
    .await;
    for target in ["/1?delay=200ms", "/2", "/3", "/4"] {
        assert_eq!(conn.answer().await.json()["target"], target);
    }
}

#[tokio::test]
async fn http_1_0_clients_are_served_and_closed() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("GET /old HTTP/1.0\r\nhost: x\r\n\r\n").await;
    let answer = conn.answer().await;
    assert_eq!(answer.json()["version"], "HTTP/1.1");
    assert_eq!(answer.header("transfer-encoding"), None);
    assert!(conn.is_closed().await);
}

#[tokio::test]
async fn http2_clients_reach_http1_upstreams() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    let client = Http2::connect(gateway.public()).await;
    let replies = futures_util::future::join_all((0..50).map(|number| {
        let request = Request::post(format!("http://shop.test/{number}?a=b"))
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(())
            .expect("a request");
        client.send(request, Some(Bytes::from(format!("body {number}"))))
    }))
    .await;
    for (number, reply) in replies.into_iter().enumerate() {
        let seen: serde_json::Value =
            serde_json::from_slice(&reply.expect("an answer").body).expect("JSON");
        assert_eq!(seen["target"], format!("/{number}?a=b"));
        assert_eq!(seen["body"], format!("body {number}"));
        let headers = seen["headers"].to_string();
        assert!(headers.contains(r#"["host","shop.test"]"#), "{headers}");
        assert!(
            headers.contains(r#"["cookie","a=1; b=2"]"#),
            "one cookie line for HTTP/1: {headers}"
        );
    }
}

#[tokio::test]
async fn http2_upstreams_take_many_requests_on_one_connection() {
    let upstream = Upstream::echo_http2("up").await;
    let gateway = Gateway::start(format!(
        "runtime: {{workers: 1}}\n{}",
        to(&upstream, ", protocol: http2")
    ))
    .await;
    let answers = futures_util::future::join_all(
        (0..50).map(|number| get(gateway.public(), &format!("/{number}?delay=50ms"))),
    )
    .await;
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer.json()["target"], format!("/{number}?delay=50ms"));
        assert_eq!(answer.json()["version"], "HTTP/2");
    }
    assert_eq!(upstream.connections(), 1);
    let client = Http2::connect(gateway.public()).await;
    let request = Request::put("http://test/h2").body(()).expect("a request");
    let reply = client
        .send(request, Some("from end to end".into()))
        .await
        .expect("an answer");
    let seen: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert_eq!(seen["body"], "from end to end");
}

#[tokio::test]
async fn unix_sockets_serve_on_both_sides() {
    let dir = tempfile::tempdir().expect("a folder");
    let (front, back) = (dir.path().join("front.sock"), dir.path().join("back.sock"));
    let _upstream = Upstream::echo_unix(&back, "up");
    let gateway = Gateway::start(format!(
        "listeners:\n  - {{name: public, address: \"unix:{}\"}}\n\
         routes:\n  - {{name: up, match: {{path_prefix: /}}, upstream: up}}\n\
         upstreams:\n  up: {{endpoints: [\"unix:{}\"]}}\n",
        front.display(),
        back.display()
    ))
    .await;
    let mut conn = Conn::connect_unix(&front).await;
    conn.send("GET /over-unix HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let answer = conn.answer().await;
    assert_eq!(answer.json()["target"], "/over-unix");
    drop(gateway);
}

#[tokio::test]
async fn ipv6_serves_as_ipv4_does() {
    let gateway = Gateway::start(
        "listeners:\n  - {name: public, address: \"[::1]:0\"}\n\
         routes:\n  - {name: ok, match: {path: /}, handler: {respond: {body: \"ok\"}}}\n",
    )
    .await;
    assert!(gateway.public().is_ipv6());
    assert_eq!(gateway.get("/").await.text(), "ok");
}

#[tokio::test]
async fn endpoints_take_turns_and_weights_count() {
    let (a, b) = (Upstream::echo("a").await, Upstream::echo("b").await);
    let gateway = Gateway::start(format!(
        "runtime: {{workers: 1}}
routes:
  - {{name: up, match: {{path_prefix: /}}, upstream: up}}
upstreams:
  up:
    balance: round_robin
    endpoints: [{{address: \"{}\", weight: 3}}, \"{}\"]
",
        a.address, b.address
    ))
    .await;
    for _ in 0..40 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!((a.requests().len(), b.requests().len()), (30, 10));
}

#[tokio::test]
async fn p2c_ewma_prefers_the_endpoint_that_answers_fast() {
    let (fast, slow) = (
        Upstream::echo("fast").await,
        Upstream::start(|mut peer| async move {
            while peer.request().await.is_some() {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .await;
            }
        })
        .await,
    );
    let gateway = Gateway::start(format!(
        "runtime: {{workers: 1}}
routes:
  - {{name: up, match: {{path_prefix: /}}, upstream: up}}
upstreams:
  up: {{balance: p2c_ewma, endpoints: [\"{}\", \"{}\"]}}
",
        fast.address, slow.address
    ))
    .await;
    for _ in 0..60 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    let (fast, slow) = (fast.requests().len(), slow.requests().len());
    assert!(
        fast > 2 * slow,
        "{fast} to the fast one, {slow} to the slow one"
    );
}
