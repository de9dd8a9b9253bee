//! A middleware that a Rust program has registered.
//!
//! The program gives it a name and a function that makes it of its settings; the configuration
//! refers to it by that name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Context, Effects, Hooks, Kind, Step};
use crate::base::message::{Request, Response};

/// Runs a middleware that a Rust program has registered with the gateway.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
#[schemars(rename = "NativeMiddleware")]
pub struct Settings {
    /// The name under which the program registered it. Example: `tenant`.
    pub name: String,
    /// What it is given, in whatever shape it asks for. Default: nothing. Example: `{header: x-tenant}`.
    #[serde(default)]
    pub settings: serde_json::Value,
}

/// A registered middleware.
pub struct Native {
    name: Box<str>,
    hooks: Arc<dyn Hooks>,
}

/// Makes a middleware of its settings, or says in a sentence what is wrong with them.
type Factory = Arc<dyn Fn(&serde_json::Value) -> Result<Arc<dyn Hooks>, String> + Send + Sync>;

/// Middlewares that a Rust program has registered, by name.
#[derive(Clone, Default)]
pub struct Natives(BTreeMap<Box<str>, Factory>);

impl Natives {
    /// Registers one; a name that is taken is replaced.
    pub fn register<F>(&mut self, name: &str, factory: F)
    where
        F: Fn(&serde_json::Value) -> Result<Arc<dyn Hooks>, String> + Send + Sync + 'static,
    {
        self.0.insert(name.into(), Arc::new(factory));
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| &**name)
    }
}

impl Kind for Native {
    type Settings = Settings;

    fn build(settings: &Settings, natives: &Natives) -> Result<Self, String> {
        let name = &settings.name;
        let Some(factory) = natives.0.get(&**name) else {
            let known: Vec<&str> = natives.names().collect();
            let known = known.join("`, `");
            return Err(if known.is_empty() {
                format!("no native middleware `{name}`: this program has registered none")
            } else {
                format!("no native middleware `{name}`: registered are `{known}`")
            });
        };
        let hooks = factory(&settings.settings)
            .map_err(|wrong| format!("native middleware `{name}`: {wrong}"))?;
        Ok(Self {
            name: name.as_str().into(),
            hooks,
        })
    }
}

impl Hooks for Native {
    fn on_request(&self, request: &mut Request, cx: &mut Context<'_>) -> Step<Request> {
        if cx.effects == Effects::None {
            // What it would do beyond the request, nobody knows.
            let note = format!("`{}` is the program's own and was not asked", self.name);
            cx.record.note(note);
            return Step::Next;
        }
        self.hooks.on_request(request, cx)
    }

    fn on_response(&self, response: &mut Response, cx: &mut Context<'_>) -> Step<Response> {
        if cx.effects == Effects::None {
            return Step::Next;
        }
        self.hooks.on_response(response, cx)
    }
}

impl fmt::Debug for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Native").field(&self.name).finish()
    }
}

impl fmt::Debug for Natives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::super::testing::*;
    use super::super::{Middleware, Settings};
    use super::*;

    struct Teapot;

    impl Hooks for Teapot {
        fn on_request(&self, _: &mut Request, _: &mut Context<'_>) -> Step<Request> {
            Step::answer(Response::status(StatusCode::IM_A_TEAPOT))
        }
    }

    fn settings(json: &str) -> Settings {
        serde_json::from_str(json).expect(json)
    }

    #[test]
    fn a_registered_one_runs_and_others_are_named_in_the_refusal() {
        let mut natives = Natives::default();
        natives.register("teapot", |settings| {
            if settings.is_null() {
                Ok(Arc::new(Teapot))
            } else {
                Err("it takes no settings".to_owned())
            }
        });

        let built = Middleware::build(&settings(r#"{"native": {"name": "teapot"}}"#), &natives);
        let answer = World::new().down(&built.expect("registered"), &mut get("/"));
        assert_eq!(answer.map(|a| a.head.status), Some(StatusCode::IM_A_TEAPOT));

        let check = |json: &str, natives: &Natives, expected: &str| {
            let refused = Middleware::build(&settings(json), natives).expect_err(json);
            assert_eq!(refused, expected);
        };
        check(
            r#"{"native": {"name": "teapott"}}"#,
            &natives,
            "no native middleware `teapott`: registered are `teapot`",
        );
        check(
            r#"{"native": {"name": "teapot", "settings": 1}}"#,
            &natives,
            "native middleware `teapot`: it takes no settings",
        );
        check(
            r#"{"native": {"name": "x"}}"#,
            &Natives::default(),
            "no native middleware `x`: this program has registered none",
        );
    }
}
