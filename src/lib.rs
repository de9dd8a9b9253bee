//! Retort: a service-mesh sidecar gateway.
//!
//! Floors, from the bottom up; a module uses only what stands below it:
//! [`base`] · [`telemetry`] · [`middleware`], [`handler`] · … · [`admin`]

pub mod admin;
pub mod base;
pub mod config;
pub mod handler;
pub mod middleware;
pub mod routing;
pub mod telemetry;
pub mod upstream;
