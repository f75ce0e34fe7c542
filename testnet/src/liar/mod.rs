//! A member that holds what it says and does not serve it as it should.
//!
//! It joins with an invite as any branch does, tells super-peers a list that they cannot tell from a true one, and
//! answers their polls. Fetchers are led to its other half (`wire`), which has the same identity and writes its answers
//! byte by byte as its [`Lie`] wants them, below everything that Quarta's own network layer would keep it from.
//!
//! It lives in the process that started it: what is tested are the others.

mod goods;
mod lie;
mod wire;

pub use lie::Lie;

use crate::cluster::ClusterError;
use crate::guest::{become_member, config, full_page};
use goods::Goods;
use libp2p::Multiaddr;
use quarta_daemon::identity::Identity;
use quarta_daemon::reach::enrolment;
use quarta_protocols::ids::ContentId;
use quarta_protocols::messages::index::{Index, Registered, Request, Response};
use quarta_protocols::messages::inventory::{Completeness, Item, Page, Position};
use quarta_protocols::messages::poll::{self, Load};
use quarta_protocols::network::{CallError, ConnectError, Event, Inbound, Network, StartError};
use quarta_protocols::records::{Access, Record, RecordError, SignedRecord};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use wire::Counter;

/// How long its connection to a super-peer may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// What it says it can send, in bytes a second: so much that fetchers are sent to it before all others.
const CLAIMED_RATE: u64 = 1 << 30;

/// Why a liar cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum LiarError {
    /// It could not become a member.
    #[error(transparent)]
    Join(#[from] ClusterError),
    /// Its network could not be set up.
    #[error("the liar cannot be set up: {0}")]
    Setup(String),
    /// Its network could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No super-peer answered.
    #[error("no super-peer was reached: {0}")]
    NotReached(String),
    /// A super-peer did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A super-peer could not be connected.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A record is not valid, or the bytes are not those of its content.
    #[error("the file cannot be claimed: {0}")]
    Record(String),
    /// A super-peer did not take its list.
    #[error("the super-peer answered {0}")]
    Unregistered(String),
}

impl From<RecordError> for LiarError {
    fn from(error: RecordError) -> Self {
        Self::Record(error.to_string())
    }
}

/// A lying member. It is gone when this is dropped.
pub struct Liar {
    lie: Lie,
    identity: Identity,
    network: Network,
    superpeer: libp2p::PeerId,
    address: Multiaddr,
    counter: Arc<Counter>,
    claims: Arc<Mutex<Claims>>,
    tasks: Vec<AbortHandle>,
}

