//! `quarta connect`, `quarta disconnect` and `quarta leave`.

use quarta_daemon::{
    Role,
    cli::{Common, During, ExitCode, Failure, Output},
};
use serde_json::json;

use crate::api::model::{Presence, Status, UnregisterRequest, Unregistered};

/// Signs this branch off, until it is told to connect.
pub(super) async fn disconnect(common: &Common, output: &mut Output) -> Result<ExitCode, Failure> {
    let presence: Presence =
        common.client(Role::Node)?.post("/api/v1/disconnect", &json!({})).await.during("cannot sign off")?;
    let text = format!("{} is off the network until `quarta connect`, also after a restart", presence.name);
    output.line(&presence, &text)?;
    Ok(ExitCode::Success)
}

/// Brings a branch back that has signed off.
pub(super) async fn connect(common: &Common, output: &mut Output) -> Result<ExitCode, Failure> {
    let presence: Presence =
        common.client(Role::Node)?.post("/api/v1/connect", &json!({})).await.during("cannot sign on")?;
    output.line(&presence, &format!("{} is on the network", presence.name))?;
    Ok(ExitCode::Success)
}

/// Leaves for good. Without `yes` nothing happens, and what would is told.
pub(super) async fn leave(
    common: &Common,
    output: &mut Output,
    yes: bool,
    abandon: bool,
) -> Result<ExitCode, Failure> {
    let what = "cannot leave the network";
    let client = common.client(Role::Node)?;
    let name = if yes {
        client.get::<Status>("/api/v1/status").await.during(what)?.name
    } else {
        // Not confirmed: the daemon says what would happen.
        String::new()
    };
    let request = UnregisterRequest { name, abandon };
    let left: Unregistered = client.post("/api/v1/unregister", &request).await.during(what)?;
    let count = |files| if files == 1 { "1 file".to_owned() } else { format!("{files} files") };
    let went = left.new_owners.iter().map(|owner| format!("{} went to {}", count(owner.files), owner.name));
    let lost = Some(left.abandoned_files).filter(|files| *files > 0);
    let lost = lost.map(|files| format!("{} left without an owner", count(files)));
    let gone = format!("{} has left the network for good", left.name);
    let parts: Vec<String> = std::iter::once(gone).chain(went).chain(lost).collect();
    let text = format!("{}. Its library stays on this machine", parts.join("; "));
    output.line(&left, &text)?;
    Ok(ExitCode::Success)
}
