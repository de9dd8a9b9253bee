//! What the files said when they could be read last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::format::Format;
use super::settings::{Paths, is_pattern};
use crate::upstream::discovery::{Found, MAX_FOUND, unreadable};

/// A file that is longer is not read.
const MAX_BYTES: u64 = 1 << 20;

/// More files than one upstream is meant to have.
const MAX_FILES: usize = 1_000;

/// The endpoints of each file, by its path.
#[derive(Debug, Default)]
pub(super) struct Known {
    files: BTreeMap<PathBuf, Kept>,
    /// Those that could not be read when we looked last.
    broken: BTreeSet<PathBuf>,
}

#[derive(Debug)]
struct Kept {
    found: Vec<Found>,
    /// It was not there when we looked last.
    is_gone: bool,
}

/// What a look at all files brought.
#[derive(Debug)]
pub(super) struct Looked {
    /// All endpoints; none if nothing is known, or too much.
    pub(super) list: Option<Vec<Found>>,
    /// What was wrong.
    pub(super) failure: Option<String>,
    /// Where changes are to be expected.
    pub(super) folders: BTreeSet<PathBuf>,
    /// True if it is to be seen soon whether a file has really gone, or is really broken.
    pub(super) again: bool,
}

/// The files that are there, and what was in the way of seeing them.
#[derive(Debug, Default)]
struct Present {
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
    failures: Vec<String>,
}

impl Known {
    /// Reads all files. What cannot be read keeps what it said before, and is told if it cannot be
    /// read the next time either: somebody may just be writing it. What has gone, and still has at
    /// the next look, is forgotten, unless all have.
    pub(super) fn look(&mut self, paths: &Paths) -> Looked {
        let mut present = present(paths);
        let (mut files, mut again) = self.absent(&present);
        let mut count: usize = files.values().map(|kept| kept.found.len()).sum();
        let mut broken = BTreeSet::new();
        for path in &present.files {
            let found = match read(path) {
                Ok(found) => found,
                Err(failure) => {
                    if self.broken.contains(path) {
                        present.failures.push(failure);
                    } else {
                        again = true;
                    }
                    broken.insert(path.clone());
                    let Some(kept) = self.files.get(path) else {
                        continue;
                    };
                    kept.found.clone()
                }
            };
            count += found.len();
            if count > MAX_FOUND {
                // Nothing is taken over: half of them would be an arbitrary half.
                present.failures = vec![format!("the files name more than {MAX_FOUND} targets")];
                return looked(None, present, false);
            }
            let is_gone = false;
            files.insert(path.clone(), Kept { found, is_gone });
        }
        let is_known = !files.is_empty() || (present.failures.is_empty() && broken.is_empty());
        self.files = files;
        self.broken = broken;
        let list = is_known.then(|| {
            let all = self.files.values().flat_map(|kept| &kept.found);
            all.cloned().collect()
        });
        looked(list, present, again)
    }

    /// What is kept of files that are not there, and whether to look again soon.
    fn absent(&self, present: &Present) -> (BTreeMap<PathBuf, Kept>, bool) {
        let may_forget = present.failures.is_empty() && !present.files.is_empty();
        let absent = self.files.iter().filter(|(path, kept)| {
            !(present.files.contains(*path) || (may_forget && kept.is_gone))
        });
        let kept: BTreeMap<PathBuf, Kept> = absent
            .map(|(path, kept)| {
                let found = kept.found.clone();
                let is_gone = may_forget;
                (path.clone(), Kept { found, is_gone })
            })
            .collect();
        let again = may_forget && !kept.is_empty();
        (kept, again)
    }
}

fn looked(list: Option<Vec<Found>>, present: Present, again: bool) -> Looked {
    let more = present.failures.len().saturating_sub(1);
    let failure = present.failures.into_iter().next().map(|first| match more {
        0 => first,
        more => format!("{first} (and {more} more)"),
    });
    Looked {
        list,
        failure,
        folders: present.folders,
        again,
    }
}

fn present(paths: &Paths) -> Present {
    let mut present = Present::default();
    for path in paths.iter() {
        if is_pattern(path) {
            present.add_matches(path);
        } else {
            present.add(path.into());
        }
    }
    if present.files.len() > MAX_FILES {
        present.files.clear();
        present.failures = vec![format!("the patterns match more than {MAX_FILES} files")];
    }
    if present.files.is_empty() && present.failures.is_empty() {
        let patterns: Vec<&str> = paths.iter().collect();
        let none = format!("no file matches `{}`", patterns.join("` or `"));
        present.failures.push(none);
    }
    present
}

