//! `tests:`

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::{StatusCode, Uri};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Unexpected, Visitor};

use super::Protocol;
use crate::base::problem::Spanned;
use crate::base::values::{self, Name, OneOrMany, Period, Value};
use crate::config::de::tried;
use crate::config::test::OrNone;
use crate::routing::condition::ValueMatch;
use crate::routing::method::MethodName;
use crate::telemetry::decision::Flag;
use crate::upstream::Target;

/// A test: requests and what must come of them. It has one of `request`, `steps`.
#[derive(Debug, serde::Deserialize, JsonSchema)]
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
#[derive(Debug, serde::Deserialize, JsonSchema)]
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
#[derive(Debug, serde::Deserialize, JsonSchema)]
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
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
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
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
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
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ShareBounds")]
pub(crate) struct Bounds {
    /// The least share. Default `0%`.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) min: Option<values::Share>,
    /// The greatest share. Default `100%`.
    #[serde(default, deserialize_with = "tried::field")]
    pub(crate) max: Option<values::Share>,
}

/// What an endpoint does about a request: a status, a word, or a map.
#[derive(Debug)]
pub(crate) struct Act(pub(crate) WholeAct);

/// What an endpoint does about a request. It has `status` or `failure`, not both.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WholeAct {
    /// The status of its answer, from 200 to 599. Default 200.
    pub(crate) status: Option<Status>,
    /// What it does in the place of an answer.
    pub(crate) failure: Option<Failure>,
    /// Headers of its answer: by name one value or a list of them. Default: none.
    #[serde(default)]
    pub(crate) headers: Pairs<Spanned<Name>, OneOrMany<Value>>,
    /// The body of its answer, as text. Default: empty.
    pub(crate) body: Option<String>,
    /// How long after the request it answers, up to `7d`. Default: at once.
    pub(crate) after: Option<Spanned<Period>>,
    /// The one endpoint of the upstream that does it, as it is written there. Default: whichever is
    /// asked.
    pub(crate) endpoint: Option<Spanned<Target>>,
}

/// How an endpoint fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "EndpointFailure")]
pub(crate) enum Failure {
    /// It refuses the connection.
    Refused,
    /// It takes the request and never answers.
    Timeout,
    /// It takes the request and closes the connection.
    Reset,
}

impl<'de> Deserialize<'de> for Act {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Act;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a status such as `503`, one of `refused`, `timeout`, `reset`, or a map with `status` or `failure`",
                )
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Act, E> {
                let failure = match (text, text.parse()) {
                    ("refused", _) => Failure::Refused,
                    ("timeout", _) => Failure::Timeout,
                    ("reset", _) => Failure::Reset,
                    (_, Ok(status)) => return self.visit_u64(status),
                    _ => return Err(E::invalid_value(Unexpected::Str(text), &self)),
                };
                let failure = Some(failure);
                Ok(Act(WholeAct {
                    failure,
                    ..WholeAct::default()
                }))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Act, E> {
                let status = Some(Status::of(number)?);
                Ok(Act(WholeAct {
                    status,
                    ..WholeAct::default()
                }))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Act, A::Error> {
                WholeAct::deserialize(MapAccessDeserializer::new(map)).map(Act)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Act {
    fn schema_name() -> Cow<'static, str> {
        "Act".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let status = generator.subschema_for::<Status>();
        let failure = generator.subschema_for::<Failure>();
        let whole = WholeAct::json_schema(generator);
        json_schema!({"anyOf": [status, failure, whole]})
    }
}

/// A status of an answer, as a number or as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) StatusCode);

impl Status {
    /// Informational ones are no answers.
    fn of<E: de::Error>(number: u64) -> Result<Self, E> {
        u16::try_from(number)
            .ok()
            .filter(|number| (200..600).contains(number))
            .and_then(|number| StatusCode::from_u16(number).ok())
            .map(Self)
            .ok_or_else(|| E::custom(format!("{number} is not a status from 200 to 599")))
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Status;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status from 200 to 599")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Status, E> {
                match text.parse() {
                    Ok(number) => Status::of(number),
                    Err(_) => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Status, E> {
                Status::of(number)
            }
        }
        deserializer.deserialize_any(Number)
    }
}

impl JsonSchema for Status {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "StatusOrText".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "integer", "minimum": 200, "maximum": 599},
            {"type": "string", "pattern": r"^[2-5][0-9][0-9]$|\$\{"},
        ]})
    }
}

