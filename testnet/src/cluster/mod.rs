//! A network on this machine: every member its own process with its own data folder.
//!
//! **What is guaranteed.** Nothing is written before disk space and path lengths were checked. [`Cluster::start`] returns
//! when every member is ready, knows every super-peer and is known to each; it waits for that and never for a time. No
//! process outlives the cluster: [`Cluster::stop`] ends them in order, dropping a [`Cluster`] kills them, and a launcher
//! that is killed takes them with it (`attached`). Only processes that this cluster started are ever signalled.
//!
//! Invites go to members over stdin, so that no secret stands in a process list.

mod backup;
mod error;
mod lives;
mod member;
mod ports;
pub(crate) mod programs;
pub mod space;

pub use backup::Backup;
pub use error::ClusterError;
pub use lives::{Life, Lives};
pub use member::{Member, MemberPlan};
pub use programs::{NotBuilt, Programs};

use crate::wait::{Look, until};
use futures::future::try_join_all;
use futures::stream::{self, StreamExt, TryStreamExt};
use quarta_daemon::Role;
use quarta_daemon::http::SOCKET_FILE;
use rustix::process::Signal;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest path of a Unix socket, in bytes: `sun_path` has 108 with its terminating zero.
const SOCKET_PATH_MAX_BYTES: usize = 107;
/// How long a member may take from its start until it is ready, on a machine that builds something else too.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// How long members may take to find each other.
const MEET_DEADLINE: Duration = Duration::from_secs(30);
/// How long a member may take to end in order; longer than the grace that it gives its own open requests.
const END_GRACE: Duration = Duration::from_secs(10);
/// How many machines join at once: each is a process that also waits for others.
const JOINS_AT_ONCE: usize = 4;

/// Names of branches, so that tables read like those of a real organisation. Later ones are numbered.
const BRANCHES: [&str; 16] = [
    "recife",
    "natal",
    "belem",
    "manaus",
    "santos",
    "olinda",
    "palmas",
    "cuiaba",
    "ilheus",
    "macapa",
    "maceio",
    "goiania",
    "aracaju",
    "vitoria",
    "londrina",
    "joinville",
];

/// What a cluster is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where everything lies; new or empty.
    pub dir: PathBuf,
    /// The programs.
    pub programs: Programs,
    /// The members, super-peers first; the first of them makes the network.
    pub members: Vec<MemberPlan>,
    /// Disk space that the files to be shared will take over all members, in bytes.
    pub files_bytes: u64,
}

impl Plan {
    /// `superpeers` (at least one) and `nodes` on loopback, with everything at its default.
    pub fn new(dir: impl Into<PathBuf>, programs: Programs, superpeers: usize, nodes: usize) -> Self {
        let member = |name, role| MemberPlan {
            name,
            role,
            ip: Ipv4Addr::LOCALHOST,
            through: Vec::new(),
            serve_args: Vec::new(),
        };
        let centrals =
            (1..=superpeers.max(1)).map(|number| member(format!("central-{number}"), Role::Superpeer));
        let branches = (0..nodes).map(|number| {
            let name = BRANCHES.get(number).map_or_else(|| (number + 1).to_string(), ToString::to_string);
            member(format!("filial-{name}"), Role::Node)
        });
        Self { dir: dir.into(), programs, members: centrals.chain(branches).collect(), files_bytes: 0 }
    }

    /// The same with super-peers that poll every `interval`.
    #[must_use]
    pub fn polling_every(self, interval: Duration) -> Self {
        self.serving_with("--poll-interval", &milliseconds(interval))
    }

    /// The same with super-peers that make copies anew `grace` after a node has gone.
    #[must_use]
    pub fn repairing_after(self, grace: Duration) -> Self {
        self.serving_with("--repair-after", &milliseconds(grace))
    }

    /// The same with super-peers that keep at most so many copies of a file; with 1 it lies where people put it, and
    /// nowhere else.
    #[must_use]
    pub fn keeping_at_most(self, copies: u32) -> Self {
        self.serving_with("--max-copies", &copies.to_string())
    }

    fn serving_with(mut self, name: &str, value: &str) -> Self {
        for member in self.members.iter_mut().filter(|member| member.role == Role::Superpeer) {
            member.serve_args.extend([name, value].map(OsString::from));
        }
        self
    }

