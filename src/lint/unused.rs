//! Settings that never take effect, because something they need is missing.

use super::scene::{Item, Scene};
use crate::base::code::Code;
use crate::base::problem::Problem;
use crate::config::Upstream;
use crate::upstream::eligible::ZoneSettings;

pub(super) fn check(scene: &Scene<'_>, found: &mut Vec<Problem>) {
    for (name, upstream) in &scene.config.upstreams {
        let item = scene.upstream(name, upstream);
        found.extend(queue(upstream, item));
        found.extend(zones(scene, upstream, item));
    }
}

fn queue(upstream: &Upstream, item: Item<'_>) -> Option<Problem> {
    let limits = &upstream.settings.limits;
    if limits.requests.is_some() || limits.connections.is_some() {
        return None;
    }
    let written = ["queue", "queue_timeout"];
    let written = written.iter().find_map(|key| item.at(&["limits", key]))?;
    let message = "nothing ever waits here: neither `requests` nor `connections` is limited";
    Some(
        Problem::warning(written.span(), message)
            .code(Code::QUEUE_WITHOUT_LIMIT)
            .help("add a limit, such as `requests: 100`, or remove the queue"),
    )
}

fn zones(scene: &Scene<'_>, upstream: &Upstream, item: Item<'_>) -> Option<Problem> {
    let written = item.at(&["zones"])?;
    if scene.config.runtime.zone.is_some() || upstream.settings.zones == ZoneSettings::Ignore {
        return None;
    }
    let message = "zones do not matter: in which one the gateway runs is not known";
    Some(
        Problem::warning(written.span(), message)
            .code(Code::ZONES_WITHOUT_ZONE)
            .help("write `runtime: {zone: …}`, or remove this"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PUBLIC, check};
    use super::*;

    #[track_caller]
    fn rows(upstream: &str, more: &str, expected: Option<(Code, &str)>) {
        let yaml = format!(
            "{PUBLIC}routes: [{{name: a, match: {{path: /}}, upstream: u}}]\n{more}\
             upstreams: {{u: {{endpoints: [\"127.0.0.1:1\"], {upstream}}}}}\n"
        );
        check(&yaml, expected);
    }

    #[test]
    fn a_queue_needs_a_limit() {
        let code = Code::QUEUE_WITHOUT_LIMIT;
        rows("limits: {queue: 50}", "", Some((code, "50")));
        rows(
            "limits: {queue_timeout: 5s, adaptive: {}}",
            "",
            Some((code, "5s")),
        );
        rows("limits: {queue: 50, connections: 5}", "", None);
        rows("limits: {adaptive: {}}", "", None);
    }

    #[test]
    fn zones_need_one_to_begin_with() {
        let code = Code::ZONES_WITHOUT_ZONE;
        rows(
            "zones: {min_ready: 50%}",
            "",
            Some((code, "{min_ready: 50%}")),
        );
        rows("zones: ignore", "", None);
        rows("zones: {}", "runtime: {zone: a}\n", None);
    }
}
