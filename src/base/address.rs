//! Where a socket is bound or found: an IP address with its port, or a Unix socket's path.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// The longest path that fits into the kernel's `sockaddr_un` with its closing NUL.
const LONGEST_PATH: usize = 107;

/// An address, written as `127.0.0.1:8080`, `[::]:8080` or `unix:/run/retort/admin.sock`.
///
/// Names are not resolved: what is listened on must not depend on a name server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The IP address and port, unless it is a Unix socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The socket's path, unless it is an IP address.
    pub fn unix(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }

    /// True if no other host can reach it: a loopback address or a Unix socket.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path);
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            let advice = match text.strip_prefix(':').or(text.strip_prefix("*:")) {
                Some(port) if port.parse::<u16>().is_ok() => {
                    format!("write `0.0.0.0:{port}` or `[::]:{port}` for every address")
                }
                _ if text.starts_with('/') => format!("write `unix:{text}` for a Unix socket"),
                _ if text.starts_with("localhost:") => {
                    format!("write `127.0.0.1{}`", text.trim_start_matches("localhost"))
                }
                _ => "write `ip:port`, `[ipv6]:port` or `unix:/path`".into(),
            };
            format!("`{text}` is not an address: {advice}")
        })
    }
}

fn unix(path: &str) -> Result<Address, String> {
    if !path.starts_with('/') {
        return Err(format!(
            "`unix:{path}` needs a path from the root, as in `unix:/run/retort.sock`"
        ));
    }
    if path.len() > LONGEST_PATH || path.contains('\0') {
        return Err(format!(
            "`unix:{path}` cannot be a socket: its path may have {LONGEST_PATH} bytes and no NUL"
        ));
    }
    Ok(Address::Unix(path.into()))
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Address;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as `127.0.0.1:8080` or `unix:/run/retort.sock`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Address, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Address {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": r"^(unix:/|[0-9.]+:[0-9]+$|\[[0-9A-Fa-f:.%]+\]:[0-9]+$)|\$\{"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_is_read() {
        for text in [
            "127.0.0.1:8080",
            "[::]:8080",
            "[::1]:0",
            "unix:/run/retort/admin.sock",
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_says_what_to_write() {
        let check = |text: &str, advice: &str| {
            let error = text.parse::<Address>().expect_err(text);
            assert!(error.contains(advice), "{text}: {error}");
        };
        check(":8080", "`0.0.0.0:8080`");
        check("*:8080", "`[::]:8080`");
        check("/run/x.sock", "`unix:/run/x.sock`");
        check("localhost:80", "`127.0.0.1:80`");
        check("unix:x.sock", "path from the root");
        check("example.com:80", "`ip:port`");
        check("127.0.0.1", "`ip:port`");
        check("127.0.0.1:70000", "`ip:port`");
        check("", "`ip:port`");
        check(&format!("unix:/{}", "x".repeat(107)), "107 bytes");
    }

    #[test]
    fn loopback_and_sockets_are_local() {
        let local = |text: &str| text.parse::<Address>().expect(text).is_local();
        assert!(local("127.0.0.1:1"));
        assert!(local("[::1]:1"));
        assert!(local("[::ffff:127.0.0.1]:1"));
        assert!(local("unix:/x"));
        assert!(!local("0.0.0.0:1"));
        assert!(!local("[::]:1"));
    }

    #[test]
    fn settings_hold_addresses_as_text() {
        let address: Address = serde_json::from_str(r#""[::1]:15000""#).expect("an address");
        assert_eq!(address.tcp().map(|a| a.port()), Some(15000));
        assert!(serde_json::from_str::<Address>("15000").is_err());
    }
}
