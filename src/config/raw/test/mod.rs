//! `tests:`

mod act;
mod pairs;
mod text;

use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use self::act::{Act, Failure, Status, WholeAct};
pub(crate) use self::pairs::Pairs;
pub(crate) use self::text::{Client, FlagOrNone, Title, Url};
use super::Protocol;
use crate::base::problem::Spanned;
use crate::base::values::{Name, OneOrMany, Period, Share, Value};
use crate::config::de::tried;
use crate::routing::condition::ValueMatch;
use crate::routing::method::MethodName;

/// A test: requests and what must come of them. It has one of `request`, `steps`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Test {
    /// What the test shows, as a sentence; no two tests have the same.
    pub(crate) name: Spanned<Title>,
    /// What the endpoints of upstreams do about the requests that come to them: by the upstream's
    /// name one thing or a list, one for each request, of which the last stays in force. Default: all
    /// answer 200 with an empty body.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) given: Pairs<Spanned<String>, Spanned<OneOrMany<Spanned<Act>>>>,
    /// What a client sends.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) request: Option<Spanned<Request>>,
    /// How often it is sent, one after the other, up to 100000. Default 1.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) repeat: Option<Spanned<u32>>,
    /// What must come of it.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) expect: Option<Spanned<Expect>>,
    /// Several requests, and waits between them, one after the other on one clock; in the place of
    /// `request`, `repeat` and `expect`.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) steps: Option<Spanned<Vec<Spanned<Step>>>>,
}

/// One thing after another. It has one of `request`, `wait`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TestStep")]
pub(crate) struct Step {
    /// What a client sends.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) request: Option<Spanned<Request>>,
    /// How often it is sent, one after the other, up to 100000. Default 1.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) repeat: Option<Spanned<u32>>,
    /// What must come of it, each time. Default: anything may.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) expect: Option<Spanned<Expect>>,
    /// How long nothing is sent, up to `7d`; the clock is not a real one, so nobody waits.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) wait: Option<Spanned<Period>>,
}

/// What a client sends.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TestRequest")]
pub(crate) struct Request {
    /// The method. Default `GET`.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) method: Option<MethodName>,
    /// A whole URL, as in `http://api.example.com/orders/7?page=2`, or a path such as `/orders/7`,
    /// which is one of the host `localhost`.
    pub(crate) url: Url,
    /// Headers besides `host`, which the URL says: by name one value or a list of them. Default: none.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) headers: Pairs<Spanned<Name>, OneOrMany<Value>>,
    /// The body, as text. Default: none.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) body: Option<String>,
    /// The address of the client, with or without its port. Default `127.0.0.1`.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) client: Option<Client>,
    /// The name of the listener by which it comes in. Default: the first one.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) listener: Option<Spanned<String>>,
    /// What the client speaks. Default `http1`, or `http2` where the listener takes nothing else.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) protocol: Option<Spanned<Protocol>>,
}

/// What must come of a request; what is left out may be anything.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    /// The name of the route that takes it; `none` where no route does.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) route: Option<Spanned<String>>,
    /// The name of the upstream that it is sent to; `none` where it is sent to none.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) upstream: Option<Spanned<String>>,
    /// The name or the kind of the handler that answers it; `none` where none does.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) handler: Option<Spanned<String>>,
    /// The middleware that answers it itself, by its name, or by its kind where it stands in place or
    /// in a named chain; `none` where none does.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) middleware: Option<Spanned<String>>,
    /// The status that the client gets, from 200 to 599.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) status: Option<Spanned<Status>>,
    /// The letters that say why the gateway answers itself or how the upstream failed, as in the
    /// access log: `URX`, `RL`; `none` for a plain answer.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) flag: Option<Spanned<FlagOrNone>>,
    /// Headers of the answer that the client gets, and what they must be: the exact text, or one of
    /// `exact`, `prefix`, `regex`, `present`. Of several values the first one counts.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) headers: Pairs<Spanned<Name>, Spanned<ValueMatch>>,
    /// What the body that the client gets must be: the exact text, or one of `exact`, `prefix`,
    /// `regex`.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) body: Option<Spanned<ValueMatch>>,
    /// What the endpoint gets, at the last attempt.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) sent: Sent,
    /// How many attempts it takes at endpoints, the first among them; 0 where none is asked.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) attempts: Option<Spanned<u32>>,
    /// The longest time from the request to the end of its answer.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) within: Option<Spanned<Period>>,
    /// Where requests that are repeated go: by the name of an upstream, or the name or kind of a
    /// handler, the least and the greatest share of them.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) shares: Pairs<Spanned<String>, Spanned<Bounds>>,
}

/// What an endpoint gets; what is left out may be anything.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sent {
    /// The method.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) method: Option<Spanned<MethodName>>,
    /// The path with its query, as a text or a condition.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) path: Option<Spanned<ValueMatch>>,
    /// The host, as a text or a condition.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) host: Option<Spanned<ValueMatch>>,
    /// Headers and what they must be; of several values the first one counts.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) headers: Pairs<Spanned<Name>, Spanned<ValueMatch>>,
}

/// A part of all requests. It has at least one of `min`, `max`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ShareBounds")]
pub(crate) struct Bounds {
    /// The least share. Default `0%`.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) min: Option<Share>,
    /// The greatest share. Default `100%`.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) max: Option<Share>,
}
