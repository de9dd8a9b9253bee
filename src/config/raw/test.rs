//! `tests:`: requests, what upstreams do meanwhile, and what must come of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, Uri};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use super::ItemName;
use crate::base::problem::Spanned;
use crate::base::values::{Name, OneOrMany, Period, Share, Value};
use crate::config::de::tried;
use crate::routing::condition::{Conditions, ValueMatch};

/// A request and what should become of it, or several one after the other.
#[derive(Debug, Clone, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// What the test shows, as a sentence; another one for each test.
    pub name: Spanned<String>,
    /// What upstreams do with the requests that they get, by name: one act, or a list of acts for one
    /// request after the other, the last of which stays. Default: each answers 200 with an empty body.
    #[serde(default, deserialize_with = "tried::field")]
    pub given: Given,
    /// The request. It is this and `expect`, or `steps`.
    #[serde(default, deserialize_with = "tried::field")]
    pub request: Option<Spanned<TestRequest>>,
    /// How many times the request is sent; the same is expected each time. Default `1`.
    #[serde(default, deserialize_with = "tried::field")]
    pub repeat: Option<Spanned<Times>>,
    /// What must come of it.
    #[serde(default, deserialize_with = "tried::field")]
    pub expect: Option<Spanned<Expect>>,
    /// Requests and pauses, one after the other, with one clock and one memory.
    #[serde(default, deserialize_with = "tried::field")]
    pub steps: Option<Spanned<Vec<Step>>>,
}

/// What upstreams do, by name.
pub type Given = BTreeMap<ItemName, Spanned<OneOrMany<Act>>>;

/// One of several steps: a request with what is expected of it, or a pause.
#[derive(Debug, Clone, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TestStep")]
pub struct Step {
    /// Lets so much time go by before the request, if there is one. Example: `1s`.
    #[serde(default, deserialize_with = "tried::field")]
    pub wait: Option<Period>,
    /// What upstreams do from now on.
    #[serde(default, deserialize_with = "tried::field")]
    pub given: Given,
    /// The request.
    #[serde(default, deserialize_with = "tried::field")]
    pub request: Option<Spanned<TestRequest>>,
    /// How many times the request is sent. Default `1`.
    #[serde(default, deserialize_with = "tried::field")]
    pub repeat: Option<Spanned<Times>>,
    /// What must come of it.
    #[serde(default, deserialize_with = "tried::field")]
    pub expect: Option<Spanned<Expect>>,
}

/// How many times a request is sent, 1 to 100000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times(pub NonZeroU32);

/// A test is a matter of moments.
const MOST_TIMES: u32 = 100_000;

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let times = u32::deserialize(deserializer)?;
        let times = Some(times).filter(|times| *times <= MOST_TIMES);
        let times = times.and_then(NonZeroU32::new);
        times
            .map(Self)
            .ok_or_else(|| de::Error::custom(format!("a request is sent 1 to {MOST_TIMES} times")))
    }
}

impl JsonSchema for Times {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Times".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 1, "maximum": MOST_TIMES})
    }
}

/// A request as a client sends it.
#[derive(Debug, Clone, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestRequest {
    /// The method. Default `GET`.
    #[serde(default, deserialize_with = "method")]
    #[schemars(with = "Option<String>")]
    pub method: Option<Method>,
    /// The URL; a path alone is one of `localhost`. Example: `http://api.example.com/orders/7`.
    #[serde(deserialize_with = "url")]
    #[schemars(with = "String")]
    pub url: Uri,
    /// Its headers: a value each, or a list of values. Default: none but `host`.
    #[serde(default, deserialize_with = "headers")]
    #[schemars(with = "BTreeMap<String, OneOrMany<String>>")]
    pub headers: HeaderMap,
    /// Its body. Default: none.
    #[serde(default)]
    pub body: String,
    /// Where it comes from: an IP address, with or without a port. Default `127.0.0.1`.
    #[serde(default, deserialize_with = "client")]
    #[schemars(with = "Option<String>")]
    pub client: Option<SocketAddr>,
    /// The listener that it comes through. Default: the first.
    #[serde(default)]
    pub listener: Option<Spanned<String>>,
    /// The protocol that the client speaks. Default `http1`.
    #[serde(default)]
    pub protocol: Option<super::Protocol>,
}

