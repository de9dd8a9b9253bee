//! A difference as people read it: what comes with `+`, what goes with `-`, what changes with `~`.

use std::fmt::Write as _;

use crate::app::diff::{Diff, ItemChange, SettingChange, TakesEffect};
use crate::base::paint::Paint;
use crate::config::{Difference, KeyChange};
use crate::snapshot::change::{
    Because, CounterChange, CounterFate, Fate, ListenerChange, Memory, Move, Socket, Taker,
    UpstreamFate, listeners::Holder,
};

/// Longer values are cut: JSON has the whole.
const LONGEST: usize = 72;

pub(super) fn of(diff: &Diff, paint: Paint) -> String {
    let mut page = Page {
        diff,
        paint,
        text: String::new(),
    };
    if diff.is_empty() {
        page.text += "nothing differs: applying it changes nothing\n";
        return page.text;
    }
    page.clashes();
    page.section("listeners");
    page.section("routes");
    page.moves();
    page.section("upstreams");
    page.section("middlewares");
    page.counters();
    page.section("handlers");
    page.settings();
    page.stays();
    page.end();
    page.text
}

struct Page<'a> {
    diff: &'a Diff,
    paint: Paint,
    text: String,
}

impl Page<'_> {
    fn line(&mut self, indent: usize, line: impl std::fmt::Display) {
        let _infallible = writeln!(self.text, "{:indent$}{line}", "");
    }

    fn heading(&mut self, words: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let heading = self.paint.bold(words);
        self.line(0, heading);
    }

    fn clashes(&mut self) {
        for clash in &self.diff.change.clashes {
            let holder = match &clash.holder {
                Holder::Listener(name) => format!("the listener `{name}`"),
                Holder::Admin => "`admin`".to_owned(),
                Holder::Telemetry => "`telemetry`".to_owned(),
            };
            let advice = match &clash.holder {
                Holder::Listener(_) => "change them one after the other",
                Holder::Admin | Holder::Telemetry => "its port moves only at the next start",
            };
            let line = format!(
                "{} the listener `{}` cannot listen on {} while {holder} has {}: {advice}",
                self.paint.red("the reload would be refused:"),
                clash.listener,
                clash.address,
                clash.held,
            );
            self.line(0, line);
        }
    }

    fn section(&mut self, section: &str) {
        let items: Vec<&ItemChange> = self.diff.items_of(section).collect();
        if items.is_empty() {
            return;
        }
        self.heading(section);
        for item in items {
            self.item(item);
        }
    }

    fn item(&mut self, item: &ItemChange) {
        let head = format!("{} {}", self.sign(item.fate), self.paint.bold(&item.name));
        self.line(2, head);
        match &item.difference {
            // That it goes is enough.
            Difference::Keys(_) if item.fate == Fate::Removed => {}
            Difference::Keys(keys) => {
                for key in keys {
                    let key = self.key(key);
                    self.line(6, key);
                }
            }
            Difference::Spelling => {
                self.line(6, "only how it is written: what it says is the same");
            }
            Difference::None => {}
        }
        if !item.through.is_empty() {
            self.line(6, format!("by what it names: {}", item.through.join(", ")));
        }
        for effect in effects(self.diff, item) {
            let effect = self.paint.dim(effect);
            self.line(6, effect);
        }
    }

    fn sign(&self, fate: Fate) -> String {
        match fate {
            Fate::Added => self.paint.green("+"),
            Fate::Removed => self.paint.red("-"),
            Fate::Changed => self.paint.yellow("~"),
            Fate::Same => " ".to_owned(),
        }
    }

    fn key(&self, change: &KeyChange) -> String {
        let KeyChange { key, old, new } = change;
        let paint = self.paint;
        match (old.as_deref().map(cut), new.as_deref().map(cut)) {
            (Some(old), Some(new)) => format!("{key}: {} → {}", paint.red(old), paint.green(new)),
            (None, Some(new)) => format!("{} {key}: {}", paint.green("+"), paint.green(new)),
            (Some(old), None) => format!("{} {key}: {}", paint.red("-"), paint.red(old)),
            (None, None) => key.clone(),
        }
    }

    fn moves(&mut self) {
        let moves = &self.diff.moves;
        if moves.moves.is_empty() && moves.starved.is_empty() {
            return;
        }
        self.heading("requests that another route takes");
        let rows: Vec<(String, &Move)> = moves
            .moves
            .iter()
            .flat_map(|of| of.examples.iter().map(move |line| (line.clone(), of)))
            .collect();
        let width = rows.iter().map(|(line, _)| line.chars().count()).max();
        let width = width.unwrap_or(0).min(LONGEST);
        let everywhere = self.diff.change.listeners.len();
        for (line, of) in rows {
            let on = if of.listeners.len() == everywhere || everywhere == 1 {
                String::new()
            } else {
                self.paint.dim(format!("  on {}", of.listeners.join(", ")))
            };
            let (from, to) = (taker(&of.from), taker(&of.to));
            let (from, to) = (self.paint.red(from), self.paint.green(to));
            self.line(2, format!("{line:width$}  {from} → {to}{on}"));
        }
        for name in &moves.starved {
            self.line(
                2,
                format!("no request comes to {name} any more: other routes stand before all of its matches"),
            );
        }
    }

    fn counters(&mut self) {
        let counters = self.diff.change.counters.iter();
        let changed: Vec<&CounterChange> = counters
            .filter(|counter| counter.fate != CounterFate::Kept)
            .collect();
        if changed.is_empty() {
            return;
        }
        self.heading("what middlewares count");
        for counter in changed {
            let (sign, words) = match &counter.fate {
                CounterFate::Kept => (self.sign(Fate::Same), String::new()),
                CounterFate::Added => (self.sign(Fate::Added), "begins".to_owned()),
                CounterFate::Removed => (self.sign(Fate::Removed), "is forgotten".to_owned()),
                CounterFate::Reset(because) => {
                    let why = match because {
                        Because::Settings => "its settings are others".to_owned(),
                        Because::Place { from } => format!("it was {from}"),
                    };
                    (self.sign(Fate::Changed), format!("begins anew: {why}"))
                }
            };
            let places = counter.places.join(", ");
            let what = format!("{} of {}, in {places}", counter.counts, counter.kind);
            let name = self.paint.bold(&counter.id);
            let line = format!(
                "{sign} {name}: {words} {}",
                self.paint.dim(format!("({what})"))
            );
            self.line(2, line);
        }
    }

    fn settings(&mut self) {
        if self.diff.settings.is_empty() {
            return;
        }
        self.heading("settings");
        for SettingChange {
            change,
            takes_effect,
        } in &self.diff.settings
        {
            let sign = match (&change.old, &change.new) {
                (Some(_), Some(_)) => format!("{} ", self.paint.yellow("~")),
                _ => String::new(),
            };
            let when = match takes_effect {
                TakesEffect::AtOnce => "",
                TakesEffect::AtNextStart => "  at the next start",
                TakesEffect::Never => "  which held already",
            };
            let line = format!("{sign}{}{}", self.key(change), self.paint.dim(when));
            self.line(2, line);
        }
    }

    /// What goes on as if nothing had happened.
    fn stays(&mut self) {
        let change = &self.diff.change;
        let listeners = change.listeners.iter();
        let listeners = listeners.filter(|listener| listener.socket == Socket::Kept);
        let upstreams = change.upstreams.iter();
        let upstreams = upstreams.filter(|upstream| upstream.fate == UpstreamFate::Kept);
        let counters = change.counters.iter();
        let counters = counters.filter(|counter| counter.fate == CounterFate::Kept);
        let rows = [
            (
                "open connections of",
                joined(
                    &listeners
                        .map(|listener| &*listener.name)
                        .collect::<Vec<_>>(),
                ),
            ),
            (
                "connections, health and latencies of",
                joined(
                    &upstreams
                        .map(|upstream| &*upstream.name)
                        .collect::<Vec<_>>(),
                ),
            ),
            (
                "what is counted by",
                joined(&counters.map(|counter| &*counter.id).collect::<Vec<_>>()),
            ),
        ];
        self.heading("what stays");
        for (what, names) in rows {
            if let Some(names) = names {
                self.line(2, format!("{what} {names}"));
            }
        }
        self.line(
            2,
            "requests, gRPC streams and WebSockets in flight, under the rules with which they began",
        );
    }

    fn end(&mut self) {
        let summary = self.diff.change.summary();
        self.text.push('\n');
        self.line(0, summary);
    }
}

