//! Look-ups against a real name server on loopback.

mod server;

use std::fs;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use self::server::{A, AAAA, Reply, Row, SRV, Server, address, addresses, alias, service};
use super::system::Places;
use super::{Family, Settings, follow_at};
use crate::upstream::discovery::reports::Reports;
use crate::upstream::discovery::{Found, ordered};

type Report = Result<Vec<String>, String>;

/// Everything within this, or the test has failed.
const DEADLINE: Duration = Duration::from_secs(20);

struct Case {
    server: Server,
    settings: Settings,
    places: Places,
    folder: TempDir,
}

impl Case {
    /// A name server, and settings that ask it for `users.test.` without waiting long.
    async fn new() -> Self {
        Self::with(r#"{"host": "users.test.", "port": 80}"#).await
    }

    async fn with(settings: &str) -> Self {
        let server = Server::start().await;
        let mut settings: Settings = serde_json::from_str(settings).expect("valid");
        settings.server = Some(server.at);
        settings.min_ttl = Duration::from_millis(50);
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            server,
            settings,
            places: Places {
                resolv_conf: folder.path().join("resolv.conf"),
                hosts: folder.path().join("hosts"),
            },
            folder,
        }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).expect("written");
    }

    /// Runs a script while the name is followed; it gets what is reported.
    async fn run(&self, script: impl AsyncFnOnce(&mut Told)) {
        let (sender, reports) = unbounded_channel();
        let reports_to = Reports::new(move |report| {
            let _over = sender.send(report);
        });
        let mut told = Told(reports);
        tokio::select! {
            _ = follow_at(&self.settings, self.places.clone(), reports_to) => {}
            done = tokio::time::timeout(DEADLINE, script(&mut told)) => done.expect("in time"),
        }
    }
}

struct Told(UnboundedReceiver<Result<Vec<Found>, String>>);

impl Told {
    /// The next report, as text.
    async fn next(&mut self) -> Report {
        let report = self.0.recv().await.expect("it never returns");
        report.map(|list| {
            assert_eq!(list, ordered(list.clone()), "in order, without doubles");
            list.iter().map(text).collect()
        })
    }

    async fn found(&mut self) -> Vec<String> {
        self.next().await.expect("a list")
    }

    async fn failure(&mut self) -> String {
        self.next().await.expect_err("a failure")
    }

    /// Fails if something is reported within a time.
    async fn nothing_for(&mut self, time: Duration) {
        let report = tokio::time::timeout(time, self.0.recv()).await;
        assert!(report.is_err(), "{report:?}");
    }
}

fn text(found: &Found) -> String {
    let host = found.host.as_deref().unwrap_or("?");
    format!("{} x{} {host}", found.address, found.weight)
}

#[tokio::test]
async fn changes_are_seen_and_equal_answers_are_not_told_twice() {
    let case = Case::new().await;
    let name = "users.test.";
    case.server
        .answers(name, A, addresses(name, 0, &["10.0.0.2", "10.0.0.1"]));
    case.run(async |told| {
        let first = ["10.0.0.1:80 x1 users.test", "10.0.0.2:80 x1 users.test"];
        assert_eq!(told.found().await, first);
        case.server
            .answers(name, A, addresses(name, 0, &["10.0.0.1", "10.0.0.2"]));
        told.nothing_for(Duration::from_millis(300)).await;
        case.server
            .answers(name, A, addresses(name, 0, &["10.0.0.3"]));
        assert_eq!(told.found().await, ["10.0.0.3:80 x1 users.test"]);
    })
    .await;
}

