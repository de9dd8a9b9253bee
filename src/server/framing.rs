//! Where messages of HTTP/1 begin and end, read so strictly that no two readers can disagree.
//!
//! This runs over every byte before the HTTP library sees it and knows only what framing needs
//! (RFC 9112, sections 2.2, 3, 5, 6 and 7): line ends, `Content-Length`, `Transfer-Encoding`,
//! chunk sizes, and the limits of a head. The library validates the rest, and reads nothing that
//! this has refused: a request is either understood by both or answered with an error.

/// What a head may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    /// Bytes of request line and headers together.
    pub bytes: usize,
    /// Number of header lines.
    pub headers: usize,
}

/// Why a client is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Malformed or ambiguous: 400.
    Malformed(&'static str),
    /// A transfer coding that we do not know: 501.
    UnknownCoding,
    /// The request line alone is over the limit: 414.
    TargetTooLong,
    /// The head is over a limit: 431.
    HeadTooLarge(&'static str),
}

/// Position within a connection's stream of messages.
#[derive(Debug)]
pub(crate) struct Framing {
    limits: HeadLimits,
    place: Place,
    head: Head,
    /// The beginning of a line whose end has not arrived.
    carry: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before or in a request line.
    RequestLine,
    /// In the header lines.
    Headers,
    /// In a body of known length.
    Body(u64),
    ChunkSize,
    /// In a chunk's bytes.
    Chunk(u64),
    ChunkEnd,
    Trailers,
    /// HTTP/1 is over: another protocol's bytes.
    Raw,
}

#[derive(Debug, Default)]
struct Head {
    bytes: usize,
    headers: usize,
    length: Option<u64>,
    chunked: bool,
}

/// A line of chunk size with its extensions, or a line before a request, is never longer.
const SHORT_LINE: usize = 1024;

impl Framing {
    pub(crate) fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            place: Place::RequestLine,
            head: Head::default(),
            carry: Vec::new(),
        }
    }

    /// From now on the bytes belong to another protocol.
    pub(crate) fn leave_http(&mut self) {
        self.place = Place::Raw;
        self.carry = Vec::new();
    }

    /// True while part of a head has arrived, and not all of it.
    pub(crate) fn inside_head(&self) -> bool {
        matches!(self.place, Place::RequestLine | Place::Headers)
            && (self.head.bytes > 0 || !self.carry.is_empty())
    }

    /// Reads on.
    ///
    /// # Errors
    /// The first violation; nothing after it may be used.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        while !bytes.is_empty() {
            bytes = match self.place {
                Place::Raw => return Ok(()),
                Place::Body(left) => self.skip(bytes, left, Place::Body, Place::RequestLine),
                Place::Chunk(left) => self.skip(bytes, left, Place::Chunk, Place::ChunkEnd),
                _ => self.read_line(bytes)?,
            };
        }
        Ok(())
    }

    fn skip<'a>(
        &mut self,
        bytes: &'a [u8],
        left: u64,
        within: fn(u64) -> Place,
        after: Place,
    ) -> &'a [u8] {
        let step = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let left = left - step as u64;
        self.place = if left == 0 { after } else { within(left) };
        bytes.get(step..).unwrap_or_default()
    }

    /// Takes one line, or what there is of it.
    fn read_line<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Violation> {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            self.within_limit(self.carry.len() + bytes.len())?;
            self.carry.extend_from_slice(bytes);
            return Ok(&[]);
        };
        let (line, rest) = bytes.split_at(end);
        let rest = rest.get(1..).unwrap_or_default();
        self.within_limit(self.carry.len() + line.len() + 1)?;
        if self.carry.is_empty() {
            self.line(line)?;
        } else {
            let mut whole = std::mem::take(&mut self.carry);
            whole.extend_from_slice(line);
            self.line(&whole)?;
        }
        Ok(rest)
    }

    fn within_limit(&self, line: usize) -> Result<(), Violation> {
        match self.place {
            Place::RequestLine if line > self.limits.bytes => Err(Violation::TargetTooLong),
            Place::Headers | Place::Trailers if self.head.bytes + line > self.limits.bytes => Err(
                Violation::HeadTooLarge("the head is longer than the listener's header_bytes"),
            ),
            Place::ChunkSize | Place::ChunkEnd if line > SHORT_LINE => {
                Err(Violation::Malformed("a chunk's size line is too long"))
            }
            _ => Ok(()),
        }
    }

    /// Takes a whole line without its line feed.
    fn line(&mut self, line: &[u8]) -> Result<(), Violation> {
        let Some((b'\r', line)) = line.split_last() else {
            return Err(Violation::Malformed(
                "a line ends without a carriage return",
            ));
        };
        match self.place {
            Place::RequestLine => self.request_line(line),
            Place::Headers => self.header_line(line),
            Place::Trailers => self.trailer_line(line),
            Place::ChunkSize => self.chunk_size(line),
            _ if line.is_empty() => {
                self.place = Place::ChunkSize;
                Ok(())
            }
            _ => Err(Violation::Malformed("a chunk is longer than its size says")),
        }
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Violation> {
        self.head.bytes += line.len() + 2;
        if line.is_empty() {
            // RFC 9112, 2.2: empty lines before a request line are ignored, within reason.
            return if self.head.bytes > 8 {
                Err(Violation::Malformed("empty lines instead of a request"))
            } else {
                Ok(())
            };
        }
        self.place = Place::Headers;
        Ok(())
    }

    fn header_line(&mut self, line: &[u8]) -> Result<(), Violation> {
        self.head.bytes += line.len() + 2;
        let Some(&first) = line.first() else {
            return self.end_of_head();
        };
        self.head.headers += 1;
        if self.head.headers > self.limits.headers {
            return Err(Violation::HeadTooLarge(
                "there are more headers than the listener's limit",
            ));
        }
        match first {
            b' ' | b'\t' => Err(Violation::Malformed(
                "a header is folded over two lines (RFC 9112, 5.2)",
            )),
            b'c' | b'C' => match value_of(line, b"content-length:") {
                Some(value) => self.content_length(value),
                None => Ok(()),
            },
            b't' | b'T' => match value_of(line, b"transfer-encoding:") {
                Some(value) => self.transfer_encoding(value),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Violation> {
        if self.head.length.is_some() {
            return Err(Violation::Malformed("Content-Length is given twice"));
        }
        self.head.length = Some(decimal(value).ok_or(Violation::Malformed(
            "Content-Length is not a decimal number",
        ))?);
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Violation> {
        if self.head.chunked {
            return Err(Violation::Malformed("Transfer-Encoding is given twice"));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Violation::UnknownCoding);
        }
        self.head.chunked = true;
        Ok(())
    }

    fn end_of_head(&mut self) -> Result<(), Violation> {
        let head = std::mem::take(&mut self.head);
        self.place = match (head.chunked, head.length) {
            (true, Some(_)) => {
                return Err(Violation::Malformed(
                    "both Content-Length and Transfer-Encoding are given",
                ));
            }
            (true, None) => Place::ChunkSize,
            (false, None | Some(0)) => Place::RequestLine,
            (false, Some(length)) => Place::Body(length),
        };
        Ok(())
    }

    fn chunk_size(&mut self, line: &[u8]) -> Result<(), Violation> {
        let digits = memchr::memchr(b';', line).map_or(line, |end| line.split_at(end).0);
        // At most 16 digits fit; the library, too, takes no space before a semicolon for granted.
        let size = hexadecimal(digits.trim_ascii_end())
            .ok_or(Violation::Malformed("a chunk's size is not hexadecimal"))?;
        self.place = if size == 0 {
            Place::Trailers
        } else {
            Place::Chunk(size)
        };
        Ok(())
    }

    fn trailer_line(&mut self, line: &[u8]) -> Result<(), Violation> {
        let Some(&first) = line.first() else {
            self.head = Head::default();
            self.place = Place::RequestLine;
            return Ok(());
        };
        self.head.bytes += line.len() + 2;
        self.head.headers += 1;
        if self.head.headers > self.limits.headers {
            return Err(Violation::HeadTooLarge(
                "there are more trailers than the listener's limit for headers",
            ));
        }
        if matches!(first, b' ' | b'\t') || memchr::memchr(b':', line).is_none() {
            return Err(Violation::Malformed("a trailer is not a header line"));
        }
        Ok(())
    }
}

/// The value of a header line whose name, with its colon, is `name`.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn decimal(digits: &[u8]) -> Option<u64> {
    number(digits, 10, 19)
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    number(digits, 16, 15)
}

/// Digits alone: no sign, no space, and no more than surely fit.
fn number(digits: &[u8], base: u32, most: usize) -> Option<u64> {
    if digits.is_empty() || digits.len() > most {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &digit| {
        let digit = char::from(digit).to_digit(base)?;
        Some(number * u64::from(base) + u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 256,
        headers: 4,
    };

    /// Reads in one go and byte by byte: the answer must be the same.
    fn read(bytes: &[u8]) -> Result<Framing, Violation> {
        let mut whole = Framing::new(LIMITS);
        let at_once = whole.read(bytes);
        let mut slow = Framing::new(LIMITS);
        let bit_by_bit = bytes.chunks(1).try_for_each(|byte| slow.read(byte));
        assert_eq!(at_once, bit_by_bit, "{}", bytes.escape_ascii());
        if at_once.is_ok() {
            assert_eq!(whole.place, slow.place);
        }
        at_once.map(|()| whole)
    }

    #[test]
    fn messages_end_where_their_framing_says() {
        let check = |bytes: &[u8], place| {
            let framing = read(bytes).expect("well formed");
            assert_eq!(framing.place, place, "{}", bytes.escape_ascii());
        };
        check(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Place::RequestLine);
        check(b"\r\n\r\nGET / HTTP/1.1\r\n", Place::Headers);
        check(
            b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nab",
            Place::Body(3),
        );
        check(
            b"POST / HTTP/1.1\r\nContent-Length:5\r\n\r\nabcdeGET",
            Place::RequestLine,
        );
        let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n";
        check(chunked, Place::ChunkSize);
        let with = |rest: &[u8]| [chunked.as_slice(), rest].concat();
        check(&with(b"5;a=b\r\nabc"), Place::Chunk(2));
        check(&with(b"3\r\nabc\r\n0\r\n"), Place::Trailers);
        check(&with(b"3\r\nabc\r\n0\r\nx: y\r\n\r\n"), Place::RequestLine);
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let check = |bytes: &[u8]| {
            let refused = read(bytes).expect_err("ambiguous");
            assert!(
                matches!(refused, Violation::Malformed(_) | Violation::UnknownCoding),
                "{refused:?}"
            );
        };
        check(b"GET / HTTP/1.1\nhost: a\n\n");
        check(b"GET / HTTP/1.1\r\nhost: a\n\r\n");
        check(b"GET / HTTP/1.1\r\nhost: a\r\n b\r\n\r\n");
        check(b"\r\n\r\n\r\n\r\n\r\n\r\n");
        let post = |headers: &str| format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n").into_bytes();
        check(&post("content-length: 5\r\ntransfer-encoding: chunked"));
        check(&post("transfer-encoding: chunked\r\ncontent-length: 5"));
        check(&post("content-length: 5\r\ncontent-length: 5"));
        check(&post("content-length: 5, 5"));
        check(&post("content-length: +5"));
        check(&post("content-length:"));
        check(&post("content-length: 99999999999999999999"));
        check(&post(
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        ));
        check(&post("transfer-encoding: gzip, chunked"));
        check(&post("transfer-encoding: identity"));
        let chunks = |rest: &str| {
            format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{rest}").into_bytes()
        };
        check(&chunks("g\r\n"));
        check(&chunks("0x5\r\n"));
        check(&chunks("-1\r\n"));
        check(&chunks("5\nabcde"));
        check(&chunks("fffffffffffffffff\r\n"));
        check(&chunks("3\r\nabcd\r\n"));
        check(&chunks("0\r\nno colon\r\n"));
    }

    #[test]
    fn heads_over_their_limits_are_refused() {
        let long = "x".repeat(300);
        let check = |text: String, violation: fn(&Violation) -> bool| {
            let refused = read(text.as_bytes()).expect_err("too large");
            assert!(violation(&refused), "{refused:?}");
        };
        check(format!("GET /{long}"), |v| *v == Violation::TargetTooLong);
        check(format!("GET / HTTP/1.1\r\na: {long}"), |v| {
            matches!(v, Violation::HeadTooLarge(_))
        });
        check(format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(5)), |v| {
            matches!(v, Violation::HeadTooLarge(_))
        });
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_one_answer(bytes: Vec<u8>) {
            let _answer = read(&bytes);
        }

        #[test]
        fn any_mix_of_framing_gives_one_answer(parts in proptest::collection::vec(0..11_usize, 0..24)) {
            const PARTS: [&[u8]; 11] = [
                b"POST / HTTP/1.1\r\n", b"\r\n", b"content-length: 3\r\n", b"transfer-encoding: chunked\r\n",
                b"abc", b"3\r\n", b"0\r\n", b"\n", b"x: y\r\n", b"\r", b" ",
            ];
            let bytes: Vec<u8> = parts.iter().flat_map(|&part| PARTS[part]).copied().collect();
            let _answer = read(&bytes);
        }
    }
}
