//! What to look at when no route takes a request.

use http::HeaderValue;
use http::header;

use crate::base::message::RequestHead;
use crate::base::suggest;
use crate::explain::notebook::Seen;
use crate::routing::{Found, Kind, Row};
use crate::snapshot::Snapshot;

/// So many of a kind are enough.
const MOST: usize = 3;

/// What would have been routed instead; empty where a route takes the request.
pub(super) fn of(snapshot: &Snapshot, seen: &Seen) -> Vec<String> {
    let Some(head) = &seen.admitted else {
        return Vec::new();
    };
    match seen.route.map(|place| snapshot.route(place)) {
        None if seen.candidates.is_empty() => near_misses(snapshot, seen.listener, head),
        Some(route) if seen.candidates.iter().all(|of| of.lost_on.is_some()) => {
            let name = &route.name;
            vec![format!(
                "it is the preflight of a request that route `{name}` takes"
            )]
        }
        _ => Vec::new(),
    }
}

/// The same request at another listener, for another host, with another path.
fn near_misses(snapshot: &Snapshot, listener: usize, head: &RequestHead) -> Vec<String> {
    let mut hints = other_listeners(snapshot, listener, head);
    let rows = snapshot.listener(listener).table.rows();
    if rows.is_empty() {
        hints.push("the listener serves no route".to_owned());
    }
    let hosts = other_hosts(snapshot, listener, head, &rows);
    if hosts.is_empty() {
        hints.extend(other_path(snapshot, listener, head, &rows));
    }
    hints.extend(hosts);
    hints
}

fn other_listeners(snapshot: &Snapshot, listener: usize, head: &RequestHead) -> Vec<String> {
    let listeners = snapshot.listeners.iter().enumerate();
    let others = listeners.filter(|(place, _)| *place != listener);
    let takers = others.filter_map(|(_, other)| {
        let route = name(snapshot, &other.table.find(head))?;
        Some(format!(
            "listener `{}` has a route for it: `{route}`",
            other.name
        ))
    });
    takers.take(MOST).collect()
}

fn other_hosts(
    snapshot: &Snapshot,
    listener: usize,
    head: &RequestHead,
    rows: &[Row],
) -> Vec<String> {
    let mut hosts: Vec<&str> = rows.iter().map(|row| &*row.host).collect();
    hosts.retain(|host| *host != "*");
    hosts.dedup();
    let own = head.host().unwrap_or_default();
    let takers = hosts.into_iter().filter_map(|host| {
        let mut other = head.copy();
        let example = host.replace('*', "any");
        other.set_uri(other.target().parse().ok()?);
        other.set_header(header::HOST, HeaderValue::from_str(&example).ok()?);
        let found = snapshot.listener(listener).table.find(&other);
        let route = name(snapshot, &found)?;
        Some(format!(
            "for host `{host}`, which `{own}` is not, route `{route}` would take it"
        ))
    });
    takers.take(MOST).collect()
}

/// The literal path or prefix that may have been meant.
fn other_path(
    snapshot: &Snapshot,
    listener: usize,
    head: &RequestHead,
    rows: &[Row],
) -> Option<String> {
    if let Some(without) = head
        .path()
        .strip_suffix('/')
        .filter(|path| !path.is_empty())
    {
        let mut other = head.copy();
        other.set_path(without);
        let found = snapshot.listener(listener).table.find(&other);
        if let Some(route) = name(snapshot, &found) {
            return Some(format!(
                "without the slash at its end, route `{route}` would take it"
            ));
        }
    }
    let written = rows
        .iter()
        .filter(|row| matches!(row.kind, Kind::Literal | Kind::Prefix))
        .map(|row| &*row.path);
    let near = suggest::nearest(head.path(), written)?;
    let row = rows.iter().find(|row| row.path == near)?;
    let route = snapshot.routes.get(row.route as usize)?;
    Some(format!("did you mean `{near}` of route `{}`?", route.name))
}

fn name<'a>(snapshot: &'a Snapshot, found: &Found) -> Option<&'a str> {
    match found {
        Found::Route { route, .. } => Some(&snapshot.routes.get(*route as usize)?.name),
        Found::MethodNotAllowed { .. } | Found::None => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::explain::asked::Asked;
    use crate::explain::world::World;

    const CONFIG: &str = r#"
listeners: [{name: web, address: "127.0.0.1:8080"}, {name: internal, address: "127.0.0.1:8081"}]
routes:
  - {name: shop, listeners: [web], match: {host: shop.example, path: /cart}, upstream: up}
  - {name: tenants, listeners: [web], match: {host: "*.tenants.example", path: /home}, upstream: up}
  - {name: orders, listeners: [web], match: {path: /orders}, upstream: up}
  - {name: admin, listeners: [internal], match: {path: /admin}, upstream: up}
  - {name: api, listeners: [web], match: {path: /api, method: GET}, middlewares: [{cors: {origins: ["https://a.example"]}}], upstream: up}
upstreams: {up: {endpoints: ["127.0.0.1:1"]}}
"#;

    #[test]
    fn near_misses_are_named_and_routes_that_win_need_no_hint() {
        let check = |words: &[&str], headers: &[&str], expected: &[&str]| {
            let loaded = crate::config::parse("test.yaml", CONFIG, &|_| None);
            let world = World::apart(&loaded.config.expect("a configuration")).expect("a world");
            let own =
                |list: &[&str]| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
            let asked = Asked::from_arguments(&own(words), &own(headers), None);
            let explanation = super::super::explain(&world, asked.expect("a request"), None);
            assert_eq!(explanation.expect("an explanation").answer.hints, expected);
        };
        check(&["http://a/orders"], &[], &[]);
        check(&["http://a/other"], &[], &[]);
        check(
            &["http://a/cart"],
            &[],
            &["for host `shop.example`, which `a` is not, route `shop` would take it"],
        );
        check(
            &["http://a/home"],
            &[],
            &["for host `*.tenants.example`, which `a` is not, route `tenants` would take it"],
        );
        check(
            &["http://a/admin"],
            &[],
            &["listener `internal` has a route for it: `admin`"],
        );
        check(
            &["http://a/orders/"],
            &[],
            &["without the slash at its end, route `orders` would take it"],
        );
        check(
            &["http://a/ordres"],
            &[],
            &["did you mean `/orders` of route `orders`?"],
        );
        // A method that is not allowed is said by the candidates.
        check(&["POST", "http://a/api"], &[], &[]);
        check(
            &["OPTIONS", "http://a/api"],
            &[
                "origin: https://a.example",
                "access-control-request-method: GET",
            ],
            &["it is the preflight of a request that route `api` takes"],
        );
    }
}
