//! Rust's names of types in the words of people who write YAML.

use serde::de::Unexpected;

/// How much of a text is repeated in a message.
const SHOWN: usize = 40;

/// What serde expected.
pub(super) fn expected(words: &str) -> String {
    let plain = match words {
        "a string" | "a borrowed string" | "a character" => "text",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "path string" => "a path",
        "unit" => "nothing",
        "f32" | "f64" => "a number",
        "variant identifier" | "field identifier" => "a name",
        _ if words.starts_with("struct ") => "a map",
        _ if words.starts_with("enum ") => "one of its kinds",
        _ => "",
    };
    if !plain.is_empty() {
        return plain.to_owned();
    }
    let name = words.strip_prefix("a nonzero ").unwrap_or(words);
    let Some((least, most)) = range(name) else {
        return words.to_owned();
    };
    let least = if name == words { least } else { least.max(1) };
    whole_number(least, most)
}

/// A whole number within bounds.
fn whole_number(least: i128, most: i128) -> String {
    match most {
        // Nobody writes the end of such a range.
        _ if most >= i128::from(u32::MAX) && least >= 0 => format!("a whole number from {least}"),
        _ if most >= i128::from(i64::MAX) => "a whole number".to_owned(),
        _ => format!("a whole number from {least} to {most}"),
    }
}

fn range(name: &str) -> Option<(i128, i128)> {
    Some(match name {
        "u8" => (0, u8::MAX.into()),
        "u16" => (0, u16::MAX.into()),
        "u32" => (0, u32::MAX.into()),
        "u64" | "usize" | "u128" => (0, u64::MAX.into()),
        "i8" => (i8::MIN.into(), i8::MAX.into()),
        "i16" => (i16::MIN.into(), i16::MAX.into()),
        "i32" => (i32::MIN.into(), i32::MAX.into()),
        "i64" | "isize" | "i128" => (i64::MIN.into(), i64::MAX.into()),
        _ => return None,
    })
}

/// What was found instead.
pub(super) fn found(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number}"),
        Unexpected::Str(text) => self::text(text),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a map".to_owned(),
        other => other.to_string(),
    }
}

/// A text as it is repeated in a message.
pub(super) fn text(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let short: String = line.chars().take(SHOWN).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("text `{short}{more}`")
}
