//! Tells when the configuration's files may have changed.
//!
//! Folders are watched, not files: editors and Kubernetes replace a file (a ConfigMap swaps the link
//! `..data`), and a watch on the old one would never hear of the new. What a change means is found
//! out by reading: an event is only a reason to look.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::app::Order;

/// Watches the folders of some files.
pub(crate) struct Watcher {
    watcher: RecommendedWatcher,
    folders: BTreeSet<PathBuf>,
}

/// Writers need a moment for a whole change: several files, or a truncation and a write.
const SETTLE: Duration = Duration::from_millis(50);

impl Watcher {
    /// Watches nothing yet; orders a look at the files when something may have changed.
    ///
    /// # Errors
    /// When the system has no more watches to give.
    pub(crate) fn new(orders: mpsc::UnboundedSender<Order>) -> notify::Result<Self> {
        // One event is as good as many: all it says is that somebody should look.
        let (sender, mut events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let reading = event.as_ref().is_ok_and(|event| event.kind.is_access());
            if !reading {
                let _full = sender.try_send(());
            }
        })?;
        // Ends with the watcher, which holds the other end of the channel.
        tokio::spawn(async move {
            while events.recv().await.is_some() {
                tokio::time::sleep(SETTLE).await;
                let _more = events.try_recv();
                if orders.send(Order::Look).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            watcher,
            folders: BTreeSet::new(),
        })
    }

    /// Watches the folders of these files, and no others.
    pub(crate) fn follow(&mut self, files: &[PathBuf]) {
        let wanted: BTreeSet<PathBuf> = files.iter().flat_map(|file| folders(file)).collect();
        for gone in self.folders.difference(&wanted) {
            // A folder that is gone is no longer watched anyway.
            let _gone = self.watcher.unwatch(gone);
        }
        for new in wanted.difference(&self.folders) {
            if let Err(error) = self.watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %new.display(), %error, "changes of the configuration in this folder go unnoticed; send HUP to reload");
            }
        }
        self.folders = wanted;
    }
}

/// The folder that a path names, and the one where its target really is.
fn folders(file: &Path) -> Vec<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let mut folders = vec![parent(file)];
    if let Ok(real) = file.canonicalize() {
        folders.push(parent(&real));
    }
    folders
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher")
            .field("folders", &self.folders)
            .finish_non_exhaustive()
    }
}
