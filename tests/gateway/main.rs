//! The gateway as users meet it: the real binary, real sockets, one file per promise.
#![cfg(test)]
#![expect(
    clippy::string_slice,
    reason = "offsets come from searches in the same text, and a test may panic"
)]

mod admin;
mod cli;
mod drain;
mod examples;
mod flask;
mod grpc;
mod handlers;
mod harness;
mod hostile;
mod limits;
mod reload;
mod routing;
mod streaming;
mod telemetry;
mod upstream_faults;
mod upstreams;
mod websocket;
