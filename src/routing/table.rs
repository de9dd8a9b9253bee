//! All routes of a listener, compiled: which one takes a request, and why not another.
//!
//! The cost of a look-up does not grow with the number of routes, but for matches that differ in
//! nothing but conditions on headers, query or cookies: those are looked at one by one.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::fmt;

use foldhash::fast::RandomState;
use http::HeaderValue;

use crate::base::message::{Params, RequestHead};
use crate::routing::condition::{QueryValue, ValueMatch, query_value};
use crate::routing::host::HostPattern;
use crate::routing::hosts::Hosts;
use crate::routing::matcher::{Content, Match, PathMatch};
use crate::routing::method::{self, Bit, Methods};
use crate::routing::paths::{Bucket, Entry, Path, Rest, Star, depth};

/// The routes of a listener.
#[derive(Debug)]
pub struct Table {
    hosts: Hosts,
    /// The first is for the matches without a host.
    pub(super) buckets: Vec<Bucket>,
    /// By rank: in order of precedence, host and path aside.
    pub(super) matches: Vec<Compiled>,
    /// How many slashes of a path can matter.
    slashes: usize,
    hash: RandomState,
}

/// One match of a route.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) route: u32,
    /// Its number among the matches of its route.
    pub(super) index: u32,
    pub(super) what: Match,
}

/// The answer of a look-up.
#[derive(Debug)]
pub enum Found {
    /// A route takes the request.
    Route {
        /// The number that the route had when the table was built.
        route: u32,
        /// Which of its matches held.
        match_index: u32,
        /// What its path template took from the path.
        params: Params,
    },
    /// Some route would take it, if only its method were another: 405.
    MethodNotAllowed {
        /// The value of `Allow`.
        allow: HeaderValue,
    },
    /// No route takes it: 404.
    None,
}

/// Why a table cannot be built.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BuildError {
    /// More matches than can be numbered.
    #[error("there are more than 4294967295 matches")]
    TooMany,
    /// A regex that is too big, though it passed when it was read.
    #[error("the path_regex cannot be compiled: {why}")]
    Regex {
        /// The number of the route.
        route: u32,
        /// The number of the match in its route.
        match_index: u32,
        /// What the compiler says.
        why: String,
    },
}

/// A request as the conditions see it.
pub(super) struct Asked<'r> {
    head: &'r RequestHead,
    path: Path<'r>,
    method: Bit,
}

/// The first condition of a match that does not hold.
pub(super) enum Lost<'a> {
    Method(&'a Methods),
    Param { name: &'a str, value: &'a str },
    Header(&'a str, &'a ValueMatch),
    Query(&'a str, &'a ValueMatch),
    Cookie(&'a str, &'a ValueMatch),
    Content,
}

impl Table {
    /// Compiles routes, given with their numbers in the order of the file. A route without a match
    /// takes nothing; one that takes everything has [`Match::default`].
    ///
    /// # Errors
    /// When something cannot be compiled; what the settings let through always can.
    pub fn build<M: IntoIterator<Item: Borrow<Match>>>(
        routes: impl IntoIterator<Item = (u32, M)>,
    ) -> Result<Self, BuildError> {
        let hash = RandomState::default();
        let matches = rank(routes)?;
        let (hosts, lists) = by_host(&matches);
        let mut index = Hosts::default();
        let mut buckets = Vec::with_capacity(hosts.len());
        for (i, (host, list)) in hosts.into_iter().zip(&lists).enumerate() {
            if let Some(host) = &host {
                index.insert(host, i, &hash);
            }
            let bucket = Bucket::build(host, list, &hash);
            buckets.push(bucket.map_err(|(rank, why)| regex_error(&matches, rank, why))?);
        }
        Ok(Self {
            hosts: index,
            buckets,
            slashes: matches.iter().map(Compiled::slashes).max().unwrap_or(0),
            matches,
            hash,
        })
    }

    /// The route that takes a request; its path must be in normal form.
    pub fn find(&self, head: &RequestHead) -> Found {
        let asked = self.ask(head);
        let mut only_method = false;
        let won = self.walk(&asked, |_, entry| {
            if !self.takes_method(entry, &asked) {
                only_method = true;
                return None;
            }
            match self.look(entry, &asked) {
                None => Some(*entry),
                Some(_) => None,
            }
        });
        match won {
            Some(entry) => self.won(entry, &asked),
            None if only_method => self.refused(&asked),
            None => Found::None,
        }
    }

