//! Every configuration in `config/` is checked and exercised, and so is what the README says.

use std::collections::BTreeSet;
use std::fs;

use crate::harness::program::{Program, retort};
use crate::harness::{Gateway, Upstream, get, project, request, soon};

/// An example with free ports in the place of its own.
fn example(name: &str) -> String {
    let yaml = fs::read_to_string(project("config").join(name)).expect("an example");
    [
        "127.0.0.1:8080",
        "0.0.0.0:8080",
        "127.0.0.1:15020",
        "0.0.0.0:15020",
        "127.0.0.1:15000",
    ]
    .iter()
    .fold(yaml, |yaml, address| yaml.replace(address, "127.0.0.1:0"))
}

#[test]
fn every_example_is_without_a_problem() {
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(project("config")).expect("a folder") {
        let path = entry.expect("an entry").path();
        let output = retort(&["check", "--strict", &path.display().to_string()]);
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{}:\n{said}", path.display());
        seen.insert(
            path.file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned(),
        );
    }
    // Each of them is exercised by a test: here, or in `flask.rs`.
    let exercised = [
        "fan-out.yaml",
        "flask-gevent.yaml",
        "grpc.yaml",
        "quickstart.yaml",
        "reference.yaml",
        "resilient.yaml",
        "websocket.yaml",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), exercised);
}

#[test]
fn the_readmes_configuration_and_commands_work() {
    let readme = fs::read_to_string(project("README.md")).expect("the README");
    let block = readme
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(
        dir.path().join("orders.yaml"),
        block.expect("a configuration"),
    )
    .expect("a file");
    let commands: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("$ retort "))
        .collect();
    assert!(!commands.is_empty());
    for command in commands {
        let words = command
            .split('#')
            .next()
            .unwrap_or_default()
            .replace("run ", "check ")
            .replace("check -c", "check");
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_retort"))
            .args(words.split_whitespace())
            .current_dir(dir.path())
            .output()
            .expect("the binary runs");
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{command}: {said}");
    }
    for link in readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
    {
        let file = link.split('#').next().unwrap_or_default();
        assert!(
            link.starts_with("http") || project(file).exists(),
            "{link} leads nowhere"
        );
    }
}

#[tokio::test]
async fn the_demonstration_does_what_it_says() {
    let gateway = Gateway::start(example("quickstart.yaml")).await;
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(gateway.get("/hello/world").await.text(), "Hello, world!\n");
    let old = gateway.get("/old").await;
    assert!(
        old.header("location")
            .is_some_and(|to| to.ends_with("/hello/again")),
        "{:?}",
        old.head
    );
    assert_eq!(gateway.get("/slow").await.status, 200);
    let echo = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
    assert!(request(gateway.public(), echo).await.text().contains("hi"));
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(gateway.get("/limited").await.status);
    }
    assert_eq!(statuses[0], 200);
    assert!(statuses.contains(&429), "{statuses:?}");
    assert!(
        gateway
            .get("/hello/world")
            .await
            .header("x-request-id")
            .is_some()
    );
}

#[tokio::test]
async fn without_arguments_it_serves_the_demonstration_and_says_what_to_try() {
    // The fixed ports of the demonstration may be taken on a busy machine: then it says so.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_retort"));
    command.env("NO_COLOR", "1");
    let mut program = Program::start("retort", command);
    let first = soon(
        "a word",
        program
            .errors
            .find(|line| line.contains("ready") || line.contains("in use")),
    )
    .await;
    match first {
        Some(line) if line.contains("ready") => {
            let hint = program.errors.find_text("curl http://127.0.0.1:8080/");
            soon("what to try", hint).await.expect("what to try");
            let answer = get(
                "127.0.0.1:8080".parse().expect("an address"),
                "/hello/world",
            )
            .await;
            assert_eq!(answer.text(), "Hello, world!\n");
            program.signal("TERM");
            assert_eq!(program.exited().await.code(), Some(0));
        }
        _ => {
            let said = program.errors.text();
            assert!(said.contains("8080") || said.contains("150"), "{said}");
            assert_eq!(program.exited().await.code(), Some(1));
        }
    }
}

#[tokio::test]
async fn the_grpc_example_works() {
    let service = crate::harness::grpc::Grpc::start().await;
    let yaml = example("grpc.yaml").replace("127.0.0.1:50051", &service.address.to_string());
    let gateway = Gateway::start(yaml).await;
    let mut client = crate::harness::grpc::client(gateway.public()).await;
    let note = crate::harness::grpc::note("hello");
    let answer = crate::harness::grpc::call(&mut client, "/acme.Echo/Unary", note).await;
    assert_eq!(answer.expect("an answer").into_inner().text, "hello");
}

#[tokio::test]
async fn the_websocket_example_works() {
    let server = Program::python("websocket_server.py", &[]);
    let port = soon("the server", server.output.find_text("listening "))
        .await
        .expect("a port");
    let port = port.trim_start_matches("listening ");
    let yaml = example("websocket.yaml").replace("127.0.0.1:9000", &format!("127.0.0.1:{port}"));
    let gateway = Gateway::start(yaml).await;
    let url = format!("ws://{}/chat", gateway.public());
    let mut client = Program::python("websocket_client.py", &[&url]);
    assert!(client.exited().await.success(), "{}", client.errors.text());
}

#[tokio::test]
async fn the_resilient_example_does_without_one_of_its_endpoints() {
    let (one, two, three) = (
        Upstream::echo("one").await,
        Upstream::echo("two").await,
        Upstream::says("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await,
    );
    let yaml = example("resilient.yaml")
        .replace("127.0.0.1:8001", &one.address.to_string())
        .replace("127.0.0.1:8002", &two.address.to_string())
        .replace("127.0.0.1:8003", &three.address.to_string());
    let gateway = Gateway::start(yaml).await;
    let metrics = gateway.metrics().await;
    let endpoints = |state| {
        metrics.sum(
            "retort_upstream_endpoints",
            &[("upstream", "app"), ("state", state)],
        )
    };
    assert_eq!((endpoints("ready"), endpoints("unhealthy")), (2.0, 1.0));
    drop(one);
    for number in 0..20 {
        let answer = gateway.get(&format!("/articles/{number}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["upstream"], "two");
    }
    let order =
        "POST /orders HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    let answer = request(gateway.public(), order).await;
    assert_eq!(answer.json()["method"], "POST", "{}", answer.text());
}

#[tokio::test]
async fn the_fan_out_example_works() {
    let (users, orders, tips) = (
        Upstream::echo("users").await,
        Upstream::echo("orders").await,
        Upstream::echo("tips").await,
    );
    let yaml = example("fan-out.yaml")
        .replace("127.0.0.1:9001", &users.address.to_string())
        .replace("127.0.0.1:9002", &orders.address.to_string())
        .replace("127.0.0.1:9003", &tips.address.to_string());
    let gateway = Gateway::start(yaml).await;
    let answer = gateway.get("/home/7").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["user"]["upstream"], "users");
    assert_eq!(answer.json()["user"]["target"], "/users/7");
    drop(tips);
    let answer = gateway.get("/home/7").await;
    assert_eq!(
        answer.status,
        200,
        "an optional part may be missing: {}",
        answer.text()
    );
    assert_eq!(answer.json()["orders"]["upstream"], "orders");
}
