//! One value of each format, made from fixed keys, times and numbers.

use libp2p::{Multiaddr, PeerId, identity::Keypair};
use quarta_protocols::{
    audit::{Action, EVENT_MAX_BYTES, Event},
    cbor,
    clock::HybridTime,
    content::{ContentKey, Geometry, Manifest, chunk_hash},
    credentials::{Credential, Grant, Role, Trust, UnixSeconds},
    endings::{Departure, ENDING_MAX_BYTES, RevocationNotice},
    ids::{AudienceId, ContentId, FileId, RecordHash, Sha256},
    invites::{self, Invite},
    keys::{SealingKey, SealingSecret},
    members::{ENROLMENT_MAX_BYTES, Enrolment},
    messages::{
        admission::{self, Admission, PeerAddresses},
        changes::{self, Changes},
        chunk,
        handover::Handover,
        index::{
            self, Cursor, Fault, Index, ListedFile, ListedMember, MemberState, Publication, Registered,
            Source, SourceOutcome,
        },
        inventory::{Completeness, Coverage, Item, Key, Page, Position, Summary},
        poll::{self, Load, Poll},
        sync::{self, Digest, Kind, Place, Stamp, Sync},
        vault::Vault,
    },
    names::{FileName, MemberName},
    records::{Access, Body, Entry, Link, Origin, Precedence, RECORD_MAX_BYTES, Record, SignedRecord, State},
    rpc::Protocol,
    signing::{Signed, Statement},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::{ByteArray, ByteBuf};

use crate::sharing::sharing;

/// What a receiver does with bytes: decodes, verifies what can be verified, and encodes again.
type Again = fn(&[u8]) -> Result<Vec<u8>, String>;

/// A value in its encoded form.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) again: Again,
    /// Whether it is CBOR, whose structs may get fields.
    pub(crate) cbor: bool,
}

/// The decoders of every kind of request.
pub(crate) const REQUEST_DECODERS: [Again; 8] = [
    request::<Admission>,
    request::<Index>,
    request::<Changes>,
    request::<Poll>,
    request::<Sync>,
    request::<Vault>,
    request::<Handover>,
    within::<chunk::Request, { chunk::MAX_REQUEST_BYTES }>,
];

const NOW: UnixSeconds = UnixSeconds(1_790_000_000);

fn within<T: Serialize + DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<Vec<u8>, String> {
    cbor::from_slice_within::<T>(bytes, LIMIT).map(|value| cbor::to_vec(&value)).map_err(|e| e.to_string())
}

fn request<P: Protocol>(bytes: &[u8]) -> Result<Vec<u8>, String> {
    cbor::from_slice_within::<P::Request>(bytes, P::MAX_REQUEST_BYTES)
        .map(|value| cbor::to_vec(&value))
        .map_err(|e| e.to_string())
}

fn response<P: Protocol>(bytes: &[u8]) -> Result<Vec<u8>, String> {
    cbor::from_slice_within::<P::Response>(bytes, P::MAX_RESPONSE_BYTES)
        .map(|value| cbor::to_vec(&value))
        .map_err(|e| e.to_string())
}

pub(crate) fn statement<S: Statement>(bytes: &[u8]) -> Result<Vec<u8>, String> {
    cbor::from_slice_within::<S>(bytes, S::MAX_BYTES)
        .map(|value| cbor::to_vec(&value))
        .map_err(|e| e.to_string())
}

fn record(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let signed: SignedRecord =
        cbor::from_slice_within(bytes, 2 * RECORD_MAX_BYTES).map_err(|e| e.to_string())?;
    let record = Record::verify(signed, &World::new().trust).map_err(|e| e.to_string())?;
    Ok(cbor::to_vec(record.signed()))
}

fn enrolment(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let enrolment: Enrolment =
        cbor::from_slice_within(bytes, ENROLMENT_MAX_BYTES).map_err(|e| e.to_string())?;
    let enrolled = enrolment.verify(&World::new().trust).map_err(|e| e.to_string())?;
    Ok(cbor::to_vec(enrolled.enrolment()))
}

