//! The next owner's side of a hand-over: whether an offer is genuine and in time, and the record that it signs.
//!
//! An offer proves itself, whoever brings it: its record is the present owner's and its link that owner's or the root's. It
//! may come twice, or again after it was taken, or long after; each time the answer is the same as before.

use libp2p::identity::Keypair;
use quarta_protocols::{
    audiences::Rule,
    credentials::Trust,
    ids::RecordHash,
    messages::handover::{Refusal, Request},
    names::{COMPONENT_MAX_BYTES, FileName, MemberName},
    records::{Access, Body, Entry, Link, Record, SignedRecord, State},
    signing::Signed,
};

use super::draw;

/// Names that are tried for a file whose name the next owner has given to another file already.
const NAMES_TRIED: u32 = 1000;

/// What an offer comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// It was taken before; the record as it stands.
    Taken(SignedRecord),
    /// It can be taken.
    Open(Box<Offer>),
}

/// A genuine offer to this node of a file that is its owner's still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    record: Record,
    link: Signed<Link>,
    rule: Option<Rule>,
}

/// Looks at an offer. `known` is the latest record of the file that this node has seen.
///
/// # Errors
/// [`Refusal::Invalid`] for what is not genuine or not for this node, [`Refusal::Outdated`] for a file that has gone to
/// another owner or was deleted.
pub fn consider(
    request: &Request,
    known: Option<&Record>,
    own: &Keypair,
    trust: &Trust,
) -> Result<Offered, Refusal> {
    let offered = Record::verify(request.record.clone(), trust).map_err(|_| Refusal::Invalid)?;
    let link = request.link.peek().map_err(|_| Refusal::Invalid)?;
    if link.file != offered.file() || link.to != own.public().to_peer_id() || !draw::is_fair(&link) {
        return Err(Refusal::Invalid);
    }
    let place = usize::try_from(link.place).map_err(|_| Refusal::Invalid)?;
    let known = known.filter(|known| known.file() == offered.file());
    let latest = match known {
        Some(known) if known.supersedes(&offered) => known,
        _ => &offered,
    };
    match latest.links().get(place) {
        Some((_, hash)) if *hash == RecordHash::of(request.link.body()) => {
            return Ok(Offered::Taken(latest.signed().clone()));
        }
        Some(_) => return Err(Refusal::Outdated),
        None => {}
    }
    let entry = latest.entry().ok_or(Refusal::Outdated)?;
    if matches!(entry.access, Access::Restricted { .. }) != request.rule.is_some() {
        return Err(Refusal::Invalid);
    }
    let offer = Offer { record: latest.clone(), link: request.link.clone(), rule: request.rule.clone() };
    // The link's own proof is that a record with it verifies.
    offer.sign(entry.clone(), own, trust).map_err(|_| Refusal::Invalid)?;
    Ok(Offered::Open(Box::new(offer)))
}

impl Offer {
    /// The file as its present owner has it.
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// Who may read the file; none where everybody may.
    pub const fn rule(&self) -> Option<&Rule> {
        self.rule.as_ref()
    }

    /// The record by which this node takes the file over, with what it says of the file from now on.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] where the link does not continue the record's history.
    pub fn sign(&self, entry: Entry, own: &Keypair, trust: &Trust) -> Result<Record, Refusal> {
        let before = self.record.body();
        let mut links = before.links.clone();
        links.push(self.link.clone());
        let body = Body {
            file: before.file,
            origin: before.origin.clone(),
            links,
            revision: before.revision.saturating_add(1),
            state: State::Present(entry),
        };
        Record::sign(&body, trust, own).map_err(|_| Refusal::Invalid)
    }
}

/// A name for a file that comes from another branch: its own, unless the new owner has given that to another file; then
/// one that says whose it was, as in `plano (filial-recife).csv`. None where no such name is free, or short enough.
pub fn free_name(
    name: &FileName,
    from: &MemberName,
    is_taken: impl Fn(&FileName) -> bool,
) -> Option<FileName> {
    if !is_taken(name) {
        return Some(name.clone());
    }
    let leaf = name.leaf();
    let folder = &name.as_str()[..name.as_str().len() - leaf.len()];
    let (stem, extension) = match leaf.rfind('.') {
        Some(dot) if dot > 0 => leaf.split_at(dot),
        _ => (leaf, ""),
    };
    (1..=NAMES_TRIED).find_map(|number| {
        let mark = if number == 1 { format!(" ({from})") } else { format!(" ({from} {number})") };
        let room = COMPONENT_MAX_BYTES.checked_sub(mark.len() + extension.len())?;
        let stem = &stem[..stem.floor_char_boundary(room)];
        let name = FileName::normalised(&format!("{folder}{}{mark}{extension}", stem.trim_end())).ok()?;
        (!is_taken(&name)).then_some(name)
    })
}
