//! Connections that leave HTTP behind.

use http::StatusCode;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fake::{Peer, answer, failure, get, read_head, soon, until};
use crate::base::upgrade::Upgrade;
use crate::upstream::Cause;

#[tokio::test(flavor = "local")]
async fn an_upgraded_connection_is_handed_over_with_what_came_early() {
    let peer = Peer::start(|_, mut socket| async move {
        let head = read_head(&mut socket).await.expect("a head");
        assert!(head.contains("upgrade: echo") && head.contains("connection: upgrade"), "{head}");
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\nearly";
        socket.write_all(answer).await.expect("written");
        let (mut reader, mut writer) = socket.split();
        tokio::io::copy(&mut reader, &mut writer).await.expect("echoed");
    })
    .await;
    let lane = peer.lane();
    let mut request = get("/");
    request
        .head
        .set_header(UPGRADE, HeaderValue::from_static("echo"));
    request
        .head
        .set_header(CONNECTION, HeaderValue::from_static("upgrade"));
    let mut response = answer(&lane, request).await;
    assert_eq!(response.head.status, StatusCode::SWITCHING_PROTOCOLS);
    let upgrade = Upgrade::take(&mut response.head.extensions).expect("a promise");
    let mut tunnel = soon(upgrade.connection()).await.expect("a connection");
    let mut early = [0; 5];
    soon(tunnel.read_exact(&mut early)).await.expect("bytes");
    assert_eq!(&early, b"early");
    for _ in 0..3 {
        soon(tunnel.write_all(b"ping")).await.expect("written");
        let mut echoed = [0; 4];
        soon(tunnel.read_exact(&mut echoed)).await.expect("bytes");
        assert_eq!(&echoed, b"ping");
    }
    until(|| lane.counts().idle == 0 && lane.counts().active == 0).await;
    drop(tunnel);
}

#[tokio::test(flavor = "local")]
async fn a_refused_upgrade_is_an_answer_like_any_other() {
    let peer = Peer::answering("HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n").await;
    let lane = peer.lane();
    for _ in 0..2 {
        let mut request = get("/");
        request
            .head
            .set_header(UPGRADE, HeaderValue::from_static("websocket"));
        request
            .head
            .set_header(CONNECTION, HeaderValue::from_static("upgrade"));
        let response = answer(&lane, request).await;
        assert_eq!(response.head.status, StatusCode::UPGRADE_REQUIRED);
    }
    assert_eq!(lane.counts().connects, 1);
}

#[tokio::test(flavor = "local")]
async fn an_upgrade_that_nobody_asked_for_is_refused() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n";
    let peer = Peer::answering(switch).await;
    let failure = failure(&peer.lane(), get("/")).await;
    assert!(matches!(failure.cause, Cause::Protocol), "{failure:?}");
    assert!(failure.detail.contains("nobody asked for"), "{failure}");
}
