//! Another path or host for the backend than the client asked for.
//!
//! The route is already chosen, and is not chosen anew. What must hold: the path that comes out is in
//! the one normal form that paths have in the gateway, so what was authorised is what is sent.
//! Whatever would make another (dot segments pieced together from parameters, a pattern that eats
//! the leading slash) is answered with 400. The query is never touched.

mod path;

use std::borrow::Cow;

use http::uri::{Authority, Uri};
use http::{HeaderValue, StatusCode, header};
use regex::{Captures, Regex};
use schemars::JsonSchema;
use serde::Deserialize;

use self::path::{Template, Text, is_normal};
use super::{Context, Hooks, Kind, Natives, Step, written_as};
use crate::base::message::{Params, Request, RequestHead, Response};
use crate::base::per_worker::PerWorker;
use crate::telemetry::decision::Flag;

/// Another path, or another host, or both.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    path: Option<Change>,
    host: Option<Authority>,
}

/// What becomes of the path.
#[derive(Debug, Clone, PartialEq)]
enum Change {
    Whole(Template),
    Prefix { from: Box<str>, to: Box<str> },
    Regex(Pattern, Template),
}

/// Gives the backend another path or host than the client asked for; the query stays as it came.
///
/// Of `path`, `strip_prefix`, `path_prefix` and `regex` one may be there; `host` may stand alone or
/// beside any of them. A path that the rewrite does not fit stays as it is.
/// Example: `rewrite: {strip_prefix: /api, host: api.internal}`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
#[schemars(rename = "Rewrite")]
struct Written {
    /// The whole path. `{name}` is what the route's path template took under that name, as one
    /// segment; `{name:path}` keeps its slashes. Default: none. Example: `/v2/users/{id}`.
    path: Option<String>,
    /// A leading part of the path that is taken away, in whole segments: `/api` makes `/users` of
    /// `/api/users`, and leaves `/apis` alone. Default: none. Example: `/api`.
    strip_prefix: Option<String>,
    /// A leading part of the path that is replaced by another, in whole segments. Default: none.
    /// Example: `{from: /old, to: /new}`.
    path_prefix: Option<PathPrefix>,
    /// Every part of the path that a pattern matches is replaced. Default: none.
    /// Example: `{pattern: "^/shop/([0-9]+)$", replace: "/products/{1}"}`.
    regex: Option<Replacement>,
    /// The host that the backend sees, with a port if it needs one. Default: the client's.
    /// Example: `api.internal`.
    host: Option<String>,
}

/// One leading part of a path for another.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PathPrefix {
    /// What the path starts with. Example: `/old`.
    from: String,
    /// What stands there instead. Example: `/new`.
    to: String,
}

/// Text for what a pattern matches.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Replacement {
    /// A regular expression over the path, percent-encoded as the gateway routes it. It matches
    /// anywhere unless `^` and `$` hold it. Example: `^/shop/([0-9]+)$`.
    pattern: String,
    /// What stands there instead; `{1}` is what the first group matched, `{name}` a named one's.
    /// Example: `/products/{1}`.
    replace: String,
}

written_as!(Written);

impl TryFrom<Written> for Settings {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let mut changes = Vec::new();
        if let Some(path) = written.path {
            changes.push(whole(&path)?);
        }
        if let Some(from) = written.strip_prefix {
            changes.push(prefix(&from, "/")?);
        }
        if let Some(PathPrefix { from, to }) = written.path_prefix {
            changes.push(prefix(&from, &to)?);
        }
        if let Some(Replacement { pattern, replace }) = written.regex {
            changes.push(regex(&pattern, &replace)?);
        }
        if changes.len() > 1 {
            return Err(
                "only one of `path`, `strip_prefix`, `path_prefix` and `regex` may be there"
                    .to_owned(),
            );
        }
        let path = changes.pop();
        let host = written.host.as_deref().map(host).transpose()?;
        if path.is_none() && host.is_none() {
            return Err("it changes nothing: write what, as in `strip_prefix: /api`".to_owned());
        }
        Ok(Self { path, host })
    }
}