impl Present {
    fn add(&mut self, file: PathBuf) {
        self.folders.insert(nearest(&folder(&file)));
        // A ConfigMap's files are links into a folder that is swapped.
        if let Ok(real) = file.canonicalize() {
            self.folders.insert(folder(&real));
        }
        self.files.insert(file);
    }

    fn add_matches(&mut self, pattern: &str) {
        let fixed = pattern.split(['*', '?', '[']).next().unwrap_or_default();
        let base = folder(Path::new(&format!("{fixed}x")));
        if !base.is_dir() {
            let failure = format!("there is no folder `{}`", base.display());
            self.failures.push(failure);
            self.folders.insert(nearest(&base));
            return;
        }
        self.folders.insert(base);
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            // A mounted ConfigMap keeps its old and new contents in hidden folders.
            require_literal_leading_dot: true,
        };
        // The pattern was checked when the configuration was.
        let Ok(matches) = glob::glob_with(pattern, options) else {
            return;
        };
        for found in matches.take(MAX_FILES + 1) {
            match found {
                Ok(path) if path.is_dir() => {}
                Ok(path) => self.add(path),
                Err(error) => self.failures.push(unreadable(error.path(), error.error())),
            }
        }
    }
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// The folder, or what is above it: there one sees it come.
fn nearest(folder: &Path) -> PathBuf {
    let mut above = folder.ancestors();
    above
        .find(|above| above.is_dir())
        .unwrap_or(Path::new("."))
        .to_path_buf()
}

fn read(path: &Path) -> Result<Vec<Found>, String> {
    let text = text(path)?;
    // The path or its pattern has such an ending.
    let format = Format::of(path).unwrap_or(Format::Yaml);
    format.read(&text).map_err(|wrong| match wrong.place {
        Some((line, column)) => format!("{}:{line}:{column}: {}", path.display(), wrong.message),
        None => format!("{}: {}", path.display(), wrong.message),
    })
}

