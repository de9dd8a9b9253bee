//! What a table says about itself: all its matches, and those that a request came near.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use crate::base::message::RequestHead;
use crate::routing::host::HostPattern;
use crate::routing::matcher::{Content, Match, PathMatch};
use crate::routing::table::{Compiled, Lost, Table};

/// One match in the order of precedence, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The number of its route.
    pub route: u32,
    /// Its number among the matches of its route.
    pub match_index: u32,
    /// The host, or `*`. A match of several hosts has a row for each.
    pub host: String,
    /// How the path is matched.
    pub kind: Kind,
    /// The path.
    pub path: String,
    /// The methods, or `*`.
    pub methods: String,
    /// The other conditions, each as a phrase.
    pub conditions: Vec<String>,
}

/// How a path is matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Exactly.
    Literal,
    /// By a template.
    Template,
    /// It and all below it.
    Prefix,
    /// By a regular expression.
    Regex,
    /// Not at all.
    Any,
}

/// A match whose host and path fit a request, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The match.
    #[serde(flatten)]
    pub row: Row,
    /// The first condition that did not hold; none for the winner, and for those after it that
    /// would have won in its absence.
    pub lost_on: Option<String>,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Literal => "literal",
            Self::Template => "template",
            Self::Prefix => "prefix",
            Self::Regex => "regex",
            Self::Any => "any",
        })
    }
}

impl Table {
    /// The matches whose host and path fit a request, in order of precedence, with what they lost
    /// on. Found on the way that [`Table::find`] takes.
    pub fn candidates(&self, head: &RequestHead) -> Vec<Candidate> {
        let asked = self.ask(head);
        let mut candidates = Vec::new();
        let _end: Option<()> = self.walk(&asked, |bucket, entry| {
            let compiled = self.matches.get(entry.rank as usize)?;
            let lost = self.lost(entry, &asked);
            candidates.push(Candidate {
                row: self.row(bucket, compiled),
                lost_on: lost.as_ref().map(Lost::to_string),
            });
            None
        });
        candidates
    }

    /// All matches in order of precedence: by host, then by path, then by the rest.
    pub fn rows(&self) -> Vec<Row> {
        let mut places = self.places();
        places.sort_by_key(|(bucket, rank, compiled)| {
            let host = self.buckets.get(*bucket).and_then(|b| b.host.as_ref());
            let host = match host {
                Some(HostPattern::Exact(_)) => (0, Reverse(0)),
                Some(HostPattern::Wildcard(suffix)) => (1, Reverse(suffix.len())),
                None => (2, Reverse(0)),
            };
            let path = &compiled.what.path;
            let path = (path.class(), Reverse(path.weight()));
            (host, *bucket, path, *rank)
        });
        let rows = places.into_iter();
        rows.map(|(bucket, _, compiled)| self.row(bucket, compiled))
            .collect()
    }

    /// Every match in every bucket that it is in, with its rank; by rank.
    pub(super) fn places(&self) -> Vec<(usize, u32, &Compiled)> {
        let buckets = self.buckets.iter().enumerate();
        let numbers: HashMap<Option<&HostPattern>, usize> = buckets
            .map(|(number, bucket)| (bucket.host.as_ref(), number))
            .collect();
        let mut places = Vec::new();
        for (rank, compiled) in (0..).zip(&self.matches) {
            let hosts = compiled.hosts();
            let mut buckets: Vec<usize> = hosts
                .filter_map(|host| numbers.get(&host).copied())
                .collect();
            buckets.sort_unstable();
            buckets.dedup();
            places.extend(buckets.into_iter().map(|bucket| (bucket, rank, compiled)));
        }
        places
    }

    fn row(&self, bucket: usize, compiled: &Compiled) -> Row {
        let host = self.buckets.get(bucket).and_then(|b| b.host.as_ref());
        let what = &compiled.what;
        Row {
            route: compiled.route,
            match_index: compiled.index,
            host: host.map_or_else(|| "*".to_owned(), ToString::to_string),
            kind: match what.path {
                PathMatch::Any => Kind::Any,
                PathMatch::Literal(_) => Kind::Literal,
                PathMatch::Template(_) => Kind::Template,
                PathMatch::Prefix(_) => Kind::Prefix,
                PathMatch::Regex(_) => Kind::Regex,
            },
            path: what.path.to_string(),
            methods: what.methods.to_string(),
            conditions: conditions(what),
        }
    }
}

fn conditions(what: &Match) -> Vec<String> {
    let headers = what.headers.0.iter();
    let headers = headers.map(|(name, value)| format!("header `{}` {value}", name.0));
    let query = what.query.0.iter();
    let query = query.map(|(name, value)| format!("query `{name}` {value}"));
    let cookies = what.cookies.0.iter();
    let cookies = cookies.map(|(name, value)| format!("cookie `{name}` {value}"));
    let grpc = match what.content {
        Content::Grpc => Some("content type is application/grpc".to_owned()),
        Content::Any => None,
    };
    headers.chain(query).chain(cookies).chain(grpc).collect()
}
