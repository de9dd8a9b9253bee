//! Only unambiguous HTTP passes: whatever could be read in two ways is refused, and hurts nobody else.

use crate::harness::http2::Http2;
use crate::harness::{Conn, Gateway, Upstream, request, soon};

/// A gateway before an echo.
async fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(format!(
        "routes:\n  - {{name: up, match: {{path_prefix: /}}, upstream: up}}\nupstreams:\n{}",
        upstream.yaml("up")
    ))
    .await
}

/// Sends the bytes and expects a refusal with one of the statuses (0 for a close without a word), a
/// closed connection, and that the upstream has seen nothing.
async fn refused(rows: &[(&str, &[u8], &[u16])]) {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    for (what, bytes, statuses) in rows {
        let mut conn = refuses(&gateway, what, bytes, statuses).await;
        let rest = conn.rest().await;
        assert!(
            rest.is_empty(),
            "{what}: more came: {:?}",
            String::from_utf8_lossy(&rest)
        );
        let seen = upstream.requests();
        assert!(seen.is_empty(), "{what}: reached the upstream: {seen:?}");
    }
    assert_eq!(
        gateway.get("/").await.status,
        200,
        "others are served as before"
    );
}

async fn refuses(gateway: &Gateway, what: &str, bytes: &[u8], statuses: &[u16]) -> Conn {
    let mut conn = Conn::connect(gateway.public()).await;
    let _closed_early = conn.try_send(bytes).await;
    let answer = conn.answer_to("GET").await;
    let status = answer.map_or(0, |answer| answer.status);
    assert!(statuses.contains(&status), "{what}: {status}");
    conn
}

#[tokio::test]
async fn ambiguous_framing_is_400() {
    refused(&[
        (
            "content-length and transfer-encoding",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nG",
            &[400],
        ),
        (
            "two lengths that differ",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            &[400],
        ),
        (
            "a list of lengths that differ",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1, 2\r\n\r\nab",
            &[400],
        ),
        (
            "a length with a sign",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\na",
            &[400],
        ),
        (
            "a negative length",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
            &[400],
        ),
        (
            "a length in hexadecimal",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0x1\r\n\r\na",
            &[400],
        ),
        (
            "a length that overflows",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 18446744073709551617\r\n\r\na",
            &[400],
        ),
        (
            "an empty length",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length:\r\n\r\n",
            &[400],
        ),
        (
            "an unknown transfer coding",
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
            &[400, 501],
        ),
        (
            "chunked, but not last",
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
            &[400, 501],
        ),
        (
            "chunked twice",
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            &[400, 501],
        ),
        (
            "a transfer coding with a trick of whitespace",
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
            &[400, 501],
        ),
        (
            "transfer-encoding in HTTP/1.0",
            b"POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            &[400],
        ),
    ])
    .await;
}

