//! A second, plain telling of the rules, against which the table is held.
//!
//! It looks at every match of every route, one after the other, and sorts what holds.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use http::{HeaderValue, Method, Uri};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::base::message::RequestHead;
use crate::routing::table::Found;
use crate::routing::{Match, Table};

/// A match as written, and the same as the table knows it.
type Pair = (Value, Match);

/// Names and values of parameters.
type Taken = Vec<(String, String)>;

/// Where something stands in order of precedence: the lower wins.
type Place = (
    u8,
    Reverse<usize>,
    u8,
    Reverse<usize>,
    bool,
    Reverse<usize>,
    Reverse<usize>,
    usize,
);

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Route(u32, Taken),
    Allow(String),
    None,
}

fn find_plainly(routes: &[Vec<Pair>], head: &RequestHead) -> Answer {
    let mut winners: Vec<(Place, u32, Taken)> = Vec::new();
    let mut allowed = BTreeSet::new();
    let mut order = 0;
    for (number, route) in (0..).zip(routes) {
        for (written, _) in route {
            order += 1;
            let hosts = list(&written["host"]);
            let hosts = if hosts.is_empty() {
                vec![Value::Null]
            } else {
                hosts
            };
            let Some((path_class, weight, params)) = match_path(written, head.path()) else {
                continue;
            };
            if !conditions_hold(written, head) {
                continue;
            }
            for host in &hosts {
                let Some((host_class, length)) = match_host(host, head) else {
                    continue;
                };
                let methods = methods(written);
                if !methods.is_empty() && !methods.contains(head.method().as_str()) {
                    allowed.extend(methods);
                    continue;
                }
                let place = (
                    host_class,
                    Reverse(length),
                    path_class,
                    Reverse(weight),
                    methods.is_empty(),
                    Reverse(
                        size(&written["headers"])
                            + size(&written["cookies"])
                            + usize::from(written["grpc"].is_object()),
                    ),
                    Reverse(size(&written["query"])),
                    order,
                );
                winners.push((place, number, params.clone()));
            }
        }
    }
    winners.sort();
    match winners.into_iter().next() {
        Some((_, route, params)) => Answer::Route(route, params),
        None if allowed.is_empty() => Answer::None,
        None => Answer::Allow(allowed.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn size(value: &Value) -> usize {
    value.as_object().map_or(0, Map::len)
}

fn methods(written: &Value) -> BTreeSet<String> {
    let mut methods: BTreeSet<String> = list(&written["method"])
        .iter()
        .map(|method| method.as_str().expect("text").to_owned())
        .collect();
    if methods.contains("GET") {
        methods.insert("HEAD".to_owned());
    }
    if written["grpc"].is_object() {
        methods.insert("POST".to_owned());
    }
    methods
}

fn match_host(pattern: &Value, head: &RequestHead) -> Option<(u8, usize)> {
    let Some(pattern) = pattern.as_str() else {
        return Some((2, 0));
    };
    let host = head.host()?.to_lowercase();
    match pattern.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix).then_some((1, suffix.len())),
        None => (host == pattern).then_some((0, 0)),
    }
}

fn match_path(written: &Value, path: &str) -> Option<(u8, usize, Taken)> {
    if let Some(prefix) = written["path_prefix"].as_str() {
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let holds =
            path.starts_with('/') && (path == prefix || path.starts_with(&format!("{prefix}/")));
        return holds.then(|| (2, prefix.len(), Vec::new()));
    }
    if let Some(regex) = written["path_regex"].as_str() {
        let regex = regex::Regex::new(&format!("^(?:{regex})$")).expect("valid");
        return regex.is_match(path).then(|| (3, 0, Vec::new()));
    }
    if let Some(service) = written["grpc"]["service"].as_str() {
        return match written["grpc"]["method"].as_str() {
            Some(method) => (path == format!("/{service}/{method}")).then(|| (0, 0, Vec::new())),
            None => match_template(&format!("/{service}/{{method}}"), path),
        };
    }
    match written["path"].as_str() {
        Some(template) if template.contains('{') => match_template(template, path),
        Some(literal) => (path == literal).then(|| (0, 0, Vec::new())),
        None => Some((2, 0, Vec::new())),
    }
}

fn match_template(template: &str, path: &str) -> Option<(u8, usize, Taken)> {
    let mut params = Vec::new();
    let mut literals = 0;
    let mut rest = path.strip_prefix('/');
    for part in template.split('/').skip(1) {
        let (segment, after) = match rest?.split_once('/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (rest?, None),
        };
        let Some(param) = part.strip_prefix('{') else {
            if segment != part {
                return None;
            }
            literals += 1;
            rest = after;
            continue;
        };
        let param = param.trim_end_matches('}');
        let (name, kind) = param.split_once(':').unwrap_or((param, ""));
        let (value, after) = match kind {
            "path" => (rest?, None),
            _ => (segment, after),
        };
        let fits = match kind {
            "int" => value.parse::<i64>().is_ok(),
            "any(a|b)" => value == "a" || value == "b",
            _ => !value.is_empty(),
        };
        if !fits {
            return None;
        }
        params.push((name.to_owned(), value.to_owned()));
        rest = after;
    }
    rest.is_none().then_some((1, literals, params))
}

fn conditions_hold(written: &Value, head: &RequestHead) -> bool {
    let query: Vec<(String, String)> = head
        .query()
        .into_iter()
        .flat_map(|query| query.split('&'))
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let of_query = |name: &str| {
        let found = query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    };
    let of_header = |name: &str| head.header(name).map(str::to_owned);
    let of_cookie = |name: &str| head.cookie(name).map(str::to_owned);
    all_hold(&written["headers"], of_header)
        && all_hold(&written["query"], of_query)
        && all_hold(&written["cookies"], of_cookie)
        && (!written["grpc"].is_object() || head.is_grpc())
}

fn all_hold(conditions: &Value, value: impl Fn(&str) -> Option<String>) -> bool {
    let conditions = conditions.as_object().cloned().unwrap_or_default();
    conditions.iter().all(|(name, condition)| {
        let value = value(name);
        match condition {
            Value::String(exact) => value.as_ref() == Some(exact),
            _ => value.is_some() == condition["present"].as_bool().expect("a condition"),
        }
    })
}

fn some_of(options: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(options).prop_map(str::to_owned)
}

fn a_condition() -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => some_of(&["1", "2"]).prop_map(Value::String),
        1 => any::<bool>().prop_map(|present| json!({"present": present})),
    ]
}