fn manifest(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let id = blake3::derive_key("quarta 2026 content id v1", bytes);
    let manifest = Manifest::verify(bytes, &ContentId::from_bytes(id)).map_err(|e| e.to_string())?;
    Ok(manifest.to_bytes())
}

fn invite(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let text = String::from_utf8_lossy(bytes);
    Invite::parse(&text).map(|invite| invite.to_text().into_bytes()).map_err(|e| e.to_string())
}

fn abort(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let [code] = bytes else { return Err("one byte is a code".to_owned()) };
    Ok(vec![chunk::Abort::from_code(*code).code()])
}

#[expect(clippy::unnecessary_wraps, reason = "one form for all")]
pub(crate) fn verbatim(bytes: &[u8]) -> Result<Vec<u8>, String> {
    Ok(bytes.to_vec())
}

/// A network with a root, a super-peer and two nodes.
pub(crate) struct World {
    pub(crate) root: Keypair,
    pub(crate) superpeer: Keypair,
    pub(crate) node: Keypair,
    pub(crate) other: Keypair,
    pub(crate) trust: Trust,
}

fn keypair(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

pub(crate) fn peer(key: &Keypair) -> PeerId {
    key.public().to_peer_id()
}

pub(crate) fn name(text: &str) -> MemberName {
    MemberName::new(text).unwrap()
}

fn file_name() -> FileName {
    FileName::new("relatórios/2026.csv").unwrap()
}

fn addresses() -> Vec<Multiaddr> {
    ["/ip4/192.0.2.7/tcp/7481", "/dns4/filial.example/udp/7481/quic-v1"].map(|a| a.parse().unwrap()).to_vec()
}

pub(crate) fn file() -> FileId {
    FileId::from_bytes([0xf1; 32])
}

pub(crate) fn content() -> ContentId {
    ContentId::from_bytes([0xc0; 32])
}

pub(crate) fn sha256() -> Sha256 {
    Sha256::from_bytes([0x5a; 32])
}

fn position() -> Position {
    Position { epoch: 0x0123_4567_89ab_cdef, revision: 300 }
}

impl World {
    pub(crate) fn new() -> Self {
        let root = keypair(1);
        let trust = Trust::in_root(root.public().try_into_ed25519().unwrap());
        Self { root, superpeer: keypair(2), node: keypair(3), other: keypair(4), trust }
    }

    fn superpeer_credential(&self) -> Credential {
        let grant = Grant {
            peer: peer(&self.superpeer),
            name: &name("sp1"),
            role: Role::Superpeer,
            now: NOW,
            token_id: [5; 16],
        };
        Credential::issue_by_root(&self.root, &self.trust.network, &grant)
    }

    fn node_credential(&self) -> Credential {
        let grant = Grant {
            peer: peer(&self.node),
            name: &name("filial-recife"),
            role: Role::Node,
            now: NOW,
            token_id: [6; 16],
        };
        let own = self.superpeer_credential();
        Credential::issue_by_superpeer(&self.superpeer, &own, &self.trust.network, &grant)
    }

    fn sealing_key(&self, member: &Keypair) -> Signed<SealingKey> {
        SealingSecret::from_bytes([8; 32]).statement(&self.trust.network, member)
    }

    fn superpeers(&self) -> Vec<PeerAddresses> {
        vec![PeerAddresses { peer: peer(&self.superpeer), addresses: addresses() }]
    }

    pub(crate) fn body(&self, state: State) -> Body {
        let origin = Origin { owner: peer(&self.node), nonce: ByteArray::new([9; 16]) };
        let file = origin.file_id(&self.trust.network);
        Body { file, origin, links: Vec::new(), revision: 1, state }
    }

    pub(crate) fn link(&self, by_root: bool) -> Link {
        let candidates = if by_root { vec![peer(&self.superpeer), peer(&self.other)] } else { Vec::new() };
        Link {
            file: self.body(State::Deleted).file,
            place: 0,
            from: peer(&self.node),
            to: peer(&self.other),
            previous: None,
            by_root,
            candidates,
        }
    }

    pub(crate) fn handed_over(&self) -> SignedRecord {
        let links = vec![Signed::new(&self.link(true), &self.trust.network, &self.root)];
        self.signed(&Body { links, revision: 2, ..self.body(State::Deleted) }, &self.other)
    }

    pub(crate) fn signed(&self, body: &Body, owner: &Keypair) -> SignedRecord {
        Record::sign(body, &self.trust, owner).unwrap().signed().clone()
    }

    fn departure(&self) -> Signed<Departure> {
        Signed::new(&Departure { member: peer(&self.node) }, &self.trust.network, &self.node)
    }

    fn revocations(&self) -> [RevocationNotice; 2] {
        let credential = self.superpeer_credential();
        [
            RevocationNotice::by_root(peer(&self.node), &self.root, &self.trust),
            RevocationNotice::by_superpeer(peer(&self.node), &self.superpeer, credential, &self.trust),
        ]
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            superpeer: peer(&self.superpeer),
            payload: RecordHash::from_bytes([0x4a; 32]),
            time: HybridTime { millis: 1_790_000_000_123, counter: 2 },
        }
    }

    fn entry(&self, kind: Kind) -> sync::Entry {
        sync::Entry {
            kind,
            id: ByteArray::new([0x1d; 32]),
            payload: ByteBuf::from(vec![1, 2, 3]),
            stamp: Signed::new(&self.stamp(), &self.trust.network, &self.superpeer),
        }
    }
}

