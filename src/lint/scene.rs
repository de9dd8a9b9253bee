//! A configuration together with the places of what is written in it, as rules look at it.

use std::collections::HashMap;
use std::time::Duration;

use http::Method;

use crate::base::problem::Span;
use crate::config::{Backend, Config, Listener, Place, Route, Target, Upstream};
use crate::routing::Match;
use crate::routing::matcher::Content;
use crate::upstream;

/// What rules look at.
pub(super) struct Scene<'c> {
    pub(super) config: &'c Config,
    routes: HashMap<&'c str, Place<'c>>,
    listeners: HashMap<&'c str, Place<'c>>,
    upstreams: HashMap<&'c str, Place<'c>>,
}

/// An item as it is written; what is not written stands where its name does.
#[derive(Clone, Copy)]
pub(super) struct Item<'c> {
    place: Option<Place<'c>>,
    name: Span,
}

/// One way out of a route that takes requests: an upstream, and where the route names it.
#[derive(Clone, Copy)]
pub(super) struct Exit<'c> {
    pub(super) name: &'c str,
    pub(super) upstream: &'c Upstream,
    pub(super) backend: &'c Backend,
    pub(super) span: Span,
}

impl<'c> Scene<'c> {
    pub(super) fn new(config: &'c Config) -> Self {
        let listed = |section: &'static str| {
            let items = config.places.section(section).flat_map(Place::items);
            items
                .filter_map(|item| Some((item.get("name")?.text()?, item)))
                .collect()
        };
        let named = |section: &'static str| {
            let items = config.places.section(section).flat_map(Place::entries);
            items.collect()
        };
        Self {
            config,
            routes: listed("routes"),
            listeners: listed("listeners"),
            upstreams: named("upstreams"),
        }
    }

    pub(super) fn route(&self, route: &'c Route) -> Item<'c> {
        Item {
            place: self.routes.get(&*route.name).copied(),
            name: route.span,
        }
    }

    pub(super) fn listener(&self, listener: &'c Listener) -> Item<'c> {
        Item {
            place: self.listeners.get(&*listener.name).copied(),
            name: listener.span,
        }
    }

    pub(super) fn upstream(&self, name: &str, upstream: &'c Upstream) -> Item<'c> {
        Item {
            place: self.upstreams.get(name).copied(),
            name: upstream.span,
        }
    }

    /// A section of one map.
    pub(super) fn section(&self, key: &'c str) -> Option<Place<'c>> {
        self.config.places.section(key).next()
    }

    /// The upstreams that a route sends to, each once.
    pub(super) fn exits(&self, route: &'c Route) -> Vec<Exit<'c>> {
        let item = self.route(route);
        let mut exits: Vec<Exit<'c>> = Vec::new();
        for (number, backend) in route.backends.iter().enumerate() {
            let Target::Upstream(name) = &backend.target else {
                continue;
            };
            let Some(upstream) = self.config.upstreams.get(name) else {
                continue;
            };
            if backend.weight == 0 || exits.iter().any(|exit| *exit.name == **name) {
                continue;
            }
            let span = match item.nth("backends", number) {
                Some(written) => written.get("upstream").unwrap_or(written).span(),
                None => item.span(&["upstream"]),
            };
            exits.push(Exit {
                name,
                upstream,
                backend,
                span,
            });
        }
        exits
    }
}

impl<'c> Item<'c> {
    /// The value at a path of keys, if it is written.
    pub(super) fn at(self, path: &[&str]) -> Option<Place<'c>> {
        self.place?.at(path)
    }

    /// Its place; that of the nearest around it that is written, where it is not.
    pub(super) fn span(self, path: &[&str]) -> Span {
        let mut found = self.name;
        let mut place = self.place;
        for key in path {
            place = place.and_then(|place| place.get(key));
            found = place.map_or(found, Place::span);
        }
        found
    }

    /// Where its name is written.
    pub(super) fn name(self) -> Span {
        self.name
    }

    /// An item of a list at a key.
    pub(super) fn nth(self, key: &str, number: usize) -> Option<Place<'c>> {
        self.at(&[key])?.items().nth(number)
    }
}

/// Methods that may be repeated by what they mean (RFC 9110, 9.2.2), as retries know them.
const REPEATABLE: [Method; 6] = [
    Method::GET,
    Method::HEAD,
    Method::OPTIONS,
    Method::TRACE,
    Method::PUT,
    Method::DELETE,
];

/// True if no request that the route takes may be repeated by its method.
pub(super) fn is_once_only(route: &Route) -> bool {
    let once = |of: &Match| {
        of.methods.are_named() && !REPEATABLE.iter().any(|method| of.methods.contain(method))
    };
    route.matches.iter().all(|of| once(&of.value))
}

/// True if the route takes nothing but calls of gRPC.
pub(super) fn is_grpc_only(route: &Route) -> bool {
    let mut matches = route.matches.iter();
    matches.all(|of| of.value.content == Content::Grpc)
}

/// How many endpoints an upstream has that may take requests; none where that is found out elsewhere.
pub(super) fn endpoints(settings: &upstream::Settings) -> Option<usize> {
    let mut known = Vec::new();
    for endpoint in settings.endpoints.as_ref()? {
        match &endpoint.address {
            upstream::Target::Address(address) => known.push((address, endpoint.weight)),
            // A name may have any number of addresses.
            upstream::Target::Name { .. } => return None,
        }
    }
    known.retain(|(_, weight)| *weight > 0);
    known.sort_unstable();
    known.dedup_by_key(|(address, _)| *address);
    Some(known.len())
}

/// A time as people write it.
pub(super) fn text(time: Duration) -> String {
    humantime::format_duration(time)
        .to_string()
        .replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::testing::read;

    #[test]
    fn a_place_that_is_not_written_is_that_of_what_is_around() {
        let yaml = "listeners:\n  - {name: public, address: \"127.0.0.1:1\"}\nroutes:\n  \
                    - {name: a, match: {path: /a}, timeouts: {request: 5s}, upstream: u}\n\
                    upstreams: {u: {endpoints: []}}\n";
        let config = read(yaml);
        let scene = Scene::new(&config);
        let route = config.routes.first().expect("a route");
        let at = |path: &[&str]| {
            let span = scene.route(route).span(path);
            yaml.get(span.range()).expect("within the text").to_owned()
        };
        assert_eq!(at(&["timeouts", "request"]), "5s");
        assert_eq!(at(&["timeouts", "attempt"]), "{request: 5s}");
        assert_eq!(at(&["retry", "attempts"]), "a");
        let exits = scene.exits(route);
        assert_eq!(exits.len(), 1);
        assert!(
            exits
                .iter()
                .all(|exit| yaml.get(exit.span.range()) == Some("u"))
        );
    }

    #[test]
    fn times_are_written_in_one_word() {
        assert_eq!(text(Duration::from_millis(1_500)), "1s500ms");
        assert_eq!(text(Duration::from_secs(90)), "1m30s");
    }
}
