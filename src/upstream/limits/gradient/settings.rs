//! What people write under `adaptive:`.

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::base::range;

/// A limit on requests under way that each worker finds for itself.
///
/// Example: `adaptive: {min: 8, max: 1000, tolerance: 1.5}`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(
    deny_unknown_fields,
    rename_all = "snake_case",
    default,
    expecting = "a map such as `{min: 8, max: 1000}`, or `{}` for every default"
)]
#[schemars(rename = "AdaptiveLimit")]
pub struct Settings {
    /// The limit never falls below it, for each worker; 1 to 100000. Default 8.
    #[serde(deserialize_with = "range::whole::<1, 100_000, _>")]
    #[schemars(range(min = 1, max = 100_000))]
    pub min: u32,
    /// It never rises above it, for each worker; `min` to 100000. Default 1000.
    #[serde(deserialize_with = "range::whole::<1, 100_000, _>")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max: u32,
    /// The limit falls when latency is so many times what it is without a queue, 1.1 to 10. More lets a
    /// longer queue form in the service. Default 1.5.
    #[serde(deserialize_with = "tolerance")]
    #[schemars(range(min = 1.1, max = 10))]
    pub tolerance: f64,
}

// No value that is not equal to itself passes the door.
impl Eq for Settings {}

impl Default for Settings {
    fn default() -> Self {
        Self {
            min: 8,
            max: 1000,
            tolerance: 1.5,
        }
    }
}

fn tolerance<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    range::number(deserializer, &(1.1..=10.0))
}

/// Reads the settings and compares `min` with `max`.
pub(in super::super) fn checked<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Settings>, D::Error> {
    let settings = Option::<Settings>::deserialize(deserializer)?;
    if let Some(Settings { min, max, .. }) = settings
        && min > max
    {
        return Err(D::Error::custom(format!(
            "`min` is {min} and `max` is {max}: write a `max` of {min} or more"
        )));
    }
    Ok(settings)
}
