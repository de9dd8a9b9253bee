//! What the gateway answers in its own process.

use std::fs;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{Conn, Gateway, Upstream, request};

#[tokio::test]
async fn respond_fills_its_template_from_the_request() {
    let gateway = Gateway::start(
        r#"
routes:
  - name: hello
    match: {path: "/hello/{name}"}
    handler:
      respond:
        status: 201
        headers: {content-type: text/plain, x-made-by: retort}
        body: "{{ path.name }} {{ query.q }} {{ headers['x-a'] }} {{ method }}"
  - name: json
    match: {path: "/json/{name}"}
    handler: {respond: {headers: {content-type: application/json}, body: "{{ {'name': path.name} | tojson }}"}}
"#,
    )
    .await;
    let answer = request(
        gateway.public(),
        "GET /hello/J%C3%BCrgen?q=1%202 HTTP/1.1\r\nhost: x\r\nx-a: yes\r\n\r\n",
    )
    .await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.text(), "Jürgen 1 2 yes GET");
    assert_eq!(answer.header("x-made-by"), Some("retort"));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    let answer = gateway.get("/json/%22quoted%22").await;
    assert_eq!(answer.json(), json!({"name": "\"quoted\""}));
}

#[tokio::test]
async fn a_delayed_answer_does_not_hold_up_others() {
    let gateway = Gateway::start(
        "
runtime: {workers: 1}
routes:
  - {name: slow, match: {path: /slow}, handler: {respond: {body: slow, delay: 500ms}}}
",
    )
    .await;
    let begin = Instant::now();
    let answers = join_all((0..40).map(|_| gateway.get("/slow"))).await;
    assert!(answers.iter().all(|answer| answer.text() == "slow"));
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(500), "{took:?}");
    assert!(
        took < Duration::from_secs(8),
        "one after another would take 20 s: {took:?}"
    );
}

