//! The admin API as gRPC, with health and reflection beside it.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use super::overview::{self, Overview};
use super::v1::admin_server::{Admin, AdminServer};
use super::v1::{self, EndpointCondition, LifecycleState, Reload, ReloadOutcome};
use super::v1::{
    ExplainRequest, ExplainResponse, GetStatusRequest, GetStatusResponse,
    ListRecentFailuresRequest, ListRecentFailuresResponse, ListUpstreamsRequest,
    ListUpstreamsResponse, WhyRequest, WhyResponse,
};
use super::why;
use crate::base::lifecycle::{Lifecycle, State};
use crate::telemetry::metrics;
use crate::telemetry::recent::{Record, Try};
use crate::upstream::Condition;

/// The name under which health says whether the process lives at all.
const LIVENESS: &str = "liveness";

/// Keeps the health service in step with the lifecycle.
pub(super) struct Health(HealthReporter);

/// Every gRPC service of the admin port.
pub(super) async fn services(overview: Arc<dyn Overview>) -> (Health, Router) {
    let (reporter, health) = health_reporter();
    reporter
        .set_service_status("", ServingStatus::NotServing)
        .await;
    reporter
        .set_service_status(LIVENESS, ServingStatus::Serving)
        .await;
    let mut routes = Routes::new(AdminServer::new(Service(overview))).add_service(health);
    // The descriptors are constants that a test reads, so building cannot fail.
    if let Ok(reflection) = reflection().build_v1() {
        routes = routes.add_service(reflection);
    }
    if let Ok(reflection) = reflection().build_v1alpha() {
        routes = routes.add_service(reflection);
    }
    (Health(reporter), routes.prepare().into_axum_router())
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

impl Health {
    /// Follows the lifecycle; never ends.
    pub(super) async fn follow(&self, lifecycle: &Lifecycle) {
        let mut changes = lifecycle.subscribe();
        loop {
            let status = match *changes.borrow_and_update() {
                State::Ready => ServingStatus::Serving,
                State::Starting | State::Draining | State::Stopped => ServingStatus::NotServing,
            };
            self.0.set_service_status("", status).await;
            // The lifecycle lives as long as the borrow, so its channel stays open.
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

struct Service(Arc<dyn Overview>);

#[tonic::async_trait]
impl Admin for Service {
    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let status = self.0.status();
        Ok(Response::new(GetStatusResponse {
            version: status.version.to_owned(),
            revision: status.revision,
            source: status.source,
            state: state(status.state).into(),
            started_at: Some(timestamp(status.started_at)),
            uptime: status.uptime.try_into().ok(),
            workers: u32::try_from(status.workers).unwrap_or(u32::MAX),
            connections: status.connections,
            last_reload: status.last_reload.map(|reload| Reload {
                outcome: outcome(reload.outcome).into(),
                message: reload.message,
                at: Some(timestamp(reload.at)),
            }),
        }))
    }

    async fn list_upstreams(
        &self,
        _: Request<ListUpstreamsRequest>,
    ) -> Result<Response<ListUpstreamsResponse>, Status> {
        let found = self.0.upstreams();
        Ok(Response::new(ListUpstreamsResponse {
            revision: found.revision,
            upstreams: found.upstreams.into_iter().map(upstream).collect(),
        }))
    }

    async fn why(&self, request: Request<WhyRequest>) -> Result<Response<WhyResponse>, Status> {
        let id = request.into_inner().request_id;
        let found = self.0.recent(&why::of(&id));
        if found.is_empty() {
            return Err(Status::not_found(why::unknown(&id)));
        }
        let decisions = found.iter().map(|record| decision(record)).collect();
        Ok(Response::new(WhyResponse { decisions }))
    }

    async fn list_recent_failures(
        &self,
        request: Request<ListRecentFailuresRequest>,
    ) -> Result<Response<ListRecentFailuresResponse>, Status> {
        let found = self.0.recent(&request.into_inner().into());
        let decisions = found.iter().map(|record| decision(record)).collect();
        Ok(Response::new(ListRecentFailuresResponse { decisions }))
    }

    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<ExplainResponse>, Status> {
        let explanation = why::explain(Arc::clone(&self.0), request.into_inner()).await;
        let json = explanation.map_err(Status::invalid_argument)?.to_string();
        Ok(Response::new(ExplainResponse { json }))
    }
}

fn decision(record: &Record) -> v1::Decision {
    let record = record.clone();
    let attempt = |attempt: Try| v1::Attempt {
        endpoint: attempt.endpoint,
        duration_ms: attempt.duration_ms,
        status: attempt.status.unwrap_or(0).into(),
        flag: attempt.flag,
    };
    v1::Decision {
        request_id: record.request_id,
        started_at: record.started_at,
        duration_ms: record.duration_ms,
        backend_ms: record.backend_ms,
        revision: record.revision,
        listener: record.listener,
        client: record.client,
        method: record.method,
        host: record.host,
        target: record.target,
        protocol: record.protocol,
        route: record.route,
        middleware: record.middleware,
        notes: record.notes,
        upstream: record.upstream,
        handler: record.handler,
        attempts: record.attempts.into_iter().map(attempt).collect(),
        status: record.status.into(),
        flag: record.flag,
        meaning: record.meaning,
        detail: record.detail,
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
    }
}

fn upstream(upstream: overview::Upstream) -> v1::Upstream {
    v1::Upstream {
        name: upstream.name,
        protocol: upstream.protocol.to_owned(),
        balance: upstream.balance.to_owned(),
        panicking: upstream.panicking,
        queued: upstream.queued,
        endpoints: upstream.endpoints.into_iter().map(endpoint).collect(),
    }
}

fn endpoint(endpoint: overview::Endpoint) -> v1::Endpoint {
    v1::Endpoint {
        address: endpoint.address,
        zone: endpoint.zone.unwrap_or_default(),
        weight: endpoint.weight,
        share: endpoint.share,
        condition: condition(endpoint.condition).into(),
        why: endpoint.why.unwrap_or_default(),
    }
}

fn condition(condition: Condition) -> EndpointCondition {
    match condition {
        Condition::Ready => EndpointCondition::Ready,
        Condition::Unhealthy => EndpointCondition::Unhealthy,
        Condition::Ejected => EndpointCondition::Ejected,
        Condition::Draining => EndpointCondition::Draining,
        Condition::Disabled => EndpointCondition::Disabled,
    }
}

fn state(state: State) -> LifecycleState {
    match state {
        State::Starting => LifecycleState::Starting,
        State::Ready => LifecycleState::Ready,
        State::Draining => LifecycleState::Draining,
        State::Stopped => LifecycleState::Stopped,
    }
}

fn outcome(outcome: metrics::Reload) -> ReloadOutcome {
    match outcome {
        metrics::Reload::Applied { .. } => ReloadOutcome::Applied,
        metrics::Reload::Unchanged => ReloadOutcome::Unchanged,
        metrics::Reload::Refused => ReloadOutcome::Refused,
    }
}

fn timestamp(at: SystemTime) -> prost_types::Timestamp {
    at.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_can_be_reflected() {
        assert!(reflection().build_v1().is_ok());
        assert!(reflection().build_v1alpha().is_ok());
    }
}
