//! A new configuration comes in one step, a bad one changes nothing, and nobody who is connected notices.

use std::fs;
use std::os::unix::fs::symlink;

use tokio_tungstenite::tungstenite::Message;

use crate::harness::gateway::complete;
use crate::harness::websocket::{self, WebSocket};
use crate::harness::{Conn, Gateway, Upstream, eventually, get, request};

fn answering(body: &str) -> String {
    format!(
        "routes:\n  - {{name: a, match: {{path_prefix: /}}, handler: {{respond: {{body: {body}}}}}}}\n"
    )
}

#[tokio::test]
async fn a_changed_file_is_taken_by_itself() {
    let gateway = Gateway::start(answering("one")).await;
    assert_eq!(gateway.get("/").await.text(), "one");
    let metrics = gateway.reload(&answering("two")).await;
    assert_eq!(gateway.get("/").await.text(), "two");
    assert!((metrics.sum("retort_config_last_reload_successful", &[]) - 1.0).abs() < 0.5);
    assert!(metrics.sum("retort_config_revision", &[]) > 1.5);
}

#[tokio::test]
async fn hup_reloads_without_watching() {
    let gateway = Gateway::start(answering("one")).await;
    gateway.write(&answering("two"));
    gateway.signal("HUP");
    eventually(
        "the new answer",
        || async { gateway.get("/").await.text() },
        |text| text == "two",
    )
    .await;
}

#[tokio::test]
async fn a_bad_configuration_changes_nothing_and_shows() {
    let gateway = Gateway::start(answering("one")).await;
    for bad in [
        "routes: [",
        "routes:\n  - {name: a, match: {path: /}, upstream: nowhere}\n",
    ] {
        let metrics = gateway.reload(bad).await;
        assert!(
            metrics.sum("retort_config_last_reload_successful", &[]) < 0.5,
            "{bad}"
        );
        assert_eq!(gateway.get("/").await.text(), "one");
        assert_eq!(
            gateway.telemetry("/readyz").await.status,
            200,
            "still serving the last good one"
        );
    }
    gateway.logs("nowhere").await;
    let metrics = gateway.reload(&answering("two")).await;
    assert!(metrics.sum("retort_config_last_reload_successful", &[]) > 0.5);
    assert_eq!(gateway.get("/").await.text(), "two");
}

#[tokio::test]
async fn an_empty_file_closes_nothing() {
    // What an editor leaves for a moment that truncates the file before it writes.
    let gateway = Gateway::start(answering("one")).await;
    let metrics = gateway.reload_as_it_is("").await;
    assert!(metrics.sum("retort_config_last_reload_successful", &[]) < 0.5);
    assert_eq!(gateway.get("/").await.text(), "one");
}

#[tokio::test]
async fn a_config_map_swap_of_the_data_link_is_seen() {
    let dir = tempfile::tempdir().expect("a folder");
    let version = |number: u32, body: &str| {
        let folder = dir.path().join(format!("..2026_{number}"));
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("retort.yaml"), complete(&answering(body))).expect("a file");
        let link = dir.path().join("..data_tmp");
        symlink(&folder, &link).expect("a link");
        fs::rename(&link, dir.path().join("..data")).expect("a swap");
    };
    version(1, "one");
    let file = dir.path().join("retort.yaml");
    symlink("..data/retort.yaml", &file).expect("a link");
    let path = dir.path().to_owned();
    let gateway = Gateway::start_in(dir, file).await;
    assert_eq!(gateway.get("/").await.text(), "one");
    let swap = |number: u32, body: &str| {
        let folder = path.join(format!("..2026_{number}"));
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("retort.yaml"), complete(&answering(body))).expect("a file");
        let link = path.join("..data_tmp");
        symlink(&folder, &link).expect("a link");
        fs::rename(&link, path.join("..data")).expect("a swap");
        fs::remove_dir_all(path.join(format!("..2026_{}", number - 1))).expect("the old one gone");
    };
    for (number, body) in [(2, "two"), (3, "three")] {
        swap(number, body);
        eventually(
            "the new answer",
            || async { gateway.get("/").await.text() },
            |text| text == body,
        )
        .await;
    }
}

