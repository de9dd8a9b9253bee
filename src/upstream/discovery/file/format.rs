//! One file: a list of groups, each of targets with their labels, as JSON or YAML.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::base::address::Address;
use crate::upstream::discovery::{Found, MAX_FOUND, MAX_WEIGHT};

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Yaml,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Line and column from 1, where they are known.
    pub(super) place: Option<(u64, u64)>,
    /// One sentence.
    pub(super) message: String,
}

impl Format {
    /// What the name of a file says.
    pub(super) fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }

    /// The endpoints that a text names, in its order.
    pub(super) fn read(self, text: &str) -> Result<Vec<Found>, Wrong> {
        if text.trim().is_empty() {
            return Err(Wrong {
                place: None,
                message: "the file is empty; a file without targets holds `[]`".into(),
            });
        }
        let groups: Vec<Group> = match self {
            Self::Json => serde_json::from_str(text).map_err(|error| wrong_json(&error))?,
            Self::Yaml => yaml(text)?,
        };
        let count: usize = groups.iter().map(|group| group.targets.len()).sum();
        if count > MAX_FOUND {
            return Err(Wrong {
                place: None,
                message: format!("there are {count} targets, more than {MAX_FOUND}"),
            });
        }
        Ok(groups.into_iter().flat_map(Group::found).collect())
    }
}

/// Targets that share their labels.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    targets: Vec<Target>,
    #[serde(default)]
    labels: Labels,
}

impl Group {
    fn found(self) -> impl Iterator<Item = Found> {
        let Labels { weight, zone } = self.labels;
        self.targets.into_iter().map(move |Target(address)| Found {
            address,
            weight,
            zone: zone.clone(),
            host: None,
        })
    }
}

/// An address with its port, or a socket's path.
struct Target(Address);

/// Of the labels, those that mean something here. Others are the business of others.
struct Labels {
    weight: u32,
    zone: Option<String>,
}