fn whole(path: &str) -> Result<Change, String> {
    let template = Template::parse(path, Text::Segment)?;
    // What parameters bring is checked with each request, what is written here now.
    let sample: String = template.fill(|_| Some("x".into()));
    if !is_normal(&sample) {
        return Err(not_a_path(path));
    }
    Ok(Change::Whole(template))
}

fn prefix(from: &str, to: &str) -> Result<Change, String> {
    let checked = |path: &str| {
        if !is_normal(path) {
            return Err(not_a_path(path));
        }
        // A slash at the end says nothing: prefixes are made of whole segments.
        Ok(path.trim_end_matches('/').into())
    };
    Ok(Change::Prefix {
        from: checked(from)?,
        to: checked(to)?,
    })
}

fn regex(pattern: &str, replace: &str) -> Result<Change, String> {
    let regex = Regex::new(pattern).map_err(|error| {
        // The last line of the library's drawing is the sentence.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default();
        let reason = reason.trim_start_matches("error: ");
        format!("`{pattern}` is not a regular expression: {reason}")
    })?;
    let mut after_dollar = replace.split('$').skip(1);
    if after_dollar.any(|rest| rest.starts_with(|c: char| c.is_ascii_digit() || c == '{')) {
        return Err("what a group matched is written `{1}` or `{name}`, without `$`".to_owned());
    }
    let template = Template::parse(replace, Text::Raw)?;
    let known: Vec<&str> = regex.capture_names().flatten().collect();
    for name in template.names() {
        let is_known = match name.parse::<usize>() {
            Ok(number) => number < regex.captures_len(),
            Err(_) => known.contains(&name),
        };
        if !is_known {
            return Err(format!("`{{{name}}}`: `{pattern}` has no such group"));
        }
    }
    Ok(Change::Regex(Pattern(regex), template))
}

fn host(text: &str) -> Result<Authority, String> {
    match text.parse::<Authority>() {
        Ok(authority) if !text.contains('@') && !authority.host().is_empty() => Ok(authority),
        _ => Err(format!(
            "`{text}` is not a host: write a name or an address, with a port if it needs one"
        )),
    }
}

fn not_a_path(path: &str) -> String {
    format!(
        "`{path}` is not a path: it starts with `/`, has no `.` or `..` segments and no query, and escapes what it must, in upper case (`%C3%A9`)"
    )
}

/// A regular expression that knows whether it is the same as another.
#[derive(Debug, Clone)]
struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// Rewrites path and host.
#[derive(Debug)]
pub struct Rewrite {
    path: Option<Change>,
    host: Option<(Authority, PerWorker<HeaderValue>)>,
}

impl Kind for Rewrite {
    type Settings = Settings;

    fn build(settings: &Settings, _: &Natives) -> Result<Self, String> {
        let host = match &settings.host {
            None => None,
            Some(host) => {
                let value = HeaderValue::from_str(host.as_str()).map_err(|e| e.to_string())?;
                Some((host.clone(), PerWorker::new(value)))
            }
        };
        Ok(Self {
            path: settings.path.clone(),
            host,
        })
    }

    fn params(settings: &Settings) -> Vec<&str> {
        match &settings.path {
            Some(Change::Whole(template)) => template.names().collect(),
            _ => Vec::new(),
        }
    }
}

impl Hooks for Rewrite {
    fn on_request(&self, request: &mut Request, cx: &mut Context<'_>) -> Step<Request> {
        if let Some(change) = &self.path
            && let Some(path) = change.apply(request.head.path(), &request.head.params)
        {
            let path: Box<str> = single_slash(&path).into();
            if !is_normal(&path) {
                let detail = "`rewrite` makes a path of it that is not in normal form";
                cx.record.fail(Flag::BadRequest, detail);
                return Step::answer(Response::status(StatusCode::BAD_REQUEST));
            }
            request.head.set_path(path);
        }
        if let Some((authority, value)) = &self.host {
            set_host(&mut request.head, authority, value.get().clone());
        }
        Step::Next
    }
}

