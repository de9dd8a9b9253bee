//! What may be tried again is, elsewhere and within a budget; what may have run never is.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Conn, Gateway, Received, Upstream, request};

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy";

/// What an upstream does with a request that it has read whole.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Does {
    Says(&'static str),
    /// Closes the connection without a word.
    Closes,
    /// Answers, but late, if anybody still waits.
    Waits(Duration),
    /// Never answers.
    Nothing,
}

use Does::{Closes, Nothing, Says, Waits};

/// An upstream that does this with its first request, that with its second; the last step repeats.
pub(crate) async fn scripted(steps: &[Does]) -> Upstream {
    let steps: Arc<[Does]> = steps.into();
    let next = Arc::new(AtomicUsize::new(0));
    Upstream::start(move |mut peer| {
        let (steps, next) = (Arc::clone(&steps), Arc::clone(&next));
        async move {
            while peer.request().await.is_some() {
                let step = next.fetch_add(1, Ordering::SeqCst);
                let answer = match steps[step.min(steps.len() - 1)] {
                    Says(answer) => answer,
                    Closes => break,
                    Waits(time) => {
                        tokio::select! {
                            () = tokio::time::sleep(time) => OK,
                            _ = peer.has_bytes() => break,
                        }
                    }
                    Nothing => {
                        let _left = peer.has_bytes().await;
                        break;
                    }
                };
                if peer.try_send(answer).await.is_err() {
                    break;
                }
            }
        }
    })
    .await
}

/// A gateway with one worker and one route to these endpoints, taken in turn.
pub(crate) async fn gateway(endpoints: &[&dyn Display], route: &str) -> Gateway {
    gateway_to(endpoints, route, "").await
}

async fn gateway_to(endpoints: &[&dyn Display], route: &str, upstream: &str) -> Gateway {
    let endpoints: Vec<String> = endpoints.iter().map(|e| format!("\"{e}\"")).collect();
    Gateway::start(format!(
        "runtime: {{workers: 1}}
routes:
  - {{name: up, match: {{path_prefix: /}}, upstream: up{route}}}
upstreams:
  up: {{endpoints: [{}], balance: round_robin{upstream}}}
",
        endpoints.join(", ")
    ))
    .await
}

/// A request with a body of known length.
pub(crate) fn with_body(method: &str, target: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// The line of the access log about a path.
pub(crate) async fn logged(gateway: &Gateway, path: &str) -> Value {
    let line = gateway.prints(&format!("\"path\":\"{path}\"")).await;
    serde_json::from_str(&line).expect("JSON")
}

/// Waits until so many retries have ended so.
pub(crate) async fn retries(gateway: &Gateway, outcome: &str, count: u32) {
    let labels = [("upstream", "up"), ("outcome", outcome)];
    let name = "retort_upstream_retries_total";
    gateway.counts(name, &labels, f64::from(count)).await;
}

#[tokio::test]
async fn without_a_policy_what_was_never_sent_goes_elsewhere() {
    let (absent, up) = (Upstream::absent(), scripted(&[Says(OK)]).await);
    let gateway = gateway(&[&absent, &up.address], "").await;
    for number in 0..8 {
        let method = if number % 2 == 0 { "GET" } else { "POST" };
        let bytes = with_body(method, &format!("/{number}"), "body");
        let answer = request(gateway.public(), bytes).await;
        assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
    }
    let bodies: Vec<_> = up.requests().into_iter().map(|r| r.body).collect();
    assert_eq!(bodies, vec![b"body"; 8], "each once, and whole");
    let failed = [("upstream", "up"), ("flag", "UF")];
    let all = [("code", "200")];
    let metrics = gateway
        .counts("retort_http_requests_total", &all, 8.0)
        .await;
    let failures = metrics.sum("retort_upstream_requests_total", &failed);
    assert!(failures >= 3.0, "{failures}");
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    retries(&gateway, "succeeded", failures as u32).await;
    let lines = [logged(&gateway, "/0").await, logged(&gateway, "/1").await];
    for line in &lines {
        let said: Vec<_> = line["tries"].as_array().into_iter().flatten().collect();
        match line["attempts"].as_u64() {
            // What there is to say of it is said of the request.
            Some(1) => assert!(said.is_empty(), "{line}"),
            Some(2) => {
                assert_eq!(said[0]["endpoint"], absent.to_string(), "{line}");
                assert_eq!(said[0]["flag"], "UF", "{line}");
                assert_eq!(said[1]["endpoint"], up.address.to_string(), "{line}");
                assert_eq!(said[1]["status"], 200, "{line}");
                assert!(said[1]["duration_ms"].is_f64(), "{line}");
            }
            _ => panic!("{line}"),
        }
    }
    assert!(lines.iter().any(|line| line["attempts"] == 2), "{lines:?}");
}

#[tokio::test]
async fn without_a_policy_nothing_that_was_sent_is_tried_again() {
    for step in [&[Closes][..], &[Says(BUSY)]] {
        let up = scripted(step).await;
        let gateway = gateway(&[&up.address], "").await;
        let answer = gateway.get("/").await;
        assert!(answer.status >= 502, "{}", answer.status);
        assert_eq!(up.requests().len(), 1);
    }
}

#[tokio::test]
async fn without_a_policy_a_used_connection_that_ends_is_nobodys_fault() {
    for (method, status) in [("GET", 200), ("POST", 502)] {
        let up = scripted(&[Says(OK), Closes, Says(OK)]).await;
        let gateway = gateway(&[&up.address], "").await;
        assert_eq!(gateway.get("/").await.status, 200);
        // It shall have been idle.
        tokio::time::sleep(Duration::from_millis(150)).await;
        let answer = request(gateway.public(), with_body(method, "/", "")).await;
        assert_eq!(answer.status, status, "{method}");
    }
}

#[tokio::test]
async fn one_attempt_means_never_again() {
    let (absent, up) = (Upstream::absent(), scripted(&[Says(OK)]).await);
    let gateway = gateway(&[&absent, &up.address], ", retry: {attempts: 1}").await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(gateway.get("/").await.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503, 503]);
    gateway.flagged("UF", 2).await;
}

