//! The JSON Schema of the configuration as tables for people.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// A kind of middleware or handler: what it is for, and its settings.
pub(crate) fn of_kind(schema: &Value, family: &str, kind: &str) -> Option<String> {
    let variants = schema["$defs"][family]["oneOf"].as_array()?;
    let variant = variants
        .iter()
        .find(|variant| variant["properties"].get(kind).is_some())?;
    let settings = resolve(schema, &variant["properties"][kind]);
    let words = |of: &Value| of["description"].as_str().unwrap_or_default().to_owned();
    let mut purpose = words(settings);
    if purpose.starts_with("Settings of") {
        // The rest of such a sentence says more, if there is one.
        let rest = purpose.split_once(". ").map_or("", |(_, rest)| rest);
        purpose = format!("{} {rest}", words(variant)).trim().to_owned();
    }
    let (purpose, _) = take_sentence(&purpose, "Example");
    let table = table(schema, settings, Depth::All);
    Some(format!("{}\n\n{table}", purpose.trim()))
}

/// How far a table goes.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Depth {
    /// The keys of one map alone.
    First,
    /// What is inside of them, too.
    All,
}

/// The settings at a place of the file: `listeners[].limits`, `upstreams.*`.
pub(crate) fn at(schema: &Value, path: &str, depth: Depth) -> Option<String> {
    let mut node = schema;
    for key in path.split('.') {
        let (key, is_list) = match key.strip_suffix("[]") {
            Some(key) => (key, true),
            None => (key, false),
        };
        node = match key {
            "*" => values_of(map_of(schema, node)?),
            key => value_of(schema, node, key)?,
        };
        if is_list {
            node = options(schema, node)
                .into_iter()
                .find_map(|option| option.get("items"))?;
        }
    }
    let map = map_of(schema, node)?;
    Some(table(schema, map, depth))
}

/// What stands under a key, or is the settings of a kind of that name.
fn value_of<'a>(schema: &'a Value, node: &'a Value, key: &str) -> Option<&'a Value> {
    let forms = options(schema, node).into_iter();
    let mut maps = forms.flat_map(|form| match form["oneOf"].as_array() {
        Some(kinds) => kinds.iter().collect(),
        None => vec![form],
    });
    maps.find_map(|map| map.get("properties")?.get(key))
}

/// Every key that is known anywhere.
pub(crate) fn keys(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            for (name, inner) in map {
                if let (true, Some(properties)) = (name == "properties", inner.as_object()) {
                    found.extend(properties.keys().cloned());
                }
                keys(inner, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
        _ => {}
    }
}

/// The one of the forms of a value that is a map with keys.
fn map_of<'a>(schema: &'a Value, node: &'a Value) -> Option<&'a Value> {
    options(schema, node)
        .into_iter()
        .find(|option| type_of(option) == "object")
}

/// What a map holds whose keys are names.
fn values_of(map: &Value) -> &Value {
    let by_pattern = map["patternProperties"].as_object();
    let first = by_pattern.and_then(|patterns| patterns.values().next());
    first.unwrap_or(&map["additionalProperties"])
}

/// The definition behind a reference.
fn resolve<'a>(schema: &'a Value, node: &'a Value) -> &'a Value {
    let mut node = node;
    while let Some(name) = node["$ref"].as_str() {
        let name = name.trim_start_matches("#/$defs/");
        node = &schema["$defs"][name];
    }
    node
}

/// The forms that a value may have, without "nothing" and without a variable in its place.
fn options<'a>(schema: &'a Value, node: &'a Value) -> Vec<&'a Value> {
    let node = resolve(schema, node);
    let Some(any) = node["anyOf"].as_array() else {
        return vec![node];
    };
    any.iter()
        .filter(|option| option["type"] != "null" && option["pattern"] != r"\$\{")
        .flat_map(|option| options(schema, option))
        .collect()
}

fn table(schema: &Value, settings: &Value, depth: Depth) -> String {
    let mut out = String::from("| key | type | default | meaning |\n|---|---|---|---|\n");
    rows(schema, settings, "", depth, &mut out);
    out
}

fn rows(schema: &Value, settings: &Value, before: &str, depth: Depth, out: &mut String) {
    let empty = Map::new();
    let required = settings["required"].as_array();
    for (key, node) in settings["properties"].as_object().unwrap_or(&empty) {
        let is_required =
            required.is_some_and(|names| names.iter().any(|name| name.as_str() == Some(key)));
        let text = node["description"]
            .as_str()
            .or_else(|| resolve(schema, node)["description"].as_str())
            .unwrap_or_default();
        let (text, default) = take_sentence(text, "Default");
        let default = match default {
            Some(default) => default,
            None if is_required => "required".to_owned(),
            None => "–".to_owned(),
        };
        let meaning = format!("{}{}", text.trim(), choices(schema, node));
        let _infallible = writeln!(
            out,
            "| `{before}{key}` | {} | {} | {} |",
            cell(&kind(schema, node)),
            cell(&default),
            cell(&meaning)
        );
        if depth == Depth::All
            && let Some((below, inner)) = inside(schema, node)
        {
            rows(schema, inner, &format!("{before}{key}{below}"), depth, out);
        }
    }
}

/// The settings within a value, where it has one form only; and how its keys are reached.
fn inside<'a>(schema: &'a Value, node: &'a Value) -> Option<(&'static str, &'a Value)> {
    let forms = options(schema, node);
    let [form] = forms.as_slice() else {
        return None;
    };
    let (below, inner) = match type_of(form) {
        "object" if form.get("properties").is_some() => (".", *form),
        "object" => (".*.", values_of(form)),
        "array" => ("[].", &form["items"]),
        _ => return None,
    };
    let forms = options(schema, inner);
    let [inner] = forms.as_slice() else {
        return None;
    };
    inner.get("properties").map(|_| (below, *inner))
}

