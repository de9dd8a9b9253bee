//! The rules of precedence and what else routing promises, row by row.

use http::{HeaderName, HeaderValue, Method, Uri};
use serde_json::{Value, json};

use crate::base::message::RequestHead;
use crate::routing::table::Found;
use crate::routing::{Kind, Match, Table};

/// A table of one match a route.
fn table(matches: &[Value]) -> Table {
    let routes: Vec<Match> = matches
        .iter()
        .map(|written| serde_json::from_value(written.clone()).expect("a match"))
        .collect();
    let routes = routes.iter().map(std::slice::from_ref);
    Table::build((0..).zip(routes)).expect("a table")
}

/// A request written as `GET /path host name:value …`.
fn request(written: &str) -> RequestHead {
    let mut words = written.split_whitespace();
    let method = Method::from_bytes(words.next().expect("a method").as_bytes());
    let target = words.next().expect("a target");
    let uri = http::uri::Builder::new().path_and_query(target);
    let uri = match target {
        "*" => Ok(Uri::from_static("*")),
        _ => uri.build(),
    };
    let mut head = RequestHead::new(method.expect("a method"), uri.expect("a target"));
    for word in words {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, value),
            None => ("host", word),
        };
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        let value = HeaderValue::from_str(&value.replace('+', " ")).expect("a value");
        head.headers.append(name, value);
    }
    head
}

/// The number of the route, `405 Allow`, or `404`; parameters after it.
fn answer(table: &Table, written: &str) -> String {
    match table.find(&request(written)) {
        Found::Route { route, params, .. } => {
            let params = params
                .iter()
                .map(|(name, value)| format!(" {name}={value}"));
            format!("{route}{}", params.collect::<String>())
        }
        Found::MethodNotAllowed { allow } => format!("405 {}", allow.to_str().expect("text")),
        Found::None => "404".to_owned(),
    }
}

fn check(matches: &[Value], rows: &[(&str, &str)]) {
    let table = table(matches);
    for (written, expected) in rows {
        assert_eq!(answer(&table, written), *expected, "{written}");
    }
}

#[test]
fn the_more_exact_host_wins() {
    check(
        &[
            json!({}),
            json!({"host": ["*.example.com"]}),
            json!({"host": ["*.b.example.com"]}),
            json!({"host": ["a.example.com", "z.example.com"]}),
        ],
        &[
            ("GET / a.example.com", "3"),
            ("GET / A.Example.Com:8080", "3"),
            ("GET / a.example.com.", "3"),
            ("GET / z.example.com", "3"),
            ("GET / c.example.com", "1"),
            ("GET / c.d.example.com", "1"),
            ("GET / b.example.com", "1"),
            ("GET / a.b.example.com", "2"),
            ("GET / example.com", "0"),
            ("GET / anotherexample.com", "0"),
            ("GET / [::1]:80", "0"),
            ("GET /", "0"),
        ],
    );
}

#[test]
fn the_host_counts_before_the_path_but_only_if_all_holds() {
    check(
        &[
            json!({"path": "/a"}),
            json!({"host": ["*.x"], "path_prefix": "/a"}),
            json!({"host": ["h.x"], "path_prefix": "/", "headers": {"k": "1"}}),
            json!({"host": ["h.x"], "path": "/only"}),
        ],
        &[
            ("GET /a h.x k=1", "2"),
            ("GET /a h.x", "1"),
            ("GET /b h.x", "404"),
            ("GET /only h.x", "3"),
            ("GET /a other", "0"),
        ],
    );
}

