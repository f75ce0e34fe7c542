//! Audiences: who may read a restricted file, and the keys that only they get.
//!
//! ```text
//! Audience = { audience, origin: { owner, nonce }, rule, epoch }        signed by the owner; for super-peers
//! Wrap     = { audience, origin, member, epoch, encapsulated, sealed }  signed by the owner; for super-peers and member
//! sealed   = HPKE(member's sealing key, info = "quarta/wrap/1" ‖ 0 ‖ network, aad = audience ‖ member ‖ epoch, keys)
//! ```
//!
//! An audience's *rule* never changes: a file that is to be hidden from others moves to another audience, and files with
//! the same rule share one. What changes is the *epoch*: when somebody who could read is a member no more, the owner
//! draws a new key for what follows. A [`Wrap`] carries a member's keys of all epochs that are in use, so that who joins
//! later reads the older files too. Super-peers enforce the rule and can open nothing: no wrap is ever made for them.
//!
//! The rule and the wraps are entries of their own, because nobody but the owner may see who is on the list: a member is
//! shown its own wrap and never the audience.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use hpke::{
    Deserializable, OpModeR, OpModeS, Serializable, aead::AesGcm256, kdf::HkdfSha256, kem::X25519HkdfSha256,
};
use libp2p::{PeerId, identity::Keypair};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    cbor,
    content::ContentKey,
    credentials::Trust,
    ids::{AudienceId, ContentId, FileId, ID_BYTES, NetworkId, RecordHash, Sha256, public_key_of},
    keys::{SealingKey, SealingSecret},
    records::Origin,
    signing::{Signed, Statement, VerifyError},
};

/// Members that one rule may name.
pub const RULE_MEMBERS_MAX: usize = 1024;
/// Epochs whose keys one wrap carries. An owner that has more in use seals its oldest files anew.
pub const EPOCHS_MAX: usize = 64;
/// The largest encoded audience or wrap as it travels, in bytes: an audience that names [`RULE_MEMBERS_MAX`] members.
pub const AUDIENCE_MAX_BYTES: usize = 48 * 1024;
/// The largest sealed access of a record, in bytes: key, checksum, the longest media type, and room for their frame.
pub const SEALED_ACCESS_MAX_BYTES: usize = 512;

const WRAP_INFO: &[u8] = b"quarta/wrap/1\0";
const ACCESS_AAD: &[u8] = b"quarta/access/1\0";
const KEY_BYTES: usize = 32;

/// Who may read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Every node but these, also those that join later: a blacklist.
    EveryoneBut(#[serde(deserialize_with = "cbor::at_most::<RULE_MEMBERS_MAX, _, _>")] Vec<PeerId>),
    /// These nodes and nobody who joins later.
    Only(#[serde(deserialize_with = "cbor::at_most::<RULE_MEMBERS_MAX, _, _>")] Vec<PeerId>),
}

impl Rule {
    /// The rule in its one form, in which two equal rules have equal bytes: members in order, none twice.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        let (Self::EveryoneBut(members) | Self::Only(members)) = &mut self;
        members.sort_unstable_by_key(|member| member.to_bytes());
        members.dedup();
        self
    }

    /// The members that it names.
    pub fn members(&self) -> &[PeerId] {
        let (Self::EveryoneBut(members) | Self::Only(members)) = self;
        members
    }

    /// Whether a node that is not the owner may read.
    pub fn permits(&self, node: &PeerId) -> bool {
        match self {
            Self::EveryoneBut(members) => !members.contains(node),
            Self::Only(members) => members.contains(node),
        }
    }
}

/// The rule under which a file's next owner keeps it: the same branches read it as before, seen from the new owner, which
/// needs no mention. An owner that `stays` reads on where only those on a list may.
#[must_use]
pub fn inherited(rule: Rule, from: &PeerId, to: &PeerId, stays: bool) -> Rule {
    let rule = match rule {
        Rule::EveryoneBut(members) => Rule::EveryoneBut(members),
        Rule::Only(mut members) => {
            members.retain(|member| member != to && member != from);
            if stays && members.len() < RULE_MEMBERS_MAX {
                members.push(*from);
            }
            Rule::Only(members)
        }
    };
    rule.sorted()
}

/// An audience, as its owner states it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Audience {
    /// Its id.
    pub audience: AudienceId,
    /// What the id is derived from.
    pub origin: Origin,
    /// Who may read.
    pub rule: Rule,
    /// The latest epoch, from 1.
    pub epoch: u64,
}

impl Statement for Audience {
    const DOMAIN: &'static str = "quarta/audience/1";
    const MAX_BYTES: usize = AUDIENCE_MAX_BYTES;
}

