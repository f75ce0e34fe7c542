//! `quarta.json`: what a data folder is.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

pub(super) const MARKER_FILE: &str = "quarta.json";

/// The newest format of a data folder that this version reads, and the one that it writes.
pub const FORMAT: u64 = 1;

/// Whose data a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A branch's daemon, `quarta`.
    Node,
    /// A super-peer, `quarta-superpeer`.
    Superpeer,
}

impl Role {
    /// The role's name on disk and on the wire: `node` or `superpeer`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Superpeer => "superpeer",
        }
    }

    /// The program that serves this role.
    pub fn program(self) -> &'static str {
        match self {
            Self::Node => "quarta",
            Self::Superpeer => "quarta-superpeer",
        }
    }

    /// The command that makes a data folder of this role.
    pub(super) fn first_step(self) -> &'static str {
        match self {
            Self::Node => "quarta join",
            Self::Superpeer => "quarta-superpeer init` or `quarta-superpeer join",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A role that is neither `node` nor `superpeer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a role is `node` or `superpeer`")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        match text {
            "node" => Ok(Self::Node),
            "superpeer" => Ok(Self::Superpeer),
            _ => Err(UnknownRole),
        }
    }
}

/// What a data folder is: who of which network keeps its data here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Whose data it is.
    pub role: Role,
    /// The network's id in hexadecimal.
    pub network: String,
    /// The member's human name.
    pub name: String,
}

/// Why a marker cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MarkerError {
    /// Its format is newer than [`FORMAT`].
    Newer(u64),
    /// It is no marker at all.
    Unusable(String),
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    format: u64,
    #[serde(flatten)]
    content: T,
}

impl Marker {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(&Versioned { format: FORMAT, content: self })
            .expect("a number and three strings are always JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Looks at the format before anything else, so that a newer marker of any shape is recognised as newer.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, MarkerError> {
        #[derive(Deserialize)]
        struct Any {}
        let unusable = |error: serde_json::Error| MarkerError::Unusable(error.to_string());
        match serde_json::from_slice::<Versioned<Any>>(bytes).map_err(unusable)?.format {
            FORMAT => {
                let known: Versioned<Self> = serde_json::from_slice(bytes).map_err(unusable)?;
                Ok(known.content)
            }
            newer if newer > FORMAT => Err(MarkerError::Newer(newer)),
            other => Err(MarkerError::Unusable(format!("there is no format {other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = "{\"format\":1,\"role\":\"superpeer\",\"network\":\"00ff\",\"name\":\"matriz\"}\n";

    #[test]
    fn the_markers_bytes_stay_what_they_are() {
        let marker = Marker { role: Role::Superpeer, network: "00ff".into(), name: "matriz".into() };
        assert_eq!(String::from_utf8(marker.encode()).unwrap(), GOLDEN);
        assert_eq!(Marker::decode(GOLDEN.as_bytes()), Ok(marker));
    }

    #[test]
    fn a_format_before_the_first_is_no_format() {
        let zero = GOLDEN.replace("\"format\":1", "\"format\":0");
        assert!(matches!(Marker::decode(zero.as_bytes()), Err(MarkerError::Unusable(_))));
    }

    #[test]
    fn a_roles_name_reads_back() {
        for role in [Role::Node, Role::Superpeer] {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert_eq!("king".parse::<Role>(), Err(UnknownRole));
    }
}
