//! The log of the process itself: what operators did, what recovered, what needs a human.
//!
//! It goes to standard error, so that standard output is the access log's alone.
//! `RETORT_LOG` holds the level or directives (`info`, `warn,retort::upstream=debug`),
//! `RETORT_LOG_FORMAT` is `text` (the default) or `json`.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How entries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One line for people; coloured on a terminal, unless `NO_COLOR` is set.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the environment asks for.
#[derive(Debug)]
pub struct Settings {
    format: Format,
    filter: EnvFilter,
}

impl Settings {
    /// Reads `RETORT_LOG` and `RETORT_LOG_FORMAT`.
    ///
    /// # Errors
    /// When either holds something that is not understood; a sentence that names the variable.
    pub fn from_env() -> Result<Self, String> {
        let read = |name: &str| std::env::var(name).unwrap_or_default();
        Self::parse(&read("RETORT_LOG"), &read("RETORT_LOG_FORMAT"))
    }

    fn parse(levels: &str, format: &str) -> Result<Self, String> {
        let format = match format.trim() {
            "" | "text" => Format::Text,
            "json" => Format::Json,
            other => {
                return Err(format!(
                    "RETORT_LOG_FORMAT is `{other}`: set it to `text` or `json`"
                ));
            }
        };
        let levels = match levels.trim() {
            "" => "info",
            other => other,
        };
        let filter = EnvFilter::builder().parse(levels).map_err(|error| {
            format!(
                "RETORT_LOG is `{levels}`: set it to `error`, `warn`, `info`, `debug`, `trace`, or directives such as `warn,retort::upstream=debug` ({error})"
            )
        })?;
        Ok(Self { format, filter })
    }
}

/// Starts logging, for the whole process.
///
/// # Errors
/// When a program that embeds the gateway has set a logger of its own already.
pub fn start(settings: Settings) -> Result<(), String> {
    subscriber(settings, io::stderr)
        .try_init()
        .map_err(|_| "a logger is set already: the gateway logs to that one".to_owned())
}

fn subscriber<W>(settings: Settings, writer: W) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(settings.filter)
        .with_writer(writer)
        .with_ansi(colour);
    match settings.format {
        Format::Text => Box::new(builder.finish()),
        Format::Json => Box::new(builder.json().flatten_event(true).finish()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn what_is_not_understood_names_the_variable() {
        let check = |levels: &str, format: &str, name: &str| {
            let error = Settings::parse(levels, format).expect_err(name);
            assert!(error.starts_with(name), "{error}");
        };
        check("", "yaml", "RETORT_LOG_FORMAT is `yaml`");
        check("retort=loud", "", "RETORT_LOG is `retort=loud`");
        for levels in ["", "warn", "warn,retort::upstream=debug", "off"] {
            assert!(Settings::parse(levels, "json").is_ok(), "{levels}");
        }
    }

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .expect("not poisoned")
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn json_entries_are_objects_with_their_fields() {
        let memory = Memory::default();
        let (settings, writer) = (Settings::parse("info", "json"), memory.clone());
        let subscriber = subscriber(settings.expect("valid"), move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(revision = 7, "configuration applied");
            tracing::debug!("not shown");
        });
        let bytes = memory.0.lock().expect("not poisoned").clone();
        let entry: serde_json::Value = serde_json::from_slice(&bytes).expect("one object");
        assert_eq!(entry["message"], "configuration applied");
        assert_eq!(entry["revision"], 7);
        assert_eq!(entry["level"], "INFO");
    }
}
