//! `retry:` and `hedge:` of a route, with their defaults.

use std::borrow::Cow;

use super::House;
use crate::base::code::Code;
use crate::base::problem::{Problem, Span, Spanned};
use crate::config::raw;
use crate::config::types::{Backend, Hedge, Retry, Target};
use crate::upstream::Deposit;

/// More for each request in flight is memory that nobody expects.
const MOST_BUFFER: u64 = 16 << 20;

/// The checked section; none if there is none.
pub(super) fn settle_retry(raw: Option<Spanned<raw::Retry>>, house: &House<'_>) -> Option<Retry> {
    let raw::Retry {
        attempts,
        on,
        backoff,
        max_backoff,
        retry_after,
        budget,
        buffer,
        idempotent,
    } = raw?.value;
    if let Some(on) = &on
        && on.value.0.is_empty()
    {
        let message = "nothing would be tried again";
        house.report(Problem::error(on.span, message).help("write `attempts: 1` for that"));
    }
    let default = Retry::SECTION;
    let backoff = backoff.map_or(default.backoff, |backoff| backoff.0);
    if let Some(max) = &max_backoff
        && max.value.0 < backoff
    {
        let message = "the longest back-off is shorter than the first";
        house.report(Problem::error(max.span, message));
    }
    if let Some(buffer) = &buffer
        && buffer.value.0 > MOST_BUFFER
    {
        let message = "too much for each request that is under way: at most `16MiB`";
        house.report(Problem::error(buffer.span, message));
    }
    Some(Retry {
        attempts: attempts.map_or(default.attempts, |attempts| attempts.0),
        on: on.map_or(default.on, |on| Cow::Owned(on.value.0)),
        backoff,
        max_backoff: max_backoff.map_or(backoff.saturating_mul(10), |max| max.value.0),
        retry_after: retry_after.map_or(default.retry_after, |cap| cap.0),
        budget: budget.map_or(default.budget, |share| Deposit::of(share.0)),
        buffer: buffer.map_or(default.buffer, |size| {
            usize::try_from(size.value.0).unwrap_or(usize::MAX)
        }),
        idempotent,
    })
}

/// The checked section; none if there is none.
pub(super) fn settle_hedge(raw: Option<Spanned<raw::Hedge>>) -> Option<Hedge> {
    let raw::Hedge { after, max } = raw?.value;
    Some(Hedge {
        after: after.unwrap_or_default(),
        max: max.map_or(1, |max| max.0),
    })
}

/// Handlers are never asked twice.
pub(super) fn check_used(sections: [(&str, Option<Span>); 2], to: &[Backend], house: &House<'_>) {
    if to
        .iter()
        .any(|backend| matches!(backend.target, Target::Upstream(_)))
    {
        return;
    }
    for (key, span) in sections {
        if let Some(span) = span {
            let message = format!("`{key}` is for upstreams, and this route sends to none");
            house.report(
                Problem::warning(span, message)
                    .code(Code::NOTHING_TO_RETRY)
                    .help("remove it"),
            );
        }
    }
}
