//! Text with places to fill in, in the language of Jinja.
//!
//! A template is parsed where it is read, so that a mistake is a problem of the configuration and
//! never of a request. What the language can do is bounded: it reads no files and includes no other
//! templates, and each render has a budget of steps and bytes ([`FUEL`]). Values are written as they
//! are: whoever fills JSON pipes them through `tojson`, whoever fills HTML through `escape`. A name
//! that is not there is empty, and so is what it is asked for.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, ErrorKind, Output, State, UndefinedBehavior};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde::de::{self, Deserialize, Deserializer, Visitor};

/// What one render may cost: one for each step, one for every 64 bytes that are written, so about
/// 6 MB at most, or 400 KB of `tojson`.
pub const FUEL: u64 = 100_000;

/// How deep macros may call each other.
const RECURSION: usize = 50;

/// The one template of an environment.
const NAME: &str = "template";

/// A text with places to fill in; cheap to clone, shared by all workers.
#[derive(Clone)]
pub struct Template(Arc<Parsed>);

/// A text with places whose values cannot leave the path segment or query value that they stand in.
///
/// Every value is percent-encoded but for letters, digits, `-`, `.`, `_` and `~`; one that is meant
/// to bring slashes with it is written `{{ path.rest | safe }}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate(Template);

impl Deref for PathTemplate {
    type Target = Template;

    fn deref(&self) -> &Template {
        &self.0
    }
}

/// What happens to a value before it is written.
#[derive(Clone, Copy)]
enum Escape {
    Nothing,
    Component,
}

/// What may stand in one segment of a path as it is (RFC 3986, 2.3).
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

struct Parsed {
    source: Box<str>,
    /// None for a text without places: it is its own rendering.
    dynamic: Option<Dynamic>,
}

struct Dynamic {
    environment: Environment<'static>,
    /// Names that the template asks of its context.
    names: HashSet<String>,
}

impl Template {
    /// The text as it was written.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The whole text, if there is nothing in it to fill in.
    pub fn is_static(&self) -> Option<&str> {
        match self.0.dynamic {
            None => Some(&self.0.source),
            Some(_) => None,
        }
    }

    /// True if the template asks for the top-level name, so that a context need not hold what
    /// nobody reads.
    pub fn uses(&self, name: &str) -> bool {
        self.0
            .dynamic
            .as_ref()
            .is_some_and(|dynamic| dynamic.names.contains(name))
    }

    /// The text with its places filled in from `context`, a map or a struct.
    ///
    /// # Errors
    /// When the budget is used up, or a value does not suit what is done with it.
    pub fn render(&self, context: impl Serialize) -> Result<String, TemplateError> {
        let Some(dynamic) = &self.0.dynamic else {
            return Ok(self.0.source.clone().into());
        };
        // The look-up locks a mutex of this one template for some 20 ns: rendering costs
        // microseconds, so workers do not meet there.
        dynamic
            .environment
            .get_template(NAME)
            .and_then(|template| template.render(Serde(context)))
            .map_err(TemplateError::from)
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(source: &str) -> Result<Self, TemplateError> {
        Self::parse(source, Escape::Nothing)
    }
}

impl FromStr for PathTemplate {
    type Err = TemplateError;

    fn from_str(source: &str) -> Result<Self, TemplateError> {
        Template::parse(source, Escape::Component).map(Self)
    }
}

impl Template {
    fn parse(source: &str, escape: Escape) -> Result<Self, TemplateError> {
        let is_dynamic = ["{{", "{%", "{#"].iter().any(|open| source.contains(open));
        let dynamic = if is_dynamic {
            Some(Dynamic::parse(source, escape)?)
        } else {
            None
        };
        Ok(Self(Arc::new(Parsed {
            source: source.into(),
            dynamic,
        })))
    }
}

impl Dynamic {
    fn parse(source: &str, escape: Escape) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        if let Escape::Component = escape {
            environment.set_formatter(write_component);
        }
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        // A body that ends in a line break means it.
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        environment.set_syntax(syntax?);
        environment.add_template_owned(NAME, source.to_owned())?;
        let template = environment.get_template(NAME)?;
        // The parser does not know which filters exist; a render with nothing in it does.
        if let Err(error) = template.render(())
            && is_unknown_name(error.kind())
        {
            return Err(error.into());
        }
        let names = template.undeclared_variables(false);
        drop(template);
        Ok(Self { environment, names })
    }
}

/// Writes a value percent-encoded, unless `safe` was asked to leave it.
fn write_component(
    output: &mut Output<'_>,
    _: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), minijinja::Error> {
    if value.is_undefined() || value.is_none() {
        return Ok(());
    }
    let text = value.to_string();
    if value.is_safe() {
        return output.write_str(&text).map_err(Into::into);
    }
    let mut pieces = utf8_percent_encode(&text, COMPONENT);
    pieces
        .try_for_each(|piece| output.write_str(piece))
        .map_err(Into::into)
}

