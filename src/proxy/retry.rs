//! Whether a request is tried again: the safety law, as a function.
//!
//! What may have run on an upstream is never tried again, unless the request may be repeated: by its
//! method (RFC 9110, 9.2.2) or because the route says so. What certainly did not run may always be.

use std::time::{Duration, Instant, SystemTime};

use http::{Method, StatusCode, header};

use crate::base::message::ResponseHead;
use crate::config::{Condition, Retry};
use crate::upstream::{Cause, Failure, RetryBudget};

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Without an answer.
    Failed {
        /// What that is called, if it can be worth another attempt.
        as_what: Option<Condition>,
        /// Whether the endpoint can have begun to work on it.
        ran: Ran,
    },
    /// With the head of an answer.
    Answered {
        status: StatusCode,
        /// That of gRPC, if it stands in the head already.
        grpc: Option<u8>,
    },
}

/// Whether an endpoint can have begun to work on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ran {
    Never,
    Maybe,
}

/// What an endpoint says about being asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushback {
    Nothing,
    Wait(Duration),
    /// Not to be asked again.
    Never,
}

/// From where the request of another attempt would come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resend {
    /// It was handed back: not a byte of it was sent.
    Untouched,
    /// A copy was kept.
    Copy,
    /// Nowhere.
    Gone,
}

/// What may be done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nature {
    /// Doing it twice is as good as doing it once.
    Idempotent,
    /// It may be done once.
    Once,
    /// It leaves HTTP: the connection is the client's from its first byte on.
    LeavesHttp,
}

/// What else is known of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// Attempts so far.
    pub made: u32,
    pub nature: Nature,
    pub resend: Resend,
    /// What the endpoint asked for.
    pub pushback: Pushback,
    /// When the request must be over.
    pub deadline: Option<Instant>,
}

/// Whether there is another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// After that wait.
    Again(Duration),
    Over(Why),
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The policy does not name how it ended: a good answer, mostly.
    NotNamed,
    /// It was tried often enough.
    Attempts,
    MayHaveRun,
    /// The request is not there any more.
    Gone,
    /// The endpoint asks for a longer wait, or not to be asked again.
    Pushback,
    /// The request would be over before.
    Deadline,
    Budget,
}

/// Decides about another attempt, and takes it out of the budget; `random` is uniform.
pub(crate) fn decide(
    policy: &Retry,
    ended: Ended,
    facts: &Facts,
    budget: &mut RetryBudget,
    now: Instant,
    random: u64,
) -> Verdict {
    if !names(policy, ended) {
        return Verdict::Over(Why::NotNamed);
    }
    if facts.made >= policy.attempts {
        return Verdict::Over(Why::Attempts);
    }
    if !may_repeat(ended, facts) {
        return Verdict::Over(Why::MayHaveRun);
    }
    if facts.resend == Resend::Gone {
        return Verdict::Over(Why::Gone);
    }
    let backoff = backoff(policy, facts.made, random);
    let wait = match facts.pushback {
        Pushback::Nothing => backoff,
        Pushback::Wait(wait) if wait <= policy.retry_after => wait.max(backoff),
        Pushback::Wait(_) | Pushback::Never => return Verdict::Over(Why::Pushback),
    };
    if facts
        .deadline
        .is_some_and(|deadline| now + wait >= deadline)
    {
        return Verdict::Over(Why::Deadline);
    }
    // Last, so that only what does happen is paid for.
    if !budget.take(now) {
        return Verdict::Over(Why::Budget);
    }
    Verdict::Again(wait)
}

/// True if the policy names how an attempt ended.
pub(crate) fn names(policy: &Retry, ended: Ended) -> bool {
    let on = &*policy.on;
    match ended {
        // No connection that works is no connection, wherever it broke.
        Ended::Failed {
            as_what: Some(Condition::Closed | Condition::StaleConnection),
            ran: Ran::Never,
        } if on.contains(&Condition::ConnectFailure) => true,
        Ended::Failed {
            as_what: Some(Condition::StaleConnection),
            ..
        } if on.contains(&Condition::Closed) => true,
        Ended::Failed { as_what, .. } => as_what.is_some_and(|what| on.contains(&what)),
        Ended::Answered { status, grpc } => {
            let code = status.as_u16();
            on.iter().any(|condition| match condition {
                Condition::Status(named) => *named == code,
                Condition::Class(class) => code / 100 == *class,
                Condition::Grpc(named) => grpc == Some(*named),
                _ => false,
            })
        }
    }
}

