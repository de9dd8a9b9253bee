//! How long an ejection lasts, which depends on how often there was one.

use std::time::{Duration, Instant};

use super::Settings;

/// The ejections of one endpoint.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Ejections that are not forgotten yet.
    times: u32,
    /// When the last one ends or ended; then moved on with each that is forgotten.
    mark: Option<Instant>,
}

impl Record {
    /// The endpoint is ejected now: says until when. `random` spreads the returns of many.
    pub fn ejected(&mut self, settings: &Settings, random: u64, now: Instant) -> Instant {
        self.decay(settings, now);
        self.times = self.times.saturating_add(1);
        let until = now + ejection(settings, self.times, random);
        self.mark = Some(until);
        until
    }

    /// The time is over, and the endpoint cannot be reached: says until when it sits out further. That is
    /// no repetition, for no request has failed: it comes back soon after whatever was down is up.
    pub fn prolonged(&mut self, settings: &Settings, random: u64, now: Instant) -> Instant {
        let until = now + ejection(settings, 1, random);
        self.mark = Some(until);
        until
    }

    /// Forgets one ejection for each length of `ejection` that has passed since the last one's end.
    pub fn decay(&mut self, settings: &Settings, now: Instant) {
        let step = settings.ejection.0;
        while self.times > 0
            && let Some(mark) = self.mark
            && now.saturating_duration_since(mark) >= step
        {
            self.times -= 1;
            self.mark = Some(mark + step);
        }
    }

    /// How many ejections are not forgotten.
    pub fn times(&self) -> u32 {
        self.times
    }
}

/// How long an ejection lasts that is the `times`-th not forgotten: `ejection` as often, at most
/// `max_ejection`, and up to a tenth more by chance.
pub fn ejection(settings: &Settings, times: u32, random: u64) -> Duration {
    let base = settings.ejection.0;
    let length = base
        .saturating_mul(times.max(1))
        .min(settings.max_ejection.0.max(base));
    let chance = u32::try_from(random % 1024).unwrap_or(0);
    length + length / 10_240 * chance
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::values::Period;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_repetition_is_longer_up_to_the_longest() {
        let default = Settings::default();
        let check = |settings: &Settings, times, random, seconds| {
            let length = ejection(settings, times, random);
            let about = Duration::from_secs(seconds);
            assert!(
                length.abs_diff(about) < SECOND / 10,
                "{times}: {length:?}, not {about:?}"
            );
        };
        check(&default, 0, 0, 30);
        check(&default, 1, 0, 30);
        check(&default, 2, 0, 60);
        check(&default, 10, 0, 300);
        check(&default, 11, 0, 300);
        check(&default, u32::MAX, 0, 300);
        check(&default, 1, 1023, 33);
        check(&default, 2, 512, 63);
        check(&default, 1, 1024, 30);
        let short = Settings {
            max_ejection: Period(SECOND),
            ..Settings::default()
        };
        check(&short, 3, 0, 30);
    }

    #[test]
    fn repetitions_are_forgotten_one_by_one() {
        let settings = Settings::default();
        let start = Instant::now();
        let mut record = Record::default();
        let mut now = start;
        // Ejected again in the moment of each return.
        for (times, seconds) in [(1, 30), (2, 60), (3, 90)] {
            let until = record.ejected(&settings, 0, now);
            assert_eq!(until - now, SECOND * seconds);
            assert_eq!(record.times(), times);
            now = until;
        }
        let check = |record: &mut Record, after: u32, times: u32| {
            record.decay(&settings, now + after * SECOND);
            assert_eq!(record.times(), times, "{after} s after its return");
        };
        check(&mut record, 0, 3);
        check(&mut record, 29, 3);
        check(&mut record, 30, 2);
        check(&mut record, 59, 2);
        check(&mut record, 60, 1);
        check(&mut record, 90, 0);
        check(&mut record, 1000, 0);
        let later = now + 1001 * SECOND;
        assert_eq!(record.ejected(&settings, 0, later) - later, SECOND * 30);
    }

    #[test]
    fn who_cannot_be_reached_is_asked_again_soon_however_often() {
        let settings = Settings::default();
        let start = Instant::now();
        let mut record = Record::default();
        let mut until = record.ejected(&settings, 0, start);
        for _ in 0..20 {
            let now = until;
            until = record.prolonged(&settings, 0, now);
            assert_eq!(until - now, SECOND * 30);
            assert_eq!(record.times(), 1);
        }
        assert_eq!(record.ejected(&settings, 0, until) - until, SECOND * 60);
    }

    #[test]
    fn nothing_is_forgotten_while_it_is_ejected() {
        let settings = Settings::default();
        let start = Instant::now();
        let mut record = Record::default();
        record.ejected(&settings, 0, start);
        record.ejected(&settings, 0, start + SECOND * 30);
        record.decay(&settings, start + 89 * SECOND);
        assert_eq!(record.times(), 2);
    }
}
