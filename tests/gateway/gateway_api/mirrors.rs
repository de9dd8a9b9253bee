//! Judges copies of requests: that the right services get them, as often as they should.

use serde_json::Value;

use super::translate::Situation;
use super::{Backends, replay};
use crate::harness::{Gateway, Received, eventually};

/// How often a case is sent whose mirror gets a share.
const DRAWS: u32 = 200;

/// Sends a case whose requests are mirrored.
pub(super) async fn case(
    test: &str,
    case: &Value,
    situation: &Situation,
    gateway: &Gateway,
    backends: &Backends,
) -> Result<(), String> {
    let mirrors = case["MirroredTo"].as_array().expect("mirrors");
    let is_shared = mirrors.iter().any(|mirror| !mirror["Percent"].is_null());
    let draws = if is_shared { DRAWS } else { 1 };
    let path = case["Request"]["Path"].as_str().expect("a path");
    let before: Vec<usize> = mirrors
        .iter()
        .map(|mirror| copies(backends, mirror, path).len())
        .collect();
    for _ in 0..draws {
        replay::case(test, case, situation, gateway).await?;
    }
    for (mirror, before) in mirrors.iter().zip(before) {
        judge(case, mirror, (draws, before), backends).await?;
    }
    Ok(())
}

/// The mirror gets its share: six standard deviations are allowed.
async fn judge(
    case: &Value,
    mirror: &Value,
    (draws, before): (u32, usize),
    backends: &Backends,
) -> Result<(), String> {
    let path = case["Request"]["Path"].as_str().expect("a path");
    let share = mirror["Percent"].as_f64().unwrap_or(100.0) / 100.0;
    let draws = f64::from(draws);
    let allowed = 6.0 * (draws * share * (1.0 - share)).sqrt();
    let count = |copies: &[Received]| {
        f64::from(u32::try_from(copies.len() - before).expect("not that many"))
    };
    let copies = eventually(
        "copies",
        async || copies(backends, mirror, path),
        |copies| count(copies) >= draws * share - allowed,
    )
    .await;
    let found = count(&copies);
    if found > draws * share + allowed {
        return Err(format!("{mirror} got {found} of {draws} requests"));
    }
    let last = copies.last().ok_or("no copy")?;
    replay::copied(case, last.describe("a mirror"))
}

/// What a service has received for a path so far.
fn copies(backends: &Backends, mirror: &Value, path: &str) -> Vec<Received> {
    let service = &mirror["BackendRef"];
    let text = |key: &str| service[key].as_str().expect("a text");
    let name = format!("{}/{}:8080", text("Namespace"), text("Name"));
    let (upstream, _) = &backends[&name];
    let mut requests = upstream.requests();
    requests.retain(|request| request.target == path);
    requests
}
