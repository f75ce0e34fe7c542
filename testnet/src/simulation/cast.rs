//! Who takes part: a root, super-peers, nodes, and strangers that hope to become nodes.
//!
//! All keys come from fixed seeds, and what is signed before a schedule begins is signed once for all schedules:
//! signatures are what a schedule spends most of its time on.

use std::sync::LazyLock;

use libp2p::{PeerId, identity::Keypair};
use quarta_protocols::{
    content::ContentKey,
    credentials::{Credential, Grant, Membership, Role, Trust, UnixSeconds},
    ids::{ContentId, ID_BYTES, Sha256},
    keys::{SealingKey, SealingSecret},
    members::Enrolment,
    names::{FileName, MemberName},
    records::{Access, Body, Entry, Origin, State},
    signing::Signed,
};
use serde_bytes::ByteArray;

/// Super-peers: three is the least where two can be cut off from one and each other.
pub const SUPERPEERS: usize = 3;
/// Nodes that are members from the beginning.
pub const NODES: usize = 3;
/// Machines that are no members at the beginning and compete for invites.
pub const STRANGERS: usize = 2;
/// When every schedule begins, in milliseconds since 1970.
pub const START_MS: u64 = START.0 * 1000;
/// The same in seconds.
pub const START: UnixSeconds = UnixSeconds(1_800_000_000);

const ROOT_SEED: u8 = 200;
const FOREIGN_ROOT_SEED: u8 = 201;

/// One machine of the cast. Super-peers come first, then nodes, then strangers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who(u8);

/// What a machine is before the schedule begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A super-peer.
    Superpeer,
    /// A node that is a member.
    Node,
    /// A node that is not yet one.
    Stranger,
}

/// A machine's keys and what was signed for it beforehand.
pub struct Identity {
    /// Its name in the network, and in the story.
    pub name: MemberName,
    /// Its identity.
    pub key: Keypair,
    /// Its peer id.
    pub peer: PeerId,
    /// The id of its own entry, and of its membership's end.
    pub entry: [u8; ID_BYTES],
    /// Its sealing key.
    pub sealing_key: Signed<SealingKey>,
    /// Its credential; none for a stranger.
    pub credential: Option<Credential>,
    /// What that says, verified once for all schedules.
    pub membership: Option<Membership>,
}

/// The root and everybody.
pub struct Cast {
    /// The root key.
    pub root: Keypair,
    /// What the network is verified against.
    pub trust: Trust,
    /// Another network's root, for what must be refused here.
    pub foreign_root: Keypair,
    everybody: Vec<Identity>,
}

static CAST: LazyLock<Cast> = LazyLock::new(Cast::assemble);

impl Who {
    /// The `nth` super-peer.
    pub fn superpeer(nth: usize) -> Self {
        Self::at(nth % SUPERPEERS)
    }

    /// The `nth` node or stranger.
    pub fn member(nth: usize) -> Self {
        Self::at(SUPERPEERS + nth % (NODES + STRANGERS))
    }

    fn at(index: usize) -> Self {
        Self(u8::try_from(index).expect("the cast is small"))
    }

    /// All super-peers.
    pub fn superpeers() -> impl Iterator<Item = Self> {
        (0..SUPERPEERS).map(Self::superpeer)
    }

    /// All nodes and strangers.
    pub fn members() -> impl Iterator<Item = Self> {
        (0..NODES + STRANGERS).map(Self::member)
    }

    /// Everybody.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::superpeers().chain(Self::members())
    }

    /// Its place in the cast.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// What it is at the beginning.
    pub const fn part(self) -> Part {
        match self.index() {
            0..SUPERPEERS => Part::Superpeer,
            i if i < SUPERPEERS + NODES => Part::Node,
            _ => Part::Stranger,
        }
    }

    /// Its keys.
    pub fn identity(self) -> &'static Identity {
        &CAST.everybody[self.index()]
    }

    /// Its peer id.
    pub fn peer(self) -> PeerId {
        self.identity().peer
    }

    /// What a credential that it shows says, whenever that holds; none where it is not genuine or another's.
    pub fn membership_of(self, credential: &Credential) -> Option<Membership> {
        let identity = self.identity();
        if identity.credential.as_ref() == Some(credential) {
            return identity.membership.clone();
        }
        credential.verify_ignoring_time(&cast().trust, &identity.peer).ok()
    }

    /// Whose peer id this is.
    pub fn of_peer(peer: &PeerId) -> Option<Self> {
        Self::all().find(|who| who.identity().peer == *peer)
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.identity().name.as_str())
    }
}

/// The root, the trust, and everybody.
pub fn cast() -> &'static Cast {
    &CAST
}

/// A key from a fixed seed.
pub fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).expect("any 32 bytes are a key")
}

impl Cast {
    fn assemble() -> Self {
        let root = key(ROOT_SEED);
        let trust = Trust::in_root(root.public().try_into_ed25519().expect("the root key is Ed25519"));
        let mut everybody: Vec<Identity> = Vec::new();
        for who in Who::all() {
            let seed = who.0 + 1;
            let key = key(seed);
            let peer = key.public().to_peer_id();
            let (word, nth) = match who.part() {
                Part::Superpeer => ("sp", who.index()),
                Part::Node => ("node", who.index() - SUPERPEERS),
                Part::Stranger => ("stranger", who.index() - SUPERPEERS - NODES),
            };
            let name = MemberName::new(&format!("{word}-{}", nth + 1)).expect("a plain name");
            let role = if who.part() == Part::Superpeer { Role::Superpeer } else { Role::Node };
            let grant = Grant { peer, name: &name, role, now: START, token_id: [seed; 16] };
            let credential = match who.part() {
                Part::Superpeer => Some(Credential::issue_by_root(&root, &trust.network, &grant)),
                Part::Node => {
                    let issuer = &everybody[0];
                    let own = issuer.credential.as_ref().expect("a super-peer has one");
                    Some(Credential::issue_by_superpeer(&issuer.key, own, &trust.network, &grant))
                }
                Part::Stranger => None,
            };
            let sealing_key = SealingSecret::from_bytes([seed; 32]).statement(&trust.network, &key);
            let entry = Enrolment::id_of(&peer);
            let membership = credential.as_ref().and_then(|own| own.verify_ignoring_time(&trust, &peer).ok());
            everybody.push(Identity { name, key, peer, entry, sealing_key, credential, membership });
        }
        Self { root, trust, foreign_root: key(FOREIGN_ROOT_SEED), everybody }
    }
}

impl Identity {
    /// Its entry in the catalog with a credential.
    pub fn enrolment(&self, credential: Credential) -> Enrolment {
        Enrolment { peer: self.peer, credential, sealing_key: self.sealing_key.clone() }
    }
}

/// The first revision of a file of three bytes, open to all.
pub fn new_file(owner: Who, nonce: [u8; 16], name: &str, content: ContentId) -> Body {
    let origin = Origin { owner: owner.peer(), nonce: ByteArray::new(nonce) };
    let entry = Entry {
        name: FileName::new(name).expect("a plain name"),
        size_bytes: 3,
        content,
        manifest: None,
        access: open_access(),
    };
    let file = origin.file_id(&cast().trust.network);
    Body { file, origin, links: Vec::new(), revision: 1, state: State::Present(entry) }
}

/// The access of a file that is open to all.
pub fn open_access() -> Access {
    Access::Open {
        key: ContentKey::from_bytes([1; 32]),
        sha256: Sha256::from_bytes([2; 32]),
        media_type: None,
    }
}
