//! A roster in scenes: who comes, goes, fails, is asked, is back.

use std::collections::BTreeMap;

use super::Verdict::{Ejected, Out, TooMany};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A roster, and the time that it is told.
struct Scene {
    roster: Roster,
    now: Instant,
    members: Members,
}

impl Scene {
    /// Of an upstream with these settings.
    fn new(json: &str) -> Self {
        let mut whole: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(json).expect(json);
        whole
            .entry("endpoints".into())
            .or_insert_with(|| serde_json::json!([]));
        let settings = serde_json::to_string(&whole).expect("JSON");
        let settings: Settings = serde_json::from_str(&settings).expect(json);
        Self {
            roster: Roster::new(&settings, None),
            now: Instant::now(),
            members: Members::default(),
        }
    }

    /// `a b:3`: the endpoints a and b, b with a weight of 3.
    fn list(&mut self, names: &str) -> [usize; 3] {
        let endpoint = |name: &str| {
            let (name, weight) = name.split_once(':').unwrap_or((name, "1"));
            let address = format!("unix:/{name}").parse().expect("an address");
            Endpoint::new(address, weight.parse().expect("a weight"), None)
        };
        let list = names.split_whitespace().map(endpoint).collect();
        let changes = self.roster.list(list, self.now);
        self.publish();
        [changes.added, changes.removed, changes.changed]
    }

