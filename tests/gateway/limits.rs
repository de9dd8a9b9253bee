//! Every limit of a listener and of a route holds, and says so.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::harness::http2::Http2;
use crate::harness::{Conn, Gateway, Upstream, request, soon};

fn listener(limits: &str) -> String {
    format!(
        "listeners:\n  - {{name: public, address: \"127.0.0.1:0\", limits: {{{limits}}}}}\n\
         routes:\n  - {{name: ok, match: {{path_prefix: /}}, handler: {{respond: {{body: ok}}}}}}\n"
    )
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431() {
    let gateway = Gateway::start(listener("header_bytes: 8KiB")).await;
    let large = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nx-a: {}\r\n\r\n",
        "a".repeat(9_000)
    );
    assert_eq!(request(gateway.public(), large).await.status, 431);
    gateway.flagged("HTL", 1).await;
    let small = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nx-a: {}\r\n\r\n",
        "a".repeat(4_000)
    );
    assert_eq!(request(gateway.public(), small).await.status, 200);
}

#[tokio::test]
async fn too_many_fields_are_431() {
    let gateway = Gateway::start(listener("headers: 20")).await;
    let mut many = "GET / HTTP/1.1\r\nhost: x\r\n".to_owned();
    for number in 0..30 {
        write!(many, "x-{number}: 1\r\n").expect("text");
    }
    assert_eq!(request(gateway.public(), many + "\r\n").await.status, 431);
    gateway.flagged("HTL", 1).await;
}

#[tokio::test]
async fn a_target_that_is_too_long_is_414_or_431() {
    let gateway = Gateway::start(listener("header_bytes: 8KiB")).await;
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000));
    let status = request(gateway.public(), long).await.status;
    assert!(matches!(status, 414 | 431), "{status}");
}

#[tokio::test]
async fn a_slow_head_is_408() {
    let gateway = Gateway::start(listener("header_timeout: 300ms")).await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("GET / HTTP/1.1\r\nhost:").await;
    let begin = Instant::now();
    if let Some(answer) = conn.answer_to("GET").await {
        assert_eq!(answer.status, 408);
        assert!(conn.is_closed().await);
    } else {
        panic!("closed without a word");
    }
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let gateway = Gateway::start(listener("header_timeout: 300ms, idle_timeout: 300ms")).await;
    let mut silent = Conn::connect(gateway.public()).await;
    assert!(soon("the end of a silent connection", silent.is_closed()).await);
    let mut idle = Conn::connect(gateway.public()).await;
    idle.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(idle.answer().await.status, 200);
    assert!(soon("the end of an idle connection", idle.is_closed()).await);
}

#[tokio::test]
async fn connections_above_the_limit_do_not_get_in_and_those_inside_go_on() {
    let gateway = Gateway::start(listener("connections: 3")).await;
    let mut inside = Vec::new();
    for _ in 0..3 {
        let mut conn = Conn::connect(gateway.public()).await;
        conn.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(conn.answer().await.status, 200);
        inside.push(conn);
    }
    let mut outside = Conn::connect(gateway.public()).await;
    let _refused = outside.try_send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let early = tokio::time::timeout(Duration::from_millis(300), outside.answer_to("GET")).await;
    if let Ok(Some(answer)) = early {
        assert_eq!(answer.status, 503);
    }
    for conn in &mut inside {
        conn.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(conn.answer().await.status, 200);
    }
    drop(inside);
    // Once the others have left, there is room again.
    crate::harness::eventually(
        "room for one more",
        || async {
            let mut conn = Conn::connect(gateway.public()).await;
            let _refused = conn.try_send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
            conn.answer_to("GET").await.map(|answer| answer.status)
        },
        |status| *status == Some(200),
    )
    .await;
}