    /// Disk space that the cluster needs, in bytes.
    pub fn need_bytes(&self) -> u64 {
        self.files_bytes.saturating_add(space::MEMBER_BYTES.saturating_mul(self.members.len() as u64))
    }

    fn check(&self) -> Result<(), ClusterError> {
        let path =
            std::path::absolute(&self.dir).map_err(ClusterError::system("find the cluster's folder"))?;
        let lengths =
            self.members.iter().map(|member| path.join(&member.name).join(SOCKET_FILE).as_os_str().len());
        let length = lengths.max().unwrap_or_default();
        if length > SOCKET_PATH_MAX_BYTES {
            return Err(ClusterError::PathTooLong { path, length, max: SOCKET_PATH_MAX_BYTES });
        }
        match fs::read_dir(&path).map(|mut entries| entries.next().is_some()) {
            Ok(true) => return Err(ClusterError::NotEmpty { path }),
            Ok(false) => {}
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
            Err(cause) => {
                return Err(ClusterError::system(format!("read the folder {}", path.display()))(cause));
            }
        }
        space::require(&path, self.need_bytes())
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

/// A running network. Its processes are killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    members: Vec<Member>,
    spent_invite: String,
    lives: Lives,
}

impl Cluster {
    /// Starts all members and waits until they have found each other; `told` hears how far it is.
    ///
    /// # Errors
    /// [`ClusterError`]; no process is left then, the folder with the logs is.
    pub async fn start(plan: Plan, mut told: impl FnMut(&str)) -> Result<Self, ClusterError> {
        plan.check()?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&plan.dir)
            .map_err(ClusterError::system(format!("make the folder {}", plan.dir.display())))?;
        let dir =
            std::path::absolute(&plan.dir).map_err(ClusterError::system("find the cluster's folder"))?;
        let lives = Lives::default();
        let members = plan
            .members
            .into_iter()
            .map(|member| Member::new(member, &dir, plan.programs.clone(), lives.clone()))
            .collect::<Result<_, _>>()?;
        let mut cluster = Self { dir, members, spent_invite: String::new(), lives };

        let first =
            cluster.members.first_mut().ok_or_else(|| ClusterError::Unknown("central-1".to_owned()))?;
        let mut init = vec!["init".into(), "--name".into(), OsString::from(first.name())];
        init.extend(first.listen_args());
        first.succeed(&init, "").await?;
        first.start()?;
        ready(first).await?;
        told(&format!("{} made the network", first.name()));

        cluster.admit(Role::Superpeer).await?;
        cluster.admit(Role::Node).await?;
        told(&format!("{} members joined with invites and are starting", cluster.members.len() - 1));
        try_join_all(cluster.members.iter().map(ready)).await?;
        cluster.meet().await?;
        told("every member is ready and knows the others");
        Ok(cluster)
    }

