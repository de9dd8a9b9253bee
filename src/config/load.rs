//! The door: files → nodes. The only part of `config` that touches the world.
//!
//! A file that cannot be read or is no YAML is reported, and the others are still read: what can be
//! said about them is said.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::interpolate::Env;
use super::parse::{self, Budget};
use super::tree::{Kind, Node};
use crate::base::code::Code;
use crate::base::problem::{Problem, Span};
use crate::base::source::{Source, Sources};

/// A longer file is not written by people, and would take seconds to read.
const MAX_BYTES: u64 = 16 << 20;

/// How many files one configuration may have.
const MAX_FILES: usize = 10_000;

/// How deep includes may include.
const MAX_DEPTH: usize = 16;

/// What was read.
pub(super) struct Files {
    /// The texts.
    pub(super) sources: Sources,
    /// Each file's directory, by its number.
    pub(super) directories: Vec<PathBuf>,
    /// Each file's content: maps, in the order in which they count.
    pub(super) roots: Vec<Node>,
    /// Everything that was read or should have been.
    pub(super) paths: Vec<PathBuf>,
    /// Directories in which patterns were looked for.
    pub(super) searched: Vec<PathBuf>,
    /// What was wrong.
    pub(super) problems: Vec<Problem>,
    /// False if something of the configuration could not be read: names may be missing.
    pub(super) is_complete: bool,
}

/// Reads a file and all that it includes.
pub(super) fn load(path: &Path, env: Env<'_>) -> Files {
    let mut loader = Loader::new(env, Includes::Followed);
    loader.file(path, None, 0);
    loader.files
}

/// Reads one text, which can include nothing: it stands in no directory.
pub(super) fn text(name: &str, text: &str, env: Env<'_>) -> Files {
    let mut loader = Loader::new(env, Includes::Refused);
    loader.text(name, text.to_owned(), Path::new(""), 0);
    loader.files
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Includes {
    Followed,
    Refused,
}

struct Loader<'a> {
    env: Env<'a>,
    includes: Includes,
    budget: Budget,
    files: Files,
    /// Files by what they are called, links resolved; and where they were included.
    seen: HashMap<PathBuf, Option<Span>>,
    /// Those whose includes are being read.
    open: Vec<PathBuf>,
}

impl<'a> Loader<'a> {
    fn new(env: Env<'a>, includes: Includes) -> Self {
        Self {
            env,
            includes,
            budget: Budget::default(),
            files: Files {
                sources: Sources::default(),
                directories: Vec::new(),
                roots: Vec::new(),
                paths: Vec::new(),
                searched: Vec::new(),
                problems: Vec::new(),
                is_complete: true,
            },
            seen: HashMap::new(),
            open: Vec::new(),
        }
    }

    fn fail(&mut self, problem: Problem) {
        self.files.problems.push(problem);
        self.files.is_complete = false;
    }

    fn file(&mut self, path: &Path, included: Option<Span>, depth: usize) {
        self.files.paths.push(path.to_owned());
        let text = match read(path) {
            Ok(text) => text,
            Err(message) => return self.fail(Problem::error(included, message)),
        };
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if let Some(first) = self.seen.insert(real.clone(), included) {
            let problem = if self.open.contains(&real) {
                Problem::error(included, format!("this line makes `{}` include itself", path.display()))
                    .help("keep included files in a directory of their own, as in `include: [routes/*.yaml]`")
            } else {
                Problem::error(included, format!("`{}` is included twice", path.display()))
            };
            let problem = match first {
                Some(first) if Some(first) != included => {
                    problem.related(first, "first included here")
                }
                _ => problem,
            };
            return self.fail(problem);
        }
        if self.files.roots.len() >= MAX_FILES {
            return self.fail(Problem::error(
                included,
                format!("the configuration has more than {MAX_FILES} files"),
            ));
        }
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        self.open.push(real);
        self.text(&path.display().to_string(), text, &directory, depth);
        self.open.pop();
    }