fn is_unknown_name(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction
    )
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.0.source == other.0.source
    }
}

impl Eq for Template {}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({:?})", self.source())
    }
}

macro_rules! written_as_text {
    ($($type:ident)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a text or template")
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string"})
            }
        }
    )*};
}

written_as_text!(Template PathTemplate);

/// Why a template cannot be parsed or filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// What is wrong, in the words of the language.
    pub detail: String,
    /// The line within the template, from 1.
    pub line: Option<usize>,
}

impl std::error::Error for TemplateError {}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            // Most templates have one line: its number says nothing.
            Some(line) if line > 1 => {
                write!(f, "the template fails in its line {line}: {}", self.detail)
            }
            _ => write!(f, "the template fails: {}", self.detail),
        }
    }
}

impl From<minijinja::Error> for TemplateError {
    fn from(error: minijinja::Error) -> Self {
        let detail = match (error.kind(), error.detail()) {
            (ErrorKind::OutOfFuel, _) => "it takes too many steps or writes too much".to_owned(),
            (kind, None) => kind.to_string(),
            (ErrorKind::SyntaxError, Some(detail)) => detail.to_owned(),
            (kind, Some(detail)) => format!("{kind}: {detail}"),
        };
        Self {
            detail,
            line: error.line(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(source: &str) -> Template {
        source.parse().expect("a valid template")
    }

    #[test]
    fn places_are_filled_in_as_written() {
        let check = |source: &str, expected: &str| {
            let context = json!({
                "path": {"name": "Ada <3"}, "headers": {"x-a": "1"}, "list": [1, 2],
            });
            assert_eq!(template(source).render(context).as_deref(), Ok(expected));
        };
        check("plain", "plain");
        check("Hello, {{ path.name }}!\n", "Hello, Ada <3!\n");
        check("{{ headers['x-a'] }}", "1");
        check("{{ path | tojson }}", r#"{"name": "Ada \u003c3"}"#);
        check("{% for x in list %}{{ x }};{% endfor %}", "1;2;");
        check("{{ nobody.knows.this }}.", ".");
        check("{{ nobody | default('you') }}", "you");
        check("{# nothing #}", "");
    }

    #[test]
    fn a_value_stays_within_its_place_of_a_path() {
        let check = |source: &str, expected: &str| {
            let template: PathTemplate = source.parse().expect("a valid template");
            let context = json!({"id": "a/b?c=1&d #é", "n": 7, "none": null});
            assert_eq!(template.render(context).as_deref(), Ok(expected));
        };
        check("/static/%20", "/static/%20");
        check(
            "/u/{{ id }}?n={{ n }}",
            "/u/a%2Fb%3Fc%3D1%26d%20%23%C3%A9?n=7",
        );
        check("/u/{{ id | safe }}", "/u/a/b?c=1&d #é");
        check("/u/{{ none }}{{ nobody }}", "/u/");
    }

    #[test]
    fn a_text_without_places_is_static() {
        assert_eq!(template("a {b} %}").is_static(), Some("a {b} %}"));
        assert_eq!(template("a {{ b }}").is_static(), None);
    }

    #[test]
    fn it_knows_the_names_that_it_asks_for() {
        let asks = template("{{ path.id }}{% set query = 1 %}{{ query }}");
        assert!(asks.uses("path"));
        assert!(!asks.uses("query"));
        assert!(!template("path").uses("path"));
    }

    #[test]
    fn mistakes_are_found_at_the_door() {
        let check = |source: &str, words: &str| {
            let error = source.parse::<Template>().expect_err(source).to_string();
            assert!(error.contains(words), "{error}");
        };
        check("{{ path.name ", "unexpected end of input");
        check("one\n{% if x %}\n", "line");
        check("{{ x | nofilter }}", "nofilter");
        check("{{ nofunction() }}", "nofunction");
        check("{% include '/etc/passwd' %}", "unknown statement include");
        let error = serde_json::from_value::<Template>(json!("{{")).expect_err("broken");
        assert!(error.to_string().starts_with("the template fails: "));
    }

    #[test]
    fn a_render_is_bounded() {
        let check = |source: &str| {
            let error = template(source).render(json!({"n": 1})).expect_err(source);
            assert!(error.detail.contains("too many steps"), "{error}");
        };
        check(
            "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}",
        );
        check("{{ 'x' * 99999999 }}");
        let deep = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
        assert!(template(deep).render(json!({})).is_err());
    }

    #[test]
    fn it_is_shared_by_threads_and_equal_by_source() {
        fn is_shared<T: Send + Sync + Clone>(_: &T) {}
        is_shared(&template("{{ x }}"));
        assert_eq!(template("{{ x }}"), template("{{ x }}"));
        assert_ne!(template("{{ x }}"), template("{{ y }}"));
    }
}
