//! Attempts to connect: which addresses next, and who waits. Pure but for the waiters' channels.
//!
//! All TCP addresses are dialled at once; QUIC and relayed ones only when every TCP address has failed, because
//! control runs best over TCP. An address where somebody else answers is struck out, and the others are tried again.

use std::time::Instant;

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};
use tokio::sync::oneshot;

use super::{error::ConnectError, event::Admitted, transport::Transport};
use crate::limits::ADDRESSES_MAX;

/// Where the outcome of an attempt goes.
pub(super) type Waiter = oneshot::Sender<Result<Admitted, ConnectError>>;

/// One attempt to connect to a peer.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) peer: PeerId,
    pub(super) waiters: Vec<Waiter>,
    /// For an attempt that replaces connections which seem dead: those.
    pub(super) replaces: Option<Vec<ConnectionId>>,
    pub(super) until: Instant,
    stages: Vec<Vec<Multiaddr>>,
    failures: Vec<String>,
    wrong: Option<PeerId>,
}

impl Attempt {
    /// An attempt at `addresses`, in the order of [`super::AddressPolicy::select`].
    pub(super) fn new(
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        replaces: Option<Vec<ConnectionId>>,
        waiter: Waiter,
        until: Instant,
    ) -> Self {
        let (tcp, others): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|address| Transport::of(address) == Transport::Tcp);
        Self {
            peer,
            waiters: vec![waiter],
            replaces,
            until,
            // Taken from the back.
            stages: [others, tcp].into_iter().filter(|stage| !stage.is_empty()).collect(),
            failures: Vec::new(),
            wrong: None,
        }
    }

    /// The addresses to dial at once now; none when all have failed.
    pub(super) fn next(&mut self) -> Option<Vec<Multiaddr>> {
        self.stages.pop()
    }

    /// Notes why the addresses just dialled failed.
    pub(super) fn failed(&mut self, why: impl IntoIterator<Item = String>) {
        self.failures.extend(why);
    }

    /// Notes that `obtained` answered at one of the addresses just dialled; the rest of them come next.
    pub(super) fn answered_by(&mut self, obtained: PeerId, at: &Multiaddr, dialled: Vec<Multiaddr>) {
        self.wrong = Some(obtained);
        // libp2p reports the address with the wanted peer's id at its end.
        let rest: Vec<_> = dialled.into_iter().filter(|address| !starts_with(at, address)).collect();
        if !rest.is_empty() && self.stages.len() < 2 * ADDRESSES_MAX {
            self.stages.push(rest);
        }
    }

    /// Why the attempt as a whole failed.
    pub(super) fn error(&self) -> ConnectError {
        match self.wrong {
            Some(obtained) => ConnectError::WrongPeer { obtained },
            None if self.failures.is_empty() => ConnectError::NoAddress,
            None => ConnectError::Unreachable(self.failures.join("; ")),
        }
    }

    /// Whether somebody still waits for the outcome.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiters.iter().any(|waiter| !waiter.is_closed())
    }

    /// Tells everybody who waits.
    pub(super) fn settle(self, outcome: &Result<Admitted, ConnectError>) {
        for waiter in self.waiters {
            // Whoever asked may have given up meanwhile.
            let _ = waiter.send(outcome.clone());
        }
    }
}

fn starts_with(address: &Multiaddr, prefix: &Multiaddr) -> bool {
    let mut parts = address.iter();
    prefix.iter().all(|part| parts.next() == Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(addresses: &[&str]) -> Attempt {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Attempt::new(PeerId::random(), addresses, None, oneshot::channel().0, Instant::now())
    }

    const TCP: [&str; 2] = ["/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1"];
    const QUIC: &str = "/ip4/10.0.0.1/udp/1/quic-v1";

    #[test]
    fn quic_is_dialled_when_all_of_tcp_has_failed() {
        let mut attempt = attempt(&[TCP[0], TCP[1], QUIC]);
        assert_eq!(attempt.next().unwrap().len(), 2);
        attempt.failed(["refused".to_owned()]);
        assert_eq!(attempt.next().unwrap(), [QUIC.parse::<Multiaddr>().unwrap()]);
        attempt.failed(["silent".to_owned()]);
        assert_eq!(attempt.next(), None);
        assert_eq!(attempt.error(), ConnectError::Unreachable("refused; silent".into()));
    }

    #[test]
    fn an_address_where_somebody_else_answers_does_not_spoil_the_others() {
        let mut attempt = attempt(&TCP);
        let dialled = attempt.next().unwrap();
        let stranger = PeerId::random();
        let at = format!("{}/p2p/{}", TCP[0], attempt.peer).parse().unwrap();
        attempt.answered_by(stranger, &at, dialled);
        assert_eq!(attempt.next().unwrap(), [TCP[1].parse::<Multiaddr>().unwrap()]);
        assert_eq!(attempt.error(), ConnectError::WrongPeer { obtained: stranger });
    }

    #[test]
    fn no_address_is_its_own_error() {
        let mut attempt = attempt(&[]);
        assert_eq!(attempt.next(), None);
        assert_eq!(attempt.error(), ConnectError::NoAddress);
    }
}
