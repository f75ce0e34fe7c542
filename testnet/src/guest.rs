//! A member that lives in this process and says to a super-peer what a benchmark wants said.
//!
//! It joins with an invite and connects as any branch does, so whatever it says comes in through the same door. It keeps
//! no files; when it is polled it says that nothing has changed since it told what it holds.

use crate::cluster::ClusterError;
use futures::StreamExt;
use quarta_daemon::Role;
use quarta_daemon::data_dir::{Draft, Marker};
use quarta_daemon::identity::{Identity, Keys, load_superpeers};
use quarta_daemon::joining;
use quarta_daemon::reach::enrolment;
use quarta_protocols::cbor;
use quarta_protocols::credentials;
use quarta_protocols::ids::ContentId;
use quarta_protocols::limits::{INVENTORY_PAGE_ENTRIES, PAGE_FILL_BYTES};
use quarta_protocols::messages::admission::PeerAddresses;
use quarta_protocols::messages::index::{Index, Publication, Registered, Request, Response};
use quarta_protocols::messages::inventory::{Coverage, Item, Page, Position, Summary};
use quarta_protocols::messages::poll::{self, Load};
use quarta_protocols::names::MemberName;
use quarta_protocols::network::{AddressPolicy, Config, Event, Inbound, Network};
use quarta_protocols::records::SignedRecord;
use std::error::Error;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// How long its connection to a super-peer may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Records published in one request, as nodes do.
const PUBLISHED_TOGETHER: usize = 64;
/// Requests under way at once: the super-peer writes one while it reads the next.
const REQUESTS_AT_ONCE: usize = 4;

/// A member in this process; gone when dropped.
pub struct Guest {
    identity: Identity,
    network: Network,
    superpeer: libp2p::PeerId,
    /// Locked while it tells a list: polls wait for that.
    told: Arc<Mutex<Told>>,
}

/// What it has told of what it holds.
#[derive(Clone, Copy)]
struct Told {
    position: Position,
    summary: Summary,
}

/// A list of files that a member says it holds, in pages.
#[derive(Debug, Clone)]
pub struct List {
    pages: Vec<Vec<Item>>,
    summary: Summary,
}

impl List {
    /// Of these entries, in the order of their keys.
    pub fn of(items: impl IntoIterator<Item = Item>) -> Self {
        let mut list = Self { pages: Vec::new(), summary: Summary::default() };
        let mut filled_bytes = usize::MAX;
        for item in items {
            let item_bytes = cbor::to_vec(&item).len();
            filled_bytes = filled_bytes.saturating_add(item_bytes);
            let is_full = |page: &Vec<Item>| page.len() == INVENTORY_PAGE_ENTRIES;
            if filled_bytes > PAGE_FILL_BYTES || list.pages.last().is_none_or(is_full) {
                list.pages.push(Vec::new());
                filled_bytes = item_bytes;
            }
            list.summary.add(&item);
            if let Some(page) = list.pages.last_mut() {
                page.push(item);
            }
        }
        list
    }
}

impl Guest {
    /// Joins with `invite` under `name`, with a new data folder at `data`, and connects to the first super-peer it is
    /// told of.
    ///
    /// # Errors
    /// [`ClusterError::Refused`].
    pub async fn join(name: &str, data: &Path, invite: &str) -> Result<Self, ClusterError> {
        let (identity, superpeers) = become_member(name, data, invite).await?;
        let (network, mut events) = Network::start(config(&identity)).map_err(failed("start its network"))?;
        let position = Position { epoch: rand::random(), revision: 0 };
        let told = Arc::new(Mutex::new(Told { position, summary: Summary::default() }));
        let answering = told.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let Event::Request(Inbound::Poll(asked)) = event {
                    let (told, since) = if let Ok(told) = answering.try_lock() {
                        (*told, asked.request.since)
                    } else {
                        // Asked while a list was being told: since then nothing has changed.
                        let told = *answering.lock().await;
                        (told, Some(told.position))
                    };
                    asked.responder.respond(unchanged(told, since));
                }
            }
        });
        let superpeer =
            superpeers.into_iter().next().ok_or_else(|| unable("find a super-peer", "none is known"))?;
        let connecting = network.connect(superpeer.peer, superpeer.addresses);
        tokio::time::timeout(CONNECT_DEADLINE, connecting)
            .await
            .map_err(|_| unable("reach a super-peer", "it took too long"))?
            .map_err(failed("reach a super-peer"))?;
        Ok(Self { identity, network, superpeer: superpeer.peer, told })
    }

    /// Its keys, credential and network.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Says that it holds all of a list, and nothing else.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] with the first answer that does not take it.
    pub async fn hold(&self, list: &List) -> Result<(), ClusterError> {
        let mut told = self.told.lock().await;
        told.position.revision += 1;
        told.summary = list.summary;
        let position = told.position;
        let mut after = None;
        for (number, present) in list.pages.iter().enumerate() {
            let last = number + 1 == list.pages.len();
            let page = Page {
                coverage: Coverage::Full { after },
                position,
                last,
                present: present.clone(),
                gone: Vec::new(),
                summary: list.summary,
            };
            after = present.last().map(Item::key);
            let request = Request::Register { page, load: Load::default(), addresses: Vec::new() };
            let answer = self.network.call::<Index>(self.superpeer, request).await;
            match answer.map_err(failed("register its list"))? {
                Response::Registered(Registered::Continue) if !last => {}
                Response::Registered(Registered::At(at)) if last && at == position => {}
                other => return Err(unable("register its list", format!("the answer was {other:?}"))),
            }
        }
        Ok(())
    }

    /// Asks for sources of a content; how many were named.
    ///
    /// # Errors
    /// [`ClusterError::Refused`].
    pub async fn locate(&self, content: ContentId) -> Result<usize, ClusterError> {
        let request = Request::Locate { content, wanted_bytes: 1, except: Vec::new() };
        match self.network.call::<Index>(self.superpeer, request).await.map_err(failed("look for sources"))? {
            Response::Sources(sources) => Ok(sources.len()),
            other => Err(unable("look for sources", format!("the answer was {other:?}"))),
        }
    }

    /// Publishes records of its own; all of them must be stored.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] with the first answer that is another.
    pub async fn publish(&self, records: Vec<SignedRecord>) -> Result<(), ClusterError> {
        let pages: Vec<Vec<SignedRecord>> = records.chunks(PUBLISHED_TOGETHER).map(<[_]>::to_vec).collect();
        let mut answers = futures::stream::iter(pages)
            .map(|page| self.network.call::<Index>(self.superpeer, Request::Publish(page)))
            .buffer_unordered(REQUESTS_AT_ONCE);
        while let Some(answer) = answers.next().await {
            match answer.map_err(failed("publish records"))? {
                Response::Published(outcomes) if outcomes.iter().all(|it| *it == Publication::Stored) => {}
                other => return Err(unable("publish records", format!("the answer was {other:?}"))),
            }
        }
        Ok(())
    }
}

