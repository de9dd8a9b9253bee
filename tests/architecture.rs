//! Holds the house in shape: floors, lengths of files, a `//!` at the top of each.
//!
//! A module imports only from floors below its own, never from a neighbour. What two neighbours share
//! moves down to `base`; what needs two neighbours moves up.
#![cfg(test)]
#![expect(
    clippy::string_slice,
    reason = "offsets come from searches in the same text, and a test may panic"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors from the bottom up; each line's modules are neighbours.
const FLOORS: &[&[&str]] = &[
    &["base"],
    &["telemetry", "tls"],
    &["routing", "middleware", "handler", "upstream"],
    &["config"],
    &["snapshot"],
    &["proxy"],
    &["server", "admin", "explain", "lint"],
    &["main", "cli", "app", "lib"],
];

/// Imports between neighbours that are wanted: from, to, why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("cli", "app", "the command `run` starts the application"),
    ("main", "cli", "the binary is nothing but the command line"),
    ("main", "app", "the binary is nothing but the command line"),
];

/// A longer file is due to be split by subject.
const LONGEST: usize = 600;

/// Folders whose Rust files are ours.
const FOLDERS: &[&str] = &["src", "tests", "examples", "benches"];

/// One use of another module of this crate.
#[derive(Debug, PartialEq, Eq)]
struct Import {
    line: usize,
    module: String,
}

