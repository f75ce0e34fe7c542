//! Levels that metrics show: computed when they are read.

use std::time::Instant;

use quarta_metrics::superpeer::{MemberState as StateLabel, Role as RoleLabel};
use quarta_protocols::{credentials::Role, messages::index::MemberState};

use super::Shared;

impl Shared {
    /// Brings the gauges up to date, before they are read.
    pub(crate) async fn refresh_metrics(&self) {
        let kinds = self.store.write(|catalog| {
            use quarta_protocols::messages::sync::Kind;
            (catalog.count(Kind::FILE), catalog.count(Kind::MEMBER))
        });
        let metrics = &self.metrics.superpeer;
        if let Ok((files, members)) = kinds.await {
            metrics.catalog_records.set(quarta_metrics::superpeer::RecordKind::File, files);
            metrics.catalog_records.set(quarta_metrics::superpeer::RecordKind::Member, members);
        }
        let now = Instant::now();
        let mut state = self.state();
        let stats = state.index.stats();
        metrics.index_entries.set(stats.entries);
        metrics.index_files.set(stats.files);
        metrics.index_contents.set(stats.contents);
        for (role, label) in [(Role::Node, RoleLabel::Node), (Role::Superpeer, RoleLabel::SuperPeer)] {
            for (how, state_label) in [
                (MemberState::Online, StateLabel::Online),
                (MemberState::Suspect, StateLabel::Suspect),
                (MemberState::Offline, StateLabel::Offline),
            ] {
                let count = state.health.iter().filter(|seen| seen.role == role && seen.state == how).count();
                metrics.members.set((label, state_label), count);
            }
        }
        let leased = state.leased(now);
        metrics.leased_bytes.replace(leased.iter().map(|(name, bytes)| (name.as_str(), *bytes)));
        metrics.fairness_of(&state.served_by_available(now));
    }
}
