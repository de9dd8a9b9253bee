//! The one normal form of a path: what was matched is what is authorised and what is sent.
//!
//! - Percent-encoding of unreserved characters is undone, the hex digits that stay are upper case
//!   (RFC 3986, 6.2.2).
//! - Dot segments are resolved and cannot climb above the root (RFC 3986, 5.2.4). They are looked for
//!   after decoding, so `%2e%2e` is `..`.
//! - Bytes that a target may not hold are escaped.
//! - Duplicate slashes stay: to an origin `/a//b` may be another resource than `/a/b`. An empty
//!   segment is a segment; a prefix `/a` matches `/a//b`, and a template's `{x}` never takes one.
//! - Refused: an encoded slash (unless allowed), a backslash, NUL, a `%` without two hex digits.
//!   Each is read differently by different programs, which is how a rule is walked around.

use std::borrow::Cow;

/// Whether `%2F` may stand in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EncodedSlashes {
    /// Answer 400: the next program may take it for a border of segments.
    #[default]
    Refuse,
    /// Let it pass, still encoded; it is part of its segment.
    Keep,
}

/// Why a path has no normal form; the answer is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Neither absolute nor `*`.
    #[error("the path does not start with `/`")]
    NotAbsolute,
    /// A `%` without two hexadecimal digits behind it.
    #[error("the path holds a `%` without two hexadecimal digits")]
    BadEscape,
    /// `%2F`.
    #[error("the path holds an encoded slash (`%2F`), which this listener does not allow")]
    EncodedSlash,
    /// `\` or `%5C`.
    #[error("the path holds a backslash")]
    Backslash,
    /// NUL or `%00`.
    #[error("the path holds a NUL byte")]
    Nul,
}

/// The normal form of a request's path (without its query); borrowed when nothing is to do.
///
/// `*` (of `OPTIONS *`) is its own normal form, the empty path of an absolute target is `/`.
///
/// # Errors
/// A path that could be read in two ways is refused.
pub fn normalise(raw: &str, slashes: EncodedSlashes) -> Result<Cow<'_, str>, PathError> {
    match raw.as_bytes() {
        [] => return Ok(Cow::Borrowed("/")),
        b"*" => return Ok(Cow::Borrowed(raw)),
        [b'/', ..] => {}
        _ => return Err(PathError::NotAbsolute),
    }
    if is_plain(raw.as_bytes()) || is_normal(raw.as_bytes(), slashes)? {
        return Ok(Cow::Borrowed(raw));
    }
    rewrite(raw.as_bytes(), slashes).map(Cow::Owned)
}

/// What a byte means in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// May stand as it is.
    Plain,
    Slash,
    Percent,
    /// A target cannot hold it: to be escaped.
    Escape,
    /// Backslash or NUL.
    Refuse,
}

const CLASSES: [Class; 256] = {
    let mut table = [Class::Escape; 256];
    let mut byte = 0;
    while byte < table.len() {
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        {
            table[byte] = class_of(byte as u8);
        }
        byte += 1;
    }
    table
};

const fn class_of(byte: u8) -> Class {
    match byte {
        b'/' => Class::Slash,
        b'%' => Class::Percent,
        b'\\' | 0 => Class::Refuse,
        // sub-delims, `:` and `@` (RFC 3986, 3.3).
        b'!' | b'$' | b'&'..=b',' | b';' | b'=' | b':' | b'@' => Class::Plain,
        _ if is_unreserved(byte) => Class::Plain,
        _ => Class::Escape,
    }
}

#[inline]
fn class(byte: u8) -> Class {
    #[expect(
        clippy::indexing_slicing,
        reason = "the table has an entry for every byte"
    )]
    CLASSES[byte as usize]
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The fast path, which most paths take: nothing but plain bytes, and no segment that starts with a
/// dot. Without a branch a byte, so twice as fast as looking at each.
fn is_plain(path: &[u8]) -> bool {
    const DOT: u8 = 1;
    const ODD: u8 = 2;
    const SIGNS: [u8; 256] = {
        let mut table = [ODD; 256];
        let mut byte = 0;
        while byte < table.len() {
            #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
            match CLASSES[byte] {
                Class::Plain if byte == b'.' as usize => table[byte] = DOT,
                Class::Plain | Class::Slash => table[byte] = 0,
                _ => {}
            }
            byte += 1;
        }
        table
    };
    #[expect(
        clippy::indexing_slicing,
        reason = "the table has an entry for every byte"
    )]
    let signs = path
        .iter()
        .fold(0, |signs, byte| signs | SIGNS[*byte as usize]);
    match signs {
        0 => true,
        DOT => memchr::memmem::find(path, b"/.").is_none(),
        _ => false,
    }
}