impl Default for Labels {
    fn default() -> Self {
        Self {
            weight: 1,
            zone: None,
        }
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Target;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a target such as `10.0.0.1:8080` or `unix:/run/orders.sock`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Target, E> {
                target(text).map(Target).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

fn target(text: &str) -> Result<Address, String> {
    match text.parse::<Address>() {
        Ok(address) if address.tcp().is_some_and(|address| address.port() == 0) => {
            Err(format!("`{text}` has no port: write 1 to 65535"))
        }
        Ok(address) => Ok(address),
        // A port and letters before it: most likely a name.
        Err(_)
            if text
                .rsplit_once(':')
                .is_some_and(|(host, port)| is_name(host, port)) =>
        {
            Err(format!(
                "`{text}` is a name, and names are not looked up here: write `ip:port`, or use `discovery: {{dns: …}}`"
            ))
        }
        Err(wrong) => Err(wrong),
    }
}

fn is_name(host: &str, port: &str) -> bool {
    port.parse::<u16>().is_ok()
        && host.bytes().any(|b| b.is_ascii_alphabetic())
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Labels;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of labels")
            }
            fn visit_unit<E>(self) -> Result<Labels, E> {
                Ok(Labels::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut labels = Labels::default();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "weight" => labels.weight = map.next_value::<Weight>()?.0,
                        "zone" => {
                            let Label(zone) = map.next_value()?;
                            labels.zone = (!zone.is_empty()).then_some(zone);
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(labels)
            }
        }
        deserializer.deserialize_any(Map)
    }
}

/// The value of a label: text, as Prometheus has it, or a number or truth value that stands for it.
struct Label(String);

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = Label;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the value of a label")
            }
            fn visit_str<E>(self, text: &str) -> Result<Label, E> {
                Ok(Label(text.to_owned()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Label, E> {
                Ok(Label(number.to_string()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Label, E> {
                Ok(Label(number.to_string()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Label, E> {
                Ok(Label(number.to_string()))
            }
            fn visit_bool<E>(self, truth: bool) -> Result<Label, E> {
                Ok(Label(truth.to_string()))
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

struct Weight(u32);

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Label(text) = Label::deserialize(deserializer)?;
        match text.parse() {
            Ok(weight) if weight <= MAX_WEIGHT => Ok(Self(weight)),
            _ => Err(de::Error::custom(format!(
                "`{text}` is not a weight: write 0 to {MAX_WEIGHT}"
            ))),
        }
    }
}

fn wrong_json(error: &serde_json::Error) -> Wrong {
    let (line, column) = (error.line(), error.column());
    let message = error.to_string();
    let suffix = format!(" at line {line} column {column}");
    let message = message.strip_suffix(&suffix).unwrap_or(&message);
    let number = |at: usize| u64::try_from(at).unwrap_or(u64::MAX);
    Wrong {
        place: (line > 0).then(|| (number(line), number(column.max(1)))),
        message: message.to_owned(),
    }
}

fn yaml(text: &str) -> Result<Vec<Group>, Wrong> {
    // A file is small, and aliases must not make much of little.
    let budget = serde_yaml::budget! {
        max_depth: 16,
        flow_nesting_limit: 16,
        max_documents: 1,
        max_events: 200_000,
        max_nodes: 100_000,
        max_aliases: 1_000,
        max_anchors: 1_000,
        max_recorded_anchor_events: 100_000,
    };
    let options = serde_yaml::options! {
        budget: budget,
        with_snippet: false,
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: 50_000 },
    };
    serde_yaml::from_str_with_options(text, options).map_err(|error| {
        let place = error.location().map(|at| (at.line(), at.column()));
        let message = error
            .without_snippet()
            .render_with_formatter(&serde_yaml::UserMessageFormatter);
        let suffix = place.map(|(line, column)| format!(" at line {line}, column {column}"));
        let message = suffix
            .and_then(|suffix| message.strip_suffix(&suffix))
            .unwrap_or(&message);
        Wrong {
            place,
            message: message.to_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Format, text: &str) -> Vec<(String, u32, Option<String>)> {
        let found = format.read(text).expect(text);
        let row = |found: Found| (found.address.to_string(), found.weight, found.zone);
        found.into_iter().map(row).collect()
    }

    #[test]
    fn json_and_yaml_say_the_same() {
        let json = r#"[
            {"targets": ["10.0.0.1:8080", "unix:/run/a.sock"], "labels": {"job": "orders"}},
            {"targets": ["[fd00::2]:8080"], "labels": {"weight": "5", "zone": "eu-1a"}}
        ]"#;
        let yaml = "\
# written by a script
- targets: ['10.0.0.1:8080', unix:/run/a.sock]
  labels: {job: orders}
- targets:
    - '[fd00::2]:8080'
  labels:
    weight: 5
    zone: eu-1a
";
        let expected = vec![
            ("10.0.0.1:8080".to_owned(), 1, None),
            ("unix:/run/a.sock".to_owned(), 1, None),
            ("[fd00::2]:8080".to_owned(), 5, Some("eu-1a".to_owned())),
        ];
        assert_eq!(read(Format::Json, json), expected);
        assert_eq!(read(Format::Yaml, yaml), expected);
        assert_eq!(read(Format::Yaml, json), expected);
    }

    #[test]
    fn no_targets_are_a_list_and_nothing_is_none() {
        for format in [Format::Json, Format::Yaml] {
            assert_eq!(read(format, "[]"), []);
            assert_eq!(read(format, r#"[{"targets": []}]"#), []);
            for nothing in ["", " \n"] {
                let wrong = format.read(nothing).expect_err("nothing");
                assert!(wrong.message.contains("holds `[]`"), "{wrong:?}");
            }
            assert!(format.read("null").is_err());
        }
    }

    #[test]
    fn numbers_are_labels_in_yaml_and_json() {
        let json = r#"[{"targets": ["10.0.0.1:80"], "labels": {"weight": 0, "zone": 3}}]"#;
        let expected = [("10.0.0.1:80".to_owned(), 0, Some("3".to_owned()))];
        assert_eq!(read(Format::Json, json), expected);
        assert_eq!(read(Format::Yaml, json), expected);
    }

    #[track_caller]
    fn check(format: Format, text: &str, place: Option<(u64, u64)>, sentence: &str) {
        let wrong = format.read(text).expect_err(text);
        assert_eq!(wrong.place, place, "{text}: {wrong:?}");
        assert!(wrong.message.contains(sentence), "{text}: {wrong:?}");
        assert!(!wrong.message.contains(" at line "), "{wrong:?}");
        assert!(!wrong.message.contains("Options"), "{wrong:?}");
    }

    #[test]
    fn what_is_wrong_in_json_is_said_with_its_place() {
        let check = |text: &str, place: (u64, u64), sentence: &str| {
            check(Format::Json, text, Some(place), sentence);
        };
        check("[\n  {\"targets\": [\"10.0", (2, 20), "EOF");
        check(
            "[\n  {\"tragets\": []}]",
            (2, 12),
            "unknown field `tragets`",
        );
        check("[{}]", (1, 3), "missing field `targets`");
        check("{\"targets\": []}", (1, 1), "expected a sequence");
        check(
            r#"[{"targets": ["a.example.com:80"]}]"#,
            (1, 32),
            "is a name",
        );
        check(
            r#"[{"targets": ["10.0.0.1"]}]"#,
            (1, 24),
            "is not an address",
        );
        check(r#"[{"targets": ["10.0.0.1:0"]}]"#, (1, 26), "has no port");
        check(r#"[{"targets": [80]}]"#, (1, 16), "a target such as");
        check(
            r#"[{"targets": [], "labels": {"weight": "x"}}]"#,
            (1, 42),
            "is not a weight",
        );
        check(
            r#"[{"targets": [], "labels": {"weight": 10001}}]"#,
            (1, 44),
            "0 to 10000",
        );
        check(
            r#"[{"targets": [], "labels": ["a"]}]"#,
            (1, 28),
            "a map of labels",
        );
    }

    #[test]
    fn what_is_wrong_in_yaml_is_said_with_its_place() {
        let check = |text: &str, place: (u64, u64), sentence: &str| {
            check(Format::Yaml, text, Some(place), sentence);
        };
        check("- targets: ['10.0", (1, 13), "");
        check("- tragets: []", (1, 3), "unknown field `tragets`");
        check("- targets:\n  - a.example.com:80\n", (2, 5), "is a name");
        check(
            "- targets: []\n  labels: {weight: -1}\n",
            (2, 20),
            "is not a weight",
        );
        check(
            "- targets: []\n  targets: []\n",
            (2, 3),
            "duplicate mapping key",
        );
    }

    #[test]
    fn aliases_cannot_make_much_of_little() {
        let target = "'10.0.0.1:80',".repeat(1_000);
        let bomb = format!("- &a {{targets: [{target}]}}\n{}", "- *a\n".repeat(500));
        assert!(Format::Yaml.read(&bomb).is_err());
        let nested = "[".repeat(100_000);
        assert!(Format::Yaml.read(&nested).is_err());
        assert!(Format::Json.read(&nested).is_err());
    }

    #[test]
    fn too_many_targets_are_refused_and_as_many_as_allowed_are_read() {
        let file = |count: usize| {
            let target = |number: usize| format!("\"10.0.{}.{}:80\"", number / 250, number % 250);
            let targets: Vec<String> = (0..count).map(target).collect();
            format!("[{{\"targets\": [{}]}}]", targets.join(","))
        };
        for format in [Format::Json, Format::Yaml] {
            assert_eq!(read(format, &file(10_000)).len(), 10_000);
            check(format, &file(10_001), None, "more than 10000");
        }
    }
}