fn conditions() -> impl Strategy<Value = Value> {
    let names = prop::sample::subsequence(vec!["x", "y"], 0..=1);
    (names, a_condition()).prop_map(|(names, condition)| {
        let pairs = names
            .into_iter()
            .map(|name| (name.to_owned(), condition.clone()));
        Value::Object(pairs.collect())
    })
}

fn a_path() -> impl Strategy<Value = Value> {
    let written = |key: &'static str, options: &'static [&'static str]| {
        some_of(options).prop_map(move |path| json!({key: path}))
    };
    prop_oneof![
        2 => written("path", &["/", "/a", "/a/", "/a/b", "/a/b/1", "/b//a", "/1/a"]),
        4 => written("path", &[
            "/{p}", "/{p:int}", "/a/{p}", "/a/{p:int}", "/{p}/b", "/{p}/{q:int}", "/{p:any(a|b)}/b",
            "/{p:path}", "/a/{p:path}", "/{p}/b/{q:path}", "/a/{p}/1", "/a/b/{p:int}", "/{p}/",
        ]),
        3 => written("path_prefix", &["/", "/a", "/a/", "/a/b", "/b", "/1/a", "/a/b/1/a"]),
        2 => written("path_regex", &["/a.*", "/[a-b]/b", "/(a|b)", ".*", "/a/b", "/[^/]*/1"]),
        1 => Just(json!({"grpc": {"service": "a"}})),
        1 => Just(json!({"grpc": {"service": "a", "method": "b"}})),
        1 => Just(json!({})),
    ]
}

