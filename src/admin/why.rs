//! Questions about requests, the same for gRPC and JSON.

use std::sync::Arc;

use serde_json::Value;

use super::overview::{Overview, Question};
use crate::telemetry::recent::Filter;

/// How many records one answer has at most.
const MOST: usize = 1000;

/// How many it has where nothing is said.
const USUAL: usize = 50;

/// Which records of requests that failed or were slow are asked for; what is empty takes all.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Query {
    pub route: String,
    pub upstream: String,
    pub flag: String,
    pub limit: usize,
}

impl From<Query> for Filter {
    fn from(query: Query) -> Self {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            request_id: None,
            route: some(query.route),
            upstream: some(query.upstream),
            flag: some(query.flag),
            limit: match query.limit {
                0 => USUAL,
                limit => limit.min(MOST),
            },
        }
    }
}

/// Every record of one request id.
pub(super) fn of(request_id: &str) -> Filter {
    Filter {
        request_id: Some(request_id.to_owned()),
        limit: MOST,
        ..Filter::default()
    }
}

/// What is said where there is none.
pub(super) fn unknown(request_id: &str) -> String {
    format!(
        "no request `{request_id}` is kept: only the last that failed, or lasted longer than `telemetry.decisions.slow`, are"
    )
}

/// Asks what would become of a request, beside the event loop.
pub(super) async fn explain(
    overview: Arc<dyn Overview>,
    question: Question,
) -> Result<Value, String> {
    let explained = tokio::task::spawn_blocking(move || overview.explain(question)).await;
    explained.unwrap_or_else(|error| Err(format!("the explanation failed: {error}")))
}
