//! Asks a world about a request, and puts what it says into an explanation.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use crate::base::message::RequestHead;
use crate::config::{After, Condition, Config, Retry};
use crate::explain::asked::Asked;
use crate::explain::explanation::{
    Answer, Believed, Chosen, Entrance, Explanation, Normal, Place, Repeats, Rival, Sending, Times,
    Turn, Winner,
};
use crate::explain::notebook::{Seen, SentTo, Step, changes};
use crate::explain::world::{Heard, World};
use crate::explain::{hints, supposed};
use crate::proxy::again;
use crate::proxy::retry::Nature;
use crate::routing::Candidate;
use crate::snapshot::{Route, Snapshot, To};

/// Where things are written, as far as that is known.
pub(crate) type Written<'a> = Option<(&'a Config, &'a crate::base::source::Sources)>;

/// Asks a world what would become of a request.
///
/// # Errors
/// A sentence, where there is no such listener.
pub(crate) fn explain(
    world: &World,
    asked: Asked,
    written: Written<'_>,
) -> Result<Explanation, String> {
    let (place, because) = entrance(world.snapshot(), &asked)?;
    let snapshot = Arc::clone(world.snapshot());
    let listener = snapshot.listener(place);
    let peer = asked.peer();
    let request = asked.into_request();
    let head = request.head.copy();
    supposed::direct(world, listener, &head);
    let heard = world.ask(&listener.name, Some(peer), request);
    let seen = &heard.seen;
    let client = seen
        .admitted
        .as_ref()
        .map_or(head.client, |head| head.client);
    let winner = seen.route.filter(|_| seen.winner().is_some());
    Ok(Explanation {
        listener: Entrance {
            name: listener.name.to_string(),
            address: listener.address.to_string(),
            because,
        },
        client: Believed {
            peer: peer.to_string(),
            ip: client
                .ip
                .or(seen.admitted.is_none().then(|| peer.ip()))
                .map(|ip| ip.to_string()),
            scheme: client.scheme().to_owned(),
            trusted: listener
                .trusted_proxies
                .iter()
                .any(|net| net.contains(&peer.ip().to_canonical())),
        },
        request: seen
            .admitted
            .as_ref()
            .map(|admitted| normal(&head, admitted)),
        route: winner.map(|place| winner_of(&snapshot, place, seen, written)),
        candidates: rivals(&snapshot, seen),
        steps: turns(&snapshot, place, seen),
        backend: backend(world, seen),
        sent: heard.received.iter().map(sending).collect(),
        answer: answer(&snapshot, &heard),
    })
}

/// The listener that a request comes through, and why.
fn entrance(snapshot: &Snapshot, asked: &Asked) -> Result<(usize, String), String> {
    if let Some(name) = &asked.listener {
        let place = snapshot.listener_named(name).ok_or_else(|| {
            let all: Vec<_> = snapshot
                .listeners
                .iter()
                .map(|one| format!("`{}`", one.name))
                .collect();
            format!(
                "there is no listener `{name}`: there are {}",
                all.join(", ")
            )
        })?;
        return Ok((place, "as asked".to_owned()));
    }
    if snapshot.listeners.is_empty() {
        return Err("the configuration has no listener: no request comes in".to_owned());
    }
    let port = asked.port();
    let is_its = |listener: &crate::snapshot::Listener| {
        listener
            .address
            .tcp()
            .is_some_and(|address| Some(address.port()) == port)
    };
    Ok(match (snapshot.listeners.iter().position(is_its), port) {
        (Some(place), Some(port)) => (place, format!("of the URL's port {port}")),
        _ if snapshot.listeners.len() == 1 => (0, "the only one".to_owned()),
        _ => (0, "the first; `--listener` takes another".to_owned()),
    })
}

fn normal(before: &RequestHead, after: &RequestHead) -> Normal {
    Normal {
        method: after.method().to_string(),
        host: after.host().map(ToOwned::to_owned),
        path: after.path().to_owned(),
        query: after.query().map(ToOwned::to_owned),
        changes: changes(before, after),
    }
}

