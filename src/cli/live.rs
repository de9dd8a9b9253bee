//! Talking to a running gateway, through the JSON side of its admin port.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::base::address::Address;
use crate::cli::output::complain;
use crate::cli::{FAILED, UNREACHED};

/// Which gateway.
#[derive(Debug, clap::Args)]
pub(crate) struct Admin {
    /// The admin port of the gateway: `ip:port` or `unix:/path`
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:15000",
        env = "RETORT_ADMIN"
    )]
    pub(crate) admin: Address,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Nobody is there.
    Unreached(String),
    /// The gateway says no.
    Refused(String),
}

/// How long a gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest answer that is read.
const LONGEST: usize = 64 * 1024 * 1024;

impl Admin {
    /// Asks for a document.
    pub(crate) fn get(&self, path: &str) -> Result<Value, Failed> {
        self.ask(http::Method::GET, path, Bytes::new())
    }

    /// Sends a document, and gives that which comes back.
    pub(crate) fn post(&self, path: &str, document: &Value) -> Result<Value, Failed> {
        self.ask(http::Method::POST, path, document.to_string().into())
    }

    fn ask(&self, method: http::Method, path: &str, body: Bytes) -> Result<Value, Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| self.unreached(&error))?;
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| self.unreached(&error))?;
        let asked = async {
            match &self.admin {
                Address::Tcp(address) => {
                    let stream = tokio::net::TcpStream::connect(address).await;
                    exchange(stream.map_err(|error| self.unreached(&error))?, request).await
                }
                Address::Unix(path) => {
                    let stream = tokio::net::UnixStream::connect(path).await;
                    exchange(stream.map_err(|error| self.unreached(&error))?, request).await
                }
            }
            .map_err(|error| self.unreached(&error))
        };
        let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await });
        let (status, bytes) = match answer {
            Ok(answer) => answer?,
            Err(_) => return Err(self.unreached(&format!("no answer within {PATIENCE:?}"))),
        };
        let document: Value = serde_json::from_slice(&bytes).map_err(|_| {
            self.unreached(&format!(
                "{status} without JSON: is it a gateway's admin port?"
            ))
        })?;
        if status.is_success() {
            return Ok(document);
        }
        let sentence = document.get("error").and_then(Value::as_str);
        Err(Failed::Refused(
            sentence.unwrap_or(status.as_str()).to_owned(),
        ))
    }

    fn unreached(&self, why: &dyn std::fmt::Display) -> Failed {
        Failed::Unreached(format!(
            "no gateway answers at {}: {why}\nhelp: is it running? `--admin` takes another address, that of `admin.address` in its configuration",
            self.admin
        ))
    }
}

impl Failed {
    /// Tells it, and gives the exit status.
    pub(crate) fn tell(&self) -> ExitCode {
        let (sentence, code) = match self {
            Self::Unreached(sentence) => (sentence, UNREACHED),
            Self::Refused(sentence) => (sentence, FAILED),
        };
        complain(&format!("error: {sentence}"));
        ExitCode::from(code)
    }
}

type Answer = Result<(http::StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>>;

async fn exchange<S>(stream: S, request: http::Request<Full<Bytes>>) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer, at the latest with the command.
    drop(tokio::spawn(connection));
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LONGEST)
        .collect()
        .await?;
    Ok((status, body.to_bytes()))
}
