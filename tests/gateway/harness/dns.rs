//! A small name server on loopback, whose bytes are written by hand (RFC 1035, 4.1).

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::soon;

const A: u16 = 1;
const SRV: u16 = 33;

/// The name server; answers until the test's runtime ends.
#[derive(Clone)]
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    records: Arc<Mutex<HashMap<(String, u16), Vec<Vec<u8>>>>>,
    /// Questions are answered.
    speaks: Arc<watch::Sender<bool>>,
    questions: Arc<watch::Sender<usize>>,
}

impl NameServer {
    /// One that says of every name that it does not exist.
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let server = Self {
            address: socket.local_addr().expect("bound"),
            records: Arc::default(),
            speaks: Arc::new(watch::Sender::new(true)),
            questions: Arc::default(),
        };
        tokio::spawn(server.clone().serve(Arc::new(socket)));
        server
    }

    /// The addresses of a name from now on.
    pub(crate) fn has(&self, name: &str, addresses: &[&str]) {
        let octets = |ip: &&str| ip.parse::<Ipv4Addr>().expect(ip).octets().to_vec();
        self.set(name, A, addresses.iter().map(octets).collect());
    }

    /// The targets of a service from now on: weight, port, name.
    pub(crate) fn serves(&self, name: &str, targets: &[(u16, u16, &str)]) {
        let record = |(weight, port, target): &(u16, u16, &str)| {
            let numbers = [0, *weight, *port];
            let mut record: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
            record.extend(labels(target));
            record
        };
        self.set(name, SRV, targets.iter().map(record).collect());
    }

    fn set(&self, name: &str, kind: u16, records: Vec<Vec<u8>>) {
        let key = (name.to_owned(), kind);
        self.records
            .lock()
            .expect("no panic while locked")
            .insert(key, records);
    }

    /// Leaves questions without an answer; those that it has until it speaks again are answered then.
    pub(crate) fn is_silent(&self) {
        self.speaks.send_replace(false);
    }

    /// Answers again.
    pub(crate) fn speaks(&self) {
        self.speaks.send_replace(true);
    }

    /// Waits for so many questions more.
    pub(crate) async fn asked(&self, more: usize) {
        let mut questions = self.questions.subscribe();
        let all = *questions.borrow_and_update() + more;
        let enough = questions.wait_for(|questions| *questions >= all);
        soon(format!("{more} more questions"), enough)
            .await
            .expect("a sender");
    }

    async fn serve(self, socket: Arc<UdpSocket>) {
        let mut buffer = [0; 1024];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let (server, socket) = (self.clone(), Arc::clone(&socket));
            let question = buffer[..length].to_vec();
            server.questions.send_modify(|questions| *questions += 1);
            tokio::spawn(async move {
                let mut speaks = server.speaks.subscribe();
                drop(speaks.wait_for(|speaks| *speaks).await);
                let _gone = socket.send_to(&server.answer(&question), client).await;
            });
        }
    }

    fn answer(&self, question: &[u8]) -> Vec<u8> {
        let (name, kind, end) = parse(question);
        let records = self.records.lock().expect("no panic while locked");
        let exists = records.keys().any(|(known, _)| *known == name);
        let found = records.get(&(name, kind)).cloned().unwrap_or_default();
        let mut out = question[..2].to_vec();
        out.extend([0x81, if exists { 0x80 } else { 0x83 }, 0, 1]);
        out.extend(u16::try_from(found.len()).expect("few").to_be_bytes());
        out.extend([0; 4]);
        out.extend(&question[12..end]);
        for data in found {
            // The name of the question, kind, class, a TTL of one second.
            out.extend([0xc0, 12]);
            out.extend(kind.to_be_bytes());
            out.extend([0, 1, 0, 0, 0, 1]);
            out.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
            out.extend(data);
        }
        out
    }
}

/// The name and the kind that are asked for, and where the question ends.
fn parse(message: &[u8]) -> (String, u16, usize) {
    let mut labels = Vec::new();
    let mut at = 12;
    while message[at] != 0 {
        let end = at + 1 + usize::from(message[at]);
        labels.push(String::from_utf8_lossy(&message[at + 1..end]).to_lowercase());
        at = end;
    }
    let kind = u16::from_be_bytes([message[at + 1], message[at + 2]]);
    (labels.join("."), kind, at + 5)
}

fn labels(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).expect("short"));
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}
