//! `retort test`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::app::{Source, Tested};
use crate::base::paint::Paint;
use crate::base::report::{self, Style};
use crate::base::values::Share;
use crate::cli::output::{complain, print, style};
use crate::cli::{FAILED, INVALID, UNMET};
use crate::explain::trial::{self, Coverage, Report, Verdict};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configurations
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Run only the tests whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Fail if the tests reach a smaller share of the rules, such as 80%
    #[arg(long, value_name = "SHARE", value_parser = share)]
    fail_under: Option<f64>,
    /// Write the results to a file as JUnit's XML, too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

fn share(text: &str) -> Result<f64, String> {
    text.parse::<Share>().map(|share| share.0)
}

pub(crate) fn test(arguments: &Arguments) -> ExitCode {
    let mut all = Vec::new();
    for file in &arguments.files {
        match crate::app::test(&Source::File(file.clone()), &arguments.filter) {
            Ok(tested) => all.push((file.display().to_string(), tested)),
            Err(rejected) => {
                complain(&rejected.report);
                return ExitCode::from(INVALID);
            }
        }
    }
    let style = style(&std::io::stdout());
    let mut text = String::new();
    let mut met = true;
    for (file, tested) in &all {
        let coverage = &tested.report.coverage;
        let enough = arguments
            .fail_under
            .is_none_or(|least| coverage.share() >= least);
        met &= enough && tested.report.verdicts.iter().all(Verdict::passes);
        text += &render(tested, style);
        text += &summary(file, &tested.report);
        text += &missed(coverage, tested);
        if let (false, Some(least)) = (enough, arguments.fail_under) {
            let (share, least) = (coverage.share() * 100.0, least * 100.0);
            let short =
                format!("the tests reach {share:.0} % of the rules, less than {least:.0} %");
            text.extend([file, ": ", &short, "\n"]);
        }
    }
    let printed = print(&text);
    if let Some(path) = &arguments.junit {
        let reports: Vec<_> = all
            .iter()
            .map(|(file, tested)| (file.clone(), &tested.report, &tested.sources))
            .collect();
        if let Err(error) = std::fs::write(path, trial::junit(&reports)) {
            complain(&format!("{} cannot be written: {error}", path.display()));
            return ExitCode::from(FAILED);
        }
    }
    if met { printed } else { ExitCode::from(UNMET) }
}

/// A line a test, and below those that fail what was not as expected.
fn render(tested: &Tested, style: Style) -> String {
    let paint = Paint::new(style);
    let mut text = String::new();
    for one in &tested.report.verdicts {
        let word = if one.passes() {
            paint.green("ok  ")
        } else {
            paint.red("FAIL")
        };
        text.extend([&word, " ", &one.name, &in_brackets(one), "\n"]);
        if !one.passes() {
            text += "\n";
            text += &report::render(&one.problems, &tested.sources, style);
            text += "\n";
        }
    }
    text
}

/// What is remarkable about a test that ran.
fn in_brackets(one: &Verdict) -> String {
    let mut facts = Vec::new();
    if one.requests != 1 {
        facts.push(format!("{} requests", one.requests));
    }
    if one.took >= Duration::from_millis(1) {
        facts.push(format!("{:?} on its clock", rounded(one.took)));
    }
    if facts.is_empty() {
        String::new()
    } else {
        format!(" ({})", facts.join(", "))
    }
}

fn rounded(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn summary(file: &str, report: &Report) -> String {
    let all = report.verdicts.len();
    let failed = report.verdicts.iter().filter(|one| !one.passes()).count();
    let share = report.coverage.share() * 100.0;
    let rules = report.coverage.all();
    let reached = rules - report.coverage.missed().count();
    let plural = if all == 1 { "test" } else { "tests" };
    let outcome = match failed {
        0 => format!("{all} {plural} passed"),
        _ => format!("{failed} of {all} {plural} failed"),
    };
    format!("{file}: {outcome}; {reached} of {rules} rules reached ({share:.0} %)\n")
}

/// The rules that no test has reached.
fn missed(coverage: &Coverage, tested: &Tested) -> String {
    let line = |rule: &trial::Rule| {
        format!(
            "  not reached: {} at {}\n",
            rule.name,
            tested.sources.place(rule.span)
        )
    };
    coverage.missed().map(line).collect()
}
