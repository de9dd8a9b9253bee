//! What is wrong with a file that is not YAML, in the words of people who write it.

use serde_yaml::granit_parser::{ErrorKind, ScanError};

use super::parse::too_deep;
use crate::base::problem::{Problem, Span};

/// The one problem of a file whose structure is broken.
pub(super) fn problem(error: &ScanError, file: u16, text: &str) -> Problem {
    let span = place(error, file, text);
    if *error.kind() == ErrorKind::RecursionLimitExceeded {
        return too_deep(span);
    }
    let before = text.get(..span.range().start).unwrap_or_default();
    if before.ends_with('$') && text.get(span.range()) == Some("{") {
        let message = "within braces and brackets, text with a variable needs quotes";
        return Problem::error(span, message).help("write it as in `\"127.0.0.1:${PORT}\"`");
    }
    let Some((message, help)) = words(error.kind(), text.get(span.range()).unwrap_or_default())
    else {
        return Problem::error(span, format!("this is not YAML: {}", error.kind()));
    };
    let problem = Problem::error(span, message);
    if help.is_empty() {
        problem
    } else {
        problem.help(help)
    }
}

/// One character, or the end of the text's last line.
fn place(error: &ScanError, file: u16, text: &str) -> Span {
    let at = error.marker().byte_offset().unwrap_or(0);
    let mut start = text.floor_char_boundary(at);
    let rest = text.get(start..).unwrap_or_default();
    if rest.trim().is_empty() {
        start = text.trim_end().len();
    }
    let next = text.get(start..).and_then(|rest| rest.chars().next());
    let end = start
        + next
            .filter(|c| !c.is_whitespace())
            .map_or(0, char::len_utf8);
    let byte = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Span {
        file,
        start: byte(start),
        end: byte(end),
    }
}

/// A sentence and advice for the slips that people make; others keep the parser's words.
fn words(kind: &ErrorKind, found: &str) -> Option<(String, &'static str)> {
    use ErrorKind as E;
    let (message, help) = match kind {
        E::TabNotAllowed
        | E::TabInBlockIndentation
        | E::TabInIndentation
        | E::TabInPlainScalar
        | E::TabAtBlockScalarStart => ("a tab cannot indent YAML", "indent with spaces"),
        E::UnclosedQuotedScalar | E::DocumentIndicatorInQuotedScalar => {
            ("this quote is never closed", "")
        }
        E::UnclosedFlowCollection { open } => {
            return Some((format!("this `{open}` is never closed"), ""));
        }
        E::MismatchedFlowCollectionEnd { open, close } => {
            return Some((format!("`{close}` closes what `{open}` opened"), ""));
        }
        E::MisplacedFlowCollectionEnd => {
            return Some((
                format!("`{found}` closes nothing"),
                "quote the text if it is meant as such",
            ));
        }
        E::UnexpectedEofFlowSequence | E::ExpectedFlowSequenceSeparator => (
            "expected `,` or `]` here: a list in brackets is not complete",
            "",
        ),
        E::UnexpectedEofFlowMapping
        | E::UnexpectedEofImplicitFlowMapping
        | E::ExpectedFlowMappingSeparator => (
            "expected `,` or `}` here: a map in braces is not complete",
            "within braces, text with `: `, `,` or brackets in it needs quotes",
        ),
        E::MappingValueNotAllowed | E::InvalidColonPlacement => (
            "a `:` cannot stand here: a second key on one line, or text that needs quotes",
            "put text with `: ` in it into quotes",
        ),
        E::MappingKeyNotAllowed
        | E::ExpectedBlockMappingKey
        | E::InvalidIndentation
        | E::ExpectedBlockSequenceEntry
        | E::BlockSequenceEntryNotAllowed => (
            "the indentation fits nothing above",
            "keys of one map begin in the same column, and so do the `-` of one list",
        ),
        E::SimpleKeyExpected | E::InvalidSimpleKey => (
            "expected `key: value`, but there is no `:` after the key",
            "write a space after the `:`",
        ),
        E::BlockEntryInFlowCollection => ("a `-` list cannot stand within brackets", ""),
        E::UnexpectedCharacter { .. } | E::PlainScalarStartsWithDashFlowIndicator => {
            return Some((
                format!("text cannot begin with `{found}`"),
                "put it in quotes",
            ));
        }
        E::UnknownQuotedScalarEscape
        | E::InvalidQuotedScalarHexEscape
        | E::InvalidUnicodeEscape => (
            "this is not an escape that YAML knows",
            "write `\\\\` for a backslash, or use single quotes, in which nothing is escaped",
        ),
        E::InvalidTrailingDoubleQuotedScalar | E::InvalidTrailingSingleQuotedScalar => (
            "nothing can follow the closing quote here",
            "put the whole text in quotes",
        ),
        E::MissingAnchorOrAliasName => (
            "`&` and `*` need the name of an anchor",
            "put text that begins so in quotes",
        ),
        E::CommentNotSeparated => ("a comment needs a space before its `#`", ""),
        _ => return None,
    };
    Some((message.to_owned(), help))
}