#[test]
fn literal_then_template_then_longest_prefix_then_regex() {
    check(
        &[
            json!({"path_regex": "/a/.*"}),
            json!({"path_prefix": "/a"}),
            json!({"path_prefix": "/a/b"}),
            json!({"path": "/a/{x}"}),
            json!({"path": "/a/b"}),
            json!({"path": "/{x}/b/{y}"}),
            json!({"path": "/a/b/{z}"}),
            json!({"path_regex": "/z.*"}),
            json!({"path_regex": "/zz.*"}),
        ],
        &[
            ("GET /a/b", "4"),
            ("GET /a/c", "3 x=c"),
            ("GET /a/b/c", "6 z=c"),
            ("GET /q/b/c", "5 x=q y=c"),
            ("GET /a/b/c/d", "2"),
            ("GET /a/c/c/d", "1"),
            ("GET /a/", "1"),
            ("GET /a/b/", "2"),
            ("GET /zz", "7"),
            ("GET /y", "404"),
            ("GET /ab", "404"),
        ],
    );
}

#[test]
fn prefixes_end_on_segment_borders_and_a_slash_at_their_end_changes_nothing() {
    let rows = [
        ("GET /a", "0"),
        ("GET /a/", "0"),
        ("GET /a/b", "0"),
        ("GET /a//b", "0"),
        ("GET /ab", "404"),
        ("GET /", "404"),
        ("GET /b/a", "404"),
    ];
    check(&[json!({"path_prefix": "/a"})], &rows);
    check(&[json!({"path_prefix": "/a/"})], &rows);
    check(
        &[json!({"path_prefix": "/"})],
        &[("GET /", "0"), ("GET /a/b", "0"), ("OPTIONS *", "404")],
    );
}

#[test]
fn no_path_is_the_prefix_of_all_and_takes_the_asterisk_too() {
    check(
        &[
            json!({"path_prefix": "/"}),
            json!({"headers": {"version": "two"}}),
            json!({"path_prefix": "/v2"}),
        ],
        &[
            ("GET /", "0"),
            ("GET / version=two", "1"),
            ("GET /v2 version=two", "2"),
            ("OPTIONS * version=two", "1"),
            ("OPTIONS *", "404"),
        ],
    );
    check(
        &[json!({}), json!({"path_regex": "/.*"})],
        &[("GET /a", "0"), ("OPTIONS *", "0")],
    );
}

#[test]
fn then_the_method_then_headers_then_query_then_the_file() {
    check(
        &[
            json!({"path": "/m", "query": {"q": "1"}}),
            json!({"path": "/m", "headers": {"a": "1", "b": "1"}}),
            json!({"path": "/m", "headers": {"a": "1"}, "query": {"q": "1", "r": "1"}}),
            json!({"path": "/m", "headers": {"a": "1"}, "query": {"q": "1"}}),
            json!({"path": "/m", "method": ["GET"]}),
            json!({"path": "/m", "headers": {"a": "1"}, "cookies": {"c": "1"}}),
            json!({"path": "/m"}),
            json!({"path": "/m"}),
        ],
        &[
            ("GET /m a=1 b=1", "4"),
            ("HEAD /m a=1 b=1", "4"),
            ("POST /m?q=1&r=1 a=1 b=1", "1"),
            ("POST /m?q=1&r=1 a=1", "2"),
            ("POST /m?q=1 a=1", "3"),
            ("POST /m?q=1", "0"),
            ("POST /m a=1 cookie=c=1", "5"),
            ("POST /m", "6"),
        ],
    );
}

#[test]
fn templates_of_as_many_literals_are_one_class_whatever_their_shape() {
    check(
        &[
            json!({"path": "/a/{x}"}),
            json!({"path": "/{x}/b", "method": ["GET"]}),
            json!({"path": "/a/{rest:path}", "headers": {"k": "1"}}),
            json!({"path": "/{n:int}/b", "headers": {"k": "1"}, "method": ["GET"]}),
        ],
        &[
            ("GET /a/b", "1 x=a"),
            ("POST /a/b", "0 x=b"),
            ("POST /a/b k=1", "2 rest=b"),
            ("GET /7/b k=1", "3 n=7"),
            ("GET /a/b k=1", "1 x=a"),
            ("GET /a/b/c k=1", "2 rest=b/c"),
            ("GET /a/b/c", "404"),
            ("GET /a/", "404"),
        ],
    );
}

