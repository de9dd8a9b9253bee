//! Endpoints from files in the format of Prometheus' `file_sd`, which something else writes.
//!
//! Files are read when something changes beside them, and every now and then because a watch can
//! miss a change. A file that is broken, or only half written, leaves what it said last in force.

mod format;
mod known;
mod settings;
#[cfg(test)]
mod tests;
mod watch;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use self::known::Known;
use self::watch::{Change, Watch};
use super::Found;
use super::reports::Reports;

pub use settings::{Paths, Settings};

/// When to look again for what is gone or broken: somebody may just be writing it.
const AGAIN: Duration = Duration::from_millis(250);

/// Reads again and again, and reports what is found.
pub(super) async fn follow<R>(settings: &Settings, mut reports: Reports<R>) -> Infallible
where
    R: FnMut(Result<Vec<Found>, String>),
{
    let paths = Arc::new(settings.paths.clone());
    let mut watch = Watch::new();
    let mut known = Known::default();
    loop {
        let to_read = Arc::clone(&paths);
        // A slow disk must not hold up the thread of health checks and of the admin API.
        let reading = tokio::task::spawn_blocking(move || {
            let looked = known.look(&to_read);
            (known, looked)
        });
        let Ok((back, looked)) = reading.await else {
            known = Known::default();
            reports.failed("the files could not be read".into());
            tokio::time::sleep(settings.refresh).await;
            continue;
        };
        known = back;
        reports.looked(looked.list, looked.failure);
        let wait = match watch.follow(looked.folders) {
            Change::New => continue,
            Change::None if !looked.again => settings.refresh,
            Change::None | Change::Gone => AGAIN,
        };
        tokio::select! {
            () = watch.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
