//! Instruments: metrics, the access log, and the record that each request fills as it goes.

pub mod access_log;
pub mod decision;
pub mod log;
pub mod metrics;
pub mod recent;
mod settings;

pub use self::settings::Settings;
