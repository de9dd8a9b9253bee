//! Items → [`Config`]: names resolved, defaults applied, every contradiction reported.
//!
//! Pure but for secrets, which are read with the settings that hold them.

mod backend;
mod chain;
mod keys;
mod listener;
mod names;
mod retry;
mod route;
mod test;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use self::chain::Chains;
use self::names::Names;
use super::de::{Held, Reading, Within};
use super::places::Places;
use super::raw::{self, ItemName};
use super::sections::{Listed, Named, Sections};
use super::tree::Node;
use super::types::{Admin, Config, Handler, Runtime, Telemetry, Upstream};
use crate::base::code::Code;
use crate::base::problem::Problem;
use crate::{handler, upstream};

/// How much of the configuration is there to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Whole,
    /// Some values are wrong: whether something is used cannot be told.
    Flawed,
    /// Some files could not be read: any name may stand there, so none is called unknown.
    Torn,
}

/// The checked configuration; none where an item could not be read. What is wrong is in `reading`.
pub(super) fn check(
    sections: &Sections<'_>,
    reading: &Reading<'_>,
    extent: Extent,
) -> Option<Config> {
    let before = reading.problems.borrow().len();
    let mut house = House::new(sections, reading, extent);
    let runtime = one::<raw::Runtime>(sections.runtime, reading, "runtime", "`runtime`");
    let admin = one::<raw::Admin>(sections.admin, reading, "admin", "`admin`");
    let telemetry = one::<raw::Telemetry>(sections.telemetry, reading, "telemetry", "`telemetry`");
    let listeners =
        listed::<raw::Listener>(&sections.listeners, reading, "listeners", "a listener");
    let routes = listed::<raw::Route>(&sections.routes, reading, "routes", "a route");
    let tests = listed::<raw::test::Test>(&sections.tests, reading, "tests", "a test");
    let upstreams = house.upstreams(sections);
    house.read_handlers(sections);
    house.chains.resolve_all();

    let mut places = listener::Places::default();
    let admin = settle_admin(admin, &mut places);
    let telemetry = settle_telemetry(telemetry, &mut places, reading);
    let listeners = listeners.into_iter().flatten();
    let listeners: Vec<_> = listeners
        .map(|item| listener::settle(item, &mut house, &mut places))
        .collect();
    let routes: Vec<_> = routes
        .into_iter()
        .flatten()
        .filter_map(|item| route::settle(item, &mut house))
        .collect();
    keys::check(&routes, &upstreams, reading);

    // Only where all was understood is it known what is used.
    let is_clean = extent == Extent::Whole && !reading.has_errors_since(before);
    if is_clean {
        house.report_unused(&routes);
    }
    let route_names = sections.routes.iter().filter_map(|item| item.name());
    let route_names = Names::new("route", route_names, extent);
    let items = (&*listeners, &*routes);
    let scene = test::Scene::new(&house, route_names, items, &upstreams, is_clean);
    let tests = tests.into_iter().flatten();
    let tests: Vec<_> = tests
        .filter_map(|item| test::settle(item, &scene))
        .collect();
    Some(Config {
        runtime: settle_runtime(runtime?),
        admin,
        telemetry,
        listeners,
        routes,
        handlers: std::mem::take(&mut house.handlers)
            .into_iter()
            .filter_map(|(name, handler)| Some((Arc::from(name), handler?)))
            .collect(),
        upstreams,
        tests,
        places: Places::default(),
    })
}

/// What is looked up while items are checked against each other.
struct House<'a> {
    reading: &'a Reading<'a>,
    listener_names: Names<'a>,
    handler_names: Names<'a>,
    upstream_names: Names<'a>,
    chains: Chains<'a>,
    /// Handlers with a name; none for one that could not be read.
    handlers: BTreeMap<&'a str, Option<Arc<Handler>>>,
    /// The numbers of listeners by name.
    numbers: HashMap<&'a str, usize>,
    /// The numbers of all listeners.
    everywhere: Arc<[usize]>,
}