#[tokio::test]
async fn an_old_connection_is_asked_to_leave() {
    let gateway = Gateway::start(listener("connection_age: 200ms")).await;
    let mut conn = Conn::connect(gateway.public()).await;
    let begin = Instant::now();
    loop {
        if conn
            .try_send("GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .is_err()
        {
            break;
        }
        let Some(answer) = conn.answer_to("GET").await else {
            break;
        };
        assert_eq!(answer.status, 200);
        if answer.head.lists("connection", "close") {
            assert!(conn.is_closed().await);
            break;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "it never has to leave"
        );
    }
    assert!(
        begin.elapsed() >= Duration::from_millis(150),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn streams_of_one_connection_are_limited() {
    let gateway = Gateway::start(
        "
listeners:
  - {name: public, address: \"127.0.0.1:0\", limits: {streams: 2}}
routes:
  - {name: slow, match: {path: /}, handler: {respond: {body: ok, delay: 200ms}}}
",
    )
    .await;
    let client = Http2::connect(gateway.public()).await;
    // One answer first: by then the client knows the settings.
    assert_eq!(client.get("/").await.expect("an answer").status, 200);
    let begin = Instant::now();
    let all = futures_util::future::join_all((0..6).map(|_| client.get("/"))).await;
    assert!(
        all.iter()
            .all(|reply| reply.as_ref().is_ok_and(|reply| reply.status == 200))
    );
    assert!(
        begin.elapsed() >= Duration::from_millis(590),
        "three rounds: {:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn a_body_over_its_limit_is_413_declared_or_not() {
    let upstream = Upstream::echo("up").await;
    let gateway = Gateway::start(format!(
        "routes:\n  - {{name: up, match: {{path_prefix: /}}, middlewares: [{{body_limit: {{max: 1KiB}}}}], upstream: up}}\n\
         upstreams:\n{}",
        upstream.yaml("up")
    ))
    .await;
    let fits = format!(
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1024\r\n\r\n{}",
        "a".repeat(1024)
    );
    assert_eq!(request(gateway.public(), fits).await.status, 200);

    let declared = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1025\r\n\r\n";
    assert_eq!(request(gateway.public(), declared).await.status, 413);

    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    for _ in 0..3 {
        let _answered_already = conn
            .try_send(crate::harness::http1::chunk("a".repeat(512)))
            .await;
    }
    assert_eq!(conn.answer().await.status, 413);
    gateway.flagged("BTL", 2).await;
    assert_eq!(upstream.requests().len(), 1, "only what fits arrives whole");
}

#[tokio::test]
async fn expect_continue_is_refused_before_the_body_is_sent() {
    let upstream = Upstream::echo("up").await;
    let gateway = Gateway::start(format!(
        "routes:\n  - {{name: up, match: {{path_prefix: /}}, middlewares: [{{body_limit: {{max: 1KiB}}}}], upstream: up}}\n\
         upstreams:\n{}",
        upstream.yaml("up")
    ))
    .await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\nexpect: 100-continue\r\n\r\n";
    let answer = request(gateway.public(), head).await;
    assert_eq!(answer.status, 413);
    assert!(
        answer.interim.is_empty(),
        "nobody asked for the body: {:?}",
        answer.interim
    );
}

#[tokio::test]
async fn a_rate_limit_answers_429_and_says_when_to_come_again() {
    let gateway = Gateway::start(
        "
routes:
  - name: limited
    match: {path: /}
    middlewares: [{rate_limit: {requests: 2, per: 1h, by: {header: x-user}}}]
    handler: {respond: {body: ok}}
",
    )
    .await;
    let ask = |user: &str| {
        request(
            gateway.public(),
            format!("GET / HTTP/1.1\r\nhost: x\r\nx-user: {user}\r\nconnection: close\r\n\r\n"),
        )
    };
    assert_eq!(ask("a").await.status, 200);
    assert_eq!(ask("a").await.status, 200);
    let refused = ask("a").await;
    assert_eq!(refused.status, 429);
    let after: u64 = refused
        .header("retry-after")
        .expect("when")
        .parse()
        .expect("seconds");
    assert!((1..=3600).contains(&after), "{after}");
    assert_eq!(
        ask("b").await.status,
        200,
        "another has a limit of their own"
    );
    gateway.flagged("RL", 1).await;
}

#[tokio::test]
async fn a_protocol_that_is_not_listed_is_not_spoken() {
    let only = |protocol: &str| {
        Gateway::start(format!(
            "listeners:\n  - {{name: public, address: \"127.0.0.1:0\", protocols: [{protocol}]}}\n\
             routes:\n  - {{name: ok, match: {{path_prefix: /}}, handler: {{respond: {{body: ok}}}}}}\n"
        ))
    };
    let gateway = only("http1").await;
    assert_eq!(gateway.get("/").await.status, 200);
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let said = conn.rest().await;
    assert!(!said.starts_with(&[0, 0]), "no HTTP/2 frame: {said:?}");

    let gateway = only("http2").await;
    let client = Http2::connect(gateway.public()).await;
    assert_eq!(client.get("/").await.expect("an answer").status, 200);
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let said = String::from_utf8_lossy(&conn.rest().await).into_owned();
    assert!(!said.contains("200"), "{said}");
}

#[tokio::test]
async fn when_files_run_out_nothing_spins_and_service_comes_back() {
    let gateway =
        Gateway::start_through("ulimit -n 80; exec \"$@\"", &listener("connections: 1000")).await;
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(Conn::connect(gateway.public()).await);
    }
    gateway
        .counts_at_least("retort_listener_accept_errors_total", 1.0)
        .await;
    let before = gateway.cpu();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = gateway.cpu().saturating_sub(before);
    assert!(
        spent < Duration::from_millis(300),
        "{spent:?} of CPU in a second"
    );
    drop(open);
    crate::harness::eventually(
        "service to come back",
        || async {
            let mut conn = Conn::connect(gateway.public()).await;
            let _refused = conn.try_send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
            conn.answer_to("GET").await.map(|answer| answer.status)
        },
        |status| *status == Some(200),
    )
    .await;
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_gets_what_is_quick_and_frees_what_is_not() {
    let upstream = Upstream::echo("up").await;
    let gateway = Gateway::start(format!(
        "routes:\n  - {{name: up, match: {{path_prefix: /}}, upstream: up}}\nupstreams:\n{}",
        upstream.yaml("up")
    ))
    .await;
    let mut quick = Conn::connect(gateway.public()).await;
    quick
        .send("GET /?delay=50ms HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    quick.finish().await;
    assert_eq!(quick.answer().await.status, 200);
    assert!(quick.is_closed().await);

    let mut slow = Conn::connect(gateway.public()).await;
    slow.send("GET /?delay=60s HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    upstream.received(2).await;
    slow.finish().await;
    let begin = Instant::now();
    assert!(slow.is_closed().await);
    assert!(begin.elapsed() < Duration::from_secs(10));
    gateway.flagged("DC", 1).await;
}
