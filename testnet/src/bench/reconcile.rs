//! How long super-peers take to agree again after a partition in which both sides were written to, and what that costs
//! on the wire.
//!
//! Three super-peers run as processes on hosts of their own ([`crate::netns`]), with a guest on each side that publishes
//! records of files that nobody holds. The network falls into one super-peer and two, both sides take writes, the cut is
//! healed, and the time counts from then until all three name the same digest: finding each other again included. The
//! bytes are those that left the three hosts meanwhile, with all headers, handshakes, pings and whatever else was said.

use super::writer::Writer;
use crate::cluster::{Cluster, ClusterError, Member, MemberPlan, Plan, Programs};
use crate::netns::Lan;
use crate::wait::{Look, until};
use quarta_daemon::Role;
use quarta_daemon::cli::{ExitCode, Failure};
use quarta_daemon::data_dir::{DataDir, Role as DataRole};
use quarta_daemon::identity::Identity;
use quarta_protocols::cbor;
use quarta_protocols::messages::sync::{Entry, Kind};
use quarta_superpeer::api::model::Status;
use quarta_superpeer::catalog::Catalog;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What is to be reached: all super-peers agree within this.
pub const TIME_TO_REACH: Duration = Duration::from_secs(5);
/// What is to be reached: no more bytes than this many times those of the differing entries ...
pub const TIMES_THE_ENTRIES: u64 = 4;
/// ... and these.
pub const BYTES_BESIDE: u64 = 64 * 1024;

/// The guests, one for each side.
const WRITERS: [&str; 2] = ["filial-acervo", "filial-beira"];
/// How long an invite needs to live for one guest.
const INVITE_LIFETIME: Duration = Duration::from_mins(10);
/// How long is waited for what has no bound of its own: the first spreading of all records, that a cut is noticed.
const DEADLINE: Duration = Duration::from_mins(10);

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Records that all have before.
    pub records: u32,
    /// Records that each side takes while they are apart.
    pub writes: u32,
}

/// What came out.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// From the healing until all agreed.
    pub took: Duration,
    /// What left the super-peers' hosts meanwhile, in bytes.
    pub wire_bytes: u64,
    /// Entries that one of the sides lacked.
    pub entries: u64,
    /// Their bytes as they travel: payload and stamp.
    pub entry_bytes: u64,
    /// The bytes of the files' records among them, without stamps and the audit trail.
    pub record_bytes: u64,
}

impl Measured {
    /// What the wire may carry, in bytes.
    pub const fn wire_bytes_max(&self) -> u64 {
        TIMES_THE_ENTRIES * self.entry_bytes + BYTES_BESIDE
    }

    /// Whether both bounds hold.
    pub fn reached(&self) -> bool {
        self.took <= TIME_TO_REACH && self.wire_bytes <= self.wire_bytes_max()
    }
}

/// Runs the benchmark as a command.
///
/// # Errors
/// A [`Failure`] where it cannot be run, for instance without the right to make network namespaces.
pub async fn run(options: Options) -> Result<ExitCode, Failure> {
    let home = crate::up::temporary("quarta-bench-")?;
    let programs = Programs::this_executable().map_err(ClusterError::system("find this program"));
    let mut plan = plan(home.path(), programs.map_err(|e| Failure::told(&e))?);
    let lan = Lan::new(&plan, &WRITERS).map_err(|e| Failure::told(&e))?;
    let measured = measure(&lan, &mut plan, options, |step| eprintln!("{step}"));
    let measured = measured.await.map_err(|e| Failure::told(&e))?;
    println!("{} records, {} writes on each side", options.records, options.writes);
    println!("agreed after {:.2} s, to reach {} s", measured.took.as_secs_f64(), TIME_TO_REACH.as_secs());
    println!(
        "{} bytes on the wire, to reach {}: {} differing entries have {} bytes, the files' records among them {}",
        measured.wire_bytes,
        measured.wire_bytes_max(),
        measured.entries,
        measured.entry_bytes,
        measured.record_bytes
    );
    println!("{}", if measured.reached() { "reached" } else { "missed" });
    Ok(if measured.reached() { ExitCode::Success } else { ExitCode::Failure })
}

