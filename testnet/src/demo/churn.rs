//! A holder is killed in the middle of a transfer, disappears from the lists, and comes back.
//!
//! Which holder is decided when the transfer is under way: one that is sending at that moment, by the progress that the
//! fetching node tells. A kill before or after that would show nothing.

use super::DemoError;
use super::fetching::sources;
use super::run::{Run, Shared};
use crate::api::NodeApi;
use crate::wait::{Look, until};
use crate::watch::{Seen, back_at_superpeer, gone_at_superpeer, state_at_node};
use futures::TryStreamExt;
use quarta_daemon::cli::size;
use quarta_node::api::model::{FetchEvent, Transfer};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The part of a transfer that counts as its middle, in hundredths.
const MIDDLE: std::ops::RangeInclusive<u64> = 10..=70;
/// How soon a killed node is off the lists, and one that runs again is on them.
const BOUND: Duration = Duration::from_secs(2);
/// How long is waited for it, so that a miss is told with its real figure.
const DEADLINE: Duration = Duration::from_secs(20);

/// A holder that was killed.
struct Killed {
    name: String,
    at: Instant,
    /// How the transfer stood when the signal was sent.
    transfer: Transfer,
    watchers: JoinSet<Seen>,
}

impl Run {
    /// A node fetches the largest file, and an active source of it dies.
    pub(super) async fn kill_a_holder_in_the_middle(&mut self) -> Result<(), DemoError> {
        let largest = self.largest();
        for fetcher in self.nodes()? {
            let node = self.cluster()?.member(&fetcher)?.node();
            let has =
                node.files("").await?.iter().any(|file| file.id == largest.file.id && file.path.is_some());
            if has {
                continue;
            }
            let (transfer, killed) = self.fetch_and_kill(&node, &largest).await?;
            let row = self.arrived(&fetcher, &largest, transfer.clone()).await?;
            if let Some(killed) = killed {
                return self.killed(killed, &transfer, sources(&row), &largest).await;
            }
            self.journal
                .note(format!("{fetcher} had it before a holder could be killed; the next node tries"));
        }
        let found = "every transfer ended before one of its sources could be caught; use a larger --big-size";
        Ok(self.journal.check("a holder dies in the middle of a transfer", Err::<String, _>(found))?)
    }

    /// Fetches, and kills a source once the transfer is in its middle.
    async fn fetch_and_kill(
        &mut self,
        node: &NodeApi,
        largest: &Shared,
    ) -> Result<(Transfer, Option<Killed>), DemoError> {
        self.journal.note(format!("{} fetches {} from its holders", node.member(), largest.file.name));
        let mut events = node.fetch(&largest.file.id).await?;
        let mut before: Option<Transfer> = None;
        let mut killed: Option<Killed> = None;
        while let Some(event) = events.try_next().await? {
            if let (FetchEvent::Progress(now), None) = (&event, &killed) {
                if let Some(name) = active_source(before.as_ref(), now, &largest.file.owner) {
                    let watchers = self.watch_removal(&name, node.member())?;
                    let at = Instant::now();
                    self.cluster_mut()?.kill(&name).await?;
                    let done = now.done_bytes * 100 / now.size_bytes.max(1);
                    self.journal
                        .note(format!("{name} was sending and got SIGKILL with {done} % of the file there"));
                    killed = Some(Killed { name, at, transfer: now.clone(), watchers });
                }
                before = Some(now.clone());
            }
            if let Some(ended) = node.ended(event) {
                return Ok((ended?, killed));
            }
        }
        Err(node.broke_off(&largest.file.name).into())
    }

    /// Watches, at every super-peer and through another node, for `victim` to be off the lists.
    fn watch_removal(&self, victim: &str, fetcher: &str) -> Result<JoinSet<Seen>, DemoError> {
        let mut watchers = JoinSet::new();
        for superpeer in self.cluster()?.superpeers() {
            watchers.spawn(gone_at_superpeer(superpeer.superpeer(), victim.to_owned(), DEADLINE));
        }
        if let Some(node) = self.cluster()?.nodes().find(|node| ![victim, fetcher].contains(&node.name())) {
            watchers.spawn(state_at_node(node.node(), victim.to_owned(), "offline", DEADLINE));
        }
        Ok(watchers)
    }

    /// Checks what the kill led to, and brings the node back.
    async fn killed(
        &mut self,
        killed: Killed,
        transfer: &Transfer,
        sources: usize,
        largest: &Shared,
    ) -> Result<(), DemoError> {
        let Killed { name, at, transfer: then, mut watchers } = killed;
        let left = then.size_bytes.saturating_sub(then.done_bytes);
        let fault = transfer
            .sources
            .iter()
            .find(|source| source.name == name)
            .and_then(|source| source.fault.clone());
        let found = match fault {
            Some(fault) => Ok(format!(
                "{name} died with {} to go and was dropped as `{fault}`; {sources} sources in all",
                size(left)
            )),
            None => Err(format!("the transfer ended without noticing that {name} died")),
        };
        self.journal
            .check("a transfer completes from the other holders when one dies in its middle", found)?;

        let seen = collect(&mut watchers).await?;
        self.check_within("a killed node is off the available lists within 2 s", at, seen)?;
        self.members(&format!("While {name} is dead")).await?;
        self.bring_back(&name, largest).await
    }

