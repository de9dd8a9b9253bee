//! Colours for terminals, and none for anything else.

use std::fmt::Display;

use anstyle::{AnsiColor, Style as Ansi};

use super::report::Style;

/// Puts colours on words, where there are colours.
#[derive(Debug, Clone, Copy)]
pub struct Paint(Style);

impl Paint {
    /// For a stream of that style.
    pub fn new(style: Style) -> Self {
        Self(style)
    }

    /// What comes, and what is fine.
    pub fn green(self, text: impl Display) -> String {
        self.with(AnsiColor::Green.on_default(), text)
    }

    /// What goes, and what is wrong.
    pub fn red(self, text: impl Display) -> String {
        self.with(AnsiColor::Red.on_default(), text)
    }

    /// What changes.
    pub fn yellow(self, text: impl Display) -> String {
        self.with(AnsiColor::Yellow.on_default(), text)
    }

    /// Headings and names.
    pub fn bold(self, text: impl Display) -> String {
        self.with(Ansi::new().bold(), text)
    }

    /// What matters less.
    pub fn dim(self, text: impl Display) -> String {
        self.with(Ansi::new().dimmed(), text)
    }

    fn with(self, ansi: Ansi, text: impl Display) -> String {
        match self.0 {
            Style::Plain => text.to_string(),
            Style::Coloured => format!("{ansi}{text}{ansi:#}"),
        }
    }
}

/// Text that moves no cursor: control characters are of no use to a reader and may be meant to fool a
/// terminal.
pub fn harmless(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(plain).collect()
}
