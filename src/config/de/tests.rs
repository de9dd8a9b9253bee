//! What settings read, and what they say when they cannot.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::Deserialize;

use super::*;
use crate::base::problem::Spanned;
use crate::base::values::{OneOrMany, Period, Secret, Share};
use crate::config::parse::{self, Budget};

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Kinds {
    Plain,
    Settled(Settled),
    Defaulted(Defaulted),
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Settled {
    requests: u16,
    per: Period,
    share: Option<Share>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Defaulted {
    header: String,
}

/// Text or a map, as settings write it by hand.
#[derive(Debug, PartialEq)]
struct TextOrMap(Defaulted);

impl<'de> Deserialize<'de> for TextOrMap {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = TextOrMap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a map")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<TextOrMap, E> {
                Ok(TextOrMap(Defaulted {
                    header: text.to_owned(),
                }))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<TextOrMap, A::Error> {
                Defaulted::deserialize(de::value::MapAccessDeserializer::new(map)).map(TextOrMap)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

fn env(name: &str) -> Option<String> {
    (name == "N").then(|| "7".to_owned())
}

fn read<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, Vec<String>> {
    let mut problems = Vec::new();
    let node = parse::parse(0, text, &env, &mut Budget::default(), &mut problems);
    let node = node.expect("a tree");
    let directories = Vec::new();
    let reading = Reading::new(&directories, &env);
    let within = Within::Item {
        section: "routes",
        noun: "a route",
    };
    let value = reading.read::<T>(&node, within).map(|held| held.value);
    problems.append(&mut reading.problems.borrow_mut());
    value.ok_or_else(|| {
        let lines = problems.iter().map(|p| {
            let place = p
                .span
                .and_then(|span| text.get(span.range()))
                .unwrap_or_default();
            let help = p
                .help
                .as_deref()
                .map(|help| format!(" ({help})"))
                .unwrap_or_default();
            format!("{place}: {}{help}", p.message)
        });
        lines.collect()
    })
}

fn check<T: for<'de> Deserialize<'de> + fmt::Debug + PartialEq>(text: &str, expected: T) {
    assert_eq!(read::<T>(text), Ok(expected), "{text}");
}

fn fails<T: for<'de> Deserialize<'de> + fmt::Debug>(text: &str, expected: &[&str]) {
    let problems = read::<T>(text).expect_err(text);
    assert_eq!(problems, expected, "{text}");
}

fn words(text: &str) -> String {
    text.to_owned()
}

#[test]
fn plain_scalars_are_what_is_asked_for() {
    check("5", words("5"));
    check("0x1f", 31_u8);
    check("'true'", words("true"));
    check("true", words("true"));
    check("True", true);
    check("1e3", 1000.0);
    check("${N}", 7_u8);
    check("\"${N}\"", 7_u8);
    check("\"${N}\"", words("7"));
    check("5%", Share(0.05));
    check("0.05", Share(0.05));
    check("1", Share(1.0));
    check("", None::<String>);
    check("~", None::<u8>);
    check("1", Some(words("1")));
    check(
        "[1, a, {b: null, c: 'x', d: -1.5}]",
        serde_json::json!([1, "a", {"b": null, "c": "x", "d": -1.5}]),
    );
    check(
        "{a: 1, true: 2}",
        BTreeMap::from([(words("a"), words("1")), (words("true"), words("2"))]),
    );
    check("one", OneOrMany(vec![words("one")]));
    check("[one, two]", OneOrMany(vec![words("one"), words("two")]));
    check("[[1], [2]]", OneOrMany(vec![vec![1], vec![2]]));
    check("x", TextOrMap(Defaulted { header: words("x") }));
    check("{header: 1}", TextOrMap(Defaulted { header: words("1") }));
}

#[test]
fn kinds_stand_alone_or_with_their_settings() {
    check("plain", Kinds::Plain);
    check("defaulted", Kinds::Defaulted(Defaulted::default()));
    check(
        "{defaulted: {header: x}}",
        Kinds::Defaulted(Defaulted { header: words("x") }),
    );
    let settled = Settled {
        requests: 1,
        per: "1s".parse().expect("a period"),
        share: None,
    };
    check("settled: {requests: 1, per: 1s}", Kinds::Settled(settled));
    fails::<Kinds>(
        "plain: {}",
        &["plain: `plain` takes no settings: write it alone"],
    );
    fails::<Kinds>(
        "settled",
        &[
            "settled: `settled` needs settings, at least `requests` (write `{settled: {requests: …}}`)",
        ],
    );
    fails::<Kinds>("settled:", &["settled: expected a map, found nothing"]);
    fails::<Kinds>(
        "{plain: , settled: {}}",
        &["settled: expected one kind, found also `settled` (keep one of them)"],
    );
    fails::<BTreeMap<String, Kinds>>(
        "middlewares: {plain: , settled: {}}",
        &[
            "settled: expected one kind, found also `settled` (in a list, write it as an item of its own)",
        ],
    );
    fails::<Kinds>(
        "{}",
        &["{}: expected a kind and its settings, found an empty map"],
    );
    fails::<Kinds>(
        "setled: {}",
        &["setled: unknown value `setled` for a route (did you mean `settled`?)"],
    );
    fails::<BTreeMap<String, Kinds>>(
        "middlewares: setled",
        &["setled: unknown middleware kind `setled` (did you mean `settled`?)"],
    );
    fails::<BTreeMap<String, Kinds>>(
        "middlewares: jwt",
        &["jwt: `jwt` is not supported by this version yet (remove it)"],
    );
    fails::<Vec<Kinds>>(
        "[3]",
        &["3: unknown value `3` for a route (known here are `plain`, `settled` and `defaulted`)"],
    );
}

#[test]
fn unknown_keys_are_all_reported_and_hide_nothing_else() {
    fails::<Settled>(
        "{request: 1, par: 1s, share: 2}",
        &[
            "request: unknown key `request` in a route (did you mean `requests`?)",
            "par: unknown key `par` in a route (did you mean `per`?)",
            "2: `2` is not a share: write `5%` or `0.05`, from 0 to 100%",
        ],
    );
    fails::<Settled>(
        "{request: 1, per: 1s}",
        &["request: unknown key `request` in a route (did you mean `requests`?)"],
    );
    fails::<Settled>(
        "{requests: 1}",
        &["{requests: 1}: the key `per` is missing in a route"],
    );
    fails::<Vec<Settled>>(
        "- requests: 1\n  share: 1",
        &["requests: 1: the key `per` is missing in a route"],
    );
    fails::<BTreeMap<String, Settled>>(
        "a:\n  requests: 1\n",
        &["a: the key `per` is missing in `a`"],
    );
    fails::<TextOrMap>(
        "{heade: x}",
        &["heade: unknown key `heade` in a route (did you mean `header`?)"],
    );
}

#[test]
fn wrong_types_are_said_in_plain_words() {
    fails::<Vec<String>>("a", &["a: expected a list, found text `a`"]);
    fails::<Vec<String>>("{a: 1}", &["{a: 1}: expected a list, found a map"]);
    fails::<Vec<String>>("[a, [b]]", &["[b]: expected text, found a list"]);
    fails::<Vec<String>>("[a, ~]", &["~: expected text, found nothing"]);
    fails::<Settled>("[1, 1s]", &["[1, 1s]: expected a map, found a list"]);
    fails::<Settled>("abc", &["abc: expected a map, found text `abc`"]);
    fails::<Settled>(
        "{requests: 70000, per: 1s}",
        &["70000: expected a whole number from 0 to 65535, found `70000`"],
    );
    fails::<Settled>(
        "{requests: '7', per: 1s}",
        &["'7': expected a whole number from 0 to 65535, found text `7` (remove the quotes)"],
    );
    fails::<Settled>(
        "{requests: 1.5, per: 1s}",
        &["1.5: expected a whole number from 0 to 65535, found `1.5`"],
    );
    fails::<Settled>(
        "{requests: [1], per: 1s}",
        &["[1]: expected a whole number from 0 to 65535, found a list"],
    );
    fails::<Settled>(
        "{requests: , per: 1s}",
        &["requests: expected a whole number from 0 to 65535, found nothing"],
    );
    fails::<NonZeroU32>(
        "0",
        &["0: expected a whole number from 1, found the number 0"],
    );
    fails::<u64>("-1", &["-1: expected a whole number from 0, found `-1`"]);
    fails::<bool>("yes", &["yes: expected true or false, found text `yes`"]);
    fails::<f64>(".inf", &[".inf: expected a number, found text `.inf`"]);
    fails::<TextOrMap>(
        "5",
        &[
            "5: expected text or a map, found the number 5 (put it in quotes if it is meant as text)",
        ],
    );
    fails::<Period>(
        "[]",
        &["[]: expected a duration such as `250ms`, found a list"],
    );
    fails::<Period>(
        "10",
        &["10: `10` is not a duration: write a number and a unit, as in `250ms`, `5s`, `1m`"],
    );
    fails::<(u8, u8)>("[1, 2, 3]", &["3: there are too many items"]);
}

#[test]
fn positions_survive() {
    let spanned =
        read::<BTreeMap<String, Spanned<OneOrMany<Spanned<Kinds>>>>>("a: plain\nbc: [plain]\n")
            .expect("a map");
    let places: Vec<_> = spanned
        .values()
        .flat_map(|all| {
            all.value
                .0
                .iter()
                .map(|one| (all.span.range(), one.span.range()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(places, [(3..8, 3..8), (13..20, 14..19)]);
}

#[test]
fn secrets_are_looked_up_and_never_written() {
    check("{env: N}", Secret::new("7"));
    fails::<Secret>("{env: M}", &["M: the environment variable `M` is not set"]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "hush\r\n").expect("written");
    check(
        &format!("{{file: {}}}", file.path().display()),
        Secret::new("hush"),
    );
    let written = "a secret is written as `{file: path}` or `{env: NAME}`, never as text";
    fails::<Secret>("hunter2", &[&format!("hunter2: {written}")]);
    fails::<Secret>("{text: x}", &[&format!("text: {written}")]);
    let missing = read::<Secret>("{file: /no/such/file}").expect_err("no file");
    assert!(
        missing
            .iter()
            .any(|m| m.contains("cannot read `/no/such/file`")),
        "{missing:?}"
    );
}

#[test]
fn a_changed_secret_changes_the_fingerprint() {
    let mut problems = Vec::new();
    let node =
        parse::parse(0, "{env: N}", &env, &mut Budget::default(), &mut problems).expect("a tree");
    let fingerprint = |value: &'static str| {
        let env = move |_: &str| Some(value.to_owned());
        let directories = Vec::new();
        let reading = Reading::new(&directories, &env);
        reading
            .read::<Secret>(&node, Within::Key("x"))
            .map(|held| held.fingerprint)
    };
    assert_eq!(fingerprint("a"), fingerprint("a"));
    assert_ne!(fingerprint("a"), fingerprint("b"));
}