/// One scan that finds whether there is anything to do, and what must be refused.
fn is_normal(path: &[u8], slashes: EncodedSlashes) -> Result<bool, PathError> {
    let mut rest = path;
    let mut normal = true;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match class(*byte) {
            Class::Plain => {}
            Class::Slash => normal &= !starts_with_dot_segment(tail),
            Class::Percent => {
                let (value, canonical) = unescape(tail, slashes)?;
                normal &= canonical && !is_unreserved(value);
                rest = tail.get(2..).unwrap_or_default();
            }
            Class::Escape => normal = false,
            Class::Refuse => return Err(refusal(*byte)),
        }
    }
    Ok(normal)
}

fn refusal(byte: u8) -> PathError {
    if byte == 0 {
        PathError::Nul
    } else {
        PathError::Backslash
    }
}

fn starts_with_dot_segment(segments: &[u8]) -> bool {
    matches!(
        segments,
        [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..]
    )
}

/// The byte that two hex digits stand for, and whether they are upper case already.
fn unescape(digits: &[u8], slashes: EncodedSlashes) -> Result<(u8, bool), PathError> {
    let [high, low, ..] = digits else {
        return Err(PathError::BadEscape);
    };
    let byte = match (hex(*high), hex(*low)) {
        (Some(high), Some(low)) => high << 4 | low,
        _ => return Err(PathError::BadEscape),
    };
    match byte {
        b'/' if slashes == EncodedSlashes::Refuse => Err(PathError::EncodedSlash),
        b'\\' | 0 => Err(refusal(byte)),
        _ => {
            let canonical = !high.is_ascii_lowercase() && !low.is_ascii_lowercase();
            Ok((byte, canonical))
        }
    }
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The slow path: writes the normal form anew.
fn rewrite(path: &[u8], slashes: EncodedSlashes) -> Result<String, PathError> {
    let mut out = Vec::with_capacity(path.len() + 16);
    let mut rest = path;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match class(*byte) {
            Class::Plain => out.push(*byte),
            Class::Slash => {
                resolve_last_segment(&mut out, Last::Inner);
                out.push(b'/');
            }
            Class::Percent => {
                let (value, _) = unescape(tail, slashes)?;
                if is_unreserved(value) {
                    out.push(value);
                } else {
                    escape(&mut out, value);
                }
                rest = tail.get(2..).unwrap_or_default();
            }
            Class::Escape => escape(&mut out, *byte),
            Class::Refuse => return Err(refusal(*byte)),
        }
    }
    resolve_last_segment(&mut out, Last::Final);
    // Only ASCII was written, so nothing is replaced and nothing copied.
    Ok(String::from_utf8(out).unwrap_or_default())
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
    out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
}

/// Whether a `/` follows the segment that was just written.
#[derive(Clone, Copy)]
enum Last {
    Inner,
    Final,
}

