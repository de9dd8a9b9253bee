//! Problems as people and machines read them.
//!
//! The first line of each is `file:line:column: error: sentence`, so that editors and `grep` find
//! it, with `warning[RT0101]` for what has a code; the source line with its caret, further places and advice follow.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::{Value, json};

use super::paint;
use super::problem::{Problem, Severity, Span};
use super::source::{Source, Sources};

/// Whether the reader is a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Text alone, for files and pipes.
    Plain,
    /// With terminal colours.
    Coloured,
}

/// How far a further place may be for one excerpt to show both.
const SAME_EXCERPT: usize = 6;

/// The longest sentence or line of advice that is shown whole; what people wrote may be in it.
const LONGEST: usize = 1000;

/// All problems, one after the other, a blank line between them.
pub fn render(problems: &[Problem], sources: &Sources, style: Style) -> String {
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Coloured => Renderer::styled(),
    };
    let mut text = String::new();
    for problem in problems {
        if !text.is_empty() {
            text.push('\n');
        }
        let rendered = one(problem, sources, &renderer);
        for line in rendered.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

/// All problems as a list of maps.
pub fn json(problems: &[Problem], sources: &Sources) -> Value {
    let items = problems.iter().map(|problem| {
        let mut item = json!({
            "severity": severity(problem.severity),
            "code": problem.code.map(|code| code.to_string()),
            "message": problem.message,
            "help": problem.help,
        });
        let related = problem.related.iter().map(|(span, label)| {
            let mut item = json!({ "message": label });
            place(&mut item, *span, sources);
            item
        });
        let related: Vec<Value> = related.collect();
        if let Some(map) = item.as_object_mut() {
            map.insert("related".into(), related.into());
        }
        if let Some(span) = problem.span {
            place(&mut item, span, sources);
        }
        item
    });
    items.collect()
}

fn place(item: &mut Value, span: Span, sources: &Sources) {
    let (Some(source), Some(map)) = (sources.get(span.file), item.as_object_mut()) else {
        return;
    };
    let start = source.position(span.start as usize);
    let end = source.position(span.end as usize);
    map.insert("file".into(), source.name.as_str().into());
    map.insert("line".into(), start.line.into());
    map.insert("column".into(), start.column.into());
    map.insert("end_line".into(), end.line.into());
    map.insert("end_column".into(), end.column.into());
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn one(problem: &Problem, sources: &Sources, renderer: &Renderer) -> String {
    let word = severity(problem.severity);
    let word = match problem.code {
        Some(code) => format!("{word}[{code}]"),
        None => word.to_owned(),
    };
    let name = match problem.span {
        Some(span) => format!("{}: {word}", sources.place(span)),
        None => word,
    };
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level
        .with_name(name)
        .primary_title(shorten(&problem.message));
    let mut group = Group::with_title(title).elements(excerpts(problem, sources));
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(shorten(help)));
    }
    renderer.render(&[group])
}

/// The problem's own line, then those of further places: with it where they are near.
fn excerpts<'a>(
    problem: &'a Problem,
    sources: &'a Sources,
) -> Vec<Snippet<'a, annotate_snippets::Annotation<'a>>> {
    let Some((span, source)) = problem
        .span
        .and_then(|span| Some((span, sources.get(span.file)?)))
    else {
        return Vec::new();
    };
    let line = |span: Span| source.position(span.start as usize).line;
    let (near, far): (Vec<_>, Vec<_>) = problem.related.iter().partition(|(other, _)| {
        other.file == span.file && line(*other).abs_diff(line(span)) <= SAME_EXCERPT
    });
    let spans = near.iter().map(|(span, _)| *span).chain([span]);
    let (first, last) = spans.fold((u32::MAX, 0), |(first, last), span| {
        (first.min(span.start), last.max(span.start))
    });
    let mut own = excerpt(source, first, last).annotation(mark(
        source,
        first,
        span,
        AnnotationKind::Primary,
        problem.label.as_deref(),
    ));
    for (other, label) in near {
        own = own.annotation(mark(
            source,
            first,
            *other,
            AnnotationKind::Context,
            Some(label),
        ));
    }
    let mut all = vec![own];
    for (other, label) in far {
        if let Some(source) = sources.get(other.file) {
            let mark = mark(
                source,
                other.start,
                *other,
                AnnotationKind::Context,
                Some(label),
            );
            all.push(
                excerpt(source, other.start, other.start)
                    .path(&source.name)
                    .annotation(mark),
            );
        }
    }
    all
}