/// What an endpoint does with a request: `503` answers with that status, `refused` takes no connection,
/// `timeout` never answers, `reset` closes the connection without an answer. A map says more of an
/// answer: `{status: 200, headers: {x-a: b}, body: text, after: 20ms}`, or whose act it is:
/// `{endpoint: "127.0.0.1:9001", fails: refused}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// The only endpoint that does it, by its address as it is written; none if any does.
    pub endpoint: Option<String>,
    /// What it does.
    pub what: What,
}

/// What an endpoint does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It answers.
    Answer {
        /// The status.
        status: StatusCode,
        /// The headers.
        headers: HeaderMap,
        /// The body.
        body: String,
        /// So long after the request has come.
        after: Duration,
    },
    /// It fails.
    Fail(Fails),
}

/// How an endpoint fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fails {
    /// It takes no connection.
    Refused,
    /// It takes the request and never answers.
    Timeout,
    /// It takes the request and closes the connection.
    Reset,
}

#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenAct {
    /// The only endpoint that does it, by its address as it is written. Default: any.
    endpoint: Option<String>,
    /// How it fails; it is this or an answer.
    fails: Option<Fails>,
    /// The status of its answer. Default `200`.
    status: Option<Status>,
    /// The headers of its answer. Default: none.
    #[serde(default, deserialize_with = "headers")]
    #[schemars(with = "BTreeMap<String, OneOrMany<String>>")]
    headers: HeaderMap,
    /// The body of its answer. Default: empty.
    #[serde(default)]
    body: String,
    /// How long after the request it answers. Default: at once.
    after: Option<Period>,
}

impl From<What> for Act {
    fn from(what: What) -> Self {
        let endpoint = None;
        Self { endpoint, what }
    }
}

impl What {
    fn status(status: StatusCode) -> Self {
        Self::Answer {
            status,
            headers: HeaderMap::new(),
            body: String::new(),
            after: Duration::ZERO,
        }
    }
}

impl<'de> Deserialize<'de> for Act {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Act;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status, `refused`, `timeout`, `reset`, or a map")
            }
            fn visit_u64<E: de::Error>(self, code: u64) -> Result<Act, E> {
                final_status(code).map(|status| What::status(status).into())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Act, E> {
                let fails = match text {
                    "refused" => Fails::Refused,
                    "timeout" => Fails::Timeout,
                    "reset" => Fails::Reset,
                    _ => {
                        let code = text
                            .parse()
                            .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))?;
                        return self.visit_u64(code);
                    }
                };
                Ok(What::Fail(fails).into())
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Act, A::Error> {
                let written = WrittenAct::deserialize(MapAccessDeserializer::new(map))?;
                written.settle().map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl WrittenAct {
    fn settle(self) -> Result<Act, &'static str> {
        let answers = self.status.is_some()
            || !self.headers.is_empty()
            || !self.body.is_empty()
            || self.after.is_some();
        let what = match self.fails {
            Some(_) if answers => {
                return Err("an endpoint that `fails` gives no answer: remove one of them");
            }
            Some(fails) => What::Fail(fails),
            None => What::Answer {
                status: self.status.map_or(StatusCode::OK, |status| status.0),
                headers: self.headers,
                body: self.body,
                after: self.after.map_or(Duration::ZERO, |after| after.0),
            },
        };
        Ok(Act {
            endpoint: self.endpoint,
            what,
        })
    }
}

impl JsonSchema for Act {
    fn schema_name() -> Cow<'static, str> {
        "TestAct".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let map = generator.subschema_for::<WrittenAct>();
        json_schema!({
            "description": "What an endpoint does with a request: a status, `refused`, `timeout`, `reset`, or a map.",
            "anyOf": [
                {"type": "integer", "minimum": 200, "maximum": 599},
                {"type": "string", "pattern": "^(refused|timeout|reset|[2-5][0-9][0-9])$"},
                map,
            ],
        })
    }
}

/// What must come of a request; what is not named may be anything.
#[derive(Debug, Clone, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// The route that takes it, or `none`.
    pub route: Option<Spanned<String>>,
    /// The upstream that it goes to, or `none`.
    pub upstream: Option<Spanned<String>>,
    /// The handler that answers, by its name, or by its kind where it has none; or `none`.
    pub handler: Option<Spanned<String>>,
    /// The middleware that answers, by its name, or by its kind where it has none; or `none`.
    pub middleware: Option<Spanned<String>>,
    /// The status of the answer.
    pub status: Option<Spanned<Status>>,
    /// The response flag, such as `URX`, or `none`.
    pub flag: Option<Spanned<String>>,
    /// Headers of the answer, each as in a route's `match`: a text, or `{regex: …}`, `{prefix: …}`,
    /// `{present: true}`.
    pub headers: Option<Spanned<Conditions<Name>>>,
    /// The body of the answer: a text, or one of the same conditions.
    pub body: Option<Spanned<ValueMatch>>,
    /// What the upstream has got, at the last attempt.
    pub sent: Option<Spanned<Sent>>,
    /// How many attempts it took at upstreams.
    pub attempts: Option<Spanned<u32>>,
    /// How long it takes at most, from the request to the answer's end.
    pub within: Option<Spanned<Period>>,
    /// With `repeat`: which share of the requests goes to which upstream or handler.
    #[serde(deserialize_with = "tried::field")]
    pub shares: BTreeMap<ItemName, Spanned<Between>>,
}