/// Makes a node's data folder at `data` and joins with `invite`; answers who it is now and where super-peers are.
pub(crate) async fn become_member(
    name: &str,
    data: &Path,
    invite: &str,
) -> Result<(Identity, Vec<PeerAddresses>), ClusterError> {
    become_member_as(credentials::Role::Node, name, data, invite).await
}

/// As [`become_member`], in any role.
pub(crate) async fn become_member_as(
    role: credentials::Role,
    name: &str,
    data: &Path,
    invite: &str,
) -> Result<(Identity, Vec<PeerAddresses>), ClusterError> {
    let name = MemberName::new(name).map_err(failed("take its name"))?;
    let invite = joining::read_invite(invite).map_err(failed("read its invite"))?;
    let mut draft = Draft::begin(data).map_err(failed("make its data folder"))?;
    let keys = Keys::load_or_create(draft.folder()).map_err(failed("make its keys"))?;
    let joined = joining::join(&mut draft, &keys, &invite, &name, role).await;
    let trust = joined.map_err(failed("join"))?;
    let marker_role = match role {
        credentials::Role::Node => Role::Node,
        credentials::Role::Superpeer => Role::Superpeer,
    };
    let marker = Marker { role: marker_role, network: trust.network.to_string(), name: name.to_string() };
    let data = draft.commit(marker).map_err(failed("make its data folder"))?;
    let identity = Identity::load(&data).map_err(failed("read its keys"))?;
    let superpeers = load_superpeers(data.folder()).map_err(failed("find a super-peer"))?;
    Ok((identity, superpeers))
}

/// How a member of this process takes part in the network: on this machine, under its own credential.
pub(crate) fn config(identity: &Identity) -> Config {
    config_as(credentials::Role::Node, identity)
}

/// As [`config`], in any role.
pub(crate) fn config_as(role: credentials::Role, identity: &Identity) -> Config {
    Config {
        addresses: AddressPolicy::ONE_MACHINE,
        enrolment: Some(enrolment(identity)),
        ..Config::new(identity.keys.identity.clone(), identity.trust.clone(), role, env!("CARGO_PKG_VERSION"))
    }
}

/// A whole list of these entries, in the order of their keys.
pub(crate) fn full_page(position: Position, present: Vec<Item>) -> Page {
    let mut summary = Summary::default();
    for item in &present {
        summary.add(item);
    }
    Page {
        coverage: Coverage::Full { after: None },
        position,
        last: true,
        present,
        gone: Vec::new(),
        summary,
    }
}

/// What a poll brings where nothing has changed since `since`; a super-peer that has something else, or nothing, is told
/// of an empty list, and hears of the true one when it is registered again.
fn unchanged(told: Told, since: Option<Position>) -> poll::Response {
    let page = match since {
        Some(since) if since == told.position => Page {
            coverage: Coverage::Since(since),
            position: told.position,
            last: true,
            present: Vec::new(),
            gone: Vec::new(),
            summary: told.summary,
        },
        _ => full_page(Position { epoch: told.position.epoch, revision: 0 }, Vec::new()),
    };
    poll::Response { page, load: Load::default(), addresses: Vec::new() }
}

pub(crate) fn failed<E: Error>(what: &'static str) -> impl FnOnce(E) -> ClusterError {
    move |error| unable(what, error)
}

pub(crate) fn unable(what: &'static str, why: impl Display) -> ClusterError {
    ClusterError::Refused {
        member: "a guest".to_owned(),
        what: format!("cannot {what}"),
        why: why.to_string(),
        next_step: "see the super-peer's log".to_owned(),
    }
}
