//! Holders that send wrong, short, oversized, stale, stalling or dripping bytes, or claim what they do not have.
//!
//! Each kind is a member of its own, which super-peers cannot tell from an honest one, and which says that it is faster
//! than anybody. Beside it stands one honest holder on a thin line, so that a fetch that gets rid of no liar would show.

use crate::support::{MIB, Network, bytes, eventually, names_in};
use futures::future::join_all;
use futures::stream::TryStreamExt;
use quarta_node::api::model::{FetchEvent, File, Transfer, TransferState};
use quarta_protocols::ids::ContentId;
use quarta_protocols::messages::index::Fault;
use quarta_testnet::cluster::ClusterError;
use quarta_testnet::exposition::Exposition;
use quarta_testnet::liar::{Liar, Lie};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// From the first lie to the end of the liar's use. Silence takes longest to tell from slowness: 3 s and the time that a
/// chunk of 256 KiB may take on a line of 128 KiB/s, and then the look of a second at a busy machine.
const DROPPED_WITHIN: Duration = Duration::from_secs(8);
/// What the honest holder sends over all its uploads.
const HONEST_LINE: &str = "8MiB";
/// Beside a liar that shows with its first chunk, and beside one that shows only in waiting: the honest holder alone
/// takes longer over these than a liar may last.
const QUICK_BYTES: usize = 2 * MIB;
const SLOW_BYTES: usize = 16 * MIB;
/// Nodes by what they do here.
const HONEST: usize = 0;
const FETCHERS: [usize; 3] = [1, 2, 3];
const CROWDED: usize = 4;
const GONE: usize = 5;

