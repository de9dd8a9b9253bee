//! What a plain scalar stands for, by YAML 1.2's core schema.

use serde::de::{Expected, Unexpected, Visitor};

use super::{Cause, Error, words};

/// Visits a plain scalar as what it looks like.
pub(super) fn visit_plain<'de, V: Visitor<'de>>(
    text: &'de str,
    visitor: V,
) -> Result<V::Value, Error> {
    if let Some(value) = truth(text) {
        return visitor.visit_bool(value);
    }
    if let Some(number) = integer(text) {
        if let Ok(number) = u64::try_from(number) {
            return visitor.visit_u64(number);
        }
        if let Ok(number) = i64::try_from(number) {
            return visitor.visit_i64(number);
        }
    }
    match fraction(text) {
        Some(number) => visitor.visit_f64(number),
        None => visitor.visit_borrowed_str(text),
    }
}

/// What is wrong with a scalar that is not the whole number that a visitor expects.
pub(super) fn not_whole(text: &str, unquoted: Option<&str>, expected: &dyn Expected) -> Error {
    let expected = words::expected(&expected.to_string());
    let found = match unquoted {
        Some(text) if fraction(text).is_some() => format!("`{text}`"),
        _ => words::found(Unexpected::Str(text)),
    };
    let message = format!("expected {expected}, found {found}");
    Error::Loose(match integer(text) {
        Some(_) if unquoted.is_none() => Cause::Quoted(message),
        _ => Cause::Type(message),
    })
}

pub(super) fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Decimal, `0o17` or `0x1f`.
pub(super) fn integer(text: &str) -> Option<i128> {
    if let Some(octal) = text.strip_prefix("0o") {
        return i128::from_str_radix(octal, 8)
            .ok()
            .filter(|_| !octal.starts_with(['+', '-']));
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return i128::from_str_radix(hex, 16)
            .ok()
            .filter(|_| !hex.starts_with(['+', '-']));
    }
    text.parse().ok()
}

/// A number with or without a fraction; Rust would also take `inf`, `nan` and `infinity`.
pub(super) fn fraction(text: &str) -> Option<f64> {
    let has_digits_only = text
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'.' | b'+' | b'-' | b'e' | b'E'));
    if !has_digits_only || !text.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}
