//! The `match` of a route: what a request must be for the route to take it.
//!
//! Everything is parsed here, once: a bad host, path, regex or method never reaches the table.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use crate::base::values::{Name, OneOrMany};
use crate::routing::condition::Conditions;
use crate::routing::host::HostPattern;
use crate::routing::method::{MethodName, Methods};
use crate::routing::pattern::PathRegex;
use crate::routing::template::{PathPattern, Template, literal_path};
use crate::routing::text;

/// One set of conditions, all of which must hold; without any, every request matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// Which hosts; none named: every host.
    pub hosts: Vec<HostPattern>,
    /// Which paths.
    pub path: PathMatch,
    /// Which methods.
    pub methods: Methods,
    /// What headers must be.
    pub headers: Conditions<Name>,
    /// What query parameters must be.
    pub query: Conditions<String>,
    /// What cookies must be.
    pub cookies: Conditions<String>,
    /// Whether only gRPC calls match.
    pub content: Content,
}

impl Match {
    /// True if its path gives a parameter of that name.
    pub fn has_param(&self, name: &str) -> bool {
        match &self.path {
            PathMatch::Template(template) => template.has_param(name),
            _ => false,
        }
    }
}

/// Which paths a match takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PathMatch {
    /// Every path, `*` of `OPTIONS *` among them; in order of precedence like the prefix `/`.
    #[default]
    Any,
    /// This path only.
    Literal(Arc<str>),
    /// Paths of this form.
    Template(Arc<Template>),
    /// This path and all below it; without a slash at the end, so the root is empty.
    Prefix(Arc<str>),
    /// Paths that this matches as a whole.
    Regex(PathRegex),
}

/// What kind of calls a match takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Content {
    /// Any.
    #[default]
    Any,
    /// Calls whose content type starts with `application/grpc`.
    Grpc,
}

/// Which requests a route takes. All conditions must hold; leave out what does not matter. At most
/// one of `path`, `path_prefix`, `path_regex` and `grpc` is given.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
struct Written {
    /// One host or several: `api.example.com`, or `*.example.com` for every name below it. Case and
    /// port do not matter. Default: every host.
    host: Option<OneOrMany<HostPattern>>,
    /// The path, exactly (`/health`), or a template whose parameters take whole segments: `{x}` any,
    /// `{x:int}`, `{x:float}`, `{x:uuid}`, `{x:any(a|b)}`, and `{x:path}` the rest of the path. The
    /// query does not count.
    path: Option<PathPattern>,
    /// The path and all below it: `/orders` takes `/orders` and `/orders/7`, not `/orders2`. A slash
    /// at the end changes nothing.
    path_prefix: Option<PathPrefix>,
    /// A regular expression that must match the whole path, in its normal form (percent-encoded). All
    /// of them run as one, but for patterns that start with `.*`: those cost more, the more there are.
    path_regex: Option<PathRegex>,
    /// One method or several, in capitals. GET takes HEAD, too. Default: every method. Where nothing
    /// but the method is wrong the answer is 405 with `Allow`.
    method: Option<OneOrMany<MethodName>>,
    /// Headers and what they must be (the first value, where a header comes more than once), as in
    /// `{x-canary: "1", x-tenant: {regex: "^[a-z]+$"}}`.
    headers: Conditions<Name>,
    /// Query parameters and what they must be, decoded (the first, where one comes more than once).
    query: Conditions<String>,
    /// Cookies and what they must be, as in `{beta: {present: true}}`.
    cookies: Conditions<String>,
    /// gRPC calls of a service, or of one of its methods.
    grpc: Option<Grpc>,
}

/// Calls of a gRPC service: POST to `/service/method` with a content type of gRPC.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
struct Grpc {
    /// The service's full name, as in `acme.Users`.
    service: ProtoName,
    /// One method of it, as in `Get`. Default: every method.
    method: Option<ProtoName>,
}

/// A service or method as protobuf names it: letters, digits, `_` and `.`.
#[derive(Debug)]
struct ProtoName(String);

/// A path of which everything below it is meant, too; without a slash at its end.
#[derive(Debug)]
struct PathPrefix(Arc<str>);