#[tokio::test]
async fn malformed_heads_are_400() {
    refused(&[
        (
            "space before the colon",
            b"GET / HTTP/1.1\r\nhost: x\r\nx-a : 1\r\n\r\n",
            &[400],
        ),
        (
            "a folded line",
            b"GET / HTTP/1.1\r\nhost: x\r\nx-a: 1\r\n 2\r\n\r\n",
            &[400],
        ),
        (
            "a line without a colon",
            b"GET / HTTP/1.1\r\nhost: x\r\nwhat\r\n\r\n",
            &[400],
        ),
        (
            "an empty name",
            b"GET / HTTP/1.1\r\nhost: x\r\n: 1\r\n\r\n",
            &[400],
        ),
        (
            "NUL in a value",
            b"GET / HTTP/1.1\r\nhost: x\r\nx-a: a\0b\r\n\r\n",
            &[400],
        ),
        (
            "a bare CR in a value",
            b"GET / HTTP/1.1\r\nhost: x\r\nx-a: a\rb\r\n\r\n",
            &[400],
        ),
        ("bare LF line ends", b"GET / HTTP/1.1\nhost: x\n\n", &[400]),
        (
            "one bare LF",
            b"GET / HTTP/1.1\r\nhost: x\nx-a: 1\r\n\r\n",
            &[400],
        ),
        (
            "NUL in the target",
            b"GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n",
            &[400],
        ),
        (
            "two spaces in the request line",
            b"GET  / HTTP/1.1\r\nhost: x\r\n\r\n",
            &[400],
        ),
        (
            "a space in the target",
            b"GET /a b HTTP/1.1\r\nhost: x\r\n\r\n",
            &[400],
        ),
        ("no target", b"GET HTTP/1.1\r\nhost: x\r\n\r\n", &[400]),
        (
            "a version of the future",
            b"GET / HTTP/3.7\r\nhost: x\r\n\r\n",
            &[400, 505],
        ),
        ("no version", b"GET /\r\n\r\n", &[400]),
        (
            "a method that is no token",
            b"G(T / HTTP/1.1\r\nhost: x\r\n\r\n",
            &[400],
        ),
        (
            "garbage",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            &[400, 0],
        ),
        (
            "text of another protocol",
            b"EHLO mail.test\r\n\r\n",
            &[400],
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_missing_or_bad_host_is_400() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    let rows: [(&str, &[u8], &[u16]); 9] = [
        ("no host in HTTP/1.1", b"GET / HTTP/1.1\r\n\r\n", &[400]),
        (
            "two hosts",
            b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
            &[400],
        ),
        (
            "a host with a path",
            b"GET / HTTP/1.1\r\nhost: x/y\r\n\r\n",
            &[400],
        ),
        (
            "a host with a user",
            b"GET / HTTP/1.1\r\nhost: u@x\r\n\r\n",
            &[400],
        ),
        (
            "a host with a space",
            b"GET / HTTP/1.1\r\nhost: x y\r\n\r\n",
            &[400],
        ),
        (
            "a port that is none",
            b"GET / HTTP/1.1\r\nhost: x:port\r\n\r\n",
            &[400],
        ),
        (
            "a port out of range",
            b"GET / HTTP/1.1\r\nhost: x:99999\r\n\r\n",
            &[400],
        ),
        (
            "a target that is neither path nor URL",
            b"GET x HTTP/1.1\r\nhost: x\r\n\r\n",
            &[400],
        ),
        (
            "a CONNECT",
            b"CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n\r\n",
            &[400, 405, 501],
        ),
    ];
    for (what, bytes, statuses) in rows {
        // Where the message ends is beyond doubt, so that the connection may stay.
        let _conn = refuses(&gateway, what, bytes, statuses).await;
    }
    assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
}

#[tokio::test]
async fn bad_chunks_end_the_request_and_its_connection() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    for (what, body) in [
        ("a size that is no number", "zz\r\nab\r\n0\r\n\r\n"),
        ("a size with a sign", "+2\r\nab\r\n0\r\n\r\n"),
        ("a size with a prefix", "0x2\r\nab\r\n0\r\n\r\n"),
        (
            "a size that overflows",
            "fffffffffffffffff\r\nab\r\n0\r\n\r\n",
        ),
        (
            "a size that wraps around",
            "10000000000000002\r\nab\r\n0\r\n\r\n",
        ),
        ("data longer than its size", "1\r\nab\r\n0\r\n\r\n"),
        ("a bare LF after the size", "2\nab\r\n0\r\n\r\n"),
        ("a bare LF after the data", "2\r\nab\n0\r\n\r\n"),
        ("a space before the size", " 2\r\nab\r\n0\r\n\r\n"),
        ("a NUL in the size", "2\0\r\nab\r\n0\r\n\r\n"),
    ] {
        let mut conn = Conn::connect(gateway.public()).await;
        let _closed_early = conn.try_send(format!("{head}{body}")).await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
        let _closed_early = conn.try_send(smuggled).await;
        conn.finish().await;
        if let Some(answer) = conn.answer_to("POST").await {
            assert_eq!(answer.status, 400, "{what}");
        }
        let rest = conn.rest().await;
        assert!(
            rest.is_empty(),
            "{what}: more came: {:?}",
            String::from_utf8_lossy(&rest)
        );
        assert!(
            upstream.requests().is_empty(),
            "{what}: {:?}",
            upstream.requests()
        );
    }
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn trailers_cannot_change_what_was_decided() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    let bytes = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
                 2\r\nab\r\n0\r\ncontent-length: 9\r\nhost: y\r\ntransfer-encoding: x\r\nx-fine: 1\r\n\r\n";
    let answer = request(gateway.public(), bytes).await;
    if answer.status == 200 {
        let seen = answer.json();
        for (name, _) in serde_json::from_value::<Vec<(String, String)>>(seen["trailers"].clone())
            .expect("trailers")
        {
            assert!(
                !matches!(
                    name.as_str(),
                    "content-length" | "host" | "transfer-encoding"
                ),
                "{name} passed as a trailer"
            );
        }
    } else {
        assert_eq!(answer.status, 400);
    }
}

#[tokio::test]
async fn equal_lengths_said_twice_are_one_or_none() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    let bytes = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nab";
    let answer = request(gateway.public(), bytes).await;
    if answer.status == 200 {
        let seen = upstream.requests();
        assert_eq!(seen[0].head.all("content-length"), ["2"]);
        assert_eq!(seen[0].body, b"ab");
    } else {
        assert_eq!(answer.status, 400);
    }
}

#[tokio::test]
async fn refusals_are_counted_and_logged() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    let answer = request(gateway.public(), "GET / HTTP/1.1\r\nhost: x/y\r\n\r\n").await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.text().starts_with("400 Bad Request: "),
        "{:?}",
        answer.text()
    );
    gateway.flagged("BR", 1).await;
}