/// The law.
fn may_repeat(ended: Ended, facts: &Facts) -> bool {
    let never_ran = matches!(
        ended,
        Ended::Failed {
            ran: Ran::Never,
            ..
        }
    );
    match facts.nature {
        Nature::Idempotent => true,
        Nature::Once => never_ran,
        Nature::LeavesHttp => never_ran && facts.resend == Resend::Untouched,
    }
}

/// A random part of a wait that doubles with each attempt ("full jitter").
fn backoff(policy: &Retry, made: u32, random: u64) -> Duration {
    let doublings = made.saturating_sub(1).min(31);
    let longest = policy.backoff.saturating_mul(1 << doublings);
    let longest = longest.min(policy.max_backoff);
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random % nanos.saturating_add(1))
}

/// What may be done with a request of that method on a route with that policy.
pub(crate) fn nature(method: &Method, policy: &Retry) -> Nature {
    let is_idempotent = policy.idempotent
        || matches!(
            *method,
            Method::GET
                | Method::HEAD
                | Method::OPTIONS
                | Method::TRACE
                | Method::PUT
                | Method::DELETE
        );
    match *method {
        Method::CONNECT => Nature::LeavesHttp,
        _ if is_idempotent => Nature::Idempotent,
        _ => Nature::Once,
    }
}

/// What a failure is called in a policy.
pub(crate) fn condition(failure: &Failure) -> Option<Condition> {
    match failure.cause {
        Cause::Connect(_) | Cause::ConnectTimeout => Some(Condition::ConnectFailure),
        Cause::Refused => Some(Condition::RefusedStream),
        Cause::Closed if failure.reused => Some(Condition::StaleConnection),
        Cause::Closed => Some(Condition::Closed),
        // Nobody to ask, nonsense, or the client's own fault.
        _ => None,
    }
}

impl Ended {
    /// What the head of an answer says.
    pub(crate) fn answered(head: &ResponseHead) -> Self {
        Self::Answered {
            status: head.status,
            grpc: head.grpc_status(),
        }
    }
}

