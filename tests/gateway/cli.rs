//! The command line as scripts lean on it: what it prints, and its exit status.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Output;

use crate::harness::gateway::complete;
use crate::harness::program::retort;

/// A file with a configuration, in a folder that lives as long as the test.
fn file(yaml: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("retort.yaml");
    fs::write(&path, yaml).expect("a file");
    (dir, path)
}

fn run(command: &[&str], yaml: &str) -> (Output, String, String) {
    let (_dir, path) = file(yaml);
    let mut arguments = command.to_vec();
    let path = path.display().to_string();
    arguments.push(&path);
    let output = retort(&arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&path, "FILE");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

const GOOD: &str = "routes:\n  - {name: ok, match: {path: /}, handler: {respond: {body: ok}}}\n";

#[test]
fn check_is_0_for_a_good_file_and_3_for_a_bad_one() {
    let (output, out, err) = run(&["check"], &complete(GOOD));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    let (output, out, err) = run(
        &["check"],
        "routes:\n  - {name: a, match: {path: /}, upstream: nowhere}\n",
    );
    assert_eq!(output.status.code(), Some(3), "{out}{err}");
    assert_eq!(
        retort(&["check", "/nonexistent/retort.yaml"]).status.code(),
        Some(3)
    );
    assert_eq!(retort(&["check"]).status.code(), Some(2));
    assert_eq!(retort(&["no-such-command"]).status.code(), Some(2));
}

#[test]
fn every_problem_is_told_at_once_with_its_place() {
    let yaml = "listeners:
  - {name: public, address: \"127.0.0.1:0\", trusted_proxies: [10.0.0.0/99]}
routes:
  - name: one
    match: {path: /a}
    upstreem: orders
  - name: two
    match: {path: /b}
    upstream: order
  - name: two
    match: {path: /c}
    upstream: orders
    timeouts: {request: 5}
upstreams:
  orders: {endpoints: [\"127.0.0.1:9001\"]}
";
    let (output, out, err) = run(&["check"], yaml);
    assert_eq!(output.status.code(), Some(3));
    let said = out + &err;
    for expected in [
        "FILE:2:",      // no such CIDR
        "FILE:6:5",     // upstreem
        "did you mean", // a suggestion
        "FILE:9:15",    // the unknown upstream
        "FILE:10:11",   // the name that is taken
        "FILE:13:",     // a duration without a unit
        "^",            // a caret
    ] {
        assert!(said.contains(expected), "{expected:?} is not in:\n{said}");
    }
}

#[test]
fn broken_yaml_is_a_problem_with_a_place_and_never_a_panic() {
    let bombs = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                 d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n\
                 g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
    let deep = "[".repeat(20_000);
    for (what, yaml) in [
        ("nothing at all", ""),
        ("an open bracket", "routes: ["),
        ("a tab", "routes:\n\t- x"),
        ("a scalar", "just text"),
        ("a list", "- a\n- b\n"),
        ("a key twice", "routes: []\nroutes: []\n"),
        ("a wrong type", "routes: 7\n"),
        ("an alias bomb", bombs),
        ("deep nesting", deep.as_str()),
        ("no UTF-8 sense", "routes: \u{0}\n"),
        ("an unknown anchor", "routes: *nowhere\n"),
    ] {
        let begin = std::time::Instant::now();
        let (output, out, err) = run(&["check"], yaml);
        assert_eq!(output.status.code(), Some(3), "{what}: {out}{err}");
        assert!((out + &err).contains("FILE"), "{what}");
        assert!(
            begin.elapsed() < std::time::Duration::from_secs(5),
            "{what}: {:?}",
            begin.elapsed()
        );
    }
    let (_dir, path) = file("");
    fs::write(&path, [0xff, 0xfe, 0x00, 0x01]).expect("a file");
    assert_eq!(
        retort(&["check", &path.display().to_string()])
            .status
            .code(),
        Some(3)
    );
}

#[test]
fn problems_come_as_json_where_asked() {
    let (output, out, _) = run(
        &["check", "--json"],
        "routes:\n  - {name: a, match: {path: /}, upstream: nowhere}\n",
    );
    assert_eq!(output.status.code(), Some(3));
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let text = json.to_string();
    for part in ["nowhere", "\"line\":2", "error"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn warnings_are_errors_only_where_strict() {
    let unused = complete(&format!(
        "{GOOD}upstreams:\n  unused: {{endpoints: [\"127.0.0.1:1\"]}}\n"
    ));
    let (output, out, err) = run(&["check"], &unused);
    assert_eq!(output.status.code(), Some(0));
    assert!((out + &err).contains("unused"));
    let (output, ..) = run(&["check", "--strict"], &unused);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_warning_that_a_comment_allows_is_only_counted() {
    let allowed = complete(&format!(
        "{GOOD}upstreams:\n  # retort: allow RT0601\n  unused: {{endpoints: [\"127.0.0.1:1\"]}}\n"
    ));
    let (output, out, err) = run(&["check", "--strict"], &allowed);
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert!(out.contains("fine (1 warning allowed)"), "{out}");
    let (_, out, _) = run(&["check", "--json"], &allowed);
    assert_eq!(out, "[]\n");
}

#[test]
fn codes_are_explained_by_number_and_name() {
    for word in ["RT0202", "rt0202", "attempts-outlast-request"] {
        let output = retort(&["check", "--explain", word]);
        assert_eq!(output.status.code(), Some(0), "{word}");
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(
            out.starts_with("RT0202 attempts-outlast-request\n"),
            "{out}"
        );
    }
    let output = retort(&["check", "--explain", "list"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("RT0601  unused"));
    let output = retort(&["check", "--explain", "unusd"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean `unused`?"));
    let both = ["check", "--explain", "RT0202", "retort.yaml"];
    assert_eq!(retort(&both).status.code(), Some(2));
}

#[test]
fn run_with_a_bad_file_is_3_and_serves_nothing() {
    let (output, _, err) = run(&["run", "-c"], "routes: [");
    assert_eq!(output.status.code(), Some(3), "{err}");
}

#[test]
fn routes_are_listed_in_order_of_precedence() {
    let yaml = complete(
        "routes:
  - {name: any, match: {path_prefix: /}, handler: {respond: {body: a}}}
  - {name: exact, match: {path: /a}, handler: {respond: {body: a}}}
  - {name: host, match: {host: a.test, path_prefix: /}, handler: {respond: {body: a}}}
",
    );
    let (output, out, err) = run(&["routes", "-c"], &yaml);
    assert_eq!(output.status.code(), Some(0), "{err}");
    let at = |name: &str| {
        out.find(name)
            .unwrap_or_else(|| panic!("{name} is not in\n{out}"))
    };
    assert!(at("host") < at("exact") && at("exact") < at("any"), "{out}");
}

#[test]
fn the_schema_is_json_and_describes_the_keys() {
    let output = retort(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let properties = schema["properties"].as_object().expect("properties");
    for key in [
        "runtime",
        "admin",
        "telemetry",
        "listeners",
        "routes",
        "middlewares",
        "handlers",
        "upstreams",
    ] {
        let described = properties
            .get(key)
            .unwrap_or_else(|| panic!("{key} is missing"));
        assert!(
            described.to_string().contains("description"),
            "{key} says nothing"
        );
    }
}

#[test]
fn the_version_is_the_crates() {
    for arguments in [["version"], ["--version"]] {
        let output = retort(&arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&output.stdout).contains(env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_retort"))
        .arg("schema")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("an end");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn ten_thousand_routes_are_checked_in_good_time() {
    let mut yaml = complete("routes:\n");
    for number in 0..10_000 {
        writeln!(
            yaml,
            "  - {{name: r{number}, match: {{path_prefix: /p{number}/x}}, handler: ok}}"
        )
        .expect("text");
    }
    yaml += "handlers:\n  ok: {respond: {body: ok}}\n";
    let begin = std::time::Instant::now();
    let (output, out, err) = run(&["check"], &yaml);
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    // Under a second in release; this is a debug build on a busy machine.
    assert!(
        begin.elapsed() < std::time::Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn the_keys_of_an_explanation_are_a_contract() {
    let (_dir, path) = file(&complete(GOOD));
    let path = path.display().to_string();
    let explain = |more: &[&str]| {
        let mut arguments = vec!["explain", "-c", &path, "--json"];
        arguments.extend(more);
        let output = retort(&arguments);
        assert_eq!(output.status.code(), Some(0));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")
    };
    let all = explain(&["-H", "cookie: secret", "/"]);
    let keys = |value: &serde_json::Value| -> Vec<String> {
        let map = value.as_object().expect("a map");
        map.keys().cloned().collect()
    };
    let mut top = keys(&all);
    top.sort();
    assert_eq!(
        top,
        [
            "answer",
            "backend",
            "candidates",
            "client",
            "listener",
            "request",
            "route",
            "sent",
            "steps"
        ]
    );
    assert_eq!(all["route"]["name"], "ok");
    assert_eq!(all["answer"]["by"], "handler respond");
    assert_eq!(all["candidates"][0]["wins"], true);
    assert!(!all.to_string().contains("secret"), "{all:#}");
    let nowhere = explain(&["/nowhere"]);
    assert_eq!(nowhere["answer"]["flag"], "NR");
    assert!(nowhere["route"].is_null() && nowhere["backend"].is_null());
}

#[test]
fn tests_are_0_where_they_pass_and_4_where_not() {
    let with = |expect: &str| {
        let tests = format!("tests:\n  - {{name: a, request: {{url: /}}, expect: {{{expect}}}}}\n");
        run(&["test"], &complete(&format!("{GOOD}{tests}")))
    };
    let (output, out, _) = with("status: 200, route: ok, body: ok");
    assert_eq!(output.status.code(), Some(0), "{out}");
    assert!(
        out.contains("1 test passed; 1 of 1 rules reached (100 %)"),
        "{out}"
    );
    let (output, out, _) = with("status: 404");
    assert_eq!(output.status.code(), Some(4), "{out}");
    assert!(out.contains("the status is `200`, not `404`"), "{out}");
    let (output, out, _) = run(&["test", "--fail-under", "50%"], &complete(GOOD));
    assert_eq!(output.status.code(), Some(4), "{out}");
    assert!(out.contains("less than 50 %"), "{out}");
}
