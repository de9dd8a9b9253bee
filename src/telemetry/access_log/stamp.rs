//! Points in time as text: RFC 3339 in milliseconds, and the format of Apache's logs.
//!
//! Lines of one second share all but their milliseconds, so the rest is formatted once a second.
//! The wall clock is read at each tick only; a request's own clock reading is placed relative to it.

use std::io::Write as _;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Turns clock readings into text.
#[derive(Debug)]
pub(super) struct Stamp {
    instant: Instant,
    /// The wall clock at `instant`, in milliseconds since 1970.
    millis: u64,
    second: u64,
    rfc3339: Vec<u8>,
    apache: Vec<u8>,
}

impl Stamp {
    pub(super) fn new(now: Instant, wall: SystemTime) -> Self {
        let mut stamp = Self {
            instant: now,
            millis: 0,
            second: u64::MAX,
            rfc3339: Vec::new(),
            apache: Vec::new(),
        };
        stamp.set(now, wall);
        stamp
    }

    /// Sets both clocks: they drift apart, and the wall clock may be moved.
    pub(super) fn set(&mut self, now: Instant, wall: SystemTime) {
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.instant = now;
        self.millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    }

    /// `2026-11-24T22:05:01.123Z`.
    pub(super) fn rfc3339(&mut self, out: &mut Vec<u8>, at: Instant) {
        let millis = self.millis_at(at);
        self.format(millis / 1000);
        out.extend_from_slice(&self.rfc3339);
        out.push(b'.');
        three_digits(out, millis % 1000);
        out.push(b'Z');
    }

    /// `24/Nov/2026:22:05:01 +0000`.
    pub(super) fn apache(&mut self, out: &mut Vec<u8>, at: Instant) {
        let millis = self.millis_at(at);
        self.format(millis / 1000);
        out.extend_from_slice(&self.apache);
    }

    fn millis_at(&self, at: Instant) -> u64 {
        let millis = |duration: std::time::Duration| {
            duration.as_secs() * 1000 + u64::from(duration.subsec_millis())
        };
        match at.checked_duration_since(self.instant) {
            Some(after) => self.millis.saturating_add(millis(after)),
            None => {
                let before = self.instant.saturating_duration_since(at);
                self.millis.saturating_sub(millis(before))
            }
        }
    }

    fn format(&mut self, second: u64) {
        if second == self.second {
            return;
        }
        self.second = second;
        let (year, month, day) = date(second / 86_400);
        let (hour, minute, s) = (second / 3600 % 24, second / 60 % 60, second % 60);
        let mut names = (1..).zip(MONTHS);
        let name = names.find(|(m, _)| *m == month).map_or("", |found| found.1);
        self.rfc3339.clear();
        self.apache.clear();
        // Writing to a vector cannot fail.
        let _written = write!(
            self.rfc3339,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{s:02}"
        );
        let _written = write!(
            self.apache,
            "{day:02}/{name}/{year:04}:{hour:02}:{minute:02}:{s:02} +0000"
        );
    }
}

/// Three digits, leading zeros included.
pub(super) fn three_digits(out: &mut Vec<u8>, number: u64) {
    for unit in [100, 10, 1] {
        let digit = u8::try_from(number / unit % 10).unwrap_or_default();
        out.push(b'0' + digit);
    }
}

/// Year, month and day of a day since 1970, in the proleptic Gregorian calendar.
///
/// Counted in eras of 400 years that begin on 1 March, so that a leap day is a year's last.
fn date(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970.saturating_add(719_468);
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month = (months_since_march + 2) % 12 + 1;
    let year = days / 146_097 * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_agree_with_a_library() {
        for day in (0..200_000).step_by(13) {
            let wall = UNIX_EPOCH + Duration::from_hours(24 * day);
            let (y, m, d) = date(day);
            let text = humantime::format_rfc3339_seconds(wall).to_string();
            assert_eq!(text, format!("{y:04}-{m:02}-{d:02}T00:00:00Z"));
        }
        assert_eq!(date(11_016), (2000, 2, 29));
    }

    #[test]
    fn times_are_relative_to_the_last_tick() {
        let now = Instant::now();
        let wall = UNIX_EPOCH + Duration::from_millis(1_795_557_901_007);
        let mut stamp = Stamp::new(now, wall);
        let mut check = |at: Instant, rfc3339: &str, apache: &str| {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            stamp.rfc3339(&mut a, at);
            stamp.apache(&mut b, at);
            assert_eq!(String::from_utf8_lossy(&a), rfc3339);
            assert_eq!(String::from_utf8_lossy(&b), apache);
        };
        check(
            now,
            "2026-11-24T22:05:01.007Z",
            "24/Nov/2026:22:05:01 +0000",
        );
        let later = now + Duration::from_secs(59);
        check(
            later,
            "2026-11-24T22:06:00.007Z",
            "24/Nov/2026:22:06:00 +0000",
        );
        let earlier = now.checked_sub(Duration::from_millis(8)).expect("uptime");
        check(
            earlier,
            "2026-11-24T22:05:00.999Z",
            "24/Nov/2026:22:05:00 +0000",
        );
    }
}
