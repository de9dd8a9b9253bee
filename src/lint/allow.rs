//! Warnings that the author of a configuration has heard and means all the same.
//!
//! A comment `# retort: allow RT0203` silences that code for what is written on its line, or on the
//! line below it. Short names do as well; several stand side by side.

use crate::base::code::Code;
use crate::base::problem::{Problem, Severity, Span};
use crate::base::source::Sources;

/// Problems, and how many more were silenced.
#[derive(Debug, Default)]
pub struct Sifted {
    /// What is left to tell.
    pub problems: Vec<Problem>,
    /// How many warnings are allowed.
    pub silenced: usize,
}

/// What introduces the codes that are allowed.
const MARK: &str = "retort: allow ";

/// Takes out the warnings that comments allow; errors cannot be.
pub fn sift(problems: Vec<Problem>, sources: &Sources) -> Sifted {
    let all = problems.len();
    let is_told = |problem: &Problem| !is_allowed(problem, sources);
    let problems: Vec<_> = problems.into_iter().filter(is_told).collect();
    let silenced = all - problems.len();
    Sifted { problems, silenced }
}

fn is_allowed(problem: &Problem, sources: &Sources) -> bool {
    let (Some(code), Some(span)) = (problem.code, problem.span) else {
        return false;
    };
    problem.severity == Severity::Warning && names(code, span, sources)
}

/// True if the line of a place, or a comment on the line above, allows the code.
fn names(code: Code, span: Span, sources: &Sources) -> bool {
    let Some(source) = sources.get(span.file) else {
        return false;
    };
    let (before, after) = source
        .text
        .split_at_checked(span.start as usize)
        .unwrap_or((&source.text, ""));
    let mut above = before.rsplit('\n');
    let own = above.next().unwrap_or_default();
    let rest = after.split('\n').next().unwrap_or_default();
    let above = above.next().unwrap_or_default().trim_start();
    let is_comment = above.starts_with('#');
    allows(own, code) || allows(rest, code) || is_comment && allows(above, code)
}

/// True if a line has a comment that allows the code.
fn allows(line: &str, code: Code) -> bool {
    let comment = line.split_once('#').map_or("", |(_, comment)| comment);
    let Some((_, words)) = comment.split_once(MARK) else {
        return false;
    };
    let words = words.split([' ', ',', '#']).map(str::trim);
    words.filter_map(Code::find).any(|allowed| allowed == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_allows_what_stands_beside_or_below_it() {
        let check = |line: &str, silenced: usize| {
            let yaml = format!(
                "listeners: [{{name: a, address: \"127.0.0.1:1\"}}]\nroutes:\n{line}\n  - {{name: b, match: {{path: /}}, handler: {{respond: {{body: x}}}}}}\n"
            );
            let loaded = crate::config::parse("test.yaml", &yaml, &|_| None);
            let config = loaded.config.expect(line);
            let sifted = sift(crate::lint::lint(&config), &loaded.sources);
            assert_eq!(
                (sifted.problems.len(), sifted.silenced),
                (1 - silenced, silenced),
                "{line}"
            );
        };
        let route = "  - {name: a, match: {path_regex: \"/a\"}, handler: {respond: {body: x}}}";
        check(route, 0);
        check(&format!("{route}  # retort: allow RT0109"), 1);
        check(&format!("{route}  # retort: allow needless-regex"), 1);
        check(&format!("{route}  # retort: allow RT0101, rt0109"), 1);
        check(&format!("{route}  # retort: allow RT0101"), 0);
        check(&format!("  # retort: allow RT0109\n{route}"), 1);
        check(&format!("  # retort: allow RT0109\n\n{route}"), 0);
    }
}
