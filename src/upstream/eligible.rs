//! Which endpoints of an upstream may take requests now, and with what weight.
//!
//! A function of what is known of them: no clock, no socket. Its steps, in this order: those that are
//! out by the operator's or discovery's word never take requests; if too few of the rest are ready,
//! all of the rest count as ready (panic); while our own zone can carry its share, it carries all of
//! it; those that were ready only recently begin with little.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Unexpected, Visitor};

use crate::base::values::Share;

/// The steps in which a weight rises to its whole during slow start.
const STEPS: u32 = 10;

/// What is known of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It may take requests.
    Ready,
    /// Health checks say that it cannot serve.
    Unhealthy,
    /// Its answers were bad: it is out for a time.
    Ejected,
    /// It has left discovery, or is about to: no new requests.
    Draining,
    /// An operator has taken it out.
    Disabled,
}

impl Condition {
    /// As operators read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }
}

/// Where one endpoint stands.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// Its number.
    pub number: u32,
    /// Its share of requests, relative to the others; 0 takes none.
    pub weight: u32,
    /// Where it runs.
    pub zone: Option<&'a str>,
    /// What is known of it.
    pub condition: Condition,
    /// When it became ready, which begins its slow start; none if that was long ago.
    pub ready_since: Option<Instant>,
}

/// What decides beside the endpoints themselves.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The zone that the gateway itself runs in.
    pub zone: Option<Box<str>>,
    /// Whether that zone comes first.
    pub zones: ZoneSettings,
    /// The share of ready endpoints, by weight, under which all count as ready: 0 (never) to 1.
    pub panic_threshold: f64,
    /// How long the weight of an endpoint that has become ready rises.
    pub slow_start: Option<Duration>,
}

/// Who may take requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eligible {
    /// Numbers and weights, in the order in which they were given; weights are more than 0.
    pub candidates: Vec<(u32, u32)>,
    /// True if too few were ready, so that all count as ready.
    pub panic: bool,
    /// True if those of other zones are left out.
    pub zone_kept: bool,
    /// When a weight changes next by slow start alone.
    pub next_change: Option<Instant>,
}

/// Whether endpoints of the gateway's own zone come first.
#[derive(Debug, Clone, PartialEq)]
pub enum ZoneSettings {
    /// Zones do not matter.
    Ignore,
    /// They do, under these conditions.
    Prefer(Preference),
}

/// While both hold, requests go to endpoints of the gateway's own zone only.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[schemars(rename = "ZonePreference")]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
pub struct Preference {
    /// At least this share of the own zone's endpoints is ready, by weight. Default `70%`.
    pub min_ready: Share,
    /// The own zone's ready endpoints have at least this share of an even part of the load: of the
    /// weight of all ready endpoints, divided by the number of zones. Default `50%`.
    pub min_share: Share,
}

impl Default for Preference {
    fn default() -> Self {
        Self {
            min_ready: Share(0.7),
            min_share: Share(0.5),
        }
    }
}

impl Default for ZoneSettings {
    fn default() -> Self {
        Self::Prefer(Preference::default())
    }
}

// A share that was parsed is a number.
impl Eq for Preference {}
impl Eq for ZoneSettings {}

/// Which of these may take requests now.
pub fn eligible(standing: &[Standing<'_>], rules: &Rules, now: Instant) -> Eligible {
    let in_service = |each: &&Standing<'_>| {
        each.weight > 0 && !matches!(each.condition, Condition::Draining | Condition::Disabled)
    };
    let members: Vec<&Standing<'_>> = standing.iter().filter(in_service).collect();
    let mut ready = members.clone();
    ready.retain(|each| each.condition == Condition::Ready);
    if is_short(weight(&ready), rules.panic_threshold, weight(&members)) {
        // All of them, evenly: neither zones nor slow start leave anyone out where so few are left.
        return Eligible {
            candidates: whole(&members),
            panic: true,
            zone_kept: false,
            next_change: None,
        };
    }
    let own = own_zone(&members, &ready, rules);
    let zone_kept = own.is_some();
    let candidates = own.unwrap_or(ready);
    let (candidates, next_change) = match rules.slow_start {
        Some(window) if candidates.len() > 1 => slowed(&candidates, window, now),
        _ => (whole(&candidates), None),
    };
    Eligible {
        candidates,
        panic: false,
        zone_kept,
        next_change,
    }
}

