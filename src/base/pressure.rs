//! How near the process is to its limits, and which requests it refuses for that.
//!
//! Pure but for one number that all threads share: the control thread measures and decides how bad
//! it is, workers ask whether that is bad enough for a request of theirs.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::base::values::Share;

/// What a route's requests are worth when not all can be served.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Priority {
    /// Refused first: what can be done later, or not at all.
    Low,
    /// What is not said to be anything else.
    #[default]
    Normal,
    /// Refused only right before the limit.
    High,
    /// Never refused.
    Critical,
}

/// The highest priority that is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Nothing is.
    #[default]
    Calm,
    /// [`Priority::Low`].
    Low,
    /// [`Priority::Normal`].
    Normal,
    /// [`Priority::High`].
    High,
}

/// What is running out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Resource {
    /// Memory, at whose limit the system ends the process.
    #[default]
    Memory,
    /// CPU time, at whose quota everything waits.
    Cpu,
}

/// How bad it is, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// What is refused.
    pub level: Level,
    /// What is running out.
    pub of: Resource,
    /// How much of it was in use when the level was last looked at, in percent.
    pub percent: u8,
}

/// The pressure on a process, for every thread to look at; written at most a few times a second.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU32);

impl Priority {
    /// The word of the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl Level {
    /// Every level, from calm to worst.
    pub const ALL: [Self; 4] = [Self::Calm, Self::Low, Self::Normal, Self::High];

    /// True if requests of that priority are refused.
    pub const fn sheds(self, priority: Priority) -> bool {
        (priority as u8) < (self as u8)
    }

    fn of(number: usize) -> Self {
        Self::ALL.get(number).copied().unwrap_or(Self::High)
    }
}

impl Pressure {
    /// Why requests of a priority are refused, for the operator.
    pub fn in_words(self, priority: Priority) -> String {
        let what = match self.of {
            Resource::Memory => "memory limit",
            Resource::Cpu => "CPU quota",
        };
        format!(
            "the process uses {} % of its {what}: requests of priority {} are refused",
            self.percent,
            priority.name()
        )
    }
}

impl Gauge {
    /// What was last set.
    pub fn load(&self) -> Pressure {
        let [level, of, percent, _] = self.0.load(Relaxed).to_ne_bytes();
        Pressure {
            level: Level::of(usize::from(level)),
            of: match of {
                0 => Resource::Memory,
                _ => Resource::Cpu,
            },
            percent,
        }
    }

    /// Sets it; writes nothing where nothing has changed, for every worker reads this line.
    pub fn store(&self, pressure: Pressure) {
        let Pressure { level, of, percent } = pressure;
        let new = u32::from_ne_bytes([level as u8, of as u8, percent, 0]);
        if self.0.load(Relaxed) != new {
            self.0.store(new, Relaxed);
        }
    }
}

/// When requests are refused to keep the process within its limits.
///
/// Example: `{memory: 85%, cpu: 95%}`; `off` refuses nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shedding {
    /// From which share of the memory limit on.
    pub memory: Trigger,
    /// From which share of the CPU quota on.
    pub cpu: Trigger,
}

/// From which share of a limit on something is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trigger {
    /// Never.
    Off,
    /// From that share on; more than 0 and less than 1.
    At(f64),
}

impl Default for Shedding {
    fn default() -> Self {
        Written::default().into()
    }
}

impl Shedding {
    /// Nothing is refused.
    pub const OFF: Self = Self {
        memory: Trigger::Off,
        cpu: Trigger::Off,
    };
}

/// The narrowest gap between the shares at which a level begins and ends.
const LEAST_GAP: f64 = 0.02;

impl Trigger {
    /// The level at a share of the limit, after it was `last`.
    ///
    /// `low` is refused from the trigger on, `normal` from half the way to the limit, `high` from
    /// four fifths of it. A level ends a fifth of the way below where it began, so that what is
    /// saved by refusing does not end the refusing at once.
    pub fn level(self, share: Option<f64>, last: Level) -> Level {
        let (Self::At(trigger), Some(share)) = (self, share) else {
            return Level::Calm;
        };
        let way = 1.0 - trigger;
        let begins = [trigger, trigger + 0.5 * way, trigger + 0.8 * way];
        let gap = (0.2 * way).max(LEAST_GAP);
        let reached = |gap: f64| {
            let reached = begins.iter().filter(|begin| share >= **begin - gap);
            Level::of(reached.count())
        };
        last.clamp(reached(0.0), reached(gap))
    }
}

