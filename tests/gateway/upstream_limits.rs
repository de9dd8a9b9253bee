//! No more is asked of an upstream than its limits allow; who waits is served in order, and nothing leaks.

use std::time::{Duration, Instant};

use http::Request;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::http2::Http2;
use crate::harness::service::{Stream, ask};
use crate::harness::websocket::{WebSocket, echo};
use crate::harness::{Answer, Conn, Gateway, Service, Upstream, eventually, get};
use crate::retries::logged;

fn yaml(route: &str, up: &str) -> String {
    format!(
        "runtime: {{workers: 2}}
routes:
  - {{name: up, match: {{path_prefix: /}}, upstream: up{route}}}
upstreams:
  up: {{{up}}}
"
    )
}

async fn gateway(service: &Service, limits: &str) -> Gateway {
    let up = format!("endpoints: [\"{service}\"], limits: {{{limits}}}");
    Gateway::start(yaml("", &up)).await
}

/// Waits until so many requests wait for room.
async fn queued(gateway: &Gateway, count: u32) {
    gateway
        .counts("retort_upstream_queue_depth", &[], f64::from(count))
        .await;
}

#[track_caller]
fn refused(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.header("retry-after"), Some("1"));
}

/// Proves that so many requests can be under way at once, and one more cannot.
async fn has_room(gateway: &Gateway, service: &Service, room: usize) {
    let before = service.held();
    let target = "/room?hold=head";
    let held: Vec<_> = (0..room)
        .map(|_| tokio::spawn(gateway.get(target)))
        .collect();
    service.holds(before + room).await;
    refused(&gateway.get(target).await);
    assert_eq!(service.held(), before + room);
    service.release_all();
    for answer in held {
        assert_eq!(answer.await.expect("no panic").status, 200);
    }
    queued(gateway, 0).await;
}

#[tokio::test]
async fn what_is_over_the_limit_waits_in_order_and_the_rest_is_refused() {
    let a = Service::start("a").await;
    let gateway = gateway(&a, "requests: 2, queue: 3, queue_timeout: 20s").await;
    let send = |number: usize| {
        let target = format!("/{number}?hold=head");
        tokio::spawn(get(gateway.public(), &target))
    };
    let mut answers = vec![send(0), send(1)];
    a.holds(2).await;
    for number in 2..5 {
        answers.push(send(number));
        queued(&gateway, u32::try_from(number - 1).expect("few")).await;
    }
    refused(&gateway.get("/refused").await);
    let line = logged(&gateway, "/refused").await;
    assert_eq!(line["flag"], "UO");
    let detail = "upstream `up` is at its limit: the queue of 3 requests is full";
    assert_eq!(line["detail"], detail);
    assert_eq!(a.held(), 2, "two at once");
    for number in 2..5 {
        a.release(1);
        a.holds(number + 1).await;
        let target = &a.requests()[number].target;
        assert_eq!(*target, format!("/{number}?hold=head"), "in order");
    }
    a.release_all();
    for answer in answers {
        assert_eq!(answer.await.expect("no panic").status, 200);
    }
    queued(&gateway, 0).await;
}

#[tokio::test]
async fn nobody_waits_for_longer_than_may_be() {
    let a = Service::start("a").await;
    let gateway = gateway(&a, "requests: 1, queue_timeout: 300ms").await;
    let slow = tokio::spawn(gateway.get("/?hold=head"));
    a.holds(1).await;
    let begin = Instant::now();
    refused(&gateway.get("/waits").await);
    assert!(begin.elapsed() >= Duration::from_millis(300));
    let line = logged(&gateway, "/waits").await;
    let detail = "upstream `up` is at its limit: waited 300ms for one of 1 request to end";
    assert_eq!(
        (&line["flag"], &line["detail"]),
        (&"UO".into(), &detail.into())
    );
    a.release(1);
    assert_eq!(slow.await.expect("no panic").status, 200);
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(a.requests().len(), 2);
}