/// What becomes of connections and of what was learned.
fn effects(diff: &Diff, item: &ItemChange) -> Vec<String> {
    match item.section {
        "listeners" => {
            let mut listeners = diff.change.listeners.iter();
            let listener = listeners.find(|listener| *listener.name == *item.name);
            listener.map(of_listener).into_iter().flatten().collect()
        }
        "upstreams" => {
            let mut upstreams = diff.change.upstreams.iter();
            let upstream = upstreams.find(|upstream| *upstream.name == *item.name);
            upstream.map(|of| of_upstream(of.fate)).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

const DRAINED: &str = "idle connections end at once, busy ones with what is in flight";

fn of_listener(listener: &ListenerChange) -> Vec<String> {
    let ListenerChange {
        address, socket, ..
    } = listener;
    match socket {
        Socket::Kept if listener.limits_change => vec![
            format!("keeps {address} and its connections"),
            "limits and protocols hold for connections that come from now on".to_owned(),
        ],
        Socket::Kept => vec![format!("keeps {address} and its connections")],
        Socket::Renamed { from } => vec![
            format!("goes on with the socket of {from}"),
            format!("open connections keep the last rules of {from} until they end"),
        ],
        Socket::Yielded { to } => vec![format!("its socket goes on as that of {to}")],
        Socket::Moved { from } => vec![
            format!("opens {address}, and closes {from}"),
            format!("there, {DRAINED}"),
        ],
        Socket::Opened => vec![format!("opens {address}")],
        Socket::Closed => vec![format!("closes {address}: {DRAINED}")],
    }
}

fn of_upstream(fate: UpstreamFate) -> Vec<String> {
    let UpstreamFate::Rebuilt {
        settings,
        zone,
        found,
        health,
        ejections,
    } = fate
    else {
        return match fate {
            UpstreamFate::Removed => {
                vec!["its connections end with their requests".to_owned()]
            }
            _ => Vec::new(),
        };
    };
    let mut effects = Vec::new();
    if zone && !settings {
        effects.push("is made anew, since runtime.zone is another".to_owned());
    }
    effects.push("connections are made anew; the old ones end with their requests".to_owned());
    let learned = [
        ("endpoints that were found", found),
        ("results of health checks", health),
        ("ejections", ejections),
    ];
    let with = |memory: Memory| -> Vec<&str> {
        let learned = learned.iter().filter(|(_, of)| *of == memory);
        learned.map(|(what, _)| *what).collect()
    };
    let kept = with(Memory::Kept);
    if !kept.is_empty() {
        effects.push(format!("kept: {}", kept.join(", ")));
    }
    let mut forgotten = with(Memory::Forgotten);
    forgotten.extend(["latencies", "counts under limits", "retry budgets"]);
    effects.push(format!("begin anew: {}", forgotten.join(", ")));
    effects
}

fn taker(taker: &Taker) -> String {
    match taker {
        Taker::Route(name) => name.to_string(),
        Taker::NoMethod => "nobody (405)".to_owned(),
        Taker::Nobody => "nobody (404)".to_owned(),
    }
}

/// Names, if there are any; many are cut short.
fn joined(names: &[&str]) -> Option<String> {
    const SHOWN: usize = 8;
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>();
    match names.len() {
        0 => None,
        all if all > SHOWN => Some(format!("{} and {} more", shown.join(", "), all - SHOWN)),
        _ => Some(shown.join(", ")),
    }
}

fn cut(text: &str) -> String {
    let mut short: String = text.chars().take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}
