//! A program that embeds the gateway: its handlers and the gateway around them, without a socket.
#![cfg(test)]

mod answers;
#[path = "../../examples/handlers.rs"]
#[expect(dead_code, reason = "its `main` serves on real ports")]
mod handlers;
mod harness;
mod life;
mod memory;
mod shedding;