impl Written {
    fn settle(self) -> Result<Match, String> {
        let given = [
            ("path", self.path.is_some()),
            ("path_prefix", self.path_prefix.is_some()),
            ("path_regex", self.path_regex.is_some()),
            ("grpc", self.grpc.is_some()),
        ];
        let mut given = given.iter().filter(|(_, is_given)| *is_given);
        if let (Some((one, _)), Some((other, _))) = (given.next(), given.next()) {
            return Err(format!(
                "`{one}` and `{other}` are both given: a match has one of `path`, `path_prefix`, `path_regex`, `grpc`"
            ));
        }
        if self.grpc.is_some() && self.method.is_some() {
            return Err("`grpc` means the method POST already: leave `method` out".to_owned());
        }
        let mut methods = Methods::new(many("method", self.method)?.into_iter().map(|m| m.0));
        let mut content = Content::Any;
        let path = match (self.path, self.path_prefix, self.path_regex, self.grpc) {
            (Some(PathPattern::Literal(path)), ..) => PathMatch::Literal(path),
            (Some(PathPattern::Template(template)), ..) => PathMatch::Template(template),
            (_, Some(PathPrefix(path)), ..) => PathMatch::Prefix(path),
            (_, _, Some(regex), _) => PathMatch::Regex(regex),
            (.., Some(grpc)) => {
                methods = Methods::new([Method::POST]);
                content = Content::Grpc;
                grpc.path()
            }
            _ => PathMatch::Any,
        };
        Ok(Match {
            hosts: many("host", self.host)?,
            path,
            methods,
            headers: self.headers,
            query: self.query,
            cookies: self.cookies,
            content,
        })
    }
}

/// The items of a list that may be left out but not be empty.
fn many<T>(key: &str, list: Option<OneOrMany<T>>) -> Result<Vec<T>, String> {
    match list {
        Some(OneOrMany(list)) if list.is_empty() => Err(format!(
            "`{key}` is an empty list, so nothing could match: leave it out to match all"
        )),
        Some(OneOrMany(list)) => Ok(list),
        None => Ok(Vec::new()),
    }
}

impl Grpc {
    fn path(&self) -> PathMatch {
        let service = &self.service.0;
        match &self.method {
            Some(ProtoName(method)) => PathMatch::Literal(format!("/{service}/{method}").into()),
            None => PathMatch::Template(Arc::new(Template::of_service(service))),
        }
    }
}

impl PathMatch {
    /// Which kind wins over which: the lower.
    pub(super) fn class(&self) -> u8 {
        match self {
            Self::Literal(_) => 0,
            Self::Template(_) => 1,
            Self::Prefix(_) | Self::Any => 2,
            Self::Regex(_) => 3,
        }
    }

    /// Which path wins among those of one kind: the higher.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Template(template) => template.shape().literals() as usize,
            Self::Prefix(path) => path.matches('/').count(),
            _ => 0,
        }
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Template(template) => template.fmt(f),
            Self::Prefix(path) if path.is_empty() => f.write_str("/"),
            Self::Literal(path) | Self::Prefix(path) => f.write_str(path),
            Self::Regex(regex) => f.write_str(regex.as_str()),
        }
    }
}

impl Match {
    /// Header conditions, in the sense of precedence: cookies and the content type of gRPC count.
    pub(super) fn header_conditions(&self) -> usize {
        let content = usize::from(self.content == Content::Grpc);
        self.headers.0.len() + self.cookies.0.len() + content
    }

    /// True if something besides host, literal path and method must be looked at.
    pub(super) fn is_conditional(&self) -> bool {
        self.header_conditions() + self.query.0.len() > 0
            || matches!(self.path, PathMatch::Template(_))
    }
}

impl<'de> Deserialize<'de> for Match {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By a visitor, so that what is wrong between two keys is said at the place of the match.
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Match;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of conditions such as `path_prefix`, `host`, `method`")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Match, A::Error> {
                Written::deserialize(MapAccessDeserializer::new(map))?
                    .settle()
                    .map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_map(Map)
    }
}

impl JsonSchema for Match {
    fn schema_name() -> Cow<'static, str> {
        "Match".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Written::json_schema(generator)
    }
}

impl FromStr for PathPrefix {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        if written.contains(['{', '}']) {
            return Err(format!(
                "`{written}` is not a prefix: a prefix has no parameters (use `path` with `{{rest:path}}` at its end)"
            ));
        }
        let path = literal_path(written)?;
        let path = path.strip_suffix('/').unwrap_or(&path);
        if path.ends_with('/') {
            return Err(format!("the prefix `{written}` ends in two slashes"));
        }
        Ok(Self(path.into()))
    }
}

