//! Every configuration in `tests/data`, and exactly what is said about it.
//!
//! `BLESS=1 cargo test --test problems` writes what is said now; read it before you commit it.
#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};

use retort::Source;
use retort::base::report::{self, Style};
use retort::{config, lint};

fn env(name: &str) -> Option<String> {
    (name == "STREAMS").then(|| "7".to_owned())
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(directory()).expect("tests/data");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut cases: Vec<_> = paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    cases.sort();
    cases
}

/// What is said about a file, with its directory left out.
fn said(path: &Path) -> String {
    let loaded = config::load(path, &env);
    assert_eq!(
        loaded.config.is_none(),
        loaded.has_errors(),
        "{}",
        path.display()
    );
    let mut problems = loaded.problems;
    problems.extend(loaded.config.iter().flat_map(lint::lint));
    let problems = lint::sift(problems, &loaded.sources).problems;
    let text = report::render(&problems, &loaded.sources, Style::Plain);
    text.replace(&format!("{}/", directory().display()), "")
}

#[test]
fn every_problem_is_said_as_it_was_blessed() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    for path in cases() {
        let said = said(&path);
        let expected = path.with_extension("txt");
        if bless {
            fs::write(&expected, &said).expect("written");
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("{}:\n{said}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "not as blessed:\n{}", wrong.join("\n"));
}

#[test]
fn every_problem_begins_with_its_place() {
    for path in cases() {
        let loaded = config::load(&path, &env);
        for problem in &loaded.problems {
            let text = report::render(std::slice::from_ref(problem), &loaded.sources, Style::Plain);
            let first = text.lines().next().unwrap_or_default();
            let place = problem.span.map(|span| loaded.sources.place(span));
            assert!(first.starts_with(&place.unwrap_or_default()), "{first}");
            let is_sentence = problem
                .message
                .chars()
                .next()
                .is_some_and(|c| !c.is_uppercase());
            assert!(
                is_sentence && !problem.message.ends_with('.'),
                "{}",
                problem.message
            );
        }
    }
}

#[test]
fn the_examples_can_be_used() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for entry in fs::read_dir(directory).expect("config") {
        let path = entry.expect("an entry").path();
        let loaded = config::load(&path, &env);
        let said = report::render(&loaded.problems, &loaded.sources, Style::Plain);
        assert!(loaded.config.is_some(), "{said}");
        let source = Source::File(path);
        let checked = retort::app::check(&source);
        let said = report::render(&checked.problems, &checked.sources, Style::Plain);
        assert!(checked.problems.is_empty(), "{said}");
        let tested = retort::app::test(&source, "").expect("it can be used");
        for one in tested.report.verdicts {
            let said = report::render(&one.problems, &tested.sources, Style::Plain);
            assert!(one.passes(), "{}: {said}", one.name);
        }
    }
}
