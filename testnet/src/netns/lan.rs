//! Hosts on one bridge, and cuts between them.

use super::namespace::{Namespace, NetnsError};
use crate::cluster::{MemberPlan, Plan, Programs};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

/// The network's part of all addresses: a range for documentation (RFC 5737), which no real network has.
const NETWORK: [u8; 3] = [198, 51, 100];
/// Most hosts of a network: one byte of the address, without the first and the last.
pub const HOSTS_MAX: usize = 254;

/// What a limited line sends at once. Smaller than what the kernel joins to one large frame, so that frames pass one by
/// one, as on a wire, and are lost one by one too.
const BURST_BYTES: u32 = 16 * 1024;
/// How long a frame waits at most where a line is limited: a queue as routers of offices have it.
const QUEUE_MS: u32 = 50;

/// What the bridge does with frames: those between a pair of its ports in `cuts` are dropped, ARP too.
const RULES: &str = "table bridge lan {
  set cuts {
    type ifname . ifname
  }
  chain forward {
    type filter hook forward priority 0; policy accept;
    iifname . oifname @cuts drop
  }
}
";

/// A network of hosts, each a namespace of its own. Gone when dropped and no member runs on it any more.
#[derive(Debug)]
pub struct Lan {
    switch: Namespace,
    hosts: Vec<Host>,
    /// Pairs of ports between which nothing passes, from the first to the second.
    cuts: Mutex<BTreeSet<(usize, usize)>>,
}

#[derive(Debug)]
struct Host {
    name: String,
    namespace: Namespace,
}

impl Lan {
    /// Makes a network with a host for every member of `plan` and for every one of `others`, who may come later. Blocks
    /// for some milliseconds a host.
    ///
    /// # Errors
    /// [`NetnsError`], most likely because this user is not root.
    pub fn new(plan: &Plan, others: &[&str]) -> Result<Self, NetnsError> {
        let names = plan.members.iter().map(|member| member.name.as_str()).chain(others.iter().copied());
        Self::of(&plan.programs, names.map(ToOwned::to_owned).collect())
    }

    fn of(programs: &Programs, names: Vec<String>) -> Result<Self, NetnsError> {
        if names.len() > HOSTS_MAX {
            return Err(NetnsError::TooMany(names.len()));
        }
        let mut namespaces = Namespace::make(programs.launcher(), names.len() + 1)?.into_iter();
        let switch =
            namespaces.next().ok_or_else(|| NetnsError::NoNamespace { why: "none was made".to_owned() })?;
        let hosts: Vec<_> =
            names.into_iter().zip(namespaces).map(|(name, namespace)| Host { name, namespace }).collect();
        let mut cables = "link add br0 type bridge\nlink set br0 up\n".to_owned();
        for (index, host) in hosts.iter().enumerate() {
            // Writing to a String does not fail.
            let pid = host.namespace.pid();
            let _ = writeln!(cables, "link add p{index} type veth peer name eth0 netns {pid}");
            let _ = writeln!(cables, "link set p{index} master br0 up");
        }
        switch.run(&["ip", "-batch", "-"], &cables)?;
        switch.run(&["nft", "-f", "-"], RULES)?;
        for (index, host) in hosts.iter().enumerate() {
            let address = address(index);
            let inside = format!("addr add {address}/24 dev eth0\nlink set eth0 up\nlink set lo up\n");
            host.namespace.run(&["ip", "-batch", "-"], &inside)?;
        }
        Ok(Self { switch, hosts, cuts: Mutex::default() })
    }

    /// Puts every member of a plan onto the host of its name.
    ///
    /// # Errors
    /// [`NetnsError::Unknown`].
    pub fn place(&self, plan: &mut Plan) -> Result<(), NetnsError> {
        plan.members.iter_mut().try_for_each(|member| self.place_member(member))
    }

    /// Puts a member onto the host of its name, in front of what it runs through already.
    ///
    /// # Errors
    /// [`NetnsError::Unknown`].
    pub fn place_member(&self, member: &mut MemberPlan) -> Result<(), NetnsError> {
        member.ip = self.address(&member.name)?;
        member.through.splice(0..0, self.enter(&member.name)?);
        Ok(())
    }

    /// The address of the host of this name.
    ///
    /// # Errors
    /// [`NetnsError::Unknown`].
    pub fn address(&self, name: &str) -> Result<Ipv4Addr, NetnsError> {
        self.index(name).map(address)
    }

    /// A program with arguments that becomes, on the host of this name, the one named after it.
    ///
    /// # Errors
    /// [`NetnsError::Unknown`].
    pub fn enter(&self, name: &str) -> Result<Vec<OsString>, NetnsError> {
        Ok(self.hosts[self.index(name)?].namespace.enter())
    }

