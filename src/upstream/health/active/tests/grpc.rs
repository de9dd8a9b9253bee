//! The standard health service, tonic's and others.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::health_reporter;

use super::peer::{answering, check, endpoint, http2, peer};
use crate::base::body::{Body, BodyError};
use crate::upstream::Protocol::{Http1, Http2};

#[tokio::test]
async fn the_health_service_of_tonic_is_understood() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = endpoint(listener.local_addr().expect("bound"));
    let (reporter, health) = health_reporter();
    let set = |service, status| reporter.set_service_status(service, status);
    set("acme.Users", ServingStatus::Serving).await;
    set("acme.Orders", ServingStatus::NotServing).await;
    set("acme.Carts", ServingStatus::Unknown).await;
    tokio::spawn(
        Server::builder()
            .add_service(health)
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    // The protocol is the upstream's; gRPC is HTTP/2 whatever that says.
    for protocol in [Http1, Http2] {
        let ask = async |json: &str| check(json, protocol, &endpoint).await.err();
        assert_eq!(ask(r#"{"grpc": {}}"#).await, None);
        assert_eq!(ask(r#"{"grpc": {"service": "acme.Users"}}"#).await, None);
        assert_eq!(
            ask(r#"{"grpc": {"service": "acme.Orders"}}"#)
                .await
                .as_deref(),
            Some("the service `acme.Orders` is NOT_SERVING")
        );
        assert_eq!(
            ask(r#"{"grpc": {"service": "acme.Carts"}}"#)
                .await
                .as_deref(),
            Some("the service `acme.Carts` is UNKNOWN")
        );
        assert_eq!(
            ask(r#"{"grpc": {"service": "acme.User"}}"#)
                .await
                .as_deref(),
            Some("the service `acme.User` is not known to the health service")
        );
    }
    set("", ServingStatus::NotServing).await;
    assert_eq!(
        check(r#"{"grpc": {}}"#, Http2, &endpoint).await,
        Err("the server is NOT_SERVING".to_owned())
    );
}

#[tokio::test]
async fn a_server_without_the_health_service_is_told_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = endpoint(listener.local_addr().expect("bound"));
    let routes = tonic::service::Routes::default();
    tokio::spawn(
        Server::builder()
            .add_routes(routes)
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    let words = check(r#"{"grpc": {}}"#, Http2, &endpoint).await;
    let words = words.expect_err("no such service");
    assert!(
        words.contains("add it to the server, or check with `tcp: {}`"),
        "{words}"
    );
}

/// The fields of a head or of trailers.
type Fields = &'static [(&'static str, &'static str)];

fn map(fields: Fields) -> HeaderMap {
    let pair = |&(name, value): &(&'static str, &'static str)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    fields.iter().map(pair).collect()
}

fn answer(head: Fields, body: &'static [u8], trailers: Fields) -> Response<Body> {
    let frames = [
        Ok::<_, BodyError>(Frame::data(Bytes::from_static(body))),
        Ok(Frame::trailers(map(trailers))),
    ];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let mut response = Response::new(Body::stream(body));
    *response.headers_mut() = map(head);
    response
}

const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
const LONG: &[u8] = &[0; 70_000];
const FINE: Fields = &[("grpc-status", "0")];

/// A check of a server that answers so, and the words that come of it.
async fn case(head: Fields, body: &'static [u8], trailers: Fields, expected: &str) {
    let endpoint = http2(move |_| answer(head, body, trailers)).await;
    let words = check(r#"{"grpc": {}}"#, Http2, &endpoint).await;
    let words = words.err().unwrap_or_default();
    let length = body.len();
    assert_eq!(words, expected, "{head:?} {length} bytes {trailers:?}");
}

#[tokio::test]
async fn statuses_of_calls_are_told() {
    case(&[], SERVING, FINE, "").await;
    case(
        &[],
        SERVING,
        &[],
        "the gRPC health check ended without a `grpc-status`",
    )
    .await;
    case(
        &[],
        SERVING,
        &[
            ("grpc-status", "14"),
            ("grpc-message", "try%20later%0A%1b[1m"),
        ],
        "the gRPC health check answered with status 14: try later[1m",
    )
    .await;
    // A client of tonic panics on these details.
    case(
        &[("grpc-status", "16"), ("grpc-status-details-bin", "?")],
        &[],
        &[],
        "the gRPC health check answered with status 16: The request does not have valid authentication credentials",
    )
    .await;
    case(
        &[],
        SERVING,
        &[("grpc-status", "nonsense")],
        "the gRPC health check answered with status 2: Unknown error",
    )
    .await;
}

#[tokio::test]
async fn only_a_message_that_says_so_is_well() {
    case(
        &[],
        &[],
        FINE,
        "the gRPC health check answered with no message",
    )
    .await;
    case(
        &[],
        &[1, 0, 0, 0, 2, 8, 1],
        FINE,
        "the gRPC health check answered with a compressed message, which was not asked for",
    )
    .await;
    for body in [&[0, 0, 0, 0, 3, 8, 1][..], &[0, 0, 0, 0, 1, 8, 1]] {
        case(
            &[],
            body,
            FINE,
            "the gRPC health check answered with other than one message",
        )
        .await;
    }
    case(
        &[],
        &[0, 0, 0, 0, 2, 8, 255],
        FINE,
        "the gRPC health check answered with a message that is no `HealthCheckResponse`",
    )
    .await;
    case(
        &[],
        LONG,
        FINE,
        "the gRPC health check answered with more than 64 KiB",
    )
    .await;
    // The default of the enumeration, which is not sent.
    case(&[], &[0, 0, 0, 0, 0], FINE, "the server is UNKNOWN").await;
    case(
        &[],
        &[0, 0, 0, 0, 2, 8, 9],
        FINE,
        "the server has the unknown health 9",
    )
    .await;
    case(
        &[],
        &[0, 0, 0, 0, 2, 8, 3],
        FINE,
        "the server is SERVICE_UNKNOWN",
    )
    .await;
}

#[tokio::test]
async fn a_call_is_one_of_grpc() {
    let endpoint = http2(|request: Request<Incoming>| {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        assert_eq!(request.headers()["te"], "trailers");
        assert_eq!(request.headers()["user-agent"], "retort-health-check");
        let timeout = request.headers()["grpc-timeout"].to_str().expect("text");
        let millis: u32 = timeout.trim_end_matches('m').parse().expect("a number");
        assert!((1..=1000).contains(&millis), "{timeout}");
        answer(&[], SERVING, FINE)
    })
    .await;
    check(r#"{"grpc": {}}"#, Http2, &endpoint)
        .await
        .expect("well");
}

#[tokio::test]
async fn what_is_no_grpc_server_says_so() {
    let hasty = r#"{"grpc": {}, "timeout": "150ms"}"#;
    let plain = http2(|_| {
        let mut response = Response::new(Body::full("not found"));
        *response.status_mut() = http::StatusCode::NOT_FOUND;
        response
    })
    .await;
    assert_eq!(
        check(hasty, Http2, &plain).await,
        Err("the gRPC health check answered 404, expected 200: it is no gRPC server".to_owned())
    );
    let http1 = answering("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let words = check(hasty, Http2, &http1).await.expect_err("HTTP/1.1");
    assert!(words.contains("broke the rules of HTTP/2"), "{words}");
    let closing = peer(|socket| async move { drop(socket) }).await;
    let words = check(hasty, Http2, &closing).await.expect_err("closed");
    assert!(words.contains(&*closing.label), "{words}");
}