    fn won(&self, entry: Entry, asked: &Asked<'_>) -> Found {
        let mut params = Params::default();
        let mut match_index = 0;
        if let Some(compiled) = self.matches.get(entry.rank as usize) {
            match_index = compiled.index;
            if let PathMatch::Template(template) = &compiled.what.path {
                params = template.params(asked.path.segments());
            }
        }
        Found::Route {
            route: entry.route,
            match_index,
            params,
        }
    }

    /// What to answer when nothing but the method was in the way somewhere; a second walk, off the
    /// path of requests that have a route.
    #[cold]
    fn refused(&self, asked: &Asked<'_>) -> Found {
        let mut methods = BTreeSet::new();
        let _end: Option<()> = self.walk(asked, |_, entry| {
            if !self.takes_method(entry, asked)
                && self.look(entry, asked).is_none()
                && let Some(compiled) = self.matches.get(entry.rank as usize)
            {
                compiled.what.methods.add_to(&mut methods);
            }
            None
        });
        if methods.is_empty() {
            return Found::None;
        }
        Found::MethodNotAllowed {
            allow: method::allow(&methods),
        }
    }

    /// A request as the table sees it.
    pub(super) fn ask<'r>(&self, head: &'r RequestHead) -> Asked<'r> {
        Asked {
            head,
            path: Path::new(head.path(), self.slashes),
            method: Bit::of(head.method()),
        }
    }

    /// Calls `visit` with each entry whose host and path match, and the number of its bucket, in
    /// order of precedence, until it answers. The one way through the table, for all who ask.
    #[inline]
    pub(super) fn walk<T>(
        &self,
        asked: &Asked<'_>,
        mut visit: impl FnMut(usize, &Entry) -> Option<T>,
    ) -> Option<T> {
        let mut walk = |number: usize| {
            let bucket = self.buckets.get(number)?;
            bucket.walk(&asked.path, &self.hash, &mut |entry| visit(number, entry))
        };
        if !self.hosts.is_empty()
            && let Some(host) = asked.head.host()
            && let Some(answer) = self.hosts.walk(host, &self.hash, &mut walk)
        {
            return Some(answer);
        }
        walk(0)
    }

    /// The first condition that fails, the method's among them.
    pub(super) fn lost<'a>(&'a self, entry: &Entry, asked: &'a Asked<'_>) -> Option<Lost<'a>> {
        if !self.takes_method(entry, asked) {
            let compiled = self.matches.get(entry.rank as usize)?;
            return Some(Lost::Method(&compiled.what.methods));
        }
        self.look(entry, asked)
    }

    #[inline]
    fn takes_method(&self, entry: &Entry, asked: &Asked<'_>) -> bool {
        if entry.methods.has(asked.method) {
            return true;
        }
        // A method without a bit of its own, which a match may name all the same.
        !asked.method.is_exact() && {
            let compiled = self.matches.get(entry.rank as usize);
            compiled.is_some_and(|compiled| compiled.what.methods.contain(asked.head.method()))
        }
    }

    /// The first condition that fails, host, path and method aside.
    #[inline]
    fn look<'a>(&'a self, entry: &Entry, asked: &'a Asked<'_>) -> Option<Lost<'a>> {
        match entry.rest {
            Rest::Nothing => None,
            Rest::Conditions => self.matches.get(entry.rank as usize)?.fails(asked),
        }
    }
}

/// All matches in order of precedence, host and path aside.
fn rank<M: IntoIterator<Item: Borrow<Match>>>(
    routes: impl IntoIterator<Item = (u32, M)>,
) -> Result<Vec<Compiled>, BuildError> {
    let mut all: Vec<Compiled> = Vec::new();
    for (route, matches) in routes {
        all.extend((0..).zip(matches).map(|(index, what)| Compiled {
            route,
            index,
            what: what.borrow().clone(),
        }));
    }
    if u32::try_from(all.len()).is_err() {
        return Err(BuildError::TooMany);
    }
    // Stable: what ties stays in the order of the file.
    all.sort_by_key(|compiled| {
        (
            !compiled.what.methods.are_named(),
            Reverse(compiled.what.header_conditions()),
            Reverse(compiled.what.query.0.len()),
        )
    });
    Ok(all)
}

