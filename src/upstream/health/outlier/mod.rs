//! Outlier ejection: an endpoint that fails requests, or more of them than the others, takes none
//! for a while.
//!
//! Nothing is sent for it: it judges by the answers to real requests. Workers count into one
//! [`Watch`] an endpoint; what follows from the counts is decided here, purely, and done elsewhere.
//! An ejection always ends by itself, and never takes more endpoints than `max_ejected` allows.

mod record;
mod settings;
mod watch;

use std::fmt;

use http::StatusCode;

use crate::base::values::Share;
use crate::upstream::failure::Cause;

pub use record::{Record, ejection};
pub use settings::{Settings, SuccessRate};
pub use watch::{Epoch, Watch};

/// A failure that counts against an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// It could not be reached, broke off, took too long, or answered 502, 503 or 504.
    Gateway,
    /// It answered with another status from 500.
    Server,
}

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// So many requests in a row failed.
    Consecutive(u32),
    /// So many requests in a row failed as [`Failed::Gateway`].
    Gateway(u32),
    /// It failed again, before any success, after it came back from an ejection.
    Probation,
    /// It fails more than the others.
    SuccessRate {
        /// The share of its requests that succeeded, in percent.
        percent: u8,
        /// The mean of that share over all endpoints that were compared.
        average: u8,
    },
}

impl Failed {
    /// What a status says about the endpoint; none if it is no failure of the endpoint's.
    pub fn by_status(status: StatusCode) -> Option<Self> {
        match status.as_u16() {
            502..=504 => Some(Self::Gateway),
            500.. => Some(Self::Server),
            _ => None,
        }
    }

    /// What the number in `grpc-status` says: UNAVAILABLE is what 503 is, UNKNOWN, INTERNAL and
    /// DATA_LOSS are what 500 is. All others are answers.
    pub fn by_grpc_status(code: u8) -> Option<Self> {
        match code {
            14 => Some(Self::Gateway),
            2 | 13 | 15 => Some(Self::Server),
            _ => None,
        }
    }

    /// What the lack of an answer says. A refused stream is how HTTP/2 endpoints stop politely, and a
    /// broken body of the request is the client's: neither counts.
    pub fn by_cause(cause: &Cause) -> Option<Self> {
        matches!(
            cause,
            Cause::Connect(_) | Cause::ConnectTimeout | Cause::Closed | Cause::Protocol
        )
        .then_some(Self::Gateway)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consecutive(1) => f.write_str("a failure"),
            Self::Consecutive(count) => write!(f, "{count} failures in a row"),
            Self::Gateway(1) => f.write_str("a gateway failure"),
            Self::Gateway(count) => write!(f, "{count} gateway failures in a row"),
            Self::Probation => f.write_str("a failure right after its return"),
            Self::SuccessRate { percent, average } => write!(
                f,
                "only {percent}% of its requests succeeded, against {average}% on average"
            ),
        }
    }
}

/// Whether one more endpoint may be ejected when `ejected` of `endpoints` are.
///
/// At most `max` of them, rounded down: with 50% an only endpoint never is, and of three one.
pub fn may_eject(ejected: usize, endpoints: usize, max: Share) -> bool {
    // Shares such as 0.29 are a little below what they say: 29 of 100 must be allowed by 29%.
    float(ejected as u64 + 1) <= max.0 * float(endpoints as u64) + SLACK
}

/// What arithmetic may add or take away.
const SLACK: f64 = 1e-9;

