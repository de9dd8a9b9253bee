//! The Kubernetes Gateway API's own conformance tables, replayed against the real binary.
//!
//! Each test of the table becomes a configuration of ours by [`translate`], as a control plane would
//! make it; its cases are sent and judged by [`replay`]. What cannot be replayed is skipped with its
//! reason, and the number of cases that are may not shrink.

mod mirrors;
mod replay;
mod translate;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{Gateway, Upstream, project};

/// How many cases are replayed today; raise it with every feature that makes it more.
const REPLAYED: usize = 263;

/// Tests whose subject is not there yet, or is not a gateway's: a part of the name, and why.
const SKIPPED: &[(&str, &str)] = &[
    ("HTTPS", "TLS listeners come later"),
    (
        "Retry",
        "its requests are made by code that the table does not have: see retries.rs",
    ),
    (
        "HTTPRouteServiceTypes",
        "kinds of Kubernetes services: their discovery comes later",
    ),
    (
        "GRPCRouteRequestHeaderModifier",
        "three of its rules have the same match, so that only the first can ever win",
    ),
];

/// What every test starts from: the gateways that the conformance suite installs before its tests.
const GATEWAYS: &[&str] = &["same-namespace", "all-namespaces", "backend-namespaces"];

/// The services that the suite installs: namespace, name, port, whether it speaks HTTP/2.
const BACKENDS: &[(&str, &str, u64, bool)] = &[
    (INFRA, "infra-backend-v1", 8080, false),
    (INFRA, "infra-backend-v1", 8081, true),
    (INFRA, "infra-backend-v2", 8080, false),
    (INFRA, "infra-backend-v3", 8080, false),
    (INFRA, "grpc-infra-backend-v1", 8080, true),
    (INFRA, "grpc-infra-backend-v2", 8080, true),
    (INFRA, "grpc-infra-backend-v3", 8080, true),
    (
        "gateway-conformance-web-backend",
        "web-backend",
        8080,
        false,
    ),
    (
        "gateway-conformance-app-backend",
        "app-backend-v1",
        8080,
        false,
    ),
    (
        "gateway-conformance-app-backend",
        "app-backend-v2",
        8080,
        false,
    ),
];

const INFRA: &str = "gateway-conformance-infra";

/// Running services by what a route calls them.
type Backends = BTreeMap<String, (Upstream, bool)>;

#[tokio::test]
async fn the_conformance_tables_hold() {
    let Some(tests) = tables() else { return };
    let backends = backends().await;
    let mut report = Report::default();
    for test in &tests {
        let name = test["name"].as_str().expect("a name");
        let cases = test["cases"].as_array().expect("cases");
        if let Some((_, reason)) = SKIPPED.iter().find(|(part, _)| name.contains(part)) {
            report.skip(name, cases.len().max(1), reason);
        } else if cases.is_empty() {
            report.skip(
                name,
                1,
                "no case in the table: it looks at the status of objects",
            );
        } else {
            replay_test(test, &backends, &mut report).await;
        }
    }
    report.print();
    assert!(
        report.failures.is_empty(),
        "\n{}",
        report.failures.join("\n")
    );
    assert!(
        report.replayed >= REPLAYED,
        "{} cases were replayed, {REPLAYED} before: nothing may be lost silently",
        report.replayed
    );
}

/// Sends every case of one test; for rules that stand twice under one name, once for either.
async fn replay_test(test: &Value, backends: &Backends, report: &mut Report) {
    let name = test["name"].as_str().expect("a name");
    let cases = test["cases"].as_array().expect("cases");
    let mut outcomes: BTreeMap<usize, Result<(), String>> = BTreeMap::new();
    for situation in translate::situations(test) {
        let mine: Vec<usize> = (0..cases.len())
            .filter(|number| situation.has(name, &cases[*number]))
            .collect();
        if mine.is_empty() {
            continue;
        }
        let yaml = translate::configuration(&situation, backends);
        let gateway = Gateway::start(&yaml).await;
        for number in mine {
            let case = &cases[number];
            let outcome = if case["MirroredTo"].is_array() {
                mirrors::case(name, case, &situation, &gateway, backends).await
            } else {
                replay::case(name, case, &situation, &gateway).await
            };
            let outcome = outcome.map_err(|why| {
                format!(
                    "{why}
{yaml}"
                )
            });
            let earlier = outcomes.remove(&number).unwrap_or(Ok(()));
            outcomes.insert(number, earlier.and(outcome));
        }
    }
    for (number, case) in cases.iter().enumerate() {
        match outcomes.remove(&number) {
            Some(_) if replay::differs(name, case) => {
                report.skip(name, 1, "405 with Allow, and HEAD by GET, are our contract");
            }
            Some(Ok(())) => report.replay(name),
            Some(Err(why)) => report.failures.push(format!("{name} {case}: {why}")),
            None => report.skip(
                name,
                1,
                "an HTTPS listener, or a value that only the suite's code knows",
            ),
        }
    }
}

/// The table; none where it is not there, which only outside of CI is allowed.
fn tables() -> Option<Vec<Value>> {
    let path = std::env::var_os("GATEWAY_API_CASES").map_or_else(
        || project("../shared/conformance/gwapi_cases.json"),
        PathBuf::from,
    );
    match fs::read_to_string(&path) {
        Ok(text) => Some(serde_json::from_str(&text).expect("JSON")),
        Err(error) => {
            let missing = format!("{}: {error}: set GATEWAY_API_CASES", path.display());
            assert!(std::env::var_os("CI").is_none(), "{missing}");
            println!("skipped: {missing}");
            None
        }
    }
}

async fn backends() -> Backends {
    let mut backends = Backends::new();
    for (namespace, name, port, is_http2) in BACKENDS {
        let says = format!("{namespace}/{name}");
        let upstream = if *is_http2 {
            Upstream::echo_http2(&says).await
        } else {
            Upstream::echo(&says).await
        };
        backends.insert(format!("{says}:{port}"), (upstream, *is_http2));
    }
    backends
}

/// What was replayed, and what not.
#[derive(Default)]
struct Report {
    replayed: usize,
    by_test: BTreeMap<String, usize>,
    skipped: BTreeMap<(String, String), usize>,
    failures: Vec<String>,
}

impl Report {
    fn replay(&mut self, test: &str) {
        self.replayed += 1;
        *self.by_test.entry(test.to_owned()).or_default() += 1;
    }

    fn skip(&mut self, test: &str, count: usize, reason: &str) {
        *self
            .skipped
            .entry((reason.to_owned(), test.to_owned()))
            .or_default() += count;
    }

    fn print(&self) {
        let skipped: usize = self.skipped.values().sum();
        let mut table = format!(
            "Gateway API: {} cases replayed, {} failed, {skipped} skipped\n",
            self.replayed,
            self.failures.len()
        );
        for (test, count) in &self.by_test {
            writeln!(table, "  {count:>4} {test}").expect("text");
        }
        for ((reason, test), count) in &self.skipped {
            writeln!(table, "  skipped {count:>2} {test}: {reason}").expect("text");
        }
        println!("{table}");
    }
}
