//! Steps before and after the backend: in order down, in reverse up, whoever answers.

use crate::harness::{Gateway, Upstream, request};

#[tokio::test]
async fn listener_steps_enclose_route_steps_and_those_of_the_backend() {
    let upstream = Upstream::echo("up").await;
    let gateway = Gateway::start(format!(
        "
listeners:
  - {{name: public, address: \"127.0.0.1:0\", middlewares: [outer]}}
routes:
  - name: up
    match: {{path_prefix: /}}
    middlewares: [inner]
    backends:
      - {{upstream: up, middlewares: [{{set_headers: {{request: {{add: {{x-way: backend}}}}, response: {{add: {{x-back: backend}}}}}}}}]}}
middlewares:
  outer: {{set_headers: {{request: {{add: {{x-way: listener}}}}, response: {{add: {{x-back: listener}}}}}}}}
  inner:
    - {{set_headers: {{request: {{add: {{x-way: route-1}}}}, response: {{add: {{x-back: route-1}}}}}}}}
    - {{set_headers: {{request: {{add: {{x-way: route-2}}}}, response: {{add: {{x-back: route-2}}}}}}}}
upstreams:
{}",
        upstream.yaml("up")
    ))
    .await;
    let answer = gateway.get("/").await;
    let seen = &upstream.requests()[0];
    assert_eq!(
        seen.head.all("x-way"),
        ["listener", "route-1", "route-2", "backend"]
    );
    assert_eq!(
        answer.head.all("x-back"),
        ["backend", "route-2", "route-1", "listener"]
    );
}

#[tokio::test]
async fn a_request_id_is_made_or_kept_and_seen_by_everyone() {
    let upstream = Upstream::echo("up").await;
    let gateway = Gateway::start(format!(
        "
routes:
  - {{name: kept, match: {{path: /kept}}, middlewares: [request_id], upstream: up}}
  - {{name: new, match: {{path: /new}}, middlewares: [{{request_id: {{trust: false}}}}], upstream: up}}
upstreams:
{}",
        upstream.yaml("up")
    ))
    .await;
    let ask = |path: &str, id: &str| {
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nx-request-id: {id}\r\nconnection: close\r\n\r\n"
        );
        request(gateway.public(), head)
    };
    assert_eq!(
        ask("/kept", "mine").await.header("x-request-id"),
        Some("mine")
    );
    gateway.prints("\"mine\"").await;
    let made = ask("/new", "theirs").await;
    let id = made.header("x-request-id").expect("an id").to_owned();
    assert_ne!(id, "theirs");
    let seen: Vec<_> = upstream
        .requests()
        .iter()
        .map(|request| request.header("x-request-id").map(str::to_owned))
        .collect();
    assert_eq!(seen, [Some("mine".to_owned()), Some(id.clone())]);
    let other = gateway.get("/new").await;
    assert_ne!(other.header("x-request-id"), Some(id.as_str()));
}

#[tokio::test]
async fn error_pages_dress_our_errors_but_not_those_of_grpc_or_of_backends() {
    let absent = Upstream::absent();
    let upstream = Upstream::says("HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy").await;
    let gateway = Gateway::start(format!(
        "
listeners:
  - {{name: public, address: \"127.0.0.1:0\", middlewares: [pages]}}
routes:
  - {{name: up, match: {{path: /up}}, upstream: up}}
  - {{name: absent, match: {{path: /absent}}, upstream: absent}}
middlewares:
  pages:
    error_pages:
      pages:
        - {{status: [404, 5xx], body: \"<b>{{{{ status }}}} {{{{ flag }}}}</b>\"}}
        - {{status: 400-599, body: '{{\"error\": {{{{ reason | tojson }}}}}}', content_type: application/json}}
upstreams:
  absent: {{endpoints: [\"{}\"]}}
{}",
        absent,
        upstream.yaml("up")
    ))
    .await;
    let answer = gateway.get("/missing").await;
    assert_eq!(
        (answer.status, answer.text()),
        (404, "<b>404 NR</b>".to_owned())
    );
    assert_eq!(
        answer.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let absent = gateway.get("/absent").await;
    assert!(absent.text().contains("UF"), "{}", absent.text());
    let json =
        "GET /missing HTTP/1.1\r\nhost: x\r\naccept: application/json\r\nconnection: close\r\n\r\n";
    assert_eq!(
        request(gateway.public(), json).await.json()["error"],
        "Not Found"
    );
    assert_eq!(
        gateway.get("/up").await.text(),
        "busy",
        "what a backend says is its own"
    );
}

#[tokio::test]
async fn what_answers_early_still_passes_the_steps_before_it() {
    let gateway = Gateway::start(
        "
listeners:
  - {name: public, address: \"127.0.0.1:0\", middlewares: [mark]}
routes:
  - {name: l, match: {path: /l}, middlewares: [{rate_limit: {requests: 1, per: 1h}}, after], handler: {respond: {body: ok}}}
middlewares:
  mark: {set_headers: {response: {set: {x-mark: \"1\"}}}}
  after: {set_headers: {response: {set: {x-after: \"1\"}}}}
",
    )
    .await;
    let fine = gateway.get("/l").await;
    assert_eq!(
        (fine.header("x-mark"), fine.header("x-after")),
        (Some("1"), Some("1"))
    );
    let refused = gateway.get("/l").await;
    assert_eq!(refused.status, 429);
    assert_eq!(
        (refused.header("x-mark"), refused.header("x-after")),
        (Some("1"), None)
    );
    assert_eq!(
        gateway.get("/none").await.header("x-mark"),
        Some("1"),
        "also where no route is"
    );
}

#[tokio::test]
async fn rewrites_change_what_the_backend_sees_and_not_what_was_matched() {
    let upstream = Upstream::echo("up").await;
    let gateway = Gateway::start(format!(
        "
routes:
  - {{name: strip, match: {{path_prefix: /api}}, middlewares: [{{rewrite: {{strip_prefix: /api}}}}], upstream: up}}
  - {{name: whole, match: {{path: \"/users/{{id:int}}\"}}, middlewares: [{{rewrite: {{path: \"/v2/{{id}}/x\", host: inner.test}}}}], upstream: up}}
  - {{name: regex, match: {{path_prefix: /shop}}, middlewares: [{{rewrite: {{regex: {{pattern: \"^/shop/([0-9]+)$\", replace: \"/p/{{1}}\"}}}}}}], upstream: up}}
upstreams:
{}",
        upstream.yaml("up")
    ))
    .await;
    for (target, expected, host) in [
        ("/api/a?b=c", "/a?b=c", "test"),
        ("/api", "/", "test"),
        ("/users/7?q=1", "/v2/7/x?q=1", "inner.test"),
        ("/shop/12", "/p/12", "test"),
        ("/shop/x", "/shop/x", "test"),
    ] {
        let seen = gateway.get(target).await.json();
        assert_eq!(seen["target"], expected, "{target}");
        assert!(
            seen["headers"]
                .to_string()
                .contains(&format!(r#"["host","{host}"]"#)),
            "{seen}"
        );
    }
}

#[tokio::test]
async fn a_preflight_is_answered_by_the_route_that_it_asks_for() {
    let gateway = Gateway::start(
        "
routes:
  - name: get-only
    match: {path: /shop, method: [GET]}
    middlewares: [{cors: {origins: [\"https://shop.example\"], methods: [GET]}}]
    handler: {respond: {body: ok}}
  - name: plain
    match: {path: /plain, method: [GET]}
    handler: {respond: {body: ok}}
",
    )
    .await;
    let preflight = |path: &str, more: &str| {
        let head = format!(
            "OPTIONS {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: https://shop.example\r\n{more}\r\n"
        );
        request(gateway.public(), head)
    };
    let asked = "access-control-request-method: GET\r\n";
    let answer = preflight("/shop", asked).await;
    assert_eq!(answer.status, 204);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://shop.example")
    );
    // Without the question it is no preflight; without `cors` nobody answers one.
    for (path, more) in [("/shop", ""), ("/plain", asked)] {
        let answer = preflight(path, more).await;
        assert_eq!(answer.status, 405, "{path} {more}");
        assert!(
            answer
                .header("allow")
                .is_some_and(|allow| allow.contains("GET"))
        );
    }
}

#[tokio::test]
async fn a_dry_run_refuses_nobody_and_says_whom_it_would() {
    let gateway = Gateway::start(
        "
telemetry: {access_log: {format: json, output: stdout}}
routes:
  - name: limited
    match: {path: /}
    middlewares: [{rate_limit: {requests: 1, per: 1h, dry_run: true}}]
    handler: {respond: {body: ok}}
",
    )
    .await;
    for _ in 0..2 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    gateway.prints("\"notes\":\"").await;
}
