//! Before this branch leaves: each of its files goes to a branch that may read it, by a draw.
//!
//! Nothing is lost silently. Which files nobody can have is found out before the first one is handed over; then, and
//! where a hand-over fails on the way, the branch stays, unless it was told to abandon what nobody takes. A file is done
//! with when its next owner has signed for it, so a departure that is broken off leaves every file with one owner, and the
//! next attempt goes on with the rest.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::stream::{self, StreamExt};
use libp2p::PeerId;
use quarta_protocols::{
    credentials::Role,
    ids::FileId,
    messages::index::{ListedMember, MemberState, Request, Response},
    names::MemberName,
    records::Record,
};

use super::{
    COPIES_AT_A_TIME, Shared,
    handing_over::{Manner, Progress, in_blocking},
    membership::LeaveError,
};
use crate::{
    database::DatabaseError,
    handover::draw::{Branch, candidates},
};

/// Files that are handed over at a time: those that have to be fetched first share this branch's line.
const PARTED_AT_ONCE: usize = 8;
/// How long a branch that was drawn may stand still before another one is drawn.
const PATIENCE: Duration = Duration::from_secs(20);
/// Files that are named where some would be lost.
const NAMED_MAX: usize = 5;

/// What became of the files of a branch that leaves.
#[derive(Debug, Default)]
pub(crate) struct Parted {
    /// How many files went to whom.
    pub(crate) new_owners: BTreeMap<MemberName, u64>,
    /// Files that nobody has taken.
    lost: HashSet<FileId>,
    /// The first few of them, with the reason.
    named: Vec<String>,
}

impl Parted {
    fn lose(&mut self, record: &Record, why: &str) {
        self.lost.insert(record.file());
        if self.named.len() < NAMED_MAX {
            let name = record.entry().map(|entry| entry.name.to_string()).unwrap_or_default();
            self.named.push(format!("{name} ({why})"));
        }
    }

    /// How many files have no owner any more.
    pub(crate) fn abandoned(&self) -> u64 {
        u64::try_from(self.lost.len()).unwrap_or(u64::MAX)
    }

    /// Stops where something would be lost that is not to be.
    fn check(&self, abandon: bool) -> Result<(), LeaveError> {
        if self.lost.is_empty() || abandon {
            return Ok(());
        }
        let mut named = self.named.clone();
        if self.lost.len() > named.len() {
            named.push("…".to_owned());
        }
        Err(LeaveError::Abandons { files: self.abandoned(), named: named.join(", ") })
    }
}

impl Shared {
    /// Hands every own file over, or says which would be lost. The caller has seen to it that none is taken over
    /// meanwhile.
    pub(super) async fn part_with_all(self: &Arc<Self>, abandon: bool) -> Result<Parted, LeaveError> {
        let mut parted = Parted::default();
        loop {
            let mut files = self.owned_files().await?;
            files.retain(|record| !parted.lost.contains(&record.file()));
            if files.is_empty() {
                return Ok(parted);
            }
            // Without a super-peer nobody hears of the departure either, and nothing is begun.
            let members = self.superpeers.members(self).await;
            let reachable = members.is_ok();
            let members = Arc::new(members.unwrap_or_default());
            let looking = files.into_iter().map(|record| {
                let members = members.clone();
                async move {
                    let branches = self.branches(&record, &members).await;
                    (record, branches)
                }
            });
            let looked: Vec<_> = stream::iter(looking).buffer_unordered(PARTED_AT_ONCE).collect().await;
            let mut plans = Vec::with_capacity(looked.len());
            for (record, branches) in looked {
                let place = u32::try_from(record.links().len()).unwrap_or(u32::MAX);
                if candidates(&record.file(), place, &branches, &[]).is_empty() {
                    let nobody = "no other branch that may read it is online";
                    let why = if reachable { nobody } else { "no super-peer is reachable" };
                    parted.lose(&record, why);
                } else {
                    plans.push((record, branches));
                }
            }
            parted.check(abandon)?;
            let names: HashMap<PeerId, MemberName> =
                members.iter().map(|member| (member.peer, member.name.clone())).collect();
            let parting = plans.into_iter().map(|(record, branches)| async move {
                let outcome = self.part_with(&record, &branches).await;
                (record, outcome)
            });
            let mut parting = stream::iter(parting).buffer_unordered(PARTED_AT_ONCE);
            while let Some((record, outcome)) = parting.next().await {
                match outcome {
                    Ok(to) => {
                        if let Some(name) = to.and_then(|to| names.get(&to)) {
                            *parted.new_owners.entry(name.clone()).or_default() += 1;
                        }
                    }
                    Err(why) => parted.lose(&record, &why),
                }
            }
            parted.check(abandon)?;
        }
    }

