//! Whether this super-peer agrees with others, and may therefore admit members.

use std::time::Instant;

use libp2p::PeerId;
use quarta_protocols::{credentials::UnixSeconds, messages::admission::Refusal};

use crate::{service::Shared, store::StoreError};

/// How long the moment of the last comparison is out of date on the disk at most, in seconds: it is for people.
const KEPT_EVERY_SECONDS: u64 = 3600;

impl Shared {
    /// Whether members may be admitted and renewed: see [`crate::reconciliation::agreement`].
    ///
    /// # Errors
    /// The [`Refusal`] that whoever wants to be is told.
    pub(crate) async fn may_admit(&self) -> Result<(), Refusal> {
        let alone = self.is_alone().await.map_err(|error| {
            tracing::error!(%error, "cannot find out whether there are other super-peers");
            Refusal::Unavailable
        })?;
        self.federation.agreement().may_admit(alone, Instant::now(), UnixSeconds::now())
    }

    /// Whether no other super-peer is known, neither in the catalog nor by an address that was told at some time.
    async fn is_alone(&self) -> Result<bool, StoreError> {
        let own = self.identity.keys.peer();
        let told: Vec<PeerId> = self.state().other_superpeers().iter().map(|other| other.peer).collect();
        let known = self.store.read(move |reader| reader.knows_other_superpeer(&own, &told)).await?;
        Ok(!known)
    }

    /// This catalog and another super-peer's have been compared, and agree as far as they can.
    pub(super) async fn compared(&self) {
        let (wall, now) = (UnixSeconds::now(), Instant::now());
        let before = {
            let mut agreement = self.federation.agreement();
            let before = agreement.last();
            agreement.compared(now, wall);
            before
        };
        if before.is_some_and(|before| wall.0.abs_diff(before.0) < KEPT_EVERY_SECONDS) {
            return;
        }
        match self.store.write(move |catalog| catalog.keep_comparison(wall)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the moment of a comparison could not be stored"),
            Err(error) => tracing::error!(%error, "the moment of a comparison could not be stored"),
        }
    }

    /// Why nobody is admitted and what to do about it, in words; none where members are.
    pub(in crate::service) async fn admits_nobody(&self) -> Option<String> {
        let refusal = self.may_admit().await.err()?;
        let last = self.federation.agreement().last().and_then(|last| {
            let moment = jiff::Timestamp::from_second(i64::try_from(last.0).ok()?).ok()?;
            Some(format!("last at {moment}"))
        });
        let last = last.unwrap_or_else(|| "never yet".to_owned());
        let next = "start or reconnect another super-peer, or revoke those that are gone for good";
        Some(match refusal {
            Refusal::CutOff => format!(
                "this super-peer has been cut off from all others for a week (it agreed with one {last}) and admits and \
                 renews nobody; {next}"
            ),
            Refusal::NotReconciled => format!(
                "this super-peer has not compared its records with another's since it started (it did {last}) and \
                 admits and renews nobody before; {next}"
            ),
            other => format!("nobody is admitted, {other}; see the daemon's log and check the disk"),
        })
    }
}
