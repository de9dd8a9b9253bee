//! Which other sites' scripts may use this one: cross-origin resource sharing, as the Fetch standard
//! has it (<https://fetch.spec.whatwg.org/#http-cors-protocol>).
//!
//! The policy here is the only one: what the backend says of it is replaced. What must hold: an
//! answer that depends on `Origin` says so in `Vary`, also where there was no `Origin`, for a cache
//! must not give one site's answer to another.

mod settings;

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode};

pub use self::settings::Settings;
use self::settings::{Allowed, Origin};
use super::{Context, Hooks, Kind, Natives, Step};
use crate::base::message::{Fields, Request, RequestHead, Response};
use crate::base::per_worker::PerWorker;
use crate::base::values::Period;
use crate::telemetry::decision::Flag;

/// Answers preflight requests, and tells browsers who may read an answer.
#[derive(Debug)]
pub struct Cors {
    settings: Settings,
    /// What every answer to a site in the list carries besides the site.
    granted: PerWorker<Box<[(HeaderName, HeaderValue)]>>,
}

/// The origin of a request, if it is in the list; kept for the answer.
#[derive(Clone)]
struct Granted(HeaderValue);

impl Kind for Cors {
    type Settings = Settings;

    fn build(settings: &Settings, _: &Natives) -> Result<Self, String> {
        let mut granted = Vec::new();
        if settings.credentials {
            let yes = HeaderValue::from_static("true");
            granted.push((header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes));
        }
        if let Some(names) = &settings.expose_headers {
            granted.push((header::ACCESS_CONTROL_EXPOSE_HEADERS, names.clone()));
        }
        Ok(Self {
            settings: settings.clone(),
            granted: PerWorker::new(granted.into()),
        })
    }
}

impl Hooks for Cors {
    fn on_request(&self, request: &mut Request, cx: &mut Context<'_>) -> Step<Request> {
        let Some(origin) = request.head.headers.get(header::ORIGIN) else {
            return Step::Next;
        };
        let granted = self.grant(origin);
        if is_preflight(&request.head) {
            return Step::answer(match granted {
                Some(origin) => self.preflight(&request.head, origin),
                None => {
                    let detail = "the origin is not in the list of `cors`";
                    cx.record.fail(Flag::Unauthorized, detail);
                    let mut refusal = Response::status(StatusCode::FORBIDDEN);
                    vary(&mut refusal.head.headers, &header::ORIGIN);
                    refusal
                }
            });
        }
        if let Some(origin) = granted
            && !self.is_open()
        {
            cx.kept.insert(Granted(origin));
        }
        Step::Next
    }

    fn on_response(&self, response: &mut Response, cx: &mut Context<'_>) -> Step<Response> {
        let fields = &mut response.head.headers;
        if self.is_open() {
            self.write(fields, HeaderValue::from_static("*"));
            return Step::Next;
        }
        vary(fields, &header::ORIGIN);
        match cx.kept.get::<Granted>() {
            Some(Granted(origin)) => self.write(fields, origin.clone()),
            None => {
                fields.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
                fields.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
            }
        }
        Step::Next
    }

    fn about(&self, head: &RequestHead) -> Option<String> {
        let Some(origin) = head.headers.get(header::ORIGIN) else {
            return Some("no `origin`: not asked by another site".to_owned());
        };
        let verdict = match self.grant(origin) {
            Some(_) => "let in",
            None => "not let in",
        };
        let origin = String::from_utf8_lossy(origin.as_bytes());
        Some(format!("origin {origin} is {verdict}"))
    }
}

impl Cors {
    /// True if every site is let in, and the answers are the same for all.
    fn is_open(&self) -> bool {
        self.settings.origins.contains(&Origin::Any)
    }

    /// What the answer calls the origin, if it is let in.
    fn grant(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        if self.is_open() {
            return Some(HeaderValue::from_static("*"));
        }
        let text = origin.to_str().ok()?;
        let is_listed = self
            .settings
            .origins
            .iter()
            .any(|listed| listed.matches(text));
        is_listed.then(|| origin.clone())
    }

