//! Handlers and middlewares of a program, in a world where the program is not there.
//!
//! They take any settings and do nothing; that they were not asked is said by the notebook of handlers,
//! and by a note of middlewares.

use std::sync::Arc;

use http::StatusCode;

use crate::base::message::{Request, Response};
use crate::config::{Config, Step, Target};
use crate::handler::{self, Registry};
use crate::middleware::{self, Context, Hooks, Natives};

/// Stands in for a middleware of that name.
struct Absent(Box<str>);

impl Hooks for Absent {
    fn on_request(&self, _: &mut Request, cx: &mut Context<'_>) -> middleware::Step<Request> {
        let note = format!("`{}` is the program's own and was not asked", self.0);
        cx.record.note(note);
        middleware::Step::Next
    }
}

/// What a configuration asks a program for.
pub(super) fn of(config: &Config) -> (Registry, Natives) {
    let mut registry = Registry::new();
    let backends = config.routes.iter().flat_map(|route| &route.backends);
    for backend in backends.clone() {
        if let Target::Handler(handler) = &backend.target
            && let handler::Settings::Native(native) = &handler.settings.value
        {
            // Never run: the notebook stands in for it.
            let make = |_: serde_json::Value| Ok::<_, String>(answer);
            registry = registry.handler(native.name.value.clone(), make);
        }
    }
    let mut natives = Natives::default();
    let listeners = config.listeners.iter().flat_map(|of| &of.middlewares);
    let routes = config.routes.iter().flat_map(|of| &of.middlewares);
    let steps = backends.flat_map(|of| &of.middlewares);
    for step in listeners.chain(routes).chain(steps) {
        if let Some(name) = native(step) {
            let absent: Arc<dyn Hooks> = Arc::new(Absent(name.into()));
            natives.register(name, move |_| Ok(Arc::clone(&absent)));
        }
    }
    (registry, natives)
}

async fn answer(_: Request, _: handler::Context) -> Response {
    Response::status(StatusCode::OK)
}

fn native(step: &Step) -> Option<&str> {
    match &step.settings.value {
        middleware::Settings::Native(native) => Some(&native.name),
        _ => None,
    }
}
