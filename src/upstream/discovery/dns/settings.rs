//! What people write under `discovery: {dns: …}`, parsed at the door.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::base::values::Period;

/// Endpoints by a name in DNS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Settings {
    /// The name.
    pub host: Host,
    /// What is asked for.
    pub record: Record,
    /// How long an answer counts at least.
    pub min_ttl: Duration,
    /// How long an answer counts at most.
    pub max_ttl: Duration,
    /// How long one question may take.
    pub timeout: Duration,
    /// Which addresses of a name are taken.
    pub family: Family,
    /// Who is asked instead of the system's name servers.
    pub server: Option<SocketAddr>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// A and AAAA records, each an endpoint of this port.
    Address {
        /// The port of every endpoint.
        port: u16,
    },
    /// SRV records, which name targets with ports and weights.
    Srv,
}

/// Which addresses of a name are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[schemars(rename = "DnsFamily")]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Its IPv4 addresses; its IPv6 addresses only if it has no others.
    #[default]
    PreferIpv4,
    /// Its IPv4 addresses alone.
    Ipv4,
    /// Its IPv6 addresses alone.
    Ipv6,
    /// All: a host that has both becomes two endpoints.
    Both,
}

/// A name that DNS can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(String);

/// Endpoints by a name in DNS: the addresses that the name has, or the targets of its SRV records.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "DnsDiscovery")]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
struct Written {
    /// The name, such as `users.default.svc`. Search domains and `ndots` of `/etc/resolv.conf` count
    /// unless it ends in a dot, and `/etc/hosts` comes first. For SRV records it is the name of the
    /// service, such as `_grpc._tcp.users.default.svc`.
    host: Host,
    /// The port of every endpoint. Required unless `record: srv`, where each record has its own.
    #[serde(default, deserialize_with = "port")]
    #[schemars(range(min = 1))]
    port: Option<u16>,
    /// What is asked for. Default `address`.
    #[serde(default)]
    record: Kind,
    /// Which addresses of a name are taken. Default `prefer_ipv4`.
    #[serde(default)]
    family: Family,
    /// An answer counts for at least this long, whatever its TTL; 1 s or more. It bounds how often is
    /// asked. Kubernetes gives its services a TTL of 5 s. Default `5s`.
    #[serde(default = "min_ttl", deserialize_with = "a_second")]
    min_ttl: Period,
    /// An answer counts for at most this long, whatever its TTL. Default `5m`.
    #[serde(default = "max_ttl", deserialize_with = "a_second")]
    max_ttl: Period,
    /// How long one question may take, with everything that is sent again; more than 0. Default `2s`.
    #[serde(default = "timeout", deserialize_with = "some_time")]
    timeout: Period,
    /// The `ip:port` of a name server that is asked instead of those in `/etc/resolv.conf`, such as a
    /// cache on the node. Default: none.
    #[serde(default, deserialize_with = "server")]
    #[schemars(with = "Option<String>")]
    server: Option<SocketAddr>,
}

/// What is asked for, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[schemars(rename = "DnsRecord")]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// A and AAAA records: the addresses of a name.
    #[default]
    Address,
    /// SRV records: names with ports and weights. The targets of the lowest priority value are taken.
    Srv,
}

impl TryFrom<Written> for Settings {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let record = match (written.record, written.port) {
            (Kind::Address, Some(port)) => Record::Address { port },
            (Kind::Address, None) => {
                return Err(
                    "addresses in DNS have no port: write `port`, or `record: srv` for records that have one"
                        .into(),
                );
            }
            (Kind::Srv, None) => Record::Srv,
            (Kind::Srv, Some(_)) => {
                return Err(
                    "each SRV record says its port: remove `port`, or `record: srv`".into(),
                );
            }
        };
        if written.min_ttl > written.max_ttl {
            return Err("`min_ttl` must not be longer than `max_ttl`".into());
        }
        Ok(Self {
            host: written.host,
            record,
            min_ttl: written.min_ttl.0,
            max_ttl: written.max_ttl.0,
            timeout: written.timeout.0,
            family: written.family,
            server: written.server,
        })
    }
}

impl JsonSchema for Settings {
    fn schema_name() -> Cow<'static, str> {
        Written::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Written::json_schema(generator)
    }
}

impl Host {
    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok() {
            return Err(format!(
                "`{text}` is an address, and there is nothing to look up: write it under `endpoints`"
            ));
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_name = name.len() <= 253
            && name.split('.').all(label)
            && name.bytes().any(|b| b.is_ascii_alphabetic());
        if is_name {
            return Ok(Self(text.to_owned()));
        }
        let advice = match text.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => "write the port as `port`",
            _ => "write one such as `users.default.svc`",
        };
        Err(format!("`{text}` is not a host name: {advice}"))
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Host;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a host name such as `users.default.svc`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Host, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Host {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Host".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": r"^[A-Za-z0-9_.-]+$|\$\{"})
    }
}

fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    match u16::deserialize(deserializer)? {
        0 => Err(de::Error::custom(
            "no endpoint has the port 0: write 1 to 65535",
        )),
        port => Ok(Some(port)),
    }
}

fn server<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.parse::<SocketAddr>() {
        Ok(server) if server.port() > 0 => Ok(Some(server)),
        _ => Err(de::Error::custom(format!(
            "`{text}` is not the address of a name server: write `ip:port`, as in `169.254.20.10:53`"
        ))),
    }
}

fn a_second<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Period, D::Error> {
    match Period::deserialize(deserializer)? {
        period if period.0 < Duration::from_secs(1) => Err(de::Error::custom(
            "name servers count in seconds: write `1s` or more",
        )),
        period => Ok(period),
    }
}

fn some_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Period, D::Error> {
    match Period::deserialize(deserializer)? {
        Period(Duration::ZERO) => Err(de::Error::custom(
            "a timeout of 0 leaves no time for anything: write more, such as `2s`",
        )),
        period => Ok(period),
    }
}

const fn min_ttl() -> Period {
    Period(Duration::from_secs(5))
}

const fn max_ttl() -> Period {
    Period(Duration::from_mins(5))
}

const fn timeout() -> Period {
    Period(Duration::from_secs(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Settings, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let settings = read(r#"{"host": "users.default.svc", "port": 50051}"#).expect("valid");
        let expected = Settings {
            host: Host("users.default.svc".into()),
            record: Record::Address { port: 50051 },
            min_ttl: Duration::from_secs(5),
            max_ttl: Duration::from_mins(5),
            timeout: Duration::from_secs(2),
            family: Family::PreferIpv4,
            server: None,
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn every_key_is_read() {
        let settings = read(
            r#"{"host": "_grpc._tcp.users.example.com.", "record": "srv", "family": "both",
                "min_ttl": "1s", "max_ttl": "1m", "timeout": "500ms", "server": "[::1]:5353"}"#,
        )
        .expect("valid");
        assert_eq!(settings.host.as_str(), "_grpc._tcp.users.example.com.");
        assert_eq!(
            (settings.record, settings.family),
            (Record::Srv, Family::Both)
        );
        assert_eq!(settings.min_ttl, Duration::from_secs(1));
        assert_eq!(settings.max_ttl, Duration::from_mins(1));
        assert_eq!(settings.timeout, Duration::from_millis(500));
        assert_eq!(settings.server, Some("[::1]:5353".parse().expect("valid")));
    }

    #[test]
    fn what_cannot_work_is_refused_in_a_sentence() {
        let check = |rest: &str, sentence: &str| {
            let error = read(&format!("{{{rest}}}")).expect_err(rest);
            assert!(error.contains(sentence), "{rest}: {error}");
        };
        check(r#""port": 80"#, "missing field `host`");
        check(r#""host": "a""#, "addresses in DNS have no port");
        check(r#""host": "a", "port": 0"#, "1 to 65535");
        check(
            r#""host": "a", "port": 80, "record": "srv""#,
            "remove `port`",
        );
        check(
            r#""host": "10.0.0.1", "port": 80"#,
            "write it under `endpoints`",
        );
        check(r#""host": "a:80", "port": 80"#, "write the port as `port`");
        check(r#""host": "a..b", "port": 80"#, "not a host name");
        check(r#""host": "", "port": 80"#, "not a host name");
        check(r#""host": "http://a", "port": 80"#, "not a host name");
        check(r#""host": "10.0.0", "port": 80"#, "not a host name");
        check(
            r#""host": "a", "port": 80, "min_ttl": "500ms""#,
            "`1s` or more",
        );
        check(
            r#""host": "a", "port": 80, "max_ttl": "0s""#,
            "`1s` or more",
        );
        check(
            r#""host": "a", "port": 80, "min_ttl": "1m", "max_ttl": "30s""#,
            "must not be longer",
        );
        check(
            r#""host": "a", "port": 80, "timeout": "0s""#,
            "leaves no time",
        );
        check(
            r#""host": "a", "port": 80, "server": "ns1""#,
            "write `ip:port`",
        );
        check(
            r#""host": "a", "port": 80, "server": "10.0.0.1:0""#,
            "write `ip:port`",
        );
        check(
            r#""host": "a", "port": 80, "family": "ipv5""#,
            "unknown variant `ipv5`",
        );
        check(
            r#""host": "a", "port": 80, "hots": "b""#,
            "unknown field `hots`",
        );
    }
}