    /// Limits what a host sends, in bits a second with all headers.
    ///
    /// # Errors
    /// [`NetnsError`], from `tc` too.
    pub fn limit_sending(&self, name: &str, bits_per_second: u64) -> Result<(), NetnsError> {
        limit(&self.hosts[self.index(name)?].namespace, "eth0", bits_per_second)
    }

    /// Limits what a host receives, in bits a second with all headers.
    ///
    /// # Errors
    /// [`NetnsError`], from `tc` too.
    pub fn limit_receiving(&self, name: &str, bits_per_second: u64) -> Result<(), NetnsError> {
        limit(&self.switch, &format!("p{}", self.index(name)?), bits_per_second)
    }

    /// From now on every frame is lost with this probability, in hundredths, between any two hosts.
    ///
    /// # Errors
    /// [`NetnsError`] from `nft`.
    pub fn lose(&self, per_cent: u32) -> Result<(), NetnsError> {
        let rule = format!("add rule bridge lan forward numgen random mod 100 < {per_cent} drop\n");
        self.switch.run(&["nft", "-f", "-"], &rule)
    }

    /// Cuts every one of `some` from every one of `others`, in both directions, beside the cuts that are there.
    ///
    /// # Errors
    /// [`NetnsError::Unknown`], or [`NetnsError`] from `nft`; nothing is cut then that was not before.
    pub fn cut(&self, some: &[&str], others: &[&str]) -> Result<(), NetnsError> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut more = cuts.clone();
        for one in some {
            for other in others {
                let (one, other) = (self.index(one)?, self.index(other)?);
                more.extend([(one, other), (other, one)]);
            }
        }
        self.apply(&more)?;
        *cuts = more;
        Ok(())
    }

    /// Cuts one host off from all others.
    ///
    /// # Errors
    /// As [`Lan::cut`].
    pub fn cut_off(&self, name: &str) -> Result<(), NetnsError> {
        let others: Vec<_> =
            self.hosts.iter().map(|host| host.name.as_str()).filter(|other| *other != name).collect();
        self.cut(&[name], &others)
    }

    /// Undoes all cuts.
    ///
    /// # Errors
    /// [`NetnsError`] from `nft`.
    pub fn heal(&self) -> Result<(), NetnsError> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        self.apply(&BTreeSet::new())?;
        cuts.clear();
        Ok(())
    }

    fn apply(&self, cuts: &BTreeSet<(usize, usize)>) -> Result<(), NetnsError> {
        self.switch.run(&["nft", "-f", "-"], &replacing(cuts))
    }

    fn index(&self, name: &str) -> Result<usize, NetnsError> {
        let found = self.hosts.iter().position(|host| host.name == name);
        found.ok_or_else(|| NetnsError::Unknown(name.to_owned()))
    }
}

/// Lets an interface send no faster than this.
fn limit(within: &Namespace, interface: &str, bits_per_second: u64) -> Result<(), NetnsError> {
    let bucket = format!("burst {BURST_BYTES} latency {QUEUE_MS}ms");
    let line = format!("qdisc replace dev {interface} root tbf rate {bits_per_second}bit {bucket}\n");
    within.run(&["tc", "-batch", "-"], &line)
}

/// What makes `nft` replace all cuts by these, at once.
fn replacing(cuts: &BTreeSet<(usize, usize)>) -> String {
    let mut commands = "flush set bridge lan cuts\n".to_owned();
    if !cuts.is_empty() {
        let pairs: Vec<_> = cuts.iter().map(|(from, to)| format!("\"p{from}\" . \"p{to}\"")).collect();
        let _ = writeln!(commands, "add element bridge lan cuts {{ {} }}", pairs.join(", "));
    }
    commands
}

/// The address of the host with this index, which is below [`HOSTS_MAX`].
fn address(index: usize) -> Ipv4Addr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, u8::try_from(index + 1).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_has_an_address_of_its_own_that_is_no_broadcast() {
        let addresses: BTreeSet<_> = (0..HOSTS_MAX).map(address).collect();
        assert_eq!(addresses.len(), HOSTS_MAX);
        assert!(addresses.iter().all(|address| address.is_documentation() && address.octets()[3] != 255));
    }

    #[test]
    fn cuts_replace_the_ones_before_in_one_transaction() {
        assert_eq!(replacing(&BTreeSet::new()), "flush set bridge lan cuts\n");
        let commands = replacing(&BTreeSet::from([(0, 2), (2, 0)]));
        let expected = "flush set bridge lan cuts\n\
                        add element bridge lan cuts { \"p0\" . \"p2\", \"p2\" . \"p0\" }\n";
        assert_eq!(commands, expected);
    }

    #[test]
    fn too_many_hosts_are_refused_before_anything_is_made() {
        let names = vec![String::new(); HOSTS_MAX + 1];
        let made = Lan::of(&Programs::this_executable().unwrap(), names);
        assert!(matches!(made, Err(NetnsError::TooMany(255))));
    }
}
