//! A test of the configuration: what is asked, what the world outside does meanwhile, what must come of it.
//!
//! Every name in it exists. What a test expects knows where it is written, so that what did not
//! come true can be shown there.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri};

use super::Protocol;
use crate::base::problem::{Span, Spanned};
use crate::routing::condition::ValueMatch;
use crate::telemetry::decision::Flag;

/// Requests, one after the other on one clock, and what must come of them.
#[derive(Debug, Clone)]
pub struct Test {
    /// What it shows, as a sentence; no other test has the same.
    pub name: Arc<str>,
    /// Where its name is written.
    pub span: Span,
    /// What endpoints do, by their upstream. An upstream that is not here answers 200 with an empty
    /// body.
    pub given: BTreeMap<Arc<str>, Vec<Act>>,
    /// What happens, in its order; at least one step asks. A test with `request` has one step.
    pub steps: Vec<Step>,
}

/// One thing that happens in a test.
#[derive(Debug, Clone)]
pub enum Step {
    /// That time passes, at most [`Test::LONGEST_WAIT`].
    Wait(Duration),
    /// A request is sent.
    Ask(Box<Ask>),
}

/// A request, and what must come of it.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What is sent.
    pub request: Request,
    /// How often, one after the other; from 1 to [`Test::MOST_REPEATS`].
    pub repeat: u32,
    /// What must hold each time, but for [`Expect::shares`], which are of all of them.
    pub expect: Expect,
}

/// What a client sends.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// An absolute URL of `http` or `https`, its host without a user; as it was written otherwise.
    pub url: Uri,
    /// Its headers, `host` not among them.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Who sends it.
    pub client: SocketAddr,
    /// By which listener it comes in, by its number in [`super::Config::listeners`]; none: the first.
    pub listener: Option<usize>,
    /// What the client speaks; the listener does, too.
    pub protocol: Protocol,
    /// Where it is written.
    pub span: Span,
}

/// What must come of a request; what is absent is not looked at.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    /// The route that it takes.
    pub route: Option<Spanned<OrNone<Arc<str>>>>,
    /// The upstream that its route sends it to.
    pub upstream: Option<Spanned<OrNone<Arc<str>>>>,
    /// The handler that its route sends it to, by its label or its kind.
    pub handler: Option<Spanned<OrNone<Arc<str>>>>,
    /// The label of the middleware that answers it.
    pub middleware: Option<Spanned<OrNone<Arc<str>>>>,
    /// The status that the client gets.
    pub status: Option<Spanned<StatusCode>>,
    /// Why the gateway answers itself, or how the upstream failed.
    pub flag: Option<Spanned<OrNone<Flag>>>,
    /// Headers of the answer that the client gets, each name once.
    pub headers: Vec<HeaderIs>,
    /// The body that the client gets.
    pub body: Option<Spanned<ValueMatch>>,
    /// What an endpoint gets.
    pub sent: Sent,
    /// How many attempts there are at endpoints.
    pub attempts: Option<Spanned<u32>>,
    /// The longest time from the request to the end of its answer.
    pub within: Option<Spanned<Duration>>,
    /// Who gets how many of repeated requests, each backend once.
    pub shares: Vec<Share>,
}

/// What the endpoint of the last attempt gets; what is absent is not looked at.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// The method.
    pub method: Option<Spanned<Method>>,
    /// The path with its query.
    pub path: Option<Spanned<ValueMatch>>,
    /// The host.
    pub host: Option<Spanned<ValueMatch>>,
    /// Headers, each name once.
    pub headers: Vec<HeaderIs>,
}

/// What a header must be; its first value, where it comes more than once.
#[derive(Debug, Clone)]
pub struct HeaderIs {
    /// Its name.
    pub name: HeaderName,
    /// What it must be.
    pub is: Spanned<ValueMatch>,
}

/// How many of repeated requests a backend gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// The upstream, or the label or kind of the handler.
    pub backend: Arc<str>,
    /// The least share, from 0 to 1.
    pub min: f64,
    /// The greatest, not less than the least.
    pub max: f64,
    /// Where its name is written.
    pub span: Span,
}

/// Something, or that there must be nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrNone<T> {
    /// Nothing.
    None,
    /// That.
    Is(T),
}

/// What an endpoint does about one request.
///
/// A request that comes to an endpoint takes the first act that is left and is for that endpoint;
/// the last of those stays in force. Where none is for the endpoint, it answers 200 with an empty
/// body.
#[derive(Debug, Clone)]
pub struct Act {
    /// The one endpoint that it is for, as its label says: `127.0.0.1:9001`, `unix:/run/x.sock`, or
    /// `name:port`; none: any.
    pub endpoint: Option<Arc<str>>,
    /// What it does.
    pub kind: ActKind,
    /// Where it is written.
    pub span: Span,
}

/// What an endpoint can do about a request.
#[derive(Debug, Clone)]
pub enum ActKind {
    /// It answers.
    Answer {
        /// With that status.
        status: StatusCode,
        /// With these headers besides those that say how long the body is.
        headers: HeaderMap,
        /// With that body; empty where the status allows none.
        body: Bytes,
        /// That long after it has read the request.
        after: Duration,
    },
    /// It refuses the connection.
    Refused,
    /// It reads the request and never says anything.
    Timeout,
    /// It reads the request and closes the connection without an answer.
    Reset,
}

impl Test {
    /// How often a request may be repeated.
    pub const MOST_REPEATS: u32 = 100_000;
    /// How long a step may wait, and an endpoint with its answer.
    pub const LONGEST_WAIT: Duration = Duration::from_hours(7 * 24);
}