    async fn bring_back(&mut self, name: &str, largest: &Shared) -> Result<(), DemoError> {
        let expected: BTreeSet<String> = self.files.iter().map(|shared| shared.file.id.clone()).collect();
        self.journal.note(format!("{name} is started again"));
        let started = Instant::now();
        self.cluster_mut()?.restart(name)?;
        let mut watchers = JoinSet::new();
        for superpeer in self.cluster()?.superpeers() {
            watchers.spawn(back_at_superpeer(
                superpeer.superpeer(),
                name.to_owned(),
                expected.clone(),
                DEADLINE,
            ));
        }
        if let Some(node) =
            self.cluster()?.nodes().find(|node| ![name, &largest.file.owner].contains(&node.name()))
        {
            watchers.spawn(state_at_node(node.node(), name.to_owned(), "online", DEADLINE));
        }
        let node = self.cluster()?.member(name)?.node();
        let running = until(DEADLINE, async || match node.status().await {
            Ok(_) => Look::Holds(()),
            Err(error) => Look::failed(error),
        })
        .await;
        let running = match running {
            Ok(((), at)) => at,
            Err(late) => {
                self.journal
                    .check("a killed node can be started again", Err::<String, _>(late.to_string()))?;
                return Ok(());
            }
        };
        self.journal.note(format!("{name} runs {:.1} s after its start", (running - started).as_secs_f64()));
        let seen = collect(&mut watchers).await?;
        self.check_within(
            "it is back on the lists, with its files, within 2 s of running again",
            running,
            seen,
        )?;
        self.returned = Some(name.to_owned());
        Ok(())
    }

    /// Checks that everybody saw something within [`BOUND`] of `since`.
    fn check_within(&mut self, what: &str, since: Instant, seen: Vec<Seen>) -> Result<(), DemoError> {
        let mut all_in_time = true;
        let mut parts = Vec::with_capacity(seen.len());
        for (who, when) in seen {
            match when {
                Ok(when) => {
                    let after = when.saturating_duration_since(since);
                    all_in_time &= after <= BOUND;
                    parts.push(format!("{who} after {:.2} s", after.as_secs_f64()));
                }
                Err(late) => {
                    all_in_time = false;
                    parts.push(format!("{who} {late}"));
                }
            }
        }
        parts.sort();
        let found = parts.join(", ");
        Ok(self.journal.check(what, if all_in_time { Ok(found) } else { Err(found) })?)
    }
}

async fn collect(watchers: &mut JoinSet<Seen>) -> Result<Vec<Seen>, DemoError> {
    let mut seen = Vec::new();
    while let Some(watcher) = watchers.join_next().await {
        seen.push(watcher?);
    }
    Ok(seen)
}

/// The source to kill: one that sent since the event `before`, while the transfer is in its middle. Another than the
/// owner where there is one, because a network that survives the loss of a mere copy is the weaker claim only if the
/// owner were special, and a file whose owner is dead cannot be told about by its owner.
fn active_source(before: Option<&Transfer>, now: &Transfer, owner: &str) -> Option<String> {
    if !MIDDLE.contains(&(now.done_bytes * 100 / now.size_bytes.max(1))) {
        return None;
    }
    let sent_before = |name: &str| {
        before
            .and_then(|transfer| transfer.sources.iter().find(|source| source.name == name))
            .map_or(0, |source| source.bytes)
    };
    now.sources
        .iter()
        .filter(|source| source.fault.is_none() && source.bytes > sent_before(&source.name))
        .max_by_key(|source| (source.name != owner, source.bytes - sent_before(&source.name)))
        .map(|source| source.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quarta_node::api::model::{TransferSource, TransferState};

    fn transfer(done_bytes: u64, sources: &[(&str, u64, Option<&str>)]) -> Transfer {
        let source = |(name, bytes, fault): &(&str, u64, Option<&str>)| TransferSource {
            name: (*name).to_owned(),
            peer_id: String::new(),
            transport: Some("tcp".to_owned()),
            bytes: *bytes,
            busy_ms: 1,
            fault: fault.map(str::to_owned),
        };
        Transfer {
            id: 1,
            file: String::new(),
            name: String::new(),
            owner: "owner".to_owned(),
            revision: Some(1),
            notice: None,
            state: TransferState::Active,
            size_bytes: 1000,
            done_bytes,
            resumed_bytes: 0,
            bytes_per_second: 1.0,
            started_ms: 0,
            ended_ms: None,
            path: None,
            sha256: None,
            error: None,
            next_step: None,
            sources: sources.iter().map(source).collect(),
        }
    }

    #[test]
    fn a_source_is_killed_only_in_the_middle_of_a_transfer() {
        let at = |done| active_source(None, &transfer(done, &[("a", done, None)]), "owner");
        assert_eq!(at(50), None);
        assert_eq!(at(300).as_deref(), Some("a"));
        assert_eq!(at(900), None);
    }

    #[test]
    fn only_a_source_that_sends_just_now_is_killed_and_the_owner_last() {
        let before = transfer(200, &[("owner", 50, None), ("idle", 100, None), ("busy", 50, None)]);
        let now = transfer(400, &[("owner", 200, None), ("idle", 100, None), ("busy", 100, None)]);
        assert_eq!(active_source(Some(&before), &now, "owner").as_deref(), Some("busy"));
        let dropped = transfer(400, &[("owner", 200, None), ("busy", 100, Some("stalled"))]);
        assert_eq!(active_source(Some(&before), &dropped, "owner").as_deref(), Some("owner"));
        assert_eq!(active_source(Some(&now), &now, "owner"), None);
    }
}
