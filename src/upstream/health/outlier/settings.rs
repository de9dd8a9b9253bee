//! What people write under `outlier:`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::base::range;
use crate::base::values::{Period, Share};

/// Takes an endpoint out for a while when its answers say that it is broken. `outlier: {}` takes every
/// default; without the key nothing is ejected.
///
/// Example: `outlier: {consecutive_failures: 5, interval: 10s, ejection: 30s, max_ejected: 50%}`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(
    deny_unknown_fields,
    rename_all = "snake_case",
    default,
    expecting = "a map such as `{consecutive_failures: 5}`, or `{}` for every default"
)]
#[schemars(rename = "Outlier")]
pub struct Settings {
    /// After so many failures in a row an endpoint is ejected: answers with a status from 500, failed
    /// connects, resets, timeouts; 0: never. Default 5.
    #[serde(deserialize_with = "range::whole::<0, MAX_STREAK, _>")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub consecutive_failures: u32,
    /// The same for those failures alone that say that nobody is there: failed connects, resets, timeouts
    /// and the statuses 502, 503 and 504; 0: never. For services whose 500 is the request's fault. Default 0.
    #[serde(deserialize_with = "range::whole::<0, MAX_STREAK, _>")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub consecutive_gateway_failures: u32,
    /// How often success rates are compared; at least `100ms`. Default `10s`.
    #[serde(deserialize_with = "range::at_least::<100, _>")]
    pub interval: Period,
    /// How long the first ejection lasts, and by how much each repetition is longer; at least `100ms`. Up to
    /// a tenth is added by chance, so that not all come back in the same moment. Default `30s`.
    #[serde(deserialize_with = "range::at_least::<100, _>")]
    pub ejection: Period,
    /// The longest ejection, however often it is repeated; less than `ejection` counts as `ejection`.
    /// Default `5m`.
    pub max_ejection: Period,
    /// The share of the endpoints that may be ejected at once, rounded down. With less than `100%` an only
    /// endpoint is never ejected. Default `50%`.
    pub max_ejected: Share,
    /// Ejects who succeeds less often than the others. Default: off.
    pub success_rate: Option<SuccessRate>,
}

/// Ejects who succeeds less often than the others, looked at once an `interval`. `success_rate: {}` takes
/// every default.
///
/// Example: `success_rate: {requests: 100, endpoints: 5, deviation: 1.9}`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
pub struct SuccessRate {
    /// An endpoint with fewer requests in the interval is not judged; at least 1. Default 100.
    #[serde(deserialize_with = "range::whole::<1, 1_000_000, _>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: u32,
    /// With fewer endpoints that can be judged, nobody is; at least 3. Default 5.
    #[serde(deserialize_with = "range::whole::<3, 10_000, _>")]
    #[schemars(range(min = 3, max = 10_000))]
    pub endpoints: u32,
    /// By how many standard deviations below the mean of all an endpoint's success rate must be, 0.1 to 10.
    /// One of N endpoints can be at most √(N−1) away, which is 2 for five and 1.41 for three. Default 1.9.
    #[serde(deserialize_with = "deviation")]
    #[schemars(range(min = 0.1, max = 10))]
    pub deviation: f64,
    /// An endpoint of at least this success rate is never ejected, however good the others are. Default `95%`.
    pub below: Share,
}

/// What a [`Watch`](super::Watch) can count.
const MAX_STREAK: u32 = 1_000_000;

// No value that is not equal to itself passes the door.
impl Eq for Settings {}
impl Eq for SuccessRate {}

impl Default for Settings {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            consecutive_gateway_failures: 0,
            interval: Period(Duration::from_secs(10)),
            ejection: Period(Duration::from_secs(30)),
            max_ejection: Period(Duration::from_mins(5)),
            max_ejected: Share(0.5),
            success_rate: None,
        }
    }
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self {
            requests: 100,
            endpoints: 5,
            deviation: 1.9,
            below: Share(0.95),
        }
    }
}

fn deviation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    range::number(deserializer, &(0.1..=10.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Settings, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        assert_eq!(read("{}"), Ok(Settings::default()));
        let settings = read(r#"{"success_rate": {}}"#).expect("valid");
        assert_eq!(settings.success_rate, Some(SuccessRate::default()));
    }

    #[test]
    fn every_key_is_read() {
        let settings = read(
            r#"{"consecutive_failures": 3, "consecutive_gateway_failures": 2, "interval": "1s",
                "ejection": "5s", "max_ejection": "1m", "max_ejected": "34%",
                "success_rate": {"requests": 20, "endpoints": 3, "deviation": 1, "below": "90%"}}"#,
        );
        let expected = Settings {
            consecutive_failures: 3,
            consecutive_gateway_failures: 2,
            interval: Period(Duration::from_secs(1)),
            ejection: Period(Duration::from_secs(5)),
            max_ejection: Period(Duration::from_mins(1)),
            max_ejected: Share(0.34),
            success_rate: Some(SuccessRate {
                requests: 20,
                endpoints: 3,
                deviation: 1.0,
                below: Share(0.9),
            }),
        };
        assert_eq!(settings, Ok(expected));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_a_sentence() {
        let check = |json: &str, sentence: &str| {
            let error = read(json).expect_err(json);
            assert!(error.contains(sentence), "{json}: {error}");
        };
        check(r#"{"consecutive_failures": 1000001}"#, "write 0 to 1000000");
        check(
            r#"{"consecutive_gateway_failures": -1}"#,
            "invalid value: integer `-1`",
        );
        check(r#"{"interval": "0s"}"#, "write at least `100ms`");
        check(r#"{"ejection": "50ms"}"#, "write at least `100ms`");
        check(r#"{"max_ejected": "120%"}"#, "is not a share");
        check(r#"{"failures": 5}"#, "unknown field `failures`");
        check(r#"{"success_rate": {"requests": 0}}"#, "write 1 to 1000000");
        check(r#"{"success_rate": {"endpoints": 2}}"#, "write 3 to 10000");
        check(r#"{"success_rate": {"deviation": 0}}"#, "write 0.1 to 10");
    }
}
