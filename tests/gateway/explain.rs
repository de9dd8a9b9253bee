//! `retort explain`: what it prints, for people and for programs.
//!
//! `BLESS=1 cargo test --test gateway explain` writes what is printed now; read it before you commit it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::project;

/// What the command prints for each line of a folder's `asked.txt`, with its exit status.
fn printed(folder: &Path, more: &[&str]) -> String {
    let asked = fs::read_to_string(folder.join("asked.txt")).expect("requests");
    let mut said = String::new();
    for line in asked.lines() {
        let words = shell_words::split(line).expect("a command");
        let output = Command::new(env!("CARGO_BIN_EXE_retort"))
            .args(["explain", "-c", "config.yaml"])
            .args(words)
            .args(more)
            .current_dir(folder)
            .env_clear()
            .output()
            .expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let status = output.status.code().expect("an end of its own");
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        let _written = writeln!(said, "$ {line}\n{out}{err}exit status {status}\n");
    }
    said
}

#[test]
fn every_explanation_is_printed_as_it_was_blessed() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    for entry in fs::read_dir(project("tests/explain")).expect("a folder") {
        let folder = entry.expect("an entry").path();
        for (name, more) in [("said.txt", [].as_slice()), ("said.json.txt", &["--json"])] {
            let said = printed(&folder, more);
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

#[test]
fn no_secret_is_printed_unless_it_is_asked_for() {
    let folder = project("tests/explain/secrets");
    for more in [[].as_slice(), &["--json"]] {
        let said = printed(&folder, more);
        let mut commands = said.split("$ ").skip(1);
        let mut next = || {
            // After the command itself.
            let (_, said) = commands.next()?.split_once('\n')?;
            Some(said)
        };
        let (hidden, shown) = (next().expect("the first"), next().expect("the second"));
        for secret in [
            "of-the-client",
            "of-the-session",
            "of-the-gateway",
            "of-the-file",
        ] {
            assert!(!hidden.contains(secret), "{secret} is in\n{hidden}");
        }
        assert!(shown.contains("of-the-client"), "{shown}");
    }
}