/// A request as an upstream gets it.
#[derive(Debug, Clone, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "TestSent")]
pub struct Sent {
    /// The method.
    pub method: Option<Spanned<String>>,
    /// The path with the query.
    pub path: Option<Spanned<String>>,
    /// The host.
    pub host: Option<Spanned<String>>,
    /// Headers, each as in a route's `match`.
    pub headers: Option<Spanned<Conditions<Name>>>,
    /// The body.
    pub body: Option<Spanned<ValueMatch>>,
}

/// The bounds of a share.
#[derive(Debug, Clone, Copy, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TestShare")]
pub struct Between {
    /// At least so much. Default `0%`.
    #[serde(default = "Between::nothing")]
    pub min: Share,
    /// At most so much. Default `100%`.
    #[serde(default = "Between::everything")]
    pub max: Share,
}

impl Between {
    fn nothing() -> Share {
        Share(0.0)
    }

    fn everything() -> Share {
        Share(1.0)
    }
}

/// The status of an answer, 200 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub StatusCode);

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        final_status(u64::deserialize(deserializer)?).map(Self)
    }
}

impl JsonSchema for Status {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Status".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 200, "maximum": 599})
    }
}

fn final_status<E: de::Error>(code: u64) -> Result<StatusCode, E> {
    let status = u16::try_from(code).ok();
    let status = status.filter(|code| (200..600).contains(code));
    let status = status.and_then(|code| StatusCode::from_u16(code).ok());
    status.ok_or_else(|| E::custom(format!("{code} is no status of an answer: 200 to 599 are")))
}

fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Method>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let method = Method::from_bytes(text.as_bytes());
    let method = method.map_err(|_| de::Error::custom(format!("`{text}` is no method")))?;
    Ok(Some(method))
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
    let text = String::deserialize(deserializer)?;
    let uri: Uri = text
        .parse()
        .map_err(|error| de::Error::custom(format!("`{text}` is no URL: {error}")))?;
    match uri.scheme_str() {
        None if text.starts_with('/') || text == "*" => Ok(uri),
        Some("http" | "https") => Ok(uri),
        _ => Err(de::Error::custom(format!(
            "`{text}` is neither a URL of `http` or `https` nor a path"
        ))),
    }
}

fn client<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let address = text.parse::<SocketAddr>();
    let address = address.or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 40_000)));
    address.map(Some).map_err(|_| {
        de::Error::custom(format!("`{text}` is no IP address, with or without a port"))
    })
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HeaderMap, D::Error> {
    struct Fields;
    impl<'de> Visitor<'de> for Fields {
        type Value = HeaderMap;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of names to values")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HeaderMap, A::Error> {
            let mut headers = HeaderMap::new();
            while let Some(Name(name)) = map.next_key()? {
                let OneOrMany(values) = map.next_value::<OneOrMany<Value>>()?;
                for Value(value) in values {
                    headers.append(name.clone(), value);
                }
            }
            Ok(headers)
        }
    }
    deserializer.deserialize_map(Fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(json: &str) -> Result<Act, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn an_act_is_written_shortly_or_in_full() {
        assert_eq!(act("503"), act("\"503\""));
        let full = r#"{"status": 503}"#;
        assert_eq!(act("503"), act(full));
        let refused = act("\"refused\"").expect("an act");
        assert_eq!(refused.what, What::Fail(Fails::Refused));
        let own = act(r#"{"endpoint": "127.0.0.1:1", "fails": "reset"}"#).expect("an act");
        assert_eq!(own.endpoint.as_deref(), Some("127.0.0.1:1"));
        for wrong in [
            "99",
            "600",
            "\"later\"",
            r#"{"fails": "reset", "status": 200}"#,
            "[]",
        ] {
            assert!(act(wrong).is_err(), "{wrong}");
        }
    }
}
