//! The stages of a demo and what they share.

use super::DemoError;
use super::source::Source;
use crate::cluster::{Cluster, ClusterError, Plan};
use crate::original::Original;
use crate::record::{Journal, MemberRow};
use crate::sampling::Sampler;
use crate::snapshot::Snapshot;
use quarta_node::api::model as node;
use std::path::PathBuf;
use tokio::task::JoinHandle;

/// A file that a node shares.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    /// Where it came from.
    pub(super) original: Original,
    /// The original's SHA-256, computed by the demo.
    pub(super) sha256: String,
    /// What its owner said when it was added.
    pub(super) file: node::File,
}

/// A demo under way.
pub(super) struct Run {
    pub(super) journal: Journal,
    pub(super) cluster: Option<Cluster>,
    /// The shared files, the largest first.
    pub(super) files: Vec<Shared>,
    /// The node that was killed and came back.
    pub(super) returned: Option<String>,
    /// What the members told Prometheus when all were ready.
    pub(super) before: Snapshot,
    /// What they told at the end.
    pub(super) after: Snapshot,
    /// The members' API tokens, which nothing that is kept may hold.
    pub(super) tokens: Vec<String>,
    sampler: Option<Sampler>,
    source: Source,
    samples: PathBuf,
    writing: Option<JoinHandle<std::io::Result<Vec<Original>>>>,
}

impl Run {
    /// A demo that writes what it makes itself into the folder `samples`.
    pub(super) fn new(journal: Journal, source: Source, samples: PathBuf) -> Self {
        Self {
            journal,
            cluster: None,
            files: Vec::new(),
            returned: None,
            before: Snapshot::default(),
            after: Snapshot::default(),
            tokens: Vec::new(),
            sampler: None,
            source,
            samples,
            writing: None,
        }
    }

    /// Does everything, in order.
    pub(super) async fn stages(&mut self, plan: Plan) -> Result<(), DemoError> {
        let originals = self.start(plan).await?;
        self.members("Before").await?;
        self.share(originals).await?;
        self.search_everywhere().await?;
        self.fetch_small_files().await?;
        self.spread_the_largest().await?;
        self.kill_a_holder_in_the_middle().await?;
        self.fetch_what_is_missing().await?;
        self.inspect_lists().await?;
        self.refuse_strangers().await?;
        self.inspect_metrics().await?;
        self.members("After").await
    }

    /// Starts the members and writes the samples meanwhile.
    async fn start(&mut self, plan: Plan) -> Result<Vec<Original>, DemoError> {
        let (source, folder) = (self.source.clone(), self.samples.clone());
        let writing = self.writing.insert(tokio::task::spawn_blocking(move || source.write(&folder)));
        let journal = &mut self.journal;
        journal.note(format!("starting {} members, each its own process", plan.members.len()));
        let cluster = self.cluster.insert(Cluster::start(plan, |step| journal.note(step)).await?);
        self.tokens = cluster.members().iter().filter_map(|member| member.token().ok()).collect();
        self.before = Snapshot::take(cluster).await?;
        self.sampler = Some(Sampler::start(cluster, journal.clock()));
        let originals = writing.await?;
        self.writing = None;
        let originals = originals.map_err(DemoError::Samples)?;
        self.journal.note(format!("{} files are ready to be shared", originals.len()));
        Ok(originals)
    }

    pub(super) fn cluster(&self) -> Result<&Cluster, ClusterError> {
        self.cluster.as_ref().ok_or_else(|| ClusterError::Unknown("any member".to_owned()))
    }

    pub(super) fn cluster_mut(&mut self) -> Result<&mut Cluster, ClusterError> {
        self.cluster.as_mut().ok_or_else(|| ClusterError::Unknown("any member".to_owned()))
    }

    /// The nodes' names, in order.
    pub(super) fn nodes(&self) -> Result<Vec<String>, ClusterError> {
        Ok(self.cluster()?.nodes().map(|node| node.name().to_owned()).collect())
    }

    /// Records the members as the first super-peer sees them.
    pub(super) async fn members(&mut self, when: &str) -> Result<(), DemoError> {
        let Some(superpeer) = self.cluster()?.superpeers().next() else { return Ok(()) };
        let superpeer = superpeer.superpeer();
        let members = superpeer.members().await?;
        self.journal.members(when, superpeer.member(), members.into_iter().map(MemberRow::from).collect());
        Ok(())
    }

    /// Ends the looking at the members, and records what it brought.
    fn observed(&mut self) {
        if let Some(sampler) = self.sampler.take() {
            self.journal.observed(sampler.finish());
        }
    }

    /// Stops the members in order, which is the last thing to be checked.
    pub(super) async fn stop(&mut self) -> Result<(), DemoError> {
        self.observed();
        let Some(cluster) = self.cluster.take() else { return Ok(()) };
        let (members, lives) = (cluster.members().len(), cluster.lives());
        let unclean = cluster.stop().await;
        self.journal.lives(&lives);
        let unclean = unclean?;
        let found = if unclean.is_empty() {
            Ok(format!("{members} of {members}"))
        } else {
            Err(format!("not {}", unclean.join(", ")))
        };
        Ok(self.journal.check("every member stops in order when it is asked to", found)?)
    }

    /// Ends everything that still writes, after a failure.
    pub(super) async fn abandon(&mut self) {
        // What failed is told already; this must only leave nothing behind.
        self.observed();
        if let Some(cluster) = self.cluster.take() {
            let lives = cluster.lives();
            self.after = Snapshot::of_those_that_answer(&cluster).await;
            let _ = cluster.stop().await;
            self.journal.lives(&lives);
        }
        if let Some(writing) = self.writing.take() {
            let _ = writing.await;
        }
    }
}
