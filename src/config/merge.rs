//! Duplicate keys and merge keys (`<<`) of one map.
//!
//! A key written in the map itself wins over a merged one, and an earlier merged map over a later.

use std::collections::{HashMap, HashSet};

use super::tree::{Kind, Node, Style};
use crate::base::problem::Problem;

type Entry = (Node, Node);

/// The map's entries without duplicates and with what is merged into it.
pub(super) fn resolve(entries: Vec<Entry>, problems: &mut Vec<Problem>) -> Vec<Entry> {
    let entries = without_duplicates(entries, problems);
    if !entries.iter().any(|(key, _)| is_merge(key)) {
        return entries;
    }
    let (merges, mut own): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|(key, _)| is_merge(key));
    let mut taken: HashSet<String> = own.iter().map(|(key, _)| key.key().to_owned()).collect();
    for (_, value) in merges {
        for (key, value) in sources(value, problems).into_iter().flatten() {
            if taken.insert(key.key().to_owned()) {
                own.push((key, value));
            }
        }
    }
    own
}

fn without_duplicates(mut entries: Vec<Entry>, problems: &mut Vec<Problem>) -> Vec<Entry> {
    let mut seen = HashMap::with_capacity(entries.len());
    let mut again = HashSet::new();
    for (number, (key, _)) in entries.iter().enumerate() {
        if let Some(first) = seen.get(key.key()) {
            let message = format!("the key `{}` is written twice", key.key());
            problems.push(Problem::error(key.span, message).related(*first, "first written here"));
            again.insert(number);
        } else {
            seen.insert(key.key(), key.span);
        }
    }
    if !again.is_empty() {
        let mut number = 0;
        entries.retain(|_| {
            number += 1;
            !again.contains(&(number - 1))
        });
    }
    entries
}

fn is_merge(key: &Node) -> bool {
    matches!(&key.kind, Kind::Scalar { text, style: Style::Plain } if text == "<<")
}

/// The maps that a merge key takes from.
fn sources(value: Node, problems: &mut Vec<Problem>) -> Vec<Vec<Entry>> {
    match value.kind {
        Kind::Map(entries) => vec![entries],
        Kind::Broken => Vec::new(),
        Kind::List(items)
            if items
                .iter()
                .all(|item| matches!(item.kind, Kind::Map(_) | Kind::Broken)) =>
        {
            items
                .into_iter()
                .flat_map(|item| sources(item, problems))
                .collect()
        }
        Kind::List(_) | Kind::Scalar { .. } => {
            let message = "`<<` takes a map, an alias of one, or a list of them";
            problems.push(Problem::error(value.span, message));
            Vec::new()
        }
    }
}
