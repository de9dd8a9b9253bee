//! Holds `docs/` in step with the program: tables that are made from the settings' own docs, YAML that
//! must be accepted, commands whose output is shown, links that must lead somewhere.
//!
//! `BLESS=1 cargo test --test reference` writes anew what is made by the program.
//!
//! - `<!-- generated: WHAT -->` to `<!-- end -->`: see [`generated`].
//! - A fence `yaml NAME` is a complete configuration: a file that the commands of its page find. A
//!   fence `yaml` must be one, too, but for being useful.
//! - In a fence `console`, what follows `$ retort check`, `diff`, `explain`, `routes`, `schema`, `test`, `version` and `help` is
//!   what the binary really prints.
#![cfg(test)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use retort::telemetry::decision::Flag;
use retort::{config, handler, middleware};
use serde_json::Value;

use self::settings::Depth;

#[path = "reference/settings.rs"]
mod settings;

const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end -->";

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every page of the documentation, by its path from the project's root.
fn pages() -> Vec<(String, String)> {
    let docs = fs::read_dir(project("docs")).expect("docs");
    let mut paths: Vec<String> = docs
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| Path::new(name).extension().is_some_and(|of| of == "md"))
        .map(|name| format!("docs/{name}"))
        .collect();
    paths.sort();
    let read = |path: String| {
        let text = fs::read_to_string(project(&path)).expect("a page");
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// Compares a page with what it should be, or writes it where that was asked for.
fn settle(path: &str, is: &str, should: &str) {
    if is == should {
        return;
    }
    if std::env::var_os("BLESS").is_some() {
        fs::write(project(path), should).expect("a page can be written");
        return;
    }
    let (is, should) = is
        .lines()
        .zip(should.lines())
        .find(|(is, should)| is != should)
        .unwrap_or(("another number of lines", ""));
    panic!(
        "{path} is out of step; write it anew with `BLESS=1 cargo test --test reference`\n  is:     {is}\n  should: {should}"
    );
}

#[test]
fn pages_say_what_the_program_says() {
    let schema = serde_json::to_value(config::schema()).expect("JSON");
    for (path, page) in pages() {
        let should = with_tables(&path, &page, &schema);
        let should = with_output(&should);
        settle(&path, &page, &should);
    }
}

/// The page with the tables that its markers ask for.
fn with_tables(path: &str, page: &str, schema: &Value) -> String {
    let mut out = String::new();
    let mut rest = page;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (what, after) = after.split_once(" -->\n").expect("a marker ends its line");
        let (_, after) = after
            .split_once(END)
            .unwrap_or_else(|| panic!("{path}: `{what}` has no end"));
        let made = generated(what, schema).unwrap_or_else(|| panic!("{path}: {what}?"));
        let _infallible = write!(out, "{before}{BEGIN}{what} -->\n{}\n{END}", made.trim());
        rest = after;
    }
    out + rest
}

/// What a marker asks for.
fn generated(what: &str, schema: &Value) -> Option<String> {
    let (word, of) = what.split_once(' ').unwrap_or((what, ""));
    match word {
        // A kind of middleware or handler: what it is for, and its settings.
        "middleware" => settings::of_kind(schema, "Middleware", of),
        "handler" => settings::of_kind(schema, "Handler", of),
        // The settings at a place of the file, as in `listeners[].limits`.
        "settings" => settings::at(schema, of, Depth::All),
        // The same without what is inside of them, which then is elsewhere.
        "keys" => settings::at(schema, of, Depth::First),
        "metrics" => Some(retort::telemetry::metrics::markdown()),
        "flags" => Some(flags()),
        "lints" => Some(retort::lint::markdown()),
        _ => None,
    }
}

fn flags() -> String {
    let rows = Flag::ALL
        .iter()
        .map(|flag| format!("| `{}` | {} |\n", flag.code(), flag.text()));
    format!(
        "| flag | meaning |\n|---|---|\n{}",
        rows.collect::<String>()
    )
}

#[test]
fn every_kind_has_its_place_and_every_table_is_there() {
    let page = |name: &str| fs::read_to_string(project(name)).expect("a page");
    let has = |name: &str, what: &str| {
        let marker = format!("{BEGIN}{what} -->");
        assert!(page(name).contains(&marker), "{name} has no `{marker}`");
    };
    for kind in middleware::Settings::kinds() {
        has("docs/middlewares.md", &format!("middleware {kind}"));
    }
    for kind in handler::Settings::kinds() {
        has("docs/handlers.md", &format!("handler {kind}"));
    }
    has("docs/metrics.md", "metrics");
    has("docs/telemetry.md", "flags");
    has("docs/lints.md", "lints");
    // Their keys are not in the table of the whole.
    let keys = "endpoints[] balance.maglev zones affinity discovery.dns discovery.file health_check \
                outlier limits pool timeouts";
    for key in keys.split_whitespace() {
        has("docs/upstreams.md", &format!("settings upstreams.*.{key}"));
    }
    for place in [
        "routes[].retry",
        "routes[].hedge",
        "routes[].mirror",
        "runtime.shedding",
    ] {
        has("docs/resilience.md", &format!("settings {place}"));
    }
    for marker in [
        "keys tests[]",
        "keys tests[].steps[]",
        "settings tests[].request",
        "settings tests[].given.*",
        "settings tests[].expect",
    ] {
        has("docs/test.md", marker);
    }
    for kind in middleware::PLANNED {
        assert!(page("docs/middlewares.md").contains(&format!("`{kind}`")));
    }
}

