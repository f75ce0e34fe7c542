//! How memberships go on: members' renewals and departures, and the renewal of this super-peer's own credential.
//!
//! A super-peer on whose machine the root key lies renews its own by itself; any other asks the others. Where the key lies
//! on none of them the renewal waits until its holder has approved it, on any of them, and the status says so long before
//! the end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};
use quarta_daemon::renewing::{self, Renewed, Unrenewed};
use quarta_protocols::{
    credentials::UnixSeconds,
    endings::Departure,
    messages::admission::{Refusal, Response},
    network,
    signing::Signed,
};

use super::{Shared, joining::ip_of, wall_ms};
use crate::{
    admission::Renewal,
    catalog::{EndError, Standing},
};

/// How long a member that leaves keeps its connections: its farewell is under way on one of them.
const FAREWELL_GRACE: Duration = Duration::from_millis(500);
/// How long before its end a super-peer's credential is warned of, if it could not be renewed.
const CREDENTIAL_WARNING: Duration = Duration::from_hours(30 * 24);

/// Gives a member a new credential. Whoever can prove to be one gets it, however long the old one has been over.
pub(super) async fn renew(shared: &Arc<Shared>, renewal: Renewal, remote: &Multiaddr) -> Response {
    let (address, peer) = (ip_of(remote), renewal.peer);
    if !shared.door.attempts().admits(&peer, address, Instant::now()) {
        return Response::Refused(Refusal::TooManyAttempts);
    }
    // This super-peer may not have heard yet that the member was revoked.
    if let Err(refusal) = shared.may_admit().await {
        return Response::Refused(refusal);
    }
    let authority = shared.door.authority.clone();
    let renewed = shared
        .store
        .write(move |catalog| authority.renew(catalog, renewal, rand::random(), UnixSeconds::now()))
        .await;
    match renewed {
        Ok(Ok(renewed)) => {
            tracing::info!(member = %renewed.membership.name, "a member's credential is renewed");
            shared.push(&renewed.entries);
            Response::Renewed(renewed.credential)
        }
        Ok(Err(error)) => {
            let refusal = error.refusal();
            if refusal == Refusal::Unavailable {
                tracing::error!(%error, "a renewal could not be completed");
            } else {
                tracing::info!(%peer, reason = %refusal, "a credential was not renewed");
                shared.door.attempts().refused(address, Instant::now());
            }
            Response::Refused(refusal)
        }
        Err(error) => {
            tracing::error!(%error, "a renewal could not be completed");
            Response::Refused(Refusal::Unavailable)
        }
    }
}

/// Stores a member's departure. Whoever brings it, the member's own signature is what counts.
pub(super) async fn leave(
    shared: &Arc<Shared>,
    departure: Signed<Departure>,
    peer: PeerId,
    remote: &Multiaddr,
) -> Response {
    let address = ip_of(remote);
    if !shared.door.attempts().admits(&peer, address, Instant::now()) {
        return Response::Refused(Refusal::TooManyAttempts);
    }
    let refusal = match shared.store.write(move |catalog| catalog.depart(&departure, wall_ms())).await {
        Ok(Ok(ended)) => {
            shared.push(&ended.entries);
            let (shared, standing) = (shared.clone(), ended.standing);
            tokio::spawn(async move {
                tokio::time::sleep(FAREWELL_GRACE).await;
                shared.end(ended.peer, standing).await;
            });
            if standing == Standing::Left {
                return Response::Farewell;
            }
            Refusal::Revoked
        }
        Ok(Err(EndError::Catalog(error))) => {
            tracing::error!(%error, "a departure could not be stored");
            Refusal::Unavailable
        }
        Ok(Err(error)) => {
            tracing::info!(%peer, %error, "a departure was refused");
            shared.door.attempts().refused(address, Instant::now());
            Refusal::NotAMember
        }
        Err(error) => {
            tracing::error!(%error, "a departure could not be stored");
            Refusal::Unavailable
        }
    };
    Response::Refused(refusal)
}

