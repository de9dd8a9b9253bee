//! What of a request decides where it goes: the key of hashing policies and of stable splits.
//!
//! The hash is the same in every process, on every machine and in every version, so that many
//! gateways send one key to the same place. It resists no one who chooses keys: who may send
//! requests may send them all with one key.

use std::fmt;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::message::RequestHead;
use crate::base::values::Name;

/// Where a request's key is found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// The client's address.
    ClientIp,
    /// The first value of a header. Example: `{header: x-user}`.
    Header(Name),
    /// A cookie. Example: `{cookie: session}`.
    Cookie(String),
    /// A parameter of the route's path. Example: `{path: user}` on a route with `/users/{user}`.
    Path(String),
}

impl KeySource {
    /// The hash of the request's key; none if the request does not have it.
    pub fn hash(&self, head: &RequestHead) -> Option<u64> {
        match self {
            Self::ClientIp => match head.client.ip?.to_canonical() {
                IpAddr::V4(ip) => Some(hash(&ip.octets())),
                IpAddr::V6(ip) => Some(hash(&ip.octets())),
            },
            Self::Header(name) => Some(hash(head.headers.get(&name.0)?.as_bytes())),
            Self::Cookie(name) => Some(hash(head.cookie(name)?.as_bytes())),
            Self::Path(name) => Some(hash(head.params.get(name)?.as_bytes())),
        }
    }

    /// The parameter of the path that it needs.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::Path(name) => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientIp => f.write_str("client_ip"),
            Self::Header(name) => write!(f, "header `{}`", name.0),
            Self::Cookie(name) => write!(f, "cookie `{name}`"),
            Self::Path(name) => write!(f, "path parameter `{name}`"),
        }
    }
}

/// FNV-1a of 64 bits (Fowler, Noll, Vo), and a finish that spreads it over all bits.
pub fn hash(bytes: &[u8]) -> u64 {
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(sum)
}

/// Spreads every bit over all others (splitmix64, Steele and others, 2014).
pub fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Method, Uri};

    use super::*;
    use crate::base::message::Params;

    fn read(json: &str) -> Result<KeySource, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_is_found_where_it_says_or_not_at_all() {
        let mut head = RequestHead::new(Method::GET, Uri::from_static("/users/7"));
        let check = |head: &RequestHead, json: &str, key: Option<&[u8]>| {
            let source = read(json).expect(json);
            assert_eq!(source.hash(head), key.map(hash), "{json}");
        };
        let all = [
            r#""client_ip""#,
            r#"{"header": "x-user"}"#,
            r#"{"cookie": "session"}"#,
            r#"{"path": "user"}"#,
        ];
        for json in all {
            check(&head, json, None);
        }
        head.client.ip = "::ffff:192.0.2.7".parse().ok();
        head.params = Params::from_pairs([("user", "7")].into_iter());
        let value = HeaderValue::from_static;
        head.set_header(HeaderName::from_static("x-user"), value("ada"));
        head.set_header(http::header::COOKIE, value("a=b; session=s1"));
        check(&head, all[0], Some(&[192, 0, 2, 7]));
        check(&head, all[1], Some(b"ada"));
        check(&head, all[2], Some(b"s1"));
        check(&head, all[3], Some(b"7"));
    }

    #[test]
    fn the_hash_never_changes_and_spreads() {
        assert_eq!(hash(b""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(hash(b"ada"), hash(b"ada"));
        let mut buckets = [0_u32; 16];
        for number in 0..16_000_u32 {
            buckets[(hash(&number.to_be_bytes()) >> 60) as usize] += 1;
        }
        for count in buckets {
            assert!((800..1_200).contains(&count), "{buckets:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(read(r#""header""#).is_err());
        assert!(read(r#"{"body": "x"}"#).is_err());
        assert!(read(r#"{"header": "no good"}"#).is_err());
    }
}
