//! `retort diff`: what it prints, and that a reload does what it foretold.
//!
//! `BLESS=1 cargo test --test gateway diff` writes what is printed now; read it before you commit it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::gateway::complete;
use crate::harness::program::retort;
use crate::harness::websocket::{self, WebSocket};
use crate::harness::{Conn, Gateway, Upstream, eventually, project};

/// What the command prints for a folder of `tests/diff`, and its exit status.
fn printed(folder: &Path, more: &[&str]) -> String {
    let file = |name: &str| folder.join(name).display().to_string();
    let (old, new) = (file("old.yaml"), file("new.yaml"));
    let mut arguments = vec!["diff", &old, &new];
    arguments.extend(more);
    let output = retort(&arguments);
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        text.replace(&format!("{}/", folder.display()), "")
    };
    format!(
        "{}{}exit status {}\n",
        text(&output.stdout),
        text(&output.stderr),
        output.status.code().expect("an end of its own")
    )
}

#[test]
fn every_difference_is_printed_as_it_was_blessed() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    for entry in fs::read_dir(project("tests/diff")).expect("a folder") {
        let folder = entry.expect("an entry").path();
        for (name, more) in [("said.txt", ["--exit-code"]), ("said.json.txt", ["--json"])] {
            let said = printed(&folder, &more);
            let expected = folder.join(name);
            if bless {
                fs::write(&expected, &said).expect("written");
            } else if fs::read_to_string(&expected).unwrap_or_default() != said {
                wrong.push(format!("{}:\n{said}", expected.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "not as blessed:\n{}", wrong.join("\n"));
}

/// What is foretold of two configurations, completed as the gateway gets them.
fn foretold(old: &str, new: &str) -> Value {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str, yaml: &str| {
        let path = dir.path().join(name);
        fs::write(&path, complete(yaml)).expect("a file");
        path.display().to_string()
    };
    let (old, new) = (file("old.yaml", old), file("new.yaml", new));
    let output = retort(&["diff", "--json", &old, &new]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The item of a section with that name, or id.
fn of<'v>(foretold: &'v Value, section: &str, name: &str) -> &'v Value {
    let items = foretold[section].as_array().expect("a list");
    let mut items = items.iter();
    items
        .find(|item| item["name"] == name || item["id"] == name)
        .unwrap_or_else(|| panic!("{section} has no {name}: {foretold}"))
}

/// Applies a configuration, and checks that the log has the line that was foretold.
async fn apply(gateway: &Gateway, new: &str, foretold: &Value) {
    gateway.reload(new).await;
    let summary = foretold["summary"].as_str().expect("text");
    gateway.logs(&format!("changes={summary}")).await;
}

async fn ask(conn: &mut Conn, target: &str) -> u16 {
    let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n");
    conn.send(request).await;
    conn.answer().await.status
}

async fn is_refused(address: SocketAddr) {
    let connects = || async { tokio::net::TcpStream::connect(address).await.is_err() };
    eventually("a closed listener", connects, |refused| *refused).await;
}

#[tokio::test]
async fn listeners_keep_and_drain_connections_as_foretold() {
    let sockets = websocket::echo().await;
    let yaml = |listeners: &str| {
        format!(
            "listeners:\n{listeners}routes:\n\
             - {{name: ws, match: {{path: /chat}}, upstream: ws}}\n\
             - {{name: ok, match: {{path_prefix: /}}, handler: {{respond: {{body: ok}}}}}}\n\
             upstreams:\n{}",
            sockets.yaml("ws")
        )
    };
    let public = "  - {name: public, address: \"127.0.0.1:0\"";
    let old = yaml(&format!(
        "{public}}}\n  - {{name: extra, address: \"127.0.0.1:0\"}}\n"
    ));
    let new = yaml(&format!("{public}, limits: {{connections: 5}}}}\n"));
    let foretold = foretold(&old, &new);
    let kept = of(&foretold, "listeners", "public");
    assert_eq!(
        (&kept["socket"], &kept["connections"]),
        (&"kept".into(), &"kept".into())
    );
    assert_eq!(kept["limits_change"], true);
    let closed = of(&foretold, "listeners", "extra");
    assert_eq!(closed["connections"], "drained");

    let gateway = Gateway::start(&old).await;
    let extra = gateway.address("extra");
    let mut stays = Conn::connect(gateway.public()).await;
    let mut goes = Conn::connect(extra).await;
    let mut chat = WebSocket::connect(extra).await;
    assert_eq!(
        (ask(&mut stays, "/").await, ask(&mut goes, "/").await),
        (200, 200)
    );
    apply(&gateway, &new, &foretold).await;
    assert_eq!(ask(&mut stays, "/").await, 200);
    assert!(goes.is_closed().await, "idle connections end at once");
    is_refused(extra).await;
    chat.echoes(Message::text("still here")).await;
}

#[tokio::test]
async fn a_renamed_listener_keeps_its_socket_and_old_connections_their_rules() {
    let port = free_port();
    let yaml = |name: &str, body: &str| {
        format!(
            "listeners: [{{name: {name}, address: \"127.0.0.1:{port}\"}}]\n\
             routes: [{{name: a, match: {{path: /}}, handler: {{respond: {{body: {body}}}}}}}]\n"
        )
    };
    let (old, new) = (yaml("public", "one"), yaml("people", "two"));
    let foretold = foretold(&old, &new);
    assert_eq!(of(&foretold, "listeners", "people")["from"], "public");
    assert_eq!(of(&foretold, "listeners", "public")["to"], "people");
    let gateway = Gateway::start(&old).await;
    let mut open = Conn::connect(gateway.public()).await;
    assert_eq!(ask(&mut open, "/").await, 200);
    apply(&gateway, &new, &foretold).await;
    eventually(
        "the new rules",
        || async { gateway.get("/").await.text() },
        |text| text == "two",
    )
    .await;
    open.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(open.answer().await.text(), "one");
}

fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("an address").port()
}

#[tokio::test]
async fn pools_are_kept_and_drained_as_foretold() {
    let (steady, other) = (
        Upstream::echo("steady").await,
        Upstream::echo("other").await,
    );
    let yaml = |balance: &str| {
        format!(
            "routes:\n\
             - {{name: s, match: {{path_prefix: /steady}}, upstream: steady}}\n\
             - {{name: o, match: {{path_prefix: /other}}, upstream: other}}\n\
             runtime: {{workers: 1}}\n\
             upstreams:\n{}  other: {{endpoints: [\"{}\"], balance: {balance}}}\n",
            steady.yaml("steady"),
            other.address
        )
    };
    let (old, new) = (yaml("random"), yaml("round_robin"));
    let foretold = foretold(&old, &new);
    assert_eq!(of(&foretold, "upstreams", "steady")["connections"], "kept");
    let changed = of(&foretold, "upstreams", "other");
    assert_eq!(changed["connections"], "drained");
    assert_eq!(changed["keys"][0]["key"], "balance");
    assert_eq!(foretold["routes"], serde_json::json!([]));

    let gateway = Gateway::start(&old).await;
    let mut client = Conn::connect(gateway.public()).await;
    let both = async |client: &mut Conn| {
        assert_eq!(ask(client, "/steady").await, 200);
        assert_eq!(ask(client, "/other").await, 200);
    };
    both(&mut client).await;
    apply(&gateway, &new, &foretold).await;
    both(&mut client).await;
    assert_eq!(steady.connections(), 1, "the same connection");
    assert_eq!(other.connections(), 2, "a connection of its own");
    other.disconnected(1).await;
}

#[tokio::test]
async fn buckets_are_kept_and_reset_as_foretold() {
    let yaml = |before: &str, requests: u32| {
        let limit = "rate_limit: {requests: 1, per: 1h}";
        format!(
            "routes:\n\
             - {{name: kept, match: {{path: /kept}}, middlewares: [kept], handler: ok}}\n\
             - {{name: moved, match: {{path: /moved}}, middlewares: [{before}{{{limit}}}], handler: ok}}\n\
             - {{name: changed, match: {{path: /changed}}, middlewares: [changed], handler: ok}}\n\
             handlers: {{ok: {{respond: {{body: ok}}}}}}\n\
             middlewares:\n  kept: {{{limit}}}\n  \
             changed: {{rate_limit: {{requests: {requests}, per: 1h}}}}\n"
        )
    };
    let (old, new) = (yaml("", 1), yaml("request_id, ", 2));
    let foretold = foretold(&old, &new);
    let fates = ["kept", "routes/moved/1", "changed"].map(|id| &of_counter(&foretold, id)["fate"]);
    assert_eq!(fates, ["kept", "reset", "reset"]);
    assert_eq!(of_counter(&foretold, "routes/moved/1")["because"], "place");
    assert_eq!(of_counter(&foretold, "changed")["because"], "settings");

    let gateway = Gateway::start(&old).await;
    let routes = ["/kept", "/moved", "/changed"];
    for status in [200, 429] {
        for route in routes {
            assert_eq!(gateway.get(route).await.status, status, "{route}");
        }
    }
    apply(&gateway, &new, &foretold).await;
    for (route, status) in routes.into_iter().zip([429, 200, 200]) {
        assert_eq!(gateway.get(route).await.status, status, "{route}");
    }
}

/// The middleware that counts and has that id; where each route has its own, the id names it, too.
fn of_counter<'v>(foretold: &'v Value, id: &str) -> &'v Value {
    let counters = foretold["counters"].as_array().expect("a list");
    let is_it = |counter: &&Value| {
        let found = counter["id"].as_str().expect("text");
        found == id || found.split(" of ").next() == Some(id)
    };
    let mut counters = counters.iter();
    counters
        .find(is_it)
        .unwrap_or_else(|| panic!("no {id} in {foretold}"))
}

