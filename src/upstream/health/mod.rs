//! Whether an endpoint can take requests: [`active`] asks it, [`outlier`] judges by what requests meet.

pub mod active;
pub mod outlier;
