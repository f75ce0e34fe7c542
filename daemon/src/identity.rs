//! Who this member is: its keys, the network it trusts, its credential, and where super-peers were last seen.
//!
//! Each lies in a file of its own in the data folder, mode 0600. Keys are made once and never written again; the
//! credential is replaced whole when it is renewed. A join that was interrupted finds its keys again, so that
//! redeeming its invite a second time counts as the same machine.
//!
//! ```text
//! DATA/identity.key      Ed25519 key pair, libp2p's protobuf encoding
//! DATA/sealing.key       X25519 private key, 32 bytes
//! DATA/root.pub          the network's root public key, 32 bytes
//! DATA/credential.cbor   the tokens that this member shows
//! DATA/superpeers.json   super-peers and their addresses, as last heard
//! ```

use crate::data_dir::{DataDir, Folder, FolderError};
use libp2p::PeerId;
use libp2p::identity::{Keypair, ed25519};
use quarta_protocols::cbor;
use quarta_protocols::credentials::{Credential, CredentialError, Membership, Trust};
use quarta_protocols::keys::{SealingKey, SealingSecret};
use quarta_protocols::messages::admission::PeerAddresses;
use quarta_protocols::signing::Signed;
use zeroize::Zeroizing;

const IDENTITY_FILE: &str = "identity.key";
const SEALING_FILE: &str = "sealing.key";
const ROOT_FILE: &str = "root.pub";
const CREDENTIAL_FILE: &str = "credential.cbor";
const SUPERPEERS_FILE: &str = "superpeers.json";

/// Why a member's identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file is missing, unsafe or unreadable.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A file does not hold what it should.
    #[error("cannot use {file} in the data folder: it is damaged; restore the data folder from a backup")]
    Damaged {
        /// The file's name.
        file: &'static str,
    },
    /// The credential is not this member's in this network.
    #[error("cannot use the credential in the data folder: {0}; restore the data folder or join again")]
    Credential(#[from] CredentialError),
}

/// A member's two key pairs.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Proves who speaks, and signs.
    pub identity: Keypair,
    /// Opens what was sealed for this member.
    pub sealing: SealingSecret,
}

impl Keys {
    /// The keys in `folder`, made now where there are none.
    ///
    /// # Errors
    /// [`IdentityError`]; existing keys are never replaced.
    pub fn load_or_create(folder: &Folder) -> Result<Self, IdentityError> {
        match Self::load(folder) {
            Err(IdentityError::Folder(error)) if error.is_not_found() => Self::create(folder),
            other => other,
        }
    }

    fn create(folder: &Folder) -> Result<Self, IdentityError> {
        let sealing = SealingSecret::generate();
        folder.write_private(SEALING_FILE, sealing.as_bytes())?;
        let identity = create_key(folder, IDENTITY_FILE)?;
        Ok(Self { identity, sealing })
    }

    fn load(folder: &Folder) -> Result<Self, IdentityError> {
        // Written last, so where it is missing nothing was ever signed or sealed for this member.
        let identity = load_key(folder, IDENTITY_FILE)?;
        let sealing = Zeroizing::new(read_array(folder, SEALING_FILE)?);
        Ok(Self { identity, sealing: SealingSecret::from_bytes(*sealing) })
    }

    /// This member's peer id.
    pub fn peer(&self) -> PeerId {
        self.identity.public().to_peer_id()
    }
}

/// Makes an Ed25519 key pair and stores it as `file`.
///
/// # Errors
/// What the file system said.
///
/// # Panics
/// Never: an Ed25519 key always has an encoding.
pub fn create_key(folder: &Folder, file: &'static str) -> Result<Keypair, IdentityError> {
    let key = Keypair::generate_ed25519();
    let encoded = Zeroizing::new(key.to_protobuf_encoding().expect("an Ed25519 key has an encoding"));
    folder.write_private(file, &encoded)?;
    Ok(key)
}

/// Reads a key pair that [`create_key`] stored.
///
/// # Errors
/// [`IdentityError::Damaged`] for anything else, or what the file system said.
pub fn load_key(folder: &Folder, file: &'static str) -> Result<Keypair, IdentityError> {
    let bytes = folder.read_private(file)?;
    Keypair::from_protobuf_encoding(&bytes)
        .ok()
        .filter(|key| key.clone().try_into_ed25519().is_ok())
        .ok_or(IdentityError::Damaged { file })
}

/// Stores what makes this machine a member: the network it trusts and the credential it shows.
///
/// # Errors
/// What the file system said.
pub fn save_membership(folder: &Folder, trust: &Trust, credential: &Credential) -> Result<(), IdentityError> {
    folder.write_private(ROOT_FILE, &trust.root.to_bytes())?;
    save_credential(folder, credential)
}

/// Stores a renewed credential in the place of the one before.
///
/// # Errors
/// What the file system said; the one before stands then.
pub fn save_credential(folder: &Folder, credential: &Credential) -> Result<(), IdentityError> {
    Ok(folder.write_private(CREDENTIAL_FILE, &cbor::to_vec(credential))?)
}

