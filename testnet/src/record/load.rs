//! How the work of serving was spread over the holders.

use super::TransferRow;
use quarta_metrics::fairness::jain;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The work of all holders.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Each holder, by name.
    pub holders: Vec<Holder>,
    /// Jain's index of the bytes that receivers verified: 1 is even, 1/n is one for all.
    pub fairness: f64,
}

/// A holder's part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// Its name.
    pub name: String,
    /// How often super-peers named it as a source, over all of them.
    pub offered: u64,
    /// Bytes from it that receivers verified.
    pub served_bytes: u64,
    /// Its share of all bytes, between 0 and 1.
    pub share: f64,
    /// Fetches to which it gave at least a byte.
    pub fetches: u64,
}

impl Distribution {
    /// The distribution over `holders`, which may have served nothing; `offered` counts by name.
    pub fn new(holders: &[String], offered: &BTreeMap<String, u64>, transfers: &[TransferRow]) -> Self {
        let mut served: BTreeMap<&str, (u64, u64)> =
            holders.iter().map(|holder| (holder.as_str(), (0, 0))).collect();
        for source in
            transfers.iter().flat_map(|transfer| &transfer.sources).filter(|source| source.bytes > 0)
        {
            let (bytes, fetches) = served.entry(&source.name).or_default();
            *bytes += source.bytes;
            *fetches += 1;
        }
        let all: u64 = served.values().map(|(bytes, _)| bytes).sum();
        let amounts: Vec<f64> = served.values().map(|(bytes, _)| *bytes as f64).collect();
        let holders = served
            .into_iter()
            .map(|(name, (served_bytes, fetches))| Holder {
                name: name.to_owned(),
                offered: offered.get(name).copied().unwrap_or_default(),
                served_bytes,
                share: if all == 0 { 0.0 } else { served_bytes as f64 / all as f64 },
                fetches,
            })
            .collect();
        Self { holders, fairness: jain(&amounts) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SourceRow;
    use proptest::prelude::*;

    fn transfer(sources: &[(String, u64)]) -> TransferRow {
        let source = |(name, bytes): &(String, u64)| SourceRow {
            name: name.clone(),
            transport: None,
            bytes: *bytes,
            fault: None,
        };
        TransferRow {
            file: String::new(),
            to: String::new(),
            at_seconds: 0.0,
            state: "completed".to_owned(),
            size_bytes: 0,
            seconds: 0.0,
            bytes_per_second: 0.0,
            sha256: String::new(),
            identical: Some(true),
            sources: sources.iter().map(source).collect(),
        }
    }

    #[test]
    fn a_holder_that_served_nothing_counts_as_such() {
        let holders = ["a".to_owned(), "b".to_owned()];
        let offered = BTreeMap::from([("b".to_owned(), 3)]);
        let load = Distribution::new(&holders, &offered, &[transfer(&[("a".to_owned(), 8)])]);
        assert_eq!((load.holders[0].served_bytes, load.holders[1].served_bytes), (8, 0));
        assert_eq!((load.holders[1].offered, load.holders[1].fetches), (3, 0));
        assert!((load.fairness - 0.5).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_and_shares_add_up(
            transfers in prop::collection::vec(prop::collection::vec(("[a-d]", 0..1_000_000_u64), 0..5), 0..9)
        ) {
            let rows: Vec<_> = transfers.iter().map(|sources| transfer(sources)).collect();
            let load = Distribution::new(&[], &BTreeMap::new(), &rows);
            let all: u64 = transfers.iter().flatten().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(load.holders.iter().map(|holder| holder.served_bytes).sum::<u64>(), all);
            let shares: f64 = load.holders.iter().map(|holder| holder.share).sum();
            prop_assert!(all == 0 || (shares - 1.0).abs() < 1e-9);
        }
    }
}
