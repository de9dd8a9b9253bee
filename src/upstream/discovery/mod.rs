//! Where endpoints come from when they are not written down.
//!
//! A source reports whole lists, never single changes: what DNS answers, what files name, and later
//! what an EndpointSlice or a control plane says all fit that, and a list that was missed costs
//! nothing. Whoever listens keeps the last list while look-ups fail: a failure never empties it.
//! Runs on the control thread.

pub mod dns;
pub mod file;
mod pace;
mod reports;

use std::convert::Infallible;
use std::io;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;

use self::reports::Reports;
use crate::base::address::Address;

/// More endpoints than one upstream is meant to have; a list that is longer is refused as a whole.
const MAX_FOUND: usize = 10_000;

/// The heaviest endpoint, as where endpoints are written down.
const MAX_WEIGHT: u32 = 10_000;

/// One endpoint as a source reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub address: Address,
    /// Its share of requests, relative to the other endpoints: 0 to 10000.
    pub weight: u32,
    /// Where it runs, if the source knows.
    pub zone: Option<String>,
    /// The name that it was found under, if there is one.
    pub host: Option<String>,
}

/// Where the endpoints of an upstream are looked up: one kind of source with its settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "Discovery")]
#[serde(rename_all = "snake_case")]
pub enum Settings {
    /// A name in DNS: its addresses, or its SRV records.
    Dns(dns::Settings),
    /// Files in the format of Prometheus' `file_sd`, which something else writes.
    File(file::Settings),
}

/// Looks up the endpoints again and again, and reports what it finds.
///
/// `report` gets the whole list, in order and without doubles, once at first and then whenever it
/// changed, or a sentence that says why a look-up failed. The same failure is reported once only,
/// until a list comes between; an equal list is reported again only to tell that a failure is over.
/// A list and a failure in one go mean that a part of the source failed, and that what it said last
/// is still in the list.
///
/// Never returns.
///
/// # Cancel safety
/// Dropping it stops it; nothing is left behind but a read of a file that is under way.
pub async fn follow(
    settings: &Settings,
    report: impl FnMut(Result<Vec<Found>, String>),
) -> Infallible {
    let reports = Reports::new(report);
    match settings {
        Settings::Dns(settings) => dns::follow(settings, reports).await,
        Settings::File(settings) => file::follow(settings, reports).await,
    }
}

/// A list in its order, each address once: the heaviest of several that name the same.
fn ordered(mut list: Vec<Found>) -> Vec<Found> {
    list.sort_by(|a, b| {
        let rest = |found: &Found| (found.zone.clone(), found.host.clone());
        (a.address.cmp(&b.address))
            .then_with(|| b.weight.cmp(&a.weight))
            .then_with(|| rest(a).cmp(&rest(b)))
    });
    list.dedup_by(|later, first| later.address == first.address);
    list
}

/// Why a file cannot be read, in plain words.
fn unreadable(path: &Path, error: &io::Error) -> String {
    let cause = match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    format!("cannot read `{}`: {cause}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(address: &str, weight: u32) -> Found {
        Found {
            address: address.parse().expect(address),
            weight,
            zone: None,
            host: None,
        }
    }

    #[test]
    fn a_list_is_in_order_and_names_each_address_once() {
        let list = ordered(vec![
            found("unix:/run/a.sock", 1),
            found("10.0.0.2:80", 1),
            found("10.0.0.1:80", 2),
            found("10.0.0.2:80", 7),
            found("10.0.0.1:80", 2),
        ]);
        let expected = vec![
            found("10.0.0.1:80", 2),
            found("10.0.0.2:80", 7),
            found("unix:/run/a.sock", 1),
        ];
        assert_eq!(list, expected);
    }

    #[test]
    fn discovery_is_exactly_one_kind() {
        let read = |json: &str| serde_json::from_str::<Settings>(json);
        let dns = read(r#"{"dns": {"host": "users.default.svc", "port": 50051}}"#);
        assert!(matches!(dns, Ok(Settings::Dns(_))), "{dns:?}");
        let file = read(r#"{"file": {"paths": ["targets/*.json"]}}"#);
        assert!(matches!(file, Ok(Settings::File(_))), "{file:?}");
        let error = read(r#"{"consul": {}}"#).expect_err("unknown").to_string();
        assert!(error.contains("unknown variant `consul`"), "{error}");
    }

    #[test]
    fn the_schema_shows_every_key() {
        let schema = serde_json::to_string(&schemars::schema_for!(Settings)).expect("JSON");
        for key in [
            "host", "port", "record", "family", "min_ttl", "max_ttl", "timeout", "server", "paths",
            "refresh",
        ] {
            assert!(schema.contains(&format!("\"{key}\"")), "{key}: {schema}");
        }
    }
}