    fn publish(&mut self) {
        self.members = self.roster.members(self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        if self.roster.is_due(self.now) {
            self.publish();
        }
    }

    fn number(&self, name: &str) -> u32 {
        let label = format!("unix:/{name}");
        let number = self.roster.numbers.get(&*label).copied();
        number.unwrap_or_else(|| panic!("{name} is not known"))
    }

    fn eject(&mut self, name: &str) -> Verdict {
        let (number, reason) = (self.number(name), Reason::Consecutive(5));
        let verdict = self.roster.eject(number, reason, 0, self.now);
        self.publish();
        verdict
    }

    fn report(&mut self, name: &str, detail: &str) {
        let report = Report {
            healthy: detail.is_empty(),
            detail: detail.into(),
        };
        let number = self.number(name);
        self.roster.checked(number, report);
        self.publish();
    }

    /// The names of those whose time is over.
    fn due(&mut self) -> String {
        let due = self.roster.due(self.now);
        let labels = due
            .iter()
            .map(|due| due.endpoint.label.trim_start_matches("unix:/"));
        labels.collect::<Vec<_>>().join(" ")
    }

    fn watch(&self, name: &str) -> Arc<outlier::Watch> {
        let member = self.members.get(self.number(name));
        let watch = member.and_then(|member| member.watch.clone());
        watch.expect("endpoints are watched")
    }

    /// What the members say: `a+` may take requests, `b?` is unhealthy, `c!` is ejected, `d-` drains.
    #[track_caller]
    fn shows(&self, expected: &str) {
        let takes = |member: &&Member| {
            let mut candidates = self.members.candidates().iter();
            candidates.any(|candidate| candidate.number == member.number)
        };
        let show = |member: &Member| {
            let mark = match member.condition {
                Condition::Ready if takes(&member) => "+",
                Condition::Ready => "0",
                Condition::Unhealthy => "?",
                Condition::Ejected => "!",
                Condition::Draining => "-",
                Condition::Disabled => "x",
            };
            format!(
                "{}{mark}",
                member.endpoint.label.trim_start_matches("unix:/")
            )
        };
        let shown: Vec<String> = self.members.all().map(show).collect();
        assert_eq!(shown.join(" "), expected);
    }
}

#[test]
fn a_list_says_who_comes_and_goes() {
    let mut scene = Scene::new("{}");
    // Everybody is in use, so that those who leave stay in sight.
    let mut held = Vec::new();
    for (list, changes, shown) in [
        ("", [0, 0, 0], ""),
        ("a b", [2, 0, 0], "a+ b+"),
        ("a b", [0, 0, 0], "a+ b+"),
        ("b a", [0, 0, 0], "a+ b+"),
        ("b c", [1, 1, 0], "a- b+ c+"),
        ("b c", [0, 0, 0], "a- b+ c+"),
        ("a b c", [1, 0, 0], "a+ b+ c+"),
        ("a b:3 c:0", [0, 0, 2], "a+ b+ c0"),
        ("", [0, 3, 0], "a- b- c-"),
        ("", [0, 0, 0], "a- b- c-"),
        // Of one that is there twice, the first counts.
        ("d:2 d:3 b b", [2, 0, 0], "a- b+ c- d+"),
        ("d:2 b d:3", [0, 0, 0], "a- b+ c- d+"),
    ] {
        assert_eq!(scene.list(list), changes, "{list}");
        scene.shows(shown);
        held.push(
            scene
                .members
                .all()
                .map(|member| Arc::clone(&member.in_use))
                .collect::<Vec<_>>(),
        );
    }
}

#[test]
fn who_has_left_is_seen_until_nobody_is_there_any_more_and_then_rests() {
    let mut scene = Scene::new("{}");
    scene.list("a b");
    let (a, visit) = (scene.number("a"), scene.members.get(0).expect("a").visit);
    let request = Arc::clone(&scene.members.get(a).expect("a").in_use);
    scene.list("b");
    scene.shows("a- b+");
    assert!(!scene.roster.is_due(scene.now), "it is in use");
    scene.pass(10 * REST);
    scene.shows("a- b+");
    drop(request);
    scene.pass(SECOND);
    scene.shows("b+");
    // It has been away for long, so the number is given away at the next look.
    scene.pass(SECOND);
    scene.list("b c");
    assert_eq!(scene.number("c"), a);
    // Now one that nobody uses.
    scene.list("c");
    scene.pass(REST / 2);
    scene.list("c d");
    assert_ne!(scene.number("d"), scene.number("b"), "its number rests");
    scene.list("b c d");
    scene.shows("c+ b+ d+");
    assert!(scene.members.get(scene.number("b")).expect("b").visit > visit);
    scene.list("c d");
    scene.pass(REST.mul_f64(0.9));
    scene.list("c d");
    assert_eq!(scene.roster.numbers.len(), 3);
    scene.pass(REST.mul_f64(0.1));
    assert_eq!(scene.roster.numbers.len(), 2);
    // The highest numbers go for good.
    scene.list("");
    scene.pass(SECOND);
    scene.pass(REST);
    assert_eq!((scene.roster.entries.len(), scene.members.size()), (0, 0));
}

#[test]
fn another_weight_keeps_number_health_and_use() {
    let mut scene = Scene::new(r#"{"health_check": {"tcp": {}}, "outlier": {}}"#);
    scene.list("a b");
    scene.report("a", "");
    scene.report("b", "");
    let request = Arc::clone(&scene.members.get(0).expect("a").in_use);
    let (watch, visit) = (scene.watch("a"), scene.members.get(0).expect("a").visit);
    scene.list("a:7 b");
    scene.shows("a+ b+");
    assert_eq!(scene.members.candidates()[0].weight, 7);
    assert!(Arc::ptr_eq(&watch, &scene.watch("a")));
    assert_eq!(scene.members.get(0).expect("a").visit, visit);
    scene.list("b");
    scene.shows("a- b+");
    drop(request);
    scene.pass(SECOND);
    scene.shows("b+");
}

#[test]
fn who_comes_back_is_new() {
    let mut scene =
        Scene::new(r#"{"health_check": {"tcp": {}}, "outlier": {"max_ejected": "100%"}}"#);
    scene.list("a b");
    assert!(scene.roster.awaits_checks());
    scene.shows("a? b?");
    scene.report("a", "");
    scene.report("b", "refused");
    assert!(!scene.roster.awaits_checks());
    assert_eq!(scene.eject("a"), Ejected);
    scene.shows("a! b?");
    let watch = scene.watch("a");
    scene.pass(31 * SECOND);
    assert_eq!(scene.due(), "a");
    scene.list("b");
    scene.list("a b");
    scene.shows("a? b?");
    assert!(!Arc::ptr_eq(&watch, &scene.watch("a")));
    // The probe of its earlier visit means nothing.
    let a = scene.number("a");
    assert!(!scene.roster.readmit(a) && !scene.roster.prolong(a, 0, scene.now));
    scene.report("a", "");
    assert_eq!(scene.eject("a"), Ejected);
    assert!(!scene.roster.readmit(a), "nobody probes it yet");
    scene.pass(29 * SECOND);
    assert_eq!(scene.due(), "");
    scene.pass(2 * SECOND);
    assert_eq!(scene.due(), "a", "as long as a first ejection");
}

#[test]
fn ejections_are_bounded_by_those_that_serve() {
    let check = |settings: &str, list: &str, unhealthy: &str, ejects: &[(&str, Verdict)]| {
        let mut scene = Scene::new(settings);
        scene.list(list);
        for name in list.split_whitespace() {
            let name = name.split(':').next().unwrap_or_default();
            let is_ill = unhealthy.split_whitespace().any(|ill| ill == name);
            scene.report(name, if is_ill { "refused" } else { "" });
        }
        for (name, verdict) in ejects {
            assert_eq!(
                scene.eject(name),
                *verdict,
                "{list}, ill {unhealthy}: {name}"
            );
        }
    };
    let half = r#"{"outlier": {}}"#;
    check("{}", "a b", "", &[("a", Out)]);
    check(half, "a", "", &[("a", TooMany)]);
    check(
        half,
        "a b",
        "",
        &[("a", Ejected), ("a", Out), ("b", TooMany)],
    );
    check(
        half,
        "a b c",
        "",
        &[("a", Ejected), ("b", TooMany), ("c", TooMany)],
    );
    check(
        half,
        "a b c d",
        "",
        &[("a", Ejected), ("d", Ejected), ("b", TooMany)],
    );
    // Without a weight it takes nothing over.
    check(half, "a b:0", "", &[("a", TooMany), ("b", Out)]);
    check(half, "a b c:0", "", &[("b", Ejected), ("a", TooMany)]);
    // Nor does one that fails its check; that one itself may be ejected, too.
    check(half, "a b", "b", &[("a", TooMany), ("b", Ejected)]);
    check(half, "a b c d", "c", &[("a", Ejected), ("b", TooMany)]);
    let all = r#"{"outlier": {"max_ejected": "100%"}}"#;
    check(all, "a b", "b", &[("a", Ejected), ("b", Ejected)]);
    check(
        r#"{"outlier": {"max_ejected": "0%"}}"#,
        "a b c",
        "",
        &[("a", TooMany)],
    );
}

#[test]
fn an_ejection_ends_on_probation_where_the_endpoint_can_be_reached() {
    let mut scene = Scene::new(r#"{"outlier": {"consecutive_failures": 2, "ejection": "10s"}}"#);
    scene.list("a b");
    let a = scene.number("a");
    let watch = scene.watch("a");
    let early = watch.epoch();
    assert_eq!(scene.eject("a"), Ejected);
    scene.shows("a! b+");
    assert_eq!(
        &*scene.members.get(a).expect("a").why,
        "is ejected after 5 failures in a row"
    );
    scene.pass(9 * SECOND);
    assert_eq!(scene.due(), "");
    scene.pass(SECOND);
    assert!(scene.roster.is_due(scene.now));
    assert_eq!(scene.due(), "a");
    assert_eq!(scene.due(), "", "somebody looks after it already");
    assert!(!scene.roster.is_due(scene.now));
    scene.shows("a! b+");
    // Out of reach: asked again after as long, each time.
    for _ in 0..3 {
        assert!(scene.roster.prolong(a, 0, scene.now));
        scene.pass(9 * SECOND);
        assert_eq!(scene.due(), "");
        scene.pass(SECOND);
        assert_eq!(scene.due(), "a");
    }
    assert!(scene.roster.readmit(a));
    assert!(!scene.roster.readmit(a));
    scene.publish();
    scene.shows("a+ b+");
    let failed = outlier::Failed::Server;
    assert_eq!(watch.failure(failed, early), None, "it was sent before");
    assert_eq!(
        watch.failure(failed, watch.epoch()),
        Some(Reason::Probation)
    );
    assert_eq!(scene.eject("a"), Ejected);
    scene.pass(19 * SECOND);
    assert_eq!(scene.due(), "");
    scene.pass(SECOND);
    assert_eq!(scene.due(), "a");
    // Who leaves is not probed, and who is probed may leave.
    scene.list("b");
    assert!(!scene.roster.readmit(a));
    assert!(!scene.roster.is_due(scene.now));
}

#[test]
fn nobody_is_compared_who_sits_out_or_has_left() {
    let json = r#"{"outlier": {"max_ejected": "100%",
        "success_rate": {"requests": 10, "endpoints": 3, "deviation": 0.5}}}"#;
    let mut scene = Scene::new(json);
    scene.list("a b c d");
    let compare = |scene: &mut Scene, failing: &str| -> Vec<u32> {
        for name in ["a", "b", "c", "d"] {
            let fails = u64::from(failing.contains(name)) * 50;
            scene.watch(name).add(100 - fails, fails);
        }
        let found = scene.roster.compare(scene.now);
        found.iter().map(|(number, _)| *number).collect()
    };
    assert_eq!(compare(&mut scene, ""), [0_u32; 0]);
    assert_eq!(compare(&mut scene, "b"), [scene.number("b")]);
    scene.eject("b");
    assert_eq!(compare(&mut scene, "b"), [0_u32; 0]);
    let kept = Arc::clone(&scene.members.get(scene.number("c")).expect("c").in_use);
    scene.list("a b d");
    assert_eq!(compare(&mut scene, "bc"), [0_u32; 0]);
    drop(kept);
}

#[test]
fn what_was_learned_in_the_same_way_is_taken_over() {
    let check = |before: &str, after: &str, shown: &str| {
        let mut old = Scene::new(before);
        old.list("a b c d gone");
        old.report("a", "");
        old.report("b", "refused");
        old.report("c", "");
        old.eject("c");
        let held = Arc::clone(&old.members.get(old.number("gone")).expect("there").in_use);
        old.list("a b c d");
        let mut new = Scene::new(after);
        new.list("gone new d c b a");
        new.roster.inherit(&old.roster);
        new.publish();
        new.shows(shown);
        drop(held);
    };
    let both = r#"{"health_check": {"tcp": {}}, "outlier": {"max_ejected": "100%"}}"#;
    check(both, both, "gone? new? d? c! b? a+");
    let faster =
        r#"{"health_check": {"tcp": {}, "interval": "1s"}, "outlier": {"max_ejected": "100%"}}"#;
    check(both, faster, "gone? new? d? c! b? a?");
    let other = r#"{"health_check": {"tcp": {}}, "outlier": {"max_ejected": "99%"}}"#;
    check(both, other, "gone? new? d? c+ b? a+");
    let http2 = r#"{"health_check": {"tcp": {}}, "protocol": "http2"}"#;
    check(both, http2, "gone? new? d? c? b? a?");
    check(both, "{}", "gone+ new+ d+ c+ b+ a+");
    let more =
        r#"{"health_check": {"tcp": {}}, "outlier": {"max_ejected": "100%"}, "balance": "random"}"#;
    check(both, more, "gone? new? d? c! b? a+");
}

#[test]
fn only_who_becomes_ready_later_than_the_first_starts_slowly() {
    let slow = r#"{"slow_start": "90s"}"#;
    let weights = |scene: &Scene| {
        let candidates = scene.members.candidates().iter();
        candidates
            .map(|candidate| candidate.weight)
            .collect::<Vec<_>>()
    };
    let mut scene = Scene::new(slow);
    scene.list("a b");
    assert_eq!(weights(&scene), [1, 1]);
    scene.list("a b c");
    assert_eq!(weights(&scene), [10, 10, 1]);
    scene.pass(45 * SECOND);
    assert_eq!(weights(&scene), [10, 10, 5]);
    // A reload goes on where it was, and knows who is new.
    let mut reloaded = Scene::new(slow);
    reloaded.now = scene.now;
    reloaded.list("a b c d");
    reloaded.roster.inherit(&scene.roster);
    reloaded.publish();
    assert_eq!(weights(&reloaded), [10, 10, 5, 1]);
    scene.pass(45 * SECOND);
    assert_eq!(weights(&scene), [1, 1, 1]);
    assert!(!scene.roster.is_due(scene.now + 1000 * SECOND));
    // Those that only wait for their first check are no later than the first.
    let mut checked = Scene::new(r#"{"slow_start": "90s", "health_check": {"tcp": {}}}"#);
    checked.list("a b c");
    checked.report("a", "");
    checked.pass(SECOND);
    checked.report("b", "");
    checked.report("c", "refused");
    assert_eq!(weights(&checked), [1, 1]);
    checked.report("c", "");
    assert_eq!(weights(&checked), [10, 10, 1]);
    // Ill, and well again.
    scene.report("b", "refused");
    assert_eq!(weights(&scene), [1, 1]);
    scene.report("b", "");
    assert_eq!(weights(&scene), [10, 1, 10]);
}
