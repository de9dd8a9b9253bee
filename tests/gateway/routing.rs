//! Which route wins, and what happens when none does.

use crate::harness::{Gateway, request};

/// A route that answers with its own name.
fn route(name: &str, rest: &str) -> String {
    format!("  - {{name: {name}, {rest}, handler: {{respond: {{body: {name}}}}}}}\n")
}

/// A gateway whose routes answer with their names.
async fn gateway(routes: &[(&str, &str)]) -> Gateway {
    let routes: String = routes
        .iter()
        .map(|(name, rest)| route(name, rest))
        .collect();
    Gateway::start(format!("routes:\n{routes}")).await
}

/// Sends each request and compares status and body.
async fn check(gateway: &Gateway, rows: &[(&str, &str)]) {
    for (head, expected) in rows {
        let head = head.replace('\n', "\r\n");
        let host = if head.contains("host:") {
            ""
        } else {
            "\r\nhost: test"
        };
        let answer = request(gateway.public(), format!("{head}{host}\r\n\r\n")).await;
        let found = match answer.status {
            200 => answer.text(),
            status => status.to_string(),
        };
        assert_eq!(&found, expected, "{head}");
    }
}

#[tokio::test]
async fn the_more_exact_match_wins_whatever_the_order_in_the_file() {
    let gateway = gateway(&[
        ("any", "match: {path_prefix: /}"),
        ("regex", "match: {path_regex: \"/a/[0-9]+\"}"),
        ("prefix", "match: {path_prefix: /a}"),
        ("longer", "match: {path_prefix: /a/b}"),
        ("template", "match: {path: \"/a/{x}/c\"}"),
        ("literal", "match: {path: /a/b/c}"),
        ("host", "match: {host: api.test, path_prefix: /}"),
        ("wild", "match: {host: \"*.test\", path: /a/b/c}"),
        ("method", "match: {path_prefix: /a, method: PUT}"),
        ("header", "match: {path_prefix: /a, headers: {x-v: \"1\"}}"),
        ("query", "match: {path_prefix: /a, query: {v: \"2\"}}"),
        (
            "cookie",
            "match: {path_prefix: /a, cookies: {beta: {present: true}}}",
        ),
    ])
    .await;
    check(
        &gateway,
        &[
            ("GET / HTTP/1.1", "any"),
            ("GET /ab HTTP/1.1", "any"),
            ("GET /a HTTP/1.1", "prefix"),
            ("GET /a/ HTTP/1.1", "prefix"),
            ("GET /a/b HTTP/1.1", "longer"),
            ("GET /a/bc HTTP/1.1", "prefix"),
            ("GET /a/x/c HTTP/1.1", "template"),
            ("GET /a/b/c HTTP/1.1", "literal"),
            ("GET /a/b/c?x=1 HTTP/1.1", "literal"),
            ("GET /a/b/c HTTP/1.1\nhost: api.test", "host"),
            ("GET /a/b/c HTTP/1.1\nhost: API.TEST:80", "host"),
            ("GET /a/b/c HTTP/1.1\nhost: www.test", "wild"),
            ("GET /a/b HTTP/1.1\nhost: www.test", "longer"),
            ("PUT /a HTTP/1.1\ncontent-length: 0", "method"),
            ("GET /a HTTP/1.1\nx-v: 1", "header"),
            ("GET /a HTTP/1.1\nX-V: 2", "prefix"),
            ("GET /a?v=2 HTTP/1.1", "query"),
            ("GET /a?v=2 HTTP/1.1\nx-v: 1", "header"),
            ("GET /a HTTP/1.1\ncookie: a=1; beta=", "cookie"),
        ],
    )
    .await;
}