fn text(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| unreadable(path, &error);
    // To open a pipe would wait for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(format!(
            "cannot read `{}`: it is not a file",
            path.display()
        ));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("`{}` is longer than 1 MiB", path.display()));
    }
    String::from_utf8(bytes).map_err(|_| format!("`{}` is not UTF-8 text", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    struct Case {
        folder: TempDir,
        paths: Paths,
        known: Known,
    }

    impl Case {
        fn new(patterns: &[&str]) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let whole = |pattern: &&str| folder.path().join(pattern).display().to_string();
            let paths: Vec<String> = patterns.iter().map(whole).collect();
            Self {
                paths: Paths::try_from(paths).expect("valid"),
                folder,
                known: Known::default(),
            }
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }

        fn remove(&self, name: &str) {
            fs::remove_file(self.folder.path().join(name)).expect("removed");
        }

        /// What is seen once doubts are over.
        fn look_twice(&mut self) -> (Option<Vec<u8>>, Option<String>) {
            let (_, told) = self.look();
            assert_eq!(told, None);
            self.look()
        }

        /// The last bytes of the addresses, and the failure without the folder's name.
        fn look(&mut self) -> (Option<Vec<u8>>, Option<String>) {
            let looked = self.known.look(&self.paths);
            let last = |found: &Found| match found.address.tcp().expect("an address").ip() {
                std::net::IpAddr::V4(ip) => ip.octets()[3],
                std::net::IpAddr::V6(_) => 0,
            };
            let base = format!("{}/", self.folder.path().display());
            let failure = looked.failure.map(|failure| failure.replace(&base, ""));
            (
                looked.list.map(|list| list.iter().map(last).collect()),
                failure,
            )
        }
    }

    fn targets(last: &[u8]) -> String {
        let target = |last: &u8| format!("\"10.0.0.{last}:80\"");
        let targets: Vec<String> = last.iter().map(target).collect();
        format!("[{{\"targets\": [{}]}}]", targets.join(", "))
    }

    #[test]
    fn a_broken_file_keeps_what_it_said_and_others_go_on() {
        let mut case = Case::new(&["*.json"]);
        case.write("a.json", &targets(&[1]));
        case.write("b.json", &targets(&[2]));
        assert_eq!(case.look(), (Some(vec![1, 2]), None));
        case.write("a.json", "[\n  {\"targets\": [\"10.0.0.1:");
        case.write("b.json", &targets(&[2, 3]));
        assert!(case.known.look(&case.paths).again);
        let failure = "a.json:2:25: EOF while parsing a string".to_owned();
        assert_eq!(case.look(), (Some(vec![1, 2, 3]), Some(failure)));
        case.write("a.json", &targets(&[4]));
        assert_eq!(case.look(), (Some(vec![4, 2, 3]), None));
    }

    #[test]
    fn a_file_that_was_never_read_adds_nothing_and_is_told() {
        let mut case = Case::new(&["*.json"]);
        case.write("a.json", "");
        let (list, failure) = case.look_twice();
        assert_eq!(list, None);
        assert!(
            failure
                .expect("told")
                .starts_with("a.json: the file is empty")
        );
        case.write("b.json", &targets(&[2]));
        let (list, failure) = case.look();
        assert_eq!(list, Some(vec![2]));
        assert!(failure.is_some());
    }

    #[test]
    fn a_file_is_forgotten_when_it_is_gone_twice() {
        let mut case = Case::new(&["*.json"]);
        case.write("a.json", &targets(&[1]));
        case.write("b.json", &targets(&[2]));
        case.look();
        case.remove("a.json");
        assert_eq!(case.look(), (Some(vec![1, 2]), None));
        case.write("a.json", &targets(&[3]));
        assert_eq!(case.look(), (Some(vec![3, 2]), None));
        case.remove("a.json");
        assert!(case.known.look(&case.paths).again);
        assert_eq!(case.look(), (Some(vec![2]), None));
        assert!(!case.known.look(&case.paths).again);
    }

    #[test]
    fn files_that_are_all_gone_empty_nothing() {
        let mut case = Case::new(&["targets/*.json"]);
        let (list, failure) = case.look();
        assert_eq!(
            (list, failure),
            (None, Some("there is no folder `targets`".into()))
        );
        case.write("targets/a.json", &targets(&[1]));
        assert_eq!(case.look(), (Some(vec![1]), None));
        case.remove("targets/a.json");
        for _ in 0..3 {
            let failure = "no file matches `targets/*.json`".to_owned();
            assert_eq!(case.look(), (Some(vec![1]), Some(failure)));
        }
        fs::remove_dir(case.folder.path().join("targets")).expect("removed");
        for _ in 0..3 {
            assert_eq!(case.look().0, Some(vec![1]));
        }
    }

    #[test]
    fn a_named_file_that_is_gone_keeps_what_it_said() {
        let mut case = Case::new(&["a.json", "b.yml"]);
        case.write("a.json", &targets(&[1]));
        case.write("b.yml", "- targets: ['10.0.0.2:80']\n");
        assert_eq!(case.look(), (Some(vec![1, 2]), None));
        case.remove("b.yml");
        assert_eq!(case.look(), (Some(vec![1, 2]), None));
        for _ in 0..3 {
            let failure = "cannot read `b.yml`: there is no such file".to_owned();
            assert_eq!(case.look(), (Some(vec![1, 2]), Some(failure)));
        }
    }

    #[test]
    fn a_file_that_says_that_there_is_nothing_is_believed() {
        let mut case = Case::new(&["a.json"]);
        case.write("a.json", &targets(&[1]));
        case.look();
        case.write("a.json", "[]");
        assert_eq!(case.look(), (Some(vec![]), None));
    }

    #[test]
    fn what_is_too_large_is_told_and_changes_nothing() {
        let mut case = Case::new(&["*.json"]);
        case.write("a.json", &targets(&[1]));
        case.look();
        let many: Vec<u8> = (0..6_000).map(|number: u32| (number % 250) as u8).collect();
        case.write("b.json", &targets(&many));
        case.write("c.json", &targets(&many));
        let failure = "the files name more than 10000 targets".to_owned();
        assert_eq!(case.look(), (None, Some(failure)));
        case.remove("c.json");
        case.write("b.json", &" ".repeat(1 << 21));
        let failure = "`b.json` is longer than 1 MiB".to_owned();
        assert_eq!(case.look_twice(), (Some(vec![1]), Some(failure)));
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        let mut case = Case::new(&["a.json", "b.json"]);
        case.write("b.json", "\u{0}");
        fs::create_dir(case.folder.path().join("a.json")).expect("made");
        let failure = "cannot read `a.json`: it is not a file (and 1 more)".to_owned();
        assert_eq!(case.look_twice(), (None, Some(failure)));
    }
}
