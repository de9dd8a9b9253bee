//! Sets, adds and removes header fields, on the way down, on the way up, or both.
//!
//! It refuses to touch fields that belong to a connection or frame a message: what they say is for
//! the gateway to know, and a wrong word there is a request smuggled past someone.

use std::collections::BTreeMap;
use std::fmt;

use http::header::{self, HeaderName, HeaderValue};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Context, Hooks, Kind, Natives, Step, written_as};
use crate::base::message::{Fields, Request, Response};
use crate::base::per_worker::PerWorker;
use crate::base::values::{Name, Value};

/// What changes, on which side.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What changes on requests.
    pub request: Changes,
    /// What changes on answers.
    pub response: Changes,
}

/// Changes header fields of requests before the backend sees them, and of answers before the client
/// does; answers of other middlewares and of the gateway included.
///
/// Example: `set_headers: {request: {set: {x-edge: retort}}, response: {remove: [server]}}`.
#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
#[schemars(rename = "SetHeaders")]
struct Written {
    /// What changes on requests. Default: nothing. Example: `{set: {x-edge: retort}}`.
    #[serde(default)]
    request: Changes,
    /// What changes on answers. Default: nothing. Example: `{remove: [server]}`.
    #[serde(default)]
    response: Changes,
}

/// Changes of header fields; what is removed goes first, then what is set, then what is added.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
#[schemars(rename = "HeaderChanges")]
pub struct Changes {
    /// Fields that get one value, in the place of all that they had. Example: `{cache-control: no-store}`.
    pub set: Pairs,
    /// Fields that get one more value, after those that they have. Example: `{vary: accept}`.
    pub add: Pairs,
    /// Fields that are taken away, with all of their values. Example: `[server, x-powered-by]`.
    pub remove: Names,
}

/// Names and values, in the order in which they are written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pairs(Vec<(HeaderName, HeaderValue)>);

/// Names of fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Names(Vec<HeaderName>);

written_as!(Written);

impl TryFrom<Written> for Settings {
    type Error = &'static str;

    fn try_from(Written { request, response }: Written) -> Result<Self, Self::Error> {
        if request == Changes::default() && response == Changes::default() {
            return Err("it changes nothing: write what, as in `request: {set: {x-edge: retort}}`");
        }
        Ok(Self { request, response })
    }
}

/// Sets, adds and removes header fields.
#[derive(Debug)]
pub struct SetHeaders {
    request: Ready,
    response: Ready,
}

/// Changes, with a copy of every text for each worker.
#[derive(Debug)]
struct Ready {
    remove: Box<[HeaderName]>,
    set: Option<PerWorker<Fixed>>,
    add: Option<PerWorker<Fixed>>,
}

type Fixed = Box<[(HeaderName, HeaderValue)]>;

impl Kind for SetHeaders {
    type Settings = Settings;

    fn build(settings: &Settings, _: &Natives) -> Result<Self, String> {
        Ok(Self {
            request: Ready::new(&settings.request),
            response: Ready::new(&settings.response),
        })
    }
}

impl Hooks for SetHeaders {
    fn on_request(&self, request: &mut Request, _: &mut Context<'_>) -> Step<Request> {
        self.request.apply(&mut request.head.headers);
        Step::Next
    }

    fn on_response(&self, response: &mut Response, _: &mut Context<'_>) -> Step<Response> {
        self.response.apply(&mut response.head.headers);
        Step::Next
    }
}

impl Ready {
    fn new(changes: &Changes) -> Self {
        let ready = |pairs: &Pairs| {
            (!pairs.0.is_empty()).then(|| PerWorker::new(pairs.0.clone().into_boxed_slice()))
        };
        Self {
            remove: changes.remove.0.clone().into_boxed_slice(),
            set: ready(&changes.set),
            add: ready(&changes.add),
        }
    }

    fn apply(&self, fields: &mut Fields) {
        for name in &self.remove {
            fields.remove(name);
        }
        if let Some(set) = &self.set {
            for (name, value) in set.get() {
                fields.set(name.clone(), value.clone());
            }
        }
        if let Some(add) = &self.add {
            for (name, value) in add.get() {
                fields.append(name.clone(), value.clone());
            }
        }
    }
}

