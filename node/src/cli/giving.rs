//! `quarta give`.

use std::time::{Duration, Instant};

use quarta_daemon::{
    Role,
    cli::{self, Common, During, ExitCode, Failure, Output},
    client::Target,
};

use crate::api::model::{GiveRequest, Given, GivenState};

/// How long is waited for a next owner that gets no further, e.g. since it is switched off.
const PATIENCE: Duration = Duration::from_secs(15);

/// Gives a file, and waits until its next owner has it, or gets no further.
pub(super) async fn give(
    common: &Common,
    output: &mut Output,
    file: &str,
    member: &str,
) -> Result<ExitCode, Failure> {
    let client = common.client(Role::Node)?;
    let request = GiveRequest { member: member.to_owned() };
    let what = format!("cannot give {file} to {member}");
    let (mut reference, mut bar) = (file.to_owned(), None);
    let (mut moved, mut have_bytes) = (Instant::now(), 0);
    loop {
        let target = Target::new("/api/v1/files").segment(&reference).segment("owner");
        let given: Given = client.post(target, &request).await.during(what.clone())?;
        if given.state == GivenState::HandedOver {
            output.line(&given, &format!("{} belongs to {} now", given.name, given.owner))?;
            return Ok(ExitCode::Success);
        }
        if given.have_bytes != have_bytes {
            (moved, have_bytes) = (Instant::now(), given.have_bytes);
        }
        if moved.elapsed() >= PATIENCE {
            let why = if given.reachable { "does not get further now" } else { "cannot be reached now" };
            let text = format!(
                "{} is offered to {}, which {why}; it is handed over by itself as soon as it can be, and until then \
                 nothing else of it can be changed",
                given.name, given.owner
            );
            output.line(&given, &text)?;
            return Ok(ExitCode::PartlyDone);
        }
        bar.get_or_insert_with(|| cli::progress(common.json, &given.name, given.size_bytes))
            .set_position(have_bytes);
        // Once it is the other's, its old `owner:name` names nothing any more.
        reference = given.id;
    }
}
