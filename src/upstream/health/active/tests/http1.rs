//! HTTP/1.1 and bare connections.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use super::peer::{answering, check, drain, endpoint, peer, read_head, settings, soon};
use crate::base::address::Address;
use crate::upstream::Protocol::Http1;
use crate::upstream::health::active::{probe, reachable};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Waits no longer than a test should.
const HASTY: &str = r#"{"http": {"path": "/healthz"}, "timeout": "150ms"}"#;

#[tokio::test]
async fn an_answer_is_measured_by_its_status_and_its_body() {
    let case = |answer: &'static str, http: &'static str, expected: &'static str| async move {
        let endpoint = answering(answer).await;
        let result = check(&format!(r#"{{"http": {http}}}"#), Http1, &endpoint).await;
        let words = result.err().unwrap_or_default();
        assert_eq!(words, expected, "{answer:?} for {http}");
    };
    case(OK, "{}", "").await;
    case("HTTP/1.1 204 No Content\r\n\r\n", "{}", "").await;
    case("HTTP/1.0 200 OK\r\n\r\n", r#"{"method": "HEAD"}"#, "").await;
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    case(early, "{}", "").await;
    let down = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\ndown";
    case(
        down,
        r#"{"path": "/healthz"}"#,
        "GET /healthz answered 503, expected 200-299",
    )
    .await;
    case(
        down,
        r#"{"path": "/healthz?a=1", "method": "HEAD", "status": [200, 204]}"#,
        "HEAD /healthz?a=1 answered 503, expected 200, 204",
    )
    .await;
    case(down, r#"{"status": ["500-599"], "body": "own"}"#, "").await;
    case(
        OK,
        r#"{"body": "ready"}"#,
        r#"GET / answered 200, but the first 64 KiB of the body do not contain "ready""#,
    )
    .await;
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nrea\r\n2\r\ndy\r\n0\r\n\r\n";
    case(chunked, r#"{"body": "ready"}"#, "").await;
}

#[tokio::test]
async fn a_request_says_who_asks_and_what_was_configured() {
    let (heard, mut heads) = mpsc::unbounded_channel();
    let endpoint = peer(move |mut socket| {
        let heard = heard.clone();
        async move {
            let head = read_head(&mut socket).await;
            heard.send(head).expect("a test that listens");
            let _left = socket.write_all(OK.as_bytes()).await;
        }
    })
    .await;
    let plain = r#"{"http": {}}"#;
    check(plain, Http1, &endpoint).await.expect("well");
    let head = soon(heads.recv()).await.expect("a head");
    assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
    for line in [
        "user-agent: retort-health-check".to_owned(),
        "connection: close".to_owned(),
        format!("host: {}", endpoint.label),
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{head}");
    }

    let full = r#"{"http": {"path": "/a?b=c", "method": "HEAD", "host": "shop.example:1",
                            "headers": {"X-Check": "deep", "User-Agent": "me"}}}"#;
    check(full, Http1, &endpoint).await.expect("well");
    let head = soon(heads.recv()).await.expect("a head");
    assert!(head.starts_with("HEAD /a?b=c HTTP/1.1\r\n"), "{head}");
    for line in ["host: shop.example:1", "x-check: deep", "user-agent: me"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{head}");
    }
    assert!(!head.contains("retort-health-check"), "{head}");
}

#[tokio::test]
async fn another_port_is_asked_where_one_is_configured() {
    let asked = answering(OK).await;
    let other = peer(|socket| async move { drop(socket) }).await;
    let port = asked.tcp().expect("TCP").port();
    for json in [
        format!(r#"{{"http": {{"port": {port}}}}}"#),
        format!(r#"{{"tcp": {{"port": {port}}}}}"#),
    ] {
        check(&json, Http1, &other).await.expect("well");
    }
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = free.local_addr().expect("bound").port();
    drop(free);
    let json = format!(r#"{{"http": {{"port": {port}}}}}"#);
    assert_eq!(
        check(&json, Http1, &other).await,
        Err(format!("connection refused by 127.0.0.1:{port}"))
    );
}

#[tokio::test]
async fn what_does_not_end_in_time_is_not_well_and_leaves_no_connection() {
    let case = |answer: &'static str, expected: &'static str| async move {
        let (closed, mut closings) = mpsc::unbounded_channel();
        let endpoint = peer(move |mut socket| {
            let closed = closed.clone();
            async move {
                read_head(&mut socket).await;
                socket.write_all(answer.as_bytes()).await.expect("written");
                drain(&mut socket).await;
                closed.send(()).expect("a test that listens");
            }
        })
        .await;
        let start = Instant::now();
        let words = check(HASTY, Http1, &endpoint).await.expect_err(answer);
        assert_eq!(words, expected, "{answer:?}");
        assert!(start.elapsed() < Duration::from_secs(2));
        soon(closings.recv()).await.expect("closed");
    };
    case("", "no answer within 150ms").await;
    case("HTTP/1.1 200 OK\r\ncontent-le", "no answer within 150ms").await;
    case("HTTP/1.1 103 Early\r\n\r\n", "no answer within 150ms").await;
    case(
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok",
        "the body of the answer did not end within 150ms",
    )
    .await;
}

#[tokio::test]
async fn what_breaks_off_or_is_not_http_says_so() {
    let case = |answer: &'static str, expected: &'static str| async move {
        let endpoint = peer(move |mut socket| async move {
            read_head(&mut socket).await;
            socket.write_all(answer.as_bytes()).await.expect("written");
        })
        .await;
        let words = check(HASTY, Http1, &endpoint).await.expect_err(answer);
        assert!(words.contains(expected), "{answer:?}: {words}");
    };
    case("", "closed the connection before the head").await;
    case("HTTP/1.1 200 OK\r\ncont", "closed the connection before").await;
    case("SSH-2.0-OpenSSH_9.2\r\n", "not HTTP/1.1").await;
    case("HTTP/1.1 20 OK\r\n\r\n", "not HTTP/1.1").await;
    case(
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok",
        "the body of the answer broke off",
    )
    .await;
}

#[tokio::test]
async fn endless_answers_are_read_no_further_than_need_be() {
    let endless = |head: &'static str| {
        peer(move |mut socket| async move {
            read_head(&mut socket).await;
            let mut sending = socket.write_all(head.as_bytes()).await;
            while sending.is_ok() {
                sending = socket.write_all(&[b'x'; 8192]).await;
            }
        })
    };
    let body = endless("HTTP/1.1 200 OK\r\n\r\nready").await;
    check(r#"{"http": {"body": "ready"}}"#, Http1, &body)
        .await
        .expect("well");
    check(r#"{"http": {}}"#, Http1, &body).await.expect("well");
    let words = check(r#"{"http": {"body": "steady"}}"#, Http1, &body).await;
    let words = words.expect_err("not in there");
    assert!(words.contains("do not contain \"steady\""), "{words}");

    let head = endless("HTTP/1.1 200 OK\r\nx: ").await;
    let words = check(r#"{"http": {}}"#, Http1, &head).await;
    let words = words.expect_err("over its limit");
    assert!(words.contains("over 64 KiB or 100 fields"), "{words}");
}

#[tokio::test]
async fn no_connection_says_why() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = free.local_addr().expect("bound");
    drop(free);
    let refused = endpoint(address);
    for json in [r#"{"http": {}}"#, r#"{"grpc": {}}"#, r#"{"tcp": {}}"#] {
        assert_eq!(
            check(json, Http1, &refused).await,
            Err(format!("connection refused by {address}")),
            "{json}"
        );
    }
    assert_eq!(
        reachable(&refused, Duration::from_secs(1)).await,
        Err(format!("connection refused by {address}"))
    );
    let nowhere: Address = "unix:/nowhere/at.sock".parse().expect("valid");
    assert_eq!(
        check(r#"{"tcp": {}}"#, Http1, &endpoint(nowhere)).await,
        Err("there is no socket at unix:/nowhere/at.sock".to_owned())
    );
}

#[tokio::test]
async fn a_connection_that_takes_too_long_is_given_up() {
    // A listener whose backlog is full drops further handshakes.
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).expect("bound");
    socket.listen(0).expect("listening");
    let address = socket.local_addr().expect("bound").as_socket().expect("IP");
    let mut fillers = Vec::new();
    for _ in 0..4 {
        let filler = tokio::net::TcpStream::connect(address);
        fillers.push(tokio::time::timeout(Duration::from_millis(20), filler).await);
    }
    let full = endpoint(address);
    let words = format!("no connection to {address} within 150ms");
    for json in [HASTY, r#"{"tcp": {}, "timeout": "150ms"}"#] {
        assert_eq!(check(json, Http1, &full).await, Err(words.clone()));
    }
    let timeout = Duration::from_millis(150);
    assert_eq!(reachable(&full, timeout).await, Err(words));
}

#[tokio::test]
async fn a_unix_socket_is_checked_like_any_other_endpoint() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.sock");
    let listener = UnixListener::bind(&path).expect("binds");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let head = read_head(&mut socket).await;
            assert!(head.is_empty() || head.contains("host: localhost\r\n"));
            let _left = socket.write_all(OK.as_bytes()).await;
        }
    });
    let endpoint = endpoint(Address::Unix(path));
    for json in [
        r#"{"http": {"port": 9}}"#,
        r#"{"http": {"body": "ok"}}"#,
        r#"{"tcp": {}}"#,
    ] {
        check(json, Http1, &endpoint).await.expect(json);
    }
    let timeout = Duration::from_secs(1);
    reachable(&endpoint, timeout).await.expect("reachable");
}

#[tokio::test]
async fn a_check_that_is_dropped_closes_its_connection() {
    let (closed, mut closings) = mpsc::unbounded_channel();
    let endpoint = peer(move |mut socket| {
        let closed = closed.clone();
        async move {
            read_head(&mut socket).await;
            closed.send("asked").expect("a test that listens");
            drain(&mut socket).await;
            closed.send("closed").expect("a test that listens");
        }
    })
    .await;
    let settings = settings(r#"{"http": {}, "timeout": "5s"}"#);
    let check = probe(&settings, Http1, &endpoint);
    tokio::select! {
        result = check => panic!("nobody answers: {result:?}"),
        asked = soon(closings.recv()) => assert_eq!(asked, Some("asked")),
    }
    assert_eq!(soon(closings.recv()).await, Some("closed"));
}

#[test]
fn a_check_may_run_on_any_runtime() {
    fn check<T: Send>(_: &T) {}
    let endpoint = endpoint("127.0.0.1:1".parse::<Address>().expect("valid"));
    let settings = settings(r#"{"http": {}}"#);
    check(&probe(&settings, Http1, &endpoint));
    check(&reachable(&endpoint, Duration::from_secs(1)));
}