/// Everything that a member is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its keys.
    pub keys: Keys,
    /// The network.
    pub trust: Trust,
    /// What it shows.
    pub credential: Credential,
    /// What that says; possibly expired.
    pub membership: Membership,
}

impl Identity {
    /// Reads the identity of a data folder.
    ///
    /// # Errors
    /// [`IdentityError`] where something is missing, damaged or of another network.
    pub fn load(dir: &DataDir) -> Result<Self, IdentityError> {
        let folder = dir.folder();
        let keys = Keys::load(folder)?;
        let root: [u8; 32] = read_array(folder, ROOT_FILE)?;
        let root = ed25519::PublicKey::try_from_bytes(&root)
            .map_err(|_| IdentityError::Damaged { file: ROOT_FILE })?;
        let trust = Trust::in_root(root);
        let credential: Credential = cbor::from_slice(&folder.read_private(CREDENTIAL_FILE)?)
            .map_err(|_| IdentityError::Damaged { file: CREDENTIAL_FILE })?;
        let membership = credential.verify_ignoring_time(&trust, &keys.peer())?;
        Ok(Self { keys, trust, credential, membership })
    }

    /// The signed statement of this member's sealing key.
    pub fn sealing_statement(&self) -> Signed<SealingKey> {
        self.keys.sealing.statement(&self.trust.network, &self.keys.identity)
    }
}

/// The super-peers last heard of; none where nothing was stored.
///
/// # Errors
/// [`IdentityError::Damaged`], or what the file system said.
pub fn load_superpeers(folder: &Folder) -> Result<Vec<PeerAddresses>, IdentityError> {
    match folder.read_private(SUPERPEERS_FILE) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|_| IdentityError::Damaged { file: SUPERPEERS_FILE })
        }
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Stores the super-peers heard of.
///
/// # Errors
/// What the file system said.
///
/// # Panics
/// Never: peers and addresses always have a JSON form.
pub fn save_superpeers(folder: &Folder, superpeers: &[PeerAddresses]) -> Result<(), IdentityError> {
    let json = serde_json::to_vec_pretty(superpeers).expect("peers and addresses have a JSON form");
    Ok(folder.write_private(SUPERPEERS_FILE, &json)?)
}

fn read_array<const N: usize>(folder: &Folder, file: &'static str) -> Result<[u8; N], IdentityError> {
    let bytes = folder.read_private(file)?;
    bytes.as_slice().try_into().map_err(|_| IdentityError::Damaged { file })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::{Draft, Marker, Role};
    use quarta_protocols::credentials::{self, Grant, UnixSeconds};
    use quarta_protocols::names::MemberName;

    #[test]
    fn an_identity_reads_back_and_an_interrupted_join_keeps_its_keys() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data");
        let draft = Draft::begin(&path).unwrap();
        let keys = Keys::load_or_create(draft.folder()).unwrap();
        assert_eq!(Keys::load_or_create(draft.folder()).unwrap().peer(), keys.peer());
        let root = Keypair::generate_ed25519();
        let trust = Trust::in_root(root.public().try_into_ed25519().unwrap());
        let name = MemberName::new("sp1").unwrap();
        let grant = Grant {
            peer: keys.peer(),
            name: &name,
            role: credentials::Role::Superpeer,
            now: UnixSeconds::now(),
            token_id: [1; 16],
        };
        let credential = Credential::issue_by_root(&root, &trust.network, &grant);
        save_membership(draft.folder(), &trust, &credential).unwrap();
        let marker = Marker { role: Role::Superpeer, network: "n".into(), name: "sp1".into() };
        let dir = draft.commit(marker).unwrap();
        let identity = Identity::load(&dir).unwrap();
        assert_eq!(identity.keys.peer(), keys.peer());
        assert_eq!(identity.membership.name, name);
    }

    #[test]
    fn damaged_files_are_named() {
        let place = tempfile::tempdir().unwrap();
        let draft = Draft::begin(&place.path().join("data")).unwrap();
        Keys::load_or_create(draft.folder()).unwrap();
        draft.folder().write_private(SEALING_FILE, b"short").unwrap();
        let text = Keys::load_or_create(draft.folder()).unwrap_err().to_string();
        assert!(text.contains("sealing.key") && text.contains("damaged"), "{text}");
    }

    #[test]
    fn super_peers_read_back_and_none_are_known_at_first() {
        let place = tempfile::tempdir().unwrap();
        let draft = Draft::begin(&place.path().join("data")).unwrap();
        assert!(load_superpeers(draft.folder()).unwrap().is_empty());
        let known = vec![PeerAddresses {
            peer: Keypair::generate_ed25519().public().to_peer_id(),
            addresses: vec!["/ip4/192.0.2.1/tcp/7491".parse().unwrap()],
        }];
        save_superpeers(draft.folder(), &known).unwrap();
        assert_eq!(load_superpeers(draft.folder()).unwrap(), known);
    }
}