/// Who succeeded markedly less often than the others in an interval, the worst first.
///
/// `totals` is a row for each endpoint that took requests: its number, successes, failures. The
/// rule is Envoy's (success rate below mean minus `deviation` population standard deviations, among
/// endpoints with enough requests, if these are enough), with `below` as a second condition.
pub fn by_success_rate(settings: &Settings, totals: &[(u32, u64, u64)]) -> Vec<(u32, Reason)> {
    let Some(rule) = &settings.success_rate else {
        return Vec::new();
    };
    let mut rates: Vec<Rate> = totals
        .iter()
        .filter(|(_, successes, failures)| successes + failures >= u64::from(rule.requests))
        .map(|&(number, successes, failures)| Rate::new(number, successes, failures))
        .collect();
    if rates.len() < rule.endpoints as usize {
        return Vec::new();
    }
    let count = float(rates.len() as u64);
    let mean = rates.iter().map(|rate| rate.share).sum::<f64>() / count;
    let variance = rates
        .iter()
        .map(|rate| (rate.share - mean).powi(2))
        .sum::<f64>()
        / count;
    let least = (mean - rule.deviation * variance.sqrt()).min(rule.below.0);
    let average = rates.iter().map(|rate| rate.percent).sum::<u64>() / (rates.len() as u64).max(1);
    rates.retain(|rate| rate.share < least - SLACK);
    rates.sort_by(|a, b| a.share.total_cmp(&b.share));
    let reason = |rate: &Rate| Reason::SuccessRate {
        percent: u8::try_from(rate.percent).unwrap_or(100),
        average: u8::try_from(average).unwrap_or(100),
    };
    rates
        .iter()
        .map(|rate| (rate.number, reason(rate)))
        .collect()
}

struct Rate {
    number: u32,
    share: f64,
    /// For people: rounded down, so that only a faultless endpoint has 100.
    percent: u64,
}

impl Rate {
    fn new(number: u32, successes: u64, failures: u64) -> Self {
        let all = (successes + failures).max(1);
        Self {
            number,
            share: float(successes) / float(all),
            percent: successes.saturating_mul(100) / all,
        }
    }
}

