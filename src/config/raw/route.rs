//! `routes:`

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ItemName, NameOr, Step, Timeout};
use crate::base::problem::Spanned;
use crate::base::values::OneOrMany;
use crate::config::de::Held;
use crate::handler;
use crate::routing::matcher::Match;

/// Which requests go where, and through what. It has one of `handler`, `upstream`, `backends`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// What it is called in logs, metrics and tests.
    pub(crate) name: Spanned<ItemName>,
    /// Names of the listeners that it is for. Default: every listener.
    pub(crate) listeners: Option<Spanned<Vec<Spanned<String>>>>,
    /// Which requests it takes: one map of conditions that must all hold, or a list of maps of which
    /// any may hold.
    #[serde(rename = "match")]
    pub(crate) matches: Spanned<OneOrMany<Spanned<Match>>>,
    /// Steps before and after the backend, in this order: names, kinds with their settings in place,
    /// or bare kinds. Default: none.
    #[serde(default)]
    pub(crate) middlewares: Vec<Step>,
    /// Answer inside the process: the name of a handler, or a kind with its settings in place.
    pub(crate) handler: Option<Held<NameOr<handler::Settings>>>,
    /// Send to this upstream; short for `backends: [{upstream: …}]`.
    pub(crate) upstream: Option<Spanned<String>>,
    /// Share requests between several, by weight.
    pub(crate) backends: Option<Spanned<Vec<Spanned<Backend>>>>,
    /// How long things may take.
    #[serde(default)]
    pub(crate) timeouts: Timeouts,
}

/// Where a share of the requests goes. It has one of `upstream`, `handler`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backend {
    /// The name of an upstream.
    pub(crate) upstream: Option<Spanned<String>>,
    /// The name of a handler, or a kind with its settings in place.
    pub(crate) handler: Option<Held<NameOr<handler::Settings>>>,
    /// Its share is this number of the sum of all; 0 takes nothing. At most 1000000. Default 1.
    pub(crate) weight: Option<Spanned<u32>>,
    /// Steps for this backend alone, after those of the route. Default: none.
    #[serde(default)]
    pub(crate) middlewares: Vec<Step>,
}

/// How long requests of a route may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Timeouts {
    /// From the head of the request to the end of the answer, attempts and waits included; 504
    /// after that. Default: no limit.
    pub(crate) request: Option<Spanned<Timeout>>,
    /// For one attempt, from its start to the head of its answer. Default: no limit of its own.
    pub(crate) attempt: Option<Spanned<Timeout>>,
    /// How long a body may stand still, in either direction. Default `60s`.
    pub(crate) idle: Option<Timeout>,
}
