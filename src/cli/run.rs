//! `retort run`

use std::process::ExitCode;

use crate::app::{Gateway, NotStarted, Options, Signals, Source, Watch};
use crate::cli::output::complain;
use crate::cli::{ConfigFile, FAILED, INVALID};
use crate::telemetry::log;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Reload when the configuration's files change
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    watch: bool,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            config: ConfigFile {
                config: std::env::var_os("RETORT_CONFIG").map(Into::into),
            },
            watch: true,
        }
    }
}

/// What to try with the demonstration.
const WELCOME: &str = "\
Retort serves its built-in demonstration. Try:
  curl http://127.0.0.1:8080/hello/world      a handler inside the gateway
  curl http://127.0.0.1:8080/echo -d 'hi'     what arrives, after the middlewares
  curl -i http://127.0.0.1:8080/limited       a rate limit: the third in a row gets 429
  curl http://127.0.0.1:15020/metrics         what Prometheus sees
  curl 'http://127.0.0.1:15020/readyz?verbose'
Your own configuration: retort run -c FILE; check it first: retort check FILE";

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if let Err(error) = log::Settings::from_env().and_then(log::start) {
        complain(&format!("the log cannot be set up: {error}"));
        return ExitCode::from(FAILED);
    }
    let source = arguments.config.source();
    let demonstration = matches!(source, Source::Text { .. });
    let options = Options {
        watch: if arguments.watch {
            Watch::Files
        } else {
            Watch::Nothing
        },
        signals: Signals::Take,
        ..Options::default()
    };
    match Gateway::start(source, options) {
        Ok(gateway) => {
            if demonstration {
                complain(WELCOME);
            }
            gateway.wait();
            ExitCode::SUCCESS
        }
        Err(NotStarted::Rejected(rejected)) => {
            complain(&rejected.report);
            complain("the configuration has errors; nothing was started");
            ExitCode::from(INVALID)
        }
        Err(error) => {
            complain(&format!("error: {error}"));
            ExitCode::from(FAILED)
        }
    }
}
