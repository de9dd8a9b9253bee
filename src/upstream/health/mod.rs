//! Which endpoints are fit to take requests.

pub mod outlier;