fn winner_of(snapshot: &Snapshot, place: usize, seen: &Seen, written: Written<'_>) -> Winner {
    let route = snapshot.route(place);
    let held = seen.winner();
    let params = seen.params.clone();
    let span =
        written.and_then(|(config, sources)| Some(sources.place(config.routes.get(place)?.span)));
    Winner {
        name: route.name.to_string(),
        place: span,
        r#match: held.map_or(1, |held| held.row.match_index + 1),
        params,
    }
}

fn rivals(snapshot: &Snapshot, seen: &Seen) -> Vec<Rival> {
    let winner = seen.candidates.iter().position(|one| one.lost_on.is_none());
    let rival = |(place, one): (usize, &Candidate)| Rival {
        route: snapshot.route(one.row.route as usize).name.to_string(),
        r#match: in_words(one),
        lost_on: one.lost_on.clone(),
        wins: winner == Some(place),
    };
    seen.candidates.iter().enumerate().map(rival).collect()
}

fn in_words(candidate: &Candidate) -> String {
    let row = &candidate.row;
    let mut words = format!("{} {}", row.kind, row.path);
    if row.host != "*" {
        words = format!("{} {words}", row.host);
    }
    if row.methods != "*" {
        words = format!("{} {words}", row.methods);
    }
    let lost_on = candidate.lost_on.as_deref();
    for condition in row.conditions.iter().filter(|one| lost_on != Some(one)) {
        words += ", ";
        words += condition;
    }
    words
}

/// Every middleware of the request's chains, those that did not run as well.
fn turns(snapshot: &Snapshot, listener: usize, seen: &Seen) -> Vec<Turn> {
    let route = seen.route.map(|place| snapshot.route(place));
    let backend = route.and_then(|route| route.backends.get(seen.forwarded.as_ref()?.place));
    let chains = [
        ("listener", Some(&snapshot.listener(listener).chain)),
        ("route", route.map(|route| &route.chain)),
        ("backend", backend.map(|backend| &backend.chain)),
    ];
    let mut ran = seen.steps.iter();
    let mut turns = Vec::new();
    for (of, chain) in chains {
        for (label, middleware) in chain.iter().flat_map(|chain| chain.iter()) {
            let step = ran.next();
            turns.push(turn(of, label, middleware.kind(), step));
        }
    }
    turns
}

fn turn(of: &str, name: &str, kind: &str, step: Option<&Step>) -> Turn {
    Turn {
        of: of.to_owned(),
        name: name.to_owned(),
        kind: kind.to_owned(),
        about: step.and_then(|step| step.about.clone()),
        ran: step.is_some(),
        changes: step.map(|step| step.changes.clone()).unwrap_or_default(),
        notes: step.map_or_else(Vec::new, |step| {
            step.notes.iter().map(ToString::to_string).collect()
        }),
        answered: step
            .and_then(|step| step.answer.as_ref())
            .map(|(status, _)| status.as_u16()),
    }
}