/// The plaintext, key and manifest of a small file.
fn sealed() -> (Vec<u8>, ContentKey, Manifest) {
    let key = ContentKey::from_bytes([0xee; 32]);
    let mut chunk = b"quarta".to_vec();
    let geometry = Geometry::for_size(chunk.len() as u64).unwrap();
    key.cipher().seal(0, &mut chunk);
    let manifest = Manifest::new(geometry, vec![chunk_hash(&chunk)]).unwrap();
    (chunk, key, manifest)
}

pub(crate) fn open_entry() -> Entry {
    let (_, key, manifest) = sealed();
    Entry {
        name: file_name(),
        size_bytes: 6,
        content: manifest.id(),
        manifest: Some(ByteBuf::from(manifest.to_bytes())),
        access: Access::Open { key, sha256: sha256(), media_type: Some("text/csv".to_owned()) },
    }
}

pub(crate) fn restricted_entry() -> Entry {
    Entry {
        name: file_name(),
        size_bytes: 5_000_000_000,
        content: content(),
        manifest: None,
        access: Access::Restricted {
            audience: AudienceId::from_bytes([0xad; 32]),
            epoch: 4,
            sealed: ByteBuf::from(vec![0x5e; 24]),
        },
    }
}

fn library_item(completeness: Completeness) -> Item {
    Item::Library {
        file: file(),
        name: file_name(),
        size_bytes: 6,
        sha256: Some(sha256()),
        content: content(),
        completeness,
    }
}

fn vault_item() -> Item {
    Item::Vault { content: content(), size_bytes: 5_000_000_000, completeness: Completeness::Partial(70_000) }
}

fn summary() -> Summary {
    let mut summary = Summary::default();
    summary.add(&library_item(Completeness::Complete));
    summary.add(&vault_item());
    summary
}

fn full_page() -> Page {
    Page {
        coverage: Coverage::Full { after: Some(Key::Library(file())) },
        position: position(),
        last: true,
        present: vec![library_item(Completeness::Complete), vault_item()],
        gone: Vec::new(),
        summary: summary(),
    }
}

fn first_page() -> Page {
    let coverage = Coverage::Full { after: None };
    Page { coverage, last: false, present: Vec::new(), summary: Summary::default(), ..full_page() }
}

fn delta_page() -> Page {
    Page {
        coverage: Coverage::Since(Position { revision: 299, ..position() }),
        position: position(),
        last: true,
        present: vec![library_item(Completeness::Partial(1))],
        gone: vec![Key::Library(file()), Key::Vault(content())],
        summary: summary(),
    }
}