#[tokio::test]
async fn an_attempt_that_ends_in_the_queue_is_an_overflow_and_nobodys_timeout() {
    let a = Service::start("a").await;
    let up = format!("endpoints: [\"{a}\"], limits: {{requests: 1, queue: 5, queue_timeout: 20s}}");
    let route = ", timeouts: {attempt: 200ms}, retry: {attempts: 1}";
    let gateway = Gateway::start(yaml(route, &up)).await;
    // Its head has come, so that only its body is under way.
    let held = tokio::spawn(gateway.get("/body?hold=body"));
    a.holds(1).await;
    refused(&gateway.get("/waits").await);
    let line = logged(&gateway, "/waits").await;
    assert_eq!(line["flag"], "UO", "{line}");
    assert_eq!(a.held(), 1, "it was never sent");
    a.release_all();
    assert_eq!(held.await.expect("no panic").status, 200);
}

#[tokio::test]
async fn who_leaves_the_queue_is_never_sent() {
    let a = Service::start("a").await;
    let gateway = gateway(&a, "requests: 1, queue: 1, queue_timeout: 20s").await;
    let slow = tokio::spawn(gateway.get("/?hold=head"));
    a.holds(1).await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send(ask("/leaves", "")).await;
    queued(&gateway, 1).await;
    drop(conn);
    queued(&gateway, 0).await;
    let next = tokio::spawn(gateway.get("/next"));
    queued(&gateway, 1).await;
    a.release(1);
    assert_eq!(slow.await.expect("no panic").status, 200);
    assert_eq!(next.await.expect("no panic").status, 200);
    assert!(a.requests().iter().all(|seen| seen.target != "/leaves"));
}

#[tokio::test]
async fn a_request_is_under_way_until_its_body_has_ended() {
    let a = Service::start("a").await;
    let gateway = gateway(&a, "requests: 1, queue: 0").await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send(ask("/?hold=body", "")).await;
    let head = conn.head().await.expect("a head");
    assert!(head.start.contains("200"));
    assert_eq!(conn.exactly(6).await.as_deref(), Some(&b"first "[..]));
    refused(&gateway.get("/").await);
    a.release(1);
    assert_eq!(conn.exactly(1).await.as_deref(), Some(&b"a"[..]));
    eventually("room", || gateway.get("/"), |answer| answer.status == 200).await;
    // A client that leaves in the middle gives its room back, too.
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send(ask("/?hold=body", "")).await;
    assert!(conn.head().await.is_some());
    assert_eq!(gateway.get("/").await.status, 503);
    drop(conn);
    eventually("room", || gateway.get("/"), |answer| answer.status == 200).await;
    has_room(&gateway, &a, 1).await;
}

#[tokio::test]
async fn failures_give_their_room_back() {
    let a = Service::start("a").await;
    let up = format!("endpoints: [\"{a}\"], limits: {{requests: 2, queue: 0}}");
    let gateway = Gateway::start(yaml(", timeouts: {attempt: 100ms}", &up)).await;
    for _ in 0..3 {
        a.says(0);
        assert_eq!(gateway.get("/").await.status, 502);
        a.says(500);
        assert_eq!(gateway.get("/").await.status, 500);
        assert_eq!(gateway.get("/?hold=head").await.status, 504);
        a.release_all();
    }
    a.says(200);
    gateway.reload(&yaml("", &up)).await;
    has_room(&gateway, &a, 2).await;
}

#[tokio::test]
async fn retries_and_hedges_give_their_room_back() {
    let (a, absent) = (Service::start("a").await, Upstream::absent());
    let up = format!(
        "endpoints: [\"{a}\", \"{absent}\"], balance: round_robin, limits: {{requests: 3, queue: 0}}"
    );
    let retry =
        "retry: {attempts: 3, on: [503, closed, connect_failure], backoff: 1ms, budget: 100%}";
    for route in [
        format!(", {retry}"),
        ", hedge: {after: 10ms}".to_owned(),
        format!(", hedge: {{after: 10ms}}, {retry}"),
    ] {
        let gateway = Gateway::start(yaml(&route, &up)).await;
        for status in [200, 503, 0, 200, 503, 0] {
            a.says(status);
            let _any = gateway.get("/").await;
            let before = a.held();
            let slow = tokio::spawn(gateway.get("/?hold=head"));
            a.holds(before + 1).await;
            a.release_all();
            slow.abort();
        }
        a.says(200);
        gateway.reload(&yaml("", &up)).await;
        gateway
            .counts("retort_http_requests_in_flight", &[], 0.0)
            .await;
        has_room(&gateway, &a, 3).await;
    }
}

