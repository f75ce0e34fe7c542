//! What the lists, the door and the metrics say in the end.

use super::DemoError;
use super::run::Run;
use crate::api::SuperpeerApi;
use crate::cluster::{ClusterError, Member, MemberPlan};
use crate::record::load::Distribution;
use crate::snapshot::Snapshot;
use crate::stranger::{Answer, MEMBERS_PROTOCOLS, knock};
use crate::wait::{Look, until};
use futures::future::join_all;
use libp2p::Multiaddr;
use quarta_daemon::Role;
use quarta_protocols::ids::NetworkId;
use quarta_superpeer::api::model::{File, Held};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How long super-peers may take to hear of the last fetches.
const HEARD_DEADLINE: Duration = Duration::from_secs(20);

/// A held file as the lists tell it: name, size, SHA-256, and whether all of it is there.
type Entry = (String, u64, String, bool);

impl Run {
    /// Every node holds everything, and every super-peer says so, with names, sizes and checksums.
    pub(super) async fn inspect_lists(&mut self) -> Result<(), DemoError> {
        let expected: BTreeSet<Entry> = self
            .files
            .iter()
            .map(|shared| (shared.file.name.clone(), shared.original.size_bytes, shared.sha256.clone(), true))
            .collect();
        let nodes = self.nodes()?;
        let superpeers: Vec<SuperpeerApi> = self.cluster()?.superpeers().map(Member::superpeer).collect();
        let listed = until(HEARD_DEADLINE, async || {
            for superpeer in &superpeers {
                for node in &nodes {
                    match superpeer.held(node).await {
                        Ok(held) if entries(&held) == expected => {}
                        Ok(held) => {
                            let (who, files) = (superpeer.member(), held.len());
                            return Look::NotYet(format!("{who} lists {files} files of {node}, or others"));
                        }
                        Err(error) => return Look::failed(error),
                    }
                }
            }
            Look::Holds(())
        })
        .await;
        let found = match listed {
            Ok(_) => Ok(format!("{} lists of {} files", superpeers.len() * nodes.len(), expected.len())),
            Err(late) => Err(late.to_string()),
        };
        self.journal.check("every super-peer has every node's list: names, sizes and SHA-256", found)?;

        let found = match self.lists_of_the_command(&expected).await? {
            None => Ok("`quarta-superpeer files --holder` at each".to_owned()),
            Some(wrong) => Err(wrong),
        };
        self.journal.check("the command prints the same lists", found)?;

        let mut catalogs = Vec::new();
        for superpeer in &superpeers {
            catalogs.push(superpeer.files().await?.into_iter().map(comparable).collect::<BTreeSet<_>>());
        }
        let holders_missing = catalogs
            .iter()
            .flatten()
            .find(|(.., holders)| holders.len() != nodes.len())
            .map(|(_, name, ..)| format!("{name} has not all nodes as holders"));
        let found = match holders_missing {
            Some(missing) => Err(missing),
            None if catalogs.windows(2).all(|pair| pair[0] == pair[1]) => {
                Ok(format!("{} catalogs of {} files", catalogs.len(), expected.len()))
            }
            None => Err("they differ".to_owned()),
        };
        Ok(self
            .journal
            .check("the super-peers' catalogs are equal and name every node as a holder", found)?)
    }

    /// Asks each super-peer by its command; answers the first list that is wrong.
    async fn lists_of_the_command(&self, expected: &BTreeSet<Entry>) -> Result<Option<String>, DemoError> {
        for superpeer in self.cluster()?.superpeers() {
            for node in self.cluster()?.nodes() {
                let printed = superpeer.succeed(&["files", "--holder", node.name(), "--json"], "").await?;
                let held: Result<Vec<Held>, _> = printed.lines().map(serde_json::from_str).collect();
                match held {
                    Ok(held) if entries(&held) == *expected => {}
                    Ok(_) => {
                        return Ok(Some(format!("{} about {} is another", superpeer.name(), node.name())));
                    }
                    Err(error) => return Ok(Some(format!("{} prints no list: {error}", superpeer.name()))),
                }
            }
        }
        Ok(None)
    }