#[tokio::test]
async fn connections_stay_and_requests_in_flight_end_as_they_began() {
    let upstream = Upstream::echo("up").await;
    let old = format!(
        "routes:\n  - {{name: up, match: {{path_prefix: /}}, upstream: up}}\nupstreams:\n{}",
        upstream.yaml("up")
    );
    let gateway = Gateway::start(&old).await;
    let mut kept = Conn::connect(gateway.public()).await;
    kept.send("GET /1 HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(kept.answer().await.json()["upstream"], "up");
    let public = gateway.public();
    let in_flight = tokio::spawn(async move { get(public, "/slow?delay=1500ms").await });
    upstream.received(2).await;
    gateway.reload(&answering("new")).await;
    kept.send("GET /2 HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(
        kept.answer().await.text(),
        "new",
        "the same connection, the new routes"
    );
    let answer = in_flight.await.expect("no panic");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["upstream"], "up");
}

#[tokio::test]
async fn a_websocket_outlives_reloads() {
    let upstream = websocket::echo().await;
    let gateway = Gateway::start(format!(
        "routes:\n  - {{name: ws, match: {{path_prefix: /}}, upstream: ws}}\nupstreams:\n{}",
        upstream.yaml("ws")
    ))
    .await;
    let mut socket = WebSocket::connect(gateway.public()).await;
    for body in ["one", "two"] {
        gateway.reload(&answering(body)).await;
        assert_eq!(gateway.get("/").await.text(), body);
        socket.echoes(Message::text(body)).await;
    }
}

#[tokio::test]
async fn no_request_is_lost_while_configurations_change() {
    let gateway = Gateway::start(answering("v0")).await;
    let public = gateway.public();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let stopped = stopped.clone();
            tokio::spawn(async move {
                let mut conn = Conn::connect(public).await;
                let mut count = 0;
                while !*stopped.borrow() {
                    conn.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
                    let answer = conn.answer().await;
                    assert_eq!(answer.status, 200);
                    assert!(answer.text().starts_with('v'));
                    count += 1;
                }
                count
            })
        })
        .collect();
    for version in 1..=10 {
        gateway.reload(&answering(&format!("v{version}"))).await;
    }
    stop.send(true).expect("clients");
    for client in clients {
        assert!(client.await.expect("no lost request") > 10);
    }
    assert_eq!(gateway.get("/").await.text(), "v10");
}

#[tokio::test]
async fn listeners_come_and_go_and_those_that_stay_keep_their_port() {
    let listeners = |names: &[&str]| {
        let items: String = names
            .iter()
            .map(|name| format!("  - {{name: {name}, address: \"127.0.0.1:0\"}}\n"))
            .collect();
        format!("listeners:\n{items}{}", answering("ok"))
    };
    let gateway = Gateway::start(listeners(&["public", "extra"])).await;
    let extra = gateway.address("extra");
    assert_eq!(get(extra, "/").await.text(), "ok");
    gateway.reload(&listeners(&["public"])).await;
    assert_eq!(gateway.get("/").await.text(), "ok");
    eventually(
        "the closed listener to refuse",
        || async { tokio::net::TcpStream::connect(extra).await.is_err() },
        |refused| *refused,
    )
    .await;
    gateway.reload(&listeners(&["public", "again"])).await;
    gateway.logs("name=\"again\"").await;
    assert_eq!(gateway.get("/").await.text(), "ok");
}

#[tokio::test]
async fn rate_limits_are_not_forgotten_by_an_unrelated_change() {
    let limited = |body: &str| {
        format!(
            "routes:
  - {{name: l, match: {{path: /l}}, middlewares: [limit], handler: {{respond: {{body: ok}}}}}}
  - {{name: o, match: {{path: /o}}, handler: {{respond: {{body: {body}}}}}}}
middlewares:
  limit: {{rate_limit: {{requests: 1, per: 1h}}}}
"
        )
    };
    let gateway = Gateway::start(limited("one")).await;
    assert_eq!(gateway.get("/l").await.status, 200);
    gateway.reload(&limited("two")).await;
    assert_eq!(gateway.get("/o").await.text(), "two");
    assert_eq!(gateway.get("/l").await.status, 429);
    let _again = request(gateway.public(), "GET /l HTTP/1.1\r\nhost: x\r\n\r\n").await;
}