/// What it says it holds.
#[derive(Debug)]
struct Claims {
    items: Vec<Item>,
    position: Position,
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Liar {
    /// Joins with `invite` under the lie's own name, with a data folder at `data`, and connects to a super-peer.
    ///
    /// # Errors
    /// [`LiarError`].
    pub async fn join(lie: Lie, data: &Path, invite: &str) -> Result<Self, LiarError> {
        let (identity, superpeers) = become_member(&lie.member_name(), data, invite).await?;
        let counter = Counter::new(lie);
        let (address, serving) = wire::serve(
            identity.keys.identity.clone(),
            enrolment(&identity),
            &identity.trust.network,
            counter.clone(),
        )
        .await?;
        let (network, events) = Network::start(config(&identity))?;
        let position = Position { epoch: rand::random(), revision: 0 };
        let claims = Arc::new(Mutex::new(Claims { items: Vec::new(), position }));
        let polled = tokio::spawn(answer_polls(events, claims.clone(), address.clone())).abort_handle();
        let Some(superpeer) = superpeers.into_iter().next() else {
            return Err(LiarError::NotReached("none is known".to_owned()));
        };
        let liar = Self {
            lie,
            identity,
            network,
            superpeer: superpeer.peer,
            address,
            counter,
            claims,
            tasks: vec![serving, polled],
        };
        tokio::time::timeout(CONNECT_DEADLINE, liar.network.connect(superpeer.peer, superpeer.addresses))
            .await
            .map_err(|_| LiarError::NotReached("it took too long".to_owned()))??;
        Ok(liar)
    }

    /// What it does.
    pub const fn lie(&self) -> Lie {
        self.lie
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.identity.membership.name.as_str()
    }

    /// Its connected network, for saying what no honest member would.
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// Its identity, for signing what no honest member would.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The super-peer it is connected to.
    pub const fn superpeer(&self) -> libp2p::PeerId {
        self.superpeer
    }

    /// Tells its super-peer that it holds a file, of which it knows the bytes. Answers the file's content.
    ///
    /// # Errors
    /// [`LiarError`].
    pub async fn claim(&self, file: &str, plain: &[u8]) -> Result<ContentId, LiarError> {
        let request = Request::Resolve { reference: file.to_owned() };
        let record = match self.network.call::<Index>(self.superpeer, request).await? {
            Response::Files { files, .. } => files.into_iter().next().map(|listed| listed.record),
            other => return Err(LiarError::Unregistered(format!("{other:?}"))),
        };
        let record = record.ok_or_else(|| LiarError::Record("no such file".to_owned()))?;
        self.claim_record(record, plain).await
    }

    async fn claim_record(&self, record: SignedRecord, plain: &[u8]) -> Result<ContentId, LiarError> {
        let record = Record::verify(record, &self.identity.trust)?;
        let entry = record.entry().ok_or_else(|| LiarError::Record("it is deleted".to_owned()))?;
        let Access::Open { key, sha256, .. } = &entry.access else {
            return Err(LiarError::Record("it is restricted".to_owned()));
        };
        let goods = Goods::seal(plain, key).filter(|goods| goods.content() == entry.content);
        let goods = goods.ok_or_else(|| LiarError::Record("these are not its bytes".to_owned()))?;
        let chunks = u32::try_from(goods.chunks.len()).unwrap_or(u32::MAX);
        self.counter.stock(goods);
        let completeness =
            if self.lie.is_about_offers() { Completeness::Partial(chunks) } else { Completeness::Complete };
        let item = Item::Library {
            file: record.file(),
            name: entry.name.clone(),
            size_bytes: entry.size_bytes,
            sha256: Some(*sha256),
            content: entry.content,
            completeness,
        };
        self.claims().add(item);
        self.register().await?;
        Ok(entry.content)
    }

    /// When it first lied about a content; none where it was not asked for what it lies about.
    pub fn first_lie(&self, content: &ContentId) -> Option<Instant> {
        self.counter.first_lie(content)
    }

    async fn register(&self) -> Result<(), LiarError> {
        let page = self.claims().page();
        let request = Request::Register { page, load: load(), addresses: vec![self.address.clone()] };
        match self.network.call::<Index>(self.superpeer, request).await? {
            Response::Registered(Registered::At(_)) => Ok(()),
            other => Err(LiarError::Unregistered(format!("{other:?}"))),
        }
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claims {
    fn add(&mut self, item: Item) {
        self.items.push(item);
        self.items.sort_by_key(Item::key);
        self.position.revision += 1;
    }

    /// All of it.
    fn page(&self) -> Page {
        full_page(self.position, self.items.clone())
    }
}

/// Idle, and faster than anybody.
fn load() -> Load {
    Load {
        upload_slots: 64,
        upload_capacity_bytes_per_second: Some(CLAIMED_RATE),
        free_bytes: 1 << 40,
        ..Load::default()
    }
}

/// Answers super-peers as an honest node would.
async fn answer_polls(mut events: mpsc::Receiver<Event>, claims: Arc<Mutex<Claims>>, address: Multiaddr) {
    while let Some(event) = events.recv().await {
        if let Event::Request(Inbound::Poll(asked)) = event {
            let page = claims.lock().unwrap_or_else(PoisonError::into_inner).page();
            let response = poll::Response { page, load: load(), addresses: vec![address.clone()] };
            asked.responder.respond(response);
        }
    }
}