/// Three super-peers that are yet to be put onto their hosts.
pub fn plan(home: &Path, programs: Programs) -> Plan {
    Plan::new(home.join("net"), programs, 3, 0)
}

/// The names of the guests, who need hosts of their own.
pub const fn writers() -> [&'static str; 2] {
    WRITERS
}

/// Starts the planned super-peers on `lan` and measures; `told` hears how far it is.
///
/// # Errors
/// [`ClusterError`].
pub async fn measure(
    lan: &Lan,
    plan: &mut Plan,
    options: Options,
    mut told: impl FnMut(&str),
) -> Result<Measured, ClusterError> {
    lan.place(plan).map_err(apart)?;
    let (dir, programs) = (plan.dir.clone(), plan.programs.clone());
    let cluster = Cluster::start(plan.clone(), &mut told).await?;
    let superpeers: Vec<&Member> = cluster.superpeers().collect();
    let [one, two, three] = superpeers[..] else { return Err(ClusterError::Unknown("central-3".to_owned())) };
    let mut writers = Vec::with_capacity(WRITERS.len());
    for (name, superpeer) in WRITERS.into_iter().zip([one, three]) {
        let mut writer = MemberPlan {
            name: name.to_owned(),
            role: Role::Node,
            ip: Ipv4Addr::LOCALHOST,
            through: Vec::new(),
            serve_args: Vec::new(),
        };
        lan.place_member(&mut writer).map_err(apart)?;
        let invite = superpeer.superpeer().invite("node", 1, INVITE_LIFETIME).await?.invite;
        writers.push(Writer::join(&programs, &writer, &dir, &invite).await?);
    }
    let [here, there] = &mut writers[..] else { return Err(ClusterError::Unknown(WRITERS[1].to_owned())) };

    told(&format!("publishing {} records", options.records));
    here.publish(0, options.records).await?;
    agreed(&superpeers).await?;
    told("cutting the first super-peer off from the other two");
    lan.cut(&[one.name(), WRITERS[0]], &[two.name(), three.name(), WRITERS[1]]).map_err(apart)?;
    connected(one, 0).await?;
    connected(three, 1).await?;
    told(&format!("publishing {} records on each side", options.writes));
    let since_ms = wall_ms();
    let (first, second) =
        tokio::join!(here.publish(options.records, options.writes), there.publish(0, options.writes));
    first.and(second)?;
    agreed(&superpeers[1..]).await?;
    let mine = digest(one).await?;
    if mine == digest(three).await? {
        return Err(failed("both sides have the same records", "the cut did not hold"));
    }

    told("healing the cut");
    let before = sent_bytes(&superpeers)?;
    lan.heal().map_err(apart)?;
    let healed = Instant::now();
    let at = agreed(&superpeers).await?;
    let wire_bytes = sent_bytes(&superpeers)?.saturating_sub(before);
    let data = one.data().to_owned();
    drop(writers);
    cluster.stop().await?;
    let took = at.saturating_duration_since(healed);
    let mut measured = Measured { took, wire_bytes, entries: 0, entry_bytes: 0, record_bytes: 0 };
    for entry in written_since(&data, since_ms)? {
        measured.entries += 1;
        measured.entry_bytes += cbor::to_vec(&entry).len() as u64;
        if entry.kind == Kind::FILE {
            measured.record_bytes += entry.payload.len() as u64;
        }
    }
    Ok(measured)
}

/// Waits until these super-peers name the same digest, and answers when that was seen.
async fn agreed(superpeers: &[&Member]) -> Result<Instant, ClusterError> {
    let look = async || {
        let mut digests = Vec::with_capacity(superpeers.len());
        for superpeer in superpeers {
            match digest(superpeer).await {
                Ok(digest) => digests.push(digest),
                Err(error) => return Look::failed(error),
            }
        }
        let same = digests.windows(2).all(|pair| pair[0] == pair[1]);
        Look::of(same.then_some(()), || format!("the catalogs come to {digests:?}"))
    };
    let ((), at) = until(DEADLINE, look).await.map_err(ClusterError::Apart)?;
    Ok(at)
}

