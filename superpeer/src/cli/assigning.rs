//! `quarta-superpeer assign`.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use data_encoding::HEXLOWER;
use libp2p::PeerId;
use quarta_daemon::{
    Role,
    cli::{Common, During, ExitCode, Failure, Output},
    client::{Client, Target},
};
use quarta_protocols::{
    cbor,
    ids::{FileId, RecordHash},
    records::Link,
    signing::Signed,
};

use super::membership::{peer, root};
use crate::api::model::{AssignRequest, Assigned, Member, Ownership};

/// How long is waited for a next owner that gets no further.
const PATIENCE: Duration = Duration::from_secs(15);

/// Assigns a file whose owner is gone, and waits until its next owner has it, or gets no further.
pub(super) async fn assign(
    common: &Common,
    output: &mut Output,
    file: &str,
    member: &str,
    root_key: Option<PathBuf>,
) -> Result<ExitCode, Failure> {
    let what = format!("cannot assign {file} to {member}");
    let client = common.client(Role::Superpeer)?;
    let owned: Ownership = client.get(owner_of(file)).await.during(what.clone())?;
    let mut request = AssignRequest { member: member.to_owned(), signed: None };
    if let Some(path) = root_key {
        let meant: Member =
            client.get(Target::new("/api/v1/members").segment(member)).await.during(what.clone())?;
        let (root, trust) = root(&client, &path, &what).await?;
        let link = link(&owned, peer(&meant.peer_id, &what)?, &what)?;
        request.signed = Some(HEXLOWER.encode(&cbor::to_vec(&Signed::new(&link, &trust.network, &root))));
    }
    let assigned = until_taken(&client, &owned.id, &request, &what).await?;
    if assigned.taken {
        output.line(&assigned, &format!("{} belongs to {} now", assigned.name, assigned.owner))?;
        return Ok(ExitCode::Success);
    }
    let text =
        format!("{} is being fetched by {}, which takes it over by itself", assigned.name, assigned.owner);
    output.line(&assigned, &text)?;
    Ok(ExitCode::PartlyDone)
}

async fn until_taken(
    client: &Client,
    id: &str,
    request: &AssignRequest,
    what: &str,
) -> Result<Assigned, Failure> {
    let (mut moved, mut have_bytes) = (Instant::now(), 0);
    loop {
        let assigned: Assigned = client.post(owner_of(id), request).await.during(what)?;
        if assigned.have_bytes != have_bytes {
            (moved, have_bytes) = (Instant::now(), assigned.have_bytes);
        }
        if assigned.taken || moved.elapsed() >= PATIENCE {
            return Ok(assigned);
        }
    }
}

fn owner_of(file: &str) -> Target {
    Target::new("/api/v1/files").segment(file).segment("owner")
}

/// The link that the root signs.
fn link(owned: &Ownership, to: PeerId, what: &str) -> Result<Link, Failure> {
    let odd = |field: &str| {
        let why = format!("the daemon named {field} in a way that makes no sense");
        Failure::new(what, why, "use the daemon's own version of this command")
    };
    let previous = owned.last_link.as_ref().map(|hash| hash.parse::<RecordHash>()).transpose();
    Ok(Link {
        file: owned.id.parse::<FileId>().map_err(|_| odd("the file"))?,
        place: owned.links,
        from: peer(&owned.owner_id, what)?,
        to,
        previous: previous.map_err(|_| odd("the last link"))?,
        by_root: true,
        candidates: Vec::new(),
    })
}
