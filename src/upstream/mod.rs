//! Named groups of endpoints.

use schemars::JsonSchema;
use serde::Deserialize;

/// A named group of endpoints, and how to talk to them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Settings {
    /// Where requests may go.
    pub endpoints: Vec<String>,
    /// What they speak.
    pub protocol: Option<Protocol>,
}

/// What endpoints speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
}