#[test]
fn a_converter_that_refuses_leaves_the_path_to_others() {
    check(
        &[
            json!({"path": "/u/{id:int}"}),
            json!({"path": "/u/{name}"}),
            json!({"path": "/{kind:any(cat|dog)}/{id:uuid}"}),
            json!({"path": "/files/{rest:path}"}),
        ],
        &[
            ("GET /u/7", "0 id=7"),
            ("GET /u/x", "1 name=x"),
            ("GET /u/a%20b", "1 name=a b"),
            (
                "GET /cat/123e4567-e89b-12d3-a456-426614174000",
                "2 kind=cat id=123e4567-e89b-12d3-a456-426614174000",
            ),
            ("GET /cow/123e4567-e89b-12d3-a456-426614174000", "404"),
            ("GET /files/a/b/c.txt", "3 rest=a/b/c.txt"),
            ("GET /files", "404"),
            ("GET /a/very/long/path/that/no/template/has", "404"),
        ],
    );
}

#[test]
fn the_first_regex_whose_conditions_hold_wins() {
    check(
        &[
            json!({"path_regex": "/r/.*", "headers": {"k": "1"}}),
            json!({"path_regex": "/r/[0-9]+", "method": ["GET"]}),
            json!({"path_regex": "/r/.+"}),
            json!({"path_regex": "/r/a"}),
        ],
        &[
            ("GET /r/7 k=1", "1"),
            ("POST /r/7 k=1", "0"),
            ("POST /r/7", "2"),
            ("GET /r/a", "2"),
            ("GET /r/", "404"),
            ("GET /xr/a", "404"),
        ],
    );
}

#[test]
fn nothing_but_the_wrong_method_is_answered_with_what_is_allowed() {
    check(
        &[
            json!({"path_prefix": "/a", "method": ["GET", "DELETE"]}),
            json!({"path": "/a/b", "method": ["PUT"]}),
            json!({"path": "/a/b", "method": ["PATCH"], "headers": {"k": "1"}}),
            json!({"path": "/c", "method": ["PURGE"]}),
            json!({"host": ["h.x"], "path": "/d", "method": ["POST"]}),
        ],
        &[
            ("POST /a", "405 DELETE, GET, HEAD"),
            ("POST /a/b", "405 DELETE, GET, HEAD, PUT"),
            ("POST /a/b k=1", "405 DELETE, GET, HEAD, PATCH, PUT"),
            ("GET /a/b", "0"),
            ("HEAD /a/b", "0"),
            ("PURGE /c", "3"),
            ("LINK /c", "405 PURGE"),
            ("OPTIONS /c", "405 PURGE"),
            ("GET /d h.x", "405 POST"),
            ("GET /d", "404"),
            ("GET /e", "404"),
        ],
    );
}

#[test]
fn grpc_is_a_post_with_its_content_type() {
    check(
        &[
            json!({"path_prefix": "/acme.Users"}),
            json!({"grpc": {"service": "acme.Users"}}),
            json!({"path": "/acme.Users/Get"}),
            json!({"grpc": {"service": "acme.Users", "method": "Get"}}),
        ],
        &[
            ("POST /acme.Users/Get content-type=application/grpc", "3"),
            (
                "POST /acme.Users/Get content-type=application/grpc+proto",
                "3",
            ),
            ("POST /acme.Users/Get content-type=application/json", "2"),
            ("GET /acme.Users/Get content-type=application/grpc", "2"),
            (
                "POST /acme.Users/List content-type=application/grpc",
                "1 method=List",
            ),
            ("POST /acme.Users/List", "0"),
            ("POST /acme.Users/a/b content-type=application/grpc", "0"),
        ],
    );
}

