//! `retort why`

use std::process::ExitCode;

use serde::Deserialize;

use crate::base::paint::{Paint, harmless};
use crate::base::report::Style;
use crate::cli::live::{Admin, Failed};
use crate::cli::output::{print, style};
use crate::telemetry::recent::{Record, Try};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The request's id; without one, the requests that failed or were slow lately
    #[arg(value_name = "REQUEST_ID")]
    id: Option<String>,
    #[command(flatten)]
    admin: Admin,
    /// Only requests of this route
    #[arg(long, value_name = "NAME", conflicts_with = "id")]
    route: Option<String>,
    /// Only requests to this upstream
    #[arg(long, value_name = "NAME", conflicts_with = "id")]
    upstream: Option<String>,
    /// Only requests with this response flag
    #[arg(long, value_name = "FLAG", conflicts_with = "id")]
    flag: Option<String>,
    /// At most so many
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 20,
        conflicts_with = "id"
    )]
    limit: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Found {
    decisions: Vec<Record>,
}

pub(crate) fn why(arguments: &Arguments) -> ExitCode {
    let found = arguments.admin.get(&path(arguments));
    let document = match found {
        Ok(document) => document,
        Err(failed) => return failed.tell(),
    };
    if arguments.json {
        return print(&format!("{document:#}\n"));
    }
    let Found { mut decisions } = match serde_json::from_value::<Found>(document) {
        Ok(found) => found,
        Err(error) => {
            return Failed::Refused(format!("the gateway is of another version: {error}")).tell();
        }
    };
    decisions.iter_mut().for_each(disarm);
    let style = style(&std::io::stdout());
    let text = match arguments.id {
        Some(_) => decisions
            .iter()
            .map(|one| page(one, style))
            .collect::<Vec<_>>()
            .join("\n"),
        None => list(&decisions),
    };
    print(&text)
}

fn path(arguments: &Arguments) -> String {
    if let Some(id) = &arguments.id {
        return format!("/v1/why?request_id={}", encoded(id));
    }
    let mut path = format!("/v1/recent-failures?limit={}", arguments.limit);
    let filters = [
        ("route", &arguments.route),
        ("upstream", &arguments.upstream),
        ("flag", &arguments.flag),
    ];
    for (key, value) in filters {
        if let Some(value) = value {
            path.extend(["&", key, "=", &encoded(value)]);
        }
    }
    path
}

/// Percent-encoded, whatever it is.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Takes out what clients may have written to fool a terminal.
fn disarm(record: &mut Record) {
    let texts = [
        &mut record.request_id,
        &mut record.method,
        &mut record.host,
        &mut record.target,
        &mut record.detail,
    ];
    for text in texts.into_iter().chain(&mut record.notes) {
        *text = harmless(text);
    }
}

/// Everything about one request.
fn page(record: &Record, style: Style) -> String {
    let paint = Paint::new(style);
    let mut text = String::new();
    let mut line = |word: &str, what: &str| {
        text.extend([&paint.bold(format_args!("{word:12}")), what, "\n"]);
    };
    let host = if record.host.is_empty() {
        ""
    } else {
        &record.host
    };
    line(
        "request",
        &format!(
            "{} {host}{} ({})",
            record.method, record.target, record.protocol
        ),
    );
    line("id", &record.request_id);
    line(
        "came",
        &format!(
            "{} from {} through {}",
            record.started_at, record.client, record.listener
        ),
    );
    let route = if record.route.is_empty() {
        "none"
    } else {
        &record.route
    };
    line(
        "route",
        &format!("{route} (configuration {})", record.revision),
    );
    for note in &record.notes {
        line("note", note);
    }
    if !record.middleware.is_empty() {
        line("middleware", &format!("{} answered", record.middleware));
    }
    if !record.handler.is_empty() {
        line("handler", &record.handler);
    }
    if !record.upstream.is_empty() {
        line("upstream", &record.upstream);
    }
    for (number, attempt) in (1..).zip(&record.attempts) {
        line(&format!("attempt {number}"), &one_try(attempt));
    }
    let own = record.duration_ms - record.backend_ms;
    line(
        "time",
        &format!(
            "{:.1} ms, of which {:.1} ms to the backend's answer and {own:.1} ms for all else",
            record.duration_ms, record.backend_ms
        ),
    );
    let flag = if record.flag.is_empty() {
        String::new()
    } else {
        format!(" {}", record.flag)
    };
    line(
        "answer",
        &paint.red(format_args!("{}{flag}", record.status)),
    );
    if !record.meaning.is_empty() {
        line("because", &record.meaning);
    }
    if !record.detail.is_empty() {
        line("", &record.detail);
    }
    text
}