/// How bad it is with these shares of both limits in use; `last` are the levels of either before.
///
/// CPU time refuses `low` and no more: whoever waits for it is served late, whoever is refused is
/// not served at all.
pub fn assess(
    shedding: &Shedding,
    (memory, cpu): (Option<f64>, Option<f64>),
    last: &mut (Level, Level),
) -> Pressure {
    last.0 = shedding.memory.level(memory, last.0);
    last.1 = shedding.cpu.level(cpu, last.1).min(Level::Low);
    let (level, of, share) = if last.0 >= last.1 {
        (last.0, Resource::Memory, memory)
    } else {
        (last.1, Resource::Cpu, cpu)
    };
    match level {
        Level::Calm => Pressure::default(),
        _ => Pressure {
            level,
            of,
            percent: percent(share.unwrap_or_default()),
        },
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 255 by then"
)]
fn percent(share: f64) -> u8 {
    (share * 100.0).clamp(0.0, 255.0) as u8
}

/// What is written where it is not `off`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "SheddingTriggers")]
struct Written {
    /// From which share of its memory limit on the process refuses requests of routes with
    /// `priority: low`; half-way from there to the limit also `normal`, after four fifths of the
    /// way also `high`. `off` for never. Without a limit of the cgroup, nothing is refused.
    /// Default 90%.
    memory: Trigger,
    /// From which share of its CPU quota on, over about two seconds, requests of `priority: low`
    /// are refused. Default `off`: whoever waits for the CPU is served late, not never.
    cpu: Trigger,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            memory: Trigger::At(0.9),
            cpu: Trigger::Off,
        }
    }
}

impl From<Written> for Shedding {
    fn from(written: Written) -> Self {
        let Written { memory, cpu } = written;
        Self { memory, cpu }
    }
}

impl<'de> Deserialize<'de> for Shedding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Shedding;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`off`, or a map with `memory` and `cpu`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Shedding, E> {
                match text {
                    "off" => Ok(Shedding::OFF),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Shedding, A::Error> {
                Written::deserialize(MapAccessDeserializer::new(map)).map(Into::into)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Shedding {
    fn schema_name() -> Cow<'static, str> {
        "Shedding".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"const": "off"}, generator.subschema_for::<Written>()]})
    }
}

impl<'de> Deserialize<'de> for Trigger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Trigger;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`off` or a share such as `90%`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Trigger, E> {
                if text == "off" {
                    return Ok(Trigger::Off);
                }
                let Share(share) = text.parse().map_err(E::custom)?;
                if share > 0.0 && share < 1.0 {
                    return Ok(Trigger::At(share));
                }
                Err(E::custom(
                    "requests cannot be refused from 0% or 100% of a limit on: write a share between, such as `90%`, or `off`",
                ))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Trigger, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Trigger, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Trigger {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Trigger".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"const": "off"}, Share::json_schema(generator)]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIORITIES: [Priority; 4] = [
        Priority::Low,
        Priority::Normal,
        Priority::High,
        Priority::Critical,
    ];

    #[test]
    fn each_level_refuses_one_priority_more_and_none_the_critical() {
        let refused = |level: Level| PRIORITIES.map(|priority| level.sheds(priority));
        assert_eq!(refused(Level::Calm), [false, false, false, false]);
        assert_eq!(refused(Level::Low), [true, false, false, false]);
        assert_eq!(refused(Level::Normal), [true, true, false, false]);
        assert_eq!(refused(Level::High), [true, true, true, false]);
    }

