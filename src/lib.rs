//! Retort: a service-mesh sidecar gateway.
//!
//! Floors, from the bottom up; a module uses only what stands below it:
//! [`base`] · [`telemetry`] · [`routing`], [`middleware`], [`handler`], [`upstream`] · [`config`] ·
//! [`snapshot`] · [`proxy`] · [`server`], [`admin`] · [`app`], [`cli`].

pub mod admin;
pub mod app;
pub mod base;
pub mod cli;
pub mod config;
pub mod handler;
pub mod middleware;
pub mod proxy;
pub mod routing;
pub mod server;
pub mod snapshot;
pub mod telemetry;
pub mod upstream;

/// The programs in `docs/embedding.md`, which must compile and run.
#[cfg(doctest)]
#[doc = include_str!("../docs/embedding.md")]
pub struct Embedding;
