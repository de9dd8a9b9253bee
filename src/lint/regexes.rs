//! Regular expressions that say no more than plain text would: they cost more, and of all kinds of paths
//! a regular expression is asked last.

use super::scene::Scene;
use crate::base::code::Code;
use crate::base::problem::Problem;
use crate::config::Place;

pub(super) fn check(scene: &Scene<'_>, found: &mut Vec<Problem>) {
    let routes = scene.config.places.section("routes").flat_map(Place::items);
    for of in routes
        .filter_map(|route| route.get("match"))
        .flat_map(Place::items)
    {
        if let Some((regex, simpler)) = of
            .get("path_regex")
            .and_then(|at| Some((at, path(at.text()?)?)))
        {
            let message = format!("this regular expression says no more than `{simpler}`");
            found.push(
                Problem::warning(regex.span(), message)
                    .code(Code::NEEDLESS_REGEX)
                    .label("asked only after every other kind of path")
                    .help(format!("write `{simpler}` in the place of `path_regex`")),
            );
        }
        for key in ["headers", "query", "cookies"] {
            let values = of.get(key).into_iter().flat_map(Place::entries);
            for (name, regex) in
                values.filter_map(|(name, value)| Some((name, value.get("regex")?)))
            {
                if let Some(simpler) = regex.text().and_then(value) {
                    let message = format!("this regular expression says no more than `{simpler}`");
                    found.push(
                        Problem::warning(regex.span(), message)
                            .code(Code::NEEDLESS_REGEX)
                            .help(format!("write `{name}: {simpler}`")),
                    );
                }
            }
        }
    }
}

/// The pattern without what says that it matches the whole, which it does anyway.
fn bare(pattern: &str) -> &str {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    match pattern.strip_suffix('$') {
        Some(rest) if !rest.ends_with('\\') => rest,
        _ => pattern,
    }
}

/// The one text that a pattern matches, if it is but one.
fn literal(pattern: &str) -> Option<String> {
    let mut text = String::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                let escaped = characters.next()?;
                if !escaped.is_ascii_punctuation() {
                    return None;
                }
                text.push(escaped);
            }
            c if c.is_ascii_alphanumeric() || "/_-~%@:=,&!;' ".contains(c) => text.push(c),
            _ => return None,
        }
    }
    Some(text)
}

/// What stands for a whole segment, and what says the same in a template.
const SEGMENTS: [(&str, &str); 6] = [
    ("([^/]+)", "{}"),
    ("[^/]+", "{}"),
    ("([0-9]+)", "{:int}"),
    ("[0-9]+", "{:int}"),
    (r"(\d+)", "{:int}"),
    (r"\d+", "{:int}"),
];

/// What is not split at.
const SLASHLESS: [(&str, &str); 2] = [("([^/]+)", "\u{1}"), ("[^/]+", "\u{1}")];

/// The same as a literal path, a prefix or a template.
fn path(pattern: &str) -> Option<String> {
    let pattern = bare(pattern);
    if !pattern.starts_with('/') {
        return None;
    }
    if let Some(text) = literal(pattern) {
        return is_plain(&text).then(|| format!("path: {text}"));
    }
    for rest in ["(/.*)?", "(?:/.*)?"] {
        if let Some(text) = pattern.strip_suffix(rest).and_then(literal) {
            return (is_plain(&text) && !text.ends_with('/'))
                .then(|| format!("path_prefix: {text}"));
        }
    }
    template(pattern)
}

/// What could be written under `path` as it is.
fn is_plain(text: &str) -> bool {
    !text.contains(['{', '}', ' ', '%', '?', '#', '\\'])
}

fn template(pattern: &str) -> Option<String> {
    let pattern = SLASHLESS
        .iter()
        .fold(pattern.to_owned(), |pattern, (from, to)| {
            pattern.replace(from, to)
        });
    let mut path = String::new();
    let mut names = ('a'..='z').map(String::from);
    for segment in pattern.strip_prefix('/')?.split('/') {
        path.push('/');
        let known = SEGMENTS.iter().find(|(known, _)| *known == segment);
        match (segment, known) {
            ("\u{1}", _) => path.extend(["{", &names.next()?, "}"]),
            (_, Some((_, converter))) => {
                let name = names.next()?;
                path += &converter.replacen('{', &format!("{{{name}"), 1);
            }
            (segment, None) => {
                let text = literal(segment).filter(|text| is_plain(text))?;
                path += &text;
            }
        }
    }
    Some(format!("path: \"{path}\""))
}

/// The same as a condition without a regular expression.
fn value(pattern: &str) -> Option<String> {
    let pattern = bare(pattern);
    if pattern == ".*" {
        return Some("{present: true}".to_owned());
    }
    if pattern.is_empty() {
        return None;
    }
    match pattern.strip_suffix(".*") {
        Some(start) if !start.ends_with('\\') => {
            literal(start).map(|start| format!("{{prefix: \"{start}\"}}"))
        }
        _ => literal(pattern).map(|text| format!("\"{text}\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PUBLIC, check};
    use super::*;

    #[test]
    fn paths_are_said_more_simply_where_they_can_be() {
        let rows = |pattern: &str, expected: Option<&str>| {
            assert_eq!(path(pattern).as_deref(), expected, "{pattern}");
        };
        rows("/health", Some("path: /health"));
        rows("^/health$", Some("path: /health"));
        rows(r"/robots\.txt", Some("path: /robots.txt"));
        rows("/static(/.*)?", Some("path_prefix: /static"));
        rows("^/static(?:/.*)?$", Some("path_prefix: /static"));
        rows("/orders/[0-9]+", Some("path: \"/orders/{a:int}\""));
        rows(
            r"/orders/\d+/items/([^/]+)",
            Some("path: \"/orders/{a:int}/items/{b}\""),
        );
        rows("/v[0-9]+/orders", None);
        rows("/robots.txt", None);
        rows("/a|/b", None);
        rows("(?i)/health", None);
        rows("/static/.*", None);
        rows(".*", None);
        rows("/orders/[0-9]{1,3}", None);
        rows(r"/price\$", Some("path: /price$"));
        rows("", None);
    }

    #[test]
    fn values_are_said_more_simply_where_they_can_be() {
        let rows = |pattern: &str, expected: Option<&str>| {
            assert_eq!(value(pattern).as_deref(), expected, "{pattern}");
        };
        rows("^acme$", Some("\"acme\""));
        rows("shop/.*", Some("{prefix: \"shop/\"}"));
        rows(".*", Some("{present: true}"));
        rows("[a-z]+", None);
        rows("(?i)websocket", None);
        rows(r"a\.*", None);
        rows("", None);
    }

    #[test]
    fn they_are_found_where_they_stand() {
        let yaml =
            |of: &str| format!("{PUBLIC}routes: [{{name: a, match: {of}, handler: echo}}]\n");
        let code = Code::NEEDLESS_REGEX;
        check(&yaml("{path_regex: /health}"), Some((code, "/health")));
        check(&yaml("[{path_regex: \"/(a|b)\"}]"), None);
        check(
            &yaml("{headers: {x-a: {regex: \"^b$\"}}}"),
            Some((code, "\"^b$\"")),
        );
        check(&yaml("{cookies: {a: {regex: \"b+\"}}}"), None);
    }
}