#[test]
fn headers_count_by_their_first_value_and_cookies_by_name() {
    check(
        &[
            json!({"headers": {"X-Tenant": {"regex": "^[a-z]+$"}, "debug": {"present": false}}}),
            json!({"cookies": {"beta": {"present": true}}, "query": {"v": {"prefix": "2."}}}),
        ],
        &[
            ("GET / x-tenant=shop", "0"),
            ("GET / x-tenant=shop1", "404"),
            ("GET / x-tenant=shop x-tenant=1", "0"),
            ("GET / x-tenant=1 x-tenant=shop", "404"),
            ("GET / x-tenant=shop debug=", "404"),
            ("GET /?v=2.5 cookie=a=1;+beta=", "1"),
            ("GET /?v=%32.5 cookie=beta=1", "1"),
            ("GET /?v=3 cookie=beta=1", "404"),
            ("GET /?v=2. cookie=alpha=1", "404"),
        ],
    );
}

#[test]
fn an_empty_table_finds_nothing() {
    check(&[], &[("GET / a.example.com", "404"), ("OPTIONS *", "404")]);
}

#[test]
fn a_route_may_have_several_matches() {
    let matches: Vec<Match> = [json!({"path": "/a"}), json!({"path": "/b"})]
        .into_iter()
        .map(|written| serde_json::from_value(written).expect("a match"))
        .collect();
    let table = Table::build([(7, matches), (8, Vec::new())]).expect("a table");
    let found = table.find(&request("GET /b"));
    assert!(matches!(
        found,
        Found::Route {
            route: 7,
            match_index: 1,
            ..
        }
    ));
}

#[test]
fn candidates_come_in_order_and_say_what_they_lost_on() {
    let table = table(&[
        json!({"path_prefix": "/"}),
        json!({"path_prefix": "/u", "method": ["POST"]}),
        json!({"path": "/u/{id:int}"}),
        json!({"path": "/u/x", "headers": {"k": "1"}, "host": ["h.x"]}),
        json!({"path_regex": "/u/.*", "query": {"q": {"present": true}}}),
        json!({"path": "/other"}),
    ]);
    let candidates = table.candidates(&request("GET /u/x h.x"));
    let seen: Vec<_> = candidates
        .iter()
        .map(|c| (c.row.route, c.lost_on.as_deref()))
        .collect();
    assert_eq!(
        seen,
        [
            (3, Some("header `k` = \"1\"")),
            (2, Some("path parameter `id` does not take \"x\"")),
            (1, Some("method is not one of POST")),
            (0, None),
            (4, Some("query `q` is present")),
        ]
    );
}

#[test]
fn rows_come_in_order_of_precedence() {
    let table = table(&[
        json!({"path_regex": "/r"}),
        json!({"path_prefix": "/a"}),
        json!({"host": ["*.x"], "path": "/w"}),
        json!({"host": ["*.longer.x", "h.x"], "path": "/{p}"}),
        json!({"path_prefix": "/a/b", "headers": {"k": {"present": true}}}),
        json!({"path_prefix": "/a/b", "method": ["GET"]}),
        json!({"path": "/a"}),
        json!({}),
    ]);
    let rows = table.rows();
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (row.route, row.host.as_str(), row.kind, row.path.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            (3, "h.x", Kind::Template, "/{p}"),
            (3, "*.longer.x", Kind::Template, "/{p}"),
            (2, "*.x", Kind::Literal, "/w"),
            (6, "*", Kind::Literal, "/a"),
            (5, "*", Kind::Prefix, "/a/b"),
            (4, "*", Kind::Prefix, "/a/b"),
            (1, "*", Kind::Prefix, "/a"),
            (7, "*", Kind::Any, "*"),
            (0, "*", Kind::Regex, "/r"),
        ]
    );
    assert_eq!(rows[4].methods, "GET");
    assert_eq!(rows[5].conditions, ["header `k` is present"]);
}

