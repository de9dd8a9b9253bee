//! What endpoints are supposed to answer while a request is explained: something that is good to hear.
//!
//! A plain 200 is enough for most. A client of gRPC wants a status, and a handler that asks others
//! wants JSON: without it the gateway's own answer would be a failure that no real endpoint causes.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};

use crate::base::message::RequestHead;
use crate::explain::stage::{Act, Line, Script};
use crate::explain::world::World;
use crate::routing::{EncodedSlashes, Found, normalise};
use crate::snapshot::{Listener, Snapshot, To};

/// Tells all endpoints of a world what to answer to a request.
pub(super) fn direct(world: &World, listener: &Listener, head: &RequestHead) {
    let snapshot = world.snapshot();
    let mut headers = HeaderMap::new();
    let body = if head.is_grpc() {
        let kind = HeaderValue::from_static("application/grpc");
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert("grpc-status", HeaderValue::from_static("0"));
        ""
    } else if is_for_handlers(snapshot, listener, head) {
        let kind = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, kind);
        "{}"
    } else {
        ""
    };
    for upstream in &snapshot.upstreams {
        let act = Act::Answer {
            status: StatusCode::OK,
            headers: headers.clone(),
            body: Bytes::from_static(body.as_bytes()),
            after: Duration::ZERO,
        };
        let line = Line {
            endpoint: None,
            act,
        };
        let script = Script(vec![line]);
        world.stage().direct(upstream.upstream.name(), script);
    }
}

/// True for a request that only handlers can get: what upstreams are asked then, handlers ask.
fn is_for_handlers(snapshot: &Snapshot, listener: &Listener, head: &RequestHead) -> bool {
    let mut head = head.copy();
    let Ok(normal) = normalise(head.path(), EncodedSlashes::Refuse) else {
        return false;
    };
    let normal = normal.into_owned();
    head.set_path(normal);
    let Found::Route { route, .. } = listener.table.find(&head) else {
        return false;
    };
    let mut backends = snapshot.route(route as usize).backends.iter();
    backends.all(|backend| matches!(backend.to, To::Handler(..)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Explanation;
    use crate::explain::asked::Asked;

    const CONFIG: &str = r#"
listeners: [{name: web, address: "127.0.0.1:8080"}]
routes:
  - {name: page, match: {path: /page}, handler: {fan_out: {parts: {a: {upstream: one, path: /a}, b: {upstream: two, path: /b}}}}}
  - {name: call, match: {grpc: {service: acme.Echo}}, upstream: two}
  - {name: both, match: {path: /both}, mirror: {upstream: two}, upstream: one}
  - {name: own, match: {path: /own}, mirror: {upstream: two}, handler: {respond: {body: hi}}}
upstreams:
  one: {endpoints: ["127.0.0.1:1"]}
  two: {endpoints: ["127.0.0.1:2"]}
"#;

    fn explained(words: &[&str], headers: &[&str]) -> Explanation {
        let loaded = crate::config::parse("test.yaml", CONFIG, &|_| None);
        let world = World::apart(&loaded.config.expect("a configuration")).expect("a world");
        let own = |list: &[&str]| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
        let asked = Asked::from_arguments(&own(words), &own(headers), None);
        super::super::explain(&world, asked.expect("a request"), None).expect("an explanation")
    }

    fn asked_of(explanation: &Explanation) -> Vec<&str> {
        let sent = explanation.sent.iter();
        let mut names: Vec<&str> = sent.map(|sending| &*sending.upstream).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_handler_that_asks_others_does_not_fail_for_want_of_them() {
        let explanation = explained(&["/page"], &[]);
        assert_eq!(explanation.answer.status, 200, "{:?}", explanation.answer);
        assert_eq!(explanation.answer.flag, None);
        assert_eq!(asked_of(&explanation), ["one", "two"]);
    }

    #[test]
    fn a_call_of_grpc_gets_a_status() {
        let explanation = explained(
            &["POST", "/acme.Echo/Say"],
            &["content-type: application/grpc"],
        );
        let headers = &explanation.answer.headers;
        let status = ("grpc-status".to_owned(), "0".to_owned());
        assert!(headers.contains(&status), "{headers:?}");
    }

    #[test]
    fn copies_are_seen_whoever_answers() {
        assert_eq!(asked_of(&explained(&["/both"], &[])), ["one", "two"]);
        assert_eq!(asked_of(&explained(&["/own"], &[])), ["two"]);
    }
}
