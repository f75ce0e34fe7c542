//! Joining: a machine becomes a branch's node.
//!
//! A draft of the data folder is filled and committed last, so a failure leaves nothing behind, and a join that was
//! interrupted goes on with the same keys.

use std::{net::SocketAddr, path::Path};

use libp2p::Multiaddr;
use quarta_daemon::{
    cli::Failure,
    data_dir::{Draft, Marker, Role},
    identity::Keys,
    joining, settings,
};
use quarta_protocols::{credentials, names::MemberName};
use serde::Serialize;

use crate::settings::Settings;

/// Where a node is reached.
#[derive(Debug)]
pub struct Reach {
    /// Where it listens; the default where empty.
    pub listen: Vec<Multiaddr>,
    /// Under which addresses it is reached from elsewhere.
    pub external: Vec<Multiaddr>,
    /// Where the HTTP API is served.
    pub http: SocketAddr,
}

/// What was made.
#[derive(Debug, Serialize)]
pub struct Joined {
    name: String,
    peer_id: String,
    network: String,
    data: String,
}

impl Joined {
    /// The result for people.
    pub fn text(&self) -> String {
        format!("This branch is a member: start it with `quarta serve --data {}`", self.data)
    }
}

/// Joins the network of an invite.
///
/// # Errors
/// A [`Failure`] with cause and next step; nothing is left then.
pub async fn join(path: &Path, invite: &str, name: &MemberName, reach: Reach) -> Result<Joined, Failure> {
    let invite = joining::read_invite(invite)?;
    let draft = Draft::begin(path)?;
    let keys = Keys::load_or_create(draft.folder()).map_err(|e| Failure::told(&e))?;
    let (draft, trust) = joining::join(draft, &keys, &invite, name, credentials::Role::Node).await?;
    let defaults = Settings::default();
    let listen = if reach.listen.is_empty() { defaults.listen.clone() } else { reach.listen };
    let settings = Settings { listen, external: reach.external, http: reach.http.to_string(), ..defaults };
    settings::save(draft.folder(), &settings)?;
    let network = trust.network.to_string();
    let joined = Joined {
        name: name.to_string(),
        peer_id: keys.peer().to_string(),
        network: network.clone(),
        data: path.display().to_string(),
    };
    draft.commit(Marker { role: Role::Node, network, name: name.to_string() })?;
    Ok(joined)
}
