//! Tells when something changed in a folder.
//!
//! Folders are watched, not files: whoever replaces a file replaces what a watch on it would hang on,
//! and a ConfigMap swaps the link `..data`. Without a watch, what the system may refuse, there is
//! still the reading every now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// Writers need a moment for a whole change; and where changes never end, there is a look so often.
const SETTLE: Duration = Duration::from_millis(100);

/// Watches some folders.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeMap<PathBuf, Identity>,
    events: mpsc::Receiver<()>,
}

/// Device and inode: a folder that was made anew under its old name is another one.
type Identity = (u64, u64);

/// What became of the folders that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// They are the same.
    None,
    /// One is gone since it was named.
    Gone,
    /// One is new, and what changed in it before went unnoticed.
    New,
}

impl Watch {
    /// Watches nothing yet.
    pub(super) fn new() -> Self {
        // One event is as good as many: all it says is that somebody should look.
        let (sender, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let is_reading = event.as_ref().is_ok_and(|event| event.kind.is_access());
            if !is_reading {
                let _full = sender.try_send(());
            }
        });
        let watcher = watcher
            .inspect_err(|error| {
                tracing::warn!(%error, "target files are not watched: changes are seen at the next refresh only");
            })
            .ok();
        Self {
            watcher,
            folders: BTreeMap::new(),
            events,
        }
    }

    /// Watches these folders, and no others.
    pub(super) fn follow(&mut self, wanted: BTreeSet<PathBuf>) -> Change {
        let Some(watcher) = &mut self.watcher else {
            return Change::None;
        };
        let known = std::mem::take(&mut self.folders);
        let mut change = Change::None;
        for folder in wanted {
            let Some(identity) = identity(&folder) else {
                change = change.max(Change::Gone);
                continue;
            };
            if known.get(&folder) != Some(&identity) {
                if known.contains_key(&folder) {
                    let _gone = watcher.unwatch(&folder);
                }
                if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
                    tracing::debug!(folder = %folder.display(), %error, "a folder of target files is not watched");
                    continue;
                }
                change = Change::New;
            }
            self.folders.insert(folder, identity);
        }
        for folder in known.keys() {
            if !self.folders.contains_key(folder) {
                // A folder that is gone is no longer watched anyway.
                let _gone = watcher.unwatch(folder);
            }
        }
        change
    }

    /// Waits until something may have changed.
    ///
    /// # Cancel safety
    /// A change is not lost, unless it is dropped while the change settles.
    pub(super) async fn changed(&mut self) {
        if self.events.recv().await.is_none() {
            // There is no watcher.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(SETTLE).await;
        let _more = self.events.try_recv();
    }
}

fn identity(folder: &Path) -> Option<Identity> {
    let about = fs::metadata(folder).ok()?;
    Some((about.dev(), about.ino()))
}
