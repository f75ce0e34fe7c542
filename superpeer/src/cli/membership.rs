//! Commands about who is a member: invites, approval, revocation.
//!
//! What the root signs is signed here, in the command's own process, so that its key never reaches the daemon.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use libp2p::{PeerId, identity::Keypair};
use quarta_daemon::{
    Role,
    cli::{Common, During, ExitCode, Failure, Output},
    client::{Client, Target},
};
use quarta_protocols::{
    cbor,
    credentials::{self, Credential, Grant, Trust, UnixSeconds},
    endings::RevocationNotice,
    names::MemberName,
};

use super::moment;
use crate::{
    api::model::{
        Approval, Approved, Candidate, CandidateList, InvitePage, IssuedInvite, Member, RevocationRequest,
        Status,
    },
    root_key,
};

/// Which of the invites.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Invites {
    /// Withdraw an invite: nobody can join with it any more
    Withdraw {
        /// Its id, or the beginning of that
        id: String,
    },
}

pub(super) async fn invites(
    common: &Common,
    output: &mut Output,
    command: Option<Invites>,
) -> Result<(), Failure> {
    let client = common.client(Role::Superpeer)?;
    if let Some(Invites::Withdraw { id }) = command {
        let what = format!("cannot withdraw the invite {id}");
        let () = client.delete(Target::new("/api/v1/invites").segment(&id)).await.during(what)?;
        return output.line(&serde_json::json!({ "withdrawn": id }), &format!("{id} is withdrawn"));
    }
    let invites: Vec<IssuedInvite> = client
        .get_all("/api/v1/invites", |page: InvitePage| (page.invites, page.next))
        .await
        .during("cannot list the invites")?;
    output.table(&["ID", "ROLE", "STATE", "USES LEFT", "ISSUED", "EXPIRES", "REPLACES"], &invites, |invite| {
        vec![
            invite.id.chars().take(12).collect(),
            invite.role.clone(),
            invite.state.clone(),
            format!("{} of {}", invite.uses_left, invite.uses),
            moment(invite.created.saturating_mul(1000)),
            moment(invite.expires.saturating_mul(1000)),
            invite.replaces.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    })
}

pub(super) async fn revoke(
    common: &Common,
    output: &mut Output,
    member: &str,
    root_key: Option<PathBuf>,
) -> Result<(), Failure> {
    let what = format!("cannot revoke {member}");
    let client = common.client(Role::Superpeer)?;
    let mut request = RevocationRequest::default();
    if let Some(path) = root_key {
        let target = Target::new("/api/v1/members").segment(member);
        let meant: Member = client.get(target).await.during(what.clone())?;
        let (root, trust) = root(&client, &path, &what).await?;
        let notice = RevocationNotice::by_root(peer(&meant.peer_id, &what)?, &root, &trust);
        request.signed = Some(HEXLOWER.encode(&cbor::to_vec(&notice)));
    }
    let target = Target::new("/api/v1/members").segment(member).segment("revocation");
    let revoked: Member = client.post(target, &request).await.during(what)?;
    output.line(&revoked, &format!("{} is a member no more", revoked.name))
}

/// Lists who waits where no name is given.
pub(super) async fn approve(
    common: &Common,
    output: &mut Output,
    name: Option<MemberName>,
    root_key: Option<PathBuf>,
) -> Result<(), Failure> {
    let client = common.client(Role::Superpeer)?;
    let listed = || async { client.get::<CandidateList>("/api/v1/candidates").await };
    let Some(name) = name else {
        let waiting = listed().await.during("cannot list who waits for approval")?;
        return output.table(
            &["NAME", "WANTS", "ASKED", "EXPIRES", "PEER ID"],
            &waiting.candidates,
            |waits| {
                let time = |time: Option<u64>| {
                    time.map_or_else(|| "-".to_owned(), |time| moment(time.saturating_mul(1000)))
                };
                vec![
                    waits.name.clone(),
                    waits.wants.clone(),
                    time(waits.asked),
                    time(waits.expires),
                    waits.peer_id.clone(),
                ]
            },
        );
    };
    let what = format!("cannot approve {name}");
    let mut request = Approval::default();
    if let Some(path) = root_key {
        let waiting = listed().await.during(what.clone())?;
        let Some(Candidate { peer_id, .. }) =
            waiting.candidates.iter().find(|waits| waits.name == name.as_str())
        else {
            let why = format!("no super-peer called {name} waits for approval here");
            let next = "run `quarta-superpeer approve` without a name to see who waits";
            return Err(Failure::new(what, why, next).code(ExitCode::NotFound));
        };
        let (root, trust) = root(&client, &path, &what).await?;
        let grant = Grant {
            peer: peer(peer_id, &what)?,
            name: &name,
            role: credentials::Role::Superpeer,
            now: UnixSeconds::now(),
            token_id: rand::random(),
        };
        let credential = Credential::issue_by_root(&root, &trust.network, &grant);
        request.signed = Some(HEXLOWER.encode(&cbor::to_vec(&credential)));
    }
    let target = Target::new("/api/v1/candidates").segment(name.as_str()).segment("approval");
    let approved: Approved = client.post(target, &request).await.during(what)?;
    let until = moment(approved.expires.saturating_mul(1000));
    output.line(&approved, &format!("{name} is approved until {until}; it goes on when it asks again"))
}

/// The root key in a file, and the network of the daemon, which it must be of.
pub(super) async fn root(client: &Client, path: &Path, what: &str) -> Result<(Keypair, Trust), Failure> {
    let status: Status = client.get("/api/v1/status").await.during(what)?;
    let root = root_key::read(path, &status.network, what)?;
    let public = root.public().try_into_ed25519().map_err(|e| Failure::told(&e))?;
    Ok((root, Trust::in_root(public)))
}

pub(super) fn peer(text: &str, what: &str) -> Result<PeerId, Failure> {
    text.parse().map_err(|_| {
        let why = format!("the daemon named {text:?} as a peer id");
        Failure::new(what, why, "use the daemon's own version of this command")
    })
}
