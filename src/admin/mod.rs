//! Doors for operators: the admin port, and the telemetry port.
//!
//! They never share a listener: telemetry is read by machines of the whole network, admin is not to
//! be reached from other hosts unless somebody says so. Both live on the control thread.

mod door;
mod grpc;
mod http;
pub mod overview;
pub mod telemetry;
mod why;

use std::future::Future;
use std::sync::Arc;

pub use self::door::Door;
use self::overview::Overview;
use crate::base::lifecycle::Lifecycle;

/// The generated side of `proto/retort/admin/v1/admin.proto`.
#[expect(
    unused_qualifications,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("retort.admin.v1");

    /// The proto files of the admin API, encoded, for reflection.
    pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("admin");
}

/// Answers operators (gRPC and its JSON mirror) until `stop` is ready and what is in flight has had
/// a second to end.
pub async fn serve(
    door: Door,
    overview: Arc<dyn Overview>,
    lifecycle: Arc<Lifecycle>,
    stop: impl Future<Output = ()> + Send,
) {
    let (health, services) = grpc::services(Arc::clone(&overview)).await;
    let app = services.merge(http::routes(overview, door.address().clone()));
    let app = app.fallback(http::not_found);
    tokio::select! {
        () = door.serve(app, stop) => {}
        () = health.follow(&lifecycle) => {}
    }
}

#[cfg(test)]
mod tests;
