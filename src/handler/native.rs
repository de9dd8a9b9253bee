//! A handler that the program registered under a name.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use std::fmt;
use std::sync::Arc;

use super::{Context, Handle, Kind, Registry, Reply};
use crate::base::message::Request;
use crate::base::problem::{Problem, Spanned};
use crate::base::suggest;

/// Settings of a handler written in Rust.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "NativeHandler")]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The name under which the program registered it.
    pub name: Spanned<String>,
    /// What it is made with; which keys there are is the handler's own affair.
    #[serde(default)]
    pub settings: Value,
}

/// A registered handler in one place of the configuration.
pub(super) struct Native(Arc<dyn Handle>);

impl Kind for Native {
    type Settings = Settings;
    const MAY_CALL_ANY: bool = true;

    fn build(settings: &Settings, registry: &Registry) -> Result<Self, Problem> {
        let Settings { name, settings } = settings;
        match registry.make(name, settings) {
            Some(Ok(handler)) => Ok(Self(handler)),
            Some(Err(why)) => Err(Problem::error(
                name.span,
                format!(
                    "the native handler `{}` refuses its settings: {why}",
                    name.value
                ),
            )),
            None => Err(unknown(name, registry)),
        }
    }

    fn label(settings: &Settings) -> Option<&str> {
        Some(&settings.name)
    }

    fn reply(&self, request: Request, context: Context) -> Reply {
        Reply::Later(self.0.handle(request, context))
    }
}

fn unknown(name: &Spanned<String>, registry: &Registry) -> Problem {
    let problem = Problem::error(
        name.span,
        format!("this program has no native handler `{}`", name.value),
    );
    if registry.names().next().is_none() {
        return problem
            .help("native handlers exist only in programs that register them; this one has none");
    }
    match suggest::advice(name, registry.names()) {
        Some(advice) => problem.help(advice),
        None => problem,
    }
}