#[tokio::test]
async fn every_condition_is_worth_another_attempt_of_what_may_be_repeated() {
    let check = async |on: &str, first: &[Does], timeouts: &str| {
        let (bad, good) = (scripted(first).await, scripted(&[Says(OK)]).await);
        let route = format!(", retry: {{on: [{on}], backoff: 1ms}}, timeouts: {{{timeouts}}}");
        let gateway = gateway(&[&bad.address, &good.address], &route).await;
        for method in ["GET", "PUT", "DELETE", "GET"] {
            let answer = request(gateway.public(), with_body(method, "/", "x")).await;
            assert_eq!(
                (answer.status, answer.text()),
                (200, "ok".to_owned()),
                "{on}"
            );
        }
        assert!(!bad.requests().is_empty(), "{on}: it was never asked");
        assert_eq!(good.requests().len(), 4, "{on}");
    };
    check("closed", &[Closes], "").await;
    check("503", &[Says(BUSY)], "").await;
    check("\"503\"", &[Says(BUSY)], "").await;
    check("5xx", &[Says(BUSY)], "").await;
    check("timeout", &[Nothing], "attempt: 100ms").await;
    let denied = "HTTP/1.1 429 Slow Down\r\ncontent-length: 0\r\n\r\n";
    check("429, closed", &[Says(denied)], "").await;
}