/// A file with the bytes that it should have.
struct Shared {
    file: File,
    plain: Vec<u8>,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_bad_source_is_dropped_reported_and_counted_and_the_file_arrives() {
    let mut network = Network::start_changed(1, 6, Duration::from_secs(5), |plan| {
        plan.members[1 + HONEST]
            .serve_args
            .extend(["--limit-lan", "--upload-limit", HONEST_LINE].map(OsString::from));
    })
    .await;
    let lies: Vec<Lie> = Lie::ALL.into_iter().filter(|lie| !lie.is_about_the_manifest()).collect();
    let liars = join_liars(&network, &lies).await;
    let mut own = Vec::new();
    for (seed, lie) in (1..).zip(&lies) {
        let size = if lie.fault() == Some(Fault::Stalled) { SLOW_BYTES } else { QUICK_BYTES };
        own.push(share(&network, HONEST, &format!("{lie:?}.bin"), seed, size).await);
    }
    let crowded = share(&network, HONEST, "crowded.bin", 100, SLOW_BYTES).await;
    let orphan = share(&network, GONE, "orphan.bin", 101, QUICK_BYTES).await;
    for (liar, own) in liars.iter().zip(&own) {
        liar.claim(&own.file.id, &own.plain).await.unwrap();
        liar.claim(&crowded.file.id, &crowded.plain).await.unwrap();
        if leaves_nobody_waiting(liar.lie()) {
            liar.claim(&orphan.file.id, &orphan.plain).await.unwrap();
        }
    }
    let gone = network.name(GONE);
    assert!(network.cluster.end(&gone).await.unwrap());

    // Those that are only found out by waiting begin first.
    let mut alone: Vec<(&Liar, &Shared)> = liars.iter().zip(&own).collect();
    alone.sort_by_key(|(liar, _)| liar.lie().fault() != Some(Fault::Stalled));
    let fetches = alone.iter().zip(FETCHERS.into_iter().cycle()).map(|((liar, own), fetcher)| {
        let network = &network;
        async move {
            let (transfer, dropped) = fetch(network, fetcher, own).await;
            (*liar, *own, transfer.unwrap(), dropped)
        }
    });
    let (alone, (crowd, crowd_dropped), (lost, _)) = tokio::join!(
        join_all(fetches),
        fetch(&network, CROWDED, &crowded),
        fetch(&network, CROWDED, &orphan),
    );

    let mut faults: BTreeMap<&str, f64> = BTreeMap::new();
    for (liar, own, transfer, dropped) in &alone {
        let content = content_of(own);
        let used = liar.first_lie(&content).unwrap_or_else(|| panic!("{} was not asked", liar.name()));
        let source = transfer.sources.iter().find(|source| source.name == liar.name()).unwrap();
        let fault = liar.lie().fault().map(Fault::as_str);
        assert_eq!(source.fault.as_deref(), fault, "{:?}: {transfer:?}", liar.lie());
        if let Some(fault) = liar.lie().fault() {
            *faults.entry(fault.as_str()).or_default() += 1.0;
            let after = dropped[liar.name()].saturating_duration_since(used);
            println!("{:?}: {} after {:.2} s", liar.lie(), fault.as_str(), after.as_secs_f64());
            assert!(after <= DROPPED_WITHIN, "{:?} was dropped after {after:?}", liar.lie());
        }
        intact(&network, transfer, own);
    }

    let crowd = crowd.unwrap();
    intact(&network, &crowd, &crowded);
    let content = content_of(&crowded);
    for liar in &liars {
        let (Some(used), Some(fault)) = (liar.first_lie(&content), liar.lie().fault()) else { continue };
        let Some(at) = crowd_dropped.get(liar.name()) else {
            // What one liar cannot hold up because of the others need not be waited for.
            assert_eq!(fault, Fault::Stalled, "{:?} lied in the crowd and was kept", liar.lie());
            continue;
        };
        let after = at.saturating_duration_since(used);
        assert!(after <= DROPPED_WITHIN, "{:?} was dropped from the crowd after {after:?}", liar.lie());
    }

    let why = lost.unwrap_err().to_string();
    assert!(why.contains("every source failed") && why.contains("wrong_bytes"), "{why}");

    reported(&network, &liars).await;
    let mut counted: BTreeMap<String, f64> = BTreeMap::new();
    for fetcher in FETCHERS {
        let text = network.node(fetcher).scrape("/metrics").await.unwrap();
        for sample in Exposition::parse(&text).unwrap().family("quarta_node_sources_dropped_total") {
            *counted.entry(sample.labels["reason"].clone()).or_default() += sample.value;
        }
    }
    counted.retain(|_, count| *count > 0.0);
    println!("dropped by reason: {counted:?}");
    assert_eq!(counted, faults.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect());
    only_what_was_fetched(&network, &alone.iter().map(|(_, own, ..)| *own).collect::<Vec<_>>(), &crowded);
    drop(liars);
    network.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_endless_or_dripping_manifest_holds_nothing_up() {
    let network = Network::start(1, 2, Duration::from_secs(15)).await;
    let lies: Vec<Lie> = Lie::ALL.into_iter().filter(|lie| lie.is_about_the_manifest()).collect();
    let liars = join_liars(&network, &lies).await;
    let mut own = Vec::new();
    for (seed, liar) in (1..).zip(&liars) {
        let shared = share(&network, HONEST, &format!("{:?}.bin", liar.lie()), seed, QUICK_BYTES).await;
        liar.claim(&shared.file.id, &shared.plain).await.unwrap();
        own.push(shared);
    }
    // The manifest is asked from whoever connects first: that is the liar.
    let honest = network.name(HONEST);
    network.cluster.freeze(&honest).unwrap();
    let fetches = join_all(own.iter().map(|own| fetch(&network, FETCHERS[0], own)));
    let thaw = async {
        eventually("every liar is asked for its manifest", async || {
            liars.iter().zip(&own).all(|(liar, own)| liar.first_lie(&content_of(own)).is_some())
        })
        .await;
        network.cluster.thaw(&honest).unwrap();
    };
    let (fetched, ()) = tokio::join!(fetches, thaw);
    for ((liar, own), (transfer, dropped)) in liars.iter().zip(&own).zip(fetched) {
        let transfer = transfer.unwrap();
        intact(&network, &transfer, own);
        let Some(fault) = liar.lie().fault() else { continue };
        let source = transfer.sources.iter().find(|source| source.name == liar.name()).unwrap();
        assert_eq!(source.fault.as_deref(), Some(fault.as_str()), "{:?}", liar.lie());
        let after = dropped[liar.name()] - liar.first_lie(&content_of(own)).unwrap();
        println!("{:?}: {} after {:.2} s", liar.lie(), fault.as_str(), after.as_secs_f64());
        assert!(after <= DROPPED_WITHIN, "{:?} was dropped after {after:?}", liar.lie());
    }
    drop(liars);
    network.stop().await;
}

/// Those that stall are waited for longer where there is no other source, and a busy one for ever: slow is better than
/// nothing. So the fetch that has only liars has none of them.
fn leaves_nobody_waiting(lie: Lie) -> bool {
    lie.fault().is_some_and(|fault| fault != Fault::Stalled)
}

async fn join_liars(network: &Network, lies: &[Lie]) -> Vec<Liar> {
    let uses = u32::try_from(lies.len()).unwrap();
    let invite =
        network.superpeer(0).superpeer().invite("node", uses, Duration::from_hours(1)).await.unwrap().invite;
    let mut liars = Vec::with_capacity(lies.len());
    for lie in lies {
        let data = network.home.path().join(lie.member_name());
        liars.push(Liar::join(*lie, &data, &invite).await.unwrap_or_else(|error| panic!("{lie:?}: {error}")));
    }
    liars
}

async fn share(network: &Network, owner: usize, name: &str, seed: u64, size: usize) -> Shared {
    let plain = bytes(seed, size);
    Shared { file: network.share(owner, name, &plain).await, plain }
}

fn content_of(shared: &Shared) -> ContentId {
    shared.file.content.parse().unwrap()
}

/// Fetches to the end, and notes when each source was first seen as dropped.
async fn fetch(
    network: &Network,
    fetcher: usize,
    shared: &Shared,
) -> (Result<Transfer, ClusterError>, BTreeMap<String, Instant>) {
    let api = network.node(fetcher).node();
    let mut dropped = BTreeMap::new();
    let mut events = api.fetch(&shared.file.id).await.unwrap();
    while let Some(event) = events.try_next().await.unwrap() {
        let (FetchEvent::Progress(transfer)
        | FetchEvent::Done(transfer)
        | FetchEvent::Failed { transfer, .. }) = &event;
        for source in transfer.sources.iter().filter(|source| source.fault.is_some()) {
            dropped.entry(source.name.clone()).or_insert_with(Instant::now);
        }
        if let Some(ended) = api.ended(event) {
            return (ended, dropped);
        }
    }
    panic!("{}: the answer broke off", shared.file.name);
}

/// Every byte is the owner's, and the honest holder is not blamed.
fn intact(network: &Network, transfer: &Transfer, shared: &Shared) {
    assert_eq!(transfer.state, TransferState::Completed);
    let path = PathBuf::from(transfer.path.as_deref().unwrap());
    assert!(std::fs::read(&path).unwrap() == shared.plain, "{} differs", shared.file.name);
    assert_eq!(transfer.sha256, shared.file.sha256, "{}", shared.file.name);
    let honest = transfer.sources.iter().find(|source| source.name == network.node(HONEST).name()).unwrap();
    assert_eq!((honest.fault.as_deref(), honest.bytes > 0), (None, true), "{transfer:?}");
}

/// The libraries have what was fetched and nothing else; nothing half-done is left.
fn only_what_was_fetched(network: &Network, alone: &[&Shared], crowded: &Shared) {
    let mut names: Vec<&str> = alone.iter().map(|shared| shared.file.name.as_str()).collect();
    names.sort_unstable();
    let owner = network.name(HONEST);
    let mut found: Vec<String> = FETCHERS
        .into_iter()
        .flat_map(|fetcher| names_in(&network.node(fetcher).data().join("library").join(&owner)))
        .collect();
    found.sort();
    assert_eq!(found, names);
    let library = network.node(CROWDED).data().join("library");
    assert_eq!(names_in(&library), [owner.as_str()]);
    assert_eq!(names_in(&library.join(&owner)), [crowded.file.name.as_str()]);
}

/// The super-peer has heard of every liar that was used, and of nobody else.
async fn reported(network: &Network, liars: &[Liar]) {
    let superpeer = network.superpeer(0);
    let bad: Vec<&str> = liars.iter().filter(|liar| liar.lie().fault().is_some()).map(Liar::name).collect();
    let family = "quarta_superpeer_bad_sources_reported_total";
    let count = async |name: &str| {
        let text = superpeer.scrape("/metrics").await.unwrap();
        Exposition::parse(&text).unwrap().sum_where(family, "member", name)
    };
    for name in bad {
        eventually("the liar is reported", async || count(name).await >= 1.0).await;
    }
    assert!(count(network.node(HONEST).name()).await.abs() < f64::EPSILON, "the honest holder was reported");
}
