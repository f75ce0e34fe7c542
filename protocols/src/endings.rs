//! How a membership ends: by a departure, which the member signs itself, or by a revocation, which others sign.
//!
//! Both are final, verifiable offline by whoever holds the root public key, and travel by every channel that reaches a
//! member: between super-peers, in every node's feed, and back to a super-peer that has lost them. A machine whose
//! membership has ended can only come back as a new one, with keys of its own and an invite.
//!
//! A super-peer may revoke a node; only the root may revoke a super-peer, or one stolen super-peer could end all others.
//! What a notice alone cannot tell, which of the two its subject is, the catalog knows: see [`Revoked::ends`].

use std::cmp::Ordering;

use libp2p::{PeerId, identity::Keypair};
use serde::{Deserialize, Serialize};

use crate::{
    cbor,
    credentials::{Credential, CredentialError, Role, Trust},
    ids::{RecordHash, public_key_of},
    signing::{Signed, Statement, VerifyError},
};

/// The largest encoded departure or revocation as it travels, in bytes: two tokens and a statement.
pub const ENDING_MAX_BYTES: usize = 8 * 1024;

/// How a membership ended: what its former member is told when it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ended {
    /// By the member itself. It may still ask for admission, to hear again that it has left.
    Left,
    /// It was revoked: it gets not even that, and neither do those whose credential it issued.
    Revoked,
    /// A super-peer revoked a peer of which nothing else is known yet. That ends a node's membership and no
    /// super-peer's, so no credential of a node lets it in.
    RevokedNode,
}

impl Ended {
    /// What follows from the endings of a peer, and from its role where that is known.
    pub const fn of(left: bool, revoked: bool, by_root: bool, role: Option<Role>) -> Option<Self> {
        match role {
            _ if by_root => Some(Self::Revoked),
            Some(Role::Node) if revoked => Some(Self::Revoked),
            _ if left => Some(Self::Left),
            None if revoked => Some(Self::RevokedNode),
            _ => None,
        }
    }
}

/// "I leave for good."
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Departure {
    /// Who leaves, and signs.
    pub member: PeerId,
}

impl Statement for Departure {
    const DOMAIN: &'static str = "quarta/departure/1";
    const MAX_BYTES: usize = 256;
}

impl Departure {
    /// Verifies that the member itself signed, and gives who it is.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify(signed: &Signed<Self>, trust: &Trust) -> Result<PeerId, VerifyError> {
        let claimed = signed.peek().map_err(VerifyError::from)?.member;
        let key = public_key_of(&claimed).map_err(|_| VerifyError::BadSignature)?;
        Ok(signed.verify(&trust.network, &key)?.member)
    }
}

/// "This member is one no more."
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Revocation {
    /// Whose membership ends.
    pub member: PeerId,
    /// The super-peer that signs; none where the root does.
    pub by: Option<PeerId>,
}

impl Statement for Revocation {
    const DOMAIN: &'static str = "quarta/revocation/1";
    const MAX_BYTES: usize = 256;
}

/// A revocation as it travels, with what proves that its signer may sign it. Not yet verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationNotice {
    /// The statement.
    pub revocation: Signed<Revocation>,
    /// The signing super-peer's credential; none where the root signs.
    pub issuer: Option<Credential>,
}

/// A verified revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Whose membership ends.
    pub member: PeerId,
    /// The super-peer that signed; none where the root did.
    pub by: Option<PeerId>,
    notice: RevocationNotice,
    hash: RecordHash,
}

