//! `retort check`

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::app::{Checked, Source};
use crate::base::code::Code;
use crate::base::problem::Severity;
use crate::base::report;
use crate::base::suggest;
use crate::cli::output::{aligned, complain, print, style};
use crate::cli::{INVALID, USAGE};
use crate::lint;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configurations
    #[arg(required_unless_present = "explain", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Say what a code such as RT0203 means, and what to write instead; `all` lists the codes
    #[arg(long, value_name = "CODE", conflicts_with = "files")]
    explain: Option<String>,
    /// Print a JSON list of problems
    #[arg(long)]
    json: bool,
    /// Warnings are errors
    #[arg(long)]
    strict: bool,
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
            silenced,
        } = crate::app::check(&Source::File(file.clone()));
        let errors = count(&problems, Severity::Error);
        let warnings = count(&problems, Severity::Warning);
        let fails = errors > 0 || (arguments.strict && warnings > 0);
        invalid |= fails;
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
        text += &summary(&file.display().to_string(), errors, warnings);
        if silenced > 0 {
            // The line ends with its own end.
            text.pop();
            text.extend([" (", &plural(silenced, "warning"), " allowed)\n"]);
        }
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

fn count(problems: &[crate::base::problem::Problem], severity: Severity) -> usize {
    problems
        .iter()
        .filter(|found| found.severity == severity)
        .count()
}

fn summary(file: &str, errors: usize, warnings: usize) -> String {
    match (errors, warnings) {
        (0, 0) => format!("{file}: fine\n"),
        (0, _) => format!("{file}: usable, with {}\n", plural(warnings, "warning")),
        (_, 0) => format!("{file}: {}\n", plural(errors, "error")),
        _ => format!(
            "{file}: {}, {}\n",
            plural(errors, "error"),
            plural(warnings, "warning")
        ),
    }
}

fn plural(number: usize, word: &str) -> String {
    match number {
        1 => format!("1 {word}"),
        _ => format!("{number} {word}s"),
    }
}

/// What a code means.
fn explain(word: &str) -> ExitCode {
    if word == "all" {
        let lines = lint::all()
            .iter()
            .map(|one| [one.code.to_string(), one.title.to_owned()]);
        return print(&aligned(&lines.collect::<Vec<_>>()));
    }
    match Code::find(word).and_then(lint::find) {
        Some(explanation) => print(&explanation.page()),
        None => {
            let names = Code::ALL.iter().map(|code| code.name());
            let advice = suggest::advice(word, names).map(|advice| format!(": {advice}"));
            let advice = advice.unwrap_or_else(|| ": `--explain all` lists them".to_owned());
            complain(&format!("error: there is no code `{word}`{advice}"));
            ExitCode::from(USAGE)
        }
    }
}
