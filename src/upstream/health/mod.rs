//! Whether an endpoint can take requests.
//!
//! [`active`] asks it, on connections of its own. What requests tell in passing is for another file.

pub mod active;
