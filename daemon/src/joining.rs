//! Becoming a member: an invite is redeemed at the super-peer that issued it.
//!
//! The invite names the issuer's peer id and the network's root key, so nobody else is shown the secret, and the
//! credential that comes back is verified against that root before it is kept.

use crate::cli::{ExitCode, Failure};
use crate::clocks::Offset;
use crate::data_dir::Draft;
use crate::identity::{self, Keys};
use crate::renewing::reach;
use libp2p::{Multiaddr, PeerId};
use quarta_protocols::credentials::{Role, Trust, UnixSeconds};
use quarta_protocols::invites::{INVITE_MAX_CHARS, Invite};
use quarta_protocols::messages::admission::{Admission, PeerAddresses, Refusal, Request, Response};
use quarta_protocols::names::MemberName;
use quarta_protocols::network::{AddressPolicy, CallError, Config, Network};
use std::io::Read;
use std::time::Duration;

/// Longest text that is read as an invite: one with generous line breaks.
const INVITE_TEXT_MAX_BYTES: u64 = 2 * INVITE_MAX_CHARS as u64;
/// How often a super-peer that waits for approval asks: within what its issuer lets one peer try.
const APPROVAL_RETRY: Duration = Duration::from_secs(10);

/// What fails in here, as messages begin.
const WHAT: &str = "cannot join the network";

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
/// A super-peer's invite may have to be approved where the root key lies. Then this waits, asks again now and then, and
/// says on stderr what it waits for.
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
    join_via(draft, keys, invite, None, name, role).await
}

/// The same by way of any member at the address `via`: it is asked where the invite's issuer is reached, which may have
/// moved since it issued the invite.
///
/// # Errors
/// As there.
pub async fn join_via(
    draft: &mut Draft,
    keys: &Keys,
    invite: &Invite,
    via: Option<&Multiaddr>,
    name: &MemberName,
    role: Role,
) -> Result<Trust, Failure> {
    let what = WHAT;
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
    let answer = redeem_when_approved(&network, draft, keys, &trust, (invite, via), name).await;
    network.shutdown().await;
    let (answer, reached) = match answer {
        Ok(answered) => answered,
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
            // A node's was issued this moment, by the super-peer's clock; a super-peer's when it was approved.
            let told = role == Role::Node || membership.issued > now;
            if let Some(offset) = Offset::between(now, membership.issued).filter(|_| told) {
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
            identity::save_superpeers(folder, &with_issuer(superpeers, invite.issuer, reached))
                .map_err(|e| Failure::told(&e))?;
            Ok(trust)
        }
        Response::Refused(refusal) => {
            let next = match refusal {
                Refusal::NameTaken => "choose another name with --name",
                Refusal::NameOfDeparted => {
                    "choose another name with --name, or ask for an invite issued with --replaces"
                }
                Refusal::OtherName => "give that name with --name",
                Refusal::TooManyAttempts | Refusal::Unavailable => "try again later",
                Refusal::NotReconciled | Refusal::CutOff => {
                    "try again with the same invite once it has, or ask another super-peer for one"
                }
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

/// What came back, and where the issuer was reached.
type Answered = (Response, Multiaddr);

async fn redeem_when_approved(
    network: &Network,
    draft: &mut Draft,
    keys: &Keys,
    trust: &Trust,
    by: (&Invite, Option<&Multiaddr>),
    name: &MemberName,
) -> Result<Answered, Unredeemed> {
    let mut told = false;
    loop {
        match redeem(network, keys, trust, by, name).await {
            Ok((Response::Refused(Refusal::AwaitingApproval), _)) => {}
            // What waits for approval is not given up because the super-peer is down for a moment.
            Err(_) if told => {}
            outcome => return outcome,
        }
        if !told {
            draft.keep();
            crate::cli::note(&format!(
                "{name} waits to be approved: run `quarta-superpeer approve {name} --root-key FILE` on the super-peer \
                 that issued the invite, with the network's root key; this goes on by itself then, and can be \
                 interrupted and run again"
            ));
            told = true;
        }
        tokio::time::sleep(APPROVAL_RETRY).await;
    }
}

async fn redeem(
    network: &Network,
    keys: &Keys,
    trust: &Trust,
    (invite, via): (&Invite, Option<&Multiaddr>),
    name: &MemberName,
) -> Result<Answered, Unredeemed> {
    let reached = match via {
        Some(via) => reach_via(network, invite, via).await,
        None => reach(network, invite.issuer, &invite.addresses).await.map_err(|why| silent_issuer(&why)),
    };
    let reached = reached.map_err(Unredeemed::Refused)?;
    let sealing_key = keys.sealing.statement(&trust.network, &keys.identity);
    let request = Request::Redeem { secret: *invite.secret(), name: name.clone(), sealing_key };
    let response = network.call::<Admission>(invite.issuer, request).await.map_err(|error| match error {
        CallError::NotConnected | CallError::Unsupported | CallError::Shutdown => {
            let next = "see that both run the same version, and run the same command again";
            Unredeemed::Refused(Failure::new(WHAT, error.to_string(), next))
        }
        error => Unredeemed::Unknown(Failure::new(WHAT, error.to_string(), "run the same command again")),
    })?;
    Ok((response, reached))
}

fn silent_issuer(why: &str) -> Failure {
    let next = "see that it is running and reachable from here, name another member's address with --via, or ask \
                another super-peer for an invite";
    Failure::new(WHAT, format!("the super-peer that issued the invite does not answer: {why}"), next)
}

/// Asks the member at `via` where the issuer is reached, and goes there. Nothing that it says is believed: whoever
/// answers must prove to be the issuer that the invite names.
async fn reach_via(network: &Network, invite: &Invite, via: &Multiaddr) -> Result<Multiaddr, Failure> {
    let member = network.connect_stranger(via.clone()).await.map_err(|error| {
        let why = format!("nobody answers at {via}: {error}");
        Failure::new(WHAT, why, "check the address given with --via, or leave it out")
    })?;
    if member == invite.issuer {
        return Ok(via.clone());
    }
    let other = |why: String| {
        let next = "name another member's address with --via, or leave it out";
        Failure::new(WHAT, format!("the member at {via} does not say where super-peers are: {why}"), next)
    };
    let answer = network.call::<Admission>(member, Request::Discover).await;
    let Response::Superpeers(superpeers) = answer.map_err(|error| other(error.to_string()))? else {
        return Err(other("it answered something else".to_owned()));
    };
    let told = superpeers.into_iter().filter(|known| known.peer == invite.issuer);
    let mut addresses: Vec<Multiaddr> = told.flat_map(|known| known.addresses).collect();
    let known_there = !addresses.is_empty();
    addresses.extend(invite.addresses.iter().cloned());
    addresses.dedup();
    reach(network, invite.issuer, &addresses).await.map_err(|why| {
        if known_there {
            return silent_issuer(&why);
        }
        silent_issuer(&format!("the member at {via} does not know it, and {why}"))
    })
}

/// The super-peers told, with the issuer under an address that has just worked.
fn with_issuer(mut superpeers: Vec<PeerAddresses>, issuer: PeerId, reached: Multiaddr) -> Vec<PeerAddresses> {
    match superpeers.iter_mut().find(|known| known.peer == issuer) {
        Some(known) if known.addresses.is_empty() => known.addresses.push(reached),
        Some(_) => {}
        None => superpeers.push(PeerAddresses { peer: issuer, addresses: vec![reached] }),
    }
    superpeers
}
