//! HTTP/2 with prior knowledge, on both sides, by the `h2` crate itself: frames under the test's control.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::upstream::{Peer, Received, Upstream};
use super::{Head, soon};

/// A client's connection.
pub(crate) struct Http2 {
    send: SendRequest<Bytes>,
    /// Ends when the connection does.
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

/// A response, whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

/// A request whose body is still to be sent.
pub(crate) struct Call {
    pub(crate) body: SendStream<Bytes>,
    response: h2::client::ResponseFuture,
}

impl Http2 {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = soon("a connection", TcpStream::connect(address))
            .await
            .expect("a connection");
        let (send, connection) = soon("a handshake", h2::client::handshake(socket))
            .await
            .expect("a handshake");
        Self {
            send,
            connection: tokio::spawn(connection),
        }
    }

    /// Sends a request without a body and reads the response.
    #[track_caller]
    pub(crate) fn get(
        &self,
        target: &str,
    ) -> impl Future<Output = Result<Reply, h2::Error>> + use<> {
        let request = Request::get(format!("http://test{target}"))
            .body(())
            .expect("a request");
        self.send(request, None)
    }

    /// Sends a request and reads the response, whole.
    pub(crate) fn send(
        &self,
        request: Request<()>,
        body: Option<Bytes>,
    ) -> impl Future<Output = Result<Reply, h2::Error>> + use<> {
        let send = self.send.clone();
        async move {
            let mut send = soon("a free stream", send.ready()).await?;
            let (response, mut stream) = send.send_request(request, body.is_none())?;
            if let Some(body) = body {
                stream.send_data(body, true)?;
            }
            read(response).await
        }
    }

    /// Begins a request whose body comes later.
    pub(crate) async fn begin(&self, request: Request<()>) -> Result<Call, h2::Error> {
        let mut send = soon("a free stream", self.send.clone().ready()).await?;
        let (response, body) = send.send_request(request, false)?;
        Ok(Call { body, response })
    }
}

impl Call {
    /// The response's head, and its body as it comes.
    pub(crate) async fn response(&mut self) -> Result<Response<RecvStream>, h2::Error> {
        soon("a response", &mut self.response).await
    }
}

async fn read(response: h2::client::ResponseFuture) -> Result<Reply, h2::Error> {
    let response = soon("a response", response).await?;
    let (head, mut stream) = response.into_parts();
    let body = collect(&mut stream).await?;
    let trailers = soon("trailers", stream.trailers()).await?;
    Ok(Reply {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
        trailers,
    })
}

/// A body, whole; its window is given back as it is read.
pub(crate) async fn collect(stream: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut body = BytesMut::new();
    while let Some(data) = soon("data", stream.data()).await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    Ok(body.to_vec())
}

/// Sends data as the window allows.
pub(crate) async fn send_all(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    end: bool,
) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = soon("room in the window", poll_fn(|cx| stream.poll_capacity(cx))).await;
        let room = room.ok_or(h2::Reason::CANCEL)??;
        let piece = data.split_to(room.min(data.len()));
        stream.send_data(piece, end && data.is_empty())?;
    }
    Ok(())
}

impl Upstream {
    /// Runs `serve` on every request of every connection, over HTTP/2.
    pub(crate) async fn http2<F, Fut>(serve: F) -> Self
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>, Arc<Peer>) -> Fut
            + Clone
            + Send
            + Sync
            + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::start(move |mut peer: Peer| {
            let serve = serve.clone();
            async move {
                let stream = peer.take_conn().into_stream();
                let peer = Arc::new(peer);
                let Ok(mut connection) = h2::server::handshake(stream).await else {
                    return;
                };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(serve(request, respond, Arc::clone(&peer)));
                }
            }
        })
        .await
    }

    /// Answers every request with a description of it, over HTTP/2.
    pub(crate) async fn echo_http2(name: &str) -> Self {
        let name = name.to_owned();
        Self::http2(move |request, respond, peer| {
            let name = name.clone();
            async move {
                // A cancelled stream is no failure of the echo.
                let _cancelled = echo(request, respond, &peer, &name).await;
            }
        })
        .await
    }
}

async fn echo(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    peer: &Peer,
    name: &str,
) -> Result<(), h2::Error> {
    let (head, mut stream) = request.into_parts();
    let body = collect(&mut stream).await?;
    let trailers = stream.trailers().await?.unwrap_or_default();
    let received = Received {
        method: head.method.to_string(),
        target: head
            .uri
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default(),
        version: "HTTP/2".to_owned(),
        head: Head {
            start: head.uri.to_string(),
            headers: pairs(&head.headers),
        },
        body,
        trailers: pairs(&trailers),
    };
    peer.record(received.clone());
    if let Some(delay) = received.delay() {
        tokio::time::sleep(delay).await;
    }
    let kind = received
        .header("content-type")
        .filter(|kind| kind.starts_with("application/grpc"));
    let mut response =
        Response::builder().header("content-type", kind.unwrap_or("application/json"));
    for (field, value) in received.asked_fields() {
        response = response.header(field, value);
    }
    let response = response.body(()).expect("a response");
    let body = Bytes::from(received.describe(name).to_string());
    let mut stream = respond.send_response(response, false)?;
    send_all(&mut stream, body, kind.is_none()).await?;
    if kind.is_some() {
        let status = (
            HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        );
        stream.send_trailers(HeaderMap::from_iter([status]))?;
    }
    Ok(())
}

/// Fields as pairs of text.
pub(crate) fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.to_string(), value)
        })
        .collect()
}