impl Change {
    /// The new path; none if the rewrite does not fit the old one.
    fn apply<'a>(&'a self, path: &'a str, params: &'a Params) -> Option<Cow<'a, str>> {
        match self {
            Self::Whole(template) => {
                Some(template.fill(|name| params.get(name).map(Cow::from)).into())
            }
            Self::Prefix { from, to } => {
                let rest = path.strip_prefix(&**from)?;
                if !rest.is_empty() && !rest.starts_with('/') {
                    return None;
                }
                Some(match (&**to, rest) {
                    ("", "") => "/".into(),
                    ("", rest) => rest.into(),
                    (to, rest) => format!("{to}{rest}").into(),
                })
            }
            Self::Regex(Pattern(regex), template) => {
                let fill = |found: &Captures<'_>| {
                    let group = |name: &str| match name.parse::<usize>() {
                        Ok(number) => found.get(number),
                        Err(_) => found.name(name),
                    };
                    template.fill(|name| group(name).map(|group| group.as_str().to_owned().into()))
                };
                match regex.replace_all(path, fill) {
                    Cow::Borrowed(_) => None,
                    Cow::Owned(path) => Some(path.into()),
                }
            }
        }
    }
}

/// The path with one slash at its start: several would read as a host where it is used as a link.
fn single_slash(path: &str) -> &str {
    let rest = path.trim_start_matches('/');
    match path.len() - rest.len() {
        0 | 1 => path,
        slashes => path.get(slashes - 1..).unwrap_or(path),
    }
}