#[tokio::test]
async fn failures_are_told_once_and_empty_nothing() {
    let case = Case::new().await;
    let name = "users.test.";
    let good = || addresses(name, 0, &["10.0.0.1"]);
    let list = ["10.0.0.1:80 x1 users.test"];
    case.server.answers(name, A, good());
    case.run(async |told| {
        assert_eq!(told.found().await, list);
        let failures = [
            (
                Reply::Code(2),
                "the name server answered SERVFAIL about `users.test.`",
            ),
            (
                Reply::Code(5),
                "the name server answered REFUSED about `users.test.`",
            ),
            (
                Reply::Code(3),
                "the name `users.test.` does not exist (NXDOMAIN)",
            ),
            (
                Reply::Rows(vec![], vec![]),
                "the name `users.test.` has no A or AAAA record (empty answer)",
            ),
        ];
        for (reply, sentence) in failures {
            case.server.answers(name, A, reply);
            assert_eq!(told.failure().await, sentence);
            case.server.answers(name, A, good());
            // Told again, so that everyone knows that the failure is over.
            assert_eq!(told.found().await, list);
        }
        case.server.answers(name, A, Reply::Code(2));
        told.failure().await;
        told.nothing_for(Duration::from_millis(1_500)).await;
    })
    .await;
}

#[tokio::test]
async fn silence_is_told_and_empties_nothing() {
    let mut case = Case::new().await;
    case.settings.timeout = Duration::from_millis(500);
    let name = "users.test.";
    case.server
        .answers(name, A, addresses(name, 0, &["10.0.0.1"]));
    case.run(async |told| {
        told.found().await;
        case.server.answers(name, A, Reply::Silence);
        let failure = told.failure().await;
        assert_eq!(failure, "no name server answered within 500ms");
    })
    .await;
}