/// The whole lines from that of byte `first` to that of byte `last`: a file may be long.
fn excerpt(
    source: &Source,
    first: u32,
    last: u32,
) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
    let (first, last) = (first as usize, last as usize);
    let lines = source.line_start(first)..source.line_end(last);
    let text = source.text.get(lines).unwrap_or_default();
    Snippet::source(text).line_start(source.position(first).line)
}

/// Underlines a span within the excerpt that begins with the line of byte `first`; a span of
/// several lines is underlined on its first.
fn mark<'a>(
    source: &Source,
    first: u32,
    span: Span,
    kind: AnnotationKind,
    label: Option<&'a str>,
) -> annotate_snippets::Annotation<'a> {
    let offset = source.line_start(first as usize);
    let line_end = source.line_end(span.start as usize);
    let start = source
        .text
        .floor_char_boundary(span.start as usize)
        .min(line_end);
    let end = source
        .text
        .ceil_char_boundary(span.end as usize)
        .clamp(start, line_end);
    kind.span(start - offset..end - offset)
        .label(label.map(shorten))
}

fn shorten(text: &str) -> String {
    let short: String = text.chars().take(LONGEST).collect();
    let mut short = paint::harmless(&short);
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::base::code::Code;

    fn sources() -> Sources {
        let mut sources = Sources::default();
        let text = "listeners:\n  - name: public\n    adress: 1\n\n\n\n\n\n\n  - name: public\n";
        sources.add(Source::new("a.yaml", text));
        sources.add(Source::new("b.yaml", "- name: public\r\n"));
        sources
    }

    fn span(file: u16, start: u32, end: u32) -> Span {
        Span { file, start, end }
    }

    #[test]
    fn a_problem_names_its_place_on_its_first_line() {
        let problem = Problem::error(span(0, 32, 38), "unknown key `adress` in a listener")
            .help("did you mean `address`?");
        let expected = "\
a.yaml:3:5: error: unknown key `adress` in a listener
  |
3 |     adress: 1
  |     ^^^^^^
  |
  = help: did you mean `address`?
";
        assert_eq!(render(&[problem], &sources(), Style::Plain), expected);
    }

    #[test]
    fn far_places_have_excerpts_of_their_own() {
        let problem = Problem::warning(span(1, 8, 14), "twice")
            .label("again")
            .related(span(0, 21, 27), "first declared here");
        let text = render(&[problem], &sources(), Style::Plain);
        assert!(text.starts_with("b.yaml:1:9: warning: twice\n"), "{text}");
        assert!(text.contains("^^^^^^ again\n"), "{text}");
        assert!(text.contains("a.yaml:2:11\n"), "{text}");
        assert!(text.contains("------ first declared here\n"), "{text}");
    }

    #[test]
    fn a_problem_without_a_place_is_one_line() {
        let problem = Problem::error(None, "cannot read `x`\u{1b}[2J");
        assert_eq!(
            render(&[problem], &sources(), Style::Plain),
            "error: cannot read `x`\u{fffd}[2J\n"
        );
    }

    #[test]
    fn wild_spans_are_clamped() {
        for (file, start, end) in [(0, 9, 500), (0, 500, 400), (1, 14, 16), (7, 0, 1)] {
            let problem = Problem::error(span(file, start, end), "x").related(span(0, 999, 1), "y");
            assert!(render(&[problem], &sources(), Style::Plain).contains('x'));
        }
    }

    #[test]
    fn machines_get_places_as_numbers() {
        let problem = Problem::error(span(0, 32, 38), "m").help("h");
        let expected = json!([{
            "severity": "error", "code": null, "message": "m", "help": "h", "related": [],
            "file": "a.yaml", "line": 3, "column": 5, "end_line": 3, "end_column": 11,
        }]);
        assert_eq!(json(&[problem], &sources()), expected);
    }

    #[test]
    fn a_code_stands_in_brackets_after_the_word() {
        let problem = Problem::warning(span(0, 32, 38), "odd").code(Code::UNUSED);
        assert_eq!(
            json(slice::from_ref(&problem), &sources())[0]["code"],
            "RT0601"
        );
        let text = render(&[problem], &sources(), Style::Plain);
        assert!(
            text.starts_with("a.yaml:3:5: warning[RT0601]: odd\n"),
            "{text}"
        );
    }
}
