//! What operators say about the instruments.

use std::net::{IpAddr, Ipv4Addr};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{access_log, metrics};
use crate::base::address::Address;

/// Metrics, health and the access log.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
pub struct Settings {
    /// Where `/metrics`, `/livez`, `/readyz`, `/startupz` and `/healthz` are answered. Default
    /// `0.0.0.0:15020`.
    pub address: Address,
    /// One line for each request.
    pub access_log: access_log::Settings,
    /// Limits of the metrics.
    pub metrics: metrics::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: Address::Tcp((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 15_020).into()),
            access_log: access_log::Settings::default(),
            metrics: metrics::Settings::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_a_default() {
        let settings: Settings = serde_json::from_str("{}").expect("all optional");
        assert_eq!(settings.address.to_string(), "0.0.0.0:15020");
        assert_eq!(settings.metrics.max_series, 10_000);
        assert!(serde_json::from_str::<Settings>(r#"{"metrics": {"series": 1}}"#).is_err());
    }
}
