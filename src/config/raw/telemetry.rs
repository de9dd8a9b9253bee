//! `telemetry:`

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer};

use crate::base::address::Address;
use crate::base::problem::Spanned;
use crate::base::values::Share;
use crate::config::suggest;

/// Metrics, health endpoints, the access log.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Telemetry {
    /// Where `/metrics`, `/livez`, `/readyz`, `/startupz` and `/healthz` are served, by GET only:
    /// `ip:port` or `unix:/path`. Default `0.0.0.0:15020`.
    pub(crate) address: Option<Spanned<Address>>,
    /// One line a request.
    pub(crate) access_log: AccessLog,
    /// What metrics may cost.
    pub(crate) metrics: Metrics,
}

/// One line a request.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AccessLog {
    /// `json`, `text`, `combined` (as Apache and nginx write it), or a template. Default `json`.
    pub(crate) format: Format,
    /// `stdout`, `none`, or the path of a file, which is opened again on USR1. Default `stdout`.
    pub(crate) output: Output,
    /// Which share of the requests is logged; failed ones always are. Default `100%`.
    pub(crate) sample: Share,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            format: Format::Json,
            output: Output::Stdout,
            sample: Share(1.0),
        }
    }
}

/// What metrics may cost.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Metrics {
    /// How many time series there may be at most; what would be more is counted and dropped.
    /// Default 10000.
    pub(crate) max_series: NonZeroU32,
}

const MAX_SERIES: NonZeroU32 = NonZeroU32::MIN.saturating_add(9_999);

impl Default for Metrics {
    fn default() -> Self {
        Self {
            max_series: MAX_SERIES,
        }
    }
}

/// How a line of the access log looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// A JSON object.
    Json,
    /// For people.
    Text,
    /// As Apache and nginx write it.
    Combined,
    /// A template of one's own.
    Template(String),
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Nowhere.
    None,
    /// A file.
    File(PathBuf),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            "combined" => Ok(Self::Combined),
            // A template without a value in it would log the same line for every request.
            _ if text.contains(['{', '%', '$']) => Ok(Self::Template(text.to_owned())),
            _ => Err(unknown(
                text,
                "format",
                &["json", "text", "combined"],
                "a template",
            )),
        }
    }
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "stdout" => Ok(Self::Stdout),
            "none" => Ok(Self::None),
            _ if text.contains('/') => Ok(Self::File(text.into())),
            _ => Err(unknown(
                text,
                "output",
                &["stdout", "none"],
                "a path such as `/var/log/access.log`",
            )),
        }
    }
}

fn unknown(text: &str, what: &str, known: &[&str], or: &str) -> String {
    if let Some(near) = suggest::nearest(text, known.iter().copied()) {
        return format!("unknown {what} `{text}`: did you mean `{near}`?");
    }
    format!(
        "unknown {what} `{text}`: write `{}` or {or}",
        known.join("`, `")
    )
}

macro_rules! written_as_text {
    ($($type:ident $known:expr;)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "examples": $known})
            }
        }
    )*};
}

written_as_text! {
    Format ["json", "text", "combined"];
    Output ["stdout", "none"];
}
