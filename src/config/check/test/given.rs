//! `given`: what endpoints do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::{Scene, request, settle_wait};
use crate::base::problem::{Problem, Spanned};
use crate::base::values::OneOrMany;
use crate::config::raw::test as raw;
use crate::config::suggest;
use crate::config::test::{Act, ActKind};
use crate::config::types::Upstream;
use crate::upstream::Target;

type Written = raw::Pairs<Spanned<String>, Spanned<OneOrMany<Spanned<raw::Act>>>>;

pub(super) fn settle(written: Written, scene: &Scene<'_>) -> BTreeMap<Arc<str>, Vec<Act>> {
    let mut given = BTreeMap::new();
    for (name, acts) in written.0 {
        let is_known = scene.house.upstream_names.knows(&name, scene.house.reading);
        if !is_known {
            continue;
        }
        if acts.value.0.is_empty() {
            let message = "an empty list says nothing of what its endpoints do";
            let help = "leave the upstream out: its endpoints answer 200 then";
            scene.report(Problem::error(acts.span, message).help(help));
        }
        let upstream = scene.upstreams.get(name.value.as_str());
        let acts = acts.value.0.into_iter();
        let acts = acts.map(|act| settle_act(act, upstream, scene)).collect();
        given.insert(Arc::from(name.value), acts);
    }
    given
}

fn settle_act(act: Spanned<raw::Act>, upstream: Option<&Upstream>, scene: &Scene<'_>) -> Act {
    let raw::WholeAct {
        status,
        failure,
        headers,
        body,
        after,
        endpoint,
    } = act.value.0;
    if let (Some(endpoint), Some(upstream)) = (&endpoint, upstream) {
        check_endpoint(endpoint, upstream, scene);
    }
    let answers = status.is_some() || body.is_some() || after.is_some() || !headers.0.is_empty();
    if failure.is_some() && answers {
        let message = "with `failure` there is no answer: `status`, `headers`, `body` and `after` are for answers";
        scene.report(Problem::error(act.span, message));
    }
    let kind = match failure {
        Some(raw::Failure::Refused) => ActKind::Refused,
        Some(raw::Failure::Timeout) => ActKind::Timeout,
        Some(raw::Failure::Reset) => ActKind::Reset,
        None => {
            let status = status.map_or(StatusCode::OK, |status| status.0);
            let body = body.unwrap_or_default();
            let has_none = [
                StatusCode::NO_CONTENT,
                StatusCode::RESET_CONTENT,
                StatusCode::NOT_MODIFIED,
            ];
            if has_none.contains(&status) && !body.is_empty() {
                let message = format!("an answer of status {} has no body", status.as_u16());
                scene.report(Problem::error(act.span, message));
            }
            ActKind::Answer {
                status,
                headers: request::headers(headers, scene),
                body: body.into(),
                after: after.map_or(Duration::ZERO, |after| settle_wait(&after, scene)),
            }
        }
    };
    Act {
        endpoint: endpoint.map(|endpoint| label(&endpoint.value).into()),
        kind,
        span: act.span,
    }
}

/// The endpoint is one of those that are listed; of those that are found elsewhere nothing is known.
fn check_endpoint(endpoint: &Spanned<Target>, upstream: &Upstream, scene: &Scene<'_>) {
    let Some(listed) = &upstream.settings.endpoints else {
        return;
    };
    if listed.iter().any(|of| of.address == endpoint.value) {
        return;
    }
    let labels: Vec<String> = listed.iter().map(|of| label(&of.address)).collect();
    let asked = label(&endpoint.value);
    let message = format!("the upstream has no endpoint `{asked}`");
    let problem = Problem::error(endpoint.span, message).related(upstream.span, "the upstream");
    let advice = suggest::advice(&asked, labels.iter().map(String::as_str));
    scene.report(match advice {
        Some(advice) => problem.help(advice),
        None => problem,
    });
}

fn label(target: &Target) -> String {
    match target {
        Target::Address(address) => address.to_string(),
        Target::Name { host, port } => format!("{host}:{port}"),
    }
}
