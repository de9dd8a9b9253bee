//! What results mean, and when to ask again: pure.

use std::time::Duration;

use super::Settings;

/// What is known of an endpoint's health: nothing, then what the first check said, then what enough
/// checks in a row have said since.
///
/// The first check decides alone, either way: a gateway that starts must not wait for several rounds
/// before it sends requests, nor send them where the one check that there was has failed.
#[derive(Debug, Clone)]
pub struct Checked {
    healthy: Option<bool>,
    /// Results in a row that say the opposite.
    against: u32,
    healthy_after: u32,
    unhealthy_after: u32,
}

impl Checked {
    /// Nothing known yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            healthy: None,
            against: 0,
            healthy_after: settings.healthy_after(),
            unhealthy_after: settings.unhealthy_after(),
        }
    }

    /// Takes one result; says what the endpoint is from now on, if that has changed.
    pub fn note(&mut self, ok: bool) -> Option<bool> {
        if self.healthy == Some(ok) {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = match (self.healthy, ok) {
            (None, _) => 1,
            (Some(_), true) => self.healthy_after,
            (Some(_), false) => self.unhealthy_after,
        };
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.healthy = Some(ok);
        self.healthy
    }

    /// What the endpoint is; none before the first result.
    pub fn healthy(&self) -> Option<bool> {
        self.healthy
    }
}

/// What checks have found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whether the endpoint may take requests.
    pub healthy: bool,
    /// Why not, in a sentence for the operator; empty if it may.
    pub detail: Box<str>,
}

/// One endpoint's results, as they are worth telling.
#[derive(Debug)]
pub(super) struct Course {
    checked: Checked,
    /// The reason that was told last.
    told: Box<str>,
}

impl Course {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            checked: Checked::new(settings),
            told: Box::default(),
        }
    }

    /// Takes one result; none if it is nothing new.
    pub(super) fn learn(&mut self, result: Result<(), String>) -> Option<Report> {
        let changed = self.checked.note(result.is_ok()).is_some();
        let healthy = self.checked.healthy() == Some(true);
        let detail = match result {
            Err(words) if !healthy => words.into_boxed_str(),
            // One success of several that it takes: the old reason stands.
            Ok(()) if !healthy => return None,
            _ => Box::default(),
        };
        if !changed && detail == self.told {
            return None;
        }
        self.told.clone_from(&detail);
        Some(Report { healthy, detail })
    }
}

/// How long after the start of a check the next one starts: the interval, up to a tenth more or less
/// by `random`, so that gateways that started together do not go on asking in step.
pub fn pause(interval: Duration, random: u64) -> Duration {
    let interval = interval.as_nanos();
    // An interval of a day at most times 2^64 is far below 2^128.
    let extra = (interval / 5).saturating_mul(u128::from(random)) >> 64;
    let nanos = interval - interval / 10 + extra;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(healthy_after: u32, unhealthy_after: u32) -> Settings {
        let json = format!(
            r#"{{"tcp": {{}}, "healthy_after": {healthy_after}, "unhealthy_after": {unhealthy_after}}}"#
        );
        serde_json::from_str(&json).expect("valid")
    }

    /// `results`: a `+` for each success, a `-` for each failure. `expected`: what was said after each,
    /// a `.` for nothing.
    #[track_caller]
    fn check(healthy_after: u32, unhealthy_after: u32, results: &str, expected: &str) {
        let mut checked = Checked::new(&settings(healthy_after, unhealthy_after));
        let said: String = results
            .chars()
            .map(|result| match checked.note(result == '+') {
                None => '.',
                Some(true) => 'H',
                Some(false) => 'U',
            })
            .collect();
        assert_eq!(
            said, expected,
            "{healthy_after}/{unhealthy_after}: {results}"
        );
    }

    #[test]
    fn the_first_result_decides_at_once() {
        check(3, 3, "+", "H");
        check(3, 3, "-", "U");
    }

    #[test]
    fn later_it_takes_enough_results_in_a_row() {
        check(1, 3, "+---+", "H..UH");
        check(2, 3, "---++-+++", "U...H....");
        check(2, 2, "+-+-+--+-++", "H.....U...H");
        check(1, 1, "+-+-", "HUHU");
        check(3, 1, "+-++-+++", "HU.....H");
    }

    #[test]
    fn a_change_of_words_is_told_and_a_repetition_is_not() {
        let mut course = Course::new(&settings(2, 2));
        let mut learn = |result: Result<(), &str>, expected: Option<(bool, &str)>| {
            let told = course.learn(result.map_err(str::to_owned));
            let expected = expected.map(|(healthy, detail)| Report {
                healthy,
                detail: detail.into(),
            });
            assert_eq!(told, expected, "{result:?}");
        };
        learn(Ok(()), Some((true, "")));
        learn(Ok(()), None);
        learn(Err("refused"), None);
        learn(Err("slow"), Some((false, "slow")));
        learn(Err("slow"), None);
        learn(Err("refused"), Some((false, "refused")));
        learn(Ok(()), None);
        learn(Err("refused"), None);
        learn(Ok(()), None);
        learn(Ok(()), Some((true, "")));
        learn(Err("refused"), None);
    }

    #[test]
    fn a_pause_is_within_a_tenth_of_the_interval_and_uses_all_of_it() {
        let interval = Duration::from_secs(5);
        assert_eq!(pause(interval, 0), Duration::from_millis(4500));
        assert_eq!(pause(interval, u64::MAX).as_millis(), 5499);
        assert_eq!(pause(interval, 1 << 63), interval);
        let day = Duration::from_hours(24);
        assert!(pause(day, u64::MAX) <= day.mul_f64(1.1));
        assert!(pause(day, u64::MAX) > day.mul_f64(1.099));
        assert!(pause(Duration::MAX, u64::MAX) > day);
    }
}