/// Takes a dot segment at the end of `out` away, and the segment before it where it is `..`.
///
/// Leaves `out` without the slash before the segment, as the caller writes the next one; the final
/// segment leaves its slash, for `/a/..` is `/` and `/a/.` is `/a/`.
fn resolve_last_segment(out: &mut Vec<u8>, last: Last) {
    let Some(slash) = memchr::memrchr(b'/', out) else {
        return;
    };
    let keep = match out.get(slash + 1..) {
        Some(b".") => slash,
        // At the root there is nothing to climb to.
        Some(b"..") => memchr::memrchr(b'/', out.get(..slash).unwrap_or_default()).unwrap_or(0),
        _ => return,
    };
    out.truncate(keep);
    if matches!(last, Last::Final) {
        out.push(b'/');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_has_one_normal_form() {
        let check = |raw: &str, expected: &str| {
            let normal = normalise(raw, EncodedSlashes::Refuse);
            assert_eq!(normal.as_deref(), Ok(expected), "{raw}");
        };
        check("/", "/");
        check("", "/");
        check("*", "*");
        check("/a/b", "/a/b");
        check("/a/./b", "/a/b");
        check("/a/../b", "/b");
        check("/a/b/..", "/a/");
        check("/a/b/.", "/a/b/");
        check("/..", "/");
        check("/.", "/");
        check("/../../a", "/a");
        check("/a/../../b", "/b");
        check("/a/%2e%2E/b", "/b");
        check("/a/.%2e/b", "/b");
        check("/a/..b", "/a/..b");
        check("/a/.b/...", "/a/.b/...");
        check("/.well-known/x", "/.well-known/x");
        check("/%41%7e%2D%5f", "/A~-_");
        check("/a%3ab", "/a%3Ab");
        check("/a%20b", "/a%20b");
        check("/a b", "/a%20b");
        check("/caf\u{e9}", "/caf%C3%A9");
        check("/caf%c3%a9", "/caf%C3%A9");
        check("/{x}|\"<>^`", "/%7Bx%7D%7C%22%3C%3E%5E%60");
        check("/a?b#c", "/a%3Fb%23c");
        check("/%252e%252e/a", "/%252e%252e/a");
        check("/!$&'()*+,;=:@", "/!$&'()*+,;=:@");
        check("//", "//");
        check("/a//b", "/a//b");
        check("/a//../b", "/a/b");
        check("//..", "/");
        check("/a/b/../../..//c", "//c");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let check = |raw: &str, expected: PathError| {
            assert_eq!(
                normalise(raw, EncodedSlashes::Refuse),
                Err(expected),
                "{raw:?}"
            );
        };
        check("a", PathError::NotAbsolute);
        check("**", PathError::NotAbsolute);
        check("/%", PathError::BadEscape);
        check("/%4", PathError::BadEscape);
        check("/%4g", PathError::BadEscape);
        check("/%%41", PathError::BadEscape);
        check("/a%2fb", PathError::EncodedSlash);
        check("/a%2Fb", PathError::EncodedSlash);
        check("/..%2f..", PathError::EncodedSlash);
        check("/a\\b", PathError::Backslash);
        check("/a%5cb", PathError::Backslash);
        check("/a%00", PathError::Nul);
        check("/a\0", PathError::Nul);
        // A bad byte counts even where a dot segment would take it away.
        check("/a%5c/../b", PathError::Backslash);
    }

    #[test]
    fn an_encoded_slash_that_is_allowed_stays_inside_its_segment() {
        let normal = normalise("/a%2fb/../c", EncodedSlashes::Keep);
        assert_eq!(normal.as_deref(), Ok("/c"));
        let normal = normalise("/..%2f/c", EncodedSlashes::Keep);
        assert_eq!(normal.as_deref(), Ok("/..%2F/c"));
    }

    #[test]
    fn what_is_normal_already_is_not_copied() {
        for path in ["/", "/a/b.c/~d", "/a%20b/%3A", "/.well-known/", "/a//"] {
            let normal = normalise(path, EncodedSlashes::Refuse);
            assert!(matches!(normal, Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_normal_form_is_its_own_normal_form(raw in "/(a|b|/|\\.|%2[eEfF5]|%4[12]|%c3| |\u{e9}|;|%00|\\\\){0,12}") {
            for slashes in [EncodedSlashes::Refuse, EncodedSlashes::Keep] {
                let Ok(normal) = normalise(&raw, slashes) else { continue };
                let again = normalise(&normal, slashes);
                prop_assert!(matches!(again, Ok(Cow::Borrowed(_))), "{}", normal);
                prop_assert_eq!(again.as_deref(), Ok(&*normal));
                prop_assert!(normal.starts_with('/'));
                let mut segments = normal.split('/');
                prop_assert!(!segments.any(|segment| segment == "." || segment == ".."));
                prop_assert!(!normal.contains(['\\', '\0', ' ']) && normal.is_ascii());
                let uri = normal.parse::<http::Uri>();
                prop_assert!(uri.is_ok() || normal.starts_with("//"), "{}", normal);
            }
        }

        #[test]
        fn any_text_is_answered_without_panic(raw in "\\PC*") {
            let _answer = normalise(&raw, EncodedSlashes::Refuse);
        }
    }
}
