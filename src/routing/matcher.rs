//! The `match` of a route.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::base::values::OneOrMany;

/// Which requests a route takes.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Match {
    /// Hosts.
    pub host: Option<OneOrMany<String>>,
    /// A path.
    pub path: Option<String>,
    /// A path and all below it.
    pub path_prefix: Option<String>,
    /// A pattern of the whole path.
    pub path_regex: Option<String>,
    /// Methods.
    pub method: Option<OneOrMany<String>>,
    /// Headers.
    pub headers: Option<Value>,
    /// Query parameters.
    pub query: Option<Value>,
    /// Cookies.
    pub cookies: Option<Value>,
    /// A gRPC service.
    pub grpc: Option<Value>,
}