    fn text(&mut self, name: &str, text: String, directory: &Path, depth: usize) {
        let source = Source::new(name, text);
        let Some(file) = self.files.sources.add(source) else {
            return self.fail(Problem::error(None, "the configuration has too many files"));
        };
        self.files.directories.push(directory.to_owned());
        let text = self
            .files
            .sources
            .get(file)
            .map_or("", |source| &source.text);
        let root = parse::parse(
            file,
            text,
            self.env,
            &mut self.budget,
            &mut self.files.problems,
        );
        let Some(root) = root else {
            self.files.is_complete = false;
            return;
        };
        let includes: Vec<Node> = match &root.kind {
            Kind::Map(_) => root.get("include").into_iter().cloned().collect(),
            _ if root.is_nothing() => {
                // What an editor leaves for a moment that truncates the file before it writes it
                // must not close every listener.
                if depth == 0 && self.includes == Includes::Followed {
                    self.fail(Problem::error(root.span, "the configuration is empty"));
                }
                return;
            }
            _ => {
                let message =
                    "a configuration is a map of sections such as `listeners` and `routes`";
                return self.fail(Problem::error(root.span, message));
            }
        };
        self.files.roots.push(root);
        for node in &includes {
            self.include(node, directory, depth);
        }
    }

    fn include(&mut self, node: &Node, directory: &Path, depth: usize) {
        if self.includes == Includes::Refused {
            return self.fail(Problem::error(
                node.span,
                "`include` works in files only: this text stands in no directory",
            ));
        }
        if depth >= MAX_DEPTH {
            return self.fail(Problem::error(
                node.span,
                format!("files include each other more than {MAX_DEPTH} deep"),
            ));
        }
        let patterns = match &node.kind {
            Kind::List(items) => items.as_slice(),
            _ if node.is_nothing() => return,
            Kind::Broken => {
                self.files.is_complete = false;
                return;
            }
            _ => {
                let message = "`include` is a list of paths and patterns such as `routes/*.yaml`";
                return self.fail(Problem::error(node.span, message));
            }
        };
        for pattern in patterns {
            match (&pattern.kind, pattern.text()) {
                (_, Some(text)) => self.pattern(text, pattern.span, directory, depth),
                (Kind::Broken, None) => self.files.is_complete = false,
                _ => self.fail(Problem::error(
                    pattern.span,
                    "expected a path or a pattern such as `routes/*.yaml`",
                )),
            }
        }
    }

    fn pattern(&mut self, text: &str, span: Span, directory: &Path, depth: usize) {
        if !text.contains(['*', '?', '[']) {
            return self.file(&directory.join(text), Some(span), depth + 1);
        }
        // Only the written part is a pattern: the directory may have a `[` in its own name.
        let directory_text = glob::Pattern::escape(&directory.display().to_string());
        let whole = Path::new(&directory_text).join(text);
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            // A mounted ConfigMap keeps its old and new contents in hidden directories.
            require_literal_leading_dot: true,
        };
        let paths = match glob::glob_with(&whole.display().to_string(), options) {
            Ok(paths) => paths,
            Err(error) => {
                let message = format!("`{text}` is not a pattern of paths: {}", error.msg);
                return self.fail(Problem::error(span, message));
            }
        };
        let fixed = text.split(['*', '?', '[']).next().unwrap_or_default();
        let base = fixed.rsplit_once('/').map_or("", |(base, _)| base);
        self.files.searched.push(directory.join(base));
        let mut found = 0;
        for path in paths {
            match path {
                Ok(path) if path.is_dir() => {}
                Ok(path) => {
                    found += 1;
                    self.file(&path, Some(span), depth + 1);
                }
                Err(error) => {
                    let message = format!(
                        "cannot look into `{}`: {}",
                        error.path().display(),
                        cause(error.error())
                    );
                    self.fail(Problem::error(span, message));
                }
            }
        }
        if found == 0 {
            let problem = Problem::warning(span, format!("no file matches `{text}`"));
            self.files
                .problems
                .push(problem.code(Code::NO_FILE_MATCHES));
        }
    }
}

/// The cause in plain words, without the number that the system gives it.
pub(super) fn cause(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let failed =
        |error: std::io::Error| format!("cannot read `{}`: {}", path.display(), cause(&error));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!(
            "`{}` is longer than {} MiB",
            path.display(),
            MAX_BYTES >> 20
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!(
            "`{}` is not UTF-8 text, from its byte {} on",
            path.display(),
            at + 1
        )
    })
}
