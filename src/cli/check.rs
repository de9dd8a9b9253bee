//! `retort check`

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::app::{Checked, Source};
use crate::base::problem::Severity;
use crate::base::report;
use crate::cli::INVALID;
use crate::cli::output::{print, style};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configurations
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print a JSON list of problems
    #[arg(long)]
    json: bool,
    /// Warnings are errors
    #[arg(long)]
    strict: bool,
}

pub(crate) fn check(arguments: &Arguments) -> ExitCode {
    let mut text = String::new();
    let mut list = Vec::new();
    let mut invalid = false;
    for file in &arguments.files {
        let Checked { sources, problems } = crate::app::check(&Source::File(file.clone()));
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
    let plural = |number: usize, word: &str| match number {
        1 => format!("1 {word}"),
        _ => format!("{number} {word}s"),
    };
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
