//! A gRPC service and its client, by tonic; messages are one line of text.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use http::uri::PathAndQuery;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use super::soon;

/// The one message.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Note {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
}

pub(crate) type Notes = Pin<Box<dyn Stream<Item = Result<Note, Status>> + Send>>;

/// A running service `acme.Echo`.
pub(crate) struct Grpc {
    pub(crate) address: SocketAddr,
    left: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

/// The service: methods `Unary`, `ServerStream`, `ClientStream` and `Both`.
#[derive(Clone)]
struct Echo {
    left: Arc<watch::Sender<usize>>,
}

/// Counts a call that was dropped before it was done.
struct Guard {
    left: Arc<watch::Sender<usize>>,
    done: bool,
}

pub(crate) fn note(text: impl Into<String>) -> Note {
    Note { text: text.into() }
}

impl Grpc {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (sender, left) = watch::channel(0);
        let echo = Echo {
            left: Arc::new(sender),
        };
        let task = tokio::spawn(async move {
            let served = Server::builder()
                .add_service(echo)
                .serve_with_incoming(TcpListenerStream::new(listener));
            served.await.expect("a server");
        });
        Self {
            address,
            left,
            task,
        }
    }

    /// Waits until so many calls were dropped by the other end before they were done.
    pub(crate) async fn abandoned(&self, count: usize) {
        let mut left = self.left.clone();
        let enough = left.wait_for(|so_far| *so_far >= count);
        soon(format!("{count} abandoned calls"), enough)
            .await
            .expect("a sender");
    }
}

impl Drop for Grpc {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "acme.Echo";
}

impl Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let left = Arc::clone(&self.left);
        let mut server = tonic::server::Grpc::new(ProstCodec::<Note, Note>::default());
        async move {
            let guard = Guard { left, done: false };
            Ok(match request.uri().path() {
                "/acme.Echo/Unary" => {
                    let method = service_fn(|request| unary(request, guard.again()));
                    let response = server.unary(method, request).await;
                    guard.finish();
                    response
                }
                "/acme.Echo/ServerStream" => {
                    let method = service_fn(|request| {
                        std::future::ready(server_stream(request, guard.again()))
                    });
                    let response = server.server_streaming(method, request).await;
                    guard.finish();
                    response
                }
                "/acme.Echo/ClientStream" => {
                    let response = server
                        .client_streaming(service_fn(client_stream), request)
                        .await;
                    guard.finish();
                    response
                }
                "/acme.Echo/Both" => {
                    let response = server
                        .streaming(
                            service_fn(|request| std::future::ready(Ok(both(request)))),
                            request,
                        )
                        .await;
                    guard.finish();
                    response
                }
                _ => Status::unimplemented("no such method").into_http(),
            })
        }
        .boxed()
    }
}

impl Guard {
    /// One more guard, for what goes on after the first is finished.
    fn again(&self) -> Self {
        Self {
            left: Arc::clone(&self.left),
            done: false,
        }
    }

    fn finish(mut self) {
        self.done = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.done {
            self.left.send_modify(|count| *count += 1);
        }
    }
}

/// Says the text again; `fail` fails, `never` never answers. Shows the deadline that arrived.
async fn unary(request: Request<Note>, guard: Guard) -> Result<Response<Note>, Status> {
    let timeout = request.metadata().get("grpc-timeout").cloned();
    let text = request.into_inner().text;
    if text == "never" {
        std::future::pending::<()>().await;
    }
    guard.finish();
    if text == "fail" {
        return Err(Status::failed_precondition("asked to fail: 100 %"));
    }
    let mut response = Response::new(note(text));
    if let Some(timeout) = timeout {
        response.metadata_mut().insert("x-saw-timeout", timeout);
    }
    Ok(response)
}

/// As many notes as the text says; `forever` goes on as long as somebody reads.
fn server_stream(request: Request<Note>, guard: Guard) -> Result<Response<Notes>, Status> {
    let text = request.into_inner().text;
    let count = if text == "forever" {
        usize::MAX
    } else {
        text.parse()
            .map_err(|_| Status::invalid_argument("not a number"))?
    };
    let notes = stream::unfold((0, Some(guard)), move |(at, guard)| async move {
        if at == count {
            if let Some(guard) = guard {
                guard.finish();
            }
            return None;
        }
        tokio::task::yield_now().await;
        Some((Ok(note(at.to_string())), (at + 1, guard)))
    });
    Ok(Response::new(notes.boxed()))
}

/// All texts, joined.
async fn client_stream(request: Request<Streaming<Note>>) -> Result<Response<Note>, Status> {
    let mut notes = request.into_inner();
    let mut texts = Vec::new();
    while let Some(note) = notes.message().await? {
        texts.push(note.text);
    }
    Ok(Response::new(note(texts.join(" "))))
}

/// Each note, as soon as it has come.
fn both(request: Request<Streaming<Note>>) -> Response<Notes> {
    Response::new(request.into_inner().boxed())
}

/// A client of `acme.Echo` at an address.
pub(crate) async fn client(address: SocketAddr) -> tonic::client::Grpc<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let connected = Box::pin(soon("a channel", endpoint.connect()));
    let channel = connected.await.expect("a channel");
    tonic::client::Grpc::new(channel)
}

/// Calls a unary method.
pub(crate) async fn call(
    client: &mut tonic::client::Grpc<Channel>,
    path: &'static str,
    request: impl tonic::IntoRequest<Note>,
) -> Result<Response<Note>, Status> {
    client.ready().await.expect("a channel");
    let codec = ProstCodec::<Note, Note>::default();
    let path = PathAndQuery::from_static(path);
    soon(
        format!("{path} to answer"),
        client.unary(request.into_request(), path, codec),
    )
    .await
}
