//! What is taken out of an explanation before somebody sees it: secrets, and what fools terminals.

use std::cmp::Reverse;

use serde_json::Value;

use crate::base::paint;
use crate::explain::Explanation;

/// Headers whose values open doors.
const SECRET: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
];

/// What stands for a value that is not shown.
const HIDDEN: &str = "(hidden)";

/// A shorter secret is hidden in its header alone: it is part of too many other words.
const SHORTEST: usize = 6;

/// How conditions of a match begin that have a value.
const VALUED: &[&str] = &["= ", "starts with ", "matches "];

impl Explanation {
    /// Hides the values of headers that hold secrets: there, where a middleware has copied them to, and
    /// where a match compares with them.
    pub fn mask(&mut self) {
        let mut secrets = Vec::new();
        self.hide_headers(&mut secrets);
        for rival in &mut self.candidates {
            rival.r#match = without_values(&rival.r#match);
            rival.lost_on = rival.lost_on.as_deref().map(without_values);
        }
        secrets.retain(|secret: &String| secret.len() >= SHORTEST);
        // The longest first: a shorter one may be part of it.
        secrets.sort_by_key(|secret| Reverse(secret.len()));
        for text in self.texts() {
            for secret in &secrets {
                if text.contains(secret) {
                    *text = text.replace(secret, HIDDEN);
                }
            }
        }
    }

    /// Where values of headers may have been copied to; names of the configuration are not among them.
    fn texts(&mut self) -> Vec<&mut String> {
        let mut texts = Vec::new();
        let request = self.request.iter_mut();
        let changes = request.flat_map(|request| &mut request.changes);
        let steps = self.steps.iter_mut();
        let changes = changes.chain(steps.flat_map(|turn| &mut turn.changes));
        texts.extend(
            changes
                .flat_map(|change| [&mut change.from, &mut change.to])
                .flatten(),
        );
        texts.extend(self.sent.iter_mut().map(|sending| &mut sending.head));
        texts.extend(self.answer.headers.iter_mut().map(|(_, value)| value));
        texts.extend(&mut self.answer.detail);
        texts.extend(&mut self.answer.notes);
        texts
    }

    fn hide_headers(&mut self, secrets: &mut Vec<String>) {
        let request = self.request.iter_mut();
        let request = request.flat_map(|request| &mut request.changes);
        let steps = self.steps.iter_mut().flat_map(|turn| &mut turn.changes);
        for change in request
            .chain(steps)
            .filter(|change| is_secret(&change.what))
        {
            for value in [&mut change.from, &mut change.to].into_iter().flatten() {
                hide(&change.what, value, secrets);
            }
        }
        let fields = self.answer.headers.iter_mut();
        for (name, value) in fields.filter(|(name, _)| is_secret(name)) {
            hide(name, value, secrets);
        }
        for sending in &mut self.sent {
            let mut line = |line: &str| match line.split_once(": ") {
                Some((name, value)) if is_secret(name) => {
                    let mut value = value.to_owned();
                    hide(name, &mut value, secrets);
                    format!("{name}: {value}")
                }
                _ => line.to_owned(),
            };
            let lines: Vec<String> = sending.head.lines().map(&mut line).collect();
            sending.head = lines.join("\n");
        }
    }
}

fn is_secret(name: &str) -> bool {
    SECRET.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Hides a header's value, and notes it: whole, and the parts that are of use alone.
fn hide(name: &str, value: &mut String, secrets: &mut Vec<String>) {
    let cookie = |pair: &str| Some(pair.split_once('=')?.1.trim().to_owned());
    match name.to_ascii_lowercase().as_str() {
        "cookie" => secrets.extend(value.split(';').filter_map(cookie)),
        // What follows the first pair says where it is for, and for how long.
        "set-cookie" => secrets.extend(value.split(';').take(1).filter_map(cookie)),
        // Behind the scheme.
        _ => secrets.extend(value.split_once(' ').map(|(_, secret)| secret.to_owned())),
    }
    secrets.push(std::mem::replace(value, HIDDEN.to_owned()));
}

/// A match in words, without the values that secrets are compared with.
fn without_values(text: &str) -> String {
    let mut rest = text;
    let mut safe = String::new();
    while let Some((before, value)) = next_value(rest) {
        safe += before;
        safe += HIDDEN;
        rest = value.strip_prefix('"').map_or("", after_quote);
    }
    safe + rest
}

/// The first value that a secret is compared with, and what stands before it.
fn next_value(text: &str) -> Option<(&str, &str)> {
    let conditions = text
        .match_indices("header `")
        .chain(text.match_indices("cookie `"));
    let mut places: Vec<_> = conditions.collect();
    places.sort_unstable();
    places.into_iter().find_map(|(at, kind)| {
        let (name, compared) = text.get(at + kind.len()..)?.split_once("` ")?;
        let verb = VALUED.iter().find(|verb| compared.starts_with(**verb))?;
        let is_hidden = kind.starts_with('c') || is_secret(name);
        let value = compared.strip_prefix(verb)?;
        let before = text.get(..text.len() - value.len())?;
        is_hidden
            .then_some((before, value))
            .filter(|_| !value.starts_with(HIDDEN))
    })
}

/// What follows a quoted text; a pattern has no such end, and hides all that follows.
fn after_quote(text: &str) -> &str {
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return text.get(at + 1..).unwrap_or_default(),
            _ => {}
        }
    }
    ""
}