fn one_try(attempt: &Try) -> String {
    let endpoint = if attempt.endpoint.is_empty() {
        "no endpoint"
    } else {
        &attempt.endpoint
    };
    let outcome = match (attempt.status, attempt.flag.is_empty()) {
        (Some(status), true) => status.to_string(),
        (Some(status), false) => format!("{status} {}", attempt.flag),
        (None, _) => attempt.flag.clone(),
    };
    format!("{endpoint} {outcome} after {:.1} ms", attempt.duration_ms)
}

/// A line a request.
fn list(records: &[Record]) -> String {
    if records.is_empty() {
        return "no request has failed or was slow\n".to_owned();
    }
    let mut rows =
        vec![["TIME", "STATUS", "FLAG", "MS", "ROUTE", "REQUEST", "ID"].map(str::to_owned)];
    rows.extend(records.iter().map(|record| {
        let or_dash = |text: &str| {
            if text.is_empty() {
                "-".to_owned()
            } else {
                text.to_owned()
            }
        };
        [
            record.started_at.clone(),
            record.status.to_string(),
            or_dash(&record.flag),
            format!("{:.1}", record.duration_ms),
            or_dash(&record.route),
            format!("{} {}", record.method, shortened(&record.target)),
            record.request_id.clone(),
        ]
    }));
    crate::cli::output::aligned(&rows)
}

/// Long targets would push everything else off the screen.
fn shortened(target: &str) -> String {
    const LONGEST: usize = 40;
    if target.chars().count() <= LONGEST {
        return target.to_owned();
    }
    let short: String = target.chars().take(LONGEST - 1).collect();
    short + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_all_in_the_order_in_which_it_happened() {
        let record = Record {
            request_id: "7".to_owned(),
            started_at: "2026-01-02T03:04:05.678Z".to_owned(),
            duration_ms: 12.3456,
            backend_ms: 12.0,
            revision: 3,
            listener: "web".to_owned(),
            client: "10.0.0.9:1234".to_owned(),
            method: "GET".to_owned(),
            host: "shop".to_owned(),
            target: "/orders/7".to_owned(),
            protocol: "HTTP/1.1".to_owned(),
            route: "orders".to_owned(),
            notes: vec!["not tried again: it may have run".to_owned()],
            upstream: "orders".to_owned(),
            attempts: vec![Try {
                endpoint: "127.0.0.1:1".to_owned(),
                duration_ms: 12.0,
                status: None,
                flag: "UC".to_owned(),
            }],
            status: 502,
            flag: "UC".to_owned(),
            meaning: "it closed".to_owned(),
            detail: "reset by 127.0.0.1:1".to_owned(),
            ..Record::default()
        };
        let page = page(&record, Style::Plain);
        let expected = "\
request     GET shop/orders/7 (HTTP/1.1)
id          7
came        2026-01-02T03:04:05.678Z from 10.0.0.9:1234 through web
route       orders (configuration 3)
note        not tried again: it may have run
upstream    orders
attempt 1   127.0.0.1:1 UC after 12.0 ms
time        12.3 ms, of which 12.0 ms to the backend's answer and 0.3 ms for all else
answer      502 UC
because     it closed
            reset by 127.0.0.1:1
";
        assert_eq!(page, expected);
    }

    #[test]
    fn ids_are_encoded() {
        assert_eq!(encoded("a-1&b=ü"), "a-1%26b%3D%C3%BC");
    }
}
