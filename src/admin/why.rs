//! Questions about requests, the same for gRPC and JSON.

use std::sync::Arc;

use serde_json::Value;

use super::overview::Overview;
use super::v1::{ExplainRequest, ListRecentFailuresRequest};
use crate::telemetry::recent::Filter;

/// How many records one answer has at most.
const MOST: usize = 1000;

/// How many it has where nothing is said.
const USUAL: usize = 50;

impl From<ListRecentFailuresRequest> for Filter {
    fn from(query: ListRecentFailuresRequest) -> Self {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        Self {
            request_id: None,
            route: some(query.route),
            upstream: some(query.upstream),
            flag: some(query.flag),
            limit: match limit {
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
    question: ExplainRequest,
) -> Result<Value, String> {
    let explained = tokio::task::spawn_blocking(move || overview.explain(question)).await;
    explained.unwrap_or_else(|error| Err(format!("the explanation failed: {error}")))
}
