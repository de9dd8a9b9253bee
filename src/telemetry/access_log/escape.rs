//! What strangers wrote, made harmless: no byte of it can end a line or a string, or steer a terminal.

use std::io::Write as _;

/// The part of a JSON string between its quotes (RFC 8259, section 7).
///
/// What is not UTF-8 becomes U+FFFD; control characters are escaped, those above ASCII, too.
pub(super) fn json(out: &mut Vec<u8>, text: &[u8]) {
    escape(out, text, json_character, |out, _| {
        out.extend_from_slice("\u{fffd}".as_bytes());
    });
}

/// A field of a text line, for between quotes or without them.
///
/// Quotes and backslashes get a backslash; control characters and bytes that are not UTF-8 become
/// `\xNN`, as nginx and Apache write them.
pub(super) fn text(out: &mut Vec<u8>, text: &[u8]) {
    escape(out, text, text_character, hexadecimal);
}

fn escape(
    out: &mut Vec<u8>,
    text: &[u8],
    careful: fn(&mut Vec<u8>, char),
    broken: fn(&mut Vec<u8>, &[u8]),
) {
    if is_plain(text) {
        out.extend_from_slice(text);
        return;
    }
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            careful(out, character);
        }
        if !chunk.invalid().is_empty() {
            broken(out, chunk.invalid());
        }
    }
}

/// Whether every byte stands for itself, in JSON strings and in text alike.
///
/// Eight bytes at a time: this and copying are most of what a line costs.
fn is_plain(text: &[u8]) -> bool {
    // The last bytes may overlap those before them.
    if let Some(last) = text.last_chunk() {
        let (words, _) = text.as_chunks();
        words
            .iter()
            .chain([last])
            .all(|word| is_plain_word(u64::from_ne_bytes(*word)))
    } else if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        let (first, last) = (u32::from_ne_bytes(*first), u32::from_ne_bytes(*last));
        is_plain_word(u64::from(first) << 32 | u64::from(last))
    } else {
        text.iter().copied().all(is_plain_byte)
    }
}

fn is_plain_byte(byte: u8) -> bool {
    matches!(byte, 0x20..0x7f) && !matches!(byte, b'"' | b'\\')
}

/// The same for eight bytes: each test leaves the high bit of some byte set if one fails.
fn is_plain_word(word: u64) -> bool {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (word | below(word, 0x20) | is(0x7f) | is(b'"') | is(b'\\')) & HIGH == 0
}

/// Control characters (C0, DEL, C1) and what Unicode calls a line or paragraph break.
fn is_unruly(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

fn json_character(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        _ if is_unruly(character) => {
            // All of them are below U+10000; writing to a vector cannot fail.
            let _written = write!(out, "\\u{:04x}", u32::from(character));
        }
        _ => push(out, character),
    }
}

fn text_character(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        _ if is_unruly(character) => {
            hexadecimal(out, character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        _ => push(out, character),
    }
}

fn push(out: &mut Vec<u8>, character: char) {
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

fn hexadecimal(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        let _written = write!(out, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(escape: fn(&mut Vec<u8>, &[u8]), input: &[u8]) -> String {
        let mut out = Vec::new();
        escape(&mut out, input);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn what_could_break_a_line_is_escaped() {
        let check = |input: &[u8], in_json: &str, in_text: &str| {
            assert_eq!(with(json, input), in_json);
            assert_eq!(with(text, input), in_text);
        };
        check(b"/plain?x=1", "/plain?x=1", "/plain?x=1");
        check(b"a\"b\\c", r#"a\"b\\c"#, r#"a\"b\\c"#);
        check(b"a\r\nb\tc", r"a\r\nb\tc", r"a\x0d\x0ab\x09c");
        check(
            b"\x1b[2J\x7f\0",
            r"\u001b[2J\u007f\u0000",
            r"\x1b[2J\x7f\x00",
        );
        check("\u{9b}1m".as_bytes(), r"\u009b1m", r"\xc2\x9b1m");
        check("\u{2028}".as_bytes(), r"\u2028", r"\xe2\x80\xa8");
        check("gr\u{fc}n".as_bytes(), "gr\u{fc}n", "gr\u{fc}n");
        check(b"a\xffb\xc3", "a\u{fffd}b\u{fffd}", r"a\xffb\xc3");
    }

    #[test]
    fn every_byte_is_judged_alike_in_any_place() {
        for byte in 0..=u8::MAX {
            for place in 0..20 {
                let mut text = [b'a'; 20];
                text[place] = byte;
                assert_eq!(is_plain(&text), is_plain_byte(byte), "{byte} at {place}");
            }
        }
    }

    proptest! {
        #[test]
        fn words_are_judged_as_their_bytes(text in proptest::collection::vec(any::<u8>(), 0..24)) {
            prop_assert_eq!(is_plain(&text), text.iter().copied().all(is_plain_byte));
        }

        #[test]
        fn any_bytes_become_a_json_string(input in proptest::collection::vec(any::<u8>(), 0..64)) {
            let quoted = format!("\"{}\"", with(json, &input));
            let back: String = serde_json::from_str(&quoted).expect("valid JSON");
            prop_assert_eq!(back, String::from_utf8_lossy(&input));
        }

        #[test]
        fn any_bytes_stay_on_their_line(input in proptest::collection::vec(any::<u8>(), 0..64)) {
            for line in [with(json, &input), with(text, &input)] {
                prop_assert!(!line.chars().any(is_unruly));
            }
        }
    }
}