    #[test]
    fn levels_begin_on_the_way_from_the_trigger_to_the_limit_and_end_a_bit_lower() {
        let check = |share: f64, last: Level, level: Level| {
            let got = Trigger::At(0.9).level(Some(share), last);
            assert_eq!(got, level, "{share} after {last:?}");
        };
        check(0.5, Level::Calm, Level::Calm);
        check(0.899, Level::Calm, Level::Calm);
        check(0.901, Level::Calm, Level::Low);
        check(0.951, Level::Calm, Level::Normal);
        check(0.981, Level::Calm, Level::High);
        check(1.3, Level::Calm, Level::High);
        // It rises at once and falls late.
        check(0.951, Level::Low, Level::Normal);
        check(0.885, Level::Low, Level::Low);
        check(0.875, Level::Low, Level::Calm);
        check(0.935, Level::Normal, Level::Normal);
        check(0.925, Level::Normal, Level::Low);
        check(0.965, Level::High, Level::High);
        check(0.955, Level::High, Level::Normal);
        check(0.1, Level::High, Level::Calm);
    }

    #[test]
    fn without_a_limit_or_a_trigger_nothing_is_refused() {
        let check = |trigger: Trigger, share| {
            assert_eq!(trigger.level(share, Level::High), Level::Calm);
        };
        check(Trigger::At(0.9), None);
        check(Trigger::Off, Some(1.0));
    }

    #[test]
    fn the_worse_of_memory_and_cpu_counts_and_cpu_refuses_low_alone() {
        let shedding = Shedding {
            memory: Trigger::At(0.9),
            cpu: Trigger::At(0.95),
        };
        let check = |memory, cpu, level, of, percent| {
            let pressure = assess(&shedding, (memory, cpu), &mut Default::default());
            assert_eq!(
                pressure,
                Pressure { level, of, percent },
                "{memory:?} {cpu:?}"
            );
        };
        check(Some(0.5), Some(0.5), Level::Calm, Resource::Memory, 0);
        check(Some(0.5), Some(1.2), Level::Low, Resource::Cpu, 120);
        check(Some(0.93), Some(1.2), Level::Low, Resource::Memory, 93);
        check(Some(0.96), None, Level::Normal, Resource::Memory, 96);
        check(None, Some(9.0), Level::Low, Resource::Cpu, 255);
    }

    #[test]
    fn what_is_set_is_what_is_read_and_said() {
        let gauge = Gauge::default();
        assert_eq!(gauge.load(), Pressure::default());
        let pressure = Pressure {
            level: Level::Normal,
            of: Resource::Cpu,
            percent: 97,
        };
        gauge.store(pressure);
        assert_eq!(gauge.load(), pressure);
        assert_eq!(
            pressure.in_words(Priority::Low),
            "the process uses 97 % of its CPU quota: requests of priority low are refused"
        );
    }

    #[test]
    fn settings_are_off_or_shares_with_defaults() {
        let read =
            |json: &str| serde_json::from_str::<Shedding>(json).map_err(|error| error.to_string());
        let check = |json: &str, memory: Trigger, cpu: Trigger| {
            assert_eq!(read(json), Ok(Shedding { memory, cpu }), "{json}");
        };
        check("{}", Trigger::At(0.9), Trigger::Off);
        check(r#""off""#, Trigger::Off, Trigger::Off);
        check(
            r#"{"memory": "80%", "cpu": 0.95}"#,
            Trigger::At(0.8),
            Trigger::At(0.95),
        );
        check(r#"{"memory": "off"}"#, Trigger::Off, Trigger::Off);
        assert_eq!(read("{}"), Ok(Shedding::default()));
        let refused = |json: &str, sentence: &str| {
            let error = read(json).expect_err(json);
            assert!(error.contains(sentence), "{json}: {error}");
        };
        refused(r#""on""#, "expected `off`, or a map");
        refused(r#"{"memory": "100%"}"#, "write a share between");
        refused(r#"{"memory": 0}"#, "write a share between");
        refused(r#"{"memory": "much"}"#, "is not a share");
        refused(r#"{"disk": "90%"}"#, "unknown field `disk`");
    }

    #[test]
    fn priorities_are_four_words() {
        for priority in PRIORITIES {
            let word = format!("\"{}\"", priority.name());
            assert_eq!(serde_json::from_str::<Priority>(&word).ok(), Some(priority));
        }
        assert!(serde_json::from_str::<Priority>("\"urgent\"").is_err());
        assert_eq!(Priority::default(), Priority::Normal);
    }
}