fn load() -> Load {
    Load {
        active_uploads: 1,
        upload_slots: 16,
        active_downloads: 2,
        upload_capacity_bytes_per_second: Some(12_500_000),
        upload_rate_bytes_per_second: 1_000_000,
        free_bytes: 1 << 40,
        stored_bytes: 1 << 33,
        served_bytes: 12_345,
    }
}

fn cursor() -> Cursor {
    Cursor { name: file_name(), file: file() }
}

/// Every case, in the order of the modules that define them.
pub(crate) fn cases() -> Vec<Case> {
    let world = World::new();
    let mut cases = Cases::default();
    names(&mut cases, &world);
    statements(&mut cases, &world);
    membership(&mut cases, &world);
    contents(&mut cases);
    admission(&mut cases, &world);
    index_requests(&mut cases, &world);
    index_responses(&mut cases, &world);
    polls(&mut cases);
    changes(&mut cases, &world);
    endings(&mut cases, &world);
    synchronisation(&mut cases, &world);
    chunks(&mut cases);
    sharing(&mut cases, &world);
    cases.0
}

#[derive(Default)]
pub(crate) struct Cases(Vec<Case>);

impl Cases {
    pub(crate) fn cbor<T: Serialize + ?Sized>(&mut self, name: &str, value: &T, again: Again) {
        self.0.push(Case { name: name.to_owned(), bytes: cbor::to_vec(value), again, cbor: true });
    }

    pub(crate) fn raw(&mut self, name: &str, bytes: impl Into<Vec<u8>>, again: Again) {
        self.0.push(Case { name: name.to_owned(), bytes: bytes.into(), again, cbor: false });
    }

    pub(crate) fn request<P: Protocol>(&mut self, name: &str, value: &P::Request) {
        self.cbor(&format!("{}.request.{name}", P::NAME), value, request::<P>);
    }

    pub(crate) fn response<P: Protocol>(&mut self, name: &str, value: &P::Response) {
        self.cbor(&format!("{}.response.{name}", P::NAME), value, response::<P>);
    }
}

fn names(cases: &mut Cases, world: &World) {
    let tag = world.trust.network.protocol_tag();
    let mut protocol = |name: &str, version: u32| {
        cases.raw(&format!("protocol.{name}"), format!("/quarta/{tag}/{name}/{version}"), verbatim);
    };
    protocol(Admission::NAME, Admission::VERSION);
    protocol(Index::NAME, Index::VERSION);
    protocol(Changes::NAME, Changes::VERSION);
    protocol(Poll::NAME, Poll::VERSION);
    protocol(Sync::NAME, Sync::VERSION);
    protocol(chunk::NAME, chunk::VERSION);
    cases.raw("id.network", *world.trust.network.as_bytes(), verbatim);
    cases.raw(
        "id.file",
        *FileId::derive(&world.trust.network, &peer(&world.node), &[9; 16]).as_bytes(),
        verbatim,
    );
    cases.raw("id.record", *RecordHash::of(b"quarta").as_bytes(), verbatim);
    cases.raw("id.member", Enrolment::id_of(&peer(&world.node)), verbatim);
    cases.raw("id.invite_secret", invites::secret_hash(&[7; 16]), verbatim);
}

fn statements(cases: &mut Cases, world: &World) {
    for domain in [SealingKey::DOMAIN, Link::DOMAIN, Body::DOMAIN, Stamp::DOMAIN] {
        cases.raw(&format!("domain.{domain}"), domain, verbatim);
    }
    let sealing_key = world.sealing_key(&world.node);
    cases.cbor("statement.sealing_key", &sealing_key.peek().unwrap(), statement::<SealingKey>);
    cases.cbor("signed.sealing_key", &sealing_key, within::<Signed<SealingKey>, 512>);
    cases.cbor("statement.stamp", &world.stamp(), statement::<Stamp>);
    cases.cbor(
        "signed.stamp",
        &Signed::new(&world.stamp(), &world.trust.network, &world.superpeer),
        within::<Signed<Stamp>, 1024>,
    );
    cases.cbor("statement.link.by_owner", &world.link(false), statement::<Link>);
    cases.cbor("statement.link.by_root", &world.link(true), statement::<Link>);
    for (what, state) in [
        ("open", State::Present(open_entry())),
        ("restricted", State::Present(restricted_entry())),
        ("deleted", State::Deleted),
    ] {
        let body = world.body(state);
        cases.cbor(&format!("statement.record.{what}"), &body, statement::<Body>);
        cases.cbor(&format!("signed.record.{what}"), &world.signed(&body, &world.node), record);
    }
    cases.cbor("signed.record.handed_over", &world.handed_over(), record);
}

