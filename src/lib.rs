//! Retort: a service-mesh sidecar gateway.
//!
//! Floors, from the bottom up; a module uses only what stands below it:
//! [`base`] · [`telemetry`] · [`routing`], [`middleware`], [`handler`] · …

pub mod base;
pub mod handler;
pub mod middleware;
pub mod routing;
pub mod telemetry;
