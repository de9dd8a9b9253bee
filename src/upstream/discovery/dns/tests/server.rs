//! A small name server on loopback that answers as a test tells it to.
//!
//! Its bytes are written by hand (RFC 1035, 4.1), so that no library agrees with itself.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

pub(super) const A: u16 = 1;
pub(super) const CNAME: u16 = 5;
pub(super) const AAAA: u16 = 28;
pub(super) const SRV: u16 = 33;

/// What is answered to one question.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// These records, and these along with them.
    Rows(Vec<Row>, Vec<Row>),
    /// This response code, and no record.
    Code(u8),
    /// Over UDP, that the answer is too long for it; these records over TCP.
    Long(Vec<Row>),
    /// Nothing.
    Silence,
}

/// One record.
#[derive(Debug, Clone)]
pub(super) struct Row {
    name: String,
    kind: u16,
    ttl: u32,
    data: Vec<u8>,
}

/// An address of a name.
pub(super) fn address(name: &str, ttl: u32, ip: &str) -> Row {
    let (kind, data) = match ip.parse().expect(ip) {
        IpAddr::V4(ip) => (A, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AAAA, ip.octets().to_vec()),
    };
    row(name, kind, ttl, data)
}

/// Another name of a name.
pub(super) fn alias(name: &str, ttl: u32, target: &str) -> Row {
    row(name, CNAME, ttl, labels(target))
}

/// A target of a service: priority, weight, port.
pub(super) fn service(name: &str, ttl: u32, numbers: [u16; 3], target: &str) -> Row {
    let mut data: Vec<u8> = numbers.iter().flat_map(|of| of.to_be_bytes()).collect();
    data.extend(labels(target));
    row(name, SRV, ttl, data)
}

fn row(name: &str, kind: u16, ttl: u32, data: Vec<u8>) -> Row {
    Row {
        name: name.into(),
        kind,
        ttl,
        data,
    }
}

/// The addresses of a name that the question asks for by that very name.
pub(super) fn addresses(name: &str, ttl: u32, ips: &[&str]) -> Reply {
    Reply::Rows(
        ips.iter().map(|ip| address(name, ttl, ip)).collect(),
        Vec::new(),
    )
}

/// The name server; answers until the test's runtime ends.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// Where it is.
    pub(super) at: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    replies: HashMap<(String, u16), Reply>,
    questions: Vec<(String, u16)>,
}

impl Server {
    /// One that says of every name that it does not exist.
    pub(super) async fn start() -> Self {
        // One number for both protocols: the second may be taken by chance.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
            let at = udp.local_addr().expect("bound");
            if let Ok(tcp) = TcpListener::bind(at).await {
                break (udp, tcp);
            }
        };
        let server = Self {
            at: udp.local_addr().expect("bound"),
            state: Arc::default(),
        };
        tokio::spawn(server.clone().serve_udp(udp));
        tokio::spawn(server.clone().serve_tcp(tcp));
        server
    }

    /// What is answered about a name from now on. Names end in a dot.
    pub(super) fn answers(&self, name: &str, kind: u16, reply: Reply) {
        let key = (name.to_owned(), kind);
        self.state.lock().expect("sound").replies.insert(key, reply);
    }

    /// The questions asked so far, which are forgotten by that.
    pub(super) fn questions(&self) -> Vec<(String, u16)> {
        std::mem::take(&mut self.state.lock().expect("sound").questions)
    }

    async fn serve_udp(self, socket: UdpSocket) {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            if let Some(answer) = self.answer(&buffer[..length], Over::Udp) {
                let _gone = socket.send_to(&answer, client).await;
            }
        }
    }

    async fn serve_tcp(self, listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            while let Ok(length) = stream.read_u16().await {
                let mut question = vec![0; length.into()];
                stream.read_exact(&mut question).await.expect("a question");
                if let Some(answer) = self.answer(&question, Over::Tcp) {
                    let length = u16::try_from(answer.len()).expect("short");
                    stream.write_u16(length).await.expect("written");
                    stream.write_all(&answer).await.expect("written");
                }
            }
        }
    }

    fn answer(&self, question: &[u8], over: Over) -> Option<Vec<u8>> {
        const TRUNCATED: u8 = 0x02;
        let (name, kind, end) = parse(question);
        let mut state = self.state.lock().expect("sound");
        if over == Over::Udp {
            state.questions.push((name.clone(), kind));
        }
        let exists = state.replies.keys().any(|(known, _)| *known == name);
        let reply = state.replies.get(&(name, kind)).cloned();
        let (code, flags, rows, along) = match reply {
            Some(Reply::Silence) => return None,
            Some(Reply::Rows(rows, along)) => (0, 0, rows, along),
            Some(Reply::Code(code)) => (code, 0, vec![], vec![]),
            Some(Reply::Long(_)) if over == Over::Udp => (0, TRUNCATED, vec![], vec![]),
            Some(Reply::Long(rows)) => (0, 0, rows, vec![]),
            None if exists => (0, 0, vec![], vec![]),
            None => (3, 0, vec![], vec![]),
        };
        let mut out = question[..2].to_vec();
        // A response to a recursive question; recursion is available.
        out.extend([0x81 | flags, 0x80 | code, 0, 1]);
        for count in [rows.len(), 0, along.len()] {
            out.extend(u16::try_from(count).expect("few").to_be_bytes());
        }
        out.extend(&question[12..end]);
        for row in rows.iter().chain(&along) {
            out.extend(labels(&row.name));
            out.extend(row.kind.to_be_bytes());
            out.extend([0, 1]);
            out.extend(row.ttl.to_be_bytes());
            out.extend(u16::try_from(row.data.len()).expect("short").to_be_bytes());
            out.extend(&row.data);
        }
        Some(out)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Udp,
    Tcp,
}

/// The name and the kind that are asked for, and where the question ends.
fn parse(message: &[u8]) -> (String, u16, usize) {
    let mut name = String::new();
    let mut at = 12;
    while message[at] != 0 {
        let length = usize::from(message[at]);
        name += std::str::from_utf8(&message[at + 1..=at + length]).expect("ASCII");
        name.push('.');
        at += length + 1;
    }
    let kind = u16::from_be_bytes([message[at + 1], message[at + 2]]);
    (name, kind, at + 5)
}

fn labels(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).expect("short"));
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}