fn membership(cases: &mut Cases, world: &World) {
    cases.cbor(
        "credential.superpeer",
        &world.superpeer_credential(),
        within::<Credential, ENROLMENT_MAX_BYTES>,
    );
    cases.cbor("credential.node", &world.node_credential(), within::<Credential, ENROLMENT_MAX_BYTES>);
    let enrolments = [
        ("superpeer", &world.superpeer, world.superpeer_credential()),
        ("node", &world.node, world.node_credential()),
    ];
    for (role, key, credential) in enrolments {
        let value = Enrolment { peer: peer(key), credential, sealing_key: world.sealing_key(key) };
        cases.cbor(&format!("enrolment.{role}"), &value, enrolment);
    }
    for role in [Role::Node, Role::Superpeer] {
        let made = Invite::new(&world.trust.root, peer(&world.superpeer), addresses(), role, NOW, [7; 16]);
        cases.raw(&format!("invite.{role}"), made.to_text(), invite);
    }
}

fn contents(cases: &mut Cases) {
    let (chunk, _, small) = sealed();
    cases.raw("content.sealed_chunk", chunk, verbatim);
    cases.raw("content.id", *small.id().as_bytes(), verbatim);
    cases.raw("content.manifest", small.to_bytes(), manifest);
    let two = Manifest::new(Geometry::for_size(300_000).unwrap(), vec![[1; 32], [2; 32]]).unwrap();
    cases.raw("content.manifest.two_chunks", two.to_bytes(), manifest);
}

fn admission(cases: &mut Cases, world: &World) {
    use admission::{Refusal, Request, Response};
    let redeem = Request::Redeem {
        secret: ByteArray::new([7; 16]),
        name: name("filial-recife"),
        sealing_key: world.sealing_key(&world.node),
    };
    cases.request::<Admission>("redeem", &redeem);
    cases.request::<Admission>("discover", &Request::Discover);
    let renew =
        Request::Renew { credential: world.node_credential(), sealing_key: world.sealing_key(&world.node) };
    cases.request::<Admission>("renew", &renew);
    cases.request::<Admission>("leave", &Request::Leave(world.departure()));
    cases.response::<Admission>("renewed", &Response::Renewed(world.node_credential()));
    cases.response::<Admission>("farewell", &Response::Farewell);
    let joined = Response::Joined { credential: world.node_credential(), superpeers: world.superpeers() };
    cases.response::<Admission>("joined", &joined);
    cases.response::<Admission>("superpeers", &Response::Superpeers(world.superpeers()));
    for refusal in [
        Refusal::UnknownInvite,
        Refusal::InviteExpired,
        Refusal::InviteUsed,
        Refusal::NameTaken,
        Refusal::BadSealingKey,
        Refusal::NotTheRoot,
        Refusal::Revoked,
        Refusal::TooManyAttempts,
        Refusal::Unavailable,
        Refusal::NotASuperpeer,
        Refusal::Left,
        Refusal::NotAMember,
        Refusal::NotReconciled,
        Refusal::CutOff,
        Refusal::AwaitingApproval,
        Refusal::NameOfDeparted,
        Refusal::OtherName,
    ] {
        cases.response::<Admission>(&format!("refused.{refusal:?}"), &Response::Refused(refusal));
    }
}

