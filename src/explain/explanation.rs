//! What would become of a request, and why: data, for people and for programs.
//!
//! Its JSON is a contract: keys are added and never renamed.

use serde::{Deserialize, Serialize};

pub use crate::explain::notebook::Change;

/// What would become of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Where it comes in.
    pub listener: Entrance,
    /// Who asks, as far as that is believed.
    pub client: Believed,
    /// The request in its normal form; none if it is refused at the door.
    pub request: Option<Normal>,
    /// The route that takes it; none if none does.
    pub route: Option<Winner>,
    /// Matches whose host and path fit, in order of precedence, the winner among them.
    pub candidates: Vec<Rival>,
    /// Each middleware's turn.
    pub steps: Vec<Turn>,
    /// Where it goes; none if it was answered before.
    pub backend: Option<Chosen>,
    /// Every request that an upstream gets, in that order.
    pub sent: Vec<Sending>,
    /// What the client gets.
    pub answer: Answer,
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entrance {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Why this one.
    pub because: String,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Believed {
    /// The other end of the connection.
    pub peer: String,
    /// The client's address, as far as forwarding headers of trusted proxies tell it.
    pub ip: Option<String>,
    /// `http` or `https`.
    pub scheme: String,
    /// True if the other end is one of the listener's trusted proxies.
    pub trusted: bool,
}

/// A request in its normal form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Normal {
    /// The method.
    pub method: String,
    /// The host, without a port.
    pub host: Option<String>,
    /// The path.
    pub path: String,
    /// The query.
    pub query: Option<String>,
    /// What of it is another than the client wrote.
    pub changes: Vec<Change>,
}

/// The route that takes a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Winner {
    /// Its name.
    pub name: String,
    /// Where it is written; none where only the running rules are known.
    pub place: Option<String>,
    /// Which of its matches held, from 1 on.
    pub r#match: u32,
    /// What its template took from the path.
    pub params: Vec<(String, String)>,
}

/// A match that came near.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rival {
    /// Its route.
    pub route: String,
    /// What it matches, in words.
    pub r#match: String,
    /// The first condition that did not hold; none for the winner, and for those after it.
    pub lost_on: Option<String>,
    /// True for the winner.
    pub wins: bool,
}

/// A middleware's turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Whose it is: `listener`, `route` or `backend`.
    pub of: String,
    /// Its name, or its kind where it has none.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// What it looks at, in a few words: whose limit, which origin.
    pub about: Option<String>,
    /// False if another has answered before it.
    pub ran: bool,
    /// What it changed of the request.
    pub changes: Vec<Change>,
    /// What it noted.
    pub notes: Vec<String>,
    /// The status of its answer, if it gave one.
    pub answered: Option<u16>,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// The upstream, if it is one.
    pub upstream: Option<String>,
    /// The handler, if it is one.
    pub handler: Option<String>,
    /// Of how many backends it was chosen.
    pub of: usize,
    /// What decides among them.
    pub by: Option<String>,
    /// The limits of time in force.
    pub timeouts: Times,
    /// When it is tried again; none for a handler.
    pub retry: Option<Repeats>,
    /// Who gets copies.
    pub mirrors: Vec<String>,
    /// How an endpoint is chosen.
    pub balance: Option<String>,
    /// What of the request decides where it goes, where the policy has a key.
    #[serde(default)]
    pub key: Option<String>,
    /// `http1` or `http2`.
    pub protocol: Option<String>,
    /// Every endpoint.
    pub endpoints: Vec<Place>,
}

/// Limits of time, in milliseconds; none is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// The whole request: what the route allows, or less where `grpc-timeout` says so.
    pub request_ms: Option<u64>,
    /// One attempt, to the head of its answer.
    pub attempt_ms: Option<u64>,
    /// Silence of both sides.
    pub idle_ms: Option<u64>,
}

/// When a request is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeats {
    /// How many tries it has in all.
    pub attempts: u32,
    /// After what.
    pub on: Vec<String>,
    /// True if it may be repeated even where it can have run.
    pub repeatable: bool,
    /// True where the route says nothing and the defaults hold.
    pub by_default: bool,
    /// When another endpoint is asked meanwhile.
    pub hedge: Option<String>,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its address.
    pub address: String,
    /// Its weight; 0 where it takes no request.
    pub weight: u32,
    /// Its zone.
    pub zone: Option<String>,
    /// `ready`, `unhealthy`, `ejected`, `draining`.
    pub state: String,
    /// Why it takes no request; empty where it does.
    pub why: String,
    /// True if it may be chosen.
    pub eligible: bool,
}

/// A request that an upstream gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    /// Who.
    pub upstream: String,
    /// The endpoint that chance has chosen this time.
    pub endpoint: String,
    /// The head, line by line.
    pub head: String,
    /// How many bytes of a body follow.
    pub body_bytes: usize,
}

/// What the client gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The status; that of an upstream is supposed to be 200.
    pub status: u16,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// Who answers: `middleware NAME`, `handler NAME`, `upstream NAME`, `the gateway`.
    pub by: String,
    /// The response flag.
    pub flag: Option<String>,
    /// What it means.
    pub meaning: Option<String>,
    /// A sentence that adds to it.
    pub detail: Option<String>,
    /// What rules noted.
    pub notes: Vec<String>,
    /// What would have been routed instead, where no route takes the request.
    #[serde(default)]
    pub hints: Vec<String>,
}