fn backend(world: &World, seen: &Seen) -> Option<Chosen> {
    let forwarded = seen.forwarded.as_ref()?;
    let snapshot = world.snapshot();
    let route = snapshot.route(seen.route?);
    let chosen = route.backends.get(forwarded.place)?;
    let upstream = match &chosen.to {
        To::Upstream(place) => Some(world.upstream(*place)),
        To::Handler(..) => None,
    };
    let handler = match &chosen.to {
        To::Upstream(_) => None,
        To::Handler(handler, _) => Some(handler.name().to_owned()),
    };
    let of = route.backends.iter().count();
    let by = match &route.split {
        Some(_) => "its `split_by`",
        None => "chance, by weight",
    };
    let endpoints = upstream.as_ref().map(|upstream| {
        let members = upstream.members();
        let place = |member: &crate::upstream::Member| {
            let mut candidates = members.candidates().iter();
            let candidate = candidates.find(|one| one.number == member.number);
            Place {
                address: member.endpoint.label.to_string(),
                weight: candidate.map_or(0, |one| one.weight),
                zone: member.endpoint.zone.clone(),
                state: member.condition.name().to_owned(),
                why: member.why.to_string(),
                eligible: candidate.is_some(),
            }
        };
        members.all().map(place).collect()
    });
    Some(Chosen {
        upstream: upstream.as_ref().map(|upstream| upstream.name().to_owned()),
        handler,
        of,
        by: (of > 1).then(|| by.to_owned()),
        timeouts: Times {
            request_ms: forwarded.deadline.map(millis),
            attempt_ms: upstream.as_ref().and(route.timeouts.attempt).map(millis),
            idle_ms: route.timeouts.idle.map(millis),
        },
        retry: upstream.as_ref().map(|_| repeats(route, seen)),
        mirrors: mirrors(snapshot, route),
        key: upstream
            .as_ref()
            .and_then(|upstream| upstream.settings().balance.key())
            .map(ToString::to_string),
        balance: upstream
            .as_ref()
            .map(|upstream| upstream.settings().balance.kind().to_owned()),
        protocol: upstream
            .as_ref()
            .map(|upstream| upstream.settings().protocol.name().to_owned()),
        endpoints: endpoints.unwrap_or_default(),
    })
}

fn repeats(route: &Route, seen: &Seen) -> Repeats {
    let policy: &Retry = again::policy(route);
    let repeatable = seen.nature == Some(Nature::Idempotent);
    // What may not be repeated is asked of one endpoint alone.
    let hedge = route.hedge.as_ref().filter(|_| repeatable);
    Repeats {
        attempts: policy.attempts,
        on: policy.on.iter().map(Condition::to_string).collect(),
        repeatable,
        by_default: route.retry.is_none(),
        hedge: hedge.map(|hedge| match hedge.after {
            After::P95 => "slower than 95 of 100 answers".to_owned(),
            After::Fixed(after) => format!("after {after:?}"),
        }),
    }
}

fn mirrors(snapshot: &Snapshot, route: &Route) -> Vec<String> {
    let names = route.mirrors.iter();
    names
        .map(|mirror| {
            snapshot
                .upstream(mirror.upstream)
                .upstream
                .name()
                .to_owned()
        })
        .collect()
}

fn sending(received: &crate::explain::stage::Received) -> Sending {
    Sending {
        upstream: received.upstream.to_string(),
        endpoint: received.endpoint.to_string(),
        head: received.head.clone(),
        body_bytes: received.body.len(),
    }
}

fn answer(snapshot: &Snapshot, heard: &Heard) -> Answer {
    let seen = &heard.seen;
    let ended = seen.ended.as_ref();
    let flag = ended.and_then(|ended| ended.flag);
    let by = match (seen.answered(), seen.sent_to(snapshot)) {
        (Some(step), _) => format!("middleware {}", step.label),
        (None, Some(SentTo::Upstream(name))) if flag.is_none() => format!("upstream {name}"),
        (None, Some(SentTo::Handler(handler))) => format!("handler {}", handler.name()),
        _ => "the gateway".to_owned(),
    };
    let mut notes: Vec<String> = ended
        .iter()
        .flat_map(|ended| ended.notes.iter().map(ToString::to_string))
        .collect();
    if let Some(handler) = &seen.unasked {
        notes.push(format!(
            "the handler `{handler}` is the program's own and was not asked"
        ));
    }
    Answer {
        status: heard.answer.status.as_u16(),
        headers: pairs(&heard.answer.headers),
        by,
        flag: flag.map(|flag| flag.code().to_owned()),
        meaning: flag.map(|flag| flag.text().to_owned()),
        detail: ended
            .and_then(|ended| ended.detail.as_ref())
            .map(ToString::to_string),
        hints: hints::of(snapshot, seen),
        notes,
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (
            name.to_string(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    };
    headers.iter().map(pair).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
