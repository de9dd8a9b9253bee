//! HTTP/2 by hand, for servers that no library would play.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(super) const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// A connection on which frames are read and written.
pub(super) struct Frames(pub(super) TcpStream);

pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) stream: u32,
}

impl Frames {
    /// Reads the client's preface, and says nothing yet.
    pub(super) async fn accept(mut socket: TcpStream) -> Self {
        let mut preface = [0; 24];
        socket.read_exact(&mut preface).await.expect("a preface");
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        Self(socket)
    }

    /// Says how many streams are allowed.
    pub(super) async fn allow(&mut self, streams: u32) {
        let mut payload = vec![0, 3];
        payload.extend_from_slice(&streams.to_be_bytes());
        self.write(SETTINGS, 0, 0, &payload).await;
    }

    /// Says that nothing above a stream was worked on.
    pub(super) async fn go_away(&mut self, last: u32) {
        let payload = [last.to_be_bytes(), [0; 4]].concat();
        self.write(GOAWAY, 0, 0, &payload).await;
    }

    /// Answers a stream with 200 and nothing else.
    pub(super) async fn answer(&mut self, stream: u32) {
        // The end of the stream, the end of the headers; `:status: 200` in the static table.
        self.write(HEADERS, 0x1 | 0x4, stream, &[0x88]).await;
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        let frame = [&head, payload].concat();
        self.0.write_all(&frame).await.expect("written");
    }

    /// The next frame; none at the end of the connection.
    pub(super) async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, _, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(Frame {
            kind,
            stream: u32::from_be_bytes(stream),
        })
    }

    /// The next stream that is opened; none at the end of the connection.
    pub(super) async fn stream(&mut self) -> Option<u32> {
        loop {
            let frame = self.read().await?;
            if frame.kind == HEADERS {
                return Some(frame.stream);
            }
        }
    }
}
