//! A difference for programs; the shape is described in `docs/diff.md` and only ever grows.

use serde_json::{Value, json};

use crate::app::Checked;
use crate::app::diff::{Diff, ItemChange, NotComparable, SettingChange, TakesEffect};
use crate::base::report;
use crate::config::{Difference, KeyChange};
use crate::snapshot::change::{
    Because, Clash, CounterChange, CounterFate, Fate, ListenerChange, Memory, Move, Socket, Taker,
    UpstreamChange, UpstreamFate, listeners::Holder,
};

pub(super) fn of(diff: &Diff) -> Value {
    let change = &diff.change;
    let items = |section: &str| -> Value {
        let items = diff.items_of(section);
        items.map(item).collect()
    };
    let listeners = change.listeners.iter();
    let upstreams = change.upstreams.iter();
    let clashes = change.clashes.iter();
    json!({
        "valid": true,
        "differs": !diff.is_empty(),
        "summary": change.summary(),
        "refused": clashes.map(clash).collect::<Value>(),
        "listeners": listeners.map(|of| listener(diff, of)).collect::<Value>(),
        "routes": items("routes"),
        "moves": diff.moves.moves.iter().map(moved).collect::<Value>(),
        "starved": diff.moves.starved,
        "upstreams": upstreams.map(|of| upstream(diff, of)).collect::<Value>(),
        "middlewares": items("middlewares"),
        "counters": change.counters.iter().map(counter).collect::<Value>(),
        "handlers": items("handlers"),
        "settings": diff.settings.iter().map(setting).collect::<Value>(),
    })
}

/// Configurations that cannot be compared.
pub(super) fn refused(broken: &NotComparable) -> Value {
    let problems = |checked: &Option<Checked>| {
        checked.as_ref().map_or_else(
            || json!([]),
            |checked| report::json(&checked.problems, &checked.sources),
        )
    };
    json!({
        "valid": false,
        "problems": {"old": problems(&broken.old), "new": problems(&broken.new)},
    })
}

fn fate(fate: Fate) -> &'static str {
    match fate {
        Fate::Added => "added",
        Fate::Removed => "removed",
        Fate::Changed => "changed",
        Fate::Same => "same",
    }
}

fn key(change: &KeyChange) -> Value {
    json!({"key": change.key, "old": change.old, "new": change.new})
}

fn keys(difference: &Difference) -> Value {
    match difference {
        Difference::Keys(keys) => keys.iter().map(key).collect(),
        Difference::None | Difference::Spelling => json!([]),
    }
}

fn item(item: &ItemChange) -> Value {
    json!({
        "name": item.name,
        "fate": fate(item.fate),
        "keys": keys(&item.difference),
        "through": item.through,
    })
}

/// Of something that is listed even where nothing differs.
fn listed(diff: &Diff, section: &str, name: &str) -> Value {
    let mut items = diff.items_of(section);
    items.find(|item| item.name == name).map_or_else(
        || json!({"name": name, "fate": "same", "keys": [], "through": []}),
        item,
    )
}

fn with(mut value: Value, more: Value) -> Value {
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

fn listener(diff: &Diff, listener: &ListenerChange) -> Value {
    let (socket, connections, from, to) = match &listener.socket {
        Socket::Kept => ("kept", Some("kept"), None, None),
        Socket::Renamed { from } => ("renamed", Some("kept"), Some(from.to_string()), None),
        Socket::Yielded { to } => ("yielded", Some("kept"), None, Some(to)),
        Socket::Moved { from } => ("moved", Some("drained"), Some(from.to_string()), None),
        Socket::Opened => ("opened", None, None, None),
        Socket::Closed => ("closed", Some("drained"), None, None),
    };
    let item = listed(diff, "listeners", &listener.name);
    let more = json!({
        "address": listener.address.to_string(),
        "socket": socket,
        "from": from,
        "to": to,
        "connections": connections,
        "limits_change": listener.limits_change,
    });
    with(item, more)
}

fn upstream(diff: &Diff, upstream: &UpstreamChange) -> Value {
    let memory = |memory: Memory| match memory {
        Memory::None => None,
        Memory::Kept => Some("kept"),
        Memory::Forgotten => Some("forgotten"),
    };
    let (connections, found, health, ejections) = match upstream.fate {
        UpstreamFate::Kept => (Some("kept"), Some("kept"), Some("kept"), Some("kept")),
        UpstreamFate::Added => (None, None, None, None),
        UpstreamFate::Removed => (Some("drained"), None, None, None),
        UpstreamFate::Rebuilt {
            found,
            health,
            ejections,
            ..
        } => (
            Some("drained"),
            memory(found),
            memory(health),
            memory(ejections),
        ),
    };
    let item = listed(diff, "upstreams", &upstream.name);
    let more = json!({
        "connections": connections,
        "found": found,
        "health": health,
        "ejections": ejections,
    });
    with(item, more)
}

fn moved(of: &Move) -> Value {
    let taker = |taker: &Taker| match taker {
        Taker::Route(name) => json!({"route": name}),
        Taker::NoMethod => json!({"status": 405}),
        Taker::Nobody => json!({"status": 404}),
    };
    json!({
        "listeners": of.listeners,
        "from": taker(&of.from),
        "to": taker(&of.to),
        "examples": of.examples,
    })
}

fn counter(counter: &CounterChange) -> Value {
    let (fate, because, from) = match &counter.fate {
        CounterFate::Kept => ("kept", None, None),
        CounterFate::Added => ("added", None, None),
        CounterFate::Removed => ("removed", None, None),
        CounterFate::Reset(Because::Settings) => ("reset", Some("settings"), None),
        CounterFate::Reset(Because::Place { from }) => ("reset", Some("place"), Some(from)),
    };
    json!({
        "id": counter.id,
        "kind": counter.kind,
        "places": counter.places,
        "fate": fate,
        "because": because,
        "from": from,
    })
}

fn setting(setting: &SettingChange) -> Value {
    let takes_effect = match setting.takes_effect {
        TakesEffect::AtOnce => "at_once",
        TakesEffect::AtNextStart => "at_next_start",
        TakesEffect::Never => "never",
    };
    with(key(&setting.change), json!({"takes_effect": takes_effect}))
}

fn clash(clash: &Clash) -> Value {
    let holder = match &clash.holder {
        Holder::Listener(name) => json!({"listener": name}),
        Holder::Admin => json!("admin"),
        Holder::Telemetry => json!("telemetry"),
    };
    json!({
        "listener": clash.listener,
        "address": clash.address.to_string(),
        "holder": holder,
        "held": clash.held.to_string(),
    })
}