impl<'a> House<'a> {
    fn new(sections: &'a Sections<'a>, reading: &'a Reading<'a>, extent: Extent) -> Self {
        let listeners = sections.listeners.iter().filter_map(|item| item.name());
        let numbers = listeners
            .clone()
            .enumerate()
            .map(|(number, (name, _))| (name, number));
        let named = |items: &'a [Named<'a>]| items.iter().map(|item| (item.name, item.span));
        Self {
            reading,
            numbers: numbers.collect(),
            everywhere: (0..sections.listeners.len()).collect(),
            listener_names: Names::new("listener", listeners, extent),
            handler_names: Names::new("handler", named(&sections.handlers), extent),
            upstream_names: Names::new("upstream", named(&sections.upstreams), extent),
            chains: Chains::new(&sections.middlewares, reading, extent),
            handlers: BTreeMap::new(),
        }
    }

    fn report(&self, problem: Problem) {
        self.reading.report(problem);
    }

    fn upstreams(&self, sections: &Sections<'_>) -> BTreeMap<Arc<str>, Upstream> {
        let mut upstreams = BTreeMap::new();
        for item in &sections.upstreams {
            let within = Within::Item {
                section: "upstreams",
                noun: "an upstream",
            };
            if let Some(held) = named::<upstream::Settings>(item, self.reading, within) {
                let Held {
                    value: settings,
                    fingerprint,
                    ..
                } = held;
                if let Some(what) = settings.contradiction() {
                    let message = format!("the upstream `{}` {what}", item.name);
                    self.report(Problem::error(item.span, message));
                }
                upstreams.insert(
                    Arc::from(item.name),
                    Upstream {
                        settings,
                        span: item.span,
                        fingerprint,
                    },
                );
            }
        }
        upstreams
    }

    fn read_handlers(&mut self, sections: &Sections<'a>) {
        for item in &sections.handlers {
            let within = Within::Item {
                section: "handlers",
                noun: "a handler",
            };
            let held = named::<handler::Settings>(item, self.reading, within);
            let handler = held.map(|held| {
                let name: Arc<str> = Arc::from(item.name);
                self.handler(held, Arc::clone(&name), name)
            });
            self.handlers.insert(item.name, handler);
        }
    }

    /// A handler whose upstreams exist, or were reported.
    fn handler(
        &self,
        held: Held<handler::Settings>,
        id: Arc<str>,
        label: Arc<str>,
    ) -> Arc<Handler> {
        if held.value.may_call_any() {
            self.upstream_names.use_all();
        }
        for name in held.value.upstreams() {
            self.upstream_names.find(name, self.reading);
        }
        let fingerprint = held.fingerprint;
        Arc::new(Handler {
            id,
            label,
            settings: held.spanned(),
            fingerprint,
        })
    }

    fn report_unused(&self, routes: &[super::types::Route]) {
        self.upstream_names.report_unused(self.reading);
        self.handler_names.report_unused(self.reading);
        self.chains.report_unused();
        let mut reached = vec![false; self.everywhere.len()];
        for number in routes.iter().flat_map(|route| route.listeners.iter()) {
            if let Some(reached) = reached.get_mut(*number) {
                *reached = true;
            }
        }
        if self.everywhere.is_empty() && !routes.is_empty() {
            let message = "there are no listeners: no client can connect";
            self.report(Problem::warning(None, message).code(Code::NO_LISTENERS));
        }
        for (name, span) in self.listener_names.iter() {
            let number = self.numbers.get(name).copied();
            if number.and_then(|number| reached.get(number)) == Some(&false) {
                let message = format!(
                    "no route is for the listener `{name}`: it answers 404 to every request"
                );
                self.report(
                    Problem::warning(span, message)
                        .code(Code::LISTENER_WITHOUT_ROUTES)
                        .help("name it in the `listeners` of a route, or remove it"),
                );
            }
        }
    }
}

/// A section of one map; its defaults where it is not written. None if it could not be read.
fn one<'n, T: DeserializeOwned + Default>(
    node: Option<&'n Node>,
    reading: &'n Reading<'n>,
    section: &'n str,
    noun: &'n str,
) -> Option<T> {
    match node {
        None => Some(T::default()),
        Some(node) => reading
            .read(node, Within::Item { section, noun })
            .map(|held| held.value),
    }
}

/// The items of a list, in their order; none for one that could not be read.
fn listed<'n, T: DeserializeOwned>(
    items: &[Listed<'n>],
    reading: &'n Reading<'n>,
    section: &'n str,
    noun: &'n str,
) -> Vec<Option<Held<T>>> {
    let read = |item: &Listed<'n>| reading.read(item.node, Within::Item { section, noun });
    items.iter().map(read).collect()
}

/// An entry of a map, if its name and its value can be read.
fn named<'n, T: DeserializeOwned>(
    item: &Named<'n>,
    reading: &'n Reading<'n>,
    within: Within<'n>,
) -> Option<Held<T>> {
    if let Err(message) = ItemName::check(item.name) {
        reading.report(Problem::error(item.span, message));
    }
    reading.read(item.node, within)
}

fn settle_runtime(runtime: raw::Runtime) -> Runtime {
    Runtime {
        workers: runtime.workers,
        drain: runtime.drain.0,
        state_dir: runtime.state_dir,
        shedding: runtime.shedding,
        zone: runtime.zone,
    }
}

fn settle_admin(admin: Option<raw::Admin>, places: &mut listener::Places) -> Admin {
    let address = admin.and_then(|admin| admin.address);
    Admin {
        address: places.own("admin", address, ([127, 0, 0, 1], 15_000)),
    }
}

fn settle_telemetry(
    telemetry: Option<raw::Telemetry>,
    places: &mut listener::Places,
    reading: &Reading<'_>,
) -> Telemetry {
    let raw::Telemetry {
        address,
        access_log,
        metrics,
        decisions,
    } = telemetry.unwrap_or_default();
    if let Some(problem) = places.conflict(address.as_ref()) {
        reading.report(problem);
    }
    Telemetry {
        address: places.own("telemetry", address, ([0, 0, 0, 0], 15_020)),
        access_log,
        metrics,
        decisions,
    }
}

/// One number for several.
fn combine(fingerprints: impl Iterator<Item = u64>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for fingerprint in fingerprints {
        fingerprint.hash(&mut hasher);
    }
    hasher.finish()
}