impl Shared {
    /// A member did not let this super-peer in.
    pub(super) fn not_accepted(&self, refusal: network::Refusal) {
        if refusal == network::Refusal::Expired {
            self.keeper.renew_soon();
        }
    }

    /// Renews the own credential whenever it is time, until the super-peer stops.
    pub(super) async fn keep_renewed(self: Arc<Self>) {
        self.keeper.keep(&self.stop, || false, || self.renew_own()).await;
    }

    async fn renew_own(self: &Arc<Self>) -> Result<Renewed, Unrenewed> {
        // Signed here where the root key lies, or approved by its holder and stored here.
        let renewed = match self.renewed_here().await {
            Err(waiting @ Unrenewed::Refused(Refusal::AwaitingApproval)) => {
                let (held, known) = (self.keeper.credential(), self.state().other_superpeers());
                let asked = renewing::renew(&self.network, &self.identity, &held, &known, self.time()).await;
                asked.map_err(|error| if error == Unrenewed::NobodyKnown { waiting } else { error })?
            }
            outcome => outcome?,
        };
        renewed.take_over(&self.network, &self.identity, self.dir.folder()).await;
        // What it issues from now on shows the new one.
        self.door.authority.adopt(renewed.credential.clone());
        let enrolment = renewed.enrolment(&self.identity);
        match self.store.write(move |catalog| catalog.meet(enrolment, wall_ms())).await {
            Ok(Ok(entries)) => self.push(&entries),
            Ok(Err(error)) => tracing::error!(%error, "the own renewal could not be noted"),
            Err(error) => tracing::error!(%error, "the own renewal could not be noted"),
        }
        Ok(renewed)
    }

    async fn renewed_here(self: &Arc<Self>) -> Result<Renewed, Unrenewed> {
        let renewal = Renewal {
            peer: self.identity.keys.peer(),
            credential: self.keeper.credential(),
            sealing_key: self.identity.sealing_statement(),
        };
        let authority = self.door.authority.clone();
        let renewed = self
            .store
            .write(move |catalog| authority.renew(catalog, renewal, rand::random(), UnixSeconds::now()))
            .await;
        match renewed {
            Ok(Ok(renewed)) => {
                self.push(&renewed.entries);
                Ok(Renewed { credential: renewed.credential, membership: renewed.membership })
            }
            Ok(Err(error)) => Err(Unrenewed::Refused(error.refusal())),
            Err(error) => Err(Unrenewed::Unanswered(error.to_string())),
        }
    }

    /// The time of most members, or this machine's where that is not known.
    fn time(&self) -> UnixSeconds {
        self.clocks().network_time(Instant::now()).unwrap_or_else(UnixSeconds::now)
    }

    /// What is wrong with the own credential, as "why; what to do". `now` is this machine's clock.
    pub(super) fn credential_problem(&self, now: UnixSeconds) -> Option<String> {
        let expires = self.keeper.membership().expires;
        let over = expires <= now;
        if !over && (expires > now.plus(CREDENTIAL_WARNING) || self.keeper.trouble().is_none()) {
            return None;
        }
        let what = if over {
            "has expired, so that members refuse it"
        } else {
            "expires within 30 days and could not be renewed"
        };
        let (why, next) = match self.keeper.trouble() {
            Some(Unrenewed::Refused(Refusal::AwaitingApproval | Refusal::NotTheRoot)) => {
                let name = &self.identity.membership.name;
                let next = format!(
                    "run `quarta-superpeer approve {name} --root-key FILE` on any super-peer, with the network's root key"
                );
                ("only the holder of the root key can renew it".to_owned(), next)
            }
            Some(why) => {
                let next =
                    "this is tried again; see that the super-peer with the root key runs and is reachable";
                (why.to_string(), next.to_owned())
            }
            None => ("nobody has renewed it yet".to_owned(), "wait a moment".to_owned()),
        };
        Some(format!("this super-peer's credential {what}: {why}; {next}"))
    }
}