    /// Says who may read the answer, in the place of what the backend has said.
    fn write(&self, fields: &mut Fields, origin: HeaderValue) {
        fields.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
        fields.set(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        for (name, value) in self.granted.get() {
            fields.set(name.clone(), value.clone());
        }
    }

    /// The answer to a preflight request. These are rare, so that shared counts may be counted.
    fn preflight(&self, head: &RequestHead, origin: HeaderValue) -> Response {
        let mut response = Response::status(StatusCode::NO_CONTENT);
        let fields = &mut response.head.headers;
        if !self.is_open() {
            vary(fields, &header::ORIGIN);
        }
        self.write(fields, origin);
        let lists = [
            (
                &self.settings.methods,
                header::ACCESS_CONTROL_REQUEST_METHOD,
                header::ACCESS_CONTROL_ALLOW_METHODS,
            ),
            (
                &self.settings.headers,
                header::ACCESS_CONTROL_REQUEST_HEADERS,
                header::ACCESS_CONTROL_ALLOW_HEADERS,
            ),
        ];
        for (allowed, asked, answer) in lists {
            let value = match allowed {
                Allowed::List(list) => list.clone(),
                // Not `*`: with credentials browsers take it for a name, and it never stands for
                // `authorization`.
                Allowed::Any => {
                    vary(fields, &asked);
                    head.headers.get(&asked).cloned()
                }
            };
            if let Some(value) = value {
                fields.set(answer, value);
            }
        }
        if let Some(Period(age)) = self.settings.max_age {
            fields.set(header::ACCESS_CONTROL_MAX_AGE, age.as_secs().into());
        }
        response
    }
}

/// A request by which a browser asks whether it may send another.
fn is_preflight(head: &RequestHead) -> bool {
    *head.method() == Method::OPTIONS
        && head.headers.contains(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Says that the answer depends on a header of the request.
fn vary(fields: &mut Fields, name: &HeaderName) {
    let is_said = fields
        .all(header::VARY)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim() == "*" || item.trim().eq_ignore_ascii_case(name.as_str()));
    if !is_said {
        fields.append(header::VARY, name.clone().into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Middleware;
    use super::super::testing::*;
    use super::*;

    fn cors(settings: &str) -> Arc<Middleware> {
        build(&format!(r#"{{"cors": {settings}}}"#))
    }

    const LISTED: &str = r#"{
        "origins": ["https://www.foo.com", "https://*.bar.com"], "methods": ["GET", "OPTIONS"],
        "headers": ["x-header-1", "x-header-2"], "expose_headers": ["x-header-3", "x-header-4"],
        "credentials": true, "max_age": "1h"
    }"#;
    const ANY_METHOD: &str = r#"{"origins": ["https://www.foo.com"], "methods": ["*"]}"#;
    const ANY_ORIGIN: &str = r#"{"origins": ["*"], "methods": ["PUT"]}"#;
    const ANY_OF_ALL: &str = r#"{"origins": ["http://*", "https://*"], "methods": ["*"], "headers": ["*"], "credentials": true}"#;

    /// Headers of the answer to a preflight request, without the common beginning of their names.
    fn preflight(settings: &str, origin: &str, method: &str, headers: &str) -> (u16, Vec<String>) {
        let asked = [
            ("origin", origin),
            ("access-control-request-method", method),
            ("access-control-request-headers", headers),
        ];
        let asked = &asked[..if headers.is_empty() { 2 } else { 3 }];
        let mut world = World::new();
        let answer = world
            .down(&cors(settings), &mut request("OPTIONS", "/", asked))
            .expect("an answer");
        assert!(answer.body.is_empty());
        let mut fields: Vec<String> = answer
            .head
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII")))
            .map(|field| field.replace("access-control-", ""))
            .collect();
        fields.sort();
        (answer.head.status.as_u16(), fields)
    }

    #[test]
    fn a_listed_site_may_use_what_is_listed() {
        for origin in [
            "https://www.foo.com",
            "https://www.bar.com",
            "https://xpto.www.bar.com",
        ] {
            let (status, fields) = preflight(LISTED, origin, "GET", "x-header-1, x-header-2");
            assert_eq!(status, 204);
            let expected = [
                "allow-credentials: true",
                "allow-headers: x-header-1, x-header-2",
                "allow-methods: GET, OPTIONS",
                &format!("allow-origin: {origin}"),
                "expose-headers: x-header-3, x-header-4",
                "max-age: 3600",
                "vary: origin",
            ];
            assert_eq!(fields, expected);
        }
    }

    #[test]
    fn other_sites_are_told_nothing_of_what_is_allowed() {
        let rows = [
            "https://foobar.com",
            "http://www.foo.com",
            "https://www.foo.com:8443",
            "https://bar.com",
            "https://.bar.com",
            "https://evilbar.com",
            "https://evil.com/.bar.com",
            "https://evil.com#.bar.com",
            "https://evil.com:1.bar.com",
            "https://www.bar.com.evil.com",
            "null",
            "",
        ];
        for origin in rows {
            let refused = preflight(LISTED, origin, "GET", "");
            assert_eq!(refused, (403, vec!["vary: origin".to_owned()]), "{origin}");
        }
    }

    #[test]
    fn a_star_allows_what_is_asked_for() {
        let (_, fields) = preflight(ANY_METHOD, "https://www.foo.com", "POST", "");
        let expected = [
            "allow-methods: POST",
            "allow-origin: https://www.foo.com",
            "vary: origin",
            "vary: request-method",
        ];
        assert_eq!(fields, expected);

        for origin in ["https://foobar.com", "https://foobar.com:12345", "null"] {
            let (_, fields) = preflight(ANY_ORIGIN, origin, "PUT", "");
            assert_eq!(fields, ["allow-methods: PUT", "allow-origin: *"]);
        }

        let (_, fields) = preflight(
            ANY_OF_ALL,
            "https://other.foo.com",
            "PUT",
            "x-header-1, x-header-2",
        );
        let expected = [
            "allow-credentials: true",
            "allow-headers: x-header-1, x-header-2",
            "allow-methods: PUT",
            "allow-origin: https://other.foo.com",
            "vary: origin",
            "vary: request-headers",
            "vary: request-method",
        ];
        assert_eq!(fields, expected);
    }

    /// Headers of an answer that a backend with a policy of its own has made.
    fn answer(settings: &str, method: &str, headers: &[(&str, &str)]) -> [Option<String>; 4] {
        let it = cors(settings);
        let mut world = World::new();
        assert!(
            world
                .down(&it, &mut request(method, "/", headers))
                .is_none()
        );
        let own = response(&[
            ("access-control-allow-origin", "https://backend.example"),
            ("access-control-allow-credentials", "true"),
            ("vary", "accept"),
        ]);
        let answer = world.up(&it, own);
        let field = |name: &str| joined(&answer.head.headers, name);
        [
            field("access-control-allow-origin"),
            field("access-control-allow-credentials"),
            field("access-control-expose-headers"),
            field("vary"),
        ]
    }

    #[test]
    fn an_answer_says_who_may_read_it() {
        let check = |settings, method, headers: &[(&str, &str)], expected: [Option<&str>; 4]| {
            let answer = answer(settings, method, headers);
            assert_eq!(
                answer.each_ref().map(Option::as_deref),
                expected,
                "{headers:?}"
            );
        };
        let (yes, both) = (Some("true"), Some("accept,origin"));
        let exposed = Some("x-header-3, x-header-4");
        for origin in ["https://www.foo.com", "https://www.bar.com"] {
            let sent = [("origin", origin), ("access-control-request-method", "GET")];
            check(LISTED, "GET", &sent, [Some(origin), yes, exposed, both]);
        }
        check(
            LISTED,
            "GET",
            &[("origin", "https://foobar.com")],
            [None, None, None, both],
        );
        check(LISTED, "GET", &[], [None, None, None, both]);
        // No preflight without its second header: an `OPTIONS` like any other.
        let origin = "https://www.foo.com";
        check(
            LISTED,
            "OPTIONS",
            &[("origin", origin)],
            [Some(origin), yes, exposed, both],
        );
        let star = [Some("*"), None, None, Some("accept")];
        check(
            ANY_ORIGIN,
            "PUT",
            &[("origin", "https://foobar.com:12345")],
            star,
        );
        check(ANY_ORIGIN, "GET", &[], star);
        let other = "https://other.foo.com";
        check(
            ANY_OF_ALL,
            "GET",
            &[("origin", other)],
            [Some(other), yes, None, both],
        );
    }

    #[test]
    fn a_dependence_is_said_once() {
        let check = |before: &[(&str, &str)], expected: &str| {
            let mut answer = response(before);
            vary(&mut answer.head.headers, &header::ORIGIN);
            assert_eq!(
                joined(&answer.head.headers, "vary").as_deref(),
                Some(expected)
            );
        };
        check(&[], "origin");
        check(&[("vary", "*")], "*");
        check(&[("vary", "Accept, Origin")], "Accept, Origin");
        check(
            &[("vary", "accept"), ("vary", "x-origin")],
            "accept,x-origin,origin",
        );
    }
}
