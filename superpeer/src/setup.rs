//! Making a super-peer: the first one of a new network, or a further one of an existing network.
//!
//! Both fill a draft of the data folder and commit it last, so a failure leaves nothing behind.

use std::{net::SocketAddr, path::Path};

use libp2p::Multiaddr;
use quarta_daemon::{
    cli::Failure,
    data_dir::{Draft, Marker, Role},
    identity::{self, Keys},
    joining, settings,
};
use quarta_protocols::{
    credentials::{self, Credential, Grant, Trust, UnixSeconds},
    names::MemberName,
};
use serde::Serialize;

use crate::settings::Settings;

/// The root key's file. Whoever holds it can admit super-peers, and through them anybody.
pub const ROOT_KEY_FILE: &str = "root.key";

/// Where a super-peer is reached.
#[derive(Debug)]
pub struct Reach {
    /// Where it listens; the default where empty.
    pub listen: Vec<Multiaddr>,
    /// Under which addresses it is reached from elsewhere.
    pub external: Vec<Multiaddr>,
    /// Where the HTTP API is served.
    pub http: SocketAddr,
}

impl Reach {
    fn into_settings(self) -> Settings {
        let defaults = Settings::default();
        let listen = if self.listen.is_empty() { defaults.listen } else { self.listen };
        Settings { listen, external: self.external, http: self.http.to_string(), ..Settings::default() }
    }
}

/// What was made.
#[derive(Debug, Serialize)]
pub struct Made {
    name: String,
    peer_id: String,
    network: String,
    data: String,
}

impl Made {
    fn new(name: &MemberName, keys: &Keys, trust: &Trust, path: &Path) -> Self {
        Self {
            name: name.to_string(),
            peer_id: keys.peer().to_string(),
            network: trust.network.to_string(),
            data: path.display().to_string(),
        }
    }

    /// The result for people.
    pub fn text(&self, done: &str) -> String {
        format!("{done}: start it with `quarta-superpeer serve --data {}`", self.data)
    }
}

/// Makes a network's root key and its first super-peer.
///
/// # Errors
/// A [`Failure`] with cause and next step; nothing is left then.
pub fn init(path: &Path, name: &MemberName, reach: Reach) -> Result<Made, Failure> {
    let draft = Draft::begin(path)?;
    let folder = draft.folder();
    let keys = Keys::load_or_create(folder).map_err(|e| Failure::told(&e))?;
    let root = identity::create_key(folder, ROOT_KEY_FILE).map_err(|e| Failure::told(&e))?;
    let root_public = root.public().try_into_ed25519().map_err(|e| Failure::told(&e))?;
    let trust = Trust::in_root(root_public);
    let grant = Grant {
        peer: keys.peer(),
        name,
        role: credentials::Role::Superpeer,
        now: UnixSeconds::now(),
        token_id: rand::random(),
    };
    let credential = Credential::issue_by_root(&root, &trust.network, &grant);
    identity::save_membership(folder, &trust, &credential).map_err(|e| Failure::told(&e))?;
    settings::save(folder, &reach.into_settings())?;
    let made = Made::new(name, &keys, &trust, path);
    draft.commit(Marker {
        role: Role::Superpeer,
        network: trust.network.to_string(),
        name: name.to_string(),
    })?;
    Ok(made)
}

/// Joins an existing network as a further super-peer.
///
/// # Errors
/// A [`Failure`] with cause and next step; nothing is left then.
pub async fn join(path: &Path, invite: &str, name: &MemberName, reach: Reach) -> Result<Made, Failure> {
    let invite = joining::read_invite(invite)?;
    let mut draft = Draft::begin(path)?;
    let keys = Keys::load_or_create(draft.folder()).map_err(|e| Failure::told(&e))?;
    let trust = joining::join(&mut draft, &keys, &invite, name, credentials::Role::Superpeer).await?;
    settings::save(draft.folder(), &reach.into_settings())?;
    let made = Made::new(name, &keys, &trust, path);
    draft.commit(Marker {
        role: Role::Superpeer,
        network: trust.network.to_string(),
        name: name.to_string(),
    })?;
    Ok(made)
}