/// Which routes are shadowed, and by which.
fn check_shadows(matches: &[Value], expected: &[(u32, u32)]) {
    let shadows = table(matches).shadowed();
    let seen: Vec<_> = shadows.iter().map(|s| (s.route, s.by.0)).collect();
    assert_eq!(seen, expected, "{matches:?}");
}

#[test]
fn a_match_with_the_same_path_and_nothing_of_its_own_is_shadowed() {
    let check = check_shadows;
    let a = json!({"path": "/a"});
    check(&[a.clone(), a.clone()], &[(1, 0)]);
    check(
        &[json!({"path_prefix": "/a"}), json!({"path_prefix": "/a/"})],
        &[(1, 0)],
    );
    check(&[a.clone(), json!({"path": "/b"})], &[]);
    check(
        &[a.clone(), json!({"path": "/a", "headers": {"k": "1"}})],
        &[],
    );
    check(&[a.clone(), json!({"path": "/a", "method": ["GET"]})], &[]);
    check(&[a, json!({"path": "/a", "host": ["x"]})], &[]);
    check(
        &[
            json!({"path": "/a", "method": ["GET", "POST"]}),
            json!({"path": "/a", "method": ["POST"]}),
            json!({"path": "/a", "method": ["POST", "PUT"]}),
        ],
        &[(1, 0)],
    );
    check(
        &[
            json!({"path": "/a", "headers": {"k": {"present": true}}}),
            json!({"path": "/a", "headers": {"K": "1"}}),
            json!({"path": "/a", "headers": {"j": "1"}}),
            json!({"path": "/a", "query": {"k": "1"}}),
            json!({"path": "/a", "cookies": {"k": "1"}}),
        ],
        &[(1, 0)],
    );
    check(
        &[
            json!({"host": ["a.x", "b.x"], "path": "/a"}),
            json!({"host": ["a.x"], "path": "/a"}),
            json!({"host": ["a.x", "c.x"], "path": "/a"}),
        ],
        &[(1, 0)],
    );
}

#[test]
fn a_template_or_regex_is_shadowed_by_what_takes_at_least_as_much() {
    let check = check_shadows;
    check(
        &[
            json!({"path": "/a/{x}"}),
            json!({"path": "/a/{id:int}"}),
            json!({"path": "/{x}/a"}),
            json!({"path": "/a/{x}/b"}),
        ],
        &[(1, 0)],
    );
    check(
        &[json!({"path": "/a/{id:int}"}), json!({"path": "/a/{x}"})],
        &[],
    );
    check(
        &[
            json!({"path": "/a/{rest:path}"}),
            json!({"path": "/a/{x}/{y}"}),
        ],
        &[(1, 0)],
    );
    check(
        &[
            json!({"path_regex": "/a"}),
            json!({"path_regex": "/a"}),
            json!({"path_regex": "/b"}),
        ],
        &[(1, 0)],
    );
    check(
        &[
            json!({"path_regex": "/a"}),
            json!({"path_regex": "/b", "headers": {"k": "1"}}),
            json!({"headers": {"k": "1"}}),
        ],
        &[(1, 2)],
    );
    check(&[json!({"path_regex": "/a"}), json!({})], &[(0, 1)]);
}

#[test]
fn ten_thousand_matches_are_compared_in_reasonable_time() {
    let mut matches: Vec<Value> = (0..10_000)
        .map(|i| json!({"path_prefix": format!("/p{i}")}))
        .collect();
    matches.extend(
        (0..3_000).map(|i| json!({"path": "/t", "headers": {"x-tenant": format!("t{i}")}})),
    );
    matches.push(json!({"path_prefix": "/p77"}));
    let table = table(&matches);
    let shadows = table.shadowed();
    assert_eq!(shadows.len(), 1);
    assert_eq!((shadows[0].route, shadows[0].by), (13_000, (77, 0)));
}