/// Why an audience or a wrap is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AudienceError {
    /// Not signed by its owner, or malformed.
    #[error(transparent)]
    Signature(#[from] VerifyError),
    /// The id is not derived from the owner and nonce.
    #[error("the audience's id does not belong to its owner")]
    ForeignId,
    /// A value outside what may stand there.
    #[error("the audience's {0} is not possible")]
    Impossible(&'static str),
    /// The wrap is for another member, or was changed.
    #[error("the wrapped keys cannot be opened with this member's key")]
    NotOurs,
    /// The sealed access is not one under this key for this file and content.
    #[error("the sealed access cannot be opened with this key")]
    WrongKey,
}

/// A verified statement of an audience's owner, with the bytes that say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stated<T: Statement> {
    statement: T,
    hash: RecordHash,
    signed: Signed<T>,
}

impl<T: Statement> Stated<T> {
    /// What is stated.
    pub const fn statement(&self) -> &T {
        &self.statement
    }

    /// As it travels.
    pub const fn signed(&self) -> &Signed<T> {
        &self.signed
    }
}

impl Audience {
    /// The audience of this origin.
    pub fn new(origin: Origin, rule: Rule, epoch: u64, network: &NetworkId) -> Self {
        let audience = AudienceId::derive(network, &origin.owner, &origin.nonce);
        Self { audience, origin, rule: rule.sorted(), epoch }
    }

    /// Signs it as its owner.
    ///
    /// # Errors
    /// [`AudienceError`] for what others would refuse, so that no such audience leaves its maker.
    pub fn sign(&self, trust: &Trust, owner: &Keypair) -> Result<Stated<Self>, AudienceError> {
        Self::verify(Signed::new(self, &trust.network, owner), trust)
    }

    /// Verifies an audience by itself.
    ///
    /// # Errors
    /// [`AudienceError`].
    pub fn verify(signed: Signed<Self>, trust: &Trust) -> Result<Stated<Self>, AudienceError> {
        let statement = verify(&signed, trust, |stated| (stated.audience, stated.origin.clone()))?;
        if statement.epoch == 0 {
            return Err(AudienceError::Impossible("epoch"));
        }
        let rule = &statement.rule;
        if rule.members().len() > RULE_MEMBERS_MAX || rule.clone().sorted() != *rule {
            return Err(AudienceError::Impossible("list of members"));
        }
        Ok(Stated { hash: RecordHash::of(signed.body()), statement, signed })
    }

    /// Whether a node may read: the owner always.
    pub fn permits(&self, node: &PeerId) -> bool {
        *node == self.origin.owner || self.rule.permits(node)
    }
}

impl Stated<Audience> {
    /// Whether this one takes the place of `other`, which must be of the same id: the later epoch, then the higher hash.
    pub fn supersedes(&self, other: &Self) -> bool {
        order((self.statement.epoch, self.hash), (other.statement.epoch, other.hash))
    }
}

/// One member's keys of an audience.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wrap {
    /// The audience.
    pub audience: AudienceId,
    /// What its id is derived from.
    pub origin: Origin,
    /// For whom.
    pub member: PeerId,
    /// The latest epoch whose key is in it.
    pub epoch: u64,
    /// The HPKE encapsulated key.
    pub encapsulated: ByteArray<KEY_BYTES>,
    /// The keys, sealed to the member.
    pub sealed: ByteBuf,
}

impl Statement for Wrap {
    const DOMAIN: &'static str = "quarta/audience-wrap/1";
    const MAX_BYTES: usize = 8 * 1024;
}

impl Wrap {
    /// The id under which a member's wrap stands in the catalog.
    pub fn id_of(audience: &AudienceId, member: &PeerId) -> [u8; ID_BYTES] {
        let mut hasher = blake3::Hasher::new_derive_key("quarta 2026 audience wrap v1");
        hasher.update(audience.as_bytes());
        hasher.update(&member.to_bytes());
        *hasher.finalize().as_bytes()
    }

