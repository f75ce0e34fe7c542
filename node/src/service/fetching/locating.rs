//! Who has a content: the own vault, and others as the super-peers know them, and where none answers by asking members directly.

use std::{collections::HashMap, sync::Arc, time::Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use libp2p::PeerId;
use quarta_protocols::{
    content::Geometry,
    credentials::Role,
    ids::ContentId,
    limits::SOURCES_MAX,
    messages::{
        chunk::Purpose,
        index::{ListedMember, Request, Response, Source},
    },
};

use super::{in_database, ports::Holders};
use crate::{
    download::{
        chunk_set::ChunkSet,
        fetch::ports::{Peers, Sources},
    },
    service::{Shared, wall_ms},
    whereabouts::{Candidate, Search, order},
};

/// The shares of all sources together.
const WEIGHTS: u32 = 1000;

/// Finds sources.
pub(in crate::service) struct Locating {
    pub(in crate::service) shared: Arc<Shared>,
    /// Asked early where no super-peer answers.
    pub(in crate::service) owner: Option<PeerId>,
    pub(in crate::service) content: ContentId,
    pub(in crate::service) size_bytes: u64,
}

impl Sources for Locating {
    async fn locate(&self, except: Vec<PeerId>) -> Vec<Source> {
        let own = self.own(&except);
        let others = self.others(except).await;
        own.into_iter().chain(others).take(SOURCES_MAX).collect()
    }
}

impl Locating {
    /// The own vault, where the content lies there. Its share is as large as all others' together: no line is as fast.
    fn own(&self, except: &[PeerId]) -> Option<Source> {
        let own = self.shared.own.membership();
        let there = self.shared.keeping.has(&self.content) && !except.contains(&own.peer);
        let name = own.name.clone();
        let source = Source { peer: own.peer, name, addresses: Vec::new(), weight: WEIGHTS, complete: true };
        there.then_some(source)
    }

    async fn others(&self, except: Vec<PeerId>) -> Vec<Source> {
        let (content, wanted_bytes) = (self.content, self.size_bytes);
        let request = Request::Locate { content, wanted_bytes, except: except.clone() };
        match self.shared.superpeers.ask(&self.shared, request).await {
            Ok(Response::Sources(sources)) => {
                self.remember(sources.iter().map(|source| source.peer).collect());
                sources
            }
            Ok(_) => Vec::new(),
            Err(error) => {
                tracing::info!(%error, "sources could not be located; members are asked directly");
                self.search(&except).await
            }
        }
    }

    /// Not waited for: sources are of use also when the next start does not know them.
    fn remember(&self, peers: Vec<PeerId>) {
        let (shared, content) = (self.shared.clone(), self.content);
        tokio::task::spawn_blocking(move || {
            let noting = shared.database.remember_sources(&content, &peers, wall_ms());
            if let Err(error) = shared.noted(noting) {
                tracing::error!(%error, "sources could not be noted");
            }
        });
    }

    async fn search(&self, except: &[PeerId]) -> Vec<Source> {
        let (reading, content) = (self.shared.clone(), self.content);
        let known = in_database(move || {
            let members = reading.database.members()?.into_iter().map(|known| known.listed);
            Ok((reading.database.sources(&content)?, members.collect::<Vec<ListedMember>>()))
        });
        let Ok((remembered, members)) = known.await else { return Vec::new() };
        let own = self.shared.identity.keys.peer();
        let askable = |member: &&ListedMember| {
            member.role == Role::Node && member.peer != own && !except.contains(&member.peer)
        };
        let candidates: Vec<Candidate> = members
            .iter()
            .filter(askable)
            .map(|member| Candidate {
                peer: member.peer,
                state: member.state,
                last_seen: member.last_seen.map(|seen| seen.0),
            })
            .collect();
        let by_peer: HashMap<PeerId, &ListedMember> =
            members.iter().map(|member| (member.peer, member)).collect();
        let mut search = Search::new(Instant::now(), order(&remembered, self.owner, &candidates));
        let (mut asking, mut found) = (FuturesUnordered::new(), Vec::new());
        loop {
            while let Some(member) = search.next_to_ask().and_then(|peer| by_peer.get(&peer)) {
                asking.push(self.ask(member));
            }
            if search.is_over() {
                break;
            }
            tokio::select! {
                Some(source) = asking.next() => {
                    search.answered(Instant::now(), source.is_some());
                    found.extend(source);
                }
                () = tokio::time::sleep_until(search.until().into()) => break,
            }
        }
        self.remember(found.iter().map(|source: &Source| source.peer).collect());
        let count = u32::try_from(found.len()).unwrap_or(u32::MAX).max(1);
        found.into_iter().map(|source: Source| Source { weight: WEIGHTS / count, ..source }).collect()
    }

    /// Asks one member what it has of the content; none where that is nothing, or it cannot be asked.
    async fn ask(&self, member: &ListedMember) -> Option<Source> {
        let holders =
            Holders { shared: self.shared.clone(), purpose: Purpose::Person, carried: Arc::default() };
        let source = Source {
            peer: member.peer,
            name: member.name.clone(),
            addresses: member.addresses.clone(),
            weight: 1,
            complete: false,
        };
        holders.connect(&source).await.ok()?;
        let bitmap = holders.availability(member.peer, self.content).await.ok()?;
        let chunks = Geometry::for_size(self.size_bytes).ok()?.chunks();
        let offered = ChunkSet::from_wire(&bitmap, chunks).ok()?;
        let complete = offered == ChunkSet::all(chunks);
        (offered != ChunkSet::none(chunks)).then_some(Source { complete, ..source })
    }
}
