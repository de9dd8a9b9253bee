//! Doors that are open wider than meant.

use super::scene::Scene;
use crate::base::code::Code;
use crate::base::problem::Problem;
use crate::config::Place;

pub(super) fn check(scene: &Scene<'_>, found: &mut Vec<Problem>) {
    proxies(scene, found);
    found.extend(admin(scene));
    for section in ["middlewares", "listeners", "routes"] {
        for place in scene.config.places.section(section) {
            cors(place, found);
        }
    }
}

fn proxies(scene: &Scene<'_>, found: &mut Vec<Problem>) {
    for listener in &scene.config.listeners {
        // Whoever reaches a local one is on this machine, and is the proxy.
        if listener.address.is_local() {
            continue;
        }
        let item = scene.listener(listener);
        for (number, range) in listener.trusted_proxies.iter().enumerate() {
            if range.prefix_len() > 1 {
                continue;
            }
            let span = item
                .nth("trusted_proxies", number)
                .map_or(item.name(), Place::span);
            let message = format!(
                "every client of the listener `{}` is believed to be a proxy, and so can claim to have any address",
                listener.name
            );
            found.push(
                Problem::warning(span, message)
                    .code(Code::TRUSTS_EVERYBODY)
                    .related(item.span(&["address"]), "other hosts can connect here")
                    .help("name the addresses of your own proxies, such as `10.0.0.0/8`"),
            );
        }
    }
}

fn admin(scene: &Scene<'_>) -> Option<Problem> {
    let address = &scene.config.admin.address;
    let written = scene.section("admin")?.get("address")?;
    if address.is_local() {
        return None;
    }
    let port = address.tcp().map_or(15_000, |address| address.port());
    let message = "other hosts can reach the port for operators, which asks nobody who they are";
    Some(
        Problem::warning(written.span(), message)
            .code(Code::ADMIN_REACHABLE)
            .help(format!(
                "write `127.0.0.1:{port}` or `unix:/run/retort/admin.sock`; from afar it is reached by `kubectl port-forward`"
            )),
    )
}

/// Looks at every `cors` below a place.
fn cors(place: Place<'_>, found: &mut Vec<Problem>) {
    if place.is_list() {
        for item in place.items() {
            cors(item, found);
        }
        return;
    }
    for (key, value) in place.entries() {
        let is_allowed = value.get("credentials").and_then(Place::text);
        if key == "cors"
            && matches!(is_allowed, Some("true" | "True" | "TRUE"))
            && let Some(origins) = value.get("origins")
        {
            let all = origins.items().filter(|origin| {
                let origin = origin.text().unwrap_or_default();
                origin.ends_with("://*")
            });
            for origin in all {
                let message = "scripts of every site may act with the credentials of whoever visits it, and read the answers";
                found.push(
                    Problem::warning(origin.span(), message)
                        .code(Code::CORS_TRUSTS_EVERY_SITE)
                        .help("name the sites, such as `https://shop.example` or `https://*.shop.example`, or set `credentials: false`"),
                );
            }
        }
        cors(value, found);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PUBLIC, check};
    use super::*;

    const ROUTE: &str = "routes: [{name: a, match: {path: /}, handler: echo}]\n";

    #[test]
    fn not_everybody_is_a_proxy() {
        let code = Code::TRUSTS_EVERYBODY;
        let rows = |address: &str, proxies: &str, at: Option<&str>| {
            let yaml = format!(
                "listeners: [{{name: a, address: \"{address}\", trusted_proxies: [{proxies}]}}]\n{ROUTE}"
            );
            check(&yaml, at.map(|at| (code, at)));
        };
        rows("0.0.0.0:8080", "0.0.0.0/0", Some("0.0.0.0/0"));
        rows("[::]:8080", "10.0.0.0/8, \"::/0\"", Some("\"::/0\""));
        rows("0.0.0.0:8080", "10.0.0.0/8", None);
        rows("127.0.0.1:8080", "0.0.0.0/0", None);
        rows("unix:/run/a.sock", "0.0.0.0/0", None);
    }

    #[test]
    fn operators_have_a_door_of_their_own() {
        let rows = |address: &str, is_found: bool| {
            let address = format!("\"{address}\"");
            let yaml = format!("admin: {{address: {address}}}\n{PUBLIC}{ROUTE}");
            check(
                &yaml,
                is_found.then_some((Code::ADMIN_REACHABLE, &*address)),
            );
        };
        rows("0.0.0.0:15000", true);
        rows("[::]:15000", true);
        rows("10.0.0.1:15000", true);
        rows("127.0.0.1:15000", false);
        rows("unix:/run/admin.sock", false);
    }

    #[test]
    fn credentials_are_for_sites_with_a_name() {
        let rows = |origins: &str, more: &str, at: Option<&str>| {
            let yaml = format!(
                "{PUBLIC}middlewares: {{cors: [{{cors: {{origins: [{origins}]{more}}}}}]}}\n\
                 routes: [{{name: a, match: {{path: /}}, middlewares: [cors], handler: echo}}]\n"
            );
            check(&yaml, at.map(|at| (Code::CORS_TRUSTS_EVERY_SITE, at)));
        };
        rows(
            "\"https://*\"",
            ", credentials: true",
            Some("\"https://*\""),
        );
        rows("\"https://*\"", "", None);
        rows("\"*\"", "", None);
        rows("\"https://*.shop.example\"", ", credentials: true", None);
    }
}
