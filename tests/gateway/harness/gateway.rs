//! The real binary, started on free ports and told to stop when the test is over.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use tempfile::TempDir;

use super::metrics::Metrics;
use super::program::Program;
use super::{Answer, PATIENCE, eventually, get, soon};

/// A running gateway.
pub(crate) struct Gateway {
    program: Program,
    addresses: BTreeMap<String, String>,
    file: PathBuf,
    dir: TempDir,
}

impl Gateway {
    /// Starts it with a configuration in which sections may be missing: see [`complete`].
    #[track_caller]
    pub(crate) fn start(yaml: impl AsRef<str>) -> impl Future<Output = Self> {
        let place = std::panic::Location::caller();
        let yaml = yaml.as_ref().to_owned();
        async move {
            let dir = TempDir::new().expect("a folder");
            let file = dir.path().join("retort.yaml");
            fs::write(&file, complete(&yaml)).expect("a file");
            match Self::launch(dir, file, &[], "exec \"$@\"").await {
                Ok(gateway) => gateway,
                Err(output) => panic!("{place}: the gateway did not start:\n{output}"),
            }
        }
    }

    /// Starts it in a folder of the test's own, with a file that is there.
    pub(crate) async fn start_in(dir: TempDir, file: PathBuf) -> Self {
        Self::launch(dir, file, &[], "exec \"$@\"")
            .await
            .unwrap_or_else(|output| panic!("the gateway did not start:\n{output}"))
    }

    /// Starts it with variables in its environment.
    pub(crate) async fn start_with(yaml: &str, variables: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().expect("a folder");
        let file = dir.path().join("retort.yaml");
        fs::write(&file, complete(yaml)).expect("a file");
        Self::launch(dir, file, variables, "exec \"$@\"")
            .await
            .unwrap_or_else(|output| panic!("the gateway did not start:\n{output}"))
    }

    /// Starts it by a shell script that ends in `exec "$@"`, with limits of the process set before.
    pub(crate) async fn start_through(script: &str, yaml: &str) -> Self {
        let dir = TempDir::new().expect("a folder");
        let file = dir.path().join("retort.yaml");
        fs::write(&file, complete(yaml)).expect("a file");
        Self::launch(dir, file, &[], script)
            .await
            .unwrap_or_else(|output| panic!("the gateway did not start:\n{output}"))
    }

    async fn launch(
        dir: TempDir,
        file: PathBuf,
        variables: &[(&str, &str)],
        script: &str,
    ) -> Result<Self, String> {
        let mut command = std::process::Command::new("sh");
        command
            .args(["-c", script, "sh", env!("CARGO_BIN_EXE_retort")])
            .arg("run")
            .arg("-c")
            .arg(&file)
            .env("NO_COLOR", "1");
        command.current_dir(dir.path());
        command.envs(variables.iter().copied());
        let program = Program::start("retort", command);
        let started = program.errors.find(is_ready);
        match tokio::time::timeout(PATIENCE, started).await {
            Ok(Some(_)) => {}
            _ => return Err(program.errors.text()),
        }
        let addresses = program
            .errors
            .lines()
            .iter()
            .filter_map(|line| listening(line))
            .collect();
        Ok(Self {
            program,
            addresses,
            file,
            dir,
        })
    }