impl Expect {
    /// True if anything would do.
    pub fn is_empty(&self) -> bool {
        let Self {
            route,
            upstream,
            handler,
            middleware,
            status,
            flag,
            headers,
            body,
            sent,
            attempts,
            within,
            shares,
        } = self;
        let names = [route, upstream, handler, middleware];
        names.iter().all(|name| name.is_none())
            && status.is_none()
            && flag.is_none()
            && headers.is_empty()
            && body.is_none()
            && sent.is_empty()
            && attempts.is_none()
            && within.is_none()
            && shares.is_empty()
    }
}

impl Sent {
    /// True if anything would do, even that nothing was sent.
    pub fn is_empty(&self) -> bool {
        self.method.is_none()
            && self.path.is_none()
            && self.host.is_none()
            && self.headers.is_empty()
    }
}

impl<T> OrNone<T> {
    /// What must be there.
    pub fn as_option(&self) -> Option<&T> {
        match self {
            Self::None => None,
            Self::Is(value) => Some(value),
        }
    }
}

impl OrNone<Arc<str>> {
    /// True if that is what there is.
    pub fn holds(&self, found: Option<&str>) -> bool {
        self.as_option().map(|name| &**name) == found
    }
}

impl OrNone<Flag> {
    /// True if that is what there is.
    pub fn holds(&self, found: Option<Flag>) -> bool {
        self.as_option().copied() == found
    }
}

impl fmt::Display for OrNone<Arc<str>> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_option().map_or("none", |name| name))
    }
}

impl fmt::Display for OrNone<Flag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_option().map_or("none", |flag| flag.code()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, parse};

    const FINE: &str = include_str!("../../tests/data/tests-fine.yaml");

    fn read() -> Config {
        let loaded = parse("tests-fine.yaml", FINE, &|_| None);
        loaded
            .config
            .unwrap_or_else(|| panic!("{:?}", loaded.problems))
    }

    fn ask(test: &Test, at: usize) -> &Ask {
        match &test.steps[at] {
            Step::Ask(ask) => ask,
            Step::Wait(_) => panic!("a wait"),
        }
    }

    /// What the file says at a place.
    fn written(span: Span) -> &'static str {
        FINE.get(span.range()).expect("a place in the file")
    }

    #[test]
    fn a_test_with_a_request_has_one_step() {
        let config = read();
        let test = &config.tests[0];
        assert_eq!((&*test.name, test.steps.len()), ("canary header wins", 1));
        assert_eq!(written(test.span), "canary header wins");
        let Ask {
            request,
            repeat,
            expect,
        } = ask(test, 0);
        assert_eq!(*repeat, 1);
        assert_eq!(request.url, "http://api.example.com/orders/7");
        assert_eq!(request.client.to_string(), "127.0.0.1:50000");
        assert_eq!(
            (request.listener, request.protocol),
            (None, Protocol::Http1)
        );
        assert_eq!(request.headers.get_all("x-list").iter().count(), 2);
        let route = expect.route.as_ref().expect("a route");
        assert!(route.holds(Some("orders")) && !route.holds(None));
        assert_eq!(written(route.span), "orders");
        assert!(expect.handler.is_none() && expect.sent.is_empty());
    }

    #[test]
    fn endpoints_answer_or_fail() {
        let config = read();
        let test = &config.tests[1];
        let said: Vec<_> = test.given["orders"]
            .iter()
            .map(|act| match &act.kind {
                ActKind::Answer { status, after, .. } => format!("{} {after:?}", status.as_u16()),
                kind => format!("{kind:?} {:?}", act.endpoint),
            })
            .collect();
        let expected = [
            "503 0ns",
            "503 0ns",
            "Refused None",
            "Timeout Some(\"orders.internal:80\")",
            "200 20ms",
        ];
        assert_eq!(said, expected);
        assert!(matches!(test.given["cart"][0].kind, ActKind::Reset));
        let expect = &ask(test, 0).expect;
        assert_eq!(expect.status.map(|status| status.value.as_u16()), Some(200));
        assert_eq!(
            expect.flag.as_ref().map(|flag| &flag.value),
            Some(&OrNone::None)
        );
        assert_eq!(
            expect.within.map(|within| within.value),
            Some(Duration::from_secs(1))
        );
    }

    #[test]
    fn steps_come_in_their_order() {
        let config = read();
        let test = &config.tests[2];
        assert_eq!((test.steps.len(), ask(test, 0).repeat), (4, 3));
        assert!(matches!(test.steps[2], Step::Wait(wait) if wait == Duration::from_secs(1)));
        let refused = ask(test, 1);
        assert_eq!(refused.request.client.to_string(), "203.0.113.9:4000");
        let header = &refused.expect.headers[0];
        assert_eq!(header.name, "retry-after");
        assert_eq!(written(header.is.span), "\"1\"");
        assert!(header.is.holds(Some(b"1")));
    }

    #[test]
    fn shares_and_what_is_sent_are_typed() {
        let config = read();
        let shares = &ask(&config.tests[3], 0).expect.shares;
        assert_eq!(
            (&*shares[1].backend, shares[1].min, shares[1].max),
            ("cart-next", 0.03, 0.07)
        );
        assert_eq!(written(shares[1].span), "cart-next");
        let Ask {
            request, expect, ..
        } = ask(&config.tests[4], 0);
        // The listener speaks nothing else.
        assert_eq!(
            (request.listener, request.protocol),
            (Some(1), Protocol::Http2)
        );
        assert_eq!(&request.body[..], b"text");
        assert_eq!(
            expect.upstream.as_ref().map(|of| &of.value),
            Some(&OrNone::None)
        );
        assert_eq!(
            expect.sent.method.as_ref().map(|of| of.value.as_str()),
            Some("GET")
        );
        assert_eq!(expect.sent.headers.len(), 1);
    }
}
