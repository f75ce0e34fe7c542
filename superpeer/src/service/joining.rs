//! Admitting a machine that shows an invite.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use libp2p::{Multiaddr, multiaddr::Protocol};
use quarta_protocols::{
    credentials::UnixSeconds,
    messages::admission::{Refusal, Response},
};

use super::Shared;
use crate::{
    admission::{Attempts, Authority, Redemption},
    catalog::Observed,
};

/// What admits: the keys, and the memory of who tried how often.
pub(crate) struct Door {
    pub(crate) authority: Arc<Authority>,
    attempts: Mutex<Attempts>,
}

impl Door {
    pub(super) fn new(authority: Authority, now: Instant) -> Self {
        Self { authority: Arc::new(authority), attempts: Mutex::new(Attempts::new(now)) }
    }

    pub(super) fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Redeems an invite for a joiner at this address.
pub(super) async fn redeem(shared: &Arc<Shared>, redemption: Redemption, remote: &Multiaddr) -> Response {
    let address = ip_of(remote);
    let (peer, name) = (redemption.peer, redemption.name.clone());
    if !shared.door.attempts().admits(&peer, address, Instant::now()) {
        return Response::Refused(Refusal::TooManyAttempts);
    }
    if let Err(refusal) = shared.may_admit().await {
        tracing::info!(%peer, %name, reason = %refusal, "a joiner was refused");
        return Response::Refused(refusal);
    }
    let authority = shared.door.authority.clone();
    let admitted = shared
        .store
        .write(move |catalog| authority.redeem(catalog, redemption, rand::random(), UnixSeconds::now()))
        .await;
    match admitted {
        Ok(Ok(admitted)) => {
            tracing::info!(member = %admitted.membership.name, role = %admitted.membership.role, %peer, "a member joined");
            shared.state().meet(&admitted.membership, String::new());
            shared.push(&admitted.entries);
            Response::Joined { credential: admitted.credential, superpeers: shared.superpeers().await }
        }
        Ok(Err(error)) => {
            let refusal = error.refusal();
            if refusal == Refusal::Unavailable {
                tracing::error!(%error, "an admission could not be completed");
            } else {
                tracing::info!(%peer, %name, reason = %refusal, "a joiner was refused");
                shared.door.attempts().refused(address, Instant::now());
                shared.observe(Observed::Refused, peer, format!("wished to join as {name}: {refusal}"));
            }
            Response::Refused(refusal)
        }
        Err(error) => {
            tracing::error!(%error, "an admission could not be completed");
            Response::Refused(Refusal::Unavailable)
        }
    }
}

pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}
