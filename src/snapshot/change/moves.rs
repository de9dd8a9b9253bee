//! Requests that go to another route than before.
//!
//! From each match of both configurations follows an example of a request that it is made for; both
//! tables are asked who takes it, by the code that serves requests. So what is said here is true of the
//! requests shown; that no other request moves is not said.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::base::message::RequestHead;
use crate::config::{Config, Route};
use crate::routing::{Found, Table, example};
use crate::snapshot::tables;

/// Requests that another route takes than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The listeners on which they do.
    pub listeners: Vec<Arc<str>>,
    /// Who took them.
    pub from: Taker,
    /// Who takes them now.
    pub to: Taker,
    /// Some of them, at most three, each as one line.
    pub examples: Vec<String>,
}

/// Who takes a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Taker {
    /// A route.
    Route(Arc<str>),
    /// Nobody takes its method: 405.
    NoMethod,
    /// Nobody: 404.
    Nobody,
}

/// Everything that is known about requests that move.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moves {
    /// By who took them and who takes them.
    pub moves: Vec<Move>,
    /// Routes that are in both, took requests, and take none any more: another stands before each of
    /// their matches.
    pub starved: Vec<Arc<str>>,
}

/// How many examples a move shows.
const SHOWN: usize = 3;

impl Moves {
    /// Requests that go elsewhere under `new`.
    pub fn between(old: &Config, new: &Config) -> Self {
        let (Ok(before), Ok(after)) = (tables::of(old), tables::of(new)) else {
            // Whoever builds the tables for use says why they cannot be built.
            return Self::default();
        };
        let mut groups: Vec<Group<'_>> = Vec::new();
        for (listener, after) in new.listeners.iter().zip(&after) {
            let mut known = old.listeners.iter().zip(&before);
            let Some((_, before)) = known.find(|(known, _)| known.name == listener.name) else {
                continue;
            };
            let same = |group: &&mut Group<'_>| {
                Arc::ptr_eq(group.before, before) && Arc::ptr_eq(group.after, after)
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.listeners.push(Arc::clone(&listener.name)),
                None => groups.push(Group {
                    listeners: vec![Arc::clone(&listener.name)],
                    before,
                    after,
                }),
            }
        }
        let examples = examples(old, new);
        let moves = groups
            .iter()
            .flat_map(|group| group.moves(&examples, old, new));
        Self {
            moves: moves.collect(),
            starved: starved(old, new),
        }
    }
}

/// Listeners with the same tables.
struct Group<'a> {
    listeners: Vec<Arc<str>>,
    before: &'a Arc<Table>,
    after: &'a Arc<Table>,
}

impl Group<'_> {
    fn moves(&self, examples: &[RequestHead], old: &Config, new: &Config) -> Vec<Move> {
        let known = names(old);
        let mut places: HashMap<(Taker, Taker), usize> = HashMap::new();
        let mut moves: Vec<Move> = Vec::new();
        for head in examples {
            let from = taker(self.before, head, old);
            let to = taker(self.after, head, new);
            if from == to || is_plain(&from, &to, &known) {
                continue;
            }
            let at = *places.entry((from.clone(), to.clone())).or_insert_with(|| {
                moves.push(Move {
                    listeners: self.listeners.clone(),
                    from,
                    to,
                    examples: Vec::new(),
                });
                moves.len() - 1
            });
            if let Some(found) = moves.get_mut(at).filter(|of| of.examples.len() < SHOWN) {
                let line = example::line(head);
                if !found.examples.contains(&line) {
                    found.examples.push(line);
                }
            }
        }
        moves
    }
}

/// True for what goes without saying: a route that is new takes what nobody took.
fn is_plain(from: &Taker, to: &Taker, known: &HashSet<&str>) -> bool {
    matches!((from, to), (Taker::Nobody, Taker::Route(name)) if !known.contains(&**name))
}

fn names(config: &Config) -> HashSet<&str> {
    config.routes.iter().map(|route| &*route.name).collect()
}

fn taker(table: &Table, head: &RequestHead, config: &Config) -> Taker {
    match table.find(head) {
        Found::Route { route, .. } => {
            let route = config.routes.get(route as usize);
            route.map_or(Taker::Nobody, |route| Taker::Route(Arc::clone(&route.name)))
        }
        Found::MethodNotAllowed { .. } => Taker::NoMethod,
        Found::None => Taker::Nobody,
    }
}

/// One request or a few for each match, those of the new configuration first.
fn examples(old: &Config, new: &Config) -> Vec<RequestHead> {
    let routes = new.routes.iter().chain(&old.routes);
    let matches = routes.flat_map(|route: &Route| &route.matches);
    matches
        .flat_map(|written| example::requests(&written.value))
        .collect()
}

/// Routes of both all of whose matches are shadowed now, and were not before.
fn starved(old: &Config, new: &Config) -> Vec<Arc<str>> {
    let known = names(old);
    let was: HashSet<Arc<str>> = shadowed(old).into_iter().collect();
    shadowed(new)
        .into_iter()
        .filter(|name| known.contains(&**name) && !was.contains(name))
        .collect()
}

/// Routes that never get a request, on any of their listeners.
fn shadowed(config: &Config) -> Vec<Arc<str>> {
    let Ok(tables) = tables::of(config) else {
        return Vec::new();
    };
    let mut distinct: Vec<&Arc<Table>> = Vec::new();
    for table in &tables {
        if !distinct.iter().any(|known| Arc::ptr_eq(known, table)) {
            distinct.push(table);
        }
    }
    // For each route: in how many tables it is, and in how many all of its matches are shadowed.
    let mut counts = vec![(0_usize, 0_usize); config.routes.len()];
    for table in distinct {
        let mut lost: HashMap<u32, usize> = HashMap::new();
        for shadow in table.shadowed() {
            // A route that stands in its own way takes the request all the same.
            if shadow.by.0 != shadow.route {
                *lost.entry(shadow.route).or_default() += 1;
            }
        }
        let is_at = |route: &Route| {
            let mut places = route.listeners.iter();
            places.any(|place| tables.get(*place).is_some_and(|of| Arc::ptr_eq(of, table)))
        };
        for ((number, route), (all, none)) in (0..).zip(&config.routes).zip(&mut counts) {
            if is_at(route) {
                *all += 1;
                *none += usize::from(lost.get(&number) == Some(&route.matches.len()));
            }
        }
    }
    let routes = config.routes.iter().zip(counts);
    routes
        .filter(|(_, (all, none))| *all > 0 && all == none)
        .map(|(route, _)| Arc::clone(&route.name))
        .collect()
}
