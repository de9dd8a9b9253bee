//! gRPC passes as gRPC: every kind of call, statuses, deadlines, cancellation, and errors of ours too.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::uri::PathAndQuery;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use crate::harness::grpc::{Grpc, Note, call, client, note};
use crate::harness::http2::Http2;
use crate::harness::program::Program;
use crate::harness::{Gateway, Upstream, soon};

async fn gateway(address: impl std::fmt::Display) -> Gateway {
    Gateway::start(format!(
        "routes:
  - {{name: echo, match: {{grpc: {{service: acme.Echo}}}}, upstream: echo}}
upstreams:
  echo: {{endpoints: [\"{address}\"], protocol: http2}}
"
    ))
    .await
}

#[tokio::test]
async fn unary_calls_pass_with_their_status_and_metadata() {
    let service = Grpc::start().await;
    let gateway = gateway(service.address).await;
    let mut client = client(gateway.public()).await;
    let answer = call(&mut client, "/acme.Echo/Unary", note("hello"))
        .await
        .expect("an answer");
    assert_eq!(answer.into_inner().text, "hello");
    let status = call(&mut client, "/acme.Echo/Unary", note("fail"))
        .await
        .expect_err("a failure");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.message(), "asked to fail: 100 %");
    let status = call(&mut client, "/acme.Echo/Other", note(""))
        .await
        .expect_err("a failure");
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn streams_pass_in_every_direction() {
    let service = Grpc::start().await;
    let gateway = gateway(service.address).await;
    let mut client = client(gateway.public()).await;

    client.ready().await.expect("a channel");
    let codec = ProstCodec::<Note, Note>::default();
    let path = PathAndQuery::from_static("/acme.Echo/ServerStream");
    let notes = client
        .server_streaming(Request::new(note("500")), path, codec)
        .await;
    let notes: Vec<_> = soon("all notes", notes.expect("a stream").into_inner().collect()).await;
    assert_eq!(notes.len(), 500);
    assert_eq!(notes[499].as_ref().expect("a note").text, "499");

    client.ready().await.expect("a channel");
    let path = PathAndQuery::from_static("/acme.Echo/ClientStream");
    let codec = ProstCodec::<Note, Note>::default();
    let texts = stream::iter(["a", "b", "c"].map(note));
    let answer = client
        .client_streaming(Request::new(texts), path, codec)
        .await;
    assert_eq!(answer.expect("an answer").into_inner().text, "a b c");

    // Each note is sent only when the one before has come back.
    client.ready().await.expect("a channel");
    let path = PathAndQuery::from_static("/acme.Echo/Both");
    let codec = ProstCodec::<Note, Note>::default();
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let texts = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let answer = client.streaming(Request::new(texts), path, codec).await;
    let mut notes = answer.expect("a stream").into_inner();
    for text in ["one", "two", "three"] {
        sender.send(note(text)).await.expect("an open stream");
        let back = soon("the note to come back", notes.message())
            .await
            .expect("a note");
        assert_eq!(back.expect("a note").text, text);
    }
    drop(sender);
    assert_eq!(
        soon("the end", notes.message()).await.expect("an end"),
        None
    );
}

#[tokio::test]
async fn a_trailers_only_answer_stays_one() {
    let upstream = Upstream::http2(|_request, mut respond, _peer| async move {
        let response = http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "5")
            .header("grpc-message", "nothing%20here")
            .body(())
            .expect("a response");
        respond.send_response(response, true).expect("a stream");
    })
    .await;
    let gateway = gateway(upstream.address).await;
    let client = Http2::connect(gateway.public()).await;
    let request = http::Request::post("http://test/acme.Echo/Unary")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request");
    let reply = client
        .send(request, Some(Bytes::from_static(&[0; 5])))
        .await
        .expect("an answer");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["grpc-status"], "5");
    assert_eq!(reply.headers["grpc-message"], "nothing%20here");
    assert!(reply.body.is_empty());
    assert!(reply.trailers.is_none());
}

#[tokio::test]
async fn cancelling_a_call_cancels_it_at_the_service() {
    let service = Grpc::start().await;
    let gateway = gateway(service.address).await;
    let mut unary = client(gateway.public()).await;
    let waiting = tokio::time::timeout(
        Duration::from_millis(300),
        call(&mut unary, "/acme.Echo/Unary", note("never")),
    )
    .await;
    assert!(waiting.is_err(), "it never answers");
    service.abandoned(1).await;

    let mut streaming = client(gateway.public()).await;
    streaming.ready().await.expect("a channel");
    let path = PathAndQuery::from_static("/acme.Echo/ServerStream");
    let codec = ProstCodec::<Note, Note>::default();
    let notes = streaming
        .server_streaming(Request::new(note("forever")), path, codec)
        .await;
    let mut notes = notes.expect("a stream").into_inner();
    assert!(
        soon("a note", notes.message())
            .await
            .expect("a note")
            .is_some()
    );
    drop(notes);
    service.abandoned(2).await;
}

#[tokio::test]
async fn the_clients_deadline_is_kept_and_passed_on() {
    let service = Grpc::start().await;
    let gateway = gateway(service.address).await;
    let mut client = client(gateway.public()).await;

    let mut request = Request::new(note("hello"));
    request.set_timeout(Duration::from_secs(20));
    let answer = call(&mut client, "/acme.Echo/Unary", request)
        .await
        .expect("an answer");
    assert!(answer.metadata().contains_key("x-saw-timeout"));

    // Sent by hand, so that it is not the client's own clock that ends it.
    let client = Http2::connect(gateway.public()).await;
    let request = http::Request::post("http://test/acme.Echo/Unary")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "300m")
        .body(())
        .expect("a request");
    let begin = Instant::now();
    let message = Bytes::from_static(b"\0\0\0\0\x07\x0a\x05never");
    let reply = client
        .send(request, Some(message))
        .await
        .expect("an answer");
    assert_eq!(reply.status, 200);
    let status = reply
        .trailers
        .as_ref()
        .and_then(|trailers| trailers.get("grpc-status"))
        .or(reply.headers.get("grpc-status"))
        .expect("a status");
    assert_eq!(status, "4", "DEADLINE_EXCEEDED");
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    service.abandoned(1).await;
}