/// Waits until a super-peer sees so many others.
async fn connected(superpeer: &Member, others: u64) -> Result<(), ClusterError> {
    let look = async || match status(superpeer).await {
        Ok(status) => Look::of((status.superpeers_connected == others).then_some(()), || {
            format!("{} sees {} others", superpeer.name(), status.superpeers_connected)
        }),
        Err(error) => Look::failed(error),
    };
    until(DEADLINE, look).await.map_err(ClusterError::Apart)?;
    Ok(())
}

async fn status(superpeer: &Member) -> Result<Status, ClusterError> {
    superpeer.superpeer().status().await
}

async fn digest(superpeer: &Member) -> Result<(u64, String), ClusterError> {
    let status = status(superpeer).await?;
    Ok((status.catalog_entries, status.catalog_digest))
}

/// What has left these members' hosts so far, in bytes.
fn sent_bytes(members: &[&Member]) -> Result<u64, ClusterError> {
    let mut all = 0;
    for member in members {
        let pid = member.pid().ok_or_else(|| ClusterError::Unknown(member.name().to_owned()))?;
        let what = format!("count what {} has sent", member.name());
        let counters =
            std::fs::read_to_string(format!("/proc/{pid}/net/dev")).map_err(ClusterError::system(what))?;
        let sent = sent_over(&counters, "eth0");
        all += sent.ok_or_else(|| failed("cannot count bytes", "its host has no eth0"))?;
    }
    Ok(all)
}

/// The bytes that an interface has sent, of the table that the system shows: the ninth number of its line.
fn sent_over(table: &str, interface: &str) -> Option<u64> {
    let numbers = table.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))?;
    numbers.split_whitespace().nth(8)?.parse().ok()
}

/// The entries of a stopped super-peer's catalog that were accepted since, anywhere.
fn written_since(data: &Path, since_ms: u64) -> Result<Vec<Entry>, ClusterError> {
    let broken = |why: String| failed("cannot read its catalog", &why);
    let dir = DataDir::open(data, DataRole::Superpeer).map_err(|e| broken(e.to_string()))?;
    let identity = Identity::load(&dir).map_err(|e| broken(e.to_string()))?;
    let catalog = Catalog::open(&data.join("catalog.db"), identity.trust, identity.keys.identity)
        .map_err(|e| broken(e.to_string()))?;
    let reader = catalog.reader().map_err(|e| broken(e.to_string()))?;
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let (entries, next) = reader.page(after.as_ref()).map_err(|e| broken(e.to_string()))?;
        let is_new = |entry: &Entry| entry.stamp.peek().is_ok_and(|stamp| stamp.time.millis >= since_ms);
        found.extend(entries.into_iter().filter(is_new));
        match next {
            Some(next) => after = Some(next),
            None => return Ok(found),
        }
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn apart(error: impl std::error::Error) -> ClusterError {
    failed("has no network", &error.to_string())
}

fn failed(what: &str, why: &str) -> ClusterError {
    ClusterError::Refused {
        member: "the benchmark".to_owned(),
        what: what.to_owned(),
        why: why.to_owned(),
        next_step: "see the members' logs".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interface_has_sent_is_read_from_the_systems_table() {
        let table = "Inter-|   Receive                                                |  Transmit\n \
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
             lo:     100       2    0    0    0     0          0         0      100       2    0    0    0     0       0          0\n  \
             eth0: 1234567     900    0    0    0     0          0         0  7654321     800    0    0    0     0       0          0\n";
        assert_eq!(sent_over(table, "eth0"), Some(7_654_321));
        assert_eq!(sent_over(table, "eth1"), None);
    }

    #[test]
    fn the_bound_is_four_times_the_entries_and_64_kib() {
        let mut measured = Measured {
            took: TIME_TO_REACH,
            wire_bytes: 4000 + 65_536,
            entries: 1,
            entry_bytes: 1000,
            record_bytes: 700,
        };
        assert!(measured.reached());
        measured.wire_bytes += 1;
        assert!(!measured.reached());
    }
}
