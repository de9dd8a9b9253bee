//! `${NAME}` and `${NAME:-default}` within a scalar; `$${` stands for `${` itself.
//!
//! What is put in is never read again: neither as YAML nor for further variables.

/// Looks up an environment variable.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a scalar could not be filled.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfilled {
    /// What was written, from `${` on: to be found in the source.
    pub(super) written: String,
    /// One sentence.
    pub(super) message: String,
    /// What to do.
    pub(super) help: &'static str,
}

/// True if there is anything to put in.
pub(super) fn is_needed(text: &str) -> bool {
    text.contains("${")
}

/// The text with its variables replaced.
pub(super) fn fill(text: &str, env: Env<'_>) -> Result<String, Unfilled> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = after;
            continue;
        }
        filled.push_str(before);
        let Some((inner, after)) = after.split_once('}') else {
            return Err(not_a_variable(after));
        };
        filled.push_str(&value(inner, env)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn value(inner: &str, env: Env<'_>) -> Result<String, Unfilled> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    if !is_name(name) {
        return Err(not_a_variable(inner));
    }
    // As in a shell, `:-` also replaces what is set but empty.
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Unfilled {
            written: format!("${{{name}}}"),
            message: format!("the environment variable `{name}` is not set"),
            help: "set it, or give a default as in `${NAME:-default}`",
        }),
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn not_a_variable(inner: &str) -> Unfilled {
    let shown: String = inner.chars().take(20).collect();
    Unfilled {
        written: format!("${{{shown}"),
        message: format!("`${{{shown}` does not begin a variable such as `${{NAME}}`"),
        help: "write `$${` where `${` itself is meant",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "PORT" => Some("8080".into()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${PORT}".into()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_replaced_and_their_values_left_alone() {
        let check = |text: &str, expected: &str| {
            assert_eq!(fill(text, &env).as_deref(), Ok(expected), "{text}");
        };
        check("plain $PORT {PORT}", "plain $PORT {PORT}");
        check("0.0.0.0:${PORT}", "0.0.0.0:8080");
        check("${PORT}${PORT}", "80808080");
        check("${NO:-a:-b}|${NO:-}|${EMPTY:-x}|${EMPTY}|", "a:-b||x||");
        check("$${PORT} $$${PORT}", "${PORT} $${PORT}");
        check("${NESTED}", "${PORT}");
    }

    #[test]
    fn what_cannot_be_replaced_says_why() {
        let check = |text: &str, written: &str, words: &str| {
            let unfilled = fill(text, &env).expect_err(text);
            assert_eq!(unfilled.written, written);
            assert!(unfilled.message.contains(words), "{}", unfilled.message);
        };
        check("a ${NO} b", "${NO}", "`NO` is not set");
        check("^a${2}", "${2", "does not begin a variable");
        check("${PORT", "${PORT", "does not begin a variable");
        check("${}", "${", "does not begin a variable");
        check("${A B}", "${A B", "does not begin a variable");
    }
}
