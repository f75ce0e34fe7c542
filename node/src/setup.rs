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
use quarta_protocols::{credentials, invites::Invite, names::MemberName};
use serde::Serialize;
use utoipa::ToSchema;

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
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Joined {
    /// The branch's name.
    name: String,
    /// Its peer id.
    peer_id: String,
    /// The network's id.
    network: String,
    /// The data folder.
    data: String,
}

impl Joined {
    /// What makes the draft a data folder.
    pub(crate) fn marker(&self) -> Marker {
        Marker { role: Role::Node, network: self.network.clone(), name: self.name.clone() }
    }

    /// The result for people.
    pub fn text(&self) -> String {
        format!("This branch is a member: start it with `quarta serve --data {}`", self.data)
    }
}

/// Joins the network of an invite, by way of the member at `via` where one is named.
///
/// # Errors
/// A [`Failure`] with cause and next step; nothing is left then.
pub async fn join(
    path: &Path,
    invite: &str,
    via: Option<&Multiaddr>,
    name: &MemberName,
    reach: Reach,
) -> Result<Joined, Failure> {
    let invite = joining::read_invite(invite)?;
    let mut draft = Draft::begin(path)?;
    let joined = fill(&mut draft, &invite, via, name, reach).await?;
    draft.commit(joined.marker())?;
    Ok(joined)
}

/// Joins, and writes into the draft all that a node needs; the caller commits it with [`Joined::marker`].
///
/// # Errors
/// A [`Failure`] with cause and next step. What was written is of use to the next try.
pub(crate) async fn fill(
    draft: &mut Draft,
    invite: &Invite,
    via: Option<&Multiaddr>,
    name: &MemberName,
    reach: Reach,
) -> Result<Joined, Failure> {
    let keys = Keys::load_or_create(draft.folder()).map_err(|e| Failure::told(&e))?;
    let trust = joining::join_via(draft, &keys, invite, via, name, credentials::Role::Node).await?;
    let defaults = Settings::default();
    let listen = if reach.listen.is_empty() { defaults.listen.clone() } else { reach.listen };
    let settings = Settings { listen, external: reach.external, http: reach.http.to_string(), ..defaults };
    settings::save(draft.folder(), &settings)?;
    Ok(Joined {
        name: name.to_string(),
        peer_id: keys.peer().to_string(),
        network: trust.network.to_string(),
        data: draft.folder().path().display().to_string(),
    })
}