/// The matches of each host, in order of rank; first those without a host.
fn by_host(matches: &[Compiled]) -> (Vec<Option<HostPattern>>, Vec<PlacedMatches<'_>>) {
    let mut hosts = vec![None];
    let mut lists = vec![Vec::new()];
    let mut numbers: HashMap<&HostPattern, usize> = HashMap::new();
    for (rank, compiled) in (0..).zip(matches) {
        for host in compiled.hosts() {
            let number = host.map_or(0, |host| {
                *numbers.entry(host).or_insert_with(|| {
                    hosts.push(Some(host.clone()));
                    lists.push(Vec::new());
                    lists.len() - 1
                })
            });
            // A host that is named twice in one match counts once.
            if let Some(list) = lists.get_mut(number)
                && list
                    .last()
                    .is_none_or(|(last, _): &(Entry, _)| last.rank != rank)
            {
                list.push((compiled.entry(rank), &compiled.what.path));
            }
        }
    }
    (hosts, lists)
}

type PlacedMatches<'m> = Vec<(Entry, &'m PathMatch)>;

#[cold]
fn regex_error(matches: &[Compiled], rank: u32, why: String) -> BuildError {
    let at = matches.get(rank as usize);
    BuildError::Regex {
        route: at.map_or(0, |compiled| compiled.route),
        match_index: at.map_or(0, |compiled| compiled.index),
        why,
    }
}

impl Compiled {
    /// The hosts that it names, or none for every host.
    pub(super) fn hosts(&self) -> impl Iterator<Item = Option<&HostPattern>> {
        let every = self.what.hosts.is_empty().then_some(None);
        every.into_iter().chain(self.what.hosts.iter().map(Some))
    }

    fn entry(&self, rank: u32) -> Entry {
        Entry {
            rank,
            route: self.route,
            methods: self.what.methods.mask(),
            rest: if self.what.is_conditional() {
                Rest::Conditions
            } else {
                Rest::Nothing
            },
            star: match self.what.path {
                PathMatch::Any => Star::Yes,
                _ => Star::No,
            },
        }
    }

    /// How many slashes of a path must be known.
    fn slashes(&self) -> usize {
        match &self.what.path {
            PathMatch::Prefix(path) => depth(path) + 1,
            PathMatch::Template(template) => template.shape().count + 1,
            PathMatch::Any | PathMatch::Literal(_) | PathMatch::Regex(_) => 0,
        }
    }

    /// The first condition that fails, host, path and method aside.
    fn fails<'a>(&'a self, asked: &'a Asked<'_>) -> Option<Lost<'a>> {
        let head = asked.head;
        if let PathMatch::Template(template) = &self.what.path
            && let Some((name, value)) = template.refuses(asked.path.segments())
        {
            return Some(Lost::Param { name, value });
        }
        if self.what.content == Content::Grpc && !head.is_grpc() {
            return Some(Lost::Content);
        }
        for (name, condition) in &self.what.headers.0 {
            let value = head.headers.get(&name.0).map(HeaderValue::as_bytes);
            if !condition.holds(value) {
                return Some(Lost::Header(name.0.as_str(), condition));
            }
        }
        for (name, condition) in &self.what.query.0 {
            let value = head.query().and_then(|query| query_value(query, name));
            if !condition.holds(value.as_ref().map(QueryValue::bytes)) {
                return Some(Lost::Query(name, condition));
            }
        }
        for (name, condition) in &self.what.cookies.0 {
            if !condition.holds(head.cookie(name).map(str::as_bytes)) {
                return Some(Lost::Cookie(name, condition));
            }
        }
        None
    }
}

impl fmt::Display for Lost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(methods) => write!(f, "method is not one of {methods}"),
            Self::Param { name, value } => {
                write!(f, "path parameter `{name}` does not take {value:?}")
            }
            Self::Header(name, condition) => write!(f, "header `{name}` {condition}"),
            Self::Query(name, condition) => write!(f, "query `{name}` {condition}"),
            Self::Cookie(name, condition) => write!(f, "cookie `{name}` {condition}"),
            Self::Content => f.write_str("content type is not application/grpc"),
        }
    }
}