fn index_requests(cases: &mut Cases, world: &World) {
    use index::Request;
    for (page, what) in [(first_page(), "first"), (full_page(), "full"), (delta_page(), "delta")] {
        let register = Request::Register { page, load: load(), addresses: addresses() };
        cases.request::<Index>(&format!("register.{what}"), &register);
    }
    let record = world.signed(&world.body(State::Present(open_entry())), &world.node);
    cases.request::<Index>("publish", &Request::Publish(vec![record]));
    cases.request::<Index>(
        "search",
        &Request::Search {
            query: "relatório".to_owned(),
            owner: Some(name("filial-recife")),
            after: Some(cursor()),
            limit: 100,
        },
    );
    cases.request::<Index>(
        "search.all",
        &Request::Search { query: String::new(), owner: None, after: None, limit: 1 },
    );
    let reference = "filial-recife:relatórios/2026.csv".to_owned();
    cases.request::<Index>("resolve", &Request::Resolve { reference });
    cases.request::<Index>("members", &Request::Members { after: None });
    cases.request::<Index>("members.after", &Request::Members { after: Some(name("filial-natal")) });
    cases.request::<Index>(
        "locate",
        &Request::Locate { content: content(), wanted_bytes: 6, except: vec![peer(&world.other)] },
    );
    for online in [true, false] {
        cases.request::<Index>(&format!("presence.{online}"), &Request::Presence { online });
    }
    cases.request::<Index>("unreachable", &Request::Unreachable { peer: peer(&world.other) });
    for fault in [
        None,
        Some(Fault::Unreachable),
        Some(Fault::WrongBytes),
        Some(Fault::Stalled),
        Some(Fault::NotHeld),
        Some(Fault::BrokeOff),
    ] {
        let outcome = SourceOutcome { peer: peer(&world.other), bytes: 1 << 20, busy_ms: 250, fault };
        let word = fault.map_or("no_fault", Fault::as_str);
        let report = Request::Report { content: content(), outcomes: vec![outcome] };
        cases.request::<Index>(&format!("report.{word}"), &report);
    }
}

fn index_responses(cases: &mut Cases, world: &World) {
    use index::{Refusal, Response};
    for (what, registered) in [
        ("at", Registered::At(position())),
        ("continue", Registered::Continue),
        ("send_all", Registered::SendAll),
    ] {
        cases.response::<Index>(&format!("registered.{what}"), &Response::Registered(registered));
    }
    let published = vec![
        Publication::Stored,
        Publication::Known,
        Publication::Superseded,
        Publication::Invalid("the record's revision is not possible".to_owned()),
        Publication::TooMany,
    ];
    cases.response::<Index>("published", &Response::Published(published));
    let listed = ListedFile {
        record: world.signed(&world.body(State::Present(open_entry())), &world.node),
        owner: name("filial-recife"),
        holders: 2,
    };
    cases.response::<Index>("files", &Response::Files { files: vec![listed], next: Some(cursor()) });
    cases.response::<Index>("files.none", &Response::Files { files: Vec::new(), next: None });
    let member = |state, role, last_seen| ListedMember {
        peer: peer(&world.node),
        name: name("filial-recife"),
        role,
        state,
        last_seen,
        version: "0.1.0".to_owned(),
        files: 3,
        stored_bytes: 1 << 33,
        free_bytes: 1 << 40,
        addresses: addresses(),
        relayed: false,
    };
    let ended = [MemberState::Left, MemberState::Revoked];
    let ended = ended.map(|state| ListedMember { relayed: true, ..member(state, Role::Node, Some(NOW)) });
    cases.response::<Index>("members.ended", &Response::Members { members: ended.to_vec(), next: None });
    let members = vec![
        member(MemberState::Online, Role::Node, Some(NOW)),
        member(MemberState::Suspect, Role::Superpeer, Some(NOW)),
        member(MemberState::Offline, Role::Node, None),
    ];
    cases.response::<Index>("members", &Response::Members { members, next: Some(name("filial-recife")) });
    let source = Source {
        peer: peer(&world.other),
        name: name("filial-natal"),
        addresses: addresses(),
        weight: 1000,
        complete: true,
    };
    cases.response::<Index>("sources", &Response::Sources(vec![source]));
    cases.response::<Index>("noted", &Response::Noted);
    for refusal in [Refusal::ImpossibleList, Refusal::TooLong, Refusal::Unavailable, Refusal::Busy] {
        cases.response::<Index>(&format!("refused.{refusal:?}"), &Response::Refused(refusal));
    }
}

