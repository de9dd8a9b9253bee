//! A real Flask app under `gunicorn -k gevent`, over TCP and over a Unix socket.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::harness::program::{Program, venv};
use crate::harness::{Conn, Gateway, eventually, project, request, soon};

/// The app and the gateway before it: `/` over TCP, `/unix` over the socket.
struct App {
    gateway: Gateway,
    _gunicorn: Program,
    _dir: tempfile::TempDir,
}

async fn app() -> App {
    let dir = tempfile::tempdir().expect("a folder");
    let socket = dir.path().join("flask.sock");
    let mut command = venv("gunicorn");
    command
        .args(["-k", "gevent", "--no-control-socket", "--chdir"])
        .arg(project("examples/flask-gevent"))
        .args(["--bind", "127.0.0.1:0"])
        .args(["--bind", &format!("unix:{}", socket.display())])
        .arg("app:app");
    let gunicorn = Program::start("gunicorn", command);
    // `Listening at: http://127.0.0.1:43123,unix:/…`
    let line = soon(
        "gunicorn",
        gunicorn.errors.find_text("Listening at: http://"),
    )
    .await;
    let line = line.expect("an address");
    let address = line
        .split("http://")
        .nth(1)
        .and_then(|rest| rest.split(',').next());
    let yaml = std::fs::read_to_string(project("config/flask-gevent.yaml"))
        .expect("the example")
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("127.0.0.1:15020", "127.0.0.1:0")
        .replace("127.0.0.1:8000", address.expect("an address"));
    let socket = socket.display().to_string();
    let gateway = Gateway::start_with(&yaml, &[("FLASK_SOCKET", &socket)]).await;
    eventually(
        "the app to answer",
        || gateway.get("/"),
        |answer| answer.status == 200,
    )
    .await;
    App {
        gateway,
        _gunicorn: gunicorn,
        _dir: dir,
    }
}

#[tokio::test]
async fn the_app_answers_over_tcp_and_over_its_socket() {
    let app = app().await;
    let answer = app.gateway.get("/").await;
    assert_eq!(answer.json()["message"], "hello from flask");
    assert!(answer.header("x-request-id").is_some());

    let answer = app.gateway.get("/unix/headers").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let headers = answer.json()["headers"].to_string().to_lowercase();
    assert!(headers.contains("x-request-id"), "{headers}");
    assert!(
        headers.contains(r#"["x-forwarded-for","127.0.0.1"]"#),
        "{headers}"
    );

    assert_eq!(app.gateway.get("/status/418").await.status, 418);
    assert_eq!(
        app.gateway.get("/fast").await.json()["message"],
        "hello from the gateway"
    );
}

#[tokio::test]
async fn slow_answers_do_not_queue_behind_each_other() {
    let app = app().await;
    let begin = Instant::now();
    let answers = join_all((0..20).map(|number| {
        let unix = if number % 2 == 0 { "/unix" } else { "" };
        app.gateway.get(&format!("{unix}/slow?seconds=0.5"))
    }))
    .await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert!(
        begin.elapsed() < Duration::from_secs(6),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn a_stream_arrives_line_by_line() {
    let app = app().await;
    for target in [
        "/stream?lines=4&pause=0.2",
        "/unix/stream?lines=4&pause=0.2",
    ] {
        let mut conn = Conn::connect(app.gateway.public()).await;
        conn.send(format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await;
        assert!(conn.head().await.expect("a head").start.contains("200"));
        let mut came = Vec::new();
        let mut body = Vec::new();
        while let Some(chunk) = conn.chunk().await.filter(|chunk| !chunk.is_empty()) {
            body.extend(chunk);
            came.push(Instant::now());
        }
        assert_eq!(
            String::from_utf8_lossy(&body),
            "line 0\nline 1\nline 2\nline 3\n"
        );
        let spread = came[came.len() - 1] - came[0];
        assert!(
            spread > Duration::from_millis(350),
            "all at once: {spread:?}"
        );
    }
}

#[tokio::test]
async fn uploads_are_streamed_whole_with_and_without_a_length() {
    let app = app().await;
    let body: Vec<u8> = (0..8_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let head = format!(
        "POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let sized = request(app.gateway.public(), [head.as_bytes(), &body].concat()).await;
    assert_eq!(sized.json()["length"], body.len());

    let mut chunked =
        b"POST /unix/upload HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(70_000) {
        chunked.extend(crate::harness::http1::chunk(piece));
    }
    chunked.extend(b"0\r\n\r\n");
    let other = request(app.gateway.public(), chunked).await;
    assert_eq!(other.json(), sized.json(), "the same length and digest");
}

#[tokio::test]
async fn the_limits_stand_before_the_app() {
    let app = app().await;
    let head = "POST /headers HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000\r\n\r\n";
    assert_eq!(request(app.gateway.public(), head).await.status, 413);
}
