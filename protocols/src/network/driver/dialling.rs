//! The loop's part of connecting.

use std::time::Instant;

use libp2p::{
    Multiaddr, PeerId,
    swarm::{ConnectionId, DialError, dial_opts::DialOpts},
};
use tokio::sync::oneshot;

use super::{Driver, admitted_on, dial_opts};
use crate::network::{
    addresses::named_peer,
    dial::{Attempt, Waiter},
    error::ConnectError,
    event::Admitted,
    gate::Link,
    limits::DIALS_MAX,
    observer::DialOutcome,
};

impl Driver {
    pub(super) fn connect(
        &mut self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        fresh: bool,
        until: Instant,
        waiter: Waiter,
    ) {
        let gate = &self.swarm.behaviour().gate;
        let admitted = |(id, link): (ConnectionId, &Link)| admitted_on(id, link);
        // Whoever asked may have given up meanwhile; then nobody reads these answers.
        if gate.is_signed_off() {
            let _ = waiter.send(Err(ConnectError::SignedOff));
            return;
        }
        if let Some(refusal) = gate.ended(&peer, None) {
            let _ = waiter.send(Err(ConnectError::Refused(refusal)));
            return;
        }
        if !gate.is_member() {
            let _ = waiter.send(Err(ConnectError::NotAMember));
            return;
        }
        if !fresh && let Some(admitted) = gate.with(&peer).find_map(admitted) {
            let _ = waiter.send(Ok(admitted));
            return;
        }
        let under_way = self
            .attempts
            .values_mut()
            .find(|(attempt, _)| attempt.peer == peer && attempt.replaces.is_some() == fresh);
        if let Some((attempt, _)) = under_way {
            attempt.waiters.push(waiter);
            attempt.until = attempt.until.max(until);
            return;
        }
        if self.attempts.len() + self.strangers.len() >= DIALS_MAX {
            let _ = waiter.send(Err(ConnectError::Busy));
            return;
        }
        let replaces = fresh.then(|| self.connections_with(&peer));
        let addresses = self.policy.select(&peer, addresses);
        self.dial_next(Attempt::new(peer, addresses, replaces, waiter, until));
    }

    pub(super) fn connect_stranger(
        &mut self,
        address: Multiaddr,
        until: Instant,
        waiter: oneshot::Sender<Result<PeerId, ConnectError>>,
    ) {
        if self.swarm.behaviour().gate.is_signed_off() {
            let _ = waiter.send(Err(ConnectError::SignedOff));
            return;
        }
        if self.attempts.len() + self.strangers.len() >= DIALS_MAX {
            let _ = waiter.send(Err(ConnectError::Busy));
            return;
        }
        let opts = match named_peer(&address) {
            Some(peer) => dial_opts(peer, vec![address]),
            None => DialOpts::unknown_peer_id().address(address).allocate_new_port().build(),
        };
        let connection = opts.connection_id();
        self.swarm.behaviour_mut().gate.stay_quiet_on(connection);
        match self.swarm.dial(opts) {
            Ok(()) => {
                self.strangers.insert(connection, (waiter, until));
            }
            Err(error) => {
                let _ = waiter.send(Err(ConnectError::Unreachable(reasons(&error).join("; "))));
            }
        }
    }

    /// Dials an attempt's next addresses, or settles it where none is left.
    fn dial_next(&mut self, mut attempt: Attempt) {
        while let Some(addresses) = attempt.next() {
            let opts = dial_opts(attempt.peer, addresses.clone());
            let connection = opts.connection_id();
            match self.swarm.dial(opts) {
                Ok(()) => {
                    self.attempts.insert(connection, (attempt, addresses));
                    return;
                }
                Err(error) => attempt.failed(reasons(&error)),
            }
        }
        let error = attempt.error();
        self.observer.dialled(match error {
            ConnectError::WrongPeer { .. } => DialOutcome::WrongPeer,
            _ => DialOutcome::Unreachable,
        });
        attempt.settle(&Err(error));
    }

    pub(super) fn on_established(&mut self, connection: ConnectionId, peer: PeerId) {
        let ours = self.attempts.contains_key(&connection);
        if let Some((waiter, _)) = self.strangers.remove(&connection) {
            self.observer.dialled(DialOutcome::Connected);
            if waiter.send(Ok(peer)).is_err() {
                self.close(connection);
            }
        } else if ours {
            self.observer.dialled(DialOutcome::Connected);
        }
    }

    pub(super) fn on_dial_failure(&mut self, connection: ConnectionId, error: DialError) {
        if let Some((waiter, _)) = self.strangers.remove(&connection) {
            let error = match error {
                DialError::WrongPeerId { obtained, .. } => ConnectError::WrongPeer { obtained },
                error => ConnectError::Unreachable(reasons(&error).join("; ")),
            };
            self.observer.dialled(match error {
                ConnectError::WrongPeer { .. } => DialOutcome::WrongPeer,
                _ => DialOutcome::Unreachable,
            });
            let _ = waiter.send(Err(error));
        } else if let Some((mut attempt, dialled)) = self.attempts.remove(&connection) {
            match error {
                DialError::WrongPeerId { obtained, address } => {
                    attempt.answered_by(obtained, &address, dialled);
                }
                error => attempt.failed(reasons(&error)),
            }
            self.dial_next(attempt);
        }
    }

    /// A member let us in: whoever waited for it is told, and what the new connection replaces is closed.
    pub(super) fn settle_attempts_with(&mut self, admitted: Admitted) {
        let mut replaced = Vec::new();
        if let Some((attempt, _)) = self.attempts.remove(&admitted.connection) {
            replaced.extend(attempt.replaces.clone().unwrap_or_default());
            attempt.settle(&Ok(admitted.clone()));
        }
        let shared = |(attempt, _): &(Attempt, Vec<Multiaddr>)| {
            attempt.peer == admitted.peer && attempt.replaces.is_none()
        };
        let also: Vec<_> = self
            .attempts
            .iter()
            .filter(|(_, attempt)| shared(attempt))
            .map(|(connection, _)| *connection)
            .collect();
        for connection in also {
            if let Some((attempt, _)) = self.attempts.remove(&connection) {
                attempt.settle(&Ok(admitted.clone()));
            }
        }
        for connection in replaced {
            self.close(connection);
        }
    }

    /// The attempt that made this connection has failed.
    pub(super) fn settle_attempt_on(&mut self, connection: ConnectionId, error: ConnectError) {
        if let Some((attempt, _)) = self.attempts.remove(&connection) {
            attempt.settle(&Err(error));
        }
    }

    /// Attempts that nobody waits for any more, or whose time is up.
    pub(super) fn forget_late_attempts(&mut self, now: Instant) {
        let late: Vec<_> = self
            .attempts
            .iter()
            .filter(|(_, (attempt, _))| attempt.until <= now || !attempt.is_wanted())
            .map(|(connection, _)| *connection)
            .collect();
        for connection in late {
            self.settle_attempt_on(connection, ConnectError::Timeout);
        }
        self.strangers.retain(|_, (waiter, until)| *until > now && !waiter.is_closed());
    }
}

/// Why a dial failed, a line for each address.
fn reasons(error: &DialError) -> Vec<String> {
    match error {
        DialError::Transport(failures) => {
            failures.iter().map(|(address, error)| format!("{address}: {}", innermost(error))).collect()
        }
        error => vec![innermost(error)],
    }
}

/// What an error says at its root: libp2p's outer layers repeat "failed to dial" and the like.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}
