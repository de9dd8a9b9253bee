//! Which route a request takes.

pub mod matcher;
