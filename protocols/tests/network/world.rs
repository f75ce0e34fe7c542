//! A network of members in one process, over loopback sockets.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use libp2p::{Multiaddr, PeerId, identity::Keypair};
use quarta_protocols::{
    credentials::{Credential, Grant, Role, Trust, UnixSeconds},
    keys::SealingSecret,
    members::Enrolment,
    messages::{admission, index, poll},
    names::MemberName,
    network::{AddressPolicy, Config, Event, Inbound, Network, Pings},
};
use tokio::sync::mpsc;

/// Longest that anything here may take.
pub(crate) const SOON: Duration = Duration::from_secs(8);

/// A network's root, its first super-peer's key, and who they vouch for.
pub(crate) struct World {
    root: Keypair,
    superpeer: Keypair,
    superpeer_credential: Credential,
    pub(crate) trust: Trust,
}

/// A running member.
pub(crate) struct Member {
    pub(crate) network: Network,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) peer: PeerId,
}

/// What carries a test's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Tcp,
    Quic,
}

pub(crate) const BOTH: [Over; 2] = [Over::Tcp, Over::Quic];

impl Over {
    fn anywhere(self) -> Multiaddr {
        match self {
            Self::Tcp => "/ip4/127.0.0.1/tcp/0",
            Self::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
        }
        .parse()
        .unwrap()
    }
}

fn grant<'a>(key: &Keypair, name: &'a MemberName, role: Role, now: UnixSeconds) -> Grant<'a> {
    Grant { peer: key.public().to_peer_id(), name, role, now, token_id: [7; 16] }
}

impl World {
    pub(crate) fn new() -> Self {
        let (root, superpeer) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        let trust = Trust::in_root(root.public().try_into_ed25519().unwrap());
        let name = MemberName::new("sp1").unwrap();
        // Since long enough to have issued what has expired by now.
        let since = UnixSeconds(UnixSeconds::now().0 - 60 * 24 * 3600);
        let superpeer_grant = grant(&superpeer, &name, Role::Superpeer, since);
        let superpeer_credential = Credential::issue_by_root(&root, &trust.network, &superpeer_grant);
        Self { root, superpeer, superpeer_credential, trust }
    }

    /// An enrolment for `key`, valid from `now`.
    pub(crate) fn enrol(&self, key: &Keypair, role: Role, now: UnixSeconds) -> Enrolment {
        let name = MemberName::new("branch").unwrap();
        let grant = grant(key, &name, role, now);
        let credential = match role {
            Role::Superpeer => Credential::issue_by_root(&self.root, &self.trust.network, &grant),
            Role::Node => Credential::issue_by_superpeer(
                &self.superpeer,
                &self.superpeer_credential,
                &self.trust.network,
                &grant,
            ),
        };
        let sealing_key = SealingSecret::generate().statement(&self.trust.network, key);
        Enrolment { peer: key.public().to_peer_id(), credential, sealing_key }
    }

    /// Who issues nodes' credentials.
    pub(crate) fn issuer(&self) -> PeerId {
        self.superpeer.public().to_peer_id()
    }

    /// A node's enrolment for `key` that a further super-peer issued.
    pub(crate) fn issued_by_another(&self, superpeer: &Keypair, key: &Keypair) -> Enrolment {
        let own = self.enrol(superpeer, Role::Superpeer, UnixSeconds::now());
        self.issued_by(superpeer, &own.credential, key)
    }

    /// An enrolment for `key` that a node issued, as if it might.
    pub(crate) fn issued_by_a_node(&self, key: &Keypair) -> Enrolment {
        let node = Keypair::generate_ed25519();
        let own = self.enrol(&node, Role::Node, UnixSeconds::now());
        self.issued_by(&node, &own.credential, key)
    }

    fn issued_by(&self, issuer: &Keypair, own: &Credential, key: &Keypair) -> Enrolment {
        let name = MemberName::new("branch").unwrap();
        let grant = grant(key, &name, Role::Node, UnixSeconds::now());
        let credential = Credential::issue_by_superpeer(issuer, own, &self.trust.network, &grant);
        Enrolment { credential, ..self.enrol(key, Role::Node, grant.now) }
    }

    /// A member with a good credential.
    pub(crate) async fn member(&self, role: Role, over: Over) -> Member {
        let key = Keypair::generate_ed25519();
        let enrolment = self.enrol(&key, role, UnixSeconds::now());
        self.start(key, role, Some(enrolment), over).await
    }

    /// A member with whatever credential.
    pub(crate) async fn start(
        &self,
        key: Keypair,
        role: Role,
        enrolment: Option<Enrolment>,
        over: Over,
    ) -> Member {
        self.start_with(key, role, enrolment, over, Pings::default()).await
    }

    pub(crate) async fn start_with(
        &self,
        key: Keypair,
        role: Role,
        enrolment: Option<Enrolment>,
        over: Over,
        pings: Pings,
    ) -> Member {
        let peer = key.public().to_peer_id();
        let mut config = Config::new(key, self.trust.clone(), role, "0.1.0");
        config.enrolment = enrolment;
        config.addresses = AddressPolicy::ONE_MACHINE;
        config.listen = vec![over.anywhere()];
        config.pings = pings;
        let (network, mut events) = Network::start(config).unwrap();
        let Some(Event::Listening(_)) = within(events.recv()).await else { panic!("it does not listen") };
        Member { network, events, peer }
    }
}

impl Member {
    pub(crate) async fn addresses(&self) -> Vec<Multiaddr> {
        self.network.listen_addresses().await
    }

    /// Waits for the first event that `wanted` makes something of.
    pub(crate) async fn until<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        within(async {
            loop {
                let event = self.events.recv().await.expect("the network ended");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        })
        .await
    }

    pub(crate) async fn until_admitted(&mut self, peer: PeerId) {
        self.until(|event| match event {
            Event::Admitted { admitted, .. } if admitted.peer == peer => Some(()),
            _ => None,
        })
        .await;
    }

    pub(crate) async fn until_departed(&mut self, peer: PeerId) {
        self.until(|event| matches!(event, Event::Departed { peer: who } if who == peer).then_some(())).await;
    }

    /// Answers everything it is asked in the simplest way, and gives what protocols it was asked on.
    pub(crate) fn answer_all(mut self) -> (Network, Arc<Mutex<Vec<&'static str>>>) {
        let log = Arc::new(Mutex::new(Vec::new()));
        let (network, writing) = (self.network.clone(), log.clone());
        tokio::spawn(async move {
            while let Some(event) = self.events.recv().await {
                let Event::Request(inbound) = event else { continue };
                let what = match inbound {
                    Inbound::Admission(asked) => {
                        asked.responder.respond(admission::Response::Superpeers(Vec::new()));
                        "admission"
                    }
                    Inbound::Index(asked) => {
                        asked.responder.respond(index::Response::Noted);
                        "index"
                    }
                    Inbound::Changes(_) => "changes",
                    Inbound::Poll(_) => "poll",
                    Inbound::Sync(_) => "sync",
                    Inbound::Vault(_) => "vault",
                    Inbound::Handover(_) => "handover",
                    Inbound::Chunk(_) => "chunk",
                };
                writing.lock().unwrap().push(what);
            }
        });
        (network, log)
    }
}

/// A small question for the index.
pub(crate) fn search() -> index::Request {
    index::Request::Search { query: String::new(), owner: None, after: None, limit: 1 }
}

pub(crate) const POLL: poll::Request = poll::Request { since: None, after: None, interval_ms: 1000 };

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it took too long")
}