impl FromStr for ProtoName {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
        if written.is_empty() || !written.bytes().all(inside) {
            return Err(format!(
                "`{written}` is not a gRPC name: letters, digits, `_` and `.`, as in `acme.Users`"
            ));
        }
        Ok(Self(written.to_owned()))
    }
}

impl<'de> Deserialize<'de> for PathPrefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::read(deserializer, "a path such as `/orders`")
    }
}

impl<'de> Deserialize<'de> for ProtoName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::read(deserializer, "a name such as `acme.Users`")
    }
}

impl JsonSchema for PathPrefix {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "PathPrefix".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        text::schema("^/", &["/orders"])
    }
}

impl JsonSchema for ProtoName {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "ProtoName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        text::schema("^[A-Za-z0-9_.]+$", &["acme.Users"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Match, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_match_is_read_as_people_write_it() {
        let read = |json: &str| read(json).expect(json);
        assert_eq!(read("{}"), Match::default());
        let full = read(
            r#"{"host": ["*.Shop.example", "a.example"], "path_prefix": "/orders/", "method": ["GET", "POST"],
                "headers": {"X-Tenant": {"regex": "^[a-z]+$"}}, "query": {"v": 2}, "cookies": {"beta": {"present": true}}}"#,
        );
        assert_eq!(full.path, PathMatch::Prefix("/orders".into()));
        assert_eq!(full.hosts.len(), 2);
        assert_eq!(full.methods.to_string(), "GET, POST");
        assert_eq!(full.header_conditions(), 2);
        let grpc = read(r#"{"grpc": {"service": "acme.Users", "method": "Get"}}"#);
        assert_eq!(grpc.path, PathMatch::Literal("/acme.Users/Get".into()));
        assert_eq!(
            (grpc.methods.to_string().as_str(), grpc.content),
            ("POST", Content::Grpc)
        );
        let grpc = read(r#"{"grpc": {"service": "acme.Users"}}"#);
        assert_eq!(grpc.path.to_string(), "/acme.Users/{method}");
        assert_eq!(
            read(r#"{"path_prefix": "/"}"#).path,
            PathMatch::Prefix("".into())
        );
    }

    #[test]
    fn what_is_wrong_is_said_in_a_sentence() {
        let check = |json: &str, sentence: &str| {
            let problem = read(json).expect_err(json);
            assert!(problem.contains(sentence), "{json}: {problem}");
        };
        check(
            r#"{"path": "/a", "path_prefix": "/b"}"#,
            "`path` and `path_prefix` are both given",
        );
        check(
            r#"{"path_regex": "/a", "grpc": {"service": "a"}}"#,
            "`path_regex` and `grpc` are both given",
        );
        check(
            r#"{"grpc": {"service": "a"}, "method": ["GET"]}"#,
            "means the method POST already",
        );
        check(r#"{"method": []}"#, "`method` is an empty list");
        check(r#"{"host": []}"#, "`host` is an empty list");
        check(r#"{"method": ["get"]}"#, "write `GET`");
        check(r#"{"path_regex": "("}"#, "unclosed group");
        check(r#"{"path": "/{x:date}"}"#, "no converter `date`");
        check(r#"{"path_prefix": "/a/{x}"}"#, "a prefix has no parameters");
        check(r#"{"path_prefix": "/a//"}"#, "ends in two slashes");
        check(r#"{"path_prefix": "a"}"#, "starts with `/`");
        check(r#"{"grpc": {"service": "/acme.Users"}}"#, "not a gRPC name");
        check(r#"{"grpc": {"method": "Get"}}"#, "missing field `service`");
        check(r#"{"paths": "/a"}"#, "unknown field `paths`");
        check(r#"{"headers": {"a b": "1"}}"#, "not a header name");
        check(r#""/a""#, "a map of conditions");
    }

    #[test]
    fn every_key_is_described_for_the_operator() {
        let schema = serde_json::to_value(schemars::schema_for!(Match)).expect("a schema");
        let keys = schema["properties"].as_object().expect("properties");
        for key in [
            "host",
            "path",
            "path_prefix",
            "path_regex",
            "method",
            "headers",
            "query",
            "cookies",
            "grpc",
        ] {
            let described = keys[key]["description"].is_string();
            assert!(described, "{key}: {}", keys[key]);
        }
        assert_eq!(keys.len(), 9);
    }
}
