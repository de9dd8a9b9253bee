//! Texts and the nodes that they become.

use std::fmt::Write as _;

use super::*;

fn read(text: &str) -> (Option<Node>, Vec<String>) {
    let mut problems = Vec::new();
    let env = |name: &str| (name == "PORT").then(|| "80".to_owned());
    let node = parse(0, text, &env, &mut Budget::default(), &mut problems);
    let problems = problems.into_iter().map(|p| {
        let place = p
            .span
            .and_then(|span| text.get(span.range()))
            .unwrap_or_default();
        format!("{place}: {}", p.message)
    });
    (node, problems.collect())
}

fn show(node: &Node) -> String {
    match &node.kind {
        Kind::Scalar {
            text,
            style: Style::Plain,
        } => text.clone(),
        Kind::Scalar { text, .. } => format!("{text:?}"),
        Kind::List(items) => {
            format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(","))
        }
        Kind::Map(entries) => {
            let entries = entries
                .iter()
                .map(|(k, v)| format!("{}:{}", show(k), show(v)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        Kind::Broken => "!".into(),
    }
}

#[test]
fn aliases_merge_keys_and_variables_are_resolved() {
    let check = |text: &str, expected: &str| {
        let (node, problems) = read(text);
        assert_eq!(problems, Vec::<String>::new(), "{text}");
        assert_eq!(
            node.map(|node| show(&node)).as_deref(),
            Some(expected),
            "{text}"
        );
    };
    check("", "");
    check("# only a comment\n", "");
    check("---\na: 1\n...\n", "{a:1}");
    check(
        "\u{feff}a: 'x'\r\nb: [1, \"2\"]\r\n",
        "{a:\"x\",b:[1,\"2\"]}",
    );
    check(
        "a: &x {p: 1}\nb: *x\nc: [*x]",
        "{a:{p:1},b:{p:1},c:[{p:1}]}",
    );
    check(
        "a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}",
        "{a:{p:1,q:2},b:{q:3,p:1}}",
    );
    check(
        "a: [&x {p: 1}, &y {p: 2, r: 4}]\nb: {<<: [*x, *y]}",
        "{a:[{p:1},{p:2,r:4}],b:{p:1,r:4}}",
    );
    check(
        "a: 127.0.0.1:${PORT}\nb: \"${PORT}\"\n${PORT}: c",
        "{a:\"127.0.0.1:80\",b:\"80\",\"80\":c}",
    );
    check("a: &x 1\nb: &x 2\nc: *x", "{a:1,b:2,c:2}");
    check("a: !!str 1", "{a:\"1\"}");
    check("a: |\n  one\n  two\n", "{a:\"one\\ntwo\\n\"}");
}

#[test]
fn one_broken_value_leaves_the_rest() {
    let check = |text: &str, expected: &str, expected_problem: &str| {
        let (node, problems) = read(text);
        assert_eq!(problems, [expected_problem], "{text}");
        assert_eq!(
            node.map(|node| show(&node)).as_deref(),
            Some(expected),
            "{text}"
        );
    };
    check(
        "a: x ${NO} y\nb: 1",
        "{a:!,b:1}",
        "${NO}: the environment variable `NO` is not set",
    );
    check(
        "a: *no\nb: 1",
        "{a:!,b:1}",
        "*no: `*no` refers to an anchor that is not in this file",
    );
    check(
        "a: &x [*x]\nb: 1",
        "{a:[!],b:1}",
        "*x: an alias stands within what it stands for",
    );
    check("a: 1\na: 2", "{a:1}", "a: the key `a` is written twice");
    check("[a]: 1\nb: 1", "{b:1}", "[a]: a key must be text");
    check(
        "a: !secret x",
        "{a:x}",
        "x: tags such as `!secret` mean nothing here",
    );
    check(
        "a: {<<: 1, b: 2}",
        "{a:{b:2}}",
        "1: `<<` takes a map, an alias of one, or a list of them",
    );
}

#[test]
fn broken_structure_is_one_problem() {
    for text in [
        "a: [1",
        "a: 'x",
        "a: b: c",
        "a:\n\tb: 1",
        "a: 1\n---\nb: 2",
        "a: }",
        "@",
        "a: \"\\q\"",
        "- a\nb: 1",
        "a: &",
    ] {
        let (node, problems) = read(text);
        assert!(node.is_none(), "{text}");
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
    }
}

#[test]
fn bombs_fail_fast() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..40 {
        let alias = vec![format!("*a{}", level - 1); 10].join(", ");
        let _ = writeln!(bomb, "a{level}: &a{level} [{alias}]");
    }
    let mut merges = String::new();
    for n in 0..40 {
        let before: Vec<_> = (0..n).map(|m| format!("*m{m}")).collect();
        let _ = writeln!(
            merges,
            "m{n}: &m{n} {{<<: [{}], k{n}: 1}}",
            before.join(", ")
        );
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let mixed = format!("{}{}{}", "- ".repeat(40), "[".repeat(40), "]".repeat(40));
    let mut blocks = String::new();
    let mut nested = String::new();
    for n in 0..100 {
        let _ = writeln!(blocks, "{}a:", " ".repeat(n));
    }
    for n in 0..60 {
        let _ = write!(nested, "&n{n} [");
    }
    let kept = format!("{nested}{}{}", "x,".repeat(20_000), "]".repeat(60));
    let check = |text: &str, words: &str| {
        let (node, problems) = read(text);
        assert!(node.is_none());
        assert!(problems.iter().any(|p| p.contains(words)), "{problems:?}");
    };
    check(&bomb, "the aliases unfold");
    check(&kept, "the aliases unfold");
    check(&deep, "nested more than 64 deep");
    check(&mixed, "nested more than 64 deep");
    check(&blocks, "nested more than 64 deep");
    check(
        &format!("[{}]", "x,".repeat(MAX_NODES)),
        "more than 1000000 values",
    );
    assert!(
        read(&merges)
            .0
            .is_none_or(|node| show(&node).len() < 10_000_000)
    );
}

#[test]
fn a_node_is_underlined_where_it_stands() {
    let text = "a:\n  b: {c: 1,\n    d: 2}\n  l:\n  - name: x  # note\n    y: 2\n  e:\n";
    let (node, _) = read(text);
    let root = node.expect("a tree");
    let at = |node: &Node| {
        text.get(node.span.range())
            .map(str::to_owned)
            .unwrap_or_default()
    };
    let a = root.get("a").expect("a");
    assert_eq!(at(a), "a");
    assert_eq!(at(a.get("b").expect("b")), "{c: 1,\n    d: 2}");
    let list = a.get("l").expect("l");
    assert_eq!(at(list), "l");
    let Kind::List(items) = &list.kind else {
        panic!("a list");
    };
    let item = items.first().expect("an item");
    assert_eq!(at(item), "name: x");
    assert_eq!(at(item.get("y").expect("y")), "2");
    assert_eq!(at(a.get("e").expect("e")), "e");
}
