//! One end of a connection: bytes in, bytes out, and nothing done behind the test's back.

use std::net::SocketAddr;
use std::path::Path;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::soon;

trait Socket: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Socket for T {}

/// A client's or a fake upstream's connection.
pub(crate) struct Conn {
    socket: Box<dyn Socket>,
    /// What was read from the socket and not yet asked for.
    buffer: Vec<u8>,
    /// How many bytes came over the socket in all.
    pub(crate) received: usize,
}

impl Conn {
    pub(crate) fn new(socket: impl AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static) -> Self {
        Self {
            socket: Box::new(socket),
            buffer: Vec::new(),
            received: 0,
        }
    }

    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> impl Future<Output = Self> {
        let connected = soon(
            format!("a connection to {address}"),
            TcpStream::connect(address),
        );
        async move {
            let socket = connected.await.expect("a connection");
            socket.set_nodelay(true).expect("no delay");
            Self::new(socket)
        }
    }

    pub(crate) async fn connect_unix(path: &Path) -> Self {
        let socket = soon("a Unix connection", UnixStream::connect(path)).await;
        Self::new(socket.expect("a Unix connection"))
    }

    /// Writes all of it.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes)
            .await
            .expect("the other end takes bytes");
    }

    /// Writes all of it, or says that the other end has closed.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let write = async {
            self.socket.write_all(bytes.as_ref()).await?;
            self.socket.flush().await
        };
        soon("the other end to take bytes", write).await
    }

    /// Says that no more bytes will come, and goes on reading.
    pub(crate) async fn finish(&mut self) {
        let _closed_already = self.socket.shutdown().await;
    }

    /// Everything up to and with `end`; what came before the other end closed if it is not there.
    #[track_caller]
    pub(crate) fn until(&mut self, end: &[u8]) -> impl Future<Output = Option<Vec<u8>>> {
        let what = format!("{:?}", String::from_utf8_lossy(end));
        let end = end.to_vec();
        soon(what, async move {
            let mut searched = 0;
            loop {
                if let Some(at) = find(&self.buffer[searched..], &end) {
                    return Some(self.take(searched + at + end.len()));
                }
                searched = (self.buffer.len() + 1).saturating_sub(end.len());
                if !self.fill().await {
                    return None;
                }
            }
        })
    }

    /// Exactly so many bytes; none if the other end closed before.
    #[track_caller]
    pub(crate) fn exactly(&mut self, length: usize) -> impl Future<Output = Option<Vec<u8>>> {
        soon(format!("{length} bytes"), async move {
            while self.buffer.len() < length {
                if !self.fill().await {
                    return None;
                }
            }
            Some(self.take(length))
        })
    }

    /// Everything until the other end closes or resets.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> impl Future<Output = Vec<u8>> {
        soon("the other end to close", async move {
            while self.fill().await {}
            self.take(self.buffer.len())
        })
    }

    /// True if the other end has closed and left nothing to read.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !soon("bytes or an end", self.fill()).await
    }

    /// Waits, however long, for bytes; none when the other end has closed.
    pub(crate) async fn has_bytes(&mut self) -> Option<()> {
        (!self.buffer.is_empty() || self.fill().await).then_some(())
    }

    /// The socket and what was read ahead of it, for protocols that take over.
    pub(crate) fn into_stream(self) -> impl AsyncRead + AsyncWrite + Unpin + Send {
        let (read, write) = tokio::io::split(self.socket);
        let ahead = std::io::Cursor::new(self.buffer);
        tokio::io::join(AsyncReadExt::chain(ahead, read), write)
    }

    async fn fill(&mut self) -> bool {
        let read = self.socket.read_buf(&mut self.buffer).await.unwrap_or(0);
        self.received += read;
        read > 0
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        self.buffer.drain(..length).collect()
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
