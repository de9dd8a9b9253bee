//! Secrets that are written in the file, where everybody reads them who reads the configuration.
//!
//! What came from a variable is not written here. Values are never repeated in a message.

use super::scene::Scene;
use crate::base::code::Code;
use crate::base::problem::Problem;
use crate::config::Place;

/// Headers whose value is a secret by what they are for.
const SECRET: [&str; 9] = [
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "apikey",
    "x-auth-token",
    "x-access-token",
    "x-amz-security-token",
    "x-vault-token",
];

/// Keys under which names of headers stand beside their values.
const HEADERS: [&str; 3] = ["set", "add", "headers"];

/// Sections in which secrets may be; expectations of tests are made up.
const SECTIONS: [&str; 5] = [
    "listeners",
    "routes",
    "middlewares",
    "handlers",
    "upstreams",
];

pub(super) fn check(scene: &Scene<'_>, found: &mut Vec<Problem>) {
    for section in SECTIONS {
        for place in scene.config.places.section(section) {
            walk(place, found);
        }
    }
}

fn walk(place: Place<'_>, found: &mut Vec<Problem>) {
    if place.is_list() {
        for item in place.items() {
            walk(item, found);
        }
        return;
    }
    found.extend(password(place));
    for (key, value) in place.entries() {
        // What clients read is no secret.
        if matches!(key, "body" | "respond" | "response") {
            continue;
        }
        if HEADERS.contains(&key) {
            found.extend(
                value
                    .entries()
                    .filter_map(|(name, value)| header(name, value)),
            );
        }
        walk(value, found);
    }
}

fn header(name: &str, value: Place<'_>) -> Option<Problem> {
    let text = value.text().filter(|_| value.is_literal())?;
    let name = name.to_ascii_lowercase();
    let is_secret = SECRET.contains(&&*name) || (name == "cookie" && is_session(text));
    // A template takes it from the request.
    if !is_secret || text.trim().is_empty() || text.contains("{{") {
        return None;
    }
    let message =
        format!("the value of `{name}` is a secret, and everybody who reads this file knows it");
    Some(
        Problem::warning(value.span(), message)
            .code(Code::PLAIN_SECRET)
            .help(format!(
                "take it from the environment, as in `{name}: \"${{{}}}\"`",
                name.to_ascii_uppercase().replace('-', "_")
            )),
    )
}

/// True for a cookie by which somebody is known.
fn is_session(text: &str) -> bool {
    let mut names = text.split(';').filter_map(|pair| pair.split_once('='));
    names.any(|(name, value)| {
        let name = name.trim().to_ascii_lowercase();
        let words = ["session", "token", "auth", "sid", "jwt"];
        !value.is_empty() && words.iter().any(|word| name.contains(word))
    })
}

/// A URL with a password in it.
fn password(place: Place<'_>) -> Option<Problem> {
    let text = place.text().filter(|_| place.is_literal())?;
    let (_, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    if password.is_empty() || text.contains(char::is_whitespace) {
        return None;
    }
    let message = "this URL has a password in it, and everybody who reads this file knows it";
    Some(
        Problem::warning(place.span(), message)
            .code(Code::PLAIN_SECRET)
            .help("take it from the environment, as in `https://user:${PASSWORD}@host/`"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PUBLIC, check};
    use super::*;

    #[track_caller]
    fn rows(step: &str, at: Option<&str>) {
        let yaml = format!(
            "{PUBLIC}routes: [{{name: a, match: {{path: /}}, middlewares: [{step}], handler: echo}}]\n"
        );
        check(&yaml, at.map(|at| (Code::PLAIN_SECRET, at)));
    }

    #[test]
    fn secrets_come_from_elsewhere() {
        let set = |pair: &str| format!("{{set_headers: {{request: {{set: {{{pair}}}}}}}}}");
        rows(&set("authorization: Bearer abc"), Some("Bearer abc"));
        rows(&set("X-Api-Key: \"123\""), Some("\"123\""));
        rows(&set("authorization: \"Bearer ${TOKEN}\""), None);
        rows(&set("cookie: theme=dark"), None);
        rows(&set("cookie: session_id=7f"), Some("session_id=7f"));
        rows(&set("x-edge: retort"), None);
        rows(
            "{set_headers: {response: {set: {authorization: none}}}}",
            None,
        );
        rows("{set_headers: {request: {remove: [authorization]}}}", None);
    }

    #[test]
    fn conditions_and_checks_are_looked_at_too() {
        let yaml =
            |of: &str| format!("{PUBLIC}routes: [{{name: a, match: {of}, handler: echo}}]\n");
        let code = Code::PLAIN_SECRET;
        check(
            &yaml("{headers: {x-api-key: \"123\"}}"),
            Some((code, "\"123\"")),
        );
        check(
            &yaml("{headers: {authorization: {prefix: \"Bearer \"}}}"),
            None,
        );
        check(&yaml("{headers: {authorization: {present: true}}}"), None);
    }

    #[test]
    fn urls_have_no_passwords() {
        let set = |url: &str| format!("{{set_headers: {{request: {{set: {{x-to: \"{url}\"}}}}}}}}");
        rows(
            &set("redis://user:hunter2@cache:6379/0"),
            Some("\"redis://user:hunter2@cache:6379/0\""),
        );
        rows(&set("https://user@host/"), None);
        rows(&set("https://host:80/a@b"), None);
        rows(&set("redis://user:${TOKEN}@cache"), None);
    }
}