    /// Where a listener, `telemetry` or `admin` is bound.
    #[track_caller]
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let address = self.addresses.get(name).unwrap_or_else(|| {
            panic!("`{name}` is not among {:?}", self.addresses);
        });
        address.parse().expect("an address")
    }

    /// Where the listener `public` is bound.
    #[track_caller]
    pub(crate) fn public(&self) -> SocketAddr {
        self.address("public")
    }

    /// A GET to the listener `public`.
    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> impl Future<Output = Answer> + use<> {
        get(self.public(), target)
    }

    /// A GET to the telemetry port.
    #[track_caller]
    pub(crate) fn telemetry(&self, target: &str) -> impl Future<Output = Answer> + use<> {
        get(self.address("telemetry"), target)
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics::parse(&self.telemetry("/metrics").await.text())
    }

    /// Waits until a metric has a value; a request is counted after its last byte was sent.
    #[track_caller]
    pub(crate) fn counts(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        value: f64,
    ) -> impl Future<Output = Metrics> {
        let what = format!("{name}{labels:?} to be {value}");
        eventually(
            what,
            || self.metrics(),
            move |metrics| (metrics.sum(name, labels) - value).abs() < 1e-9,
        )
    }

    /// Waits until a metric is no less than a value.
    pub(crate) async fn counts_at_least(&self, name: &str, value: f64) -> Metrics {
        let is_enough = move |metrics: &Metrics| metrics.sum(name, &[]) >= value;
        eventually(
            format!("{name} to be {value}"),
            || self.metrics(),
            is_enough,
        )
        .await
    }

    /// Waits until so many requests were answered with a flag.
    #[track_caller]
    pub(crate) fn flagged(&self, flag: &str, times: u32) -> impl Future<Output = Metrics> {
        let (name, flag) = ("retort_http_requests_total".to_owned(), flag.to_owned());
        let what = format!("{times} requests with flag {flag}");
        eventually(
            what,
            || self.metrics(),
            move |metrics| (metrics.sum(&name, &[("flag", &flag)]) - f64::from(times)).abs() < 0.5,
        )
    }

    /// Puts a new configuration in the old one's place, in one step, and waits until the gateway has
    /// taken or refused it.
    pub(crate) async fn reload(&self, yaml: &str) -> Metrics {
        self.reload_as_it_is(&complete(yaml)).await
    }

    /// The same with a text to which no section is added.
    pub(crate) async fn reload_as_it_is(&self, text: &str) -> Metrics {
        let outcomes = |metrics: &Metrics| metrics.sum("retort_config_reloads_total", &[]);
        let before = outcomes(&self.metrics().await);
        self.replace(text);
        let after = move |metrics: &Metrics| outcomes(metrics) > before;
        eventually("a reload", || self.metrics(), after).await
    }

    /// Puts a new configuration in the old one's place, in one step.
    pub(crate) fn write(&self, yaml: &str) {
        self.replace(&complete(yaml));
    }

    fn replace(&self, text: &str) {
        let new = self.dir.path().join("retort.yaml.new");
        fs::write(&new, text).expect("a file");
        fs::rename(&new, &self.file).expect("a file in place");
    }

    /// Sends a signal, by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        self.program.signal(name);
    }

    /// Waits for the process to end.
    pub(crate) async fn exited(&mut self) -> ExitStatus {
        self.program.exited().await
    }

    /// Waits for a line of the log.
    #[track_caller]
    pub(crate) fn logs(&self, words: &str) -> impl Future<Output = String> {
        let found = self.program.errors.find_text(words);
        let what = format!("{words:?} in the log");
        async move { soon(&what, found).await.expect(&what) }
    }

    /// Waits until so many lines of the log have these words.
    #[track_caller]
    pub(crate) fn logs_times(&self, words: &str, times: usize) -> impl Future<Output = ()> {
        let what = format!("{times} lines with {words:?} in the log");
        let (errors, words) = (self.program.errors.clone(), words.to_owned());
        let count = move || {
            let lines = errors.lines();
            let count = lines.iter().filter(|line| line.contains(&words)).count();
            async move { count }
        };
        let counted = eventually(what, count, move |count| *count >= times);
        async move {
            counted.await;
        }
    }

    /// Waits for a line on standard output, where the access log goes.
    #[track_caller]
    pub(crate) fn prints(&self, words: &str) -> impl Future<Output = String> {
        let found = self.program.output.find_text(words);
        let what = format!("{words:?} on standard output");
        async move { soon(&what, found).await.expect(&what) }
    }

    /// CPU time used so far.
    pub(crate) fn cpu(&self) -> Duration {
        self.program.cpu()
    }

    /// Memory in use, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.program.memory()
    }
}

/// Adds the sections that a test does not care about: free ports, two workers, a short drain.
pub(crate) fn complete(yaml: &str) -> String {
    let has = |key: &str| yaml.lines().any(|line| line.starts_with(key));
    let mut whole = String::new();
    for (key, section) in [
        ("runtime:", "runtime: {workers: 2, drain: 10s}\n"),
        ("admin:", "admin: {address: \"127.0.0.1:0\"}\n"),
        (
            "telemetry:",
            "telemetry: {address: \"127.0.0.1:0\", access_log: {format: json, output: stdout}}\n",
        ),
        (
            "listeners:",
            "listeners: [{name: public, address: \"127.0.0.1:0\"}]\n",
        ),
    ] {
        if !has(key) {
            whole.push_str(section);
        }
    }
    whole + yaml
}

fn is_ready(line: &str) -> bool {
    line.contains("revision=") && line.split_whitespace().any(|word| word == "ready")
}

/// The name and address of a line such as `listening name=public address=127.0.0.1:43123`.
fn listening(line: &str) -> Option<(String, String)> {
    let rest = line.split_once("listening ")?.1;
    let value = |key: &str| {
        let value = rest
            .split_whitespace()
            .find_map(|word| word.strip_prefix(key))?;
        Some(value.trim_matches('"').to_owned())
    };
    Some((value("name=")?, value("address=")?))
}