    /// Nobody gets in with a spent invite, and nobody without a credential is answered.
    pub(super) async fn refuse_strangers(&mut self) -> Result<(), DemoError> {
        let plan = MemberPlan {
            name: "intruso".to_owned(),
            role: Role::Node,
            ip: Ipv4Addr::LOCALHOST,
            through: Vec::new(),
            serve_args: Vec::new(),
        };
        let intruder = self.cluster()?.outsider(plan)?;
        let output =
            intruder.run(&["join", "-", "--name", "intruso"], self.cluster()?.spent_invite()).await?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let found = if output.status.success() {
            Err("it was admitted".to_owned())
        } else if intruder.data().exists() {
            Err("it was refused and a data folder was left".to_owned())
        } else {
            Ok(said)
        };
        self.journal.check("an invite whose uses are spent admits nobody and leaves nothing", found)?;

        let (network, doors) = self.doors().await?;
        let knocks = doors.iter().flat_map(|(name, address)| {
            MEMBERS_PROTOCOLS.map(|protocol| {
                let network = &network;
                async move { (name, protocol, knock(address.clone(), network, protocol).await) }
            })
        });
        let mut answered = None;
        let mut knocked = 0;
        for (name, protocol, answer) in join_all(knocks).await {
            match answer {
                Ok(Answer::Refused(_)) => knocked += 1,
                Ok(Answer::Answered { bytes }) => {
                    answered = Some(format!("{name} answered on {protocol} with {bytes} bytes"));
                }
                Err(error) => answered = Some(format!("{name}, {protocol}: {error}")),
            }
        }
        let found = answered.map_or_else(|| Ok(format!("{knocked} knocks at {} members", doors.len())), Err);
        Ok(self.journal.check("a stranger without a credential is connected and answered nothing", found)?)
    }

    /// The network's id, and the TCP addresses of a super-peer and a node.
    async fn doors(&self) -> Result<(NetworkId, Vec<(String, Multiaddr)>), DemoError> {
        let cluster = self.cluster()?;
        let superpeer =
            cluster.superpeers().next().ok_or_else(|| ClusterError::Unknown("a super-peer".to_owned()))?;
        let network = superpeer.superpeer().status().await?.network;
        let network = network.parse().map_err(|error| ClusterError::Http {
            member: superpeer.name().to_owned(),
            path: "/api/v1/status",
            why: format!("its network id is none: {error}"),
        })?;
        let door = |member: &Member| {
            let address = Multiaddr::empty()
                .with(Ipv4Addr::LOCALHOST.into())
                .with(libp2p::multiaddr::Protocol::Tcp(member.peer_port()));
            (member.name().to_owned(), address)
        };
        Ok((network, [Some(superpeer), cluster.nodes().next()].into_iter().flatten().map(door).collect()))
    }

    /// Every member's metrics agree with what was seen, and show how the work was spread.
    pub(super) async fn inspect_metrics(&mut self) -> Result<(), DemoError> {
        self.after = Snapshot::take(self.cluster()?).await?;
        let nodes = self.nodes()?;
        let offered = self.after.offered(&nodes);
        let load = Distribution::new(&nodes, &offered, &self.journal.record().transfers);

        // A node that was killed counts from its restart.
        let whole = load.holders.iter().filter(|holder| Some(&holder.name) != self.returned.as_ref());
        let mut short = None;
        for holder in whole {
            let exposition = self.after.member(&holder.name);
            let told = |family| exposition.and_then(|parsed| parsed.sum(family)).unwrap_or_default();
            let served = told("quarta_node_served_bytes_total");
            let fetched = told("quarta_node_fetched_bytes_total");
            if served < holder.served_bytes as f64 || fetched <= 0.0 {
                short = Some(format!("{} tells {served} served and {fetched} fetched", holder.name));
            }
        }
        let found = short.map_or_else(|| Ok(format!("at {} nodes", nodes.len())), Err);
        self.journal.check("nodes' metrics tell at least the bytes that others got from them", found)?;

        let fairness: Vec<f64> = self
            .after
            .superpeers()
            .filter_map(|parsed| parsed.sum("quarta_superpeer_served_fairness_ratio"))
            .collect();
        let removals: f64 =
            self.after.superpeers().filter_map(|parsed| parsed.sum("quarta_superpeer_removals_total")).sum();
        let returns: f64 =
            self.after.superpeers().filter_map(|parsed| parsed.sum("quarta_superpeer_returns_total")).sum();
        let all_offered: u64 = offered.values().sum();
        let fair = fairness.len() == self.cluster()?.superpeers().count()
            && fairness.iter().all(|ratio| *ratio > 0.0 && *ratio <= 1.0);
        let found = format!(
            "{all_offered} offers, {removals} removals, {returns} returns, fairness {}",
            fairness.iter().map(|ratio| format!("{ratio:.2}")).collect::<Vec<_>>().join(" and ")
        );
        let good = fair && all_offered > 0 && removals >= 1.0 && returns >= 1.0;
        self.journal.check(
            "super-peers' metrics tell offers, the removal, the return and a fairness of bytes served",
            if good { Ok(found) } else { Err(found) },
        )?;
        self.journal.load(load);
        Ok(())
    }
}

fn entries(held: &[Held]) -> BTreeSet<Entry> {
    let entry = |held: &Held| {
        let (name, sha256) = (held.name.clone(), held.sha256.clone());
        (name.unwrap_or_default(), held.size_bytes, sha256.unwrap_or_default(), held.complete)
    };
    held.iter().map(entry).collect()
}

/// What of a file must be the same at all super-peers; holders are in no particular order.
fn comparable(file: File) -> (String, String, String, u64, Option<String>, BTreeSet<String>) {
    (file.id, file.name, file.owner, file.size_bytes, file.sha256, file.holders.into_iter().collect())
}
