//! Levels that metrics show: computed when they are read.

use std::time::Instant;

use quarta_metrics::{
    replication::{Safety, Waits},
    superpeer::{MemberState as StateLabel, Role as RoleLabel},
};
use quarta_protocols::{credentials::Role, messages::index::MemberState};

use super::Shared;
use crate::replication::Hold;

impl Shared {
    fn refresh_bill(&self) {
        let (bill, metrics) = (self.replication.bill(), &self.metrics.superpeer.replication);
        let enough = bill.contents.saturating_sub(bill.unseen + bill.below_target);
        for (state, count) in [
            (Safety::AtTarget, enough),
            (Safety::BelowTarget, bill.below_target.saturating_sub(bill.below_floor)),
            (Safety::BelowFloor, bill.below_floor.saturating_sub(bill.without_copy)),
            (Safety::WithoutCopy, bill.without_copy),
            (Safety::Unseen, bill.unseen),
        ] {
            metrics.contents.set(state, count);
        }
        metrics.stored_bytes.set(bill.stored_bytes);
        metrics.wanted_bytes.set(bill.wanted_bytes);
        metrics.under_way.set(bill.under_way);
        metrics.in_excess.set(bill.in_excess);
        for (reason, hold) in [(Waits::Starting, Hold::Starting), (Waits::Outage, Hold::Outage)] {
            metrics.held.set(reason, i64::from(bill.hold == Some(hold)));
        }
    }

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
        self.refresh_bill();
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
