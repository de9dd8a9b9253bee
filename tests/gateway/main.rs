//! The gateway as users meet it: the real binary, real sockets, one file per promise.
#![cfg(test)]
#![expect(
    clippy::format_collect,
    clippy::string_slice,
    reason = "a test may panic, and may allocate where that reads best"
)]

mod admin;
mod affinity;
mod balance;
mod cli;
mod diff;
mod discovery;
mod drain;
mod examples;
mod explain;
mod faults;
mod flask;
mod gateway_api;
mod grpc;
mod handlers;
mod harness;
mod health;
mod hedging;
mod hostile;
mod limits;
mod middlewares;
mod mirror;
mod mixes;
mod outlier;
mod reload;
mod retries;
mod routing;
mod splits;
mod streaming;
mod telemetry;
mod upstream_faults;
mod upstream_limits;
mod upstreams;
mod websocket;
mod why;
