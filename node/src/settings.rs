//! What a branch decided for its node: `settings.toml` in the data folder.

use libp2p::Multiaddr;
use quarta_daemon::reach::{Reach, default_listen};
use serde::{Deserialize, Serialize};

use crate::throttle::timetable::{Period, Plan};

/// The TCP and UDP port for members.
pub const DEFAULT_PORT: u16 = 7481;
/// The HTTP address.
pub const DEFAULT_HTTP: &str = "127.0.0.1:7480";
/// Uploads served at once: enough to keep an office line busy, few enough that each gets on.
pub const DEFAULT_UPLOAD_SLOTS: u32 = 16;
/// Days for which the trash keeps what is in it: longer than the longest holidays.
pub const DEFAULT_TRASH_RETENTION_DAYS: u32 = 30;
/// What the check of the library reads, in bytes a second: a twentieth of a hard disk's rate, and two terabytes in three
/// days.
pub const DEFAULT_LIBRARY_SCRUB_BYTES_PER_SECOND: u64 = 8 * 1024 * 1024;
/// How often a check of the library begins, in seconds: once a week.
pub const DEFAULT_LIBRARY_SCRUB_EVERY_SECONDS: u64 = 7 * 24 * 60 * 60;

/// Left free by the vault: what this node's database, its people's files and the system need to go on.
pub const DEFAULT_VAULT_RESERVE_BYTES: u64 = 1 << 30;
/// The rate at which replicas are fetched: half of a line of 1 Gbit/s.
pub const DEFAULT_VAULT_FETCH_BYTES_PER_SECOND: u64 = 64 << 20;

/// The rate at which the vault is checked: a terabyte in a day and a half, and a tenth of what a hard disk reads.
pub const DEFAULT_VAULT_SCRUB_BYTES_PER_SECOND: u64 = 8 << 20;
/// How often a check of the vault begins: once a week.
pub const DEFAULT_VAULT_SCRUB_EVERY_SECONDS: u64 = 7 * 24 * 60 * 60;

/// The settings; every key may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where members connect to.
    pub listen: Vec<Multiaddr>,
    /// Under which addresses members reach it from elsewhere, e.g. behind a port forwarding.
    pub external: Vec<Multiaddr>,
    /// Where the HTTP API is served; empty for nowhere but the local socket.
    pub http: String,
    /// Further host names under which the HTTP API is reached, e.g. behind a proxy.
    pub http_names: Vec<String>,
    /// Whether `/metrics` is answered without the token.
    pub open_metrics: bool,
    /// Uploads served at once; fewer where a limit would leave each too little.
    pub upload_slots: u32,
    /// What all uploads together may send, in bytes a second; unlimited where left out.
    pub upload_limit_bytes_per_second: Option<u64>,
    /// What all downloads together may bring, in bytes a second; unlimited where left out.
    pub download_limit_bytes_per_second: Option<u64>,
    /// Whether transfers with machines on the same local network are limited too.
    pub limit_lan: bool,
    /// What the vault may take, in bytes: the sealed replicas that this node keeps for others. As much as the disk has,
    /// but for the reserve, where left out; 0 keeps none.
    pub vault_quota_bytes: Option<u64>,
    /// What the vault leaves free on its disk, in bytes.
    pub vault_reserve_bytes: u64,
    /// What fetching replicas may take of the line, in bytes a second; while people fetch, a tenth of what they do at most.
    pub vault_fetch_bytes_per_second: u64,
    /// For how many days replaced and deleted files are kept in the trash; 0 removes them within the hour.
    pub trash_retention_days: u32,
    /// What the check of the library reads, in bytes a second; 0 for never.
    pub library_scrub_bytes_per_second: u64,
    /// How often a check of the library begins, in seconds.
    pub library_scrub_every_seconds: u64,
    /// What the check of the vault reads, in bytes a second.
    pub vault_scrub_bytes_per_second: u64,
    /// How often a check of the vault begins, in seconds.
    pub vault_scrub_every_seconds: u64,
    /// Times of the week with limits of their own; the first that covers a moment counts.
    pub timetable: Vec<Period>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: default_listen(DEFAULT_PORT),
            external: Vec::new(),
            http: DEFAULT_HTTP.to_owned(),
            http_names: Vec::new(),
            open_metrics: false,
            upload_slots: DEFAULT_UPLOAD_SLOTS,
            upload_limit_bytes_per_second: None,
            download_limit_bytes_per_second: None,
            limit_lan: false,
            vault_quota_bytes: None,
            vault_reserve_bytes: DEFAULT_VAULT_RESERVE_BYTES,
            vault_fetch_bytes_per_second: DEFAULT_VAULT_FETCH_BYTES_PER_SECOND,
            trash_retention_days: DEFAULT_TRASH_RETENTION_DAYS,
            library_scrub_bytes_per_second: DEFAULT_LIBRARY_SCRUB_BYTES_PER_SECOND,
            library_scrub_every_seconds: DEFAULT_LIBRARY_SCRUB_EVERY_SECONDS,
            vault_scrub_bytes_per_second: DEFAULT_VAULT_SCRUB_BYTES_PER_SECOND,
            vault_scrub_every_seconds: DEFAULT_VAULT_SCRUB_EVERY_SECONDS,
            timetable: Vec::new(),
        }
    }
}

impl Settings {
    /// Where the member is reached.
    pub fn reach(&self) -> Reach {
        Reach { listen: self.listen.clone(), external: self.external.clone() }
    }

    /// The limits and their timetable.
    pub fn limits(&self) -> Plan {
        Plan {
            upload_bytes_per_second: self.upload_limit_bytes_per_second,
            download_bytes_per_second: self.download_limit_bytes_per_second,
            limit_lan: self.limit_lan,
            timetable: self.timetable.clone(),
        }
    }

    /// Sets the limits and their timetable.
    pub fn set_limits(&mut self, plan: Plan) {
        let Plan { upload_bytes_per_second, download_bytes_per_second, limit_lan, timetable } = plan;
        self.upload_limit_bytes_per_second = upload_bytes_per_second;
        self.download_limit_bytes_per_second = download_bytes_per_second;
        self.limit_lan = limit_lan;
        self.timetable = timetable;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_read_back_as_they_were_written_to_the_file() {
        let text = "upload_limit_bytes_per_second = 1000000\nlimit_lan = true\n\n[[timetable]]\ndays = [\"mon\", \"fri\"]\n\
            from = \"08:00\"\nto = \"18:00\"\ndownload_bytes_per_second = 500000\n";
        let settings: Settings = toml::from_str(text).unwrap();
        let plan = settings.limits();
        assert_eq!((plan.upload_bytes_per_second, plan.limit_lan), (Some(1_000_000), true));
        let [period] = &*plan.timetable else { panic!("{plan:?}") };
        assert_eq!(period.download_bytes_per_second, Some(500_000));
        let mut again = Settings::default();
        again.set_limits(plan);
        assert_eq!(toml::from_str::<Settings>(&toml::to_string_pretty(&again).unwrap()).unwrap(), settings);
        assert!(toml::from_str::<Settings>(&text.replace("18:00", "25:00")).is_err());
    }
}
