//! One address of an upstream, as it is written and as it is used.
//!
//! A host name is resolved once, when the upstream is built, on the control thread: what changes in
//! DNS later is seen only when the upstream's section changes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use http::HeaderValue;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::base::address::Address;
use crate::base::key;

/// The heaviest endpoint: ten thousand times the lightest.
const MAX_WEIGHT: u32 = 10_000;

/// One entry of `endpoints:`; an address that is there twice counts with both weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSettings {
    /// Where it is.
    pub address: Target,
    /// Its share of requests, relative to the other endpoints.
    pub weight: u32,
    /// Where it runs, for balancing by locality.
    pub zone: Option<String>,
}

/// An address, or a host name with its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Nothing to resolve.
    Address(Address),
    /// Resolved when the upstream is built.
    Name {
        /// The host's name.
        host: String,
        /// The port.
        port: u16,
    },
}

/// One place to send requests to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// Its share of requests, relative to the other endpoints; 0 takes it out.
    pub weight: u32,
    /// Where it runs.
    pub zone: Option<String>,
    /// The address as people read it.
    pub label: Box<str>,
    /// What `host` says when the request has none.
    pub host: HeaderValue,
    /// The hash of its label: the same in every process.
    pub hash: u64,
}

impl Endpoint {
    pub(super) fn new(address: Address, weight: u32, zone: Option<String>) -> Self {
        let label = address.to_string();
        let host = match &address {
            Address::Tcp(_) => HeaderValue::from_str(&label).ok(),
            Address::Unix(_) => None,
        };
        Self {
            address,
            weight,
            zone,
            hash: key::hash(label.as_bytes()),
            label: label.into(),
            host: host.unwrap_or_else(|| HeaderValue::from_static("localhost")),
        }
    }

    /// The name under which it was found: what `host` says when the request has none.
    pub(super) fn be_called(&mut self, name: &str) {
        let host = match self.tcp() {
            Some(address) => format!("{name}:{}", address.port()),
            None => name.to_owned(),
        };
        if let Ok(host) = HeaderValue::try_from(host) {
            self.host = host;
        }
    }

    /// The IP address and port, unless it is a Unix socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        self.address.tcp()
    }
}

/// Each address once, in the order of the list: one that is written several times, or that several
/// names lead to, has all of its weights together.
pub(super) fn merged(list: Vec<Endpoint>) -> Vec<Endpoint> {
    let mut places: HashMap<Address, usize> = HashMap::new();
    let mut merged: Vec<Endpoint> = Vec::with_capacity(list.len());
    for endpoint in list {
        let known = places.get(&endpoint.address).copied();
        match known.and_then(|place| merged.get_mut(place)) {
            Some(first) => {
                first.weight = first.weight.saturating_add(endpoint.weight).min(MAX_WEIGHT);
            }
            None => {
                places.insert(endpoint.address.clone(), merged.len());
                merged.push(endpoint);
            }
        }
    }
    merged
}

impl EndpointSettings {
    /// An address of weight 1.
    pub fn new(address: Address) -> Self {
        Self {
            address: Target::Address(address),
            weight: 1,
            zone: None,
        }
    }

    /// The endpoints behind this entry: one, or one for each address of a host name.
    ///
    /// Blocks while a name is resolved. IPv4 addresses are preferred where a name has both kinds:
    /// `localhost` has, and most services listen on `127.0.0.1` alone.
    pub(super) fn resolve(&self) -> Result<Vec<Endpoint>, String> {
        let (host, port) = match &self.address {
            Target::Address(address) => return Ok(vec![self.at(address.clone())]),
            Target::Name { host, port } => (host, *port),
        };
        let mut found: Vec<SocketAddr> = (host.as_str(), port)
            .to_socket_addrs()
            .map_err(|error| format!("the name `{host}` cannot be resolved: {error}"))?
            .collect();
        if found.iter().any(SocketAddr::is_ipv4) {
            found.retain(SocketAddr::is_ipv4);
        }
        found.sort_unstable();
        found.dedup();
        if found.is_empty() {
            return Err(format!("the name `{host}` has no address"));
        }
        let endpoint = |address: SocketAddr| self.at(address.into());
        Ok(found.into_iter().map(endpoint).collect())
    }

