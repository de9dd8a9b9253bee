//! An upstream that misbehaves: a clear answer with its flag, bounded memory, and the others untouched.

use std::time::{Duration, Instant};

use crate::harness::http2::Http2;
use crate::harness::{Conn, Gateway, Upstream, request};

/// Routes `/bad` to the one that misbehaves and `/good` to one that does not.
fn routes(bad: &str, good: &Upstream, timeouts: &str) -> String {
    format!(
        "routes:
  - {{name: bad, match: {{path_prefix: /bad}}, upstream: bad, timeouts: {{{timeouts}}}}}
  - {{name: good, match: {{path_prefix: /good}}, upstream: good}}
upstreams:
  bad: {{endpoints: [\"{bad}\"], timeouts: {{connect: 500ms}}}}
{}",
        good.yaml("good")
    )
}

/// Asks for `/bad` and expects a status with a flag, and that `/good` is as good as before.
async fn fails(bad: &str, timeouts: &str, status: u16, flag: &str) {
    let good = Upstream::echo("good").await;
    let gateway = Gateway::start(routes(bad, &good, timeouts)).await;
    let begin = Instant::now();
    let answer = gateway.get("/bad").await;
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(
        answer.text().starts_with(&format!("{status} ")),
        "{:?}",
        answer.text()
    );
    assert!(
        begin.elapsed() < Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );
    // What was never sent is tried again, twice.
    let attempts = if flag == "UF" { 3.0 } else { 1.0 };
    gateway.flagged(flag, 1).await;
    gateway
        .counts(
            "retort_upstream_requests_total",
            &[("upstream", "bad"), ("flag", flag)],
            attempts,
        )
        .await;
    assert_eq!(gateway.get("/good").await.status, 200);
}

#[tokio::test]
async fn an_absent_one_is_503_connect_failed() {
    let absent = Upstream::absent();
    fails(&absent.to_string(), "request: 5s", 503, "UF").await;
}

#[tokio::test]
async fn a_unix_socket_that_is_not_there_is_connect_failed() {
    fails("unix:/nonexistent/retort.sock", "request: 5s", 503, "UF").await;
}

#[tokio::test]
async fn a_black_hole_is_given_up_after_the_connect_timeout() {
    // Reserved for documentation: packets to it go nowhere (RFC 5737).
    let good = Upstream::echo("good").await;
    let gateway = Gateway::start(routes("192.0.2.1:9", &good, "request: 5s")).await;
    let begin = Instant::now();
    let answer = gateway.get("/bad").await;
    assert!(matches!(answer.status, 503 | 504), "{}", answer.status);
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn a_silent_one_is_504_after_the_attempts_time() {
    let silent =
        Upstream::start(|mut peer| async move { while peer.request().await.is_some() {} }).await;
    fails(
        &silent.address.to_string(),
        "request: 10s, attempt: 300ms",
        504,
        "UT",
    )
    .await;
    silent.disconnected(1).await;
}

#[tokio::test]
async fn a_slow_one_is_504_at_the_requests_deadline() {
    let silent =
        Upstream::start(|mut peer| async move { while peer.request().await.is_some() {} }).await;
    fails(&silent.address.to_string(), "request: 300ms", 504, "DT").await;
}

#[tokio::test]
async fn one_that_closes_before_its_answer_is_502() {
    let closing = Upstream::says_and_closes("").await;
    fails(&closing.address.to_string(), "request: 5s", 502, "UC").await;
}

#[tokio::test]
async fn one_that_closes_within_its_head_is_502() {
    let closing = Upstream::says_and_closes("HTTP/1.1 200 OK\r\ncontent-le").await;
    fails(&closing.address.to_string(), "request: 5s", 502, "UC").await;
}

#[tokio::test]
async fn garbage_is_502() {
    for garbage in [
        "garbage\r\n\r\n",
        "HTTP/1.1 999999 What\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nx-a : 1\r\ncontent-length: 0\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "\0\0\0\0\0\0\0\0",
    ] {
        let upstream = Upstream::says_and_closes(garbage).await;
        let good = Upstream::echo("good").await;
        let address = upstream.address.to_string();
        let gateway = Gateway::start(routes(&address, &good, "request: 5s")).await;
        let answer = gateway.get("/bad").await;
        assert_eq!(answer.status, 502, "{garbage:?}: {}", answer.text());
        gateway.flagged("UPE", 1).await;
        assert_eq!(gateway.get("/good").await.status, 200);
    }
}

#[tokio::test]
async fn a_head_without_end_is_502_in_bounded_memory() {
    let upstream = Upstream::start(|mut peer| async move {
        if peer.request().await.is_some() {
            let _full = peer.try_send("HTTP/1.1 200 OK\r\n").await;
            let line = format!("x-filler: {}\r\n", "a".repeat(8_000));
            while peer.try_send(&line).await.is_ok() {}
        }
    })
    .await;
    let good = Upstream::echo("good").await;
    let address = upstream.address.to_string();
    let gateway = Gateway::start(routes(&address, &good, "request: 10s")).await;
    let before = gateway.memory();
    assert_eq!(gateway.get("/bad").await.status, 502);
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 32 << 20, "grew by {} KiB", grown >> 10);
    upstream.disconnected(1).await;
}

#[tokio::test]
async fn a_body_that_ends_early_is_cut_and_never_completed() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nonly this\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nonly this\r\nzz\r\n",
    ] {
        let upstream = Upstream::says_and_closes(answer).await;
        let good = Upstream::echo("good").await;
        let address = upstream.address.to_string();
        let gateway = Gateway::start(routes(&address, &good, "request: 5s")).await;
        // Without `connection: close`: the cut must show even where keep-alive was agreed.
        let cut = request(gateway.public(), "GET /bad HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(cut.status, 200);
        assert!(
            !cut.complete,
            "{answer:?}: passed as complete: {:?}",
            cut.text()
        );

        let client = Http2::connect(gateway.public()).await;
        let reply = client.get("/bad").await;
        assert!(reply.is_err(), "{answer:?}: {reply:?}");
        assert_eq!(gateway.get("/good").await.status, 200);
    }
}

#[tokio::test]
async fn a_body_that_stops_is_cut_after_the_idle_time() {
    let upstream = Upstream::start(|mut peer| async move {
        if peer.request().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this")
                .await;
            // Stays until the gateway has had enough.
            let _left = peer.has_bytes().await;
        }
    })
    .await;
    let good = Upstream::echo("good").await;
    let address = upstream.address.to_string();
    let gateway = Gateway::start(routes(&address, &good, "request: 60s, idle: 300ms")).await;
    let begin = Instant::now();
    let answer = gateway.get("/bad").await;
    assert!(!answer.complete);
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    upstream.disconnected(1).await;
    gateway.flagged("UT", 1).await;
}

#[tokio::test]
async fn more_than_was_announced_is_not_passed_on_and_the_connection_not_reused() {
    let upstream =
        Upstream::says("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison")
            .await;
    let good = Upstream::echo("good").await;
    let address = upstream.address.to_string();
    let gateway = Gateway::start(routes(&address, &good, "request: 5s")).await;
    for _ in 0..3 {
        let answer = gateway.get("/bad").await;
        assert!(
            answer.status == 502 || answer.text() == "ok",
            "{}",
            answer.text()
        );
    }
    assert_eq!(
        upstream.connections(),
        3,
        "a connection with leftovers is not trusted again"
    );
}

#[tokio::test]
async fn an_answer_before_the_request_was_sent_whole_is_passed_on() {
    let upstream = Upstream::start(|mut peer| async move {
        if peer.request_head().await.is_some() {
            peer.send("HTTP/1.1 401 No\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
                .await;
        }
    })
    .await;
    let good = Upstream::echo("good").await;
    let address = upstream.address.to_string();
    let gateway = Gateway::start(routes(&address, &good, "request: 10s")).await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("POST /bad HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nfirst")
        .await;
    let answer = conn.answer().await;
    assert_eq!((answer.status, answer.text()), (401, "no".to_owned()));
    assert_eq!(gateway.get("/good").await.status, 200);
}

#[tokio::test]
async fn a_pooled_connection_that_was_closed_meanwhile_costs_no_request() {
    // Closes after each answer, without saying so.
    let upstream =
        Upstream::says_and_closes("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let good = Upstream::echo("good").await;
    let address = upstream.address.to_string();
    let gateway = Gateway::start(routes(&address, &good, "request: 5s")).await;
    for number in 1..=20 {
        assert_eq!(gateway.get("/bad").await.text(), "ok", "request {number}");
        upstream.disconnected(number).await;
    }
}

#[tokio::test]
async fn an_upstream_without_endpoints_that_can_be_reached_leaves_others_alone() {
    let good = Upstream::echo("good").await;
    let absent = Upstream::absent();
    let gateway = Gateway::start(routes(&absent.to_string(), &good, "request: 5s")).await;
    let bad = (0..50).map(|_| gateway.get("/bad"));
    let fine = (0..50).map(|_| gateway.get("/good"));
    let (bad, fine) = tokio::join!(
        futures_util::future::join_all(bad),
        futures_util::future::join_all(fine)
    );
    assert!(bad.iter().all(|answer| answer.status == 503));
    assert!(fine.iter().all(|answer| answer.status == 200));
}

#[tokio::test]
async fn what_may_have_run_is_sent_again_only_if_that_is_as_good_as_once() {
    // Answers the first request of a connection; reads the second whole and closes without a word.
    let upstream = Upstream::start(|mut peer| async move {
        if peer.request().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await;
            let _read = peer.request().await;
        }
    })
    .await;
    let good = Upstream::echo("good").await;
    for (method, status, seen) in [("GET", 200, 3), ("POST", 502, 2)] {
        let address = upstream.address.to_string();
        let workers = "runtime: {workers: 1}\n";
        let yaml = format!("{workers}{}", routes(&address, &good, "request: 5s"));
        let gateway = Gateway::start(yaml).await;
        let before = upstream.requests().len();
        assert_eq!(gateway.get("/bad").await.text(), "ok");
        // It shall have been idle.
        tokio::time::sleep(Duration::from_millis(150)).await;
        let again = format!(
            "{method} /bad HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(
            request(gateway.public(), again).await.status,
            status,
            "{method}"
        );
        assert_eq!(upstream.requests().len() - before, seen, "{method}");
    }
}
