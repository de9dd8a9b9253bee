//! Numbers and times of settings that must lie in a range, refused at the door with a sentence.
//!
//! For `#[serde(deserialize_with = "range::whole::<1, 100, _>")]`. The JSON Schema is told by
//! `#[schemars(range(min = …, max = …))]` beside it.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::base::values::Period;

/// A whole number from `MIN` to `MAX`.
///
/// # Errors
/// Names the range.
pub fn whole<'de, const MIN: u32, const MAX: u32, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<u32, D::Error> {
    let number = u64::deserialize(deserializer)?;
    match u32::try_from(number) {
        Ok(number) if (MIN..=MAX).contains(&number) => Ok(number),
        _ => Err(D::Error::custom(format!(
            "{number} is out of range: write {MIN} to {MAX}"
        ))),
    }
}

/// A number with or without a fraction, from the range.
///
/// # Errors
/// Names the range.
pub fn number<'de, D: Deserializer<'de>>(
    deserializer: D,
    range: &RangeInclusive<f64>,
) -> Result<f64, D::Error> {
    let number = f64::deserialize(deserializer)?;
    // What is no number is in no range.
    if range.contains(&number) {
        return Ok(number);
    }
    let (min, max) = (range.start(), range.end());
    Err(D::Error::custom(format!(
        "{number} is out of range: write {min} to {max}"
    )))
}

/// A length of time of at least `MIN` milliseconds.
///
/// # Errors
/// Names the least.
pub fn at_least<'de, const MIN: u64, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Period, D::Error> {
    let period = Period::deserialize(deserializer)?;
    let min = Duration::from_millis(MIN);
    if period.0 >= min {
        return Ok(period);
    }
    let written = match period.0 {
        Duration::ZERO => "0".to_owned(),
        time => format!("{time:?}"),
    };
    Err(D::Error::custom(format!(
        "{written} is too short: write at least `{min:?}`"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error as Plain, F64Deserializer, StrDeserializer, U64Deserializer};

    #[test]
    fn a_whole_number_is_taken_within_its_range_and_refused_with_it() {
        let check = |number: u64, expected: Option<u32>| {
            let from: U64Deserializer<Plain> = number.into_deserializer();
            let read = whole::<2, 9, _>(from);
            match expected {
                Some(expected) => assert_eq!(read, Ok(expected)),
                None => {
                    let error = read.expect_err("out of range").to_string();
                    assert_eq!(error, format!("{number} is out of range: write 2 to 9"));
                }
            }
        };
        check(1, None);
        check(2, Some(2));
        check(9, Some(9));
        check(10, None);
        check(u64::MAX, None);
    }

    #[test]
    fn a_fraction_is_taken_within_its_range() {
        let check = |value: f64, fine: bool| {
            let from: F64Deserializer<Plain> = value.into_deserializer();
            assert_eq!(number(from, &(0.5..=2.0)).is_ok(), fine, "{value}");
        };
        check(0.5, true);
        check(2.0, true);
        check(0.49, false);
        check(f64::NAN, false);
        check(f64::INFINITY, false);
    }

    #[test]
    fn a_time_is_refused_below_its_least() {
        let read = |text: &'static str| {
            let from: StrDeserializer<'_, Plain> = text.into_deserializer();
            at_least::<100, _>(from).map_err(|error| error.to_string())
        };
        assert_eq!(read("100ms"), Ok(Period(Duration::from_millis(100))));
        assert_eq!(
            read("0s"),
            Err("0 is too short: write at least `100ms`".to_owned())
        );
    }
}
