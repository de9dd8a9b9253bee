//! `retort check`

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::app::{Checked, Source};
use crate::base::problem::{Problem, Severity};
use crate::base::report::{self, Style};
use crate::cli::output::{complain, print, style};
use crate::cli::{INVALID, USAGE};
use crate::lint::{self, Explanation};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configurations
    #[arg(required_unless_present = "explain", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print a JSON list of problems
    #[arg(long)]
    json: bool,
    /// Warnings are errors
    #[arg(long)]
    strict: bool,
    /// Explain a warning by its code or name, such as RT0101; `list` shows all of them
    #[arg(long, value_name = "CODE", conflicts_with_all = ["files", "json", "strict"])]
    explain: Option<String>,
}

pub(crate) fn check(arguments: &Arguments) -> ExitCode {
    if let Some(word) = &arguments.explain {
        return explain(word);
    }
    let mut text = String::new();
    let mut list = Vec::new();
    let mut invalid = false;
    for file in &arguments.files {
        let Checked {
            sources,
            problems,
            allowed,
        } = crate::app::check(&Source::File(file.clone()));
        let counts = Counts {
            errors: count(&problems, Severity::Error),
            warnings: count(&problems, Severity::Warning),
            allowed,
        };
        invalid |= counts.errors > 0 || (arguments.strict && counts.warnings > 0);
        if arguments.json {
            if let Value::Array(problems) = report::json(&problems, &sources) {
                list.extend(problems);
            }
            continue;
        }
        text += &report::render(&problems, &sources, style(&std::io::stdout()));
        if !problems.is_empty() {
            text += "\n";
        }
        text += &counts.summary(&file.display().to_string());
    }
    let printed = if arguments.json {
        print(&format!("{:#}\n", json!(list)))
    } else {
        print(&text)
    };
    if invalid {
        ExitCode::from(INVALID)
    } else {
        printed
    }
}

fn count(problems: &[Problem], severity: Severity) -> usize {
    problems
        .iter()
        .filter(|found| found.severity == severity)
        .count()
}

/// What was found in one configuration.
#[derive(Clone, Copy)]
struct Counts {
    errors: usize,
    warnings: usize,
    allowed: usize,
}

impl Counts {
    fn summary(self, file: &str) -> String {
        let plural = |number: usize, word: &str| match number {
            1 => format!("1 {word}"),
            _ => format!("{number} {word}s"),
        };
        let errors = plural(self.errors, "error");
        let warnings = plural(self.warnings, "warning");
        let found = match (self.errors, self.warnings) {
            (0, 0) => "fine".to_owned(),
            (0, _) => format!("usable, with {warnings}"),
            (_, 0) => errors,
            _ => format!("{errors}, {warnings}"),
        };
        match self.allowed {
            0 => format!("{file}: {found}\n"),
            allowed => format!("{file}: {found} ({} allowed)\n", plural(allowed, "warning")),
        }
    }
}

fn explain(word: &str) -> ExitCode {
    if word == "list" {
        return print(&overview());
    }
    match lint::find(word) {
        Ok(explanation) => print(&page(&explanation, style(&std::io::stdout()))),
        Err(told) => {
            complain(&format!("error: {told}"));
            ExitCode::from(USAGE)
        }
    }
}

/// A line for each code.
fn overview() -> String {
    let all = lint::all();
    let width = all.iter().map(|one| one.code.name().len()).max();
    let mut text = String::new();
    for Explanation { code, title, .. } in all {
        let (name, title) = (code.name(), in_one_line(title));
        let _infallible = writeln!(text, "{code}  {name:0$}  {title}", width.unwrap_or(0));
    }
    text
}

fn in_one_line(title: &str) -> String {
    title.trim_end_matches('.').replace('\n', " ")
}

/// An explanation with its examples indented, each under a word of what it is.
fn page(explanation: &Explanation, style: Style) -> String {
    let Explanation { code, title, text } = explanation;
    let (bold, plain) = match style {
        Style::Coloured => ("\u{1b}[1m", "\u{1b}[0m"),
        Style::Plain => ("", ""),
    };
    let mut page = format!("{bold}{code} {}{plain}\n\n{title}\n\n", code.name());
    let mut is_example = false;
    for line in text.lines() {
        match line {
            "```yaml bad" => {
                page += "For example:\n\n";
                is_example = true;
            }
            line if line.starts_with("```") => is_example = !is_example,
            "" => page.push('\n'),
            line if is_example => {
                let _infallible = writeln!(page, "    {line}");
            }
            line => {
                let _infallible = writeln!(page, "{line}");
            }
        }
    }
    page
}
