//! The command line.
//!
//! Exit status: 0 fine, 1 runtime failure, 2 usage, 3 invalid configuration.

mod check;
mod output;
mod routes;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Something failed while running.
const FAILED: u8 = 1;
/// The command line asks for something that is not there.
const USAGE: u8 = 2;
/// The configuration has errors.
const INVALID: u8 = 3;

/// A service-mesh sidecar gateway. Without a command it serves its built-in demonstration.
#[derive(Debug, Parser)]
#[command(name = "retort", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve; without a file, the built-in demonstration
    Run(run::Arguments),
    /// Check configurations: every problem at once, each with its place and what to do
    #[command(visible_alias = "validate", short_flag = 't')]
    Check(check::Arguments),
    /// Print the routes in their order of precedence
    Routes(routes::Arguments),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print the version
    Version,
}

/// The configuration that a command works on.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration; without it, the built-in demonstration
    #[arg(
        short = 'c',
        long = "config",
        value_name = "FILE",
        env = "RETORT_CONFIG"
    )]
    config: Option<PathBuf>,
}

impl ConfigFile {
    fn source(&self) -> crate::app::Source {
        match &self.config {
            Some(path) => crate::app::Source::File(path.clone()),
            None => crate::app::Source::quickstart(),
        }
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let command = arguments
        .command
        .unwrap_or_else(|| Command::Run(run::Arguments::default()));
    match command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Routes(arguments) => routes::routes(&arguments),
        Command::Schema => {
            let schema = crate::config::schema();
            // A schema of strings and maps always becomes text.
            let text = serde_json::to_string_pretty(&schema).unwrap_or_default();
            output::print(&(text + "\n"))
        }
        Command::Version => output::print(&format!("retort {}\n", env!("CARGO_PKG_VERSION"))),
    }
}