#[tokio::test]
async fn clients_that_hang_or_lie_do_not_slow_the_others() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    let mut hanging = Vec::new();
    for number in 0..60 {
        let mut conn = Conn::connect(gateway.public()).await;
        let start: &[u8] = match number % 3 {
            0 => b"GET / HTTP/1.1\r\nhost: x\r\nx-",
            1 => b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nabc",
            _ => b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffff\r\nabc",
        };
        conn.send(start).await;
        hanging.push(conn);
    }
    for _ in 0..20 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn http2_that_is_malformed_ends_one_stream_or_the_connection_and_nothing_else() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    // A frame longer than allowed, after a good preface.
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    conn.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    conn.send([0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]).await;
    let _frames = soon("the end of the connection", conn.rest()).await;
    // A preface that goes wrong half way.
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").await;
    conn.finish().await;
    let _frames = soon("the end of the connection", conn.rest()).await;

    let client = Http2::connect(gateway.public()).await;
    assert_eq!(client.get("/").await.expect("an answer").status, 200);
    let seen = upstream.requests();
    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[tokio::test]
async fn http2_with_connection_fields_is_refused() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    let client = Http2::connect(gateway.public()).await;
    for (name, value) in [("te", "gzip"), ("content-length", "7")] {
        let request = http::Request::post("http://test/")
            .header(name, value)
            .body(())
            .expect("a request");
        let reply = client.send(request, Some("four".into())).await;
        if let Ok(reply) = reply {
            assert!(
                reply.status == 400 || (name == "te" && reply.status == 200),
                "{name}: {}",
                reply.status
            );
        }
    }
    for seen in upstream.requests() {
        assert_eq!(seen.header("te"), None, "{seen:?}");
    }
    assert_eq!(client.get("/").await.expect("an answer").status, 200);
}

#[tokio::test]
async fn resets_in_a_row_do_not_pile_up_work() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    let before = gateway.memory();
    let client = Http2::connect(gateway.public()).await;
    for _ in 0..300 {
        let request = http::Request::post("http://test/?delay=5s")
            .body(())
            .expect("a request");
        let Ok(mut call) = client.begin(request).await else {
            break;
        };
        call.body.send_reset(h2::Reason::CANCEL);
    }
    assert_eq!(gateway.get("/").await.status, 200);
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 64 << 20, "grew by {} KiB", grown >> 10);
}

#[tokio::test]
async fn an_upgrade_to_http2_is_no_tunnel_past_the_routes() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    let answer = request(
        gateway.public(),
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\
         http2-settings: AAMAAABkAAQAAP__\r\n\r\n",
    )
    .await;
    assert_eq!(answer.status, 200, "the offer is not taken (RFC 9110, 7.8)");
    let seen = &upstream.requests()[0];
    for name in ["upgrade", "http2-settings", "connection"] {
        assert_eq!(seen.header(name), None, "{seen:?}");
    }
}

#[tokio::test]
async fn a_request_that_goes_in_circles_is_508() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    gateway
        .reload(&format!(
            "routes:\n  - {{name: up, match: {{path_prefix: /}}, upstream: ourselves}}\n\
             upstreams:\n  ourselves: {{endpoints: [\"{}\"]}}\n",
            gateway.public()
        ))
        .await;
    assert_eq!(gateway.get("/").await.status, 508);
    let metrics = gateway.flagged("LOOP", 1).await;
    let rounds = metrics.sum("retort_http_requests_total", &[("code", "508")]);
    assert!(rounds < 100.0, "{rounds}");
}

#[tokio::test]
async fn a_body_that_stands_still_is_given_up() {
    let upstream = Upstream::echo("up").await;
    let gateway = Gateway::start(format!(
        "routes:\n  - {{name: up, match: {{path_prefix: /}}, upstream: up, timeouts: {{idle: 300ms}}}}\nupstreams:\n{}",
        upstream.yaml("up")
    ))
    .await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nonly this")
        .await;
    if let Some(answer) = conn.answer_to("POST").await {
        assert!(matches!(answer.status, 408 | 504), "{}", answer.text());
    }
    assert!(conn.is_closed().await);
    upstream.disconnected(1).await;
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn garbage_behind_a_request_in_flight_is_refused_after_its_answer() {
    let upstream = Upstream::echo("up").await;
    let gateway = gateway(&upstream).await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("GET /?delay=300ms HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    upstream.received(1).await;
    conn.send("GET / HTTP/1.1\nhost: x\n\n").await;
    assert_eq!(conn.answer().await.status, 200);
    assert_eq!(conn.answer().await.status, 400);
    assert!(conn.is_closed().await);
    assert_eq!(upstream.requests().len(), 1);
}