#[tokio::test]
async fn a_websocket_holds_its_room_to_its_end() {
    let upstream = echo().await;
    let up = format!(
        "endpoints: [\"{}\"], limits: {{requests: 1, queue: 0}}",
        upstream.address
    );
    let gateway = Gateway::start(yaml("", &up)).await;
    for _ in 0..3 {
        let mut socket = WebSocket::connect(gateway.public()).await;
        socket.echoes(Message::text("hello")).await;
        refused(&gateway.get("/").await);
        socket.close().await;
        // The end of the tunnel is seen a moment later; then there is room for the next.
        let flagged = [("flag", "UO")];
        let _metrics = gateway
            .metrics()
            .await
            .sum("retort_http_requests_total", &flagged);
        eventually(
            "room",
            || gateway.get("/no-websocket"),
            |answer| answer.status != 503,
        )
        .await;
    }
}

#[tokio::test]
async fn http1_requests_wait_for_a_connection() {
    let a = Service::start("a").await;
    let up =
        format!("endpoints: [\"{a}\"], limits: {{connections: 1, queue: 2, queue_timeout: 20s}}");
    let one = yaml("", &up).replace("workers: 2", "workers: 1");
    let gateway = Gateway::start(one).await;
    let send = |number: usize| {
        let target = format!("/{number}?hold=head");
        tokio::spawn(get(gateway.public(), &target))
    };
    let mut answers = vec![send(0)];
    a.holds(1).await;
    for number in 1..3_u32 {
        answers.push(send(number as usize));
        queued(&gateway, number).await;
    }
    refused(&gateway.get("/refused").await);
    let line = logged(&gateway, "/refused").await;
    assert_eq!(line["flag"], "UO");
    let detail = format!("no connection to {a} is free: the queue of 2 requests is full");
    assert_eq!(line["detail"], detail);
    for number in 1..3 {
        a.release(1);
        a.holds(number + 1).await;
        let target = &a.requests()[number].target;
        assert_eq!(*target, format!("/{number}?hold=head"), "in order");
    }
    a.release_all();
    for answer in answers {
        assert_eq!(answer.await.expect("no panic").status, 200);
    }
    assert_eq!(a.connections(), 1);
    queued(&gateway, 0).await;
    // One that breaks makes room for another.
    a.says(0);
    let once = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    let broken = crate::harness::request(gateway.public(), once).await;
    assert_eq!(broken.status, 502);
    a.says(200);
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(a.connections(), 2);
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_another_endpoint() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let up = format!(
        "endpoints: [\"{a}\", \"{b}\"], balance: round_robin, limits: {{connections: 1, queue: 5}}"
    );
    let one = yaml("", &up).replace("workers: 2", "workers: 1");
    let gateway = Gateway::start(one).await;
    let begin = Instant::now();
    for _ in 0..10 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "nobody waits");
    assert_eq!((a.requests().len(), b.requests().len()), (5, 5));
}

#[tokio::test]
async fn http2_requests_share_the_connections_that_may_be() {
    let upstream = Upstream::echo_http2("up").await;
    let up = format!(
        "endpoints: [\"{}\"], protocol: http2, limits: {{connections: 1, queue: 500, queue_timeout: 20s}}",
        upstream.address
    );
    let one = yaml("", &up).replace("workers: 2", "workers: 1");
    let gateway = Gateway::start(one).await;
    let client = Http2::connect(gateway.public()).await;
    // More than a connection has streams: the rest waits.
    let calls = (0..120).map(|number| {
        let request = Request::get(format!("http://test/{number}?delay=50ms"));
        client.send(request.body(()).expect("a request"), None)
    });
    for reply in futures_util::future::join_all(calls).await {
        assert_eq!(reply.expect("an answer").status, 200);
    }
    assert_eq!(upstream.connections(), 1);
    queued(&gateway, 0).await;
}

