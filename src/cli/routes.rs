//! `retort routes`

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::output::{aligned, complain, print};
use crate::cli::{ConfigFile, INVALID};
use crate::snapshot::Listing;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

pub(crate) fn routes(arguments: &Arguments) -> ExitCode {
    let listings = match crate::app::routes(&arguments.config.source()) {
        Ok(listings) => listings,
        Err(rejected) => {
            complain(&rejected.report);
            return ExitCode::from(INVALID);
        }
    };
    print(&match arguments.output {
        Output::Table => table(&listings),
        Output::Json => format!("{:#}\n", json(&listings)),
    })
}

fn json(listings: &[Listing]) -> Value {
    let listings = listings.iter().map(|listing| {
        let rows = listing.rows.iter();
        let rows: Vec<Value> = rows
            .map(|(name, row)| json!({"route": **name, "match": row}))
            .collect();
        json!({"listeners": listing.listeners, "rows": rows})
    });
    listings.collect()
}

const HEAD: [&str; 5] = ["ROUTE", "HOST", "PATH", "METHOD", "CONDITIONS"];

fn table(listings: &[Listing]) -> String {
    let mut text = String::new();
    for listing in listings {
        if listings.len() > 1 {
            let _infallible = writeln!(text, "listeners: {}", listing.listeners.join(", "));
        }
        text += &aligned(&cells(listing));
        text += "\n";
    }
    text.pop();
    text
}

fn cells(listing: &Listing) -> Vec<[String; 5]> {
    let rows = listing.rows.iter().map(|(name, row)| {
        [
            name.to_string(),
            row.host.clone(),
            row.path.clone(),
            row.methods.clone(),
            row.conditions.join(", "),
        ]
    });
    std::iter::once(HEAD.map(str::to_owned))
        .chain(rows)
        .collect()
}