/// Puts another host in the place of the client's, in the header and in the target.
fn set_host(head: &mut RequestHead, authority: &Authority, value: HeaderValue) {
    head.set_header(header::HOST, value);
    if head.uri().authority().is_none() {
        return;
    }
    let mut parts = head.uri().clone().into_parts();
    parts.authority = Some(authority.clone());
    let Ok(uri) = Uri::from_parts(parts) else {
        return;
    };
    let path = head.path().to_owned();
    head.set_uri(uri);
    head.set_path(path);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use smallvec::SmallVec;

    use super::super::testing::*;
    use super::*;

    fn rewritten(settings: &str, request: &mut Request) -> Result<(), StatusCode> {
        let it = build(&format!(r#"{{"rewrite": {settings}}}"#));
        let mut world = World::new();
        match world.down(&it, request) {
            None => Ok(()),
            Some(answer) => {
                assert_eq!(world.record.flag, Some(Flag::BadRequest));
                Err(answer.head.status)
            }
        }
    }

    fn check(settings: &str, target: &str, expected: &str) {
        let mut request = get(target);
        assert_eq!(rewritten(settings, &mut request), Ok(()), "{target}");
        assert_eq!(request.head.target(), expected, "{settings} {target}");
    }

    #[test]
    fn a_prefix_is_replaced_in_whole_segments() {
        let rows = [
            ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
            ("/foo", "/xyz/", "/foo/bar", "/xyz/bar"),
            ("/foo/", "/xyz", "/foo/bar", "/xyz/bar"),
            ("/foo/", "/xyz/", "/foo/bar", "/xyz/bar"),
            ("/foo", "/xyz", "/foo", "/xyz"),
            ("/foo", "/xyz", "/foo/", "/xyz/"),
            ("/foo", "/", "/foo/bar", "/bar"),
            ("/foo", "/", "/foo/", "/"),
            ("/foo", "/", "/foo", "/"),
            ("/foo", "/", "/foo?a=b", "/?a=b"),
            ("/", "/xyz", "/foo", "/xyz/foo"),
            ("/", "/xyz", "/", "/xyz/"),
            ("/foo", "/xyz", "/foobar", "/foobar"),
            ("/foo", "/xyz", "/bar/foo", "/bar/foo"),
            ("/foo", "/", "/foo//evil.example", "/evil.example"),
            ("/prefix/one", "/one", "/prefix/one/two", "/one/two"),
        ];
        for (from, to, target, expected) in rows {
            let settings = format!(r#"{{"path_prefix": {{"from": "{from}", "to": "{to}"}}}}"#);
            check(&settings, target, expected);
        }
        check(
            r#"{"strip_prefix": "/strip-prefix"}"#,
            "/strip-prefix/three",
            "/three",
        );
        check(r#"{"strip_prefix": "/strip-prefix"}"#, "/strip-prefix", "/");
    }

    #[test]
    fn the_whole_path_is_replaced_and_the_query_stays() {
        check(r#"{"path": "/one"}"#, "/full/one/two?x=%20", "/one?x=%20");
        check(r#"{"path": "/"}"#, "/full", "/");
    }

    fn with_params(params: &[(&str, &str)]) -> Request {
        let names: Arc<[Box<str>]> = params.iter().map(|(name, _)| (*name).into()).collect();
        let values: SmallVec<[Box<str>; 2]> = params.iter().map(|(_, v)| (*v).into()).collect();
        let mut request = get("/before");
        request.head.params = Params::new(names, values);
        request
    }

    #[test]
    fn parameters_are_escaped_as_one_segment_unless_they_are_paths() {
        let check = |template: &str, params: &[(&str, &str)], expected: &str| {
            let mut request = with_params(params);
            let settings = format!(r#"{{"path": "{template}"}}"#);
            assert_eq!(rewritten(&settings, &mut request), Ok(()));
            assert_eq!(request.head.path(), expected);
        };
        check("/u/{id}", &[("id", "7")], "/u/7");
        check("/u/{id}/x{id}", &[("id", "7")], "/u/7/x7");
        check("/u/{id}", &[("id", "a/b")], "/u/a%2Fb");
        check("/u/{id:path}", &[("id", "a/b c")], "/u/a/b%20c");
        check("/u/{id}", &[("id", "é?#;%")], "/u/%C3%A9%3F%23%3B%25");
        check("/u/{id}", &[("id", "a:b@c")], "/u/a:b@c");
        check("/u/{gone}", &[], "/u/");
    }

    #[test]
    fn dot_segments_from_parameters_are_refused() {
        let check = |template: &str, params: &[(&str, &str)]| {
            let settings = format!(r#"{{"path": "{template}"}}"#);
            let answer = rewritten(&settings, &mut with_params(params));
            assert_eq!(answer, Err(StatusCode::BAD_REQUEST), "{template}");
        };
        check("/u/{a}/x", &[("a", "..")]);
        check("/u/.{a}/x", &[("a", ".")]);
        check("/u/{a}{a}", &[("a", ".")]);
        check("/u/{a:path}", &[("a", "b/../../etc")]);
    }

    #[test]
    fn a_pattern_replaces_what_it_matches() {
        let check = |pattern: &str, replace: &str, target: &str, expected: &str| {
            let regex = serde_json::json!({"regex": {"pattern": pattern, "replace": replace}});
            check(&regex.to_string(), target, expected);
        };
        check(
            "^/shop/([0-9]+)$",
            "/products/{1}",
            "/shop/7?q=1",
            "/products/7?q=1",
        );
        check("^/shop/([0-9]+)$", "/products/{1}", "/shop/x", "/shop/x");
        check(
            "^/(?P<who>[^/]+)/(.*)$",
            "/{2}/of/{who}",
            "/ada/a/b",
            "/a/b/of/ada",
        );
        check("/+", "/", "/a//b///c", "/a/b/c");
        check("-", "_", "/a-b-c", "/a_b_c");
        check("a(x)?b", "[{1}]", "/c", "/c");
    }

    #[test]
    fn a_pattern_that_leaves_no_path_is_refused() {
        let check = |pattern: &str, replace: &str, target: &str| {
            let regex = serde_json::json!({"regex": {"pattern": pattern, "replace": replace}});
            let answer = rewritten(&regex.to_string(), &mut get(target));
            assert_eq!(answer, Err(StatusCode::BAD_REQUEST), "{pattern}");
        };
        check("^/a", "", "/a");
        check("^/a", "b", "/a");
        check("x", ".", "/x/");
        check("x", "?", "/x");
        check("x", " ", "/x");
        check("20", "4", "/%20x");
    }

    #[test]
    fn the_host_changes_in_the_header_and_in_the_target() {
        let mut request = request("GET", "/two?x=1", &[("host", "rewrite.example")]);
        assert_eq!(
            rewritten(r#"{"host": "example.org"}"#, &mut request),
            Ok(())
        );
        assert_eq!(request.head.authority(), Some("example.org"));
        assert_eq!(request.head.target(), "/two?x=1");

        let mut request = get("https://rewrite.example/a/two?x=1");
        request.head.set_path("/normal");
        let settings =
            r#"{"host": "example.org:8443", "path_prefix": {"from": "/normal", "to": "/b"}}"#;
        assert_eq!(rewritten(settings, &mut request), Ok(()));
        assert_eq!(request.head.authority(), Some("example.org:8443"));
        assert_eq!(request.head.header(header::HOST), Some("example.org:8443"));
        assert_eq!(request.head.target(), "/b?x=1");
        assert_eq!(request.head.uri().scheme_str(), Some("https"));
    }

    #[test]
    fn mistakes_are_found_at_the_door() {
        let check = |settings: &str, words: &str| {
            let refused = refusal(&format!(r#"{{"rewrite": {settings}}}"#));
            assert!(refused.contains(words), "{refused}");
        };
        check("{}", "it changes nothing");
        check(r#"{"path": "/a", "strip_prefix": "/b"}"#, "only one of");
        check(r#"{"path": "a"}"#, "`a` is not a path");
        check(r#"{"path": "/a?b"}"#, "is not a path");
        check(r#"{"path": "/a/../b"}"#, "is not a path");
        check(r#"{"path": "/%41"}"#, "is not a path");
        check(r#"{"path": "/%4"}"#, "is not a path");
        check(r#"{"path": "/%c3%a9"}"#, "is not a path");
        check(r#"{"path": "/%5C"}"#, "is not a path");
        check(r#"{"path": "/%00"}"#, "is not a path");
        check(r#"{"path": "/{a"}"#, "a `{` has no `}`");
        check(r#"{"path": "/{}"}"#, "is not a name");
        check(r#"{"path": "/{a:int}"}"#, "only `:path`");
        check(r#"{"strip_prefix": "api"}"#, "`api` is not a path");
        check(
            r#"{"regex": {"pattern": "(", "replace": "/"}}"#,
            "unclosed group",
        );
        check(
            r#"{"regex": {"pattern": "a(b)", "replace": "/{2}"}}"#,
            "has no such group",
        );
        check(
            r#"{"regex": {"pattern": "a(b)", "replace": "/{x}"}}"#,
            "has no such group",
        );
        check(
            r#"{"regex": {"pattern": "a(b)", "replace": "/$1"}}"#,
            "without `$`",
        );
        check(r#"{"host": "a b"}"#, "is not a host");
        check(r#"{"host": "u@h"}"#, "is not a host");
        check(r#"{"host": ""}"#, "is not a host");
    }

    #[test]
    fn it_says_which_parameters_it_needs() {
        let settings: super::super::Settings =
            serde_json::from_str(r#"{"rewrite": {"path": "/{a}/{b:path}"}}"#).expect("valid");
        assert_eq!(settings.params(), ["a", "b"]);
    }

    proptest! {
        #[test]
        fn what_parameters_bring_never_leaves_the_template(value in ".*") {
            let mut request = with_params(&[("a", &value)]);
            if rewritten(r#"{"path": "/fixed/{a}/end"}"#, &mut request).is_ok() {
                let path = request.head.path();
                prop_assert_eq!(path.split('/').count(), 4);
                prop_assert!(path.starts_with("/fixed/") && path.ends_with("/end"));
                prop_assert!(is_normal(path));
                prop_assert!(path.parse::<http::uri::PathAndQuery>().is_ok());
            }
        }
    }
}