    /// Seals an audience's keys to a member and signs that as the audience's owner.
    ///
    /// # Errors
    /// [`AudienceError::Impossible`] for a key that is no X25519 key or for too many epochs.
    pub fn seal(
        audience: &Audience,
        keys: &Keys,
        to: &SealingKey,
        trust: &Trust,
        owner: &Keypair,
    ) -> Result<Stated<Self>, AudienceError> {
        if keys.0.is_empty() || keys.0.len() > EPOCHS_MAX {
            return Err(AudienceError::Impossible("number of epochs"));
        }
        let public = <X25519HkdfSha256 as hpke::Kem>::PublicKey::from_bytes(&to.public[..])
            .map_err(|_| AudienceError::Impossible("member's key"))?;
        let epoch = keys.latest();
        let plain = Zeroizing::new(cbor::to_vec(keys));
        let (encapsulated, sealed) = hpke::single_shot_seal::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &public,
            &wrap_info(&trust.network),
            &plain,
            &wrap_aad(&audience.audience, &to.peer, epoch),
        )
        .map_err(|_| AudienceError::Impossible("member's key"))?;
        let wrap = Self {
            audience: audience.audience,
            origin: audience.origin.clone(),
            member: to.peer,
            epoch,
            encapsulated: ByteArray::new(encapsulated.to_bytes().into()),
            sealed: ByteBuf::from(sealed),
        };
        Self::verify(Signed::new(&wrap, &trust.network, owner), trust)
    }

    /// Verifies a wrap by itself. What it seals only its member can tell.
    ///
    /// # Errors
    /// [`AudienceError`].
    pub fn verify(signed: Signed<Self>, trust: &Trust) -> Result<Stated<Self>, AudienceError> {
        let statement = verify(&signed, trust, |stated| (stated.audience, stated.origin.clone()))?;
        if statement.epoch == 0 {
            return Err(AudienceError::Impossible("epoch"));
        }
        Ok(Stated { hash: RecordHash::of(signed.body()), statement, signed })
    }

    /// Opens the keys, as the member that they are for.
    ///
    /// # Errors
    /// [`AudienceError::NotOurs`].
    pub fn open(&self, secret: &SealingSecret, network: &NetworkId) -> Result<Keys, AudienceError> {
        let not_ours = |_| AudienceError::NotOurs;
        let secret =
            <X25519HkdfSha256 as hpke::Kem>::PrivateKey::from_bytes(secret.as_bytes()).map_err(not_ours)?;
        let encapsulated = <X25519HkdfSha256 as hpke::Kem>::EncappedKey::from_bytes(&self.encapsulated[..])
            .map_err(not_ours)?;
        let plain = hpke::single_shot_open::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &secret,
            &encapsulated,
            &wrap_info(network),
            &self.sealed,
            &wrap_aad(&self.audience, &self.member, self.epoch),
        )
        .map(Zeroizing::new)
        .map_err(not_ours)?;
        let keys: Keys = cbor::from_slice(&plain).map_err(|_| AudienceError::NotOurs)?;
        if keys.0.is_empty() || keys.0.len() > EPOCHS_MAX || keys.latest() != self.epoch {
            return Err(AudienceError::NotOurs);
        }
        Ok(keys)
    }
}

impl Stated<Wrap> {
    /// Whether this one takes the place of `other`, which must be of the same id: the later epoch, then the higher hash.
    pub fn supersedes(&self, other: &Self) -> bool {
        order((self.statement.epoch, self.hash), (other.statement.epoch, other.hash))
    }
}

/// The key of one epoch of an audience. Prints as nothing and is wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EpochKey(ByteArray<KEY_BYTES>);

impl EpochKey {
    /// Draws a key from the system's randomness.
    pub fn generate() -> Self {
        let mut bytes = [0; KEY_BYTES];
        SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
        Self(ByteArray::new(bytes))
    }

    /// Takes back what [`Self::as_bytes`] gave.
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(ByteArray::new(bytes))
    }

    /// The raw key, for its owner's database.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Seals what opens a file, for [`crate::records::Access::Restricted`].
    pub fn seal(&self, secret: &AccessSecret, place: &AccessPlace<'_>) -> ByteBuf {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).expect("the system has randomness");
        let mut sealed = cbor::to_vec(secret);
        self.cipher()
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place.aad()),
                &mut sealed,
            )
            .expect("a few hundred bytes can be sealed");
        let mut bytes = nonce.to_vec();
        bytes.append(&mut sealed);
        ByteBuf::from(bytes)
    }

    /// Opens what [`Self::seal`] made for the same place.
    ///
    /// # Errors
    /// [`AudienceError::WrongKey`] for anything else.
    pub fn open(&self, sealed: &[u8], place: &AccessPlace<'_>) -> Result<AccessSecret, AudienceError> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(AudienceError::WrongKey)?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let plain = self
            .cipher()
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(place.aad()), &mut sealed)
            .map_err(|_| AudienceError::WrongKey)?;
        cbor::from_slice_within(plain, SEALED_ACCESS_MAX_BYTES).map_err(|_| AudienceError::WrongKey)
    }

    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.0[..]).expect("a key of 32 bytes"))
    }
}

