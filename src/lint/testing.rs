//! What the tests of the rules have in common.

use crate::base::code::Code;
use crate::base::report::{self, Style};
use crate::config::{self, Config};

fn env(name: &str) -> Option<String> {
    (name == "TOKEN").then(|| "from-the-environment".to_owned())
}

/// A configuration that must be valid.
#[track_caller]
pub(super) fn read(yaml: &str) -> Config {
    let loaded = config::parse("test.yaml", yaml, &env);
    let said = report::render(&loaded.problems, &loaded.sources, Style::Plain);
    loaded.config.unwrap_or_else(|| panic!("{yaml}\n{said}"))
}

/// What the rules find: each code with what is underlined.
#[track_caller]
pub(super) fn found(yaml: &str) -> Vec<(Code, String)> {
    let problems = super::lint(&read(yaml));
    let underlined = problems.into_iter().map(|problem| {
        let span = problem.span.expect("every rule knows its place");
        let text = yaml.get(span.range()).expect("a place in the text");
        let code = problem.code.expect("every rule has a code");
        assert!(problem.help.is_some(), "{code} gives no advice");
        (code, text.to_owned())
    });
    underlined.collect()
}

/// A listener, so that there is one, in front of the rest.
pub(super) const PUBLIC: &str = "listeners: [{name: public, address: \"127.0.0.1:8080\"}]\n";

/// Checks that one code is found at one place, or nothing at all.
#[track_caller]
pub(super) fn check(yaml: &str, expected: Option<(Code, &str)>) {
    let expected: Vec<_> = expected
        .map(|(code, at)| (code, at.to_owned()))
        .into_iter()
        .collect();
    assert_eq!(found(yaml), expected, "{yaml}");
}
