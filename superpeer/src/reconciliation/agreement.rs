//! Whether this super-peer may admit and renew members.
//!
//! Admissions are what must not go wrong with an old catalog: a super-peer restored from a backup may not know who was
//! revoked since, and one that is cut off cannot learn it. So, unless it is the network's only one:
//!
//! - it admits nobody before it has compared its whole catalog with another super-peer's since its start, unless it was
//!   alone since then and thus knew all there was;
//! - it admits nobody any more when that was [`CUT_OFF_AFTER`] ago. What it issued before runs out by itself.
//!
//! Time is counted by the clock that only moves on while the machine runs, and by the wall clock too, since a machine may
//! sleep. A wall clock that jumps does not matter to a super-peer that is in touch: [`IN_TOUCH`] after a comparison it
//! is not looked at, and comparisons follow each other faster than that.

use std::time::{Duration, Instant};

use quarta_protocols::{credentials::UnixSeconds, messages::admission::Refusal};

/// How long a super-peer may be cut off from all others before it stops admitting.
pub const CUT_OFF_AFTER: Duration = Duration::from_hours(7 * 24);
/// How long a comparison stands whatever the wall clock says: four times what lies between two.
pub const IN_TOUCH: Duration = Duration::from_mins(2);

/// What this super-peer knows of its agreement with others.
#[derive(Debug, Clone, Copy, Default)]
pub struct Agreement {
    /// The last whole comparison since the start, by both clocks.
    compared: Option<(Instant, UnixSeconds)>,
    /// The last one before the start; none where there was none.
    before: Option<UnixSeconds>,
}

impl Agreement {
    /// At the start, with the moment of the last comparison that was kept.
    pub const fn started(before: Option<UnixSeconds>) -> Self {
        Self { compared: None, before }
    }

    /// The whole catalog was compared with another super-peer's, and what differed exchanged.
    pub const fn compared(&mut self, now: Instant, wall: UnixSeconds) {
        self.compared = Some((now, wall));
    }

    /// When that was last, by this machine's clock then, also before the start.
    pub fn last(&self) -> Option<UnixSeconds> {
        self.compared.map(|(_, wall)| wall).or(self.before)
    }

    /// Whether members may be admitted and renewed; `alone` says that no other super-peer is known. Then this one knows
    /// all there is to know, which counts like a comparison when it admits another one.
    ///
    /// # Errors
    /// [`Refusal::NotReconciled`] before the first comparison, [`Refusal::CutOff`] when the last one is too long ago.
    pub fn may_admit(&mut self, alone: bool, now: Instant, wall: UnixSeconds) -> Result<(), Refusal> {
        if alone {
            self.compared(now, wall);
            return Ok(());
        }
        let Some((at, at_wall)) = self.compared else { return Err(Refusal::NotReconciled) };
        let (ran, passed) = (now.saturating_duration_since(at), wall.0.saturating_sub(at_wall.0));
        let cut_off = ran >= CUT_OFF_AFTER || ran >= IN_TOUCH && passed >= CUT_OFF_AFTER.as_secs();
        if cut_off { Err(Refusal::CutOff) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: UnixSeconds = UnixSeconds(1_800_000_000);

    fn compared(now: Instant) -> Agreement {
        let mut agreement = Agreement::started(None);
        agreement.compared(now, WALL);
        agreement
    }

    #[test]
    fn the_only_super_peer_admits_at_once_and_for_ever() {
        let now = Instant::now();
        let mut agreement = Agreement::started(None);
        assert_eq!(agreement.may_admit(true, now, WALL), Ok(()));
        assert_eq!(agreement.may_admit(true, now + 2 * CUT_OFF_AFTER, UnixSeconds(0)), Ok(()));
    }

    #[test]
    fn the_one_that_admits_the_second_goes_on_admitting() {
        let now = Instant::now();
        let mut agreement = Agreement::started(None);
        assert_eq!(agreement.may_admit(true, now, WALL), Ok(()), "the second super-peer joins");
        assert_eq!(agreement.may_admit(false, now, WALL), Ok(()), "it has not been started yet");
        assert_eq!(
            agreement.may_admit(false, now + CUT_OFF_AFTER, WALL.plus(CUT_OFF_AFTER)),
            Err(Refusal::CutOff)
        );
    }

    #[test]
    fn one_of_several_admits_nobody_before_it_has_compared_since_its_start() {
        let now = Instant::now();
        for before in [None, Some(WALL)] {
            let mut agreement = Agreement::started(before);
            assert_eq!(agreement.may_admit(false, now, WALL), Err(Refusal::NotReconciled));
            assert_eq!(agreement.last(), before);
            agreement.compared(now, WALL.plus(Duration::from_secs(9)));
            assert_eq!(agreement.may_admit(false, now, WALL), Ok(()));
            assert_eq!(agreement.last(), Some(WALL.plus(Duration::from_secs(9))));
        }
    }

    #[test]
    fn one_that_is_cut_off_for_a_week_stops_and_goes_on_when_it_is_back() {
        let now = Instant::now();
        let mut agreement = compared(now);
        let (almost, late) = (CUT_OFF_AFTER.saturating_sub(Duration::from_secs(1)), CUT_OFF_AFTER);
        assert_eq!(agreement.may_admit(false, now + almost, WALL.plus(almost)), Ok(()));
        assert_eq!(agreement.may_admit(false, now + late, WALL.plus(late)), Err(Refusal::CutOff));
        assert_eq!(
            agreement.may_admit(false, now + late, WALL),
            Err(Refusal::CutOff),
            "whatever the clock says"
        );
        agreement.compared(now + late, WALL.plus(late));
        assert_eq!(agreement.may_admit(false, now + late, WALL.plus(late)), Ok(()));
    }

    #[test]
    fn a_machine_that_slept_for_a_week_does_not_go_on_as_if_nothing_had_been() {
        let now = Instant::now();
        let mut agreement = compared(now);
        assert_eq!(
            agreement.may_admit(false, now + IN_TOUCH, WALL.plus(CUT_OFF_AFTER)),
            Err(Refusal::CutOff)
        );
    }

    #[test]
    fn a_clock_that_jumps_by_years_does_not_stop_one_that_is_in_touch() {
        let now = Instant::now();
        let mut agreement = compared(now);
        let years = Duration::from_hours(24 * 3650);
        for wall in [WALL.plus(years), UnixSeconds(WALL.0 - years.as_secs()), UnixSeconds(0)] {
            assert_eq!(agreement.may_admit(false, now + IN_TOUCH / 2, wall), Ok(()));
        }
        assert_eq!(
            agreement.may_admit(false, now + IN_TOUCH * 9, UnixSeconds(0)),
            Ok(()),
            "back is not forward"
        );
    }
}
