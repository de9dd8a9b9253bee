//! HTTP/1 read and written by hand, strictly, so that the gateway is not judged by its own library.

use std::net::SocketAddr;

use serde_json::Value;

use super::conn::Conn;

/// A start line and header fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) start: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// A response, whole.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: Head,
    /// The 1xx heads that came before.
    pub(crate) interim: Vec<Head>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// False if the connection ended before the body did.
    pub(crate) complete: bool,
}

impl Head {
    /// Splits what stands before the empty line.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n").filter(|line| !line.is_empty());
        let start = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .map(|line| {
                let (name, value) = line
                    .split_once(':')
                    .unwrap_or_else(|| panic!("a line without a colon: {line:?}"));
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        Self { start, headers }
    }

    /// The first value of a field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    /// Every value of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    fn status(&self) -> u16 {
        self.start
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5))
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: {:?}", self.start))
    }

    /// True if the list in a field has this item.
    pub(crate) fn lists(&self, name: &str, item: &str) -> bool {
        self.all(name)
            .iter()
            .flat_map(|value| value.split(','))
            .any(|found| found.trim().eq_ignore_ascii_case(item))
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {} {:?}", self.status, self.text()))
    }
}

impl Conn {
    /// The next head; none if the other end closed instead.
    #[track_caller]
    pub(crate) fn head(&mut self) -> impl Future<Output = Option<Head>> {
        let bytes = self.until(b"\r\n\r\n");
        async move { bytes.await.map(|bytes| Head::parse(&bytes)) }
    }

    /// The response to a GET, POST, …, whole.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> impl Future<Output = Answer> {
        let place = std::panic::Location::caller();
        async move {
            self.answer_to("GET")
                .await
                .unwrap_or_else(|| panic!("{place}: the connection was closed without an answer"))
        }
    }

    /// The response to a method, whole; none if the connection was closed instead.
    pub(crate) async fn answer_to(&mut self, method: &str) -> Option<Answer> {
        let mut interim = Vec::new();
        let head = loop {
            let head = self.head().await?;
            if head.status() == 101 || head.status() >= 200 {
                break head;
            }
            interim.push(head);
        };
        let status = head.status();
        let mut answer = Answer {
            status,
            head,
            interim,
            body: Vec::new(),
            trailers: Vec::new(),
            complete: true,
        };
        if method != "HEAD" && !matches!(status, 101 | 204 | 304) {
            self.body(&mut answer).await;
        }
        Some(answer)
    }

    async fn body(&mut self, answer: &mut Answer) {
        if answer.head.lists("transfer-encoding", "chunked") {
            answer.complete = self.chunks(&mut answer.body, &mut answer.trailers).await;
        } else if let Some(length) = answer.head.header("content-length") {
            let length = length.parse().expect("a length");
            match self.exactly(length).await {
                Some(body) => answer.body = body,
                None => {
                    answer.body = self.rest().await;
                    answer.complete = false;
                }
            }
        } else {
            answer.body = self.rest().await;
        }
    }

    /// A chunked body and its trailers; false if it ended early.
    pub(crate) async fn chunks(
        &mut self,
        body: &mut Vec<u8>,
        trailers: &mut Vec<(String, String)>,
    ) -> bool {
        loop {
            let Some(chunk) = self.chunk().await else {
                return false;
            };
            if chunk.is_empty() {
                break;
            }
            body.extend(chunk);
        }
        loop {
            let Some(line) = self.until(b"\r\n").await else {
                return false;
            };
            if line == b"\r\n" {
                return true;
            }
            trailers.extend(Head::parse(&[b"x\r\n", line.as_slice()].concat()).headers);
        }
    }

    /// The next chunk's data: empty is the last chunk, before the trailers.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.until(b"\r\n").await?;
        let size = String::from_utf8_lossy(&line);
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16)
            .unwrap_or_else(|_| panic!("not the size of a chunk: {size:?}"));
        if size == 0 {
            return Some(Vec::new());
        }
        let mut data = self.exactly(size + 2).await?;
        assert_eq!(data.split_off(size), b"\r\n", "the end of a chunk");
        Some(data)
    }
}

/// One GET on a connection of its own.
#[track_caller]
pub(crate) fn get(address: SocketAddr, target: &str) -> impl Future<Output = Answer> + use<> {
    request(
        address,
        format!("GET {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"),
    )
}

/// Sends bytes on a connection of their own and reads one response.
#[track_caller]
pub(crate) fn request(
    address: SocketAddr,
    bytes: impl AsRef<[u8]>,
) -> impl Future<Output = Answer> {
    let place = std::panic::Location::caller();
    async move {
        let mut conn = Conn::connect(address).await;
        let bytes = bytes.as_ref();
        // The gateway may answer and close before it has read everything.
        let _closed_early = conn.try_send(bytes).await;
        let method = bytes.split(|b| *b == b' ').next().unwrap_or_default();
        conn.answer_to(&String::from_utf8_lossy(method))
            .await
            .unwrap_or_else(|| panic!("{place}: the connection was closed without an answer"))
    }
}

/// One chunk of a chunked body.
pub(crate) fn chunk(data: impl AsRef<[u8]>) -> Vec<u8> {
    let data = data.as_ref();
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}
