//! A WebSocket client and an echo, by tungstenite.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{Upstream, soon};

/// A client's end.
pub(crate) struct WebSocket(WebSocketStream<TcpStream>);

impl WebSocket {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("a connection");
        let request = "ws://test/chat".into_client_request().expect("a request");
        let upgrade = Box::pin(tokio_tungstenite::client_async(request, socket));
        let (socket, response) = soon("an upgrade", upgrade).await.expect("an upgrade");
        assert_eq!(response.status(), 101);
        Self(socket)
    }

    /// Sends a message and waits until it comes back.
    pub(crate) async fn echoes(&mut self, message: Message) {
        self.0.send(message.clone()).await.expect("an open socket");
        let back = soon("the echo", self.0.next()).await.expect("a message");
        assert_eq!(back.expect("a message"), message);
    }

    /// Says good-bye and waits for the other end to do so.
    pub(crate) async fn close(mut self) {
        self.0.close(None).await.expect("a close");
        while soon("the end", self.0.next()).await.is_some() {}
    }
}

/// An upstream that sends every message back.
pub(crate) async fn echo() -> Upstream {
    Upstream::start(|mut peer| async move {
        let stream = peer.take_conn().into_stream();
        let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else {
            return;
        };
        while let Some(Ok(message)) = socket.next().await {
            let is_data = message.is_text() || message.is_binary();
            if is_data && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await
}
