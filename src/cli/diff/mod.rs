//! `retort diff`

mod json;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::diff::{NotComparable, diff as compare};
use crate::app::{Checked, Source};
use crate::base::paint::Paint;
use crate::base::report;
use crate::cli::output::{complain, print, style};
use crate::cli::{INVALID, UNMET};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration that runs
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The configuration that would be applied
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    /// Exit with 4 if anything differs
    #[arg(long)]
    exit_code: bool,
}

pub(crate) fn diff(arguments: &Arguments) -> ExitCode {
    let [old, new] = [&arguments.old, &arguments.new].map(|path| Source::File(path.clone()));
    let diff = match compare(&old, &new) {
        Ok(diff) => diff,
        Err(broken) => return refuse(arguments, &broken),
    };
    let printed = print(&if arguments.json {
        format!("{:#}\n", json::of(&diff))
    } else {
        text::of(&diff, Paint::new(style(&std::io::stdout())))
    });
    if arguments.exit_code && !diff.is_empty() {
        ExitCode::from(UNMET)
    } else {
        printed
    }
}

fn refuse(arguments: &Arguments, broken: &NotComparable) -> ExitCode {
    let all = [(&arguments.old, &broken.old), (&arguments.new, &broken.new)];
    if arguments.json {
        print(&format!("{:#}\n", json::refused(broken)));
    } else {
        for (
            file,
            Checked {
                sources, problems, ..
            },
        ) in all
            .iter()
            .filter_map(|(file, of)| Some((file, of.as_ref()?)))
        {
            complain(&report::render(
                problems,
                sources,
                style(&std::io::stderr()),
            ));
            complain(&format!("{}: the configuration has errors", file.display()));
        }
        complain("nothing was compared, and nothing of this would be applied");
    }
    ExitCode::from(INVALID)
}