/// One sentence that begins with `word`, taken out of a text; without the word and its full stop.
fn take_sentence(text: &str, word: &str) -> (String, Option<String>) {
    let text = text.replace('\n', " ");
    let Some(start) = text
        .find(&format!("{word} "))
        .or_else(|| text.find(&format!("{word}: ")))
    else {
        return (text, None);
    };
    let (before, rest) = text.split_at(start);
    // A full stop within code, or within a number, ends nothing.
    let mut in_code = false;
    let following = rest.chars().skip(1).map(Some).chain([None]);
    let end = rest.char_indices().zip(following).find(|((_, c), next)| {
        in_code ^= *c == '`';
        *c == '.' && !in_code && next.is_none_or(char::is_whitespace)
    });
    let (sentence, after) = rest.split_at(end.map_or(rest.len(), |((at, _), _)| at));
    let inner = sentence.trim_start_matches(word).trim_start_matches(':');
    let after = after.trim_start_matches('.').trim_start();
    let left = format!(
        "{}{}{after}",
        before.trim_end(),
        if after.is_empty() { "" } else { " " }
    );
    (left.trim().to_owned(), Some(inner.trim().to_owned()))
}

/// What the words of a choice mean, where they say so.
fn choices(schema: &Value, node: &Value) -> String {
    let mut out = String::new();
    for form in options(schema, node) {
        let list = resolve(schema, &form["items"]);
        let variants = form["oneOf"]
            .as_array()
            .or_else(|| list["oneOf"].as_array());
        for variant in variants.into_iter().flatten() {
            if let (Some(word), Some(text)) = (word(variant), variant["description"].as_str()) {
                let _infallible = write!(out, "<br>`{word}`: {}", text.replace('\n', " "));
            }
        }
    }
    // A family of kinds has its own page.
    if out.matches("<br>").count() > 4 {
        String::new()
    } else {
        out
    }
}

fn word(variant: &Value) -> Option<String> {
    let constant = variant["const"].as_str().map(str::to_owned);
    constant.or_else(|| {
        let (key, _) = variant["properties"].as_object()?.iter().next()?;
        Some(format!("{{{key}: …}}"))
    })
}

/// The type of a value in words.
fn kind(schema: &Value, node: &Value) -> String {
    let mut kinds: Vec<String> = Vec::new();
    for form in options(schema, node) {
        let kind = kind_of_form(schema, form);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds.join(" or ")
}

fn kind_of_form(schema: &Value, form: &Value) -> String {
    if let Some(variants) = form["oneOf"].as_array() {
        let words: Vec<String> = variants.iter().filter_map(word).collect();
        return match words.len() {
            0..=4 => format!("`{}`", words.join("` `")),
            _ => "one kind with its settings".to_owned(),
        };
    }
    if let Some(constant) = form.get("const") {
        return format!("`{}`", plain(constant));
    }
    if let Some(words) = form["enum"].as_array() {
        let words: Vec<String> = words.iter().map(plain).collect();
        return format!("`{}`", words.join("` `"));
    }
    match type_of(form) {
        "integer" => range(form),
        "number" => "number".to_owned(),
        "boolean" => "`true` `false`".to_owned(),
        "array" => format!("list of {}", kind(schema, &form["items"])),
        "object" if form.get("properties").is_some() => "map".to_owned(),
        "object" if values_of(form).is_object() => {
            let of = kind(schema, values_of(form));
            // So many forms are told where they belong.
            match of.matches(" or ").count() {
                0..=3 => format!("map to {of}"),
                _ => "map by name".to_owned(),
            }
        }
        "object" => "map".to_owned(),
        "string" if has_names(form) => "name".to_owned(),
        "string" => text_kind(form).to_owned(),
        _ => "anything".to_owned(),
    }
}

/// True for a text that stands for something that is declared elsewhere.
fn has_names(form: &Value) -> bool {
    let text = form["description"].as_str().unwrap_or_default();
    text.starts_with("A name, or")
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The first of several types: what else there is, is a way to write the same.
fn type_of(form: &Value) -> &str {
    let types = &form["type"];
    types
        .as_str()
        .or_else(|| types[0].as_str())
        .unwrap_or_default()
}

fn range(form: &Value) -> String {
    let bound = |key: &str| form[key].as_u64().filter(|number| *number > 0);
    match (bound("minimum"), bound("maximum")) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("whole number, at least {least}"),
        (None, Some(most)) => format!("0 to {most}"),
        (None, None) => "whole number".to_owned(),
    }
}

fn text_kind(form: &Value) -> &'static str {
    let pattern = form["pattern"].as_str().unwrap_or_default();
    match form["format"].as_str() {
        Some("regex") => "regular expression",
        _ if pattern.contains("(ns|us|ms|s|m|h|d)") => "duration",
        _ if pattern.contains("KiB") => "size",
        _ if pattern.contains("%?$") => "share",
        _ => "text",
    }
}

/// Text that stays within its cell.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', r"\|")
}
