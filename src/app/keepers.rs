//! The keepers of all upstreams: one task each on the control thread, as long as it is in force.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::AbortHandle;

use crate::snapshot::Snapshot;
use crate::upstream::{self, Upstream};

/// How long new endpoints are looked for and checked before requests are sent to them.
const WARM_UP: Duration = Duration::from_secs(3);

/// Every upstream that is looked after, and the task that does it.
#[derive(Debug, Default)]
pub(crate) struct Keepers(Vec<(Arc<Upstream>, AbortHandle)>);

impl Keepers {
    /// Begins to look after the upstreams of a snapshot that is about to be in force, and gives those
    /// that are new some time to find their endpoints.
    pub(crate) async fn follow(&mut self, snapshot: &Snapshot) {
        let mut new = Vec::new();
        for upstream in &snapshot.upstreams {
            let upstream = &upstream.upstream;
            if !self.0.iter().any(|(known, _)| Arc::ptr_eq(known, upstream)) {
                let task = tokio::task::spawn_local(upstream::keep(upstream));
                self.0.push((Arc::clone(upstream), task.abort_handle()));
                new.push(Arc::clone(upstream));
            }
        }
        join_all(new.iter().map(|upstream| upstream.settled(WARM_UP))).await;
    }

    /// Lets go of those that are not in the snapshot, which now is in force.
    pub(crate) fn settle(&mut self, snapshot: &Snapshot) {
        let in_force = |upstream: &Arc<Upstream>| {
            let mut all = snapshot.upstreams.iter();
            all.any(|one| Arc::ptr_eq(&one.upstream, upstream))
        };
        self.0.retain(|(upstream, task)| {
            let stays = in_force(upstream);
            if stays {
                upstream.count_endpoints();
            } else {
                upstream.retire();
                task.abort();
            }
            stays
        });
    }
}

impl Drop for Keepers {
    fn drop(&mut self) {
        for (_, task) in &self.0 {
            task.abort();
        }
    }
}
