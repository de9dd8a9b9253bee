//! Connections that end: what can have run, what cannot, and that a graceful end loses nothing.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::fake::{OK, Peer, answer, drain, failure, get, read_head, send, soon, text, until};
use super::frames::Frames;
use super::http2::http2_lane;
use crate::upstream::{Cause, SendOptions};

#[tokio::test(flavor = "local")]
async fn a_stream_that_a_goaway_leaves_out_cannot_have_run() {
    let peer = Peer::start(|_, socket| async move {
        let mut frames = Frames::accept(socket).await;
        frames.allow(10).await;
        let first = frames.stream().await.expect("a stream");
        let second = frames.stream().await.expect("a stream");
        assert!(first < second);
        frames.go_away(first).await;
        frames.answer(first).await;
        drain(&mut frames.0).await;
    })
    .await;
    let lane = http2_lane(&peer);
    let both = tokio::join!(send(&lane, get("/")), send(&lane, get("/")));
    let ((Ok(answered), Err(refused)) | (Err(refused), Ok(answered))) = both else {
        panic!("one of the two: {both:?}");
    };
    assert_eq!(answered.response.head.status, 200);
    assert!(matches!(refused.cause, Cause::Refused), "{refused:?}");
    assert!(refused.unprocessed, "{refused:?}");
    assert!(refused.detail.contains("left this stream out"), "{refused}");
}

#[tokio::test(flavor = "local")]
async fn a_stream_that_a_goaway_includes_may_have_run() {
    let peer = Peer::start(|_, socket| async move {
        let mut frames = Frames::accept(socket).await;
        frames.allow(10).await;
        let stream = frames.stream().await.expect("a stream");
        frames.go_away(stream).await;
        // The connection ends here.
    })
    .await;
    let failure = failure(&http2_lane(&peer), get("/")).await;
    assert!(matches!(failure.cause, Cause::Closed), "{failure:?}");
    assert!(
        !failure.unprocessed && failure.request.is_none(),
        "{failure:?}"
    );
}

#[tokio::test(flavor = "local")]
async fn a_graceful_end_of_connections_loses_nothing_under_load() {
    const REQUESTS: usize = 200;
    let served = Rc::new(Cell::new(0));
    let count = Rc::clone(&served);
    let peer = Peer::start(move |_, socket| {
        let count = Rc::clone(&count);
        async move {
            let goodbye = Rc::new(Notify::new());
            let (mine, said) = (Cell::new(0), Rc::clone(&goodbye));
            let service = service_fn(move |_: http::Request<hyper::body::Incoming>| {
                count.set(count.get() + 1);
                mine.set(mine.get() + 1);
                if mine.get() == 15 {
                    said.notify_one();
                }
                async {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    let body = http_body_util::Full::new(bytes::Bytes::from("ok"));
                    Ok::<_, Infallible>(http::Response::new(body))
                }
            });
            let mut builder = hyper::server::conn::http2::Builder::new(Local);
            builder.max_concurrent_streams(20);
            let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
            if let Either::Right(_) = select(connection.as_mut(), pin!(goodbye.notified())).await {
                connection.as_mut().graceful_shutdown();
                connection.await.expect("a graceful end");
            }
        }
    })
    .await;
    let lane = http2_lane(&peer);
    let tasks: Vec<_> = (0..REQUESTS)
        .map(|number| {
            let lane = Rc::clone(&lane);
            spawn_local(async move {
                // Some at once, some over time.
                tokio::time::sleep(Duration::from_millis(number as u64 / 4)).await;
                text(answer(&lane, get("/")).await).await
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(soon(task).await.expect("no failure"), "ok");
    }
    assert_eq!(served.get(), REQUESTS, "none was sent twice");
    assert!(peer.connections.get() > 5, "{}", peer.connections.get());
}

#[derive(Clone)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

#[tokio::test(flavor = "local")]
async fn a_pooled_connection_that_is_gone_before_the_first_byte_is_told_from_one_that_dies_later() {
    let check = |reset: bool| async move {
        let held = Rc::new(RefCell::new(None));
        let hold = Rc::clone(&held);
        let peer = Peer::start(move |_, mut socket| {
            let hold = Rc::clone(&hold);
            async move {
                read_head(&mut socket).await.expect("a head");
                socket.write_all(OK.as_bytes()).await.expect("written");
                hold.replace(Some(socket));
            }
        })
        .await;
        let lane = peer.lane();
        text(answer(&lane, get("/")).await).await;
        until(|| lane.counts().idle == 1 && held.borrow().is_some()).await;
        let socket = held.take().expect("a connection");
        if reset {
            // Without lingering, the close is a reset, which the next write meets.
            let socket = socket.into_std().expect("a socket");
            let socket = socket2::Socket::from(socket);
            socket.set_linger(Some(Duration::ZERO)).expect("set");
        } else {
            drop(socket);
        }
        // The runtime has not looked at the socket since, so hyper writes.
        let mut sending = Box::pin(lane.send(get("/"), SendOptions::new(Instant::now())));
        assert!((&mut sending).now_or_never().is_none());
        let failure = soon(sending).await.expect_err("a closed connection");
        assert!(matches!(failure.cause, Cause::Closed), "{failure:?}");
        assert_eq!(failure.unprocessed, reset, "{failure:?}");
        assert!(
            failure
                .detail
                .ends_with(", on a connection that was used before"),
            "{failure}"
        );
        assert_eq!(peer.connections.get(), 1, "it was not sent again");
    };
    check(true).await;
    check(false).await;
}
