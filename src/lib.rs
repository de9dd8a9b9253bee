//! Retort: a service-mesh sidecar gateway.
//!
//! Floors, from the bottom up; a module uses only what stands below it:
//! [`base`] · [`telemetry`] · [`middleware`], [`handler`], [`upstream`] · …

pub mod base;
pub mod handler;
pub mod middleware;
pub mod telemetry;
pub mod upstream;