impl fmt::Debug for EpochKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochKey(…)")
    }
}

/// An audience's keys by epoch; at most [`EPOCHS_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Keys(pub BTreeMap<u64, EpochKey>);

impl Keys {
    /// The latest epoch; 0 where there is none.
    pub fn latest(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(epoch, _)| *epoch)
    }
}

/// What opens a restricted file, and what only its readers may know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessSecret {
    /// The content's key.
    pub key: ContentKey,
    /// The plaintext's SHA-256.
    pub sha256: Sha256,
    /// The media type, where known.
    pub media_type: Option<String>,
}

/// Where a sealed access stands: it opens nowhere else.
#[derive(Debug, Clone, Copy)]
pub struct AccessPlace<'a> {
    /// The network.
    pub network: &'a NetworkId,
    /// The file.
    pub file: &'a FileId,
    /// The content whose key it is.
    pub content: &'a ContentId,
    /// The audience.
    pub audience: &'a AudienceId,
    /// The audience's epoch.
    pub epoch: u64,
}

impl AccessPlace<'_> {
    fn aad(&self) -> Vec<u8> {
        let epoch = self.epoch.to_be_bytes();
        [
            ACCESS_AAD,
            self.network.as_bytes(),
            self.file.as_bytes(),
            self.content.as_bytes(),
            self.audience.as_bytes(),
            &epoch,
        ]
        .concat()
    }
}

fn wrap_info(network: &NetworkId) -> Vec<u8> {
    [WRAP_INFO, network.as_bytes()].concat()
}

fn wrap_aad(audience: &AudienceId, member: &PeerId, epoch: u64) -> Vec<u8> {
    [audience.as_bytes(), member.to_bytes().as_slice(), &epoch.to_be_bytes()].concat()
}

/// Verifies the signature of the owner that the statement names, and that the id is that owner's.
fn verify<T: Statement>(
    signed: &Signed<T>,
    trust: &Trust,
    of: impl Fn(&T) -> (AudienceId, Origin),
) -> Result<T, AudienceError> {
    let (audience, origin) = of(&signed.peek().map_err(VerifyError::from)?);
    if AudienceId::derive(&trust.network, &origin.owner, &origin.nonce) != audience {
        return Err(AudienceError::ForeignId);
    }
    let key = public_key_of(&origin.owner).map_err(|_| VerifyError::BadSignature)?;
    Ok(signed.verify(&trust.network, &key)?)
}

