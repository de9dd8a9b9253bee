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
