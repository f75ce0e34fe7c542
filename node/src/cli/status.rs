//! `quarta status`: healthy or not, and why.

use quarta_daemon::{
    Role,
    cli::{self, Common, During, ExitCode, Failure, Output, size},
};

use crate::api::model::{Status, VaultStatus};

/// Shows how this node is; a failure where it is not healthy.
pub(super) async fn show(common: &Common, output: &mut Output) -> Result<ExitCode, Failure> {
    let status: Status =
        common.client(Role::Node)?.get("/api/v1/status").await.during("cannot tell the status")?;
    if !common.json {
        cli::health(&status.problems).iter().try_for_each(|line| output.line(&status, line))?;
    }
    output.fields(&status, &fields(&status))?;
    Ok(if status.healthy { ExitCode::Success } else { ExitCode::Failure })
}

fn fields(status: &Status) -> Vec<(&'static str, String)> {
    let superpeers = status
        .superpeers
        .iter()
        .map(|s| {
            let state = match (s.connected, s.registered) {
                (true, true) => "connected",
                (true, false) => "connected, registering",
                (false, _) => "not reachable",
            };
            format!("{} ({state})", s.name)
        })
        .collect::<Vec<_>>()
        .join(", ");
    let mut fields = vec![
        ("Branch", format!("{} ({})", status.name, status.peer_id)),
        ("Network", status.network.clone()),
    ];
    if status.signed_off {
        fields.push(("Presence", "signed off: `quarta connect` brings this branch back".to_owned()));
    }
    fields.extend([
        ("Super-peers", superpeers),
        (
            "Library",
            format!(
                "{} files, {}",
                status.files,
                size(status.stored_bytes.saturating_sub(status.vault.bytes))
            ),
        ),
        ("Vault", vault(&status.vault)),
        ("Free", size(status.free_bytes)),
        ("Uploads", status.active_uploads.to_string()),
        ("Downloads", status.active_downloads.to_string()),
        ("Listens", status.listen.join(" ")),
        ("Version", status.version.clone()),
    ]);
    fields
}

fn vault(vault: &VaultStatus) -> String {
    let quota = vault.quota_bytes.map(|quota| format!(" of {}", size(quota))).unwrap_or_default();
    let wanted = if vault.wanted > 0 { format!(", {} on their way", vault.wanted) } else { String::new() };
    format!("{} replicas for other branches, {}{quota}{wanted}", vault.replicas, size(vault.bytes))
}