#[tokio::test]
async fn templates_take_only_what_their_converters_allow() {
    let gateway = gateway(&[
        ("int", "match: {path: \"/i/{id:int}\"}"),
        ("float", "match: {path: \"/f/{x:float}\"}"),
        ("uuid", "match: {path: \"/u/{id:uuid}\"}"),
        ("of", "match: {path: \"/o/{x:any(red|blue)}\"}"),
        ("rest", "match: {path: \"/r/{rest:path}\"}"),
    ])
    .await;
    check(
        &gateway,
        &[
            ("GET /i/42 HTTP/1.1", "int"),
            ("GET /i/x HTTP/1.1", "404"),
            ("GET /i/ HTTP/1.1", "404"),
            ("GET /f/1.5 HTTP/1.1", "float"),
            (
                "GET /u/0190b6a0-7c3e-7c3e-8c3e-0190b6a07c3e HTTP/1.1",
                "uuid",
            ),
            ("GET /u/zz HTTP/1.1", "404"),
            ("GET /o/blue HTTP/1.1", "of"),
            ("GET /o/green HTTP/1.1", "404"),
            ("GET /r/a/b/c HTTP/1.1", "rest"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_wrong_method_is_405_with_the_allowed_ones_and_head_is_served_by_get() {
    let gateway = gateway(&[
        ("read", "match: {path: /a, method: GET}"),
        ("write", "match: {path: /a, method: [POST, PUT]}"),
    ])
    .await;
    let answer = request(gateway.public(), "DELETE /a HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(answer.status, 405);
    for method in ["GET", "HEAD", "POST", "PUT"] {
        assert!(answer.head.lists("allow", method), "{:?}", answer.head);
    }
    let answer = request(gateway.public(), "HEAD /a HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-length"),
        Some("4"),
        "as GET would say"
    );
    gateway.flagged("MNA", 1).await;
}

#[tokio::test]
async fn no_route_is_404_with_its_flag() {
    let gateway = gateway(&[("only", "match: {path: /only}")]).await;
    let answer = gateway.get("/other").await;
    assert_eq!(answer.status, 404);
    assert!(answer.text().starts_with("404 "), "{:?}", answer.text());
    gateway.flagged("NR", 1).await;
}

#[tokio::test]
async fn a_route_may_belong_to_some_listeners_only() {
    let gateway = Gateway::start(format!(
        "listeners:\n  - {{name: public, address: \"127.0.0.1:0\"}}\n  - {{name: inner, address: \"127.0.0.1:0\"}}\n\
         routes:\n{}{}",
        route("everywhere", "match: {path: /a}"),
        route("inside", "listeners: [inner], match: {path: /b}"),
    ))
    .await;
    assert_eq!(gateway.get("/a").await.text(), "everywhere");
    assert_eq!(gateway.get("/b").await.status, 404);
    let inner = gateway.address("inner");
    assert_eq!(crate::harness::get(inner, "/a").await.text(), "everywhere");
    assert_eq!(crate::harness::get(inner, "/b").await.text(), "inside");
}

#[tokio::test]
async fn paths_are_matched_in_their_one_normal_form() {
    let gateway = gateway(&[
        ("secret", "match: {path_prefix: /admin}"),
        ("any", "match: {path_prefix: /}"),
    ])
    .await;
    check(
        &gateway,
        &[
            ("GET /x/../admin HTTP/1.1", "secret"),
            ("GET /./admin/. HTTP/1.1", "secret"),
            ("GET /%61dmin HTTP/1.1", "secret"),
            ("GET /x/%2e%2e/admin HTTP/1.1", "secret"),
            ("GET /%2Fadmin HTTP/1.1", "400"),
            ("GET /a%5Cb HTTP/1.1", "400"),
            ("GET /a%00b HTTP/1.1", "400"),
            ("GET /Admin HTTP/1.1", "any"),
            ("GET http://test/admin HTTP/1.1", "secret"),
        ],
    )
    .await;
    gateway.flagged("BR", 3).await;
}

#[tokio::test]
async fn weights_share_requests_and_zero_means_none() {
    let gateway = Gateway::start(
        "routes:
  - name: shared
    match: {path: /}
    backends:
      - {handler: {respond: {body: a}}, weight: 3}
      - {handler: {respond: {body: b}}, weight: 1}
      - {handler: {respond: {body: c}}, weight: 0}
",
    )
    .await;
    let mut conn = crate::harness::Conn::connect(gateway.public()).await;
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..400 {
        conn.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        *counts.entry(conn.answer().await.text()).or_insert(0) += 1;
    }
    // Six standard deviations of a fair draw: 8.7 each.
    assert!((248..=352).contains(&counts["a"]), "{counts:?}");
    assert!((48..=152).contains(&counts["b"]), "{counts:?}");
    assert_eq!(counts.get("c"), None);
}
