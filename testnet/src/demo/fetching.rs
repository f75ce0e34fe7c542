//! Nodes fetch files, and what arrived is compared with the original.

use super::DemoError;
use super::run::{Run, Shared};
use crate::api::NodeApi;
use crate::original;
use crate::record::TransferRow;
use futures::stream::{self, StreamExt, TryStreamExt};
use quarta_daemon::cli::size;
use quarta_node::api::model as node;
use std::path::PathBuf;

/// Fetches at once: enough that holders serve several, and no more than a small machine takes.
const FETCHES_AT_ONCE: usize = 4;

impl Run {
    /// Every node fetches every file but the largest that it does not own.
    pub(super) async fn fetch_small_files(&mut self) -> Result<(), DemoError> {
        let mut wanted = Vec::new();
        for shared in self.files.iter().skip(1) {
            for node in self.cluster()?.nodes().filter(|node| node.name() != shared.file.owner) {
                wanted.push((node.node(), shared.clone()));
            }
        }
        self.journal.note(format!("every node fetches {} files", self.files.len() - 1));
        self.fetch_all(wanted, FETCHES_AT_ONCE).await?;
        Ok(())
    }

    /// Several nodes fetch the largest file: the first from its owner, the next two from several holders at once.
    pub(super) async fn spread_the_largest(&mut self) -> Result<(), DemoError> {
        let largest = self.largest();
        let nodes: Vec<NodeApi> = self
            .cluster()?
            .nodes()
            .filter(|node| node.name() != largest.file.owner)
            .map(crate::cluster::Member::node)
            .collect();
        self.journal.note(format!("{} goes to a second holder", largest.file.name));
        let want = |nodes: &[NodeApi]| nodes.iter().map(|node| (node.clone(), largest.clone())).collect();
        self.fetch_all(want(&nodes[..1]), 1).await?;
        // With few nodes, one must be left that has not got it when a holder dies.
        let more = nodes.len().saturating_sub(2).min(2);
        let rows = self.fetch_all(want(&nodes[1..=more]), more).await?;
        let fewest = rows.iter().map(sources).min().unwrap_or_default();
        let found =
            format!("{} came from at least {fewest} holders at {} nodes", largest.file.name, rows.len());
        let found = if fewest >= 2 { Ok(found) } else { Err(found) };
        Ok(self.journal.check("a file with several holders is fetched from several at once", found)?)
    }

    /// Every node that still lacks a file fetches it.
    pub(super) async fn fetch_what_is_missing(&mut self) -> Result<(), DemoError> {
        let mut wanted = Vec::new();
        for node in self.cluster()?.nodes() {
            let files = node.node().files("").await?;
            for shared in &self.files {
                if files.iter().any(|file| file.id == shared.file.id && file.path.is_none()) {
                    wanted.push((node.node(), shared.clone()));
                }
            }
        }
        if !wanted.is_empty() {
            self.journal.note(format!("{} more fetches, so that every node has everything", wanted.len()));
            self.fetch_all(wanted, 2).await?;
        }
        let (rows, bytes) = {
            let transfers = &self.journal.record().transfers;
            (transfers.len(), transfers.iter().map(|row| row.size_bytes).sum())
        };
        let found = format!("{rows} of {rows} copies, {}", size(bytes));
        // A copy that differs has ended the run already.
        Ok(self.journal.check(
            "every fetched file equals its original, byte by byte and by SHA-256",
            Ok::<_, String>(found),
        )?)
    }

    /// The largest file.
    pub(super) fn largest(&self) -> Shared {
        self.files[0].clone()
    }

    /// Fetches, compares and records; answers the rows.
    async fn fetch_all(
        &mut self,
        wanted: Vec<(NodeApi, Shared)>,
        at_once: usize,
    ) -> Result<Vec<TransferRow>, DemoError> {
        let fetched: Vec<(String, Shared, node::Transfer)> = stream::iter(wanted)
            .map(async |(node, shared)| {
                let transfer = node.fetched(&shared.file.id).await?;
                Ok::<_, DemoError>((node.member().to_owned(), shared, transfer))
            })
            .buffer_unordered(at_once)
            .try_collect()
            .await?;
        let mut rows = Vec::with_capacity(fetched.len());
        for (to, shared, transfer) in fetched {
            rows.push(self.arrived(&to, &shared, transfer).await?);
        }
        Ok(rows)
    }

    /// Compares what arrived with its original and records it.
    pub(super) async fn arrived(
        &mut self,
        to: &str,
        shared: &Shared,
        transfer: node::Transfer,
    ) -> Result<TransferRow, DemoError> {
        let (original, told) = (shared.original.path.clone(), shared.sha256.clone());
        let copy = transfer.path.as_deref().map(PathBuf::from);
        let difference = match copy {
            Some(copy) => tokio::task::spawn_blocking(move || original::compare(&original, &copy, &told))
                .await?
                .err()
                .map(|difference| difference.to_string()),
            None => Some("the node does not say where it is".to_owned()),
        };
        let said = transfer.sha256.clone().unwrap_or_default();
        let difference = difference.or_else(|| {
            (said != shared.sha256)
                .then(|| format!("the node computed the SHA-256 {said}, not {}", shared.sha256))
        });
        let bytes: u64 = transfer.sources.iter().map(|source| source.bytes).sum();
        let difference = difference.or_else(|| {
            (bytes < shared.original.size_bytes)
                .then(|| format!("only {bytes} bytes are attributed to sources"))
        });
        let row = self.journal.transfer(to, transfer, Some(difference.is_none()));
        if let Some(difference) = difference {
            let found = format!("{} at {to}: {difference}", shared.file.name);
            self.journal.check("a fetched file equals its original", Err::<String, _>(found))?;
        }
        Ok(row)
    }
}

/// How many sources gave something.
pub(super) fn sources(row: &TransferRow) -> usize {
    row.sources.iter().filter(|source| source.bytes > 0).count()
}
