//! Endpoints by a name in DNS.
//!
//! An answer counts for its TTL, within a floor and a ceiling; then it is asked anew. An answer that
//! names no endpoint is a failure like silence is: whoever scales a service down to nothing for a
//! moment, or breaks a zone, must not take its clients' endpoints away.

mod ask;
mod look;
mod records;
mod settings;
mod system;
#[cfg(test)]
mod tests;

use std::convert::Infallible;

use self::look::Looks;
use self::system::Places;
use super::reports::Reports;
use super::{Found, pace};

pub use settings::{Family, Host, Record, Settings};

/// Asks again and again, and reports what is found.
pub(super) async fn follow<R>(settings: &Settings, reports: Reports<R>) -> Infallible
where
    R: FnMut(Result<Vec<Found>, String>),
{
    follow_at(settings, Places::system(), reports).await
}

async fn follow_at<R>(settings: &Settings, places: Places, mut reports: Reports<R>) -> Infallible
where
    R: FnMut(Result<Vec<Found>, String>),
{
    let mut looks = Looks::new(settings, places);
    let mut failures = 0_u32;
    loop {
        let looked = looks.look().await;
        let (asked, random) = (looks.asked(), fastrand::u64(..));
        let wait = match looked {
            Ok(answer) => {
                failures = 0;
                reports.found(answer.found);
                let (floor, ceiling) = (settings.min_ttl, settings.max_ttl);
                pace::after_answer(answer.ttl, floor, ceiling, asked, random)
            }
            Err(failure) => {
                failures = failures.saturating_add(1);
                reports.failed(failure);
                pace::after_failure(failures, asked, random)
            }
        };
        tokio::time::sleep(wait).await;
    }
}