#[tokio::test]
async fn echo_says_what_arrived() {
    let gateway =
        Gateway::start("routes:\n  - {name: echo, match: {path_prefix: /}, handler: echo}\n").await;
    let answer = request(
        gateway.public(),
        "POST /a/b?c=d HTTP/1.1\r\nhost: x\r\nx-a: 1\r\ncontent-length: 4\r\n\r\nbody",
    )
    .await;
    assert_eq!(answer.status, 200);
    let text = answer.text();
    for part in ["POST", "/a/b", "c=d", "x-a", "body"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[tokio::test]
async fn files_are_served_from_their_root_and_from_nowhere_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path().join("public");
    fs::create_dir_all(root.join("sub")).expect("a folder");
    fs::write(root.join("index.html"), "<p>index</p>").expect("a file");
    fs::write(root.join("sub/ten.txt"), "0123456789").expect("a file");
    fs::write(root.join("big.js"), "long ".repeat(100)).expect("a file");
    fs::write(root.join("big.js.gz"), "packed").expect("a file");
    fs::write(dir.path().join("secret"), "secret").expect("a file");
    std::os::unix::fs::symlink(dir.path().join("secret"), root.join("link")).expect("a link");
    let gateway = Gateway::start(format!(
        "routes:\n  - {{name: files, match: {{path_prefix: /}}, handler: {{files: {{root: \"{}\", precompressed: [gzip]}}}}}}\n",
        root.display()
    ))
    .await;

    let answer = gateway.get("/").await;
    assert_eq!(
        (answer.status, answer.text()),
        (200, "<p>index</p>".to_owned())
    );
    assert_eq!(answer.header("content-type"), Some("text/html"));

    let range = "GET /sub/ten.txt HTTP/1.1\r\nhost: x\r\nrange: bytes=2-4\r\n\r\n";
    let answer = request(gateway.public(), range).await;
    assert_eq!((answer.status, answer.text()), (206, "234".to_owned()));
    assert_eq!(answer.header("content-range"), Some("bytes 2-4/10"));

    let whole = gateway.get("/sub/ten.txt").await;
    let tag = whole.header("etag").expect("an entity tag").to_owned();
    let again = format!("GET /sub/ten.txt HTTP/1.1\r\nhost: x\r\nif-none-match: {tag}\r\n\r\n");
    assert_eq!(request(gateway.public(), again).await.status, 304);

    let packed = "GET /big.js HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\n\r\n";
    let answer = request(gateway.public(), packed).await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(answer.text(), "packed");

    for path in [
        "/../secret",
        "/sub/../../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/link",
        "/none",
    ] {
        let answer = gateway.get(path).await;
        assert!(
            matches!(answer.status, 400 | 403 | 404),
            "{path}: {}",
            answer.status
        );
        assert!(!answer.text().contains("secret"), "{path}");
    }
}

#[tokio::test]
async fn redirects_go_where_they_are_told() {
    let gateway = Gateway::start(
        "
routes:
  - {name: old, match: {path: /old}, handler: {redirect: {path: /new, status: 308}}}
  - {name: secure, match: {path_prefix: /}, handler: {redirect: {scheme: https, host: safe.test, status: 301}}}
",
    )
    .await;
    let answer = gateway.get("/old?x=1").await;
    assert_eq!(answer.status, 308);
    let location = answer.header("location").expect("a location");
    assert!(location.ends_with("/new?x=1"), "{location}");
    let answer = gateway.get("/a?x=1").await;
    assert_eq!(answer.status, 301);
    assert_eq!(answer.header("location"), Some("https://safe.test/a?x=1"));
}

/// An upstream that answers with JSON after a while.
fn fan_out(parts: &str, upstreams: &[&Upstream]) -> String {
    let lines: String = upstreams
        .iter()
        .enumerate()
        .map(|(number, upstream)| upstream.yaml(&format!("u{number}")))
        .collect();
    format!(
        "routes:\n  - {{name: all, match: {{path: /all}}, handler: all}}\n\
         handlers:\n  all:\n    fan_out:\n      parts:\n{parts}upstreams:\n{lines}"
    )
}

#[tokio::test]
async fn fan_out_asks_all_at_once_and_merges_their_json() {
    let (a, b) = (Upstream::echo("a").await, Upstream::echo("b").await);
    let gateway = Gateway::start(fan_out(
        "        one: {upstream: u0, path: \"/x?delay=500ms\"}\n        two: {upstream: u1, path: \"/y?delay=500ms\"}\n",
        &[&a, &b],
    ))
    .await;
    let begin = Instant::now();
    let answer = gateway.get("/all").await;
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!(json["one"]["upstream"], "a");
    assert_eq!(json["two"]["upstream"], "b");
    assert_eq!(json["two"]["target"], "/y?delay=500ms");
    assert!(
        begin.elapsed() < Duration::from_millis(950),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn an_optional_part_may_fail_and_a_required_one_may_not() {
    let good = Upstream::echo("good").await;
    let broken = Upstream::says_and_closes("garbage\r\n\r\n").await;
    let gateway = Gateway::start(fan_out(
        "        one: {upstream: u0, path: /}\n        two: {upstream: u1, path: /, required: false}\n",
        &[&good, &broken],
    ))
    .await;
    let answer = gateway.get("/all").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["one"]["upstream"], "good");
    assert!(answer.json()["two"].is_null());

    let gateway = Gateway::start(fan_out(
        "        one: {upstream: u0, path: /}\n        two: {upstream: u1, path: /}\n",
        &[&good, &broken],
    ))
    .await;
    assert_eq!(gateway.get("/all").await.status, 502);
}

#[tokio::test]
async fn a_part_that_is_late_is_left_out_or_fails_the_whole() {
    let slow = Upstream::echo("slow").await;
    let gateway = Gateway::start(fan_out(
        "        one: {upstream: u0, path: \"/?delay=20s\", timeout: 100ms}\n",
        &[&slow],
    ))
    .await;
    let begin = Instant::now();
    assert_eq!(gateway.get("/all").await.status, 504);
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn fan_out_is_cancelled_when_the_client_leaves() {
    let silent =
        Upstream::start(|mut peer| async move { while peer.request().await.is_some() {} }).await;
    let gateway = Gateway::start(fan_out(
        "        one: {upstream: u0, path: /}\n",
        &[&silent],
    ))
    .await;
    let mut conn = Conn::connect(gateway.public()).await;
    conn.send("GET /all HTTP/1.1\r\nhost: x\r\n\r\n").await;
    silent.received(1).await;
    drop(conn);
    silent.disconnected(1).await;
}
