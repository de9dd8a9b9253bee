//! What was decided about one request, as a witness heard it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use http::header::HeaderMap;
use http::{Method, StatusCode};

use crate::base::message::{RequestHead, Response};
use crate::handler::Handler;
use crate::middleware::Effects;
use crate::proxy::context::{Asked, Exchange};
use crate::proxy::retry::Nature;
use crate::proxy::witness::{Hook, Witness};
use crate::routing::Candidate;
use crate::snapshot::{Snapshot, To};
use crate::telemetry::decision::{Attempt, Flag};

/// Everything that was heard of one request, in the order in which it happens.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Which listener of the snapshot.
    pub listener: usize,
    /// The head after admission; none if it was not admitted.
    pub admitted: Option<RequestHead>,
    /// Matches whose host and path fit, in order of precedence.
    pub candidates: Vec<Candidate>,
    /// Which route of the snapshot.
    pub route: Option<usize>,
    /// What the route's template took from the path.
    pub params: Vec<(String, String)>,
    /// Each middleware's turn.
    pub steps: Vec<Step>,
    /// Whom it goes to; none if it was answered before.
    pub forwarded: Option<Forwarded>,
    /// Whether it may be repeated, where it goes to an upstream.
    pub nature: Option<Nature>,
    /// The handler that would have answered, where it was not let.
    pub unasked: Option<Box<str>>,
    /// How it ended.
    pub ended: Option<Ended>,
}

impl Seen {
    /// The match that takes the request.
    pub(crate) fn winner(&self) -> Option<&Candidate> {
        self.candidates.iter().find(|one| one.lost_on.is_none())
    }

    /// The middleware that answered.
    pub(crate) fn answered(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.answer.is_some())
    }

    /// Whom the request was sent to, by the snapshot that it was served under.
    pub(crate) fn sent_to<'s>(&self, snapshot: &'s Snapshot) -> Option<SentTo<'s>> {
        match self.ended.as_ref()?.backend? {
            Asked::Upstream(place) => {
                Some(SentTo::Upstream(snapshot.upstream(place).upstream.name()))
            }
            Asked::Handler(place) => match &snapshot.route(self.route?).backends.get(place)?.to {
                To::Handler(handler, _) => Some(SentTo::Handler(handler)),
                To::Upstream(_) => None,
            },
        }
    }
}

/// Whom a request was sent to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SentTo<'s> {
    /// The upstream of that name.
    Upstream(&'s str),
    /// A handler in this process.
    Handler(&'s Handler),
}

impl<'s> SentTo<'s> {
    /// The name of the upstream, if it is one.
    pub(crate) fn upstream(self) -> Option<&'s str> {
        match self {
            Self::Upstream(name) => Some(name),
            Self::Handler(_) => None,
        }
    }

    /// The handler, if it is one.
    pub(crate) fn handler(self) -> Option<&'s Handler> {
        match self {
            Self::Upstream(_) => None,
            Self::Handler(handler) => Some(handler),
        }
    }
}

/// A middleware's turn.
#[derive(Debug)]
pub(crate) struct Step {
    /// Whose chain: 0 is the listener's, 1 the route's, 2 the backend's.
    pub chain: usize,
    pub label: Box<str>,
    /// What it looks at, in a few words.
    pub about: Option<String>,
    pub changes: Vec<Change>,
    pub notes: Vec<Cow<'static, str>>,
    /// Its answer, if it gave one.
    pub answer: Option<(StatusCode, HeaderMap)>,
}

/// Something of the head that a middleware has changed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Change {
    /// `method`, `path`, `query`, or the name of a header.
    pub what: String,
    /// What it was; none if it was not there.
    pub from: Option<String>,
    /// What it is; none if it is gone.
    pub to: Option<String>,
}

/// The request at the end of its chains.
#[derive(Debug)]
pub(crate) struct Forwarded {
    /// Which of the route's backends.
    pub place: usize,
    /// How long the whole request may take.
    pub deadline: Option<Duration>,
}

