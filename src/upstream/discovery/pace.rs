//! How long to wait before the next look-up.
//!
//! Three bounds hold whatever a server answers: the floor and the ceiling of the settings, the
//! back-off after failures, and so many questions a second in the long run.

use std::time::Duration;

/// Questions a second that one upstream asks at most, over any longer time.
const RATE: u32 = 20;

/// The wait after the first failure; it doubles from there.
const FIRST: Duration = Duration::from_secs(1);

/// The longest wait after a failure.
const LONGEST: Duration = Duration::from_secs(30);

/// After an answer that holds for `ttl`, and that took `asked` questions.
///
/// Up to a tenth longer, by `random`: a thousand sidecars that began together soon ask apart, and
/// never before the answer has expired in the server's own cache.
pub(super) fn after_answer(
    ttl: Duration,
    floor: Duration,
    ceiling: Duration,
    asked: u32,
    random: u64,
) -> Duration {
    let wait = ttl.min(ceiling).max(floor).max(breather(asked));
    wait + wait.mul_f64(share(random) / 10.0)
}

/// After the `failures`th failure in a row: 1 s, 2 s, 4 s … 30 s, each a quarter more or less.
pub(super) fn after_failure(failures: u32, asked: u32, random: u64) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    let wait = FIRST.saturating_mul(doubled).min(LONGEST);
    let wait = wait.mul_f64(0.75 + share(random) / 2.0);
    wait.max(breather(asked))
}

/// What so many questions must be followed by, so that they stay within [`RATE`].
fn breather(asked: u32) -> Duration {
    Duration::from_secs(1) * asked / RATE
}

/// A share from 0 to just below 1.
fn share(random: u64) -> f64 {
    let ten_bits = u16::try_from(random % 1024).unwrap_or_default();
    f64::from(ten_bits) / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: u64 = 0;
    const MOST: u64 = 1023;

    fn millis(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn an_answer_holds_for_its_time_within_floor_and_ceiling() {
        let check = |ttl: u64, expected: u64| {
            let wait =
                |random| after_answer(millis(ttl), millis(5_000), millis(300_000), 1, random);
            assert_eq!(wait(LEAST), millis(expected), "{ttl}");
            assert!(wait(MOST) > millis(expected), "{ttl}");
            assert!(wait(MOST) < millis(expected + expected / 10), "{ttl}");
        };
        check(0, 5_000);
        check(1_000, 5_000);
        check(30_000, 30_000);
        check(300_000, 300_000);
        check(86_400_000, 300_000);
    }

    #[test]
    fn failures_back_off_up_to_half_a_minute() {
        let check = |failures: u32, middle: u64| {
            let wait = |random| after_failure(failures, 1, random);
            assert_eq!(wait(LEAST), millis(middle * 3 / 4), "{failures}");
            assert_eq!(wait(512), millis(middle), "{failures}");
            assert!(wait(MOST) < millis(middle * 5 / 4), "{failures}");
        };
        check(1, 1_000);
        check(2, 2_000);
        check(3, 4_000);
        check(5, 16_000);
        check(6, 30_000);
        check(1_000, 30_000);
        check(u32::MAX, 30_000);
    }

    #[test]
    fn many_questions_are_followed_by_a_longer_wait() {
        let answer = |asked| after_answer(millis(0), millis(1_000), millis(300_000), asked, LEAST);
        assert_eq!(answer(20), millis(1_000));
        assert_eq!(answer(257), millis(12_850));
        assert_eq!(after_failure(1, 257, LEAST), millis(12_850));
    }
}