fn polls(cases: &mut Cases) {
    let nothing = poll::Request { since: None, after: None, interval_ms: 15_000 };
    cases.request::<Poll>("everything", &nothing);
    cases.request::<Poll>("since", &poll::Request { since: Some(position()), ..nothing });
    for (what, after) in [("library", Key::Library(file())), ("vault", Key::Vault(content()))] {
        let request = poll::Request { after: Some(after), ..nothing };
        cases.request::<Poll>(&format!("after.{what}"), &request);
    }
    let full = poll::Response { page: full_page(), load: load(), addresses: addresses() };
    cases.response::<Poll>("full", &full);
    let idle = Load { upload_capacity_bytes_per_second: None, ..Load::default() };
    cases
        .response::<Poll>("delta", &poll::Response { page: delta_page(), load: idle, addresses: Vec::new() });
}

fn changes(cases: &mut Cases, world: &World) {
    use changes::{Change, Cursor, Request, Response};
    let cursor = Cursor { store: ByteArray::new([0x57; 16]), run: u64::MAX, sequence: 70_000, condition: 12 };
    cases.request::<Changes>("follow.all", &Request::Follow { since: None, wait_ms: 0 });
    cases.request::<Changes>("follow", &Request::Follow { since: Some(cursor), wait_ms: 10_000 });
    let [by_root, _] = world.revocations();
    let returned = Request::Return { departures: vec![world.departure()], revocations: vec![by_root] };
    cases.request::<Changes>("return", &returned);
    let (kind, id) = (Kind::FILE, ByteArray::new([0x1d; 32]));
    let forget = |place, handed_over| Change::Forget { kind, id, place, handed_over };
    let changes =
        vec![Change::Put { kind, id, payload: ByteBuf::from(vec![1, 2, 3]) }, forget(None, Vec::new())];
    let page = Response::Page { cursor, restart: true, changes, members: Vec::new(), more: true };
    cases.response::<Changes>("page", &page);
    let record = world.handed_over();
    let (place, links) = (Precedence::claimed(&record).unwrap(), record.peek().unwrap().links);
    let changes = vec![forget(Some(place), links)];
    let page = Response::Page { cursor, restart: false, changes, members: Vec::new(), more: false };
    cases.response::<Changes>("page.hidden", &page);
    cases.response::<Changes>("noted", &Response::Noted);
    cases.response::<Changes>("unavailable", &Response::Unavailable);
}

fn endings(cases: &mut Cases, world: &World) {
    cases.cbor("ending.departure", &world.departure(), within::<Signed<Departure>, ENDING_MAX_BYTES>);
    for (who, notice) in ["root", "superpeer"].into_iter().zip(world.revocations()) {
        let name = format!("ending.revocation.{who}");
        cases.cbor(&name, &notice, within::<RevocationNotice, ENDING_MAX_BYTES>);
    }
    for action in [
        Action::Joined,
        Action::Renewed,
        Action::Added,
        Action::Updated,
        Action::Restricted,
        Action::HandedOver,
        Action::Deleted,
        Action::Left,
        Action::Revoked,
    ] {
        let event = Event {
            superpeer: peer(&world.superpeer),
            time: world.stamp().time,
            action,
            actor: Some(peer(&world.node)),
            subject: ByteArray::new([0x1d; 32]),
            payload: RecordHash::from_bytes([0x4a; 32]),
            name: "campanha.png".to_owned(),
            revision: 3,
        };
        cases.cbor(&format!("event.{}", action.as_str()), &event, within::<Event, EVENT_MAX_BYTES>);
        if action == Action::Joined {
            cases.raw("event.id", Event::id_of(&cbor::to_vec(&event)), verbatim);
        }
    }
}