#[test]
fn the_reference_has_every_key() {
    let text = fs::read_to_string(project("config/reference.yaml")).expect("the reference");
    let words: BTreeSet<&str> = text
        .split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
        .filter_map(|word| word.strip_suffix(':'))
        .collect();
    let schema = serde_json::to_value(config::schema()).expect("JSON");
    let mut keys = BTreeSet::new();
    settings::keys(&schema, &mut keys);
    let missing: Vec<_> = keys.iter().filter(|key| !words.contains(&***key)).collect();
    assert!(missing.is_empty(), "config/reference.yaml: {missing:?}");
}

#[test]
fn the_access_logs_keys_are_those_of_the_page() {
    let page = fs::read_to_string(project("docs/telemetry.md")).expect("a page");
    let wrong = "{nonsense}".parse::<retort::telemetry::access_log::Format>();
    let wrong = wrong.expect_err("no such key");
    let (_, keys) = wrong.split_once("there are ").expect("a list of keys");
    for key in keys.split(", ") {
        assert!(
            page.contains(&format!("| `{key}` |")),
            "telemetry.md: {key}"
        );
    }
}

/// A fenced block: the words after the fence, and what is inside.
struct Fence<'a> {
    words: &'a str,
    text: &'a str,
}

fn fences(page: &str) -> Vec<Fence<'_>> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once("\n```") {
        let (words, after) = after.split_once('\n').expect("a fence has a line");
        let (text, after) = after.split_once("```").expect("a fence ends");
        found.push(Fence { words, text });
        rest = after;
    }
    found
}

#[test]
fn every_yaml_is_a_configuration() {
    let env = |_: &str| None;
    for (path, page) in pages() {
        for fence in fences(&page) {
            let is_wrong_on_purpose = fence.words.starts_with("yaml bad");
            if !fence.words.starts_with("yaml") || is_wrong_on_purpose {
                continue;
            }
            let loaded = config::parse(&path, fence.text, &env);
            // Where the page shows several files, this one alone cannot include the others.
            let errors: Vec<&str> = loaded
                .problems
                .iter()
                .filter(|_| loaded.config.is_none())
                .map(|problem| problem.message.as_str())
                .filter(|message| !message.starts_with("`include` works in files only"))
                .collect();
            assert!(errors.is_empty(), "{path}: {errors:#?}\n{}", fence.text);
        }
    }
}

/// Commands that end by themselves and say the same wherever they run.
const RUN: &[&str] = &[
    "check", "diff", "explain", "routes", "schema", "test", "version", "help", "--help",
];

/// The page with what the binary prints under the commands that it shows.
fn with_output(page: &str) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let mut out = page.to_owned();
    for fence in fences(page) {
        if let Some(name) = fence.words.strip_prefix("yaml ") {
            let file = dir.path().join(name);
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            fs::write(file, fence.text).expect("a file");
        }
        if fence.words == "console" {
            out = out.replace(fence.text, &transcript(fence.text, dir.path()));
        }
    }
    out
}

/// The block with the real output under each command that can be run.
fn transcript(block: &str, dir: &Path) -> String {
    let mut out = String::new();
    let mut is_shown = true;
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            out.extend([line, "\n"]);
            let words = command.split(" #").next().unwrap_or_default();
            let words = shell_words::split(words).expect("a command");
            let mut words = words.iter().map(String::as_str);
            let is_run = words.next() == Some("retort")
                && words.clone().next().is_some_and(|word| RUN.contains(&word))
                && !command.contains(" | ")
                && !command.contains("--against");
            is_shown = !is_run;
            if is_run {
                out += &output(&words.collect::<Vec<_>>(), dir);
            }
        } else if is_shown {
            out.extend([line, "\n"]);
        }
    }
    out
}

fn output(words: &[&str], dir: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_retort"))
        .args(words)
        .current_dir(dir)
        .env_clear()
        .output()
        .expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    text(output.stdout) + &text(output.stderr)
}

#[test]
fn links_lead_somewhere() {
    let mut all = pages();
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(project(name)).expect(name);
        all.push((name.to_owned(), text));
    }
    for (path, page) in &all {
        let folder = Path::new(path).parent().expect("a folder");
        for link in links(page) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => PathBuf::from(path),
                file => folder.join(file),
            };
            let target = project(target.to_str().expect("UTF-8"));
            assert!(target.exists(), "{path}: `{link}` leads nowhere");
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).expect("a page");
                let found = text
                    .lines()
                    .any(|line| anchor_of(line) == Some(anchor.into()));
                assert!(found, "{path}: there is no heading for `{link}`");
            }
        }
    }
}

/// Targets of links that stay within the project.
fn links(page: &str) -> Vec<&str> {
    let targets = page.split("](").skip(1);
    targets
        .filter_map(|rest| rest.split(')').next())
        .filter(|link| !link.starts_with("http"))
        .collect()
}

/// What a heading is called in links.
fn anchor_of(line: &str) -> Option<String> {
    let title = line.strip_prefix('#')?.trim_start_matches('#').trim();
    let kept = title.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || matches!(c, '-' | '_') => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    Some(kept.collect())
}
