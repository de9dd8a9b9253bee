//! What came of tests as JUnit's XML, which every CI system reads.

use std::fmt::Write as _;

use crate::base::report::{self, Style};
use crate::base::source::Sources;
use crate::explain::trial::Report;

/// The report of each file; its name stands for the suite.
pub fn junit(reports: &[(String, &Report, &Sources)]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for (file, report, sources) in reports {
        let failures = report.verdicts.iter().filter(|one| !one.passes()).count();
        let tests = report.verdicts.len();
        let time: f64 = report
            .verdicts
            .iter()
            .map(|one| one.took.as_secs_f64())
            .sum();
        let file = escape(file);
        // Writing to a string cannot fail.
        let _infallible = writeln!(
            text,
            "  <testsuite name=\"{file}\" tests=\"{tests}\" failures=\"{failures}\" time=\"{time:.3}\">"
        );
        for one in &report.verdicts {
            let (name, time) = (escape(&one.name), one.took.as_secs_f64());
            let _infallible = write!(
                text,
                "    <testcase classname=\"{file}\" name=\"{name}\" time=\"{time:.3}\""
            );
            let Some(first) = one.problems.first() else {
                text += "/>\n";
                continue;
            };
            let message = escape(&first.message);
            let all = escape(&report::render(&one.problems, sources, Style::Plain));
            let _infallible = write!(
                text,
                ">\n      <failure message=\"{message}\">{all}</failure>\n    </testcase>\n"
            );
        }
        text += "  </testsuite>\n";
    }
    text + "</testsuites>\n"
}

/// Text that stands for itself in XML; characters that it cannot have are left out.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '&' => escaped += "&amp;",
            '"' => escaped += "&quot;",
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => {}
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(
            escape("a<b> & \"c\"\u{1b}[1m"),
            "a&lt;b&gt; &amp; &quot;c&quot;[1m"
        );
    }
}
