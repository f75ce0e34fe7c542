//! Whether everybody shows the same: the catalogs, members and trails of super-peers, and the listings of nodes.

use super::{DEADLINE, Network};
use quarta_testnet::cluster::{ClusterError, Member};
use quarta_testnet::wait::{Look, until};
use std::collections::BTreeSet;
use std::time::Instant;

/// What a super-peer shows that must be the same on all of them, once they have heard of each other's.
async fn shown_by_superpeer(superpeer: &Member) -> Result<BTreeSet<String>, ClusterError> {
    let mut shown = BTreeSet::new();
    for file in superpeer.superpeer().files().await? {
        let mut holders = file.holders.clone();
        holders.sort();
        shown.insert(format!(
            "file {} {} of {}, {:?}, at {holders:?}",
            file.id, file.name, file.owner, file.sha256
        ));
    }
    for member in superpeer.superpeer().members().await? {
        let (name, role, state) = (&member.name, &member.role, &member.state);
        shown.insert(format!("member {name} {}, a {role}, {state}", member.peer_id));
    }
    Ok(shown)
}

/// What a node lists of the files, and of the members.
async fn shown_by_node(node: &Member) -> Result<BTreeSet<String>, ClusterError> {
    let mut shown = BTreeSet::new();
    for file in node.node().files("").await? {
        shown.insert(format!("file {} {} of {}, {:?}", file.id, file.name, file.owner, file.sha256));
    }
    for member in node.node().members().await? {
        shown.insert(format!("member {} {}, {}", member.name, member.peer_id, member.state));
    }
    Ok(shown)
}

/// Waits until all of these members show the same, super-peers among each other and nodes among each other, and answers
/// when.
pub async fn agreement(network: &Network, members: &[&str]) -> Instant {
    let members: Vec<_> = members.iter().map(|name| network.cluster.member(name).unwrap()).collect();
    let waited = until(DEADLINE, async || {
        let (mut superpeers, mut nodes) = (Vec::new(), Vec::new());
        for member in &members {
            let is_node = member.role() == quarta_daemon::Role::Node;
            let shown = if is_node { shown_by_node(member).await } else { shown_by_superpeer(member).await };
            match shown {
                Ok(shown) => {
                    if is_node { &mut nodes } else { &mut superpeers }.push((member.name(), shown));
                }
                Err(error) => return Look::failed(error),
            }
        }
        match difference(&superpeers).or_else(|| difference(&nodes)) {
            Some(difference) => Look::NotYet(difference),
            None => Look::Holds(()),
        }
    })
    .await;
    match waited {
        Ok(((), at)) => at,
        Err(late) => panic!("they do not agree: {late}"),
    }
}

/// The first thing that one shows and the next does not, in words.
fn difference(all: &[(&str, BTreeSet<String>)]) -> Option<String> {
    all.windows(2).find_map(|pair| {
        let [(one, shown), (other, also)] = pair else { return None };
        let (here, there) = (shown.difference(also).next(), also.difference(shown).next());
        here.or(there).map(|what| {
            let (has, lacks) = if here.is_some() { (one, other) } else { (other, one) };
            format!("{has} shows and {lacks} does not: {what}")
        })
    })
}

/// Waits until the signed events of the audit trail are the same on all super-peers that run, and gives them, each as
/// its line of JSON.
pub async fn same_trail(network: &Network) -> BTreeSet<String> {
    let waited = until(DEADLINE, async || {
        let mut trails = Vec::new();
        for superpeer in network.cluster.superpeers().filter(|superpeer| superpeer.pid().is_some()) {
            match superpeer.succeed(&["log", "--signed", "--limit", "10000", "--json"], "").await {
                Ok(log) => trails.push((superpeer.name(), log.lines().map(ToOwned::to_owned).collect())),
                Err(error) => return Look::failed(error),
            }
        }
        match difference(&trails) {
            Some(difference) => Look::NotYet(difference),
            None => Look::of(trails.pop().map(|(_, trail)| trail), || "no super-peer runs".to_owned()),
        }
    })
    .await;
    waited.map_or_else(|late| panic!("the trails are not the same: {late}"), |(trail, _)| trail)
}
