//! Connections that are made, and those that are not.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::spawn_local;

use super::fake::{answer, failure, get, lane, read_head, text};
use crate::base::values::Period;
use crate::upstream::{Cause, EndpointSettings, Protocol, Settings};

fn settings(address: &str) -> Settings {
    Settings::new(vec![EndpointSettings::new(
        address.parse().expect("an address"),
    )])
}

#[tokio::test(flavor = "local")]
async fn a_refused_connection_gives_the_request_back() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = free.local_addr().expect("bound");
    drop(free);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut settings = settings(&address.to_string());
        settings.protocol = protocol;
        let lane = lane(&settings);
        let failure = failure(&lane, get("/again?x=1")).await;
        assert_eq!(failure.detail, format!("connection refused by {address}"));
        assert!(matches!(
            failure.cause,
            Cause::Connect(std::io::ErrorKind::ConnectionRefused)
        ));
        assert!(failure.unprocessed);
        assert_eq!(failure.address, Some(address));
        let request = failure.request.expect("untouched");
        assert_eq!(request.head.target(), "/again?x=1");
        assert_eq!(request.head.host(), Some("shop.example"));
        assert_eq!(lane.counts().connect_failures, 1);
        assert_eq!(lane.counts().active, 0);
    }
}

#[tokio::test(flavor = "local")]
async fn a_connection_that_takes_too_long_is_given_up() {
    // A listener whose backlog is full drops further handshakes.
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).expect("bound");
    socket.listen(0).expect("listening");
    let address = socket
        .local_addr()
        .expect("bound")
        .as_socket()
        .expect("IPv4");
    let mut fillers = Vec::new();
    for _ in 0..4 {
        let filler = tokio::net::TcpStream::connect(address);
        fillers.push(tokio::time::timeout(Duration::from_millis(20), filler).await);
    }
    let mut settings = settings(&address.to_string());
    settings.timeouts.connect = Period(Duration::from_millis(50));
    let start = Instant::now();
    let failure = failure(&lane(&settings), get("/")).await;
    assert!(
        matches!(failure.cause, Cause::ConnectTimeout),
        "{failure:?}"
    );
    assert_eq!(
        failure.detail,
        format!("no connection to {address} within 50ms")
    );
    assert!(failure.unprocessed && failure.request.is_some());
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(flavor = "local")]
async fn an_upstream_without_endpoints_fails_fast() {
    let failure = failure(&lane(&Settings::new(Vec::new())), get("/")).await;
    assert!(matches!(failure.cause, Cause::NoEndpoint));
    assert_eq!(failure.detail, "upstream `orders` has no endpoints");
    assert!(failure.endpoint.is_none() && failure.request.is_some());
}

#[tokio::test(flavor = "local")]
async fn a_unix_socket_is_an_endpoint_like_any_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("orders.sock");
    let settings = settings(&format!("unix:{}", path.display()));
    let lane = lane(&settings);
    let absent = failure(&lane, get("/")).await;
    assert_eq!(
        absent.detail,
        format!("there is no socket at unix:{}", path.display())
    );
    assert_eq!(absent.address, None);

    let listener = UnixListener::bind(&path).expect("bound");
    spawn_local(async move {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        while read_head(&mut socket).await.is_some() {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            socket.write_all(answer).await.expect("written");
        }
    });
    for _ in 0..3 {
        let response = answer(&lane, get("/")).await;
        assert_eq!(response.head.status, StatusCode::OK);
        assert_eq!(text(response).await, "ok");
    }
    assert_eq!(lane.counts().connects, 1);
}
