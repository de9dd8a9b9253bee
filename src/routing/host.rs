//! The `host` of a match: one name, or every name below one.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer};

use crate::routing::text;

/// Longest name that DNS can carry (RFC 1035, 2.3.4); a longer one matches nothing.
pub(super) const LONGEST: usize = 253;

/// Which hosts: `api.example.com`, or `*.example.com` for every name below `example.com`, however
/// many labels below. Upper and lower case are the same; a port in the request is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host, in lower case.
    Exact(Box<str>),
    /// Every host with at least one label before this suffix (which is kept without its dot).
    Wildcard(Box<str>),
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        if written == "*" {
            return Err("`*` is not a host: leave `host` out to match every host".to_owned());
        }
        if let Some(address) = written.strip_prefix('[').and_then(|w| w.strip_suffix(']')) {
            return match address.parse::<Ipv6Addr>() {
                Ok(address) => Ok(Self::Exact(format!("[{address}]").into())),
                Err(_) => Err(format!("`{written}` does not hold an IPv6 address")),
            };
        }
        let lower = written.trim_end_matches('.').to_ascii_lowercase();
        if let Some(suffix) = lower.strip_prefix("*.") {
            check_name(written, suffix)?;
            if suffix.parse::<Ipv4Addr>().is_ok() {
                return Err(format!("`{written}` puts a wildcard before an address"));
            }
            return Ok(Self::Wildcard(suffix.into()));
        }
        check_name(written, &lower)?;
        Ok(Self::Exact(lower.into()))
    }
}

fn check_name(written: &str, name: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("`{written}` is not a host: {why}"));
    if name.contains("://") || name.contains('/') {
        return wrong("write the name alone, without scheme and path");
    }
    if name.contains(':') {
        return wrong(
            "leave the port out, which is ignored when matching (IPv6 goes in brackets: `[::1]`)",
        );
    }
    if name.contains('*') {
        return wrong("`*` may stand for whole labels at the start only, as in `*.example.com`");
    }
    if !name.is_ascii() {
        return wrong("write an international name in its ASCII form, `xn--…`");
    }
    if name.len() > LONGEST {
        return wrong("it is longer than 253 characters");
    }
    let is_label = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(inside)
    };
    if !name.split('.').all(is_label) {
        return wrong("labels of letters, digits, `-` and `_`, with dots between them");
    }
    Ok(())
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::read(
            deserializer,
            "a host such as `api.example.com` or `*.example.com`",
        )
    }
}

impl JsonSchema for HostPattern {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "HostPattern".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        text::schema(
            r"^((\*\.)?[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])$",
            &["api.example.com", "*.example.com"],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_wildcards_and_addresses_are_read() {
        let check = |text: &str, expected: &str| {
            let host: HostPattern = text.parse().expect(text);
            assert_eq!(host.to_string(), expected);
        };
        check("Api.Example.COM", "api.example.com");
        check("example.com.", "example.com");
        check("localhost", "localhost");
        check("*.Shop.example", "*.shop.example");
        check("*.com", "*.com");
        check("10.0.0.1", "10.0.0.1");
        check("[0:0::1]", "[::1]");
        check("my_service.default", "my_service.default");
    }

    #[test]
    fn what_could_never_be_asked_for_is_refused() {
        let check = |text: &str, word: &str| {
            let problem = text.parse::<HostPattern>().expect_err(text);
            assert!(problem.contains(word), "{text}: {problem}");
        };
        check("*", "leave `host` out");
        check("a.*.com", "at the start only");
        check("*a.com", "at the start only");
        check("example.com:80", "leave the port out");
        check("::1", "in brackets");
        check("[nonsense]", "IPv6");
        check("https://example.com", "without scheme");
        check("example.com/a", "without scheme and path");
        check("bücher.example", "xn--");
        check("", "labels");
        check("a..b", "labels");
        check("*.", "labels");
        check("a b", "labels");
        check("*.10.0.0.1", "before an address");
        check(&"a".repeat(64), "labels");
        check(&"a.".repeat(127).repeat(2), "253");
    }
}
