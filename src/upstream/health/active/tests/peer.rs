//! Servers for the tests, good and bad, and checks of them.

use std::future::Future;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::base::address::Address;
use crate::base::body::Body;
use crate::upstream::health::active::{Settings, probe};
use crate::upstream::{Endpoint, EndpointSettings, Protocol};

/// Longer than anything here takes; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for what must happen, with a deadline.
pub(super) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it should have happened long ago")
}

pub(super) fn endpoint(address: impl Into<Address>) -> Endpoint {
    let settings = EndpointSettings::new(address.into());
    settings.resolve().expect("nothing to resolve").remove(0)
}

pub(super) fn settings(json: &str) -> Settings {
    serde_json::from_str(json).expect(json)
}

/// One check, which must come to a result.
pub(super) async fn check(
    json: &str,
    protocol: Protocol,
    endpoint: &Endpoint,
) -> Result<(), String> {
    soon(probe(&settings(json), protocol, endpoint)).await
}

/// A server that runs `serve` for each connection.
pub(super) async fn peer<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Endpoint
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let endpoint = endpoint(listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
    endpoint
}

/// A server that reads a request, answers, and then waits for the other side to close.
pub(super) async fn answering(answer: &'static str) -> Endpoint {
    peer(move |mut socket| async move {
        read_head(&mut socket).await;
        if socket.write_all(answer.as_bytes()).await.is_ok() {
            drain(&mut socket).await;
        }
    })
    .await
}

/// A server of HTTP/2.
pub(super) async fn http2(
    answer: impl Fn(Request<Incoming>) -> Response<Body> + Clone + Send + 'static,
) -> Endpoint {
    peer(move |socket| {
        let answer = answer.clone();
        async move {
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // A check leaves as it likes.
            let _left = builder
                .serve_connection(TokioIo::new(socket), service)
                .await;
        }
    })
    .await
}

/// Reads a request's head.
pub(super) async fn read_head(socket: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).expect("text")
}

/// Reads to the end of the connection.
pub(super) async fn drain(socket: &mut (impl AsyncRead + Unpin)) {
    let mut some = vec![0; 64 << 10];
    while socket.read(&mut some).await.is_ok_and(|size| size > 0) {}
}
