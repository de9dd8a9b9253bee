//! The words of a command as a shell sees them.

use super::shown;

/// Words after which another command, or a file for the output, begins.
pub(super) const ENDS: &[&str] = &[
    "|",
    "||",
    "&",
    "&&",
    ";",
    ">",
    ">>",
    "2>",
    "2>&1",
    "2>/dev/null",
    ">/dev/null",
];

/// Cuts a command into words.
pub(super) fn split(command: &str) -> Result<Vec<String>, String> {
    let command = command.trim();
    let command = command.strip_prefix("$ ").unwrap_or(command);
    let first = command.split_once(char::is_whitespace);
    let is_caret = |(_, rest): (&str, &str)| rest.trim_start().starts_with("^\"");
    if first.is_some_and(is_caret) || command.lines().any(|line| line.ends_with(" ^")) {
        return Err(
            "this command is written for cmd on Windows: copy it as cURL for bash".to_owned(),
        );
    }
    let command = plain(&command.replace("\r\n", "\n"))?;
    shell_words::split(&command).map_err(|_| {
        format!(
            "a quote is not closed in `{}`: copy the whole command",
            shown(&command)
        )
    })
}

/// Where a letter stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    None,
    Single,
    Double,
}

/// The command with every `$'…'`, which browsers write and POSIX does not know, in plain quotes.
fn plain(command: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(command.len());
    let mut quotes = Quotes::None;
    let mut letters = command.chars().peekable();
    while let Some(letter) = letters.next() {
        match (quotes, letter) {
            (Quotes::None, '$') if letters.peek() == Some(&'\'') => {
                letters.next();
                let text = ansi(&mut letters)
                    .ok_or_else(|| "a `$'` is not closed: copy the whole command".to_owned())?;
                plain.push('\'');
                plain.push_str(&text.replace('\'', r"'\''"));
                plain.push('\'');
                continue;
            }
            (Quotes::None | Quotes::Double, '\\') => {
                plain.push(letter);
                plain.extend(letters.next());
                continue;
            }
            (Quotes::None, '\'') => quotes = Quotes::Single,
            (Quotes::None, '"') => quotes = Quotes::Double,
            (Quotes::Single, '\'') | (Quotes::Double, '"') => quotes = Quotes::None,
            _ => {}
        }
        plain.push(letter);
    }
    Ok(plain)
}

/// The text up to the quote that ends it, its escapes resolved; none if nothing ends it.
fn ansi(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut text = String::new();
    loop {
        match letters.next()? {
            '\'' => return Some(text),
            '\\' => match letters.next()? {
                'n' => text.push('\n'),
                'r' => text.push('\r'),
                't' => text.push('\t'),
                'x' => text.push(number(letters, 2)),
                'u' => text.push(number(letters, 4)),
                'U' => text.push(number(letters, 8)),
                // `\\`, `\'`, `\"`, and whatever else stands for itself.
                other => text.push(other),
            },
            letter => text.push(letter),
        }
    }
}

/// A character by its number, of at most so many hexadecimal digits.
fn number(letters: &mut std::iter::Peekable<std::str::Chars<'_>>, most: usize) -> char {
    let mut code = 0;
    for _ in 0..most {
        let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(16)) else {
            break;
        };
        letters.next();
        code = code * 16 + digit;
    }
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_a_shell() {
        let check = |command: &str, expected: &[&str]| {
            assert_eq!(
                split(command).as_deref(),
                Ok(expected.map_owned().as_slice())
            );
        };
        check("curl  a\tb", &["curl", "a", "b"]);
        check("$ curl a", &["curl", "a"]);
        check(
            "curl 'a b' \"c \\\" d\" e\\ f",
            &["curl", "a b", "c \" d", "e f"],
        );
        check(
            "curl 'a' \\\n  -H 'b: c' \\\r\n  d",
            &["curl", "a", "-H", "b: c", "d"],
        );
        check(r"curl $'a\'b\u0021\x21\n'", &["curl", "a'b!!\n"]);
        check(r#"curl "$'a'" '$' b$'c'"#, &["curl", "$'a'", "$", "bc"]);
        check("", &[]);
    }

    trait MapOwned {
        fn map_owned(&self) -> Vec<String>;
    }

    impl MapOwned for [&str] {
        fn map_owned(&self) -> Vec<String> {
            self.iter().map(ToString::to_string).collect()
        }
    }

    #[test]
    fn half_a_command_says_so() {
        for half in ["curl 'a", "curl \"a", "curl $'a", "curl $'a\\", "curl a\\"] {
            let said = split(half);
            assert!(
                said.is_err_and(|error| error.contains("not closed")) || half.ends_with("a\\"),
                "{half}"
            );
        }
        let windows = split("curl ^\"http://a^\"").expect_err("cmd");
        assert!(windows.contains("Windows"), "{windows}");
    }
}
