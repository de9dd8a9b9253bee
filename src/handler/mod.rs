//! Handlers answer inside the process.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::problem::Spanned;

/// A handler, as it is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Handler")]
pub enum Settings {
    /// Answers with what came.
    Echo(Echo),
    /// Answers with a text.
    Respond(Respond),
    /// Asks several upstreams.
    FanOut(FanOut),
}

/// Answers with what came.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Echo {}

/// Answers with a text.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// The status.
    pub status: Option<u16>,
    /// The body.
    pub body: Option<String>,
}

/// Asks several upstreams.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FanOut {
    /// Whom.
    pub upstreams: Vec<Spanned<String>>,
}

impl Settings {
    /// The kind, as it is written.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Echo(_) => "echo",
            Self::Respond(_) => "respond",
            Self::FanOut(_) => "fan_out",
        }
    }

    /// Every kind.
    pub const fn kinds() -> &'static [&'static str] {
        &["respond", "echo", "fan_out"]
    }

    /// The upstreams that it calls by name.
    pub fn upstreams(&self) -> Vec<&Spanned<String>> {
        match self {
            Self::FanOut(settings) => settings.upstreams.iter().collect(),
            _ => Vec::new(),
        }
    }
}
