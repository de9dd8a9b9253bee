//! The routing tables of a configuration, and what can be said of them without running anything.

use std::sync::Arc;

use crate::base::code::Code;
use crate::base::problem::{Problem, Span};
use crate::config::{Config, Route};
use crate::routing::{BuildError, Row, Shadow, Table};

/// The routes of one or more listeners, in their order of precedence.
#[derive(Debug)]
pub struct Listing {
    /// The listeners that serve them.
    pub listeners: Vec<Arc<str>>,
    /// A row for each match.
    pub rows: Vec<(Arc<str>, Row)>,
}

/// One table for each listener; listeners with the same routes share one.
///
/// # Errors
/// A regex that passed when it was read, and is too big together with its like.
pub(super) fn of(config: &Config) -> Result<Vec<Arc<Table>>, Problem> {
    let mut known: Vec<(Vec<usize>, Arc<Table>)> = Vec::new();
    let places = 0..config.listeners.len();
    places
        .map(|listener| {
            let routes: Vec<usize> = serving(config, listener).collect();
            if let Some((_, table)) = known.iter().find(|(of, _)| *of == routes) {
                return Ok(Arc::clone(table));
            }
            let table = Arc::new(table(config, &routes)?);
            known.push((routes, Arc::clone(&table)));
            Ok(table)
        })
        .collect()
}

/// The places of the routes that a listener serves.
fn serving(config: &Config, listener: usize) -> impl Iterator<Item = usize> {
    let routes = config.routes.iter().enumerate();
    routes
        .filter(move |(_, route)| route.listeners.contains(&listener))
        .map(|(place, _)| place)
}

fn table(config: &Config, routes: &[usize]) -> Result<Table, Problem> {
    let entries = routes.iter().filter_map(|&place| {
        let matches = &config.routes.get(place)?.matches;
        let matches = matches.iter().map(|found| &found.value);
        Some((u32::try_from(place).ok()?, matches))
    });
    Table::build(entries).map_err(|error| {
        let place = match error {
            BuildError::Regex {
                route, match_index, ..
            } => span_of(config, route, match_index),
            BuildError::TooMany => None,
        };
        Problem::error(place, error.to_string())
    })
}

fn span_of(config: &Config, route: u32, match_index: u32) -> Option<Span> {
    let route = route_at(config, route)?;
    Some(route.matches.get(match_index as usize)?.span)
}

/// The distinct tables, with the listeners that use them.
fn distinct(config: &Config) -> Vec<(Vec<Arc<str>>, Arc<Table>)> {
    let mut distinct: Vec<(Vec<Arc<str>>, Arc<Table>)> = Vec::new();
    // Whoever builds the tables for use says why they cannot be built.
    let tables = of(config).unwrap_or_default();
    for (listener, table) in config.listeners.iter().zip(tables) {
        let name = Arc::clone(&listener.name);
        match distinct
            .iter_mut()
            .find(|(_, known)| Arc::ptr_eq(known, &table))
        {
            Some((names, _)) => names.push(name),
            None => distinct.push((vec![name], table)),
        }
    }
    distinct
}

/// The routes in their order of precedence, a listing for each distinct set of listeners.
pub fn listings(config: &Config) -> Vec<Listing> {
    let name = |route: u32| route_at(config, route).map(|route| Arc::clone(&route.name));
    distinct(config)
        .into_iter()
        .map(|(listeners, table)| Listing {
            listeners,
            rows: table
                .rows()
                .into_iter()
                .filter_map(|row| Some((name(row.route)?, row)))
                .collect(),
        })
        .collect()
}

/// Warnings about matches that can never win, each with the one that always wins before it.
pub fn shadowed(config: &Config) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for (_, table) in distinct(config) {
        for shadow in table.shadowed() {
            let warning = shadow_warning(config, &shadow);
            // The same pair shows up once for each set of listeners.
            if let Some(warning) = warning.filter(|warning| !warnings.contains(warning)) {
                warnings.push(warning);
            }
        }
    }
    warnings
}

fn shadow_warning(config: &Config, shadow: &Shadow) -> Option<Problem> {
    let loser = route_at(config, shadow.route)?;
    let winner = route_at(config, shadow.by.0)?;
    let place = span_of(config, shadow.route, shadow.match_index)?;
    let by = span_of(config, shadow.by.0, shadow.by.1)?;
    let message = format!(
        "route `{}` never gets a request by this match: route `{}` takes them all",
        loser.name, winner.name
    );
    Some(
        Problem::warning(place, message)
            .code(Code::SHADOWED_MATCH)
            .related(by, "this match wins")
            .help("remove one of them, or add a condition that tells them apart"),
    )
}

fn route_at(config: &Config, route: u32) -> Option<&Route> {
    config.routes.get(route as usize)
}