    fn at(&self, address: Address) -> Endpoint {
        Endpoint::new(address, self.weight, self.zone.clone())
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        // Numbers and dots are a mistyped address, never a name.
        let name = host.bytes().any(|b| b.is_ascii_alphabetic())
            && host.len() <= 253
            && host.trim_end_matches('.').split('.').all(label);
        match port.parse() {
            Ok(port) if name && port > 0 => Ok(Self::Name {
                host: host.to_owned(),
                port,
            }),
            _ => Err(format!(
                "`{text}` is not an endpoint: write `ip:port`, `[ipv6]:port`, `name:port` or `unix:/path`"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Target;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as `127.0.0.1:9001` or `unix:/run/orders.sock`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Target, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Target {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Target".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": r"^unix:/|:[0-9]+$|\$\{"})
    }
}

/// The long way to write an endpoint.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
struct Full {
    /// `ip:port`, `[ipv6]:port`, `name:port` or `unix:/path`. A name is resolved once, when the
    /// configuration is loaded, and each of its addresses becomes an endpoint; where they change,
    /// use `discovery` instead.
    address: Target,
    /// Its share of requests, relative to the other endpoints: 0 (none) to 10000. Default 1.
    #[serde(default = "one", deserialize_with = "weight")]
    #[schemars(range(min = 0, max = 10_000))]
    weight: u32,
    /// Where it runs, such as `eu-1a`; counts where `runtime.zone` is set.
    #[serde(default)]
    zone: Option<String>,
}

const fn one() -> u32 {
    1
}

fn weight<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let weight = u64::deserialize(deserializer)?;
    match u32::try_from(weight) {
        Ok(weight) if weight <= MAX_WEIGHT => Ok(weight),
        _ => Err(de::Error::custom(format!(
            "a weight of {weight} is too much: write 0 to {MAX_WEIGHT}"
        ))),
    }
}

impl<'de> Deserialize<'de> for EndpointSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = EndpointSettings;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as `127.0.0.1:9001`, or a map with `address`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<EndpointSettings, E> {
                Ok(EndpointSettings {
                    address: text.parse().map_err(E::custom)?,
                    weight: one(),
                    zone: None,
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<EndpointSettings, A::Error> {
                let full = Full::deserialize(MapAccessDeserializer::new(map))?;
                Ok(EndpointSettings {
                    address: full.address,
                    weight: full.weight,
                    zone: full.zone,
                })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for EndpointSettings {
    fn schema_name() -> Cow<'static, str> {
        "Endpoint".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let short = generator.subschema_for::<Target>();
        let full = Full::json_schema(generator);
        json_schema!({"anyOf": [short, full]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<EndpointSettings, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn an_endpoint_is_text_or_a_map() {
        let short = read(r#""127.0.0.1:9001""#).expect("valid");
        let long = read(r#"{"address": "127.0.0.1:9001"}"#).expect("valid");
        assert_eq!(short, long);
        let full = read(r#"{"address": "unix:/run/x.sock", "weight": 2, "zone": "eu-1a"}"#);
        let full = full.expect("valid");
        assert_eq!((full.weight, full.zone.as_deref()), (2, Some("eu-1a")));
        let named = read(r#""orders.default.svc:80""#).expect("valid");
        assert!(matches!(named.address, Target::Name { port: 80, .. }));
    }

    #[test]
    fn what_is_no_endpoint_says_what_to_write() {
        let check = |json: &str, sentence: &str| {
            let error = read(json).expect_err(json);
            assert!(error.contains(sentence), "{json}: {error}");
        };
        check(r#""127.0.0.1""#, "`ip:port`");
        check(r#""127.0.0:80""#, "`ip:port`");
        check(r#""orders""#, "`ip:port`");
        check(r#""orders:0""#, "`name:port`");
        check(r#""http://orders:80""#, "`name:port`");
        check(r#""or ders:80""#, "`name:port`");
        check(r#""unix:x.sock""#, "`unix:/path`");
        check("9001", "an address such as");
        check(r#"{"weight": 1}"#, "missing field `address`");
        check(r#"{"address": "a:1", "weight": 10001}"#, "0 to 10000");
        check(r#"{"address": "a:1", "wait": 1}"#, "unknown field `wait`");
    }

    #[test]
    fn a_name_becomes_its_addresses() {
        let named = read(r#"{"address": "localhost:9001", "weight": 3}"#).expect("valid");
        let found = named.resolve().expect("localhost is always there");
        assert_eq!(found[0].label.as_ref(), "127.0.0.1:9001");
        assert_eq!(found[0].weight, 3);
        let unknown = read(r#""does-not-exist.invalid:1""#).expect("valid");
        let error = unknown.resolve().expect_err("never resolves");
        assert!(
            error.contains("`does-not-exist.invalid` cannot be resolved"),
            "{error}"
        );
    }

    #[test]
    fn an_address_that_is_there_twice_has_both_weights() {
        let check = |list: &[(&str, u32)], expected: &[(&str, u32)]| {
            let endpoint = |(address, weight): &(&str, u32)| {
                let address = address.parse().expect("an address");
                Endpoint::new(address, *weight, None)
            };
            let found = merged(list.iter().map(endpoint).collect());
            let found = found.iter().map(|each| (&*each.label, each.weight));
            assert_eq!(found.collect::<Vec<_>>(), expected, "{list:?}");
        };
        let (a, b) = ("127.0.0.1:1", "unix:/b");
        check(&[], &[]);
        check(&[(b, 1), (a, 2)], &[(b, 1), (a, 2)]);
        check(&[(a, 1), (b, 1), (a, 1)], &[(a, 2), (b, 1)]);
        check(&[(a, 0), (a, 3), (a, 4)], &[(a, 7)]);
        check(&[(a, 9_000), (a, 9_000)], &[(a, 10_000)]);
    }

    #[test]
    fn a_unix_socket_is_called_localhost() {
        let settings = EndpointSettings::new("unix:/run/x.sock".parse().expect("valid"));
        let endpoints = settings.resolve().expect("nothing to resolve");
        assert_eq!(endpoints[0].host, "localhost");
        assert_eq!(endpoints[0].label.as_ref(), "unix:/run/x.sock");
    }
}
