//! `# retort: allow RT0101` in the configuration: this is meant, say no more of it.
//!
//! It holds for what is underlined in its own line, or in the first line below it that is no comment.
//! Several codes or short names may follow, and then words for other people. Errors cannot be allowed.

use crate::base::code::Code;
use crate::base::problem::{Problem, Severity, Span};
use crate::base::source::{Source, Sources};

/// What is left of a list of problems.
#[derive(Debug)]
pub struct Sifted {
    /// Those that nobody has allowed.
    pub problems: Vec<Problem>,
    /// How many were allowed.
    pub allowed: usize,
}

/// Takes out what comments in the sources allow.
pub fn sift(mut problems: Vec<Problem>, sources: &Sources) -> Sifted {
    let before = problems.len();
    problems.retain(|problem| !is_allowed(problem, sources));
    Sifted {
        allowed: before - problems.len(),
        problems,
    }
}

fn is_allowed(problem: &Problem, sources: &Sources) -> bool {
    let (Severity::Warning, Some(code), Some(span)) =
        (problem.severity, problem.code, problem.span)
    else {
        return false;
    };
    let source = sources.get(span.file);
    source.is_some_and(|source| comments(source, span).any(|comment| allows(comment, code)))
}

/// The comment of the line in which a span begins, and those of the lines above that are nothing else.
fn comments(source: &Source, span: Span) -> impl Iterator<Item = &str> {
    let start = span.start as usize;
    let line_start = source.line_start(start);
    let own = source.text.get(line_start..source.line_end(start));
    let own = own.and_then(|line| line.rfind(MARK).and_then(|at| line.get(at..)));
    let above = source.text.get(..line_start).unwrap_or_default();
    let above = above
        .lines()
        .rev()
        .map(str::trim)
        .take_while(|line| line.starts_with('#'));
    own.into_iter().chain(above)
}

/// How such a comment begins.
const MARK: &str = "# retort: allow ";

fn allows(comment: &str, code: Code) -> bool {
    let Some(words) = comment.strip_prefix(MARK) else {
        return false;
    };
    let words = words.split([' ', ',']).filter(|word| !word.is_empty());
    words.map_while(Code::find).any(|allowed| allowed == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many warnings stay of one that is at the first `!` of a text.
    fn stays(text: &str) -> bool {
        let at = u32::try_from(text.find('!').expect("a place")).expect("a short text");
        let span = Span {
            file: 0,
            start: at,
            end: at + 1,
        };
        let mut sources = Sources::default();
        sources.add(Source::new("a.yaml", text));
        let warning = Problem::warning(span, "x").code(Code::UNUSED);
        let error = Problem {
            severity: Severity::Error,
            ..warning.clone()
        };
        let plain = Problem::warning(span, "x");
        let Sifted { problems, allowed } = sift(vec![warning, error, plain], &sources);
        assert_eq!(problems.len() + allowed, 3);
        assert!(problems.len() >= 2, "errors and what has no code stay");
        problems.len() == 3
    }

    #[test]
    fn a_warning_is_allowed_in_its_line_or_right_above() {
        let rows = |text: &str, expected: bool| assert_eq!(stays(text), expected, "{text}");
        rows("a: ! # retort: allow RT0601", false);
        rows("a: ! # retort: allow unused", false);
        rows("a: ! # retort: allow RT0101, rt0601 until May", false);
        rows("  # retort: allow RT0601\n  a: !", false);
        rows("# retort: allow RT0601\r\n# why\r\na: !\r\n", false);
        rows("a: ! # retort: allow RT0602", true);
        rows("a: ! # retort: allow nothing RT0601", true);
        rows("a: ! # RT0601", true);
        rows("# retort: allow RT0601\n\na: !", true);
        rows("# retort: allow RT0601\nb: c\na: !", true);
        rows("a: !\n# retort: allow RT0601", true);
        rows("a: !", true);
    }
}
