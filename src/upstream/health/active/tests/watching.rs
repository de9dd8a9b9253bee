//! One check after the other.

use std::cell::RefCell;
use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::peer::{drain, endpoint, peer, read_head, settings, soon};
use crate::base::address::Address;
use crate::upstream::Protocol::Http1;
use crate::upstream::health::active::{Report, follow, watch};

/// Watches for `length` of paused time, with results by the number of the check.
async fn watched<C>(
    json: &str,
    length: Duration,
    check: impl Fn(usize) -> C,
) -> (Vec<(Duration, Report)>, Vec<Duration>)
where
    C: Future<Output = Result<(), String>>,
{
    let settings = settings(json);
    let began = Instant::now();
    let checks = RefCell::new(Vec::new());
    let mut reports = Vec::new();
    let asking = || {
        let number = checks.borrow().len();
        checks.borrow_mut().push(began.elapsed());
        check(number)
    };
    let watching = follow(&settings, asking, |report| {
        reports.push((began.elapsed(), report));
    });
    let never = tokio::time::timeout(length, watching).await;
    assert!(never.is_err());
    (reports, checks.into_inner())
}

#[tokio::test(start_paused = true)]
async fn the_first_check_is_at_once_and_the_others_keep_their_distance() {
    let json = r#"{"tcp": {}, "interval": "10s"}"#;
    let slow = |_| async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        Ok(())
    };
    let (reports, checks) = watched(json, Duration::from_secs(1000), slow).await;
    assert_eq!(checks[0], Duration::ZERO);
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].0, Duration::from_millis(900));
    assert!((90..=112).contains(&checks.len()), "{}", checks.len());
    let pauses: Vec<Duration> = checks
        .windows(2)
        .map(|two| two[1].saturating_sub(two[0]))
        .collect();
    // From start to start, whatever a check takes; a timer may be late by its own resolution.
    let bounds = Duration::from_secs(9)..Duration::from_millis(11_002);
    assert!(
        pauses.iter().all(|pause| bounds.contains(pause)),
        "{pauses:?}"
    );
    let longest = pauses.iter().max().expect("some");
    let shortest = pauses.iter().min().expect("some");
    let spread = longest.saturating_sub(*shortest);
    assert!(spread > Duration::from_millis(500), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn checks_that_take_a_whole_interval_do_not_overlap() {
    let json = r#"{"tcp": {}, "interval": "1s", "timeout": "1s"}"#;
    let late = |_| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Err("no answer within 1s".to_owned())
    };
    let (reports, checks) = watched(json, Duration::from_secs(100), late).await;
    assert_eq!(reports.len(), 1);
    assert!((90..=101).contains(&checks.len()), "{}", checks.len());
}

#[tokio::test(start_paused = true)]
async fn changes_are_reported_and_nothing_else_is() {
    let json = r#"{"tcp": {}, "interval": "1s", "healthy_after": 2, "unhealthy_after": 3}"#;
    let results = [
        "", "a", "a", "", "a", "a", "b", "b", "c", "", "b", "", "", "", "a",
    ];
    let check = |number| {
        ready(match results.get(number).copied().unwrap_or_default() {
            "" => Ok(()),
            words => Err(words.to_owned()),
        })
    };
    let (reports, _) = watched(json, Duration::from_mins(1), check).await;
    let told: Vec<(bool, &str)> = reports
        .iter()
        .map(|(_, report)| (report.healthy, &*report.detail))
        .collect();
    let expected = [
        (true, ""),
        (false, "b"),
        (false, "c"),
        (false, "b"),
        (true, ""),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn an_endpoint_that_falls_ill_and_recovers_is_seen_to() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&asked);
    let endpoint = peer(move |mut socket| {
        let number = counting.fetch_add(1, Relaxed);
        async move {
            read_head(&mut socket).await;
            let status = if (1..4).contains(&number) { 503 } else { 200 };
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
            let _left = socket.write_all(answer.as_bytes()).await;
            drain(&mut socket).await;
        }
    })
    .await;
    let settings = settings(r#"{"http": {}, "interval": "100ms", "unhealthy_after": 2}"#);
    let (tell, mut told) = mpsc::unbounded_channel();
    let watching = tokio::spawn(async move {
        let report = |report| {
            tell.send((asked.load(Relaxed), report))
                .expect("a listener");
        };
        match watch(&settings, Http1, Arc::new(endpoint), report).await {}
    });
    let expected = [
        (1, true, ""),
        (3, false, "GET / answered 503, expected 200-299"),
        (5, true, ""),
    ];
    for (asked, healthy, detail) in expected {
        let detail = detail.into();
        let report = Report { healthy, detail };
        assert_eq!(soon(told.recv()).await, Some((asked, report)));
    }
    watching.abort();
}

#[test]
fn a_watch_that_waits_takes_little_memory() {
    let settings = settings(r#"{"http": {}}"#);
    let endpoint = Arc::new(endpoint("127.0.0.1:1".parse::<Address>().expect("valid")));
    let watching = watch(&settings, Http1, endpoint, |_| {});
    let bytes = size_of_val(&watching);
    assert!(bytes < 3 << 10, "{bytes}");
}