#[tokio::test]
async fn requests_move_between_routes_as_foretold() {
    let yaml = |more: &str| {
        format!(
            "routes:\n\
             {more}- {{name: all, match: {{path_prefix: /a}}, handler: {{respond: {{body: all}}}}}}\n"
        )
    };
    let old = yaml("- {name: old, match: {path: /old}, handler: {respond: {body: old}}}\n");
    let new = yaml("- {name: one, match: {path: /a/one}, handler: {respond: {body: one}}}\n");
    let foretold = foretold(&old, &new);
    let gateway = Gateway::start(&old).await;
    let moves = foretold["moves"].as_array().expect("a list");
    assert_eq!(moves.len(), 2, "{foretold}");
    let name = |taker: &Value| taker["route"].as_str().unwrap_or_default().to_owned();
    let target = |of: &Value| of["examples"][0].as_str().expect("text")["GET ".len()..].to_owned();
    let takes = async |of: &Value| {
        let answer = gateway.get(&target(of)).await;
        if answer.status == 404 {
            String::new()
        } else {
            answer.text()
        }
    };
    for of in moves {
        assert_eq!(takes(of).await, name(&of["from"]), "{of}");
    }
    apply(&gateway, &new, &foretold).await;
    for of in moves {
        assert_eq!(takes(of).await, name(&of["to"]), "{of}");
    }
}