    /// Lets the members of one role join, with one invite of exactly as many uses, and starts them.
    async fn admit(&mut self, role: Role) -> Result<(), ClusterError> {
        let joiners: Vec<usize> =
            (1..self.members.len()).filter(|index| self.members[*index].role() == role).collect();
        if joiners.is_empty() {
            return Ok(());
        }
        let uses = u32::try_from(joiners.len()).unwrap_or(u32::MAX);
        let invite =
            self.members[0].superpeer().invite(role.as_str(), uses, Duration::from_hours(1)).await?.invite;
        stream::iter(&joiners)
            .map(|index| join(&self.members[*index], &invite))
            .buffer_unordered(JOINS_AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        for index in joiners {
            self.members[index].start()?;
        }
        self.spent_invite = invite;
        Ok(())
    }

    /// Waits until every member knows every super-peer and is known to each.
    async fn meet(&self) -> Result<(), ClusterError> {
        let (superpeers, nodes) = (self.superpeers().count(), self.nodes().count());
        let ((), _) = until(MEET_DEADLINE, async || {
            for member in self.superpeers() {
                match member.superpeer().status().await {
                    Ok(status) if status.superpeers_connected + 1 < superpeers as u64 => {
                        return Look::NotYet(format!("{} lacks another super-peer", member.name()));
                    }
                    Ok(status) if status.nodes_online < nodes as u64 => {
                        return Look::NotYet(format!("{} sees {} nodes", member.name(), status.nodes_online));
                    }
                    Ok(_) => {}
                    Err(error) => return Look::failed(error),
                }
            }
            for member in self.nodes() {
                match member.node().status().await {
                    Ok(status) if registered(&status) < superpeers => {
                        let missing = superpeers - registered(&status);
                        return Look::NotYet(format!("{} lacks {missing} super-peer(s)", member.name()));
                    }
                    Ok(_) => {}
                    Err(error) => return Look::failed(error),
                }
            }
            Look::Holds(())
        })
        .await
        .map_err(ClusterError::Apart)?;
        Ok(())
    }

    /// The folder that holds everything.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All members, super-peers first.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The super-peers.
    pub fn superpeers(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.role() == Role::Superpeer)
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.role() == Role::Node)
    }

    /// A member by its name.
    ///
    /// # Errors
    /// [`ClusterError::Unknown`].
    pub fn member(&self, name: &str) -> Result<&Member, ClusterError> {
        self.members
            .iter()
            .find(|member| member.name() == name)
            .ok_or_else(|| ClusterError::Unknown(name.to_owned()))
    }

    fn member_mut(&mut self, name: &str) -> Result<&mut Member, ClusterError> {
        self.members
            .iter_mut()
            .find(|member| member.name() == name)
            .ok_or_else(|| ClusterError::Unknown(name.to_owned()))
    }

    /// When which member's process ran; goes on telling when the cluster is gone.
    pub fn lives(&self) -> Lives {
        self.lives.clone()
    }

    /// The invite with which the last members joined; all its uses are spent.
    pub fn spent_invite(&self) -> &str {
        &self.spent_invite
    }

    /// A data folder and ports for somebody who is no member, beside the members' own.
    ///
    /// # Errors
    /// [`ClusterError::NoPort`].
    pub fn outsider(&self, plan: MemberPlan) -> Result<Member, ClusterError> {
        let programs =
            self.members.first().ok_or_else(|| ClusterError::Unknown(plan.name.clone()))?.programs();
        Member::new(plan, &self.dir, programs, Lives::default())
    }

    /// Kills a member's process (SIGKILL) and waits for its end.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn kill(&mut self, name: &str) -> Result<(), ClusterError> {
        self.member_mut(name)?.kill().await
    }

    /// Ends a member's process in order. Answers whether it ended by itself and with success.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn end(&mut self, name: &str) -> Result<bool, ClusterError> {
        self.member_mut(name)?.end(END_GRACE).await
    }

    /// Stops a member's process without ending it (SIGSTOP): it falls silent with its connections open.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn freeze(&self, name: &str) -> Result<(), ClusterError> {
        self.member(name)?.signal(Signal::STOP)
    }

    /// Lets a frozen member run on (SIGCONT).
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn thaw(&self, name: &str) -> Result<(), ClusterError> {
        self.member(name)?.signal(Signal::CONT)
    }

    /// Starts a member's daemon on its data folder as it is; does not wait until it is ready.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn restart(&mut self, name: &str) -> Result<(), ClusterError> {
        self.member_mut(name)?.start()
    }

    /// Copies a member's data folder as it is at one moment: one that runs is frozen meanwhile, so that the copy is what
    /// a power loss would leave.
    ///
    /// # Errors
    /// [`ClusterError`]; the member runs on then too.
    pub async fn back_up(&self, name: &str) -> Result<Backup, ClusterError> {
        let member = self.member(name)?;
        member.stop().await?;
        let backup = Backup::of(name, member.data(), &self.dir);
        member.signal(Signal::CONT)?;
        backup
    }

    /// Kills the member of a backup and puts the copy in the place of its data folder; does not start it.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn restore(&mut self, backup: &Backup) -> Result<(), ClusterError> {
        let member = self.member_mut(backup.member())?;
        member.kill().await?;
        backup.bring_back(member.data())
    }

    /// Lets somebody new join with an invite, starts its daemon and makes it one of the members; does not wait until it
    /// is ready.
    ///
    /// # Errors
    /// [`ClusterError`]; nothing runs then.
    pub async fn join(&mut self, plan: MemberPlan, invite: &str) -> Result<(), ClusterError> {
        let programs =
            self.members.first().ok_or_else(|| ClusterError::Unknown(plan.name.clone()))?.programs();
        let mut member = Member::new(plan, &self.dir, programs, self.lives.clone())?;
        join(&member, invite).await?;
        member.start()?;
        self.members.push(member);
        Ok(())
    }

    /// Waits until a member is ready.
    ///
    /// # Errors
    /// [`ClusterError::Ended`], [`ClusterError::NotReady`].
    pub async fn ready(&self, name: &str) -> Result<(), ClusterError> {
        ready(self.member(name)?).await
    }

    /// Ends all members in order, nodes first. Answers the names of those that did not end by themselves and with
    /// success.
    ///
    /// # Errors
    /// [`ClusterError`] when a process cannot be ended; the others are killed then.
    pub async fn stop(mut self) -> Result<Vec<String>, ClusterError> {
        let mut unclean = Vec::new();
        for role in [Role::Node, Role::Superpeer] {
            let ended = self.members.iter_mut().filter(|member| member.role() == role).map(async |member| {
                let clean = member.end(END_GRACE).await?;
                Ok((member.name().to_owned(), clean))
            });
            let ended = try_join_all(ended).await?;
            unclean.extend(ended.into_iter().filter(|(_, clean)| !clean).map(|(name, _)| name));
        }
        Ok(unclean)
    }
}

