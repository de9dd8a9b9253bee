//! `balance:` as it is written: a kind alone, or a map with the kind and its settings.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::base::key::KeySource;
use crate::upstream::balance::Balance;

impl Balance {
    /// What of a request decides where it goes; none where nothing does.
    pub fn key(&self) -> Option<&KeySource> {
        match self {
            Self::RingHash(hashing) | Self::Maglev(hashing) => Some(&hashing.by),
            Self::RoundRobin | Self::Random | Self::LeastRequest | Self::P2cEwma => None,
        }
    }
}

/// Which key of a request decides, and how far it may.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Hashing {
    /// What of a request is its key: `client_ip`, `{header: x-user}`, `{cookie: session}` or
    /// `{path: user}`. A request without it goes where chance takes it.
    pub by: KeySource,
    /// The most requests in flight that an endpoint takes, as a share of the average of its weight,
    /// from `101%` to `1000%`; what is beyond goes to the key's next endpoint. Each worker counts
    /// its own. Default: no bound. Example: `125%`.
    #[serde(default)]
    pub bounded_load: Option<Bound>,
}

/// A share of the average load, written as `125%`; in whole per cent from 101 to 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound(u16);

impl Bound {
    /// In per cent.
    pub fn percent(self) -> u16 {
        self.0
    }
}

impl FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_suffix('%').map(str::trim_end);
        match digits.map(str::parse) {
            Some(Ok(percent @ 101..=1000)) => Ok(Self(percent)),
            _ => Err(format!(
                "`{text}` is not a bound of the load: write a whole percentage \
                 from `101%` to `1000%`, such as `125%`"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Bound;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a bound of the load such as `125%`")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Bound, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Bound {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Bound".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^(10[1-9]|1[1-9][0-9]|[2-9][0-9][0-9]|1000) ?%$|\$\{",
        })
    }
}

/// A kind was written alone and has a setting without a default.
pub(super) fn needs_settings(kind: &str) -> String {
    format!("`{kind}` needs settings, at least `by`: write `{{{kind}: {{by: client_ip}}}}`")
}

/// A kind was written as a map and has nothing to set.
pub(super) fn has_no_settings(kind: &str) -> String {
    format!("`{kind}` has no settings: write it alone, without a map")
}

/// A kind that exists, as the key of a map: what is wrong with it is reported at the key.
struct Kind(String);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if Balance::KINDS.contains(&name.as_str()) {
            Ok(Self(name))
        } else {
            Err(D::Error::unknown_variant(&name, Balance::KINDS))
        }
    }
}

/// A kind after the first: always wrong, and reported where it stands.
struct Second;

impl<'de> Deserialize<'de> for Second {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Err(D::Error::custom(format!(
            "`{name}` is a second balance policy: write one"
        )))
    }
}

impl<'de> Deserialize<'de> for Balance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Balance;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a balance policy: `{}`", Balance::KINDS.join("`, `"))
            }
            fn visit_str<E: Error>(self, kind: &str) -> Result<Balance, E> {
                Balance::bare(kind)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Balance, A::Error> {
                let Some(Kind(kind)) = map.next_key()? else {
                    return Err(A::Error::custom("name a balance policy"));
                };
                let balance = Balance::configured(&kind, &mut map)?;
                map.next_key::<Second>()?;
                Ok(balance)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Balance, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn hashing(by: &str, bound: Option<u16>) -> Hashing {
        Hashing {
            by: serde_json::from_str(by).expect(by),
            bounded_load: bound.map(Bound),
        }
    }

    #[test]
    fn a_policy_is_a_word_or_a_map_with_its_settings() {
        let check = |json: &str, balance: Balance| {
            assert_eq!(read(json).as_ref(), Ok(&balance), "{json}");
        };
        check(r#""round_robin""#, Balance::RoundRobin);
        check(r#""random""#, Balance::Random);
        check(r#""least_request""#, Balance::LeastRequest);
        check(r#""p2c_ewma""#, Balance::P2cEwma);
        check(
            r#"{"ring_hash": {"by": "client_ip"}}"#,
            Balance::RingHash(hashing(r#""client_ip""#, None)),
        );
        check(
            r#"{"maglev": {"by": {"header": "x-user"}, "bounded_load": "125%"}}"#,
            Balance::Maglev(hashing(r#"{"header": "x-user"}"#, Some(125))),
        );
        check(
            r#"{"maglev": {"by": {"cookie": "session"}, "bounded_load": "1000 %"}}"#,
            Balance::Maglev(hashing(r#"{"cookie": "session"}"#, Some(1000))),
        );
        check(
            r#"{"ring_hash": {"by": {"path": "user"}, "bounded_load": null}}"#,
            Balance::RingHash(hashing(r#"{"path": "user"}"#, None)),
        );
        assert_eq!(Balance::default(), Balance::P2cEwma);
        let user = read(r#"{"maglev": {"by": {"path": "user"}}}"#).expect("valid");
        assert_eq!(user.key().and_then(KeySource::param), Some("user"));
        assert_eq!(Balance::Random.key(), None);
    }

    #[test]
    fn what_is_no_policy_says_what_to_write() {
        let check = |json: &str, sentence: &str| {
            let error = read(json).expect_err(json);
            assert!(error.contains(sentence), "{json}: {error}");
        };
        check(r#""ring_hash""#, "write `{ring_hash: {by: client_ip}}`");
        check(r#""maglev""#, "`maglev` needs settings, at least `by`");
        check(r#"{"maglev": {}}"#, "missing field `by`");
        check(r#"{"p2c_ewma": {}}"#, "`p2c_ewma` has no settings");
        check(r#"{"random": null}"#, "write it alone, without a map");
        check("{}", "name a balance policy");
        check(r#""p2c""#, "unknown variant `p2c`");
        check(r#"{"p2c": {}}"#, "unknown variant `p2c`");
        check("3", "a balance policy: `round_robin`, `random`");
        check(
            r#"{"maglev": {"by": "client_ip"}, "random": {}}"#,
            "`random` is a second balance policy: write one",
        );
        check(r#"{"maglev": {"by": "ip"}}"#, "unknown variant `ip`");
        check(
            r#"{"maglev": {"by": "client_ip", "bound": "125%"}}"#,
            "unknown field `bound`",
        );
        for bound in ["100%", "1001%", "125", "1.25", "-125%", "112.5%", "%", ""] {
            let json = format!(r#"{{"maglev": {{"by": "client_ip", "bounded_load": "{bound}"}}}}"#);
            check(&json, "from `101%` to `1000%`");
        }
        check(
            r#"{"maglev": {"by": "client_ip", "bounded_load": 1.25}}"#,
            "a bound of the load such as `125%`",
        );
    }

    #[test]
    fn the_schema_knows_every_policy() {
        let schema = serde_json::to_string(&schemars::schema_for!(Balance)).expect("JSON");
        for kind in Balance::KINDS {
            assert!(schema.contains(&format!("\"{kind}\"")), "{kind}: {schema}");
        }
    }
}