fn order<T: Ord>(one: T, other: T) -> bool {
    one.cmp(&other) == Ordering::Greater
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seeded(seed: u8) -> Keypair {
        Keypair::ed25519_from_bytes([seed; 32]).unwrap()
    }

    fn peer(seed: u8) -> PeerId {
        seeded(seed).public().to_peer_id()
    }

    fn trust() -> Trust {
        Trust::in_root(seeded(200).public().try_into_ed25519().unwrap())
    }

    fn origin() -> Origin {
        Origin { owner: peer(1), nonce: ByteArray::new([3; 16]) }
    }

    fn audience(rule: Rule, epoch: u64) -> Audience {
        Audience::new(origin(), rule, epoch, &trust().network)
    }

    fn sealing_key(secret: &SealingSecret, seed: u8) -> SealingKey {
        let signed = secret.statement(&trust().network, &seeded(seed));
        SealingKey::verify(&signed, &trust().network, &peer(seed)).unwrap()
    }

    fn keys(epochs: u64) -> Keys {
        Keys((1..=epochs).map(|epoch| (epoch, EpochKey::generate())).collect())
    }

    #[test]
    fn a_blacklist_hides_from_those_on_it_and_a_list_of_readers_from_all_others() {
        let but = audience(Rule::EveryoneBut(vec![peer(3), peer(2), peer(2)]), 1);
        assert_eq!(but.rule.members().len(), 2, "none twice");
        assert!(but.permits(&peer(4)) && !but.permits(&peer(2)));
        let only = audience(Rule::Only(vec![peer(2)]), 1);
        assert!(only.permits(&peer(2)) && !only.permits(&peer(4)));
        assert!(only.permits(&peer(1)), "the owner always");
    }

    #[test]
    fn a_file_that_changes_hands_keeps_its_readers() {
        let but = Rule::EveryoneBut(vec![peer(3)]);
        assert_eq!(inherited(but.clone(), &peer(1), &peer(2), false), but);
        let only = |seeds: &[u8]| Rule::Only(seeds.iter().map(|seed| peer(*seed)).collect()).sorted();
        // The new owner reads as its owner; the one before by being on the list, as long as it stays.
        assert_eq!(inherited(only(&[2, 3]), &peer(1), &peer(2), true), only(&[1, 3]));
        assert_eq!(inherited(only(&[2, 3]), &peer(1), &peer(2), false), only(&[3]));
        assert_eq!(inherited(only(&[1, 2]), &peer(1), &peer(2), true), only(&[1]), "none twice");
    }

    #[test]
    fn only_its_owner_states_an_audience() {
        let audience = audience(Rule::Only(vec![peer(2)]), 1);
        assert!(audience.sign(&trust(), &seeded(1)).is_ok());
        assert!(matches!(audience.sign(&trust(), &seeded(2)), Err(AudienceError::Signature(_))));
        let mut stolen = audience;
        stolen.origin.owner = peer(2);
        assert_eq!(stolen.sign(&trust(), &seeded(2)), Err(AudienceError::ForeignId));
    }

    #[test]
    fn a_wrap_opens_with_its_members_key_and_no_other() {
        let trust = trust();
        let (ours, theirs) = (SealingSecret::generate(), SealingSecret::generate());
        let (audience, keys) = (audience(Rule::EveryoneBut(vec![peer(3)]), 2), keys(2));
        let wrap = Wrap::seal(&audience, &keys, &sealing_key(&ours, 2), &trust, &seeded(1)).unwrap();
        let wrap = wrap.statement();
        assert_eq!(wrap.open(&ours, &trust.network).unwrap(), keys);
        assert_eq!(wrap.open(&theirs, &trust.network), Err(AudienceError::NotOurs));
        let other = NetworkId::from_bytes([9; 32]);
        assert_eq!(wrap.open(&ours, &other), Err(AudienceError::NotOurs));
        let moved = Wrap { member: peer(3), ..wrap.clone() };
        assert_eq!(moved.open(&ours, &trust.network), Err(AudienceError::NotOurs));
        let later = Wrap { epoch: 3, ..wrap.clone() };
        assert_eq!(later.open(&ours, &trust.network), Err(AudienceError::NotOurs));
    }

    #[test]
    fn a_sealed_access_opens_in_its_place_only() {
        let network = trust().network;
        let (file, content) = (FileId::from_bytes([1; 32]), ContentId::from_bytes([2; 32]));
        let audience = audience(Rule::Only(Vec::new()), 1).audience;
        let place =
            AccessPlace { network: &network, file: &file, content: &content, audience: &audience, epoch: 1 };
        let secret = AccessSecret {
            key: ContentKey::from_bytes([7; 32]),
            sha256: Sha256::from_bytes([8; 32]),
            media_type: Some("a".repeat(crate::records::MEDIA_TYPE_MAX_BYTES)),
        };
        let key = EpochKey::generate();
        let sealed = key.seal(&secret, &place);
        assert!(sealed.len() <= SEALED_ACCESS_MAX_BYTES);
        assert_eq!(key.open(&sealed, &place).unwrap(), secret);
        assert_ne!(key.seal(&secret, &place), sealed, "a nonce is never used twice");
        let elsewhere = FileId::from_bytes([3; 32]);
        assert_eq!(
            key.open(&sealed, &AccessPlace { file: &elsewhere, ..place }),
            Err(AudienceError::WrongKey)
        );
        assert_eq!(key.open(&sealed, &AccessPlace { epoch: 2, ..place }), Err(AudienceError::WrongKey));
        assert_eq!(EpochKey::generate().open(&sealed, &place), Err(AudienceError::WrongKey));
        for end in [0, NONCE_LEN - 1, sealed.len() - 1] {
            assert_eq!(key.open(&sealed[..end], &place), Err(AudienceError::WrongKey));
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let key = EpochKey::from_bytes([0xab; 32]);
        let keys = Keys([(1, key.clone())].into());
        assert!(!format!("{key:?} {keys:?}").contains("171"));
    }

    proptest! {
        #[test]
        fn statements_of_one_audience_have_one_winner(epochs in prop::collection::vec((1u64..4, any::<bool>()), 2..6)) {
            let stated: Vec<_> = epochs
                .into_iter()
                .map(|(epoch, only)| {
                    let rule = if only { Rule::Only(Vec::new()) } else { Rule::EveryoneBut(Vec::new()) };
                    audience(rule, epoch).sign(&trust(), &seeded(1)).unwrap()
                })
                .collect();
            let best = |all: Vec<&Stated<Audience>>| {
                all.into_iter().reduce(|a, b| if b.supersedes(a) { b } else { a }).cloned()
            };
            prop_assert_eq!(best(stated.iter().collect()), best(stated.iter().rev().collect()));
        }
    }
}