/// Refuses what is not for a configuration to change.
fn check(Name(name): Name) -> Result<HeaderName, String> {
    if name == header::HOST {
        return Err(
            "`host` says where a request goes: write `rewrite: {host: example.com}` to change it"
                .to_owned(),
        );
    }
    let text = name.as_str();
    match text {
        // RFC 9110, 7.6.1, and RFC 9112, 6.
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "upgrade" => Err(
            format!("`{text}` belongs to one connection: the gateway writes it itself"),
        ),
        "content-length" | "transfer-encoding" => Err(format!(
            "`{text}` says where a message ends: the gateway writes it itself"
        )),
        _ => Ok(name),
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of header names to values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs: Vec<(HeaderName, HeaderValue)> = Vec::new();
                while let Some(name) = map.next_key()? {
                    let name = check(name).map_err(de::Error::custom)?;
                    if pairs.iter().any(|(earlier, _)| *earlier == name) {
                        return Err(de::Error::custom(format!(
                            "`{name}` comes twice: upper and lower case make no difference"
                        )));
                    }
                    let Value(value) = map.next_value()?;
                    pairs.push((name, value));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Map)
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of header names")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = items.next_element()? {
                    names.push(check(name).map_err(de::Error::custom)?);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

impl JsonSchema for Pairs {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HeaderPairs".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeMap::<String, Value>::json_schema(generator)
    }
}

impl JsonSchema for Names {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HeaderNames".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<Name>::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    const CHANGES: &str = r#"{
        "set": {"X-Header-Set-1": "header-set-1", "X-Header-Set-2": "header-set-2"},
        "add": {"X-Header-Add-1": "header-add-1", "X-Header-Add-2": "header-add-2"},
        "remove": ["X-Header-Remove-1", "X-Header-Remove-2"]
    }"#;

    const BEFORE: &[(&str, &str)] = &[
        ("x-header-set-2", "set-val-2"),
        ("x-header-set-2", "set-val-3"),
        ("x-header-add-2", "add-val-2"),
        ("x-header-remove-2", "remove-val-2"),
        ("another-header", "another-header-val"),
    ];

    fn assert_changed(fields: &Fields) {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(joined(fields, name).as_deref(), expected, "{name}");
        };
        check("x-header-set-1", Some("header-set-1"));
        check("x-header-set-2", Some("header-set-2"));
        check("x-header-add-1", Some("header-add-1"));
        check("x-header-add-2", Some("add-val-2,header-add-2"));
        check("x-header-remove-1", None);
        check("x-header-remove-2", None);
        check("another-header", Some("another-header-val"));
    }

    #[test]
    fn fields_are_removed_set_and_added_on_the_side_that_is_named() {
        let mut world = World::new();
        let down = build(&format!(r#"{{"set_headers": {{"request": {CHANGES}}}}}"#));
        let mut message = request("GET", "/", BEFORE);
        assert!(world.down(&down, &mut message).is_none());
        assert_changed(&message.head.headers);
        let untouched = world.up(&down, response(BEFORE));
        assert_eq!(untouched.head.headers.len(), BEFORE.len());

        let up = build(&format!(r#"{{"set_headers": {{"response": {CHANGES}}}}}"#));
        assert_changed(&world.up(&up, response(BEFORE)).head.headers);
    }

    #[test]
    fn what_is_removed_may_be_set_anew() {
        let it = build(
            r#"{"set_headers": {"response": {"remove": ["via"], "set": {"via": "a"}, "add": {"via": "b"}}}}"#,
        );
        let answer = World::new().up(&it, response(&[("via", "x"), ("via", "y")]));
        assert_eq!(joined(&answer.head.headers, "via").as_deref(), Some("a,b"));
    }

    #[test]
    fn what_is_not_for_a_configuration_to_change_is_refused() {
        let check = |changes: &str, words: &str| {
            let refused = refusal(&format!(r#"{{"set_headers": {{"request": {changes}}}}}"#));
            assert!(refused.contains(words), "{refused}");
        };
        check(
            r#"{"set": {"Host": "x"}}"#,
            "write `rewrite: {host: example.com}`",
        );
        check(
            r#"{"set": {"Content-Length": "0"}}"#,
            "says where a message ends",
        );
        check(
            r#"{"add": {"Transfer-Encoding": "chunked"}}"#,
            "says where a message ends",
        );
        check(r#"{"remove": ["Connection"]}"#, "belongs to one connection");
        check(r#"{"remove": ["TE"]}"#, "belongs to one connection");
        check(r#"{"set": {"a": "1", "A": "2"}}"#, "`a` comes twice");
        check(r#"{"set": {"a b": "1"}}"#, "is not a header name");
        check(r#"{"set": {"a": "1\n2"}}"#, "is not a header value");
        check("{}", "it changes nothing");
    }
}