#[tokio::test]
async fn an_adaptive_limit_falls_to_its_least_before_a_stalled_upstream_and_recovers() {
    let a = Service::start("a").await;
    let up = format!("endpoints: [\"{a}\"], limits: {{adaptive: {{min: 2, max: 8}}}}");
    let route = ", timeouts: {attempt: 200ms}";
    let gateway = Gateway::start(yaml(route, &up).replace("workers: 2", "workers: 1")).await;
    let mut round = 0;
    // So many get through of ten that come at once.
    let mut through = async || {
        round += 1;
        let before = a.held();
        let target = format!("/{round}?hold=head");
        let all = (0..10).map(|_| gateway.get(&target));
        let answers = futures_util::future::join_all(all).await;
        for answer in &answers {
            match answer.status {
                504 => {}
                _ => refused(answer),
            }
        }
        a.release_all();
        a.held() - before
    };
    assert_eq!(through().await, 8, "the most, as nothing is known");
    let mut last = 8;
    for _ in 0..200 {
        last = through().await;
        if last == 2 {
            break;
        }
    }
    assert_eq!(last, 2, "it never falls to its least");
    let line = logged(&gateway, "/1").await;
    let whys = ["UO", "UT"];
    assert!(
        whys.contains(&line["flag"].as_str().expect("a flag")),
        "{line}"
    );
    // Answers again, at once; the limit rises with the load.
    let stream = Stream::start(&gateway, 2, "/fast");
    let mut last = 2;
    for _ in 0..200 {
        stream.goes_on(50).await;
        last = through().await;
        if last >= 4 {
            break;
        }
    }
    let _answers = stream.stop().await;
    assert!(last >= 4, "it does not rise again: {last}");
}

#[tokio::test]
async fn nothing_leaks_whatever_happens() {
    let a = Service::start("a").await;
    let limits = "limits: {requests: 4, connections: 40, queue: 4, queue_timeout: 100ms}";
    let up = format!("endpoints: [\"{a}\"], {limits}");
    let route = ", timeouts: {attempt: 150ms}, retry: {attempts: 2, on: [503, closed, timeout], backoff: 1ms},
        hedge: {after: 50ms}";
    let gateway = Gateway::start(yaml(route, &up)).await;
    let targets = ["/", "/?hold=head", "/?hold=body"];
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..12_usize {
        let address = gateway.public();
        clients.spawn(async move {
            for number in 0..20_usize {
                let target = targets[(client + number) % 3];
                let mut conn = Conn::connect(address).await;
                conn.send(ask(target, "connection: close\r\n")).await;
                match (client + number) % 4 {
                    // Leaves at once, after the head, or not at all.
                    0 => {}
                    1 => {
                        let _head = conn.head().await;
                    }
                    _ => {
                        let _answer = conn.answer_to("GET").await;
                    }
                }
            }
        });
    }
    let mischief = async {
        for round in 0_u16.. {
            a.says([200, 503, 0, 500][usize::from(round % 4)]);
            tokio::time::sleep(Duration::from_millis(20)).await;
            a.release_all();
        }
    };
    tokio::select! {
        () = mischief => {}
        () = async { while let Some(client) = clients.join_next().await { client.expect("no panic"); } } => {}
    }
    a.says(200);
    a.release_all();
    queued(&gateway, 0).await;
    let active = [("upstream", "up"), ("state", "active")];
    gateway
        .counts("retort_upstream_connections", &active, 0.0)
        .await;
    gateway
        .counts("retort_http_requests_in_flight", &[], 0.0)
        .await;
    // All four can be had, and no fifth. The upstream's section stays, and so does who is in it.
    gateway.reload(&yaml("", &up)).await;
    has_room(&gateway, &a, 4).await;
}

#[tokio::test]
async fn a_worker_gives_idle_connections_up_where_another_waits() {
    let a = Service::start("a").await;
    let limits = "limits: {connections: 4, queue: 10, queue_timeout: 20s}";
    let gateway = Gateway::start(yaml("", &format!("endpoints: [\"{a}\"], {limits}"))).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = Conn::connect(gateway.public()).await;
        client.send(ask("/", "")).await;
        assert_eq!(client.answer().await.status, 200);
        clients.push(client);
    }
    // Whichever worker has which client, these are never spread alike.
    for four in [[0, 2, 4, 6], [1, 3, 5, 7], [0, 1, 2, 3], [4, 5, 6, 7]].repeat(2) {
        let before = a.held();
        for client in four {
            clients[client].send(ask("/?hold=head", "")).await;
        }
        a.holds(before + 4).await;
        a.release_all();
        for client in four {
            assert_eq!(clients[client].answer().await.status, 200);
        }
    }
}