#[tokio::test]
async fn an_answer_counts_for_its_time_to_live() {
    let case = Case::new().await;
    let name = "users.test.";
    case.server
        .answers(name, A, addresses(name, 1, &["10.0.0.1"]));
    let start = Instant::now();
    case.run(async |told| {
        told.found().await;
        case.server
            .answers(name, A, addresses(name, 1, &["10.0.0.2"]));
        told.found().await;
    })
    .await;
    assert!(
        start.elapsed() >= Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn floor_and_ceiling_bound_how_often_is_asked() {
    let name = "users.test.";
    let mut case = Case::new().await;
    case.settings.min_ttl = Duration::from_millis(300);
    case.server
        .answers(name, A, addresses(name, 0, &["10.0.0.1"]));
    case.run(async |told| {
        told.found().await;
        told.nothing_for(Duration::from_millis(1_500)).await;
    })
    .await;
    let asked = case.server.questions().len();
    assert!((2..=6).contains(&asked), "{asked}");

    case.settings.min_ttl = Duration::from_millis(50);
    case.settings.max_ttl = Duration::from_millis(100);
    case.server
        .answers(name, A, addresses(name, 86_400, &["10.0.0.1"]));
    case.run(async |told| {
        told.found().await;
        case.server
            .answers(name, A, addresses(name, 86_400, &["10.0.0.2"]));
        told.found().await;
    })
    .await;
}

#[tokio::test]
async fn failures_bound_how_often_is_asked() {
    let case = Case::new().await;
    case.server.answers("users.test.", A, Reply::Code(2));
    case.run(async |told| {
        told.failure().await;
        told.nothing_for(Duration::from_millis(2_500)).await;
    })
    .await;
    // At once, after 1 s, perhaps after 2 s more; each is sent again once.
    let asked = case.server.questions().len();
    assert!((4..=6).contains(&asked), "{asked}");
}

#[tokio::test]
async fn families_are_chosen_as_the_settings_say() {
    let name = "users.test.";
    let v4 = "10.0.0.1:80 x1 users.test";
    let v6 = "[fd00::1]:80 x1 users.test";
    let absent = || Reply::Rows(vec![], vec![]);
    let four = || addresses(name, 60, &["10.0.0.1"]);
    let six = || addresses(name, 60, &["fd00::1"]);
    let check = async |family: Family, a: Reply, aaaa: Reply, expected: Result<&[&str], &str>| {
        let mut case = Case::new().await;
        case.settings.family = family;
        case.server.answers(name, A, a);
        case.server.answers(name, AAAA, aaaa);
        case.run(async |told| match expected {
            Ok(list) => assert_eq!(told.found().await, list, "{family:?}"),
            Err(words) => {
                let failure = told.failure().await;
                assert!(failure.contains(words), "{family:?}: {failure}");
            }
        })
        .await;
    };
    check(Family::PreferIpv4, four(), six(), Ok(&[v4])).await;
    check(Family::PreferIpv4, absent(), six(), Ok(&[v6])).await;
    // A failure is no reason to take the others.
    check(Family::PreferIpv4, Reply::Code(2), six(), Err("SERVFAIL")).await;
    check(Family::Ipv4, absent(), six(), Err("no A record")).await;
    check(Family::Ipv6, four(), six(), Ok(&[v6])).await;
    check(Family::Both, four(), six(), Ok(&[v4, v6])).await;
    check(Family::Both, four(), absent(), Ok(&[v4])).await;
    check(Family::Both, four(), Reply::Code(2), Err("SERVFAIL")).await;
}

#[tokio::test]
async fn an_alias_is_followed_and_its_time_counts() {
    let case = Case::new().await;
    let rows = |ip: &str| {
        let alias = alias("users.test.", 0, "other.test.");
        Reply::Rows(vec![alias, address("other.test.", 3_600, ip)], vec![])
    };
    case.server.answers("users.test.", A, rows("10.0.0.1"));
    case.run(async |told| {
        assert_eq!(told.found().await, ["10.0.0.1:80 x1 users.test"]);
        case.server.answers("users.test.", A, rows("10.0.0.2"));
        assert_eq!(told.found().await, ["10.0.0.2:80 x1 users.test"]);
    })
    .await;
}

#[tokio::test]
async fn what_is_too_long_for_a_packet_comes_over_tcp() {
    let case = Case::new().await;
    let rows: Vec<Row> = (0..1_000)
        .map(|number| {
            let ip = format!("10.0.{}.{}", number / 250, number % 250);
            address("users.test.", 60, &ip)
        })
        .collect();
    case.server.answers("users.test.", A, Reply::Long(rows));
    case.run(async |told| assert_eq!(told.found().await.len(), 1_000))
        .await;
}

const SERVICE: &str = r#"{"host": "_grpc._tcp.users.test.", "record": "srv"}"#;

#[tokio::test]
async fn services_name_targets_with_ports_and_weights() {
    let case = Case::with(SERVICE).await;
    let name = "_grpc._tcp.users.test.";
    let rows = vec![
        service(name, 60, [10, 0, 50_051], "a.users.test."),
        service(name, 60, [10, 7, 50_052], "b.users.test."),
        service(name, 60, [10, 7, 50_052], "gone.users.test."),
        service(name, 60, [20, 9, 50_053], "spare.users.test."),
    ];
    let along = vec![address("a.users.test.", 60, "10.0.0.1")];
    case.server.answers(name, SRV, Reply::Rows(rows, along));
    let two = addresses("b.users.test.", 60, &["10.0.0.2", "10.0.0.3"]);
    case.server.answers("b.users.test.", A, two);
    case.run(async |told| {
        let expected = [
            "10.0.0.1:50051 x1 a.users.test",
            "10.0.0.2:50052 x7 b.users.test",
            "10.0.0.3:50052 x7 b.users.test",
        ];
        assert_eq!(told.found().await, expected);
    })
    .await;
    let asked = case.server.questions();
    assert!(
        asked.contains(&("gone.users.test.".to_owned(), A)),
        "{asked:?}"
    );
    // What came along is not asked for, what is not taken neither.
    for name in ["a.users.test.", "spare.users.test."] {
        assert!(!asked.iter().any(|(of, _)| of == name), "{asked:?}");
    }
}

#[tokio::test]
async fn a_target_that_cannot_be_looked_up_empties_nothing() {
    let case = Case::with(SERVICE).await;
    let name = "_grpc._tcp.users.test.";
    let rows = |ttl| {
        let rows = ["a.users.test.", "b.users.test."].map(|of| service(name, ttl, [0, 0, 80], of));
        Reply::Rows(rows.to_vec(), vec![])
    };
    case.server.answers(name, SRV, rows(60));
    let one = || addresses("a.users.test.", 60, &["10.0.0.1"]);
    // The least time to live of all counts.
    let two = || addresses("b.users.test.", 0, &["10.0.0.2"]);
    case.server.answers("a.users.test.", A, one());
    case.server.answers("b.users.test.", A, two());
    case.run(async |told| {
        assert_eq!(told.found().await.len(), 2);
        case.server.answers("b.users.test.", A, Reply::Code(2));
        let failure = told.failure().await;
        assert!(
            failure.contains("SERVFAIL about `b.users.test.`"),
            "{failure}"
        );
        case.server.answers("b.users.test.", A, two());
        assert_eq!(told.found().await.len(), 2);
        let none = service(name, 60, [0, 0, 0], ".");
        case.server
            .answers(name, SRV, Reply::Rows(vec![none], vec![]));
        let failure = told.failure().await;
        assert!(failure.contains("there is no such service"), "{failure}");
    })
    .await;
}

#[tokio::test]
async fn search_domains_are_walked_once_and_again_when_the_name_is_gone() {
    let case = Case::with(r#"{"host": "users.default.svc", "port": 80}"#).await;
    case.write(
        "resolv.conf",
        "search default.svc.cluster.test svc.cluster.test cluster.test\n\
         nameserver 127.0.0.1\noptions ndots:5\n",
    );
    let full = "users.default.svc.cluster.test.";
    case.server
        .answers(full, A, addresses(full, 0, &["10.0.0.1"]));
    case.run(async |told| {
        assert_eq!(told.found().await, ["10.0.0.1:80 x1 users.default.svc"]);
        told.nothing_for(Duration::from_millis(300)).await;
        let asked = case.server.questions();
        let walk: Vec<&str> = asked
            .iter()
            .map(|(name, _)| name.as_str())
            .take(3)
            .collect();
        let expected = [
            "users.default.svc.default.svc.cluster.test.",
            "users.default.svc.svc.cluster.test.",
            full,
        ];
        assert_eq!(walk, expected);
        assert!(asked.len() > 3);
        assert!(
            asked.iter().skip(3).all(|(name, _)| name == full),
            "{asked:?}"
        );

        // A failure is no reason to ask elsewhere; that the name is gone is.
        case.server.answers(
            "users.default.svc.",
            A,
            addresses("users.default.svc.", 0, &["10.0.0.9"]),
        );
        case.server.answers(full, A, Reply::Code(2));
        assert!(told.failure().await.contains("SERVFAIL"));
        case.server.answers(full, A, Reply::Code(3));
        assert_eq!(told.found().await, ["10.0.0.9:80 x1 users.default.svc"]);
    })
    .await;
}

#[tokio::test]
async fn the_hosts_file_comes_first() {
    let mut case = Case::with(r#"{"host": "users", "port": 80}"#).await;
    case.settings.max_ttl = Duration::from_millis(100);
    case.write("hosts", "10.0.0.7 users\n10.0.0.8 users other\n");
    case.run(async |told| {
        let expected = ["10.0.0.7:80 x1 users", "10.0.0.8:80 x1 users"];
        assert_eq!(told.found().await, expected);
        case.write("hosts", "10.0.0.10 users\n");
        assert_eq!(told.found().await, ["10.0.0.10:80 x1 users"]);
    })
    .await;
    assert_eq!(case.server.questions(), []);
}

#[tokio::test]
async fn a_missing_resolv_conf_is_told_and_tried_again() {
    let mut case = Case::with(r#"{"host": "users", "port": 80}"#).await;
    case.settings.server = None;
    case.run(async |told| {
        let failure = told.failure().await;
        assert!(
            failure.contains("resolv.conf`: there is no such file"),
            "{failure}"
        );
        case.write("hosts", "10.0.0.7 users\n");
        assert_eq!(told.found().await, ["10.0.0.7:80 x1 users"]);
    })
    .await;
}