fn synchronisation(cases: &mut Cases, world: &World) {
    use sync::{Request, Response};
    let entries = || vec![world.entry(Kind::FILE), world.entry(Kind::MEMBER)];
    let place = Place { kind: Kind::MEMBER, id: ByteArray::new([0x1d; 32]) };
    let mut digest = Digest::default();
    digest.toggle(Kind::FILE, &[0x1d; 32], &[1, 2, 3], true);
    cases.request::<Sync>("push", &Request::Push(entries()));
    cases.request::<Sync>("digest", &Request::Digest { addresses: addresses() });
    cases.request::<Sync>("page.first", &Request::Page { after: None });
    cases.request::<Sync>("page.after", &Request::Page { after: Some(place) });
    cases.response::<Sync>("taken", &Response::Taken { stored: 1, known: 2, invalid: 3 });
    cases.response::<Sync>("digest", &Response::Digest(digest));
    cases.response::<Sync>("page", &Response::Page { entries: entries(), next: Some(place) });
    cases.response::<Sync>("page.last", &Response::Page { entries: Vec::new(), next: None });
    cases.response::<Sync>("unavailable", &Response::Unavailable);
    walk(cases, digest);
}

fn walk(cases: &mut Cases, digest: Digest) {
    use sync::{Item, Packed, Position, Request, Response};
    let item = Item::of(Kind::FILE, &[0x1d; 32], &[1, 2, 3]);
    let (leaf, place) = (item.position.leaf(), item.position.place());
    cases.request::<Sync>("compare", &Request::Compare { digest, addresses: addresses() });
    let prefixes = Packed(vec![0x0, 0xa5f]);
    cases.request::<Sync>("branches", &Request::Branches { level: 3, prefixes });
    let leaves = Packed(vec![leaf, 0xffff]);
    let items = Packed(vec![item]);
    cases.request::<Sync>("leaves", &Request::Leaves { leaves, from: place, to: u32::MAX, items });
    cases.request::<Sync>("entries", &Request::Entries(Packed(vec![item.position, Position::at(0, 1)])));
    cases.response::<Sync>("branches", &Response::Branches(Packed((0..16).collect())));
    let offered = Packed(vec![item.position]);
    let (wanted, until) = (vec![0b1000_0000], Some(Position::at(0xffff, 2)));
    cases.response::<Sync>("leaves", &Response::Leaves { offered, wanted, until });
    cases.response::<Sync>("entries", &Response::Entries { entries: Vec::new(), answered: 2 });
    cases.response::<Sync>("busy", &Response::Busy);
}

fn chunks(cases: &mut Cases) {
    use chunk::{Abort, Head, Purpose, Refusal, Request};
    let run = |purpose| Request::Run { content: content(), first: 70_000, count: 256, purpose };
    for (what, request) in [
        ("manifest", Request::Manifest { content: content() }),
        ("availability", Request::Availability { content: content() }),
        ("run", run(Purpose::Person)),
        ("run_for_a_replica", run(Purpose::Replica)),
    ] {
        let again = within::<Request, { chunk::MAX_REQUEST_BYTES }>;
        cases.cbor(&format!("chunk.request.{what}"), &request, again);
    }
    for (what, head) in [
        ("manifest", Head::Manifest),
        ("run", Head::Run),
        ("availability", Head::Availability(ByteBuf::from(vec![0b1010_0000]))),
        ("refused.NotHeld", Head::Refused(Refusal::NotHeld)),
        ("refused.NoSuchChunk", Head::Refused(Refusal::NoSuchChunk)),
        ("refused.Busy", Head::Refused(Refusal::Busy)),
    ] {
        cases.cbor(&format!("chunk.head.{what}"), &head, within::<Head, { chunk::MAX_HEAD_BYTES }>);
    }
    for reason in [Abort::Changed, Abort::Unreadable, Abort::Stopping, Abort::MakesWay] {
        cases.raw(&format!("chunk.abort.{reason:?}"), [reason.code()], abort);
    }
}
