//! Ejection that takes every endpoint, or never any.

use super::scene::{Item, Scene, endpoints};
use crate::base::code::Code;
use crate::base::problem::Problem;
use crate::config::Spot;
use crate::upstream::Settings;
use crate::upstream::health::outlier;

pub(super) fn check(scene: &Scene<'_>, found: &mut Vec<Problem>) {
    for (name, upstream) in &scene.config.upstreams {
        let item = scene.upstream(name, upstream);
        let settings = &upstream.settings;
        found.extend(panic(settings, item));
        let Some(outlier) = &settings.outlier else {
            continue;
        };
        found.extend(all(settings, outlier, item));
        if let Some(count) = endpoints(settings).filter(|count| *count > 0) {
            let never = nobody(outlier, count, item);
            if never.is_none() {
                found.extend(rates(outlier, count, item));
            }
            found.extend(never);
        }
    }
}

fn all(settings: &Settings, outlier: &outlier::Settings, item: Item<'_>) -> Option<Problem> {
    let written = item.at(&["outlier", "max_ejected"])?;
    if outlier.max_ejected.0 < 1.0 || settings.panic_threshold.0.0 > 0.0 {
        return None;
    }
    let message = "every endpoint may be ejected at once: then all requests are answered 503, even if some could be served";
    Some(
        Problem::warning(written.span(), message)
            .code(Code::EJECTS_ALL)
            .help("write less, such as `50%`, or `panic_threshold: 20%` beside `outlier`: with fewer ready than that, all of them take requests"),
    )
}

fn nobody(outlier: &outlier::Settings, count: usize, item: Item<'_>) -> Option<Problem> {
    if outlier::may_eject(0, count, outlier.max_ejected) {
        return None;
    }
    let path: &[&str] = match item.at(&["outlier", "max_ejected"]) {
        Some(_) => &["outlier", "max_ejected"],
        None => &["outlier"],
    };
    let share = item.at(path).and_then(Spot::text).unwrap_or("50%");
    let message = match count {
        1 => "the only endpoint of an upstream is never ejected".to_owned(),
        _ => format!("no endpoint is ever ejected: {share} of {count} is less than one"),
    };
    let help = match count {
        1 => "remove `outlier`: without another endpoint there is nowhere else to go".to_owned(),
        _ => format!(
            "write `max_ejected: {}%` or more",
            100_usize.div_ceil(count)
        ),
    };
    Some(
        Problem::warning(item.span(path), message)
            .code(Code::EJECTS_NOBODY)
            .related(item.span(&["endpoints"]), "these are all")
            .help(help),
    )
}

fn rates(outlier: &outlier::Settings, count: usize, item: Item<'_>) -> Option<Problem> {
    let rate = outlier.success_rate.as_ref()?;
    let needed = usize::try_from(rate.endpoints).unwrap_or(usize::MAX);
    if count >= needed {
        return None;
    }
    let message = format!(
        "success rates are never compared: {needed} endpoints are needed for that, and there are {count}"
    );
    let help = match count {
        // With three the farthest is √2 deviations away.
        3.. => {
            format!("write `success_rate: {{endpoints: {count}, deviation: 1.3}}`, or remove it")
        }
        _ => "remove `success_rate`: of so few, nobody stands out".to_owned(),
    };
    Some(
        Problem::warning(item.span(&["outlier", "success_rate"]), message)
            .code(Code::TOO_FEW_TO_COMPARE)
            .related(item.span(&["endpoints"]), "these are all")
            .help(help),
    )
}

fn panic(settings: &Settings, item: Item<'_>) -> Option<Problem> {
    let written = item.at(&["panic_threshold"])?;
    if settings.panic_threshold.0.0 == 0.0
        || settings.health_check.is_some()
        || settings.outlier.is_some()
    {
        return None;
    }
    let message = "this never takes effect: without `health_check` and `outlier` every endpoint is always ready";
    Some(
        Problem::warning(written.span(), message)
            .code(Code::PANIC_WITHOUT_CHECKS)
            .help("add one of them, or remove `panic_threshold`"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PUBLIC, check as found};
    use super::*;

    #[track_caller]
    fn check(endpoints: &str, upstream: &str, expected: Option<(Code, &str)>) {
        let yaml = format!(
            "{PUBLIC}routes: [{{name: a, match: {{path: /}}, upstream: u}}]\n\
             upstreams: {{u: {{endpoints: [{endpoints}], {upstream}}}}}\n"
        );
        found(&yaml, expected);
    }

    const THREE: &str = "\"127.0.0.1:1\", \"127.0.0.1:2\", \"127.0.0.1:3\"";

    #[test]
    fn not_all_endpoints_may_be_ejected() {
        let code = Code::EJECTS_ALL;
        let all = "outlier: {max_ejected: 100%}";
        check(THREE, all, Some((code, "100%")));
        check(THREE, &format!("{all}, panic_threshold: 20%"), None);
        check(THREE, "outlier: {max_ejected: 99%}", None);
        check(THREE, "outlier: {}", None);
    }

    #[test]
    fn some_endpoint_must_be_able_to_be_ejected() {
        let code = Code::EJECTS_NOBODY;
        check("\"127.0.0.1:1\"", "outlier: {}", Some((code, "{}")));
        check(
            "\"127.0.0.1:1\", \"127.0.0.1:1\"",
            "outlier: {}",
            Some((code, "{}")),
        );
        check(THREE, "outlier: {max_ejected: 33%}", Some((code, "33%")));
        check(THREE, "outlier: {max_ejected: 34%}", None);
        check("\"localhost:1\"", "outlier: {}", None);
        check("", "outlier: {}", None);
    }

    #[test]
    fn success_rates_need_somebody_to_be_compared_with() {
        let code = Code::TOO_FEW_TO_COMPARE;
        check(THREE, "outlier: {success_rate: {}}", Some((code, "{}")));
        check(
            THREE,
            "outlier: {success_rate: {endpoints: 3, deviation: 1.3}}",
            None,
        );
        check("\"localhost:1\"", "outlier: {success_rate: {}}", None);
    }

    #[test]
    fn a_panic_needs_somebody_who_is_not_ready() {
        let code = Code::PANIC_WITHOUT_CHECKS;
        check(THREE, "panic_threshold: 20%", Some((code, "20%")));
        check(THREE, "panic_threshold: 20%, outlier: {}", None);
        check(THREE, "panic_threshold: 20%, health_check: {tcp: {}}", None);
        check(THREE, "panic_threshold: 0%", None);
    }
}