#[test]
fn modules_import_only_from_floors_below() {
    let mut complaints = Vec::new();
    for file in rust_files(&["src"]) {
        let path = relative(&file);
        let parts = module_path(&path);
        let Some(own) = parts.first() else { continue };
        let Some(own_floor) = floor(own) else {
            complaints.push(format!(
                "{path}: module `{own}` has no floor: give it one in tests/architecture.rs"
            ));
            continue;
        };
        for import in imports(&read(&file), &parts) {
            if import.module == *own {
                continue;
            }
            // What is no module is a macro or a re-export at the root.
            let Some(other_floor) = floor(&import.module) else {
                continue;
            };
            if other_floor < own_floor || excepted(own, &import.module) {
                continue;
            }
            let relation = if other_floor == own_floor {
                "a neighbour"
            } else {
                "a floor above"
            };
            complaints.push(format!(
                "{path}:{}: `{own}` (floor {own_floor}) imports `{}` (floor {other_floor}), {relation}: \
                 what two neighbours share moves down to `base`, what needs two of them moves up",
                import.line, import.module
            ));
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_top_level_module_has_a_floor_and_every_exception_names_two() {
    let known: BTreeSet<&str> = FLOORS
        .iter()
        .flat_map(|floor| floor.iter().copied())
        .collect();
    for file in rust_files(&["src"]) {
        let path = relative(&file);
        if let Some(own) = module_path(&path).first() {
            assert!(
                known.contains(own.as_str()),
                "{path}: module `{own}` has no floor"
            );
        }
    }
    for (from, to, why) in EXCEPTIONS {
        assert!(known.contains(from) && known.contains(to) && !why.is_empty());
    }
}

#[test]
fn no_file_is_longer_than_the_alarm() {
    let long: Vec<String> = rust_files(FOLDERS)
        .iter()
        .map(|file| (relative(file), read(file).lines().count()))
        .filter(|(_, lines)| *lines > LONGEST)
        .map(|(path, lines)| format!("{path}: {lines} lines, over {LONGEST}: split it by subject"))
        .collect();
    assert!(long.is_empty(), "\n{}\n", long.join("\n"));
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent: Vec<String> = rust_files(FOLDERS)
        .iter()
        .filter(|file| !read(file).starts_with("//! "))
        .map(|file| format!("{}: opens without `//!`", relative(file)))
        .collect();
    assert!(silent.is_empty(), "\n{}\n", silent.join("\n"));
}

#[test]
fn imports_are_found_however_they_are_written() {
    #[track_caller]
    fn check(source: &str, at: &[&str], expected: &[&str]) {
        let at: Vec<String> = at.iter().map(ToString::to_string).collect();
        let found: Vec<String> = imports(source, &at).into_iter().map(|i| i.module).collect();
        assert_eq!(found, expected, "{source}");
    }
    check("use crate::base::body::Body;", &["proxy"], &["base"]);
    check(
        "use crate::{base::body, routing::{Table, matcher}};",
        &["proxy"],
        &["base", "routing"],
    );
    check(
        "fn f() { crate::upstream::send(); }",
        &["proxy"],
        &["upstream"],
    );
    check("pub(crate) use crate::tls;", &["proxy"], &["tls"]);
    check(
        "use super::super::handler::Handler;",
        &["middleware", "cors"],
        &["handler"],
    );
    check("use super::Step;", &["middleware", "cors"], &[]);
    check(
        "use super::{handler, base};",
        &["middleware"],
        &["handler", "base"],
    );
    check(
        "// use crate::upstream;\n/// [`crate::upstream`]\nfn f() {}",
        &["proxy"],
        &[],
    );
    check("const S: &str = \"crate::upstream::x\";", &["proxy"], &[]);
    check(
        "use crate::base;\n#[cfg(test)]\nmod tests { use crate::app; }",
        &["proxy"],
        &["base"],
    );
    check("use retort::cli::run;", &["main"], &["cli"]);
}

fn excepted(from: &str, to: &str) -> bool {
    // The root of the library declares and re-exports every floor.
    from == "lib" || EXCEPTIONS.iter().any(|(a, b, _)| *a == from && *b == to)
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|modules| modules.contains(&module))
}

/// `src/proxy/retry.rs` is `["proxy", "retry"]`, `src/lib.rs` is `["lib"]`.
fn module_path(path: &str) -> Vec<String> {
    path.trim_start_matches("src/")
        .trim_end_matches(".rs")
        .split('/')
        .filter(|part| *part != "mod")
        .map(ToOwned::to_owned)
        .collect()
}

/// Every top-level module that the source names, but for its tests, which stand last.
fn imports(source: &str, at: &[String]) -> Vec<Import> {
    let code = without_comments_and_text(source);
    let code = code
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let mut found = Vec::new();
    for (start, root) in roots(code, at.len()) {
        let line = code[..start].matches('\n').count() + 1;
        for module in first_names(&code[start + root..]) {
            found.push(Import { line, module });
        }
    }
    found
}

/// Where a path begins at the crate's root, and how many bytes its beginning has.
fn roots(code: &str, depth: usize) -> Vec<(usize, usize)> {
    let up = "super::".repeat(depth);
    let mut starts = Vec::new();
    for prefix in ["crate::", "retort::", up.as_str()] {
        for (start, _) in code.match_indices(prefix) {
            let before = code[..start].chars().next_back();
            let glued = before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
            let further = code[start + prefix.len()..].starts_with("super::");
            if !glued && !further {
                starts.push((start, prefix.len()));
            }
        }
    }
    starts.sort_unstable();
    starts
}

/// The names directly after the root: one, or those of a group in braces.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let mut names = vec![name(group)];
    let mut depth = 1;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(name(&group[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The source with comments and literals blanked, line by line as long as before.
fn without_comments_and_text(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(raw) = raw_literal(rest) {
            raw
        } else if c == '"' {
            literal(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("'\\\"'") {
            4
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
        rest = &rest[skipped..];
    }
    code
}

/// The length of a raw literal that begins here.
fn raw_literal(text: &str) -> Option<usize> {
    let hashes = text
        .strip_prefix('r')?
        .chars()
        .take_while(|c| *c == '#')
        .count();
    let opening = 1 + hashes;
    let inner = text.get(opening..)?.strip_prefix('"')?;
    let closing = format!("\"{}", "#".repeat(hashes));
    let end = inner.find(&closing)?;
    Some(opening + 1 + end + closing.len())
}

/// The length of a literal in quotes that begins here.
fn literal(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn rust_files(folders: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for path in entries.map(|entry| entry.expect("a readable entry").path()) {
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn relative(file: &Path) -> String {
    file.strip_prefix(root())
        .expect("a file of ours")
        .display()
        .to_string()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).expect("a readable file")
}