prop_compose! {
    fn a_match()(
        mut path in a_path(),
        hosts in prop::sample::subsequence(vec!["a.x", "b.a.x", "*.x", "*.a.x"], 0..=2),
        methods in prop::sample::subsequence(vec!["GET", "POST", "PURGE"], 0..=2),
        headers in conditions(),
        query in conditions(),
        cookies in conditions(),
    ) -> Pair {
        if !hosts.is_empty() {
            path["host"] = json!(hosts);
        }
        if !methods.is_empty() && path.get("grpc").is_none() {
            path["method"] = json!(methods);
        }
        path["headers"] = headers;
        path["query"] = query;
        path["cookies"] = cookies;
        let read = serde_json::from_value(path.clone());
        (path, read.expect("a valid match"))
    }
}

prop_compose! {
    fn a_request()(
        method in some_of(&["GET", "HEAD", "POST", "PURGE", "LINK"]),
        segments in prop::collection::vec(some_of(&["a", "b", "1", ""]), 1..5),
        host in some_of(&["", "a.x", "A.X:80", "b.a.x", "c.b.a.x", "c.x", "x", "other"]),
        query in some_of(&["", "?x=1", "?x=2&y=1", "?y", "?x=2&x=1"]),
        header in some_of(&["", "1", "2"]),
        cookie in some_of(&["", "x=1", "y=2; x=2"]),
        grpc in any::<bool>(),
        star in prop::bool::weighted(0.05),
    ) -> RequestHead {
        let path = if star { "*".to_owned() } else { format!("/{}{query}", segments.join("/")) };
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        // A path such as `//a` is no URI by itself, but part of one.
        let parts = http::uri::Builder::new().path_and_query(path.as_str());
        let uri = if star { Ok(Uri::from_static("*")) } else { parts.build() };
        let mut head = RequestHead::new(method, uri.expect("a target"));
        let mut set = |name: &'static str, value: &str| if !value.is_empty() {
            let value = HeaderValue::from_str(value).expect("a value");
            head.set_header(name.parse().expect("a name"), value);
        };
        set("host", &host);
        set("x", &header);
        set("cookie", &cookie);
        set("content-type", if grpc { "application/grpc+proto" } else { "" });
        head
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_table_answers_as_the_plain_rules_do(
        routes in prop::collection::vec(prop::collection::vec(a_match(), 1..3), 0..12),
        requests in prop::collection::vec(a_request(), 1..8),
    ) {
        let compiled: Vec<Vec<Match>> = routes
            .iter()
            .map(|route| route.iter().map(|(_, read)| read.clone()).collect())
            .collect();
        let table = Table::build((0..).zip(compiled.iter().map(Vec::as_slice))).expect("builds");
        let shadowed = table.shadowed();
        for head in &requests {
            let answer = match table.find(head) {
                Found::Route { route, match_index, params } => {
                    let pairs = params.iter().map(|(n, v)| (n.to_owned(), v.to_owned()));
                    let is_shadowed = shadowed
                        .iter()
                        .any(|shadow| (shadow.route, shadow.match_index) == (route, match_index));
                    // `OPTIONS *` aside, for which no path at all and `/` are not the same.
                    prop_assert!(!is_shadowed || head.path() == "*");
                    let first = table.candidates(head).into_iter().find(|c| c.lost_on.is_none());
                    let first = first.map(|c| (c.row.route, c.row.match_index));
                    prop_assert_eq!(first, Some((route, match_index)));
                    Answer::Route(route, pairs.collect())
                }
                Found::MethodNotAllowed { allow } => {
                    Answer::Allow(allow.to_str().expect("text").to_owned())
                }
                Found::None => Answer::None,
            };
            prop_assert_eq!(answer, find_plainly(&routes, head), "{:?}", head);
        }
    }
}
