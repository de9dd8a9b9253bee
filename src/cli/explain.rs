//! `retort explain`

use std::net::SocketAddr;
use std::process::ExitCode;

use serde_json::json;

use crate::cli::live::{Admin, Failed};
use crate::cli::output::{complain, print, style};
use crate::cli::{ConfigFile, INVALID, USAGE};
use crate::explain::asked::{Asked, client_of};
use crate::explain::{Explanation, render};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// The request: a URL, or a method and a URL
    #[arg(value_name = "[METHOD] URL")]
    request: Vec<String>,
    /// A header of the request; several are allowed
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The body of the request, which is a POST then
    #[arg(short = 'd', long, value_name = "TEXT")]
    data: Option<String>,
    /// The request as a command of curl, such as browsers copy it
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["request", "headers", "data"])]
    curl: Option<String>,
    /// The listener that it comes through; by default that of the URL's port, or else the first
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Where it comes from: an IP address, with or without a port
    #[arg(long, value_name = "ADDRESS", value_parser = client_of)]
    client: Option<SocketAddr>,
    /// Ask the running gateway, with its endpoints and rate limits as they stand now
    #[arg(long, value_name = "WHAT", value_parser = ["running"])]
    against: Option<String>,
    #[command(flatten)]
    admin: Admin,
    /// Show the values of headers that hold secrets
    #[arg(long)]
    show_secrets: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn explain(arguments: &Arguments) -> ExitCode {
    let asked = match asked(arguments) {
        Ok(asked) => asked,
        Err(why) => {
            complain(&format!("error: {why}"));
            return ExitCode::from(USAGE);
        }
    };
    let what = format!("{} {}", asked.method, asked.url);
    if arguments.against.is_some() {
        return match running(&arguments.admin, &asked) {
            Ok(explanation) => show(arguments, &what, explanation),
            Err(failed) => failed.tell(),
        };
    }
    let explained = match crate::app::explain(&arguments.config.source(), asked) {
        Ok(explained) => explained,
        Err(rejected) => {
            complain(&rejected.report);
            return ExitCode::from(INVALID);
        }
    };
    match explained {
        Ok(explanation) => show(arguments, &what, explanation),
        Err(why) => {
            complain(&format!("error: {why}"));
            ExitCode::from(USAGE)
        }
    }
}

/// What the running gateway says.
fn running(admin: &Admin, asked: &Asked) -> Result<Explanation, Failed> {
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
    };
    let headers: Vec<String> = asked.headers.iter().map(header).collect();
    let question = json!({
        "method": asked.method.as_str(),
        "url": asked.url.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&asked.body),
        "listener": asked.listener.as_deref().unwrap_or_default(),
        "client": asked.peer().to_string(),
        "http2": asked.version == http::Version::HTTP_2,
    });
    let document = admin.post("/v1/explain", &question)?;
    serde_json::from_value(document)
        .map_err(|error| Failed::Refused(format!("the gateway is of another version: {error}")))
}

fn show(arguments: &Arguments, what: &str, mut explanation: Explanation) -> ExitCode {
    if !arguments.show_secrets {
        explanation.mask();
    }
    if arguments.json {
        // Text, numbers and lists always become JSON.
        let json = serde_json::to_string_pretty(&explanation).unwrap_or_default();
        return print(&(json + "\n"));
    }
    print(&render(what, &explanation, style(&std::io::stdout())))
}

fn asked(arguments: &Arguments) -> Result<Asked, String> {
    let mut asked = match &arguments.curl {
        Some(command) => Asked::from_curl(command)?,
        None => Asked::from_arguments(
            &arguments.request,
            &arguments.headers,
            arguments.data.as_deref(),
        )?,
    };
    asked.listener.clone_from(&arguments.listener);
    asked.client = arguments.client;
    Ok(asked)
}
