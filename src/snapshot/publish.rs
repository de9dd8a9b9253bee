//! How a new snapshot reaches the workers: one swap, and a cached reader in each of them.
//!
//! A request costs one relaxed load and a count on memory of its own thread; no worker touches a
//! line that another writes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::snapshot::Snapshot;
use crate::upstream::{Dial, Lane, Upstream};

/// The snapshot in force.
#[derive(Debug)]
pub struct Published {
    current: ArcSwap<Snapshot>,
    /// Its revision, for readers that only want to know whether it changed.
    revision: AtomicU64,
}

impl Published {
    /// Starts with a first snapshot.
    pub fn new(first: Snapshot) -> Self {
        Self::of(Arc::new(first))
    }

    fn of(first: Arc<Snapshot>) -> Self {
        Self {
            revision: AtomicU64::new(first.revision),
            current: ArcSwap::new(first),
        }
    }

    /// Puts another snapshot in force.
    pub fn publish(&self, next: Snapshot) {
        let revision = next.revision;
        self.current.store(Arc::new(next));
        self.revision.store(revision, Ordering::Release);
    }

    /// The snapshot in force.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }
}

/// A snapshot as one worker uses it: with that worker's own connections to each upstream.
///
/// A request keeps its view from admission to its last byte, so a reload never changes the rules
/// under it. When the last one lets go, the lanes that no newer view took over close.
#[derive(Debug)]
pub struct View {
    /// The rules.
    pub snapshot: Arc<Snapshot>,
    /// One for each of the snapshot's upstreams, in its order.
    pub lanes: Vec<Rc<Lane>>,
}

/// A worker's cached access to what is published.
#[derive(Debug)]
pub struct Reader {
    published: Arc<Published>,
    seen: Cell<u64>,
    view: RefCell<Rc<View>>,
}

impl Reader {
    /// A reader for the calling thread.
    pub fn new(published: Arc<Published>) -> Self {
        let snapshot = published.load();
        Self {
            seen: Cell::new(snapshot.revision),
            view: RefCell::new(Rc::new(View::new(snapshot, &[]))),
            published,
        }
    }

    /// A reader of one snapshot that shows its rules to a rehearsal: each upstream as `upstream`
    /// gives it, with `dial` for its network.
    pub fn rehearsing(
        snapshot: Arc<Snapshot>,
        upstream: impl Fn(&Arc<Upstream>) -> Arc<Upstream>,
        dial: &Rc<dyn Dial>,
    ) -> Self {
        let upstreams = snapshot.upstreams.iter();
        let lane = |of: &super::Upstream| Lane::rehearsing(upstream(&of.upstream), Rc::clone(dial));
        let lanes = upstreams.map(lane).collect();
        Self {
            seen: Cell::new(snapshot.revision),
            // Of its own, so that nothing follows.
            published: Arc::new(Published::of(Arc::clone(&snapshot))),
            view: RefCell::new(Rc::new(View { snapshot, lanes })),
        }
    }

    /// What is in force now.
    pub fn view(&self) -> Rc<View> {
        let revision = self.published.revision.load(Ordering::Relaxed);
        if revision != self.seen.get() {
            self.refresh();
        }
        Rc::clone(&self.view.borrow())
    }

    #[cold]
    fn refresh(&self) {
        let snapshot = self.published.load();
        self.seen.set(snapshot.revision);
        let view = View::new(snapshot, &self.view.borrow().lanes);
        // The old view is dropped after the borrow has ended.
        let _old = self.view.replace(Rc::new(view));
    }
}

impl View {
    /// The lane to the upstream at a place of the snapshot.
    #[expect(clippy::indexing_slicing, reason = "there is a lane for each upstream")]
    pub fn lane(&self, upstream: usize) -> &Rc<Lane> {
        &self.lanes[upstream]
    }

    /// Lanes of upstreams that did not change stay, with their connections.
    fn new(snapshot: Arc<Snapshot>, old: &[Rc<Lane>]) -> Self {
        let upstreams = snapshot.upstreams.iter();
        let lanes = upstreams
            .map(|upstream| take_over(&upstream.upstream, old))
            .collect();
        Self { snapshot, lanes }
    }
}

fn take_over(upstream: &Arc<Upstream>, old: &[Rc<Lane>]) -> Rc<Lane> {
    old.iter()
        .find(|lane| Arc::ptr_eq(lane.upstream(), upstream))
        .map_or_else(|| Lane::new(Arc::clone(upstream)), Rc::clone)
}