#[tokio::test]
async fn what_may_have_run_is_never_tried_again_unless_the_route_allows_it() {
    for (step, timeouts) in [
        (&[Closes][..], ""),
        (&[Says(BUSY)], ""),
        (&[Nothing], "attempt: 100ms"),
    ] {
        for (idempotent, requests) in [(false, 1), (true, 3)] {
            let up = scripted(step).await;
            let route = format!(
                ", timeouts: {{{timeouts}}}, retry: {{on: [closed, timeout, 503], backoff: 1ms, idempotent: {idempotent}}}"
            );
            let gateway = gateway(&[&up.address], &route).await;
            let answer = request(gateway.public(), with_body("POST", "/p", "x")).await;
            assert!(answer.status >= 502, "{step:?}");
            assert_eq!(up.requests().len(), requests, "{step:?} {idempotent}");
            let line = logged(&gateway, "/p").await;
            assert_eq!(line["attempts"], requests);
            let noted = line["notes"].as_str().unwrap_or_default();
            assert_eq!(noted.contains("may have run"), !idempotent, "{line}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_leaves_http_is_not_tried_again_once_it_was_asked_for() {
    let upgrade = "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let policy = ", retry: {on: [connect_failure, closed, 5xx], idempotent: true, backoff: 1ms}";
    let up = scripted(&[Closes]).await;
    let gateway_ = gateway(&[&up.address], policy).await;
    assert_eq!(request(gateway_.public(), upgrade).await.status, 502);
    assert_eq!(up.requests().len(), 1);
    // Where nobody was asked yet, it is.
    let switches = "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let up = Upstream::says_and_closes(switches).await;
    let absent = Upstream::absent();
    let gateway = gateway(&[&absent, &up.address], policy).await;
    for _ in 0..2 {
        assert_eq!(request(gateway.public(), upgrade).await.status, 101);
    }
}

#[tokio::test]
async fn a_body_is_sent_again_from_its_first_byte() {
    let up = scripted(&[Says(BUSY), Closes, Says(OK)]).await;
    let gateway = gateway(&[&up.address], ", retry: {on: [closed, 503], backoff: 1ms}").await;
    let whole = "0123456789".repeat(6_000);
    let answer = request(gateway.public(), with_body("PUT", "/1", &whole)).await;
    assert_eq!(answer.status, 200);
    let chunked = "PUT /2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
         3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 5\r\n\r\n";
    let up_again = scripted(&[Says(BUSY), Says(OK)]).await;
    let gateway_again =
        self::gateway(&[&up_again.address], ", retry: {on: [503], backoff: 1ms}").await;
    assert_eq!(request(gateway_again.public(), chunked).await.status, 200);
    let seen = |up: &Upstream, count: usize, body: &[u8]| {
        let requests = up.requests();
        assert_eq!(requests.len(), count);
        for request in &requests {
            assert!(request.body == body, "{} bytes", request.body.len());
        }
        requests
    };
    for request in seen(&up, 3, whole.as_bytes()) {
        assert_eq!(request.header("content-length"), Some("60000"));
    }
    for request in seen(&up_again, 2, b"abcde") {
        assert_eq!(request.trailers, [("x-sum".to_owned(), "5".to_owned())]);
    }
}

#[tokio::test]
async fn a_body_over_the_buffer_passes_once_and_the_answer_with_it() {
    let up = scripted(&[Says(BUSY)]).await;
    let policy = ", retry: {on: [503], backoff: 1ms, buffer: 1KiB}";
    let gateway = gateway(&[&up.address], policy).await;
    let large = "x".repeat(100_000);
    let answer = request(gateway.public(), with_body("PUT", "/large", &large)).await;
    assert_eq!((answer.status, answer.text()), (503, "busy".to_owned()));
    let requests = up.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].body.len(), large.len());
    let line = logged(&gateway, "/large").await;
    let noted = line["notes"].as_str().unwrap_or_default();
    assert!(noted.contains("retry.buffer"), "{line}");
}

#[tokio::test]
async fn an_upload_that_is_still_coming_goes_on_at_the_next_endpoint() {
    // Answers as soon as the head is there.
    let hasty = Upstream::start(|mut peer| async move {
        if peer.request_head().await.is_some() {
            peer.send("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await;
        }
    })
    .await;
    let good = scripted(&[Says(OK)]).await;
    let policy = ", retry: {on: [503], backoff: 1ms}";
    let gateway = gateway(&[&hasty.address, &good.address], policy).await;
    for _ in 0..2 {
        let mut conn = Conn::connect(gateway.public()).await;
        conn.send("PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nfirst")
            .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        conn.send("after").await;
        assert_eq!(conn.answer().await.status, 200);
    }
    assert!(hasty.connections() > 0);
    let bodies: Vec<_> = good.requests().into_iter().map(|r| r.body).collect();
    assert_eq!(bodies, [b"firstafter", b"firstafter"]);
}

#[tokio::test]
async fn a_client_that_waits_for_an_invitation_is_invited_once() {
    let up = scripted(&[Says(BUSY), Says(OK)]).await;
    let gateway = gateway(&[&up.address], ", retry: {on: [503], backoff: 1ms}").await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("PUT / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        .await;
    let invitation = conn.head().await.expect("an invitation");
    assert!(invitation.start.contains("100"), "{invitation:?}");
    conn.send("hello").await;
    let answer = conn.answer().await;
    assert_eq!((answer.status, answer.interim.len()), (200, 0));
    let bodies: Vec<_> = up.requests().into_iter().map(|r| r.body).collect();
    assert_eq!(bodies, [b"hello", b"hello"]);
}

#[tokio::test]
async fn retry_after_is_waited_for_if_it_is_short_and_passed_on_if_not() {
    let soon = "HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
    let late = "HTTP/1.1 503 Busy\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n";
    let up = scripted(&[Says(soon), Says(OK), Says(late)]).await;
    let gateway = gateway(&[&up.address], ", retry: {on: [503], backoff: 1ms}").await;
    let begin = Instant::now();
    assert_eq!(gateway.get("/").await.status, 200);
    assert!(
        begin.elapsed() >= Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    let answer = gateway.get("/late").await;
    assert_eq!(answer.header("retry-after"), Some("60"));
    assert_eq!((answer.status, up.requests().len()), (503, 3));
    let line = logged(&gateway, "/late").await;
    assert_eq!(line["attempts"], 1);
    assert_eq!(line["flag"], Value::Null, "it is the upstream's own answer");
}

#[tokio::test]
async fn every_failed_attempt_ends_in_its_last_cause() {
    let up = scripted(&[Closes]).await;
    let gateway = gateway(&[&up.address], ", retry: {on: [closed], backoff: 1ms}").await;
    assert_eq!(gateway.get("/gone").await.status, 502);
    assert_eq!(up.requests().len(), 3);
    gateway.flagged("URX", 1).await;
    let line = logged(&gateway, "/gone").await;
    let detail = line["detail"].as_str().unwrap_or_default();
    assert!(detail.starts_with("none of 3 attempts succeeded"), "{line}");
    assert!(detail.contains(&up.address.to_string()), "{line}");
    retries(&gateway, "failed", 2).await;
    let failed = [("upstream", "up"), ("flag", "UC")];
    let name = "retort_upstream_requests_total";
    gateway.counts(name, &failed, 3.0).await;
}

#[tokio::test]
async fn the_last_answer_is_passed_on_as_it_is() {
    let up = scripted(&[Says(BUSY)]).await;
    let gateway = gateway(
        &[&up.address],
        ", retry: {attempts: 2, on: [503], backoff: 1ms}",
    )
    .await;
    let answer = gateway.get("/busy").await;
    assert_eq!((answer.status, answer.text()), (503, "busy".to_owned()));
    assert_eq!(up.requests().len(), 2);
    let line = logged(&gateway, "/busy").await;
    assert_eq!(line["flag"], "URX");
    assert_eq!(line["attempts"], 2);
}

#[tokio::test]
async fn a_retry_that_would_come_too_late_is_not_begun() {
    let up = scripted(&[Says(BUSY)]).await;
    let route = ", timeouts: {request: 1s}, retry: {attempts: 10, on: [503], backoff: 20s, max_backoff: 20s}";
    let gateway = gateway(&[&up.address], route).await;
    let begin = Instant::now();
    let answer = gateway.get("/").await;
    // Unless chance makes a wait short, which it does in one case of twenty.
    assert!(answer.status == 503 || answer.status == 504);
    assert!(
        begin.elapsed() < Duration::from_millis(1_900),
        "{:?}",
        begin.elapsed()
    );
    assert!(up.requests().len() < 10);
}

#[tokio::test]
async fn the_deadline_holds_for_all_attempts_together() {
    let up = scripted(&[Nothing]).await;
    let route = ", timeouts: {request: 500ms, attempt: 200ms}, retry: {attempts: 10, on: [timeout], backoff: 1ms}";
    let gateway = gateway(&[&up.address], route).await;
    let begin = Instant::now();
    assert_eq!(gateway.get("/slow").await.status, 504);
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    let line = logged(&gateway, "/slow").await;
    assert_eq!(line["flag"], "DT");
    assert_eq!(line["attempts"], 3);
    assert_eq!(line["endpoint"], up.address.to_string());
}

#[tokio::test]
async fn a_storm_stays_within_its_budget() {
    let up = scripted(&[Says(BUSY)]).await;
    let gateway = gateway(
        &[&up.address],
        ", retry: {attempts: 3, on: [503], backoff: 1ms}",
    )
    .await;
    let begin = Instant::now();
    let requests = 300;
    for _ in 0..requests {
        assert_eq!(gateway.get("/").await.status, 503);
    }
    let tens = usize::try_from(begin.elapsed().as_secs() / 10).expect("small") + 1;
    let attempts = up.requests().len();
    let allowed = requests * 12 / 10 + 30 * tens;
    assert!(
        attempts <= allowed,
        "{attempts} attempts, {allowed} allowed"
    );
    assert!(
        attempts >= requests + 30,
        "{attempts}: the minimum is there"
    );
    let all = [("code", "503")];
    let metrics = gateway
        .counts("retort_http_requests_total", &all, 300.0)
        .await;
    let of = |outcome| {
        let labels = [("upstream", "up"), ("outcome", outcome)];
        metrics.sum("retort_upstream_retries_total", &labels)
    };
    assert!(of("refused") > 100.0, "{}", of("refused"));
    assert!(of("succeeded") < 0.5);
}

#[tokio::test]
async fn parts_of_a_fan_out_go_elsewhere_too() {
    let (absent, up) = (Upstream::absent(), Upstream::echo("up").await);
    let gateway = Gateway::start(format!(
        "runtime: {{workers: 1}}
routes:
  - name: home
    match: {{path: /home}}
    handler: {{fan_out: {{parts: {{up: {{upstream: up, path: /part}}}}}}}}
upstreams:
  up: {{endpoints: [\"{absent}\", \"{}\"], balance: round_robin}}
",
        up.address
    ))
    .await;
    for _ in 0..4 {
        assert_eq!(gateway.get("/home").await.json()["up"]["target"], "/part");
    }
    assert_eq!(up.requests().len(), 4);
}

/// A gateway to a service over HTTP/2 that says no to its first requests, and the bodies it saw.
mod http2 {
    use bytes::Bytes;
    use http::{Request, Response};

    use super::*;
    use crate::harness::http2::{Http2, collect};

    /// Refuses so many streams, or answers so many with a head of gRPC, then says yes.
    async fn reluctant(times: usize, refusal: &'static [(&'static str, &'static str)]) -> Upstream {
        let seen = Arc::new(AtomicUsize::new(0));
        Upstream::http2(move |request, mut respond, peer| {
            let seen = Arc::clone(&seen);
            async move {
                let number = seen.fetch_add(1, Ordering::SeqCst);
                if number < times && refusal.is_empty() {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                    return;
                }
                let Ok(body) = collect(&mut request.into_body()).await else {
                    return;
                };
                peer.record(Received {
                    body,
                    ..Received::default()
                });
                let head = Response::builder().header("content-type", "application/grpc");
                let fields = if number < times {
                    refusal
                } else {
                    &[("grpc-status", "0")]
                };
                let head = fields.iter().fold(head, |head, (k, v)| head.header(*k, *v));
                let head = head.body(()).expect("a response");
                let _left = respond.send_response(head, true);
            }
        })
        .await
    }

    async fn call(gateway: &Gateway, path: &str) -> String {
        let request = Request::post(format!("http://test{path}"))
            .header("content-type", "application/grpc")
            .body(())
            .expect("a request");
        let client = Http2::connect(gateway.public()).await;
        let reply = client
            .send(request, Some(Bytes::from_static(b"\0\0\0\0\x01x")))
            .await;
        let headers = reply.expect("an answer").headers;
        headers["grpc-status"].to_str().expect("text").to_owned()
    }

    async fn gateway(up: &Upstream, retry: &str) -> Gateway {
        let route = format!(", retry: {{{retry}}}");
        gateway_to(&[&up.address], &route, ", protocol: http2").await
    }

    #[tokio::test]
    async fn a_refused_stream_is_tried_again_whatever_its_method() {
        let up = reluctant(2, &[]).await;
        let gateway = gateway(&up, "on: [refused_stream], backoff: 1ms").await;
        assert_eq!(call(&gateway, "/acme.Users/Get").await, "0");
        assert_eq!(logged(&gateway, "/acme.Users/Get").await["attempts"], 3);
        assert_eq!(up.requests()[0].body, b"\0\0\0\0\x01x");
    }

    #[tokio::test]
    async fn a_status_of_grpc_is_a_condition_for_what_may_be_repeated() {
        let unavailable: &[_] = &[("grpc-status", "14")];
        for (idempotent, status, requests) in [(true, "0", 3), (false, "14", 1)] {
            let up = reluctant(2, unavailable).await;
            let retry = format!("on: [unavailable], backoff: 1ms, idempotent: {idempotent}");
            let gateway = gateway(&up, &retry).await;
            assert_eq!(call(&gateway, "/acme.Users/Get").await, status);
            assert_eq!(up.requests().len(), requests);
        }
    }

    #[tokio::test]
    async fn pushback_is_obeyed() {
        let retry = "on: [unavailable], backoff: 1ms, idempotent: true";
        let never: &[_] = &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "-1")];
        let up = reluctant(1, never).await;
        let gateway_ = gateway(&up, retry).await;
        assert_eq!(call(&gateway_, "/acme.Users/Get").await, "14");
        assert_eq!(up.requests().len(), 1);
        let later: &[_] = &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "300")];
        let up = reluctant(1, later).await;
        let gateway = gateway(&up, retry).await;
        let begin = Instant::now();
        assert_eq!(call(&gateway, "/acme.Users/Get").await, "0");
        assert!(begin.elapsed() >= Duration::from_millis(300));
    }
}
