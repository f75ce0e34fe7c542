//! What the gate knows of one connection, and when its time is up. Pure.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};

use super::{Presented, Refusal};
use crate::{
    credentials::{CLOCK_SKEW, Membership, UnixSeconds},
    network::{
        limits::{ADMISSION_IN_USE_TIMEOUT, ADMISSION_TIMEOUT, REFUSAL_GRACE},
        transport::Transport,
    },
};

/// One connection as the gate sees it.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not the states of one machine")]
pub(in crate::network) struct Link {
    pub(in crate::network) peer: PeerId,
    pub(in crate::network) remote: Multiaddr,
    pub(in crate::network) transport: Transport,
    /// Whether the peer made the connection.
    pub(in crate::network) inbound: bool,
    pub(in crate::network) since: Instant,
    /// What the peer proved to us.
    pub(in crate::network) heard: Option<Arc<Presented>>,
    /// Whether we let the peer in.
    pub(super) let_in: bool,
    /// Whether the peer let us in.
    pub(in crate::network) welcomed: bool,
    /// Whether we have presented ourselves on it, or chose not to.
    pub(super) spoken: bool,
    /// Whether the peer uses the protocol by which strangers become members.
    pub(super) uses_admission: bool,
    pub(super) refused: Option<(Refusal, Instant)>,
    /// Nothing runs on it any more; only its socket is left.
    pub(super) shut: bool,
}

/// Why a connection's time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::network) enum Overdue {
    /// It was refused and has had time to read why.
    Refused,
    /// It was not admitted in time.
    NotAdmitted,
    /// Its credential has run out.
    Expired,
}

impl Link {
    pub(super) const fn new(
        peer: PeerId,
        remote: Multiaddr,
        transport: Transport,
        inbound: bool,
        since: Instant,
    ) -> Self {
        Self {
            peer,
            remote,
            transport,
            inbound,
            since,
            heard: None,
            let_in: false,
            welcomed: false,
            spoken: false,
            uses_admission: false,
            refused: None,
            shut: false,
        }
    }

    /// What the peer's credential says, once it has proved it.
    pub(in crate::network) fn membership(&self) -> Option<&Membership> {
        self.heard.as_ref().map(|presented| &presented.enrolled.membership)
    }

    /// Both sides have let each other in.
    pub(in crate::network) const fn is_admitted(&self) -> bool {
        self.let_in && self.welcomed && self.refused.is_none() && !self.shut
    }

    /// Nobody knows yet who dialled in.
    pub(super) const fn is_stranger(&self) -> bool {
        self.inbound && self.heard.is_none() && !self.shut
    }

    /// Whether and why the connection must be closed by now.
    pub(super) fn overdue(&self, now: Instant, clock: UnixSeconds) -> Option<Overdue> {
        let for_at_least = |limit: Duration, since: Instant| now.saturating_duration_since(since) >= limit;
        if let Some((_, since)) = self.refused {
            return for_at_least(REFUSAL_GRACE, since).then_some(Overdue::Refused);
        }
        if self.shut {
            return None;
        }
        if self.membership().is_some_and(|membership| membership.expires.plus(CLOCK_SKEW) <= clock) {
            return Some(Overdue::Expired);
        }
        let limit = if self.uses_admission { ADMISSION_IN_USE_TIMEOUT } else { ADMISSION_TIMEOUT };
        (!self.is_admitted() && for_at_least(limit, self.since)).then_some(Overdue::NotAdmitted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(since: Instant) -> Link {
        Link::new(PeerId::random(), Multiaddr::empty(), Transport::Tcp, true, since)
    }

    #[test]
    fn a_stranger_is_given_ten_seconds_and_thirty_while_it_is_joining() {
        let start = Instant::now();
        let mut link = link(start);
        let clock = UnixSeconds(0);
        assert_eq!(link.overdue(start + Duration::from_secs(9), clock), None);
        assert_eq!(link.overdue(start + ADMISSION_TIMEOUT, clock), Some(Overdue::NotAdmitted));
        link.uses_admission = true;
        assert_eq!(link.overdue(start + ADMISSION_TIMEOUT, clock), None);
        assert_eq!(link.overdue(start + ADMISSION_IN_USE_TIMEOUT, clock), Some(Overdue::NotAdmitted));
    }

    #[test]
    fn a_refused_peer_can_read_why_before_it_is_closed() {
        let start = Instant::now();
        let mut link = link(start);
        link.refused = Some((Refusal::Expired, start));
        assert_eq!(link.overdue(start, UnixSeconds(0)), None);
        assert_eq!(link.overdue(start + REFUSAL_GRACE, UnixSeconds(0)), Some(Overdue::Refused));
    }
}