#[tokio::test]
async fn a_reload_that_would_be_refused_is() {
    let port = free_port();
    let yaml = |address: &str| {
        format!(
            "listeners: [{{name: public, address: \"{address}:{port}\"}}]\n\
             routes: [{{name: a, match: {{path: /}}, handler: {{respond: {{body: ok}}}}}}]\n"
        )
    };
    let (old, new) = (yaml("127.0.0.1"), yaml("0.0.0.0"));
    let foretold = foretold(&old, &new);
    assert_eq!(foretold["refused"][0]["holder"]["listener"], "public");
    let gateway = Gateway::start(&old).await;
    gateway.reload(&new).await;
    gateway.logs("cannot listen on 0.0.0.0").await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn what_waits_for_the_next_start_is_named() {
    let yaml = |workers: u32| {
        format!(
            "runtime: {{workers: {workers}}}\n\
             routes: [{{name: a, match: {{path: /}}, handler: {{respond: {{body: ok}}}}}}]\n"
        )
    };
    let (old, new) = (yaml(1), yaml(2));
    let foretold = foretold(&old, &new);
    let setting = &foretold["settings"][0];
    assert_eq!(setting["key"], "runtime.workers");
    assert_eq!(setting["takes_effect"], "at_next_start");
    let gateway = Gateway::start(&old).await;
    gateway.reload(&new).await;
    gateway
        .logs("runtime.workers: a change takes effect at the next start")
        .await;
}
