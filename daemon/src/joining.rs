//! Becoming a member: an invite is redeemed at the super-peer that issued it.
//!
//! The invite names the issuer's peer id and the network's root key, so nobody else is shown the secret, and the
//! credential that comes back is verified against that root before it is kept.

use crate::cli::{ExitCode, Failure};
use crate::clocks::Offset;
use crate::data_dir::Draft;
use crate::identity::{self, Keys};
use libp2p::PeerId;
use quarta_protocols::credentials::{Role, Trust, UnixSeconds};
use quarta_protocols::invites::{INVITE_MAX_CHARS, Invite};
use quarta_protocols::messages::admission::{Admission, PeerAddresses, Refusal, Request, Response};
use quarta_protocols::names::MemberName;
use quarta_protocols::network::{AddressPolicy, CallError, Config, ConnectError, Network};
use std::io::Read;

/// Longest text that is read as an invite: one with generous line breaks.
const INVITE_TEXT_MAX_BYTES: u64 = 2 * INVITE_MAX_CHARS as u64;

/// The invite that a person gave: the text itself, `-` for standard input, or the path of a file.
///
/// # Errors
/// A usage failure that says what is wrong with it. The text is not repeated: it is a secret.
pub fn read_invite(given: &str) -> Result<Invite, Failure> {
    let what = "cannot read the invite";
    let unreadable =
        |why: std::io::Error| Failure::new(what, why.to_string(), "check the path").code(ExitCode::Usage);
    let read = |source: &mut dyn Read| {
        let mut text = String::new();
        source.take(INVITE_TEXT_MAX_BYTES).read_to_string(&mut text).map_err(unreadable)?;
        Ok::<_, Failure>(text)
    };
    let text = if given == "-" {
        read(&mut std::io::stdin())?
    } else if given.trim_start().starts_with("quarta1") {
        given.to_owned()
    } else if std::path::Path::new(given).is_file() {
        read(&mut std::fs::File::open(given).map_err(unreadable)?)?
    } else {
        return Err(Failure::new(
            what,
            "it is neither an invite nor a file",
            "paste the whole text that begins with quarta1",
        )
        .code(ExitCode::Usage));
    };
    Invite::parse(&text)
        .map_err(|why| Failure::new(what, why.to_string(), "copy it again, whole").code(ExitCode::Usage))
}

/// Redeems an invite and stores membership and super-peers in the draft, which the caller then commits.
///
/// Repeatable: the same keys get a credential again, without using the invite up further. So where the invite may have
/// been redeemed without our hearing of it, the draft is kept for the next try, with its keys, also when it is dropped.
///
/// # Errors
/// A [`Failure`] with cause and next step.
pub async fn join(
    draft: &mut Draft,
    keys: &Keys,
    invite: &Invite,
    name: &MemberName,
    role: Role,
) -> Result<Trust, Failure> {
    let what = "cannot join the network";
    let next_invite = "ask for a new invite";
    if invite.role != role {
        let program = if invite.role == Role::Node { "quarta" } else { "quarta-superpeer" };
        let why = format!("the invite is for a {}", invite.role);
        return Err(Failure::new(what, why, format!("use `{program} join`")).code(ExitCode::Usage));
    }
    let Some(trust) = invite.trust() else {
        return Err(Failure::new(what, "the invite is damaged", next_invite));
    };
    let config = Config {
        // A joiner goes where a person sent it, whatever kind of address that is.
        addresses: AddressPolicy::ONE_MACHINE,
        ..Config::new(keys.identity.clone(), trust.clone(), role, env!("CARGO_PKG_VERSION"))
    };
    let (network, _events) = Network::start(config)
        .map_err(|e| Failure::new(what, e.to_string(), "see that the system has free sockets"))?;
    let answer = redeem(&network, keys, &trust, invite, name).await;
    network.shutdown().await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(Unredeemed::Refused(failure)) => return Err(failure),
        Err(Unredeemed::Unknown(failure)) => {
            draft.keep();
            return Err(failure);
        }
    };
    match answer {
        Response::Joined { credential, superpeers } => {
            let now = UnixSeconds::now();
            let refused = |why: String| Failure::new(what, why, next_invite);
            let membership = credential
                .verify_ignoring_time(&trust, &keys.peer())
                .map_err(|e| refused(format!("the credential received is not valid: {e}")))?;
            // It was issued this moment, by the super-peer's clock.
            if let Some(offset) = Offset::between(now, membership.issued) {
                // The invite is redeemed for these keys, so they are kept.
                draft.keep();
                let why = format!("this machine's clock is {offset} the network's");
                return Err(Failure::new(what, why, "set the clock, and run the same command again"));
            }
            if membership.role != role || membership.name != *name {
                return Err(refused("the credential received is for another name or role".to_owned()));
            }
            let folder = draft.folder();
            identity::save_membership(folder, &trust, &credential).map_err(|e| Failure::told(&e))?;
            identity::save_superpeers(folder, &with_issuer(superpeers, invite))
                .map_err(|e| Failure::told(&e))?;
            Ok(trust)
        }
        Response::Refused(refusal) => {
            let next = match refusal {
                Refusal::NameTaken => "choose another name with --name",
                Refusal::TooManyAttempts | Refusal::Unavailable => "try again later",
                _ => next_invite,
            };
            Err(Failure::new(what, refusal.to_string(), next).code(ExitCode::NotPermitted))
        }
        Response::Superpeers(_) | Response::Renewed(_) | Response::Farewell => Err(Failure::new(
            what,
            "the super-peer answered something else than was asked",
            "see that both run the same version",
        )),
    }
}

