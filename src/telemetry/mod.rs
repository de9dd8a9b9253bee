//! Instruments: metrics, the access log, and the record that each request fills as it goes.

pub mod decision;
pub mod metrics;