    /// The latest records of the files that this branch owns.
    async fn owned_files(self: &Arc<Self>) -> Result<Vec<Record>, LeaveError> {
        let shared = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let (owner, trust) = (shared.identity.keys.peer(), &shared.identity.trust);
            let (mut owned, mut after) = (Vec::new(), None);
            loop {
                let files = shared.database.owned_by(&owner, after.as_ref(), COPIES_AT_A_TIME)?;
                let Some(last) = files.last() else { return Ok(owned) };
                after = Some(*last);
                for file in files {
                    let signed = shared.database.record(&file)?;
                    owned.extend(signed.and_then(|signed| Record::verify(signed, trust).ok()));
                }
            }
        });
        // Never taken for "none", or all would be lost.
        reading.await.unwrap_or(Err(LeaveError::Database(DatabaseError::Damaged("the list of own files"))))
    }

    /// The other branches, as a draw of this file sees them.
    async fn branches(self: &Arc<Self>, record: &Record, members: &[ListedMember]) -> Vec<Branch> {
        let Some(entry) = record.entry() else { return Vec::new() };
        // Nothing is fetched by this: nobody is to be kept free for it.
        let request = Request::Locate { content: entry.content, wanted_bytes: 0, except: Vec::new() };
        let holders: HashSet<PeerId> = match self.superpeers.ask(self, request).await {
            Ok(Response::Sources(sources)) => {
                sources.iter().filter(|source| source.complete).map(|source| source.peer).collect()
            }
            Ok(_) | Err(_) => HashSet::new(),
        };
        let me = self.identity.keys.peer();
        let (reading, asked) = (self.clone(), record.clone());
        // An own list that cannot be read is one that nobody is known to be allowed by.
        let Ok(rule) = in_blocking(move || reading.readers_rule(&asked)).await else { return Vec::new() };
        let others = members.iter().filter(|member| member.role == Role::Node && member.peer != me);
        others
            .map(|member| Branch {
                peer: member.peer,
                online: member.state == MemberState::Online,
                holds: holders.contains(&member.peer),
                may_read: rule.as_ref().is_none_or(|rule| rule.permits(&member.peer)),
            })
            .collect()
    }

    /// Hands one file over to whoever is drawn; to the next where that one does not take it. Gives the new owner, none
    /// where the file was this branch's no more, or why the last one did not take it.
    async fn part_with(
        self: &Arc<Self>,
        record: &Record,
        branches: &[Branch],
    ) -> Result<Option<PeerId>, String> {
        let (file, mut except) = (record.file(), Vec::new());
        let mut why = "no other branch that may read it is online".to_owned();
        // Somebody may have it half-way already.
        if let Some((to, progress)) = self.offer_under_way(&file) {
            let waited = tokio::time::timeout(PATIENCE, ended(progress)).await;
            match waited.unwrap_or(Progress::Stalled) {
                Progress::Done => return Ok(Some(to)),
                other => why = words(&other),
            }
            except.push(to);
        }
        let place = u32::try_from(record.links().len()).unwrap_or(u32::MAX);
        loop {
            let listed = candidates(&file, place, branches, &except);
            let Some(drawn) = listed.first().copied() else { return Err(why) };
            let begun = {
                let _changing = self.handovers.changing.lock().await;
                let begun =
                    self.begin_offer(record.clone(), drawn, listed, Manner::Departure(PATIENCE)).await;
                begun.map_err(|error| error.to_string())?
            };
            // It was deleted, or somebody who had been offered it before has taken it meanwhile.
            let Some(begun) = begun else { return Ok(None) };
            match ended(begun).await {
                Progress::Done => return Ok(Some(drawn)),
                other => why = words(&other),
            }
            except.push(drawn);
        }
    }
}

/// How an offer ended.
async fn ended(mut progress: tokio::sync::watch::Receiver<Progress>) -> Progress {
    match progress.wait_for(Progress::has_ended).await {
        Ok(ended) => ended.clone(),
        Err(_) => Progress::Cancelled,
    }
}

fn words(progress: &Progress) -> String {
    match progress {
        Progress::Refused(refusal) => refusal.to_string(),
        Progress::Failed(why) => why.clone(),
        Progress::Gone => "that branch is a member no more".to_owned(),
        Progress::Asking { .. } | Progress::Done | Progress::Stalled | Progress::Cancelled => {
            "the branch that was drawn did not take it in time".to_owned()
        }
    }
}