#[tokio::test]
async fn our_own_failures_are_grpc_statuses_never_html_or_http() {
    let absent = Upstream::absent();
    let gateway = gateway(&absent).await;
    let mut client = client(gateway.public()).await;
    let status = call(&mut client, "/acme.Echo/Unary", note(""))
        .await
        .expect_err("a failure");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(!status.message().is_empty());
    let status = call(&mut client, "/acme.Nowhere/Unary", note(""))
        .await
        .expect_err("a failure");
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    gateway.flagged("UF", 1).await;
    gateway.flagged("NR", 1).await;
}

#[tokio::test]
async fn a_large_message_passes_through_every_window() {
    let service = Grpc::start().await;
    let gateway = gateway(service.address).await;
    let mut client = client(gateway.public()).await;
    let large = "x".repeat(3_000_000);
    let answer = call(&mut client, "/acme.Echo/Unary", note(large.clone())).await;
    assert_eq!(
        answer.expect("an answer").into_inner().text.len(),
        large.len()
    );
}

#[tokio::test]
async fn grpcio_talks_to_grpcio_through_us() {
    let server = Program::python("grpc_server.py", &[]);
    let port = soon("the server", server.output.find_text("listening "))
        .await
        .expect("a port");
    let port = port.trim_start_matches("listening ");
    let gateway = gateway(format!("127.0.0.1:{port}")).await;
    let mut client = Program::python("grpc_client.py", &[&gateway.public().to_string()]);
    let status = client.exited().await;
    assert!(status.success(), "{}", client.errors.text());
    assert_eq!(client.output.text(), "fine");
}
