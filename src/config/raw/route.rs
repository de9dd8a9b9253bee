//! `routes:`

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Hedge, ItemName, NameOr, Retry, Step, Timeout};
use crate::base::key::KeySource;
use crate::base::pressure::Priority;
use crate::base::problem::Spanned;
use crate::base::values::{OneOrMany, Share};
use crate::config::de::{Held, tried};
use crate::handler;
use crate::routing::matcher::Match;

/// Which requests go where, and through what. It has one of `handler`, `upstream`, `backends`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// What it is called in logs, metrics and tests.
    pub(crate) name: Spanned<ItemName>,
    /// Names of the listeners that it is for. Default: every listener.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) listeners: Option<Spanned<Vec<Spanned<String>>>>,
    /// Which requests it takes: one map of conditions that must all hold, or a list of maps of which
    /// any may hold.
    #[serde(rename = "match", deserialize_with = "tried::field")]
    pub(crate) matches: Spanned<OneOrMany<Spanned<Match>>>,
    /// Steps before and after the backend, in this order: names, kinds with their settings in place,
    /// or bare kinds. Default: none.
    #[serde(default, deserialize_with = "tried::each")]
    pub(crate) middlewares: Vec<Step>,
    /// Answer inside the process: the name of a handler, or a kind with its settings in place.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) handler: Option<Held<NameOr<handler::Settings>>>,
    /// Send to this upstream; short for `backends: [{upstream: …}]`.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) upstream: Option<Spanned<String>>,
    /// Share requests between several, by weight.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) backends: Option<Spanned<Vec<Spanned<Backend>>>>,
    /// What decides which of the `backends` takes a request, so that one client stays with one of
    /// them: `client_ip`, `{cookie: …}`, `{header: …}` or `{path: …}`. A request without it goes to
    /// one by chance. Default: every request by chance.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) split_by: Option<Spanned<KeySource>>,
    /// Who gets copies of the requests besides: one, or a list of them. Nobody waits for a copy, and
    /// its answer is thrown away. Default: nobody.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) mirror: OneOrMany<Mirror>,
    /// What its requests are worth when the process nears its memory limit or its CPU quota:
    /// `low` is refused first, `critical` never. Default `normal`.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) priority: Priority,
    /// How long things may take.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) timeouts: Timeouts,
    /// When a request is tried again, and at which other endpoint. Default: where no endpoint can have
    /// begun to work on it, and where it may be repeated and its connection ended before the answer;
    /// at most twice more.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) retry: Option<Spanned<Retry>>,
    /// Ask a second endpoint when the first is slow, and take the answer that comes first. Default:
    /// never.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) hedge: Option<Spanned<Hedge>>,
}

/// Who gets copies of a route's requests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mirror {
    /// The name of an upstream.
    pub(crate) upstream: Spanned<String>,
    /// The share of the requests that it gets a copy of, each by chance. Default 100%.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) share: Option<Share>,
}

/// Where a share of the requests goes. It has one of `upstream`, `handler`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backend {
    /// The name of an upstream.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) upstream: Option<Spanned<String>>,
    /// The name of a handler, or a kind with its settings in place.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) handler: Option<Held<NameOr<handler::Settings>>>,
    /// Its share is this number of the sum of all; 0 takes nothing. At most 1000000. Default 1.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) weight: Option<Spanned<u32>>,
    /// Steps for this backend alone, after those of the route. Default: none.
    #[serde(default, deserialize_with = "tried::each")]
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
    /// How long both sides may be silent: while the head of the answer is awaited, and between parts
    /// of a body. Default `60s`; gRPC calls and upgraded connections (WebSocket) have no default, for
    /// them silence is normal.
    pub(crate) idle: Option<Timeout>,
}