/// Why there is no answer to a redemption.
enum Unredeemed {
    /// The invite was not shown, or not taken.
    Refused(Failure),
    /// It was shown, and may have been redeemed.
    Unknown(Failure),
}

async fn redeem(
    network: &Network,
    keys: &Keys,
    trust: &Trust,
    invite: &Invite,
    name: &MemberName,
) -> Result<Response, Unredeemed> {
    let what = "cannot join the network";
    let peer = reach(network, invite).await.map_err(|why| {
        let next = "see that it is running and reachable from here, or ask another super-peer for an invite";
        let why = format!("the super-peer that issued the invite does not answer: {why}");
        Unredeemed::Refused(Failure::new(what, why, next))
    })?;
    let sealing_key = keys.sealing.statement(&trust.network, &keys.identity);
    let request = Request::Redeem { secret: *invite.secret(), name: name.clone(), sealing_key };
    network.call::<Admission>(peer, request).await.map_err(|error| match error {
        CallError::NotConnected | CallError::Unsupported | CallError::Shutdown => {
            let next = "see that both run the same version, and run the same command again";
            Unredeemed::Refused(Failure::new(what, error.to_string(), next))
        }
        error => Unredeemed::Unknown(Failure::new(what, error.to_string(), "run the same command again")),
    })
}

async fn reach(network: &Network, invite: &Invite) -> Result<PeerId, String> {
    let mut failures = Vec::new();
    for address in &invite.addresses {
        let address = address.clone().with_p2p(invite.issuer).unwrap_or_else(|address| address);
        match network.connect_stranger(address).await {
            Ok(peer) if peer == invite.issuer => return Ok(peer),
            Ok(_) => failures.push("somebody else answered".to_owned()),
            Err(error @ (ConnectError::Busy | ConnectError::Shutdown)) => return Err(error.to_string()),
            Err(error) => failures.push(error.to_string()),
        }
    }
    if failures.is_empty() { Err("the invite names no address".to_owned()) } else { Err(failures.join(", ")) }
}

/// The super-peers told, with the issuer under the addresses that have just worked.
fn with_issuer(mut superpeers: Vec<PeerAddresses>, invite: &Invite) -> Vec<PeerAddresses> {
    match superpeers.iter_mut().find(|known| known.peer == invite.issuer) {
        Some(issuer) if issuer.addresses.is_empty() => issuer.addresses.clone_from(&invite.addresses),
        Some(_) => {}
        None => superpeers.push(PeerAddresses { peer: invite.issuer, addresses: invite.addresses.clone() }),
    }
    superpeers
}
