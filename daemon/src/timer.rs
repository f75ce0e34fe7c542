//! Waiting for a moment that there may not be.

use std::time::Instant;

/// Returns at a moment, at once where it has passed, and never where there is none. Dropping it is harmless.
pub async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
