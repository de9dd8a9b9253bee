//! The shapes of a line: JSON, two well-known text formats, or the operator's own template.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::entry::{self, Entry, Key};
use super::stamp::Stamp;

const TEXT: &str = concat!(
    "{ts} {client_ip} \"{method} {target} {protocol}\" {status} {flag} {duration_ms}ms ",
    "{bytes_in} {bytes_out} {listener} {route} {upstream} {endpoint} {request_id} ",
    "\"{user_agent}\" \"{detail}\""
);
const COMBINED: &str = concat!(
    "{client_ip} - - [{time}] \"{method} {target} {protocol}\" {status} {bytes_out} ",
    "\"{referer}\" \"{user_agent}\""
);

/// How a line is written: `json`, `text`, `combined` (Apache's), or a template such as
/// `{ts} {method} {path} {status}`. `{{` and `}}` stand for the brackets themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format(Shape);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    Json,
    Template(Vec<Part>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(Key),
}

impl Format {
    /// One JSON object a line.
    pub const JSON: Self = Self(Shape::Json);

    /// Writes one line, its break included.
    pub(super) fn line(&self, out: &mut Vec<u8>, stamp: &mut Stamp, entry: &Entry<'_>) {
        let parts = match &self.0 {
            Shape::Json => return entry::json(out, stamp, entry),
            Shape::Template(parts) => parts,
        };
        for part in parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Field(key) => entry::text(out, stamp, entry, *key),
            }
        }
        out.push(b'\n');
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let template = match text {
            "json" => return Ok(Self::JSON),
            "text" => TEXT,
            "combined" => COMBINED,
            _ if text.contains(['{', '}']) => text,
            _ => {
                return Err(format!(
                    "`{text}` is not a format: write `json`, `text`, `combined`, or a template such as `{{ts}} {{method}} {{path}} {{status}}`"
                ));
            }
        };
        parts(template).map(|parts| Self(Shape::Template(parts)))
    }
}

fn parts(template: &str) -> Result<Vec<Part>, String> {
    if template.chars().any(char::is_control) {
        return Err("a template is one line without control characters".into());
    }
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = template;
    while let Some((before, bracket, after)) = next_bracket(rest) {
        literal.push_str(before);
        if let Some(doubled) = after.strip_prefix(bracket) {
            literal.push(bracket);
            rest = doubled;
            continue;
        }
        if bracket == '}' {
            return Err("`}` without `{` before it: write `}}` for the bracket itself".into());
        }
        let Some((name, after)) = after.split_once('}') else {
            return Err("`{` is not closed: write `{{` for the bracket itself".into());
        };
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        parts.push(Part::Field(key(name)?));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

fn next_bracket(text: &str) -> Option<(&str, char, &str)> {
    let (at, bracket) = text.char_indices().find(|(_, c)| matches!(c, '{' | '}'))?;
    let (before, from) = text.split_at_checked(at)?;
    Some((before, bracket, from.strip_prefix(bracket)?))
}

fn key(name: &str) -> Result<Key, String> {
    let found = Key::ALL.iter().find(|key| key.name() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = Key::ALL.iter().map(|key| key.name()).collect();
        format!(
            "`{{{name}}}` is not known to the access log: there are {}",
            names.join(", ")
        )
    })
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Format;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`json`, `text`, `combined` or a template")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Format, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Format {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Format".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"enum": ["json", "text", "combined"]},
            {"type": "string", "pattern": r"\{"},
        ]})
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::entry::tests::{entry, stamp};
    use super::*;

    fn line(format: &str) -> String {
        let now = Instant::now();
        let format: Format = format.parse().expect(format);
        let mut out = Vec::new();
        format.line(&mut out, &mut stamp(now), &entry(now));
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn the_text_formats_put_dashes_for_what_is_missing() {
        assert_eq!(
            line("combined"),
            concat!(
                r#"192.0.2.7 - - [24/Nov/2026:22:05:01 +0000] "GET /orders/7?x=\"1\" HTTP/1.1" "#,
                r#"503 42 "-" "curl\xff\x0a""#,
                "\n"
            )
        );
        assert_eq!(
            line("text"),
            concat!(
                r#"2026-11-24T22:05:01.007Z 192.0.2.7 "GET /orders/7?x=\"1\" HTTP/1.1" 503 UH "#,
                r#"1.234ms 0 42 public orders orders 127.0.0.1:9001 abc "curl\xff\x0a" "#,
                r#""2 endpoints, none ready""#,
                "\n"
            )
        );
    }

    #[test]
    fn a_template_names_what_it_wants() {
        assert_eq!(
            line("{status} {{{handler}}} gr\u{fc}n"),
            "503 {-} gr\u{fc}n\n"
        );
        assert_eq!(line("{path}{query}"), "/orders/7x=\\\"1\\\"\n");
    }

    #[test]
    fn every_key_can_be_written() {
        for key in Key::ALL {
            assert!(line(&format!("{{{}}}", key.name())).len() > 1);
        }
    }

    #[test]
    fn a_wrong_template_is_refused_with_advice() {
        let check = |template: &str, advice: &str| {
            let error = template.parse::<Format>().expect_err(template);
            assert!(error.contains(advice), "{template}: {error}");
        };
        check("jsn", "write `json`, `text`, `combined`");
        check("{stats}", "there are ts, time, listener");
        check("{status", "not closed");
        check("status}", "without `{`");
        check("{status}\n", "one line");
        check("", "is not a format");
    }
}
