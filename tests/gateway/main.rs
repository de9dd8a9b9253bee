//! The gateway as users meet it: the real binary, real sockets, one file per promise.
#![cfg(test)]
#![expect(
    clippy::string_slice,
    reason = "offsets come from searches in the same text, and a test may panic"
)]

mod harness;
