//! `telemetry:`

use schemars::JsonSchema;

use crate::base::address::Address;
use crate::base::problem::Spanned;
use crate::telemetry::{access_log, metrics, recent};

/// Metrics, health endpoints, the access log.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Telemetry {
    /// Where `/metrics`, `/livez`, `/readyz`, `/startupz` and `/healthz` are served, by GET only:
    /// `ip:port` or `unix:/path`. Default `0.0.0.0:15020`.
    pub(crate) address: Option<Spanned<Address>>,
    /// One line a request.
    pub(crate) access_log: access_log::Settings,
    /// What metrics may cost.
    pub(crate) metrics: metrics::Settings,
    /// Which requests are kept for `retort why`.
    pub(crate) decisions: recent::Settings,
}