/// The closed record.
#[derive(Debug)]
pub(crate) struct Ended {
    pub flag: Option<Flag>,
    pub detail: Option<Cow<'static, str>>,
    pub notes: Vec<Cow<'static, str>>,
    pub backend: Option<Asked>,
    pub attempts: Vec<Attempt>,
}

/// Writes down what it hears.
#[derive(Debug)]
pub(crate) struct Notebook {
    seen: RefCell<Seen>,
    effects: Effects,
}

impl Notebook {
    pub(crate) fn new(effects: Effects) -> Rc<Self> {
        Rc::new(Self {
            seen: RefCell::default(),
            effects,
        })
    }

    /// What was written; the next page is empty.
    pub(crate) fn turn(&self) -> Seen {
        self.seen.take()
    }
}

impl Witness for Rc<Notebook> {
    fn effects(&self) -> Effects {
        self.effects
    }

    fn admitted(&self, exchange: &Exchange, head: &RequestHead) {
        let mut seen = self.seen.borrow_mut();
        seen.listener = exchange.listener;
        seen.admitted = Some(head.copy());
        seen.candidates = exchange.listener().table.candidates(head);
    }

    fn routed(&self, exchange: &Exchange, route: Option<usize>, head: &RequestHead) {
        let mut seen = self.seen.borrow_mut();
        seen.listener = exchange.listener;
        seen.route = route;
        let params = head.params.iter();
        seen.params = params
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
    }

    fn passed(&self, hook: &Hook<'_>) {
        self.seen.borrow_mut().steps.push(Step {
            chain: hook.chain,
            label: hook.label.into(),
            about: hook.about.clone(),
            changes: changes(hook.before, hook.after),
            notes: hook.notes.to_vec(),
            answer: hook
                .answer
                .map(|answer| (answer.head.status, answer.head.headers.clone().into())),
        });
    }

    fn forwarded(&self, exchange: &Exchange, place: usize) {
        let until = exchange.limits.deadline;
        self.seen.borrow_mut().forwarded = Some(Forwarded {
            place,
            deadline: until.map(|at| at.saturating_duration_since(exchange.started)),
        });
    }

    fn nature(&self, nature: Nature) {
        self.seen.borrow_mut().nature = Some(nature);
    }

    fn stands_in(&self, handler: &Handler) -> Option<Response> {
        // Those of the gateway do nothing that cannot be undone.
        if !handler.is_native() {
            return None;
        }
        self.seen.borrow_mut().unasked = Some(handler.name().into());
        Some(Response::status(StatusCode::OK))
    }

    fn closed(&self, exchange: &Exchange) {
        let record = &exchange.decision;
        self.seen.borrow_mut().ended = Some(Ended {
            flag: record.flag,
            detail: record.detail.clone(),
            notes: record.notes.to_vec(),
            backend: exchange.backend,
            attempts: record.attempts.to_vec(),
        });
    }
}

/// What is different in two heads.
pub(crate) fn changes(before: &RequestHead, after: &RequestHead) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut compare = |what: &str, from: Option<String>, to: Option<String>| {
        if from != to {
            changes.push(Change {
                what: what.to_owned(),
                from,
                to,
            });
        }
    };
    let method = |head: &RequestHead| Some(Method::as_str(head.method()).to_owned());
    compare("method", method(before), method(after));
    let path = |head: &RequestHead| Some(head.path().to_owned());
    compare("path", path(before), path(after));
    let query = |head: &RequestHead| head.query().map(ToOwned::to_owned);
    compare("query", query(before), query(after));
    let mut names: Vec<_> = before.headers.iter().map(|(name, _)| name).collect();
    names.extend(after.headers.iter().map(|(name, _)| name));
    names.sort_unstable_by_key(|name| name.as_str());
    names.dedup();
    for name in names {
        let values = |head: &RequestHead| {
            let all: Vec<_> = head
                .headers
                .all(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect();
            (!all.is_empty()).then(|| all.join(", "))
        };
        compare(name.as_str(), values(before), values(after));
    }
    changes
}