/// The same for a terminal, where control characters may move cursors.
pub(super) fn disarmed(explanation: &Explanation) -> Explanation {
    // Heads have lines.
    let harmless = |text: &str| {
        text.split('\n')
            .map(paint::harmless)
            .collect::<Vec<_>>()
            .join("\n")
    };
    changed(explanation, &harmless).unwrap_or_else(|| explanation.clone())
}

/// The same explanation with another text in each place.
fn changed(explanation: &Explanation, change: &dyn Fn(&str) -> String) -> Option<Explanation> {
    // What became JSON comes back of it.
    let mut value = serde_json::to_value(explanation).ok()?;
    change_all(&mut value, change);
    serde_json::from_value(value).ok()
}

fn change_all(value: &mut Value, change: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| change_all(item, change)),
        Value::Object(map) => map.values_mut().for_each(|item| change_all(item, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::asked::Asked;
    use crate::explain::world::World;

    const CONFIG: &str = r#"
listeners: [{name: web, address: "127.0.0.1:8080"}]
routes:
  - {name: keyed, match: {path: /a, headers: {x-api-key: "of the file, \" too"}, query: {q: "1"}}, upstream: up}
  - {name: staff, match: {path: /a, cookies: {staff: {prefix: inside-}}}, upstream: up}
  - {name: shaped, match: {path: /a, headers: {authorization: {regex: "Hidden-.*"}}}, upstream: up}
  - {name: there, match: {path: /a, headers: {authorization: {present: true}}}, middlewares: [copies], upstream: up}
  - {name: plain, match: {path: /a, headers: {x-canary: "visible"}}, upstream: up}
middlewares:
  copies: {set_headers: {request: {set: {x-copy: of-the-gateway, authorization: "Basic of-the-gateway"}}}}
upstreams: {up: {endpoints: ["127.0.0.1:1"]}}
"#;

    fn explained(headers: &[&str]) -> Explanation {
        let loaded = crate::config::parse("test.yaml", CONFIG, &|_| None);
        let world = World::apart(&loaded.config.expect("a configuration")).expect("a world");
        let headers: Vec<String> = headers.iter().map(ToString::to_string).collect();
        let asked = Asked::from_arguments(&["/a".to_owned()], &headers, None);
        super::super::explain(&world, asked.expect("a request"), None).expect("an explanation")
    }

    #[test]
    fn no_secret_of_the_client_or_the_file_is_left() {
        let mut explanation = explained(&[
            "authorization: Bearer of-the-client",
            "cookie: a=1; session=of-the-session",
            "x-seen: of-the-session",
        ]);
        let json = |explanation: &Explanation| {
            serde_json::to_string(explanation).expect("an explanation is JSON")
        };
        let secrets = [
            "of-the-client",
            "of-the-session",
            "of-the-gateway",
            "of the file",
            "inside-",
            "Hidden-",
        ];
        let open = json(&explanation);
        for secret in secrets {
            assert!(open.contains(secret), "{secret} is not in\n{open}");
        }
        explanation.mask();
        let masked = json(&explanation);
        for secret in secrets {
            assert!(!masked.contains(secret), "{secret} is in\n{masked}");
        }
        for kept in [
            "visible",
            "x-copy",
            "x-seen",
            "header `authorization` is present",
        ] {
            assert!(masked.contains(kept), "{kept} is not in\n{masked}");
        }
    }

    #[test]
    fn conditions_lose_their_values_and_nothing_else() {
        let check = |text: &str, expected: &str| {
            assert_eq!(without_values(text), expected);
            assert_eq!(without_values(expected), expected);
        };
        check("literal /a", "literal /a");
        check(
            "literal /a, header `x-canary` = \"1\", header `x-api-key` = \"a\\\"b, c\", query `q` = \"1\"",
            "literal /a, header `x-canary` = \"1\", header `x-api-key` = (hidden), query `q` = \"1\"",
        );
        check(
            "header `cookie` starts with \"a\", cookie `b` = \"c\"",
            "header `cookie` starts with (hidden), cookie `b` = (hidden)",
        );
        check(
            "header `authorization` matches /a, b/, query `q` = \"1\"",
            "header `authorization` matches (hidden)",
        );
        check("cookie `b` is absent", "cookie `b` is absent");
        check("header `x-api-key` = \"", "header `x-api-key` = (hidden)");
    }

    #[test]
    fn names_of_the_configuration_stay_whatever_cookies_hold() {
        let mut explanation = explained(&["authorization: Bearer x", "cookie: a=plain; b=there"]);
        explanation.mask();
        let winner = explanation.route.expect("a route");
        assert_eq!(winner.name, "there");
        assert!(
            explanation
                .candidates
                .iter()
                .any(|rival| rival.route == "plain")
        );
    }

    #[test]
    fn a_terminal_is_not_fooled() {
        let explanation = explained(&["x-canary: visible", "x-bell: \u{9b}2J"]);
        let head = &disarmed(&explanation).sent[0].head;
        assert!(head.contains("x-bell: \u{fffd}2J\n"), "{head}");
    }
}
