//! Servers for the tests, good and bad, and a lane to them.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::base::message::{Request, Response};
use crate::telemetry::metrics::Metrics;
use crate::upstream::{EndpointSettings, Failure, Lane, SendOptions, Sent, Settings, Upstream};

/// The answer of a server that has nothing to say.
pub(super) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Longer than anything here takes; a test that waits for it has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for what must happen, with a deadline.
pub(super) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it should have happened long ago")
}

/// Waits until a condition holds.
pub(super) async fn until(mut condition: impl FnMut() -> bool) {
    soon(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// A server that runs `serve` for each connection, which is told its number from 0.
pub(super) struct Peer {
    pub(super) endpoint: EndpointSettings,
    pub(super) connections: Rc<Cell<usize>>,
}

impl Peer {
    pub(super) async fn start<F>(serve: impl Fn(usize, TcpStream) -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let connections = Rc::new(Cell::new(0));
        let count = Rc::clone(&connections);
        spawn_local(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let number = count.get();
                count.set(number + 1);
                spawn_local(serve(number, socket));
            }
        });
        Self {
            endpoint: EndpointSettings::new(address.into()),
            connections,
        }
    }

    /// A server that gives each request of a connection this answer.
    pub(super) async fn answering(answer: &'static str) -> Self {
        Self::start(move |_, mut socket| async move {
            while read_head(&mut socket).await.is_some() {
                if socket.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        })
        .await
    }

    pub(super) fn lane(&self) -> Rc<Lane> {
        lane(&Settings::new(vec![self.endpoint.clone()]))
    }

    /// How a test's failures name this server.
    pub(super) fn label(&self) -> String {
        let endpoints = self.endpoint.resolve().expect("an address");
        endpoints[0].label.to_string()
    }
}

pub(super) fn lane(settings: &Settings) -> Rc<Lane> {
    Lane::new(upstream(settings))
}

pub(super) fn upstream(settings: &Settings) -> Arc<Upstream> {
    let series = Metrics::new(1).upstream("orders");
    let built = Upstream::build("orders", settings, None, series, None);
    built.expect("nothing to resolve")
}

/// Reads a request's head; none at the end of the connection.
pub(super) async fn read_head(socket: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// Reads to the end of the connection and answers nothing.
pub(super) async fn drain(socket: &mut (impl AsyncRead + Unpin)) {
    let mut some = vec![0; 64 << 10];
    while socket.read(&mut some).await.is_ok_and(|size| size > 0) {}
}

pub(super) fn get(path: &str) -> Request {
    Request::new(
        Method::GET,
        format!("http://shop.example{path}").parse().expect("a URI"),
        (),
    )
}

pub(super) async fn send(lane: &Rc<Lane>, request: Request) -> Result<Sent, Box<Failure>> {
    soon(Box::pin(
        lane.send(request, SendOptions::new(Instant::now())),
    ))
    .await
}

pub(super) async fn answer(lane: &Rc<Lane>, request: Request) -> Response {
    send(lane, request).await.expect("an answer").response
}

pub(super) async fn failure(lane: &Rc<Lane>, request: Request) -> Box<Failure> {
    send(lane, request).await.expect_err("a failure")
}

pub(super) async fn text(response: Response) -> Bytes {
    soon(response.body.collect(usize::MAX))
        .await
        .expect("a body to its end")
}
