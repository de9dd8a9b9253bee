//! What each code means, why it matters and what to write instead: for `retort check --explain` and for
//! the page in `docs/`, which are made of the same texts.
//!
//! A page here is a subject. Below `### RT0101 shadowed-match` comes one sentence, then the rest; a test
//! holds that every code has a text, that its bad example gets the warning and its good one none.

use std::fmt::Write as _;

use crate::base::code::Code;
use crate::base::suggest;

/// Subjects and their texts, in the order of their hundreds.
const PAGES: [(&str, &str); 6] = [
    ("Routing", include_str!("pages/routing.md")),
    ("Time", include_str!("pages/time.md")),
    ("Failures", include_str!("pages/failures.md")),
    ("Security", include_str!("pages/security.md")),
    ("Resources", include_str!("pages/resources.md")),
    ("Without effect", include_str!("pages/unused.md")),
];

/// What a code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// The code.
    pub code: Code,
    /// One sentence.
    pub title: &'static str,
    /// The rest, in Markdown.
    pub text: &'static str,
}

/// Every explanation, in the order of the codes.
pub fn all() -> Vec<Explanation> {
    let pages = PAGES.iter();
    pages.flat_map(|(_, page)| explanations(page)).collect()
}

fn explanations(page: &'static str) -> impl Iterator<Item = Explanation> {
    page.split("### ").filter_map(|section| {
        let (heading, text) = section.split_once("\n\n")?;
        let (title, text) = text.split_once("\n\n")?;
        Some(Explanation {
            code: Code::find(heading.split(' ').next()?)?,
            title,
            text: text.trim_end(),
        })
    })
}

/// The explanation of a code or a short name, in upper or lower case.
///
/// # Errors
/// What to write instead, for a word that is neither.
pub fn find(word: &str) -> Result<Explanation, String> {
    let known = Code::find(word);
    let found = all().into_iter().find(|one| Some(one.code) == known);
    found.ok_or_else(|| {
        let lower = word.to_ascii_lowercase();
        let codes: Vec<String> = Code::ALL.iter().map(ToString::to_string).collect();
        let names = Code::ALL.iter().map(|code| code.name());
        // Most codes are near to each other: only of a name can be told which one was meant.
        let advice = match suggest::nearest(&lower, names) {
            Some(near) if !codes.iter().any(|code| code == near) => {
                format!("did you mean `{near}`?")
            }
            _ => "`retort check --explain list` shows them all".to_owned(),
        };
        format!("there is no code `{word}`: {advice}")
    })
}

/// All of them with a table of contents, for the documentation.
pub fn markdown() -> String {
    let mut text = String::from("| code | name | says |\n|---|---|---|\n");
    for Explanation { code, title, .. } in all() {
        let number = code.to_string();
        let (anchor, name) = (number.to_ascii_lowercase(), code.name());
        let title = title.trim_end_matches('.').replace('\n', " ");
        let _infallible = writeln!(
            text,
            "| [{number}](#{anchor}-{name}) | `{name}` | {title} |"
        );
    }
    for (subject, page) in PAGES {
        let _infallible = write!(text, "\n## {subject}\n\n{}\n", page.trim());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::base::report::{self, Style};
    use crate::config;
    use crate::lint::{lint, sift};

    #[test]
    fn every_code_is_explained_once_and_in_order() {
        let explained: Vec<Code> = all().iter().map(|one| one.code).collect();
        assert_eq!(explained, Code::ALL);
        for ((_, page), group) in PAGES.iter().zip(1..) {
            for Explanation { code, title, text } in explanations(page) {
                assert_eq!(code.group(), group, "{code}");
                assert!(page.contains(&format!("### {code} {}\n", code.name())));
                assert!(title.ends_with('.') && !text.is_empty(), "{code}");
            }
        }
    }

    /// What is said of the block of that kind in an explanation.
    fn said(one: &Explanation, kind: &str) -> (Vec<Option<Code>>, String) {
        let fence = format!("```yaml {kind}\n");
        let mut blocks = one.text.split(&*fence).skip(1);
        let block = blocks.next().and_then(|rest| rest.split("```").next());
        let block = block.unwrap_or_else(|| panic!("{} has no {kind} example", one.code));
        assert!(blocks.next().is_none(), "{}", one.code);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("retort.yaml");
        fs::write(&path, block).expect("a file");
        let loaded = config::load(&path, &|_| None);
        let mut problems = loaded.problems;
        problems.extend(loaded.config.iter().flat_map(lint));
        let problems = sift(problems, &loaded.sources).problems;
        let text = report::render(&problems, &loaded.sources, Style::Plain);
        (problems.iter().map(|problem| problem.code).collect(), text)
    }

    #[test]
    fn bad_examples_get_their_warning_and_good_ones_none() {
        for one in all() {
            let (codes, text) = said(&one, "bad");
            assert_eq!(codes, [Some(one.code)], "{}\n{text}", one.code);
            let (codes, text) = said(&one, "good");
            assert_eq!(codes, [], "{}\n{text}", one.code);
        }
    }

    #[test]
    fn who_asks_for_what_is_not_there_is_told_what_is() {
        let check = |word: &str, expected: &str| {
            let told = find(word).expect_err(word);
            assert!(told.contains(expected), "{told}");
        };
        check("shadow-match", "did you mean `shadowed-match`?");
        check("RT9999", "--explain list");
        check("", "--explain list");
        assert_eq!(find("rt0601").map(|one| one.code), Ok(Code::UNUSED));
    }
}