/// Why a revocation is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// Not signed by whom it names, or malformed.
    #[error(transparent)]
    Signature(#[from] VerifyError),
    /// The signer's credential is not one of this network's super-peers.
    #[error(transparent)]
    Signer(#[from] CredentialError),
    /// A node signed, or the credential and the statement name different signers.
    #[error("the revocation is not signed by a super-peer or the root")]
    NotAllowed,
}

impl RevocationNotice {
    /// Revokes a member as the root.
    pub fn by_root(member: PeerId, root: &Keypair, trust: &Trust) -> Self {
        let revocation = Signed::new(&Revocation { member, by: None }, &trust.network, root);
        Self { revocation, issuer: None }
    }

    /// Revokes a node as the super-peer that holds `key` and `credential`.
    pub fn by_superpeer(member: PeerId, key: &Keypair, credential: Credential, trust: &Trust) -> Self {
        let statement = Revocation { member, by: Some(key.public().to_peer_id()) };
        Self { revocation: Signed::new(&statement, &trust.network, key), issuer: Some(credential) }
    }

    /// Verifies the notice. The signer's credential may have expired since.
    ///
    /// # Errors
    /// [`RevocationError`] with the first reason found.
    pub fn verify(self, trust: &Trust) -> Result<Revoked, RevocationError> {
        let claimed = self.revocation.peek().map_err(VerifyError::from)?;
        let key = match (&claimed.by, &self.issuer) {
            (None, None) => trust.root.clone(),
            (Some(signer), Some(credential)) => {
                let signer_is = credential.verify_ignoring_time(trust, signer)?;
                if signer_is.role != Role::Superpeer {
                    return Err(RevocationError::NotAllowed);
                }
                public_key_of(signer).map_err(|_| VerifyError::BadSignature)?
            }
            _ => return Err(RevocationError::NotAllowed),
        };
        let Revocation { member, by } = self.revocation.verify(&trust.network, &key)?;
        let hash = RecordHash::of(&cbor::to_vec(&self));
        Ok(Revoked { member, by, notice: self, hash })
    }
}

impl Revoked {
    /// Whether it ends the membership of a member of this role; one that does not is kept and has no effect.
    pub fn ends(&self, role: Role) -> bool {
        self.by.is_none() || role == Role::Node
    }

    /// The notice as it travels.
    pub const fn notice(&self) -> &RevocationNotice {
        &self.notice
    }

    /// Whether this takes the place of `other`, which must be of the same member: the root's goes before a super-peer's,
    /// then the lower hash. A total order, as for every entry of the catalog.
    pub fn supersedes(&self, other: &Self) -> bool {
        let rank = |revoked: &Self| (revoked.by.is_some(), revoked.hash);
        rank(self).cmp(&rank(other)) == Ordering::Less
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        credentials::{Grant, UnixSeconds},
        names::MemberName,
    };

    struct World {
        root: Keypair,
        trust: Trust,
        superpeer: Keypair,
        credential: Credential,
    }

    fn world() -> World {
        let root = Keypair::ed25519_from_bytes([1; 32]).unwrap();
        let trust = Trust::in_root(root.public().try_into_ed25519().unwrap());
        let superpeer = Keypair::ed25519_from_bytes([2; 32]).unwrap();
        let name = MemberName::new("central-1").unwrap();
        let grant = Grant {
            peer: superpeer.public().to_peer_id(),
            name: &name,
            role: Role::Superpeer,
            now: UnixSeconds(1_800_000_000),
            token_id: [0; 16],
        };
        let credential = Credential::issue_by_root(&root, &trust.network, &grant);
        World { root, trust, superpeer, credential }
    }

    fn peer(seed: u8) -> (Keypair, PeerId) {
        let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        let peer = key.public().to_peer_id();
        (key, peer)
    }

    #[test]
    fn nobody_leaves_in_anothers_name() {
        let world = world();
        let ((own, member), (other, _)) = (peer(7), peer(8));
        let departure = Departure { member };
        let signed = Signed::new(&departure, &world.trust.network, &own);
        assert_eq!(Departure::verify(&signed, &world.trust), Ok(member));
        let forged = Signed::new(&departure, &world.trust.network, &other);
        assert_eq!(Departure::verify(&forged, &world.trust), Err(VerifyError::BadSignature));
    }

    #[test]
    fn a_node_cannot_revoke_and_a_super_peer_cannot_end_a_super_peer() {
        let world = world();
        let (node, member) = peer(7);
        let by_superpeer =
            RevocationNotice::by_superpeer(member, &world.superpeer, world.credential.clone(), &world.trust);
        let revoked = by_superpeer.verify(&world.trust).unwrap();
        assert!(revoked.ends(Role::Node) && !revoked.ends(Role::Superpeer));
        let by_root =
            RevocationNotice::by_root(member, &world.root, &world.trust).verify(&world.trust).unwrap();
        assert!(
            by_root.ends(Role::Superpeer) && by_root.supersedes(&revoked) && !revoked.supersedes(&by_root)
        );

        let name = MemberName::new("filial").unwrap();
        let grant = Grant {
            peer: member,
            name: &name,
            role: Role::Node,
            now: UnixSeconds(1_800_000_000),
            token_id: [0; 16],
        };
        let nodes =
            Credential::issue_by_superpeer(&world.superpeer, &world.credential, &world.trust.network, &grant);
        let by_node = RevocationNotice::by_superpeer(peer(8).1, &node, nodes, &world.trust);
        assert_eq!(by_node.verify(&world.trust), Err(RevocationError::NotAllowed));
        let borrowed = RevocationNotice::by_superpeer(member, &node, world.credential.clone(), &world.trust);
        assert!(borrowed.verify(&world.trust).is_err(), "another's credential under an own signature");
        let unsigned_by_root = RevocationNotice {
            issuer: None,
            ..RevocationNotice::by_superpeer(member, &world.superpeer, world.credential.clone(), &world.trust)
        };
        assert_eq!(unsigned_by_root.verify(&world.trust), Err(RevocationError::NotAllowed));
    }
}
