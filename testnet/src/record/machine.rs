//! What a run ran on, as far as its figures depend on it.

use rustix::system::uname;
use serde::{Deserialize, Serialize};

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Processors that this program may use.
    pub cores: usize,
    /// Memory, in bytes; none where the system does not say.
    pub memory_bytes: Option<u64>,
    /// The operating system's kernel.
    pub kernel: String,
    /// The processor's architecture.
    pub architecture: String,
    /// `release` or `debug`.
    pub build: String,
}

impl Machine {
    /// This machine.
    pub fn this() -> Self {
        let system = uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: std::fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(memory),
            kernel: format!("{} {}", text(system.sysname()), text(system.release())),
            architecture: text(system.machine()),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
        }
    }
}

fn memory(meminfo: &str) -> Option<u64> {
    let kibibytes: u64 = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?
        .trim()
        .strip_suffix("kB")?
        .trim()
        .parse()
        .ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_linux_tells_it() {
        assert_eq!(memory("MemTotal:       24574208 kB\nMemFree: 1 kB\n"), Some(24_574_208 * 1024));
        assert_eq!(memory("MemFree: 1 kB\n"), None);
        assert_eq!(memory("MemTotal: much\n"), None);
    }

    #[test]
    fn this_machine_has_a_core_and_a_kernel() {
        let machine = Machine::this();
        assert!(machine.cores > 0 && machine.kernel.len() > 1);
    }
}