impl fmt::Debug for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Native(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::base::body::Body;
    use crate::base::message::{Client, Response};
    use crate::handler::testing::{context, get, text};
    use crate::handler::{Answering, Failed, Handler};

    fn build(settings: &Value, registry: &Registry) -> Result<Arc<Handler>, Problem> {
        let settings = serde_json::from_value(json!({"native": settings})).expect("valid");
        Handler::build("test", &settings, registry)
    }

    async fn answer(registry: &Registry, settings: Value) -> Result<Response, Failed> {
        let handler = build(&settings, registry).expect("a handler");
        handler.run(get("/"), context()).await
    }

    #[derive(Deserialize)]
    struct Price {
        currency: String,
    }

    impl Handle for Price {
        fn handle(&self, _: Request, _: Context) -> Answering {
            let text = format!("7 {}", self.currency);
            Box::pin(async { Ok(Response::text(StatusCode::OK, text)) })
        }
    }

    #[tokio::test]
    async fn settings_reach_the_handler_as_its_own_type() {
        let registry = Registry::new().handler("price", |price: Price| match &*price.currency {
            "" => Err("a price needs a currency"),
            _ => Ok(price),
        });
        let settings = json!({"name": "price", "settings": {"currency": "EUR"}});
        let response = answer(&registry, settings).await.expect("an answer");
        assert_eq!(text(response).await, "7 EUR");

        let check = |settings: Value, words: &str| {
            let problem = build(&settings, &registry).expect_err("a problem").message;
            assert!(problem.contains(words), "{problem}");
        };
        check(json!({"name": "price"}), "refuses its settings: ");
        check(
            json!({"name": "price", "settings": {"currency": ""}}),
            "needs a currency",
        );
    }

    #[test]
    fn an_unknown_name_is_told_with_the_known_ones() {
        let registry = Registry::new()
            .handle_fn("hello", |_, _| async { Response::status(StatusCode::OK) })
            .handle_fn("price", |_, _| async { Response::status(StatusCode::OK) });
        let problem = build(&json!({"name": "prise"}), &registry).expect_err("unknown");
        assert_eq!(
            problem.message,
            "this program has no native handler `prise`"
        );
        assert_eq!(problem.help.as_deref(), Some("did you mean `price`?"));
        let problem = build(&json!({"name": "xyz"}), &registry).expect_err("unknown");
        let known = "known here are `hello` and `price`";
        assert_eq!(problem.help.as_deref(), Some(known));
        let problem = build(&json!({"name": "x"}), &Registry::new()).expect_err("unknown");
        assert!(problem.help.expect("help").contains("this one has none"));
        let settings = json!({"name": "hello", "settings": {"x": 1}});
        let problem = build(&settings, &registry).expect_err("settings");
        assert!(problem.message.ends_with("it takes no settings"));
    }

    #[tokio::test]
    async fn functions_answer_or_fail_with_any_error() {
        let registry = Registry::new()
            .handle_fn("fails", |_, _| async {
                let number: u8 = "x".parse()?;
                Ok::<_, std::num::ParseIntError>(Response::text(StatusCode::OK, number.to_string()))
            })
            .handle_fn("says", |_, _| async {
                let answer = Response::status(StatusCode::IM_A_TEAPOT);
                Err::<Response, _>(Failed::new("tea only").answer(answer))
            })
            .handle_fn("blocks", |_, context| async move {
                let sum = context.blocking(|| 1 + 1).await?;
                Ok::<_, Failed>(Response::text(StatusCode::OK, sum.to_string()))
            })
            .handle_fn("calls", |request: Request, context: Context| async move {
                context.call("nobody", request).await
            })
            .handle_fn("explains", |_, _| async {
                let inner = anyhow::anyhow!("the disk is full");
                Err::<Response, _>(inner.context("no receipt"))
            });
        let failed = answer(&registry, json!({"name": "fails"}))
            .await
            .expect_err("fails");
        assert_eq!(failed.detail, "invalid digit found in string");
        let failed = answer(&registry, json!({"name": "says"}))
            .await
            .expect_err("fails");
        assert_eq!(failed.into_response().head.status, 418);
        let failed = answer(&registry, json!({"name": "calls"}))
            .await
            .expect_err("fails");
        assert_eq!(failed.detail, "there is no upstream `nobody`");
        let failed = answer(&registry, json!({"name": "explains"}))
            .await
            .expect_err("fails");
        assert_eq!(failed.detail, "no receipt: the disk is full");
        let response = answer(&registry, json!({"name": "blocks"}))
            .await
            .expect("answers");
        assert_eq!(text(response).await, "2");
    }

    #[tokio::test]
    async fn a_tower_service_is_a_handler() {
        let ours = tower::service_fn(|request: http::Request<Body>| async move {
            assert!(request.extensions().get::<Client>().is_some());
            Ok::<_, Infallible>(http::Response::new(request.into_body()))
        });
        let foreign = tower::service_fn(|_: http::Request<Body>| async {
            let body = http_body_util::Full::new(bytes::Bytes::from("foreign"));
            Ok::<_, Infallible>(http::Response::new(body))
        });
        let broken = tower::service_fn(|_: http::Request<Body>| async {
            Err::<http::Response<Body>, _>("out of order")
        });
        let registry = Registry::new()
            .service("ours", ours)
            .service("foreign", foreign)
            .service("broken", broken);
        let response = answer(&registry, json!({"name": "ours"}))
            .await
            .expect("answers");
        assert_eq!(text(response).await, "");
        let response = answer(&registry, json!({"name": "foreign"}))
            .await
            .expect("answers");
        assert_eq!(response.body.len(), Some(7));
        assert_eq!(text(response).await, "foreign");
        let failed = answer(&registry, json!({"name": "broken"}))
            .await
            .expect_err("fails");
        assert_eq!(failed.detail, "the service failed: out of order");
    }
}
