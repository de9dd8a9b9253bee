//! The texts that a configuration was read from, and how a span becomes a line and a column.

use super::problem::Span;

/// One text, under the name that people know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file's path as it was given, or what stands for one.
    pub name: String,
    /// The whole text.
    pub text: String,
    /// Where each line begins.
    lines: Vec<u32>,
}

/// All texts of one configuration; [`Span::file`] counts them from 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources(Vec<Source>);

/// A place as editors show it: lines and columns from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character within the line.
    pub column: usize,
}

impl Source {
    /// A text under a name.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let after_newline = memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1);
        let lines = std::iter::once(0)
            .chain(after_newline)
            .map(|at| u32::try_from(at).unwrap_or(u32::MAX))
            .collect();
        Self {
            name: name.into(),
            text,
            lines,
        }
    }

    /// The line and column of a byte; a byte past the end counts as the end.
    pub fn position(&self, byte: usize) -> Position {
        let byte = self.text.floor_char_boundary(byte);
        let line = self.line_of(byte);
        let before = self.text.get(self.start(line)..byte).unwrap_or_default();
        Position {
            line: line + 1,
            column: before.chars().count() + 1,
        }
    }

    /// Where the line that holds `byte` begins.
    pub(crate) fn line_start(&self, byte: usize) -> usize {
        self.start(self.line_of(byte))
    }

    /// Where the line that holds `byte` ends, without its line break.
    pub(crate) fn line_end(&self, byte: usize) -> usize {
        let next = self.lines.get(self.line_of(byte) + 1);
        let end = next.map_or(self.text.len(), |&next| next as usize - 1);
        let text = self.text.get(..end).unwrap_or_default();
        text.strip_suffix('\r').map_or(end, str::len)
    }

    fn line_of(&self, byte: usize) -> usize {
        let after = self.lines.partition_point(|&start| start as usize <= byte);
        after.saturating_sub(1)
    }

    fn start(&self, line: usize) -> usize {
        self.lines.get(line).copied().unwrap_or_default() as usize
    }
}

impl Sources {
    /// Adds a text; none when there are more than a [`Span`] can count.
    pub fn add(&mut self, source: Source) -> Option<u16> {
        let number = u16::try_from(self.0.len()).ok()?;
        self.0.push(source);
        Some(number)
    }

    /// The text of that number.
    pub fn get(&self, file: u16) -> Option<&Source> {
        self.0.get(usize::from(file))
    }

    /// Every text, in the order in which they were read.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }

    /// A span's place as `file:line:column`.
    pub fn place(&self, span: Span) -> String {
        let Some(source) = self.get(span.file) else {
            return String::new();
        };
        let at = source.position(span.start as usize);
        format!("{}:{}:{}", source.name, at.line, at.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_becomes_a_line_and_a_column_of_characters() {
        let source = Source::new("x", "ab\nñandú: 1\r\n\nend");
        let check = |byte, line, column| {
            assert_eq!(source.position(byte), Position { line, column }, "{byte}");
        };
        check(0, 1, 1);
        check(2, 1, 3);
        check(3, 2, 1);
        check(4, 2, 1); // within `ñ`
        check(5, 2, 2);
        check(15, 3, 1);
        check(16, 4, 1);
        check(usize::MAX, 4, 4);
        assert_eq!(
            Source::new("", "").position(0),
            Position { line: 1, column: 1 }
        );
    }

    #[test]
    fn a_line_ends_before_its_line_break() {
        let source = Source::new("x", "ab\ncd\r\nef");
        let line = |byte| {
            source
                .text
                .get(source.line_start(byte)..source.line_end(byte))
        };
        assert_eq!(line(1), Some("ab"));
        assert_eq!(line(4), Some("cd"));
        assert_eq!(line(8), Some("ef"));
    }
}