/// To how many super-peers a node is connected and has told its list.
pub fn registered(status: &quarta_node::api::model::Status) -> usize {
    status.superpeers.iter().filter(|superpeer| superpeer.connected && superpeer.registered).count()
}

/// Makes `member` a member with `invite`.
async fn join(member: &Member, invite: &str) -> Result<(), ClusterError> {
    let mut args = vec!["join".into(), "-".into(), "--name".into(), OsString::from(member.name())];
    args.extend(member.listen_args());
    member.succeed(&args, invite).await.map(drop)
}

/// Waits until a member's daemon says that it is ready.
async fn ready(member: &Member) -> Result<(), ClusterError> {
    let waited = until(READY_DEADLINE, async || {
        // One that has ended will never be ready.
        if let Err(ended) = member.still_runs().await {
            return Look::Holds(Err(ended));
        }
        match member.client().download("/readyz").await {
            Ok(_) => Look::Holds(Ok(())),
            Err(error) => Look::failed(error),
        }
    })
    .await;
    match waited {
        Ok((ready, _)) => ready,
        Err(late) => Err(ClusterError::NotReady {
            member: member.name().to_owned(),
            late,
            path: member.log().to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(dir: &Path, nodes: usize) -> Plan {
        Plan::new(dir, Programs::this_executable().unwrap(), 2, nodes)
    }

    #[test]
    fn super_peers_come_first_and_names_are_distinct() {
        let plan = plan(Path::new("/x"), 40);
        assert_eq!(plan.members.iter().filter(|member| member.role == Role::Superpeer).count(), 2);
        assert!(plan.members[..2].iter().all(|member| member.role == Role::Superpeer));
        let names: std::collections::HashSet<_> = plan.members.iter().map(|member| &member.name).collect();
        assert_eq!(names.len(), 42);
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused_before_anything_is_written() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("x".repeat(100));
        assert!(matches!(plan(&dir, 1).check(), Err(ClusterError::PathTooLong { .. })));
        assert!(!dir.exists());
    }

    #[test]
    fn a_folder_with_something_in_it_is_refused() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("thesis.txt"), "").unwrap();
        assert!(matches!(plan(home.path(), 1).check(), Err(ClusterError::NotEmpty { .. })));
    }

    #[test]
    fn too_little_disk_is_told_before_anything_is_written() {
        let home = tempfile::tempdir().unwrap();
        let plan = Plan { files_bytes: u64::MAX, ..plan(&home.path().join("c"), 1) };
        assert!(matches!(plan.check(), Err(ClusterError::NoSpace { .. })));
    }

    proptest! {
        #[test]
        fn every_planned_name_is_a_valid_member_name(superpeers in 1_usize..9, nodes in 0_usize..60) {
            for member in Plan::new("/x", Programs::this_executable().unwrap(), superpeers, nodes).members {
                prop_assert!(quarta_protocols::names::MemberName::new(&member.name).is_ok());
            }
        }
    }
}
