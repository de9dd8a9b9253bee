//! The `method` of a match, and sets of methods that are asked in one instruction.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use http::{HeaderValue, Method};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer};

use crate::routing::text;

/// A request method, in capitals as it is sent: `GET`, `POST`, `PURGE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodName(pub Method);

impl FromStr for MethodName {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        if written.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(format!(
                "methods are case-sensitive: write `{}`",
                written.to_ascii_uppercase()
            ));
        }
        Method::from_bytes(written.as_bytes())
            .map(Self)
            .map_err(|_| format!("`{written}` is not a method such as `GET` or `POST`"))
    }
}

impl<'de> Deserialize<'de> for MethodName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::read(deserializer, "a method such as `GET`")
    }
}

impl JsonSchema for MethodName {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "MethodName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        text::schema("^[A-Z!#$%&'*+.^_`|~0-9-]+$", &["GET", "POST"])
    }
}

/// The methods that one match takes; without any named, all of them.
///
/// GET brings HEAD along (RFC 9110, 9.3.2: the same answer without its body).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Methods {
    named: Vec<Method>,
}

impl Methods {
    /// Those that are named.
    pub(super) fn named(&self) -> &[Method] {
        &self.named
    }

    /// The methods named, each once.
    pub fn new(methods: impl IntoIterator<Item = Method>) -> Self {
        let mut named: Vec<Method> = Vec::new();
        for method in methods {
            if !named.contains(&method) {
                named.push(method);
            }
        }
        Self { named }
    }

    /// True if the match says which methods it takes.
    pub fn are_named(&self) -> bool {
        !self.named.is_empty()
    }

    /// True if the match takes `method`.
    pub fn contain(&self, method: &Method) -> bool {
        self.mask().has(Bit::of(method)) || self.named.contains(method)
    }

    /// True if every method of `other` is one of these.
    pub(super) fn cover(&self, other: &Self) -> bool {
        !self.are_named()
            || (other.are_named() && other.named.iter().all(|method| self.contain(method)))
    }

    /// The set as bits; methods of one's own are in [`Methods::contain`] only.
    pub(super) fn mask(&self) -> Mask {
        if !self.are_named() {
            return Mask(u16::MAX);
        }
        let bits = self.named.iter().map(|method| Bit::of(method).0);
        let bits = bits.fold(0, |mask, bit| mask | bit) & !Bit::OTHER.0;
        let head = if bits & Bit::GET.0 == 0 {
            0
        } else {
            Bit::HEAD.0
        };
        Mask(bits | head)
    }

    /// Adds what `Allow` says of this match.
    pub(super) fn add_to(&self, allow: &mut BTreeSet<String>) {
        for method in &self.named {
            allow.insert(method.as_str().to_owned());
            if method == Method::GET {
                allow.insert("HEAD".to_owned());
            }
        }
    }
}

impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.are_named() {
            return f.write_str("*");
        }
        for (i, method) in self.named.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            f.write_str(method.as_str())?;
        }
        Ok(())
    }
}

/// The value of an `Allow` field (RFC 9110, 10.2.1).
pub(super) fn allow(methods: &BTreeSet<String>) -> HeaderValue {
    let list: Vec<&str> = methods.iter().map(String::as_str).collect();
    // Methods are tokens, and so is a list of them a header value.
    HeaderValue::try_from(list.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// One method as a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bit(u16);

impl Bit {
    const GET: Self = Self(1);
    const HEAD: Self = Self(1 << 1);
    /// Every method without a bit of its own.
    const OTHER: Self = Self(1 << 9);

    pub(super) fn of(method: &Method) -> Self {
        match *method {
            Method::GET => Self::GET,
            Method::HEAD => Self::HEAD,
            Method::POST => Self(1 << 2),
            Method::PUT => Self(1 << 3),
            Method::DELETE => Self(1 << 4),
            Method::PATCH => Self(1 << 5),
            Method::OPTIONS => Self(1 << 6),
            Method::CONNECT => Self(1 << 7),
            Method::TRACE => Self(1 << 8),
            _ => Self::OTHER,
        }
    }

    /// True if the bit says which method it is.
    pub(super) fn is_exact(self) -> bool {
        self != Self::OTHER
    }
}

/// Many methods as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mask(u16);

impl Mask {
    #[inline]
    pub(super) fn has(self, bit: Bit) -> bool {
        self.0 & bit.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn methods(names: &[&str]) -> Methods {
        let named = names.iter().map(|name| name.parse::<MethodName>());
        Methods::new(named.map(|name| name.expect("a method").0))
    }

    #[test]
    fn get_brings_head_along_and_no_name_means_all() {
        let get = methods(&["GET"]);
        assert!(get.contain(&Method::GET) && get.contain(&Method::HEAD));
        assert!(!get.contain(&Method::POST));
        assert!(!methods(&["HEAD"]).contain(&Method::GET));
        let all = Methods::default();
        let purge = Method::from_bytes(b"PURGE").expect("a method");
        assert!(all.contain(&Method::TRACE) && all.contain(&purge));
        assert!(methods(&["PURGE"]).contain(&purge));
        let link = Method::from_bytes(b"LINK").expect("a method");
        assert!(!methods(&["PURGE", "GET"]).contain(&link));
    }

    #[test]
    fn a_set_covers_what_it_contains() {
        let check = |wide: &[&str], narrow: &[&str], expected: bool| {
            assert_eq!(methods(wide).cover(&methods(narrow)), expected);
        };
        check(&[], &[], true);
        check(&[], &["GET"], true);
        check(&["GET"], &[], false);
        check(&["GET"], &["HEAD"], true);
        check(&["HEAD"], &["GET"], false);
        check(&["GET", "POST"], &["POST"], true);
        check(&["POST"], &["GET", "POST"], false);
    }

    #[test]
    fn allow_is_sorted_and_names_each_method_once() {
        let mut set = BTreeSet::new();
        methods(&["POST", "GET", "GET"]).add_to(&mut set);
        methods(&["DELETE", "POST"]).add_to(&mut set);
        assert_eq!(allow(&set), "DELETE, GET, HEAD, POST");
    }

    #[test]
    fn methods_are_case_sensitive() {
        assert_eq!(
            "get".parse::<MethodName>().map_err(|e| e.contains("`GET`")),
            Err(true)
        );
        assert!("G T".parse::<MethodName>().is_err());
        assert!("".parse::<MethodName>().is_err());
        assert!("M-SEARCH".parse::<MethodName>().is_ok());
    }
}