/// The ready ones of our own zone, if there are others and it can do without them.
fn own_zone<'a>(
    members: &[&'a Standing<'a>],
    ready: &[&'a Standing<'a>],
    rules: &Rules,
) -> Option<Vec<&'a Standing<'a>>> {
    let (Some(zone), ZoneSettings::Prefer(preference)) = (rules.zone.as_deref(), &rules.zones)
    else {
        return None;
    };
    let of_zone = |all: &[&'a Standing<'a>]| -> Vec<&'a Standing<'a>> {
        let own = all.iter().filter(|each| each.zone == Some(zone));
        own.copied().collect()
    };
    let (own, own_ready) = (of_zone(members), of_zone(ready));
    if own_ready.is_empty() || own_ready.len() == ready.len() {
        return None;
    }
    let fair = weight(ready) / zones(members);
    let is_ill = is_short(weight(&own_ready), preference.min_ready.0, weight(&own));
    let is_weak = is_short(weight(&own_ready), preference.min_share.0, fair);
    (!is_ill && !is_weak).then_some(own_ready)
}

/// True if a part is less than this share of the whole; what rounding takes away does not count.
fn is_short(part: f64, share: f64, whole: f64) -> bool {
    part < share * whole * (1.0 - 1e-9)
}

/// How many zones there are; endpoints without one are in one more.
#[expect(clippy::cast_precision_loss, reason = "nobody has 2⁵³ zones")]
fn zones(members: &[&Standing<'_>]) -> f64 {
    let mut zones: Vec<Option<&str>> = members.iter().map(|each| each.zone).collect();
    zones.sort_unstable();
    zones.dedup();
    zones.len() as f64
}

fn weight(all: &[&Standing<'_>]) -> f64 {
    all.iter().map(|each| f64::from(each.weight)).sum()
}

fn whole(all: &[&Standing<'_>]) -> Vec<(u32, u32)> {
    all.iter().map(|each| (each.number, each.weight)).collect()
}

/// Weights during slow start, times [`STEPS`]; and when one of them rises next.
///
/// If all are equally far, the weights stay what they are: slowness is relative.
fn slowed(
    candidates: &[&Standing<'_>],
    window: Duration,
    now: Instant,
) -> (Vec<(u32, u32)>, Option<Instant>) {
    let levels: Vec<(u32, Option<Instant>)> = candidates
        .iter()
        .map(|each| match each.ready_since {
            Some(since) => level(since, window, now),
            None => (STEPS, None),
        })
        .collect();
    let next_change = levels.iter().filter_map(|(_, next)| *next).min();
    let mut steps = levels.iter().map(|(step, _)| *step);
    let first = steps.next();
    if steps.all(|step| Some(step) == first) {
        return (whole(candidates), next_change);
    }
    let scaled = candidates.iter().zip(&levels);
    let scaled = scaled.map(|(each, (step, _))| (each.number, each.weight.saturating_mul(*step)));
    (scaled.collect(), next_change)
}

/// How many of the [`STEPS`] an endpoint has reached, from the first to the last, and when it
/// reaches the next.
fn level(since: Instant, window: Duration, now: Instant) -> (u32, Option<Instant>) {
    let elapsed = now.saturating_duration_since(since);
    let reached = |step: u32| window / (STEPS - 1) * (step - 1);
    let step = (1..=STEPS).rev().find(|step| elapsed >= reached(*step));
    match step {
        Some(STEPS) => (STEPS, None),
        step => {
            let step = step.unwrap_or(1);
            (step, since.checked_add(reached(step + 1)))
        }
    }
}

impl<'de> Deserialize<'de> for ZoneSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ZoneSettings;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`ignore`, or a map with `min_ready` and `min_share`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ZoneSettings, E> {
                match text {
                    "ignore" => Ok(ZoneSettings::Ignore),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ZoneSettings, A::Error> {
                Preference::deserialize(MapAccessDeserializer::new(map)).map(ZoneSettings::Prefer)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for ZoneSettings {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Zones".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let preference = generator.subschema_for::<Preference>();
        json_schema!({"anyOf": [{"type": "string", "const": "ignore"}, preference]})
    }
}

#[cfg(test)]
mod tests {
    use super::Condition::{Disabled, Draining, Ejected, Ready, Unhealthy};
    use super::*;

    fn standing(number: u32, weight: u32, condition: Condition) -> Standing<'static> {
        Standing {
            number,
            weight,
            zone: None,
            condition,
            ready_since: None,
        }
    }

    fn rules() -> Rules {
        Rules {
            zone: None,
            zones: ZoneSettings::default(),
            panic_threshold: 0.0,
            slow_start: None,
        }
    }

    fn numbers(found: &Eligible) -> Vec<u32> {
        found.candidates.iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn only_the_ready_take_requests_and_too_few_of_them_mean_panic() {
        let check = |all: &[(u32, Condition)], threshold: f64, taking: &[u32], panic: bool| {
            let all: Vec<_> = (0..)
                .zip(all)
                .map(|(number, (weight, condition))| standing(number, *weight, *condition))
                .collect();
            let rules = Rules {
                panic_threshold: threshold,
                ..rules()
            };
            let found = eligible(&all, &rules, Instant::now());
            assert_eq!(numbers(&found), taking, "{all:?} {threshold}");
            assert_eq!(found.panic, panic, "{all:?} {threshold}");
            for (number, weight) in &found.candidates {
                assert_eq!(*weight, all[*number as usize].weight);
            }
        };
        check(&[], 0.5, &[], false);
        check(&[(1, Ready), (2, Ready)], 0.5, &[0, 1], false);
        check(&[(1, Ready), (0, Ready)], 0.5, &[0], false);
        check(
            &[(1, Ready), (1, Unhealthy), (1, Ejected)],
            0.0,
            &[0],
            false,
        );
        check(&[(1, Unhealthy), (1, Ejected)], 0.0, &[], false);
        check(&[(1, Unhealthy), (1, Ejected)], 0.01, &[0, 1], true);
        // The threshold itself is enough.
        check(&[(1, Ready), (1, Unhealthy)], 0.5, &[0], false);
        check(&[(1, Ready), (1, Unhealthy)], 0.51, &[0, 1], true);
        check(&[(55, Ready), (45, Unhealthy)], 0.55, &[0], false);
        check(&[(7, Ready), (3, Unhealthy)], 0.7, &[0], false);
        // Weights count, not heads.
        check(
            &[(1, Ready), (1, Ready), (8, Ejected)],
            0.3,
            &[0, 1, 2],
            true,
        );
        check(&[(9, Ready), (1, Ejected), (1, Ejected)], 0.5, &[0], false);
        // Who is out by somebody's word is neither counted nor taken.
        check(
            &[(1, Ready), (9, Draining), (9, Disabled)],
            0.5,
            &[0],
            false,
        );
        check(
            &[(1, Unhealthy), (9, Draining), (9, Disabled)],
            0.5,
            &[0],
            true,
        );
        check(&[(9, Draining), (9, Disabled)], 1.0, &[], false);
        check(&[(1, Unhealthy), (0, Unhealthy)], 1.0, &[0], true);
        check(&[(1, Ready), (1, Ready)], 1.0, &[0, 1], false);
    }

    #[test]
    fn the_own_zone_is_enough_while_it_is_healthy_and_strong() {
        type Row = (&'static str, u32, Condition);
        let check = |own: &str, all: &[Row], taking: &[u32]| {
            let standing = |(number, row): (u32, &Row)| Standing {
                number,
                weight: row.1,
                zone: (!row.0.is_empty()).then_some(row.0),
                condition: row.2,
                ready_since: None,
            };
            let all: Vec<Standing<'static>> = (0..).zip(all).map(standing).collect();
            let rules = Rules {
                zone: (!own.is_empty()).then(|| own.into()),
                ..rules()
            };
            let found = eligible(&all, &rules, Instant::now());
            assert_eq!(numbers(&found), taking, "{own}: {all:?}");
            let ready = all.iter().filter(|each| each.condition == Ready).count();
            assert_eq!(found.zone_kept, taking.len() < ready, "{own}: {all:?}");
            // The same without a care for zones.
            let rules = Rules {
                zones: ZoneSettings::Ignore,
                ..rules
            };
            assert!(!eligible(&all, &rules, Instant::now()).zone_kept);
        };
        let (a, b, c) = (("a", 1, Ready), ("b", 1, Ready), ("c", 1, Ready));
        let (ill, heavy) = (("a", 1, Unhealthy), ("b", 9, Ready));
        let nowhere = ("", 1, Ready);
        check("a", &[a, b, c], &[0]);
        check("b", &[a, b, c], &[1]);
        // We or they do not know where we are.
        check("", &[a, b, c], &[0, 1, 2]);
        check("d", &[a, b, c], &[0, 1, 2]);
        check("a", &[nowhere, nowhere], &[0, 1]);
        // There is no other zone.
        check("a", &[a, a], &[0, 1]);
        check("a", &[a, ill], &[0]);
        check("a", &[a, nowhere], &[0]);
        // 7 of 10 are enough, 2 of 3 are not; what drains is not missed.
        check("a", &[("a", 7, Ready), ("a", 3, Ejected), b], &[0]);
        check("a", &[a, a, ill, b], &[0, 1, 3]);
        check("a", &[a, a, ("a", 1, Draining), b], &[0, 1]);
        check("a", &[ill, b, c], &[1, 2]);
        // An even part of 10 in two zones is 5, of which half is due.
        check("a", &[a, heavy], &[0, 1]);
        check("a", &[("a", 2, Ready), ("b", 8, Ready)], &[0, 1]);
        check("a", &[("a", 3, Ready), ("b", 7, Ready)], &[0]);
        check("a", &[a, ("b", 3, Ready)], &[0]);
        // Without a zone is a zone, too.
        check("a", &[a, nowhere, nowhere, nowhere], &[0]);
        check(
            "a",
            &[a, nowhere, nowhere, nowhere, nowhere],
            &[0, 1, 2, 3, 4],
        );
    }

    #[test]
    fn conditions_of_the_own_zone_can_be_set() {
        let check = |json: &str, taking: &[u32]| {
            let zone = |zone, endpoint| Standing {
                zone: Some(zone),
                ..endpoint
            };
            let all = [
                zone("a", standing(0, 1, Ready)),
                zone("a", standing(1, 1, Unhealthy)),
                zone("b", standing(2, 4, Ready)),
            ];
            let rules = Rules {
                zone: Some("a".into()),
                zones: serde_json::from_str(json).expect(json),
                ..rules()
            };
            let found = eligible(&all, &rules, Instant::now());
            assert_eq!(numbers(&found), taking, "{json}");
        };
        check(r#"{"min_ready": "50%", "min_share": "40%"}"#, &[0]);
        check(r#"{"min_ready": "51%", "min_share": "40%"}"#, &[0, 2]);
        check(r#"{"min_ready": "50%", "min_share": "41%"}"#, &[0, 2]);
        check(r#"{"min_ready": "50%"}"#, &[0, 2]);
        check(r#""ignore""#, &[0, 2]);
    }

    #[test]
    fn in_a_panic_zones_and_slow_start_leave_nobody_out() {
        let now = Instant::now();
        let mut all = [
            standing(0, 1, Ready),
            standing(1, 3, Unhealthy),
            standing(2, 1, Ejected),
        ];
        all[0].zone = Some("a");
        all[0].ready_since = Some(now);
        let rules = Rules {
            zone: Some("a".into()),
            panic_threshold: 0.5,
            slow_start: Some(Duration::from_secs(30)),
            ..rules()
        };
        let found = eligible(&all, &rules, now);
        assert_eq!(found.candidates, [(0, 1), (1, 3), (2, 1)]);
        assert!(found.panic && !found.zone_kept);
        assert_eq!(found.next_change, None);
    }

    #[test]
    fn a_weight_rises_in_ten_steps() {
        let window = Duration::from_secs(90);
        let start = Instant::now();
        let rules = Rules {
            slow_start: Some(window),
            ..rules()
        };
        let check = |seconds: u64, weights: [u32; 2], next: Option<u64>| {
            let now = start + Duration::from_secs(seconds);
            let mut all = [standing(0, 1, Ready), standing(1, 3, Ready)];
            all[1].ready_since = Some(start);
            let found = eligible(&all, &rules, now);
            assert_eq!(
                found.candidates,
                [(0, weights[0]), (1, weights[1])],
                "{seconds}"
            );
            let next = next.map(|next| start + Duration::from_secs(next));
            assert_eq!(found.next_change, next, "{seconds}");
        };
        check(0, [10, 3], Some(10));
        check(9, [10, 3], Some(10));
        check(10, [10, 6], Some(20));
        check(45, [10, 15], Some(50));
        check(80, [10, 27], Some(90));
        check(89, [10, 27], Some(90));
        check(90, [1, 3], None);
        check(10_000, [1, 3], None);
    }

    #[test]
    fn slowness_is_relative() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let rules = Rules {
            slow_start: Some(Duration::from_secs(9)),
            ..rules()
        };
        let check = |since: &[Option<Instant>], weights: &[u32], next: Option<u64>| {
            let all: Vec<_> = (0..)
                .zip(since)
                .map(|(number, since)| Standing {
                    ready_since: *since,
                    ..standing(number, 2, Ready)
                })
                .collect();
            let found = eligible(&all, &rules, later);
            let found_weights: Vec<u32> = found.candidates.iter().map(|each| each.1).collect();
            assert_eq!(found_weights, weights, "{since:?}");
            let next = next.map(|next| now + Duration::from_secs(next));
            assert_eq!(found.next_change, next, "{since:?}");
        };
        check(&[Some(now)], &[2], None);
        check(&[Some(now), Some(now)], &[2, 2], Some(6));
        check(&[Some(now), Some(later)], &[12, 2], Some(6));
        check(&[Some(now), None, Some(later)], &[12, 20, 2], Some(6));
        check(&[None, None], &[2, 2], None);
        // From a clock reading that is newer than ours.
        let newest = later + Duration::from_secs(1);
        check(&[Some(newest), None], &[2, 20], Some(7));
    }

    #[test]
    fn windows_of_any_length_are_fine() {
        let now = Instant::now();
        let mut all = [standing(0, u32::MAX, Ready), standing(1, 1, Ready)];
        for endpoint in 0..2 {
            all[endpoint].ready_since = Some(now);
            for window in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
                let rules = Rules {
                    slow_start: Some(window),
                    ..rules()
                };
                assert_eq!(eligible(&all, &rules, now).candidates.len(), 2);
            }
        }
    }

    #[test]
    fn zones_are_ignored_or_preferred() {
        let read = |json: &str| {
            serde_json::from_str::<ZoneSettings>(json).map_err(|error| error.to_string())
        };
        assert_eq!(read(r#""ignore""#), Ok(ZoneSettings::Ignore));
        assert_eq!(read("{}"), Ok(ZoneSettings::default()));
        let set = Preference {
            min_ready: Share(0.5),
            min_share: Share(0.25),
        };
        let json = r#"{"min_ready": "50%", "min_share": 0.25}"#;
        assert_eq!(read(json), Ok(ZoneSettings::Prefer(set)));
        let check = |json: &str, sentence: &str| {
            let error = read(json).expect_err(json);
            assert!(error.contains(sentence), "{json}: {error}");
        };
        check(r#""prefer""#, "expected `ignore`, or a map");
        check("7", "`ignore`, or a map with `min_ready` and `min_share`");
        check(r#"{"min_ready": "101%"}"#, "is not a share");
        check(r#"{"ready": "50%"}"#, "unknown field `ready`");
        let schema = serde_json::to_string(&schemars::schema_for!(ZoneSettings)).expect("JSON");
        assert!(
            schema.contains("min_share") && schema.contains("ignore"),
            "{schema}"
        );
    }
}