/// How long an endpoint asks us to wait; `wall` is the time of day.
///
/// gRPC's own word (<https://github.com/grpc/proposal/blob/master/A6-client-retries.md>), else
/// `retry-after` (RFC 9110, 10.2.3): seconds or a date.
pub(crate) fn pushback(head: &ResponseHead, wall: SystemTime) -> Pushback {
    if let Some(milliseconds) = head.headers.get("grpc-retry-pushback-ms") {
        let text = milliseconds.to_str().unwrap_or_default();
        // What is negative, or no number, means "do not".
        return text.parse().map_or(Pushback::Never, |milliseconds| {
            Pushback::Wait(Duration::from_millis(milliseconds))
        });
    }
    let Some(text) = head.headers.text(header::RETRY_AFTER) else {
        return Pushback::Nothing;
    };
    if let Ok(seconds) = text.parse() {
        return Pushback::Wait(Duration::from_secs(seconds));
    }
    match httpdate::parse_http_date(text) {
        Ok(date) => Pushback::Wait(date.duration_since(wall).unwrap_or_default()),
        Err(_) => Pushback::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use http::HeaderValue;

    use super::*;
    use crate::upstream::Deposit;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy(on: &'static [Condition]) -> Retry {
        Retry {
            on: Cow::Borrowed(on),
            backoff: Duration::from_millis(100),
            max_backoff: SECOND,
            retry_after: SECOND * 2,
            ..Retry::SECTION
        }
    }

    fn failed(what: Condition, ran: Ran) -> Ended {
        Ended::Failed {
            as_what: Some(what),
            ran,
        }
    }

    fn answered(status: u16) -> Ended {
        Ended::Answered {
            status: StatusCode::from_u16(status).expect("a status"),
            grpc: None,
        }
    }

    const EVERYTHING: &[Condition] = &[
        Condition::ConnectFailure,
        Condition::RefusedStream,
        Condition::Closed,
        Condition::Timeout,
        Condition::Class(5),
        Condition::Status(429),
        Condition::Grpc(14),
    ];

    #[test]
    fn what_may_have_run_is_repeated_only_if_it_may_be() {
        use Condition::{Closed, ConnectFailure, RefusedStream, Timeout};
        use Nature::{Idempotent, LeavesHttp, Once};
        use Ran::{Maybe, Never};
        use Resend::{Copy, Gone, Untouched};
        let now = Instant::now();
        let check = |ended: Ended, nature: Nature, resend: Resend, why: Option<Why>| {
            let facts = Facts {
                made: 1,
                nature,
                resend,
                pushback: Pushback::Nothing,
                deadline: None,
            };
            let mut budget = RetryBudget::new(now);
            let policy = policy(EVERYTHING);
            let verdict = decide(&policy, ended, &facts, &mut budget, now, 0);
            let expected = why.map_or(Verdict::Again(Duration::ZERO), Verdict::Over);
            assert_eq!(verdict, expected, "{ended:?} {nature:?} {resend:?}");
        };
        let (law, gone) = (Some(Why::MayHaveRun), Some(Why::Gone));
        let again = None;
        // It certainly did not run: any method, as long as the request is there.
        for what in [ConnectFailure, RefusedStream, Closed] {
            for nature in [Idempotent, Once] {
                check(failed(what, Never), nature, Untouched, again);
                check(failed(what, Never), nature, Copy, again);
                check(failed(what, Never), nature, Gone, gone);
            }
            check(failed(what, Never), LeavesHttp, Untouched, again);
            check(failed(what, Never), LeavesHttp, Copy, law);
            check(failed(what, Never), LeavesHttp, Gone, law);
        }
        // It may have run: only what may be repeated.
        let maybe = [failed(Closed, Maybe), failed(Timeout, Maybe)];
        for ended in maybe.into_iter().chain([answered(503), answered(429)]) {
            check(ended, Idempotent, Copy, again);
            check(ended, Idempotent, Gone, gone);
            for resend in [Copy, Gone] {
                check(ended, Once, resend, law);
                check(ended, LeavesHttp, resend, law);
            }
        }
    }

    #[test]
    fn only_what_is_named_is_tried_again() {
        use Condition::{
            Class, Closed, ConnectFailure, Grpc, RefusedStream, StaleConnection, Status, Timeout,
        };
        let check = |on: &'static [Condition], ended: Ended, expected: bool| {
            assert_eq!(names(&policy(on), ended), expected, "{on:?} {ended:?}");
        };
        let grpc = |code: u8| Ended::Answered {
            status: StatusCode::OK,
            grpc: Some(code),
        };
        let nameless = Ended::Failed {
            as_what: None,
            ran: Ran::Maybe,
        };
        check(EVERYTHING, nameless, false);
        check(&[ConnectFailure], failed(ConnectFailure, Ran::Never), true);
        check(&[RefusedStream], failed(ConnectFailure, Ran::Never), false);
        check(&[RefusedStream], failed(RefusedStream, Ran::Never), true);
        check(&[Closed], failed(Closed, Ran::Maybe), true);
        check(&[Closed], failed(Closed, Ran::Never), true);
        check(&[ConnectFailure], failed(Closed, Ran::Maybe), false);
        check(&[ConnectFailure], failed(Closed, Ran::Never), true);
        check(&[Closed], failed(Timeout, Ran::Maybe), false);
        check(&[Closed], failed(StaleConnection, Ran::Maybe), true);
        check(
            &[StaleConnection],
            failed(StaleConnection, Ran::Maybe),
            true,
        );
        check(&[StaleConnection], failed(Closed, Ran::Maybe), false);
        check(&[Timeout], failed(Timeout, Ran::Maybe), true);
        check(&[Status(503)], answered(503), true);
        check(&[Status(503)], answered(502), false);
        check(&[Class(5)], answered(502), true);
        check(&[Class(5)], answered(499), false);
        check(&[Class(4)], answered(429), true);
        check(&[Grpc(14)], grpc(14), true);
        check(&[Grpc(14)], grpc(13), false);
        check(&[Grpc(14)], answered(503), false);
        check(EVERYTHING, answered(200), false);
        check(EVERYTHING, grpc(0), false);
    }

    #[test]
    fn attempts_pushback_deadline_and_budget_each_end_it() {
        let now = Instant::now();
        let facts = |made: u32, pushback: Pushback, left: Option<u32>| Facts {
            made,
            nature: Nature::Idempotent,
            resend: Resend::Copy,
            pushback,
            deadline: left.map(|left| now + SECOND / 10 * left),
        };
        let check_ = |ended: Ended, facts: Facts, random: u64, expected: Verdict| {
            let mut budget = RetryBudget::new(now);
            let verdict = decide(&policy(EVERYTHING), ended, &facts, &mut budget, now, random);
            assert_eq!(verdict, expected, "{ended:?} {facts:?} {random}");
        };
        let check = |ended: Ended, made: u32, left: Option<u32>, random: u64, expected: Verdict| {
            check_(
                ended,
                facts(made, Pushback::Nothing, left),
                random,
                expected,
            );
        };
        let asked = |pushback: Pushback, left: Option<u32>, random: u64, expected: Verdict| {
            check_(answered(503), facts(1, pushback, left), random, expected);
        };
        let over = Verdict::Over;
        let again = |milliseconds: u64| Verdict::Again(Duration::from_millis(milliseconds));
        check(answered(503), 3, None, 0, over(Why::Attempts));
        check(answered(503), 2, None, 0, again(0));
        check(answered(200), 1, None, 0, over(Why::NotNamed));
        // 100 ms, then 200 ms at most.
        check(answered(503), 1, None, 100_000_000, again(100));
        check(answered(503), 1, None, 100_000_001, again(0));
        check(answered(503), 2, None, 200_000_000, again(200));
        // A wait that does not end before the deadline is not begun.
        check(answered(503), 1, Some(1), 99_000_000, again(99));
        check(answered(503), 1, Some(1), 100_000_000, over(Why::Deadline));
        check(answered(503), 1, Some(0), 0, over(Why::Deadline));
        let wait = |milliseconds| Pushback::Wait(Duration::from_millis(milliseconds));
        asked(wait(2_000), None, 0, again(2_000));
        asked(wait(2_001), None, 0, over(Why::Pushback));
        asked(wait(0), None, 7_000_000, again(7));
        asked(wait(500), Some(5), 0, over(Why::Deadline));
        asked(Pushback::Never, None, 0, over(Why::Pushback));
    }

    #[test]
    fn only_what_happens_is_taken_out_of_the_budget() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        budget.request(Deposit::percent(100), now);
        let mut decide = |ended, pushback| {
            let facts = Facts {
                made: 1,
                nature: Nature::Idempotent,
                resend: Resend::Copy,
                pushback,
                deadline: Some(now + SECOND),
            };
            decide(&policy(EVERYTHING), ended, &facts, &mut budget, now, 0)
        };
        for _ in 0..100 {
            let good = decide(answered(200), Pushback::Nothing);
            assert_eq!(good, Verdict::Over(Why::NotNamed));
            let pushed = decide(answered(503), Pushback::Never);
            assert_eq!(pushed, Verdict::Over(Why::Pushback));
        }
        let again = Verdict::Again(Duration::ZERO);
        let mut bad = || decide(answered(503), Pushback::Nothing);
        assert_eq!((0..100).take_while(|_| bad() == again).count(), 31);
        assert_eq!(bad(), Verdict::Over(Why::Budget));
    }

    #[test]
    fn the_wait_grows_up_to_its_limit() {
        let policy = policy(EVERYTHING);
        let longest = |made| backoff(&policy, made, u64::MAX);
        for (made, most) in [(1, 100), (2, 200), (4, 800), (5, 1_000), (1_000, 1_000)] {
            let waits = (0..1_000).map(|n| backoff(&policy, made, n * 1_000_003));
            let most = Duration::from_millis(most);
            assert!(waits.max() <= Some(most) && longest(made) <= most, "{made}");
            let random = u64::try_from(most.as_nanos()).expect("small");
            assert_eq!(backoff(&policy, made, random), most);
        }
    }

    #[test]
    fn methods_say_what_may_be_repeated() {
        let mut forced = policy(EVERYTHING);
        forced.idempotent = true;
        let check = |method: &str, nature_: Nature, when_forced: Nature| {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            assert_eq!(nature(&method, &policy(EVERYTHING)), nature_, "{method}");
            assert_eq!(nature(&method, &forced), when_forced, "{method}");
        };
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            check(method, Nature::Idempotent, Nature::Idempotent);
        }
        for method in ["POST", "PATCH", "get", "PURGE"] {
            check(method, Nature::Once, Nature::Idempotent);
        }
        check("CONNECT", Nature::LeavesHttp, Nature::LeavesHttp);
    }

    #[test]
    fn an_upstream_says_how_long_to_wait() {
        let wall = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        let check = |name: &'static str, value: &'static str, expected: Pushback| {
            let mut head = ResponseHead::new(StatusCode::SERVICE_UNAVAILABLE);
            head.headers.set(
                http::HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
            assert_eq!(pushback(&head, wall), expected, "{name}: {value}");
        };
        check("retry-after", "3", Pushback::Wait(SECOND * 3));
        check(
            "retry-after",
            "Sun, 06 Nov 1994 08:49:42 GMT",
            Pushback::Wait(SECOND * 5),
        );
        check(
            "retry-after",
            "Sun, 06 Nov 1994 08:00:00 GMT",
            Pushback::Wait(Duration::ZERO),
        );
        check("retry-after", "soon", Pushback::Nothing);
        check("retry-after", "-1", Pushback::Nothing);
        check("x-other", "1", Pushback::Nothing);
        let ms = "grpc-retry-pushback-ms";
        check(ms, "250", Pushback::Wait(Duration::from_millis(250)));
        check(ms, "0", Pushback::Wait(Duration::ZERO));
        check(ms, "-1", Pushback::Never);
        check(ms, "soon", Pushback::Never);
    }
}
