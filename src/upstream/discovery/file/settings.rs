//! What people write under `discovery: {file: …}`, parsed at the door.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::format::Format;
use crate::base::values::{OneOrMany, Period};

/// Endpoints from files in the format of Prometheus' `file_sd`, which something else writes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(rename = "FileDiscovery")]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Settings {
    /// The files, as paths or patterns that end in `.json`, `.yaml` or `.yml`: one, or a list.
    /// Relative ones start at the working directory. Example: `/etc/retort/targets/*.json`.
    pub paths: Paths,
    /// How often the files are read even if no change was noticed; 1 s or more. Default `30s`.
    #[serde(default = "refresh", deserialize_with = "a_second")]
    #[schemars(with = "Period")]
    pub refresh: Duration,
}

/// Paths and patterns of files whose format is known; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths(Vec<String>);

impl Paths {
    /// Each of them, as it is written.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// True if it may name several files.
pub(super) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

impl TryFrom<Vec<String>> for Paths {
    type Error = String;

    fn try_from(paths: Vec<String>) -> Result<Self, String> {
        if paths.is_empty() {
            return Err("name at least one file".into());
        }
        for path in &paths {
            if Format::of(Path::new(path)).is_none() {
                return Err(format!(
                    "the format of `{path}` is not known: its name must end in `.json`, `.yaml` or `.yml`"
                ));
            }
            if is_pattern(path) {
                glob::Pattern::new(path).map_err(|error| {
                    format!("`{path}` is not a pattern of paths: {}", error.msg)
                })?;
            }
        }
        Ok(Self(paths))
    }
}

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let OneOrMany(paths) = OneOrMany::deserialize(deserializer)?;
        Self::try_from(paths).map_err(D::Error::custom)
    }
}

impl JsonSchema for Paths {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Paths".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let path = json_schema!({"type": "string", "pattern": r"\.(json|yaml|yml)$|\$\{"});
        json_schema!({"anyOf": [path, {"type": "array", "items": path, "minItems": 1}]})
    }
}

fn a_second<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    match Period::deserialize(deserializer)? {
        Period(period) if period < Duration::from_secs(1) => Err(D::Error::custom(
            "changes are noticed without reading oftener: write `1s` or more",
        )),
        Period(period) => Ok(period),
    }
}

const fn refresh() -> Duration {
    Duration::from_secs(30)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Settings, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn paths_and_the_refresh_are_read() {
        let one = read(r#"{"paths": ["targets/*.json"]}"#);
        let expected = Settings {
            paths: Paths(vec!["targets/*.json".into()]),
            refresh: Duration::from_secs(30),
        };
        assert_eq!(one, Ok(expected));
        let many = read(r#"{"paths": ["a.yml", "/b/c.yaml"], "refresh": "5m"}"#).expect("valid");
        assert_eq!(many.paths.iter().count(), 2);
        assert_eq!(many.refresh, Duration::from_mins(5));
    }

    #[test]
    fn what_cannot_work_is_refused_in_a_sentence() {
        let check = |json: &str, sentence: &str| {
            let error = read(json).expect_err(json);
            assert!(error.contains(sentence), "{json}: {error}");
        };
        check("{}", "missing field `paths`");
        check(r#"{"paths": []}"#, "at least one file");
        check(r#"{"paths": ["targets"]}"#, "must end in `.json`");
        check(
            r#"{"paths": ["a.json", "targets/*"]}"#,
            "must end in `.json`",
        );
        check(r#"{"paths": ["a/[.json"]}"#, "not a pattern of paths");
        check(
            r#"{"paths": ["a.json"], "refresh": "10ms"}"#,
            "`1s` or more",
        );
        check(
            r#"{"paths": ["a.json"], "wait": "1s"}"#,
            "unknown field `wait`",
        );
    }
}
