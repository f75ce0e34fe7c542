//! How a daemon ends: on SIGINT or SIGTERM, in order; on the second one, at once.
//!
//! The first signal cancels a token that every part of the daemon watches. An operator who signals again has
//! decided not to wait; everything acknowledged is durable by then, so leaving at once loses nothing.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit codes of processes that a signal ended are 128 plus its number, by the shells' convention.
const SIGNALLED: i32 = 128;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// Watches for SIGINT and SIGTERM: the first cancels the returned token, the second ends the process.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// What the system said when the handlers could not be installed.
pub fn on_signals() -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let first = either(&mut interrupt, &mut terminate).await;
        tracing::info!(signal = first, "stopping; signal again to stop at once");
        cancelled.cancel();
        let second = either(&mut interrupt, &mut terminate).await;
        std::process::exit(SIGNALLED + second);
    });
    Ok(token)
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) -> i32 {
    tokio::select! {
        _ = interrupt.recv() => SIGINT,
        _ = terminate.recv() => SIGTERM,
    }
}

/// Tells the service manager that the daemon answers now; does nothing outside systemd.
pub fn notify_ready() {
    notify(&sd_notify::NotifyState::Ready);
}

/// Tells the service manager that the daemon is stopping; does nothing outside systemd.
pub fn notify_stopping() {
    notify(&sd_notify::NotifyState::Stopping);
}

/// A service manager that cannot be reached is no reason to fail.
fn notify(state: &sd_notify::NotifyState<'_>) {
    if let Err(cause) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%cause, "could not notify the service manager");
    }
}
