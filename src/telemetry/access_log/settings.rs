//! What operators say about the access log.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::format::Format;
use crate::base::values::Share;

/// One line for each request.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
pub struct Settings {
    /// The shape of a line: `json`, `text`, `combined` (Apache's), or a template such as
    /// `{ts} {method} {path} {status} {duration_ms}`. Default `json`.
    pub format: Format,
    /// Where lines go: `stdout`, `none`, or the path of a file, which is opened anew on USR1.
    /// Default `stdout`.
    pub output: Output,
    /// The share of requests that get a line. Those that failed (a response flag, or a status from
    /// 500) always do. Default `100%`.
    pub sample: Share,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            format: Format::JSON,
            output: Output::Stdout,
            sample: Share(1.0),
        }
    }
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Nowhere.
    None,
    /// A file.
    File(PathBuf),
}

impl<'de> Deserialize<'de> for Output {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Output;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`stdout`, `none` or the path of a file")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Output, E> {
                match text {
                    "stdout" => Ok(Output::Stdout),
                    "none" => Ok(Output::None),
                    // A slash, so that a misspelt word is not taken for a file's name.
                    _ if text.contains('/') && !text.contains('\0') => {
                        Ok(Output::File(text.into()))
                    }
                    _ => Err(E::custom(format!(
                        "`{text}` is not an output: write `stdout`, `none`, or a path such as `/var/log/retort.log` or `./access.log`"
                    ))),
                }
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Output {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Output".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"enum": ["stdout", "none"]},
            {"type": "string", "pattern": r"/|\$\{"},
        ]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_two_words_or_a_path() {
        let read = |text: &str| serde_json::from_value::<Output>(text.into());
        assert_eq!(read("stdout").expect("known"), Output::Stdout);
        assert_eq!(read("none").expect("known"), Output::None);
        let file = Output::File("./a.log".into());
        assert_eq!(read("./a.log").expect("a path"), file);
        let error = read("stdot").expect_err("misspelt").to_string();
        assert!(error.contains("write `stdout`, `none`"), "{error}");
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let settings: Settings = serde_json::from_str("{}").expect("all optional");
        assert_eq!(settings, Settings::default());
        let text = r#"{"format": "{status}", "output": "none", "sample": "5%"}"#;
        let settings: Settings = serde_json::from_str(text).expect("valid");
        assert_eq!(settings.sample, Share(0.05));
        assert!(serde_json::from_str::<Settings>(r#"{"formt": "json"}"#).is_err());
    }
}