/// The letters of a flag, or `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FlagOrNone(pub(crate) OrNone<Flag>);

impl<'de> Deserialize<'de> for FlagOrNone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "none" {
            return Ok(Self(OrNone::None));
        }
        if let Some(flag) = Flag::by_code(&text) {
            return Ok(Self(OrNone::Is(flag)));
        }
        Err(match Flag::by_code(&text.to_ascii_uppercase()) {
            Some(flag) => de::Error::custom(format!(
                "flags are written in capitals: `{}`, not `{text}`",
                flag.code()
            )),
            None => de::Error::unknown_variant(&text, Flag::CODES),
        })
    }
}

impl JsonSchema for FlagOrNone {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "FlagOrNone".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let codes = Flag::CODES.join("|");
        json_schema!({"type": "string", "pattern": format!(r"^(none|{codes})$|\$\{{")})
    }
}

/// What a test shows: a line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Title(pub(crate) String);

/// The longest title: reports have it in one line.
const LONGEST_TITLE: usize = 200;

impl<'de> Deserialize<'de> for Title {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.trim().is_empty() {
            return Err(de::Error::custom("say in a sentence what the test shows"));
        }
        if text.len() > LONGEST_TITLE || text.contains(char::is_control) {
            return Err(de::Error::custom(format!(
                "the name of a test is one line of at most {LONGEST_TITLE} bytes"
            )));
        }
        Ok(Self(text))
    }
}

impl JsonSchema for Title {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Title".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "maxLength": LONGEST_TITLE})
    }
}

/// Where a request goes: a whole URL, whatever way it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url(pub(crate) Uri);

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{text}` cannot be requested: {why}");
        let whole = match text.strip_prefix('/') {
            Some(path) => format!("http://localhost/{path}"),
            None => text.to_owned(),
        };
        if text.contains('#') {
            return Err(wrong("what follows `#` is never sent, so leave it out"));
        }
        let url = Uri::try_from(whole).map_err(|_| {
            wrong("a URL has no spaces and no odd characters, write them as `%20` and the like")
        })?;
        let is_http = matches!(url.scheme_str(), Some("http" | "https"));
        let Some(authority) = url.authority().filter(|_| is_http) else {
            return Err(wrong(
                "write a whole URL such as `http://api.example.com/orders`, or a path such as `/orders`",
            ));
        };
        if authority.as_str().contains('@') {
            return Err(wrong(
                "write the user and the password as the header `authorization`",
            ));
        }
        if authority.host().is_empty() {
            return Err(wrong("its host is empty"));
        }
        Ok(Self(url))
    }
}

/// The address of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client(pub(crate) SocketAddr);

impl Client {
    /// The port of a client that has only an address.
    const PORT: u16 = 50_000;
}

impl Default for Client {
    fn default() -> Self {
        Self(([127, 0, 0, 1], Self::PORT).into())
    }
}

impl FromStr for Client {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let alone = text.parse::<IpAddr>().map(|ip| (ip, Self::PORT).into());
        alone.or_else(|_| text.parse()).map(Self).map_err(|_| {
            format!("`{text}` is not the address of a client: write `203.0.113.9` or `203.0.113.9:40000`")
        })
    }
}

/// Makes a type that is read by its `FromStr` known to serde and to the JSON Schema.
macro_rules! written_as_text {
    ($($type:ident: $pattern:literal;)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $pattern})
            }
        }
    )*};
}

written_as_text! {
    Url: r"^(/|https?://)|\$\{";
    Client: r"^[0-9A-Fa-f.:\[\]%]+$|\$\{";
}

/// The entries of a map, in the order of the file, whatever their keys are.
#[derive(Debug)]
pub(crate) struct Pairs<K, V>(pub(crate) Vec<(K, V)>);

impl<K, V> Default for Pairs<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Pairs<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<K, V>(PhantomData<(K, V)>);
        impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
            type Value = Pairs<K, V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map whose keys are names")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<K, V>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    pairs.push(entry);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

impl<K, V: JsonSchema> JsonSchema for Pairs<K, V> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Pairs_{}", V::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<V>();
        json_schema!({"type": "object", "additionalProperties": value})
    }
}