/// Exact below four billion, and what is counted here never gets there.
fn float(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn statuses_and_causes_count_as_what_they_are() {
        let check = |status: u16, expected| {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(Failed::by_status(status), expected, "{status}");
        };
        check(200, None);
        check(404, None);
        check(429, None);
        check(499, None);
        check(500, Some(Failed::Server));
        check(501, Some(Failed::Server));
        check(502, Some(Failed::Gateway));
        check(503, Some(Failed::Gateway));
        check(504, Some(Failed::Gateway));
        check(505, Some(Failed::Server));
        check(599, Some(Failed::Server));

        let check = |cause: Cause, expected| {
            assert_eq!(Failed::by_cause(&cause), expected, "{cause:?}");
        };
        check(
            Cause::Connect(io::ErrorKind::ConnectionRefused),
            Some(Failed::Gateway),
        );
        check(Cause::ConnectTimeout, Some(Failed::Gateway));
        check(Cause::Closed, Some(Failed::Gateway));
        check(Cause::Protocol, Some(Failed::Gateway));
        check(Cause::NoEndpoint, None);
        check(Cause::Refused, None);

        for (code, expected) in [
            (0, None),
            (2, Some(Failed::Server)),
            (4, None),
            (5, None),
            (8, None),
            (12, None),
            (13, Some(Failed::Server)),
            (14, Some(Failed::Gateway)),
            (15, Some(Failed::Server)),
            (16, None),
        ] {
            assert_eq!(Failed::by_grpc_status(code), expected, "grpc-status {code}");
        }
    }

    #[test]
    fn a_reason_reads_like_a_sentence() {
        let check = |reason: Reason, words: &str| assert_eq!(reason.to_string(), words);
        check(Reason::Consecutive(5), "5 failures in a row");
        check(Reason::Consecutive(1), "a failure");
        check(Reason::Gateway(3), "3 gateway failures in a row");
        check(Reason::Gateway(1), "a gateway failure");
        check(Reason::Probation, "a failure right after its return");
        check(
            Reason::SuccessRate {
                percent: 61,
                average: 98,
            },
            "only 61% of its requests succeeded, against 98% on average",
        );
    }

    #[test]
    fn no_more_than_the_share_is_ejected_at_once() {
        let check = |ejected, endpoints, share, expected| {
            assert_eq!(
                may_eject(ejected, endpoints, Share(share)),
                expected,
                "{ejected} of {endpoints} at {share}"
            );
        };
        check(0, 0, 0.5, false);
        check(0, 1, 0.5, false);
        check(0, 1, 0.99, false);
        check(0, 1, 1.0, true);
        check(0, 2, 0.5, true);
        check(1, 2, 0.5, false);
        check(0, 3, 0.5, true);
        check(1, 3, 0.5, false);
        check(1, 4, 0.5, true);
        check(2, 4, 0.5, false);
        check(0, 9, 0.1, false);
        check(0, 10, 0.1, true);
        check(1, 10, 0.1, false);
        check(28, 100, 0.29, true);
        check(29, 100, 0.29, false);
        check(0, 100, 0.0, false);
        check(2, 3, 1.0, true);
        check(3, 3, 1.0, false);
        // Some left since they were ejected.
        check(5, 4, 1.0, false);
    }

    fn rule(json: &str) -> Settings {
        let settings = format!(r#"{{"success_rate": {json}}}"#);
        serde_json::from_str(&settings).expect("valid settings")
    }

    #[test]
    fn who_succeeds_less_often_than_the_others_is_found() {
        let check = |rule: &Settings, rows: &[(u64, u64)], expected: &[u32]| {
            let totals: Vec<_> = (0..)
                .zip(rows)
                .map(|(number, &(successes, failures))| (number, successes, failures))
                .collect();
            let found: Vec<u32> = by_success_rate(rule, &totals)
                .into_iter()
                .map(|(number, _)| number)
                .collect();
            assert_eq!(found, expected, "{rows:?}");
        };
        let fine = (1000, 0);
        let default = rule("{}");
        check(&default, &[], &[]);
        check(&default, &[fine; 5], &[]);
        check(&default, &[fine, fine, fine, fine, (600, 400)], &[4]);
        check(&default, &[(0, 1000), fine, fine, fine, fine, fine], &[0]);
        // Too few endpoints, or too few requests at one of them.
        check(&default, &[fine, fine, fine, (600, 400)], &[]);
        check(&default, &[fine, fine, fine, fine, (0, 99)], &[]);
        check(&default, &[fine, fine, fine, fine, (0, 100)], &[4]);
        check(&default, &[fine, fine, fine, (0, 0), (0, 1000)], &[]);
        // All alike, however bad.
        check(&default, &[(100, 900); 6], &[]);
        // An outlier by arithmetic, but nothing an operator would call one.
        check(&default, &[fine, fine, fine, fine, (999, 1)], &[]);
        let strict = rule(r#"{"below": "100%"}"#);
        check(&strict, &[fine, fine, fine, fine, (999, 1)], &[4]);
        // Two bad ones of twelve: the worst first.
        let mut rows = [fine; 12];
        rows[3] = (500, 500);
        rows[7] = (450, 550);
        check(&default, &rows, &[7, 3]);
        // With three endpoints one is never further than 1.41 deviations away.
        let three = rule(r#"{"endpoints": 3, "deviation": 1.9}"#);
        check(&three, &[fine, fine, (0, 1000)], &[]);
        let three = rule(r#"{"endpoints": 3, "deviation": 1.3}"#);
        check(&three, &[fine, fine, (0, 1000)], &[2]);
        // Off.
        check(
            &Settings::default(),
            &[fine, fine, fine, fine, (0, 1000)],
            &[],
        );
    }

    #[test]
    fn the_reason_names_the_share_and_the_mean() {
        let totals = [
            (10, 100, 0),
            (11, 100, 0),
            (12, 100, 0),
            (13, 100, 0),
            (14, 61, 39),
        ];
        assert_eq!(
            by_success_rate(&rule("{}"), &totals),
            [(
                14,
                Reason::SuccessRate {
                    percent: 61,
                    average: 92
                }
            )]
        );
    }
}
