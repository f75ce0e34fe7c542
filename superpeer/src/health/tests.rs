//! Health in simulated time, with nodes that run, freeze, vanish and come back.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);

/// A super-peer's health and nodes that answer within a millisecond while they run and are connected.
struct Simulation {
    health: Health,
    start: Instant,
    now: Instant,
    answering: HashMap<PeerId, bool>,
    answers: VecDeque<(Instant, PeerId)>,
    log: Vec<(Duration, Effect)>,
}

impl Simulation {
    fn new(interval: Duration) -> Self {
        let start = Instant::now();
        let health = Health::new(PollInterval::new(interval).unwrap(), start);
        let (answering, answers, log) = (HashMap::new(), VecDeque::new(), Vec::new());
        Self { health, start, now: start, answering, answers, log }
    }

    /// One node, online for three intervals.
    fn with_node(interval: Duration) -> (Self, PeerId) {
        let (mut simulation, peer) = (Self::new(interval), PeerId::random());
        simulation.answers_from_now_on(peer, true);
        simulation.input(Input::Connected(peer, Role::Node));
        simulation.run(interval * 3);
        assert_eq!(simulation.health.state(&peer), MemberState::Online);
        simulation.log.clear();
        (simulation, peer)
    }

    fn answers_from_now_on(&mut self, peer: PeerId, answering: bool) {
        self.answering.insert(peer, answering);
        if !answering {
            self.answers.retain(|(_, other)| *other != peer);
        }
    }

    fn input(&mut self, input: Input) {
        let effects = self.health.handle(self.now, input);
        for effect in effects {
            self.log.push((self.now - self.start, effect));
            if let Effect::Poll(peer) = effect
                && self.answering.get(&peer) == Some(&true)
            {
                self.answers.push_back((self.now + MILLISECOND, peer));
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let tick = self.health.next_wakeup().filter(|at| *at <= end);
            let answer = self.answers.front().map(|(at, _)| *at).filter(|at| *at <= end);
            match (tick, answer) {
                (None, None) => break,
                (tick, Some(answer)) if tick.is_none_or(|tick| answer <= tick) => {
                    self.now = answer;
                    let (_, peer) = self.answers.pop_front().unwrap();
                    self.input(Input::PollAnswered(peer));
                }
                (tick, _) => {
                    assert!(tick.unwrap() >= self.now, "time goes forward");
                    self.now = tick.unwrap();
                    self.input(Input::Tick);
                    assert!(self.health.next_wakeup().is_none_or(|next| next > self.now), "no busy loop");
                }
            }
        }
        self.now = end;
    }

    /// When an effect first happened, after `since`.
    fn after(&self, since: Instant, effect: Effect) -> Option<Duration> {
        let since = since - self.start;
        let found = self.log.iter().find(|(at, other)| *at >= since && *other == effect);
        found.map(|(at, _)| at.saturating_sub(since))
    }

    fn count(&self, effect: Effect) -> usize {
        self.log.iter().filter(|(_, other)| *other == effect).count()
    }

    fn state(&self, peer: &PeerId) -> MemberState {
        self.health.state(peer)
    }
}

const INTERVALS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(15)];

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[test]
fn a_node_that_is_killed_is_not_offered_at_once_and_removed_within_2_s() {
    for interval in INTERVALS {
        let (mut simulation, peer) = Simulation::with_node(interval);
        let killed = simulation.now;
        simulation.answers_from_now_on(peer, false);
        simulation.input(Input::ConnectionClosed(peer));
        assert_eq!(simulation.state(&peer), MemberState::Suspect);
        simulation.run(seconds(3.0));
        let removed = simulation.after(killed, Effect::Removed(peer, RemovalCause::ConnectionClosed));
        assert_eq!(removed, Some(GRACE));
        assert_eq!(simulation.state(&peer), MemberState::Offline);
    }
}

#[test]
fn a_node_that_reconnects_within_the_grace_is_offered_again_and_never_removed() {
    let (mut simulation, peer) = Simulation::with_node(seconds(15.0));
    simulation.input(Input::ConnectionClosed(peer));
    simulation.run(seconds(0.5));
    simulation.input(Input::Connected(peer, Role::Node));
    simulation.run(seconds(60.0));
    let told: Vec<Effect> =
        simulation.log.iter().map(|(_, e)| *e).filter(|e| !matches!(e, Effect::Poll(_))).collect();
    assert_eq!(told, [Effect::Suspected(peer), Effect::Cleared(peer)]);
}

#[test]
fn a_node_that_freezes_is_suspected_at_its_first_missed_poll_and_removed_within_two_intervals_and_3_s() {
    for interval in INTERVALS {
        for part in 0..20 {
            let (mut simulation, peer) = Simulation::with_node(interval);
            simulation.run(interval * part / 20);
            let frozen = simulation.now;
            simulation.answers_from_now_on(peer, false);
            simulation.run(interval * 3 + seconds(10.0));
            let poll = simulation.after(frozen, Effect::Poll(peer)).unwrap();
            let suspected = simulation.after(frozen, Effect::Suspected(peer)).unwrap();
            let removed = simulation.after(frozen, Effect::Removed(peer, RemovalCause::PollsMissed)).unwrap();
            assert!(suspected <= poll + POLL_DEADLINE, "{suspected:?} after a poll at {poll:?}");
            assert_eq!(removed, suspected + POLL_DEADLINE);
            assert!(removed <= interval + seconds(3.0), "{removed:?}");
        }
    }
}

#[test]
fn a_node_that_misses_one_poll_is_polled_again_at_once_and_stays_when_it_answers() {
    let (mut simulation, peer) = Simulation::with_node(seconds(15.0));
    simulation.answers_from_now_on(peer, false);
    while simulation.state(&peer) == MemberState::Online {
        simulation.run(MILLISECOND);
    }
    let [.., (suspected, Effect::Suspected(_)), (polled, Effect::Poll(_))] = &simulation.log[..] else {
        panic!("{:?}", simulation.log)
    };
    assert_eq!(suspected, polled);
    simulation.run(seconds(1.0));
    simulation.input(Input::PollAnswered(peer));
    assert_eq!(simulation.state(&peer), MemberState::Online);
    simulation.answers_from_now_on(peer, true);
    simulation.run(seconds(60.0));
    assert_eq!(simulation.count(Effect::Suspected(peer)), 1);
    assert_eq!(simulation.count(Effect::Removed(peer, RemovalCause::PollsMissed)), 0);
}

#[test]
fn a_removed_node_that_runs_again_is_back_within_2_s() {
    for interval in INTERVALS {
        let (mut simulation, peer) = Simulation::with_node(interval);
        simulation.answers_from_now_on(peer, false);
        simulation.run(interval * 2 + seconds(5.5));
        assert_eq!(simulation.state(&peer), MemberState::Offline);
        let running = simulation.now;
        simulation.answers_from_now_on(peer, true);
        simulation.run(seconds(2.0));
        assert!(simulation.after(running, Effect::Returned(peer)).is_some());
        assert_eq!(simulation.state(&peer), MemberState::Online);
    }
}

#[test]
fn a_killed_node_is_back_with_the_first_answer_after_its_restart() {
    let (mut simulation, peer) = Simulation::with_node(seconds(15.0));
    simulation.answers_from_now_on(peer, false);
    simulation.input(Input::ConnectionClosed(peer));
    simulation.run(seconds(20.0));
    let restarted = simulation.now;
    simulation.answers_from_now_on(peer, true);
    simulation.input(Input::Connected(peer, Role::Node));
    assert_eq!(simulation.state(&peer), MemberState::Offline, "a connection alone is no sign of life");
    simulation.run(seconds(1.0));
    assert_eq!(simulation.after(restarted, Effect::Returned(peer)), Some(MILLISECOND));
}

#[test]
fn a_silent_connection_is_closed_after_30_s_and_the_node_dialled_from_then_on() {
    let (mut simulation, peer) = Simulation::with_node(seconds(1.0));
    simulation.answers_from_now_on(peer, false);
    simulation.run(seconds(5.0));
    let removed = simulation.now;
    simulation.run(seconds(30.0));
    assert!(simulation.after(removed, Effect::Close(peer)).is_some());
    simulation.input(Input::ConnectionClosed(peer));
    let closed = simulation.now;
    simulation.run(seconds(60.0));
    let dials = simulation.count(Effect::Dial(peer));
    assert!((58..=61).contains(&dials), "{dials} dials in the first minute");
    simulation.run(seconds(3600.0));
    let later = simulation.count(Effect::Dial(peer)) - dials;
    assert!((200..=300).contains(&later), "{later} dials in an hour");
    assert!(simulation.after(closed, Effect::Poll(peer)).is_none());
}

#[test]
fn another_super_peer_is_dialled_every_two_seconds_however_long_it_is_gone() {
    let mut simulation = Simulation::new(seconds(1.0));
    let peer = PeerId::random();
    simulation.input(Input::Connected(peer, Role::Superpeer));
    simulation.input(Input::ConnectionClosed(peer));
    simulation.run(seconds(24.0 * 3600.0));
    let dials = simulation.count(Effect::Dial(peer));
    simulation.run(seconds(60.0));
    let later = simulation.count(Effect::Dial(peer)) - dials;
    assert!((25..=38).contains(&later), "{later} dials in a minute");
}

#[test]
fn a_registration_is_a_sign_of_life() {
    let (mut simulation, peer) = Simulation::with_node(seconds(1.0));
    simulation.answers_from_now_on(peer, false);
    for _ in 0..20 {
        simulation.run(seconds(1.0));
        simulation.input(Input::Registered(peer));
    }
    assert_eq!(simulation.count(Effect::Suspected(peer)), 0);
    assert_eq!(simulation.health.last_seen(&peer), Some(simulation.now));
    simulation.run(seconds(5.0));
    assert_eq!(simulation.state(&peer), MemberState::Offline);
    simulation.input(Input::Registered(peer));
    assert_eq!(simulation.state(&peer), MemberState::Online);
    assert_eq!(simulation.count(Effect::Returned(peer)), 1);
}

#[test]
fn a_missed_ping_makes_the_super_peer_poll_at_once_and_suspects_nobody() {
    let (mut simulation, peer) = Simulation::with_node(seconds(15.0));
    simulation.input(Input::PingMissed(peer));
    assert_eq!(simulation.log.last().unwrap().1, Effect::Poll(peer));
    assert_eq!(simulation.state(&peer), MemberState::Online);
    simulation.run(seconds(60.0));
    assert_eq!(simulation.count(Effect::Suspected(peer)), 0);
}

#[test]
fn a_node_that_signs_off_is_offline_at_once_without_a_removal_and_left_alone() {
    let (mut simulation, peer) = Simulation::with_node(seconds(1.0));
    // A poll is under way and will be answered, and then the connection closes.
    simulation.input(Input::PingMissed(peer));
    simulation.input(Input::SignedOff(peer));
    assert_eq!(simulation.state(&peer), MemberState::Offline);
    simulation.run(seconds(0.1));
    simulation.input(Input::Registered(peer));
    assert_eq!(simulation.state(&peer), MemberState::Offline, "what it sent before does not count");
    simulation.input(Input::ConnectionClosed(peer));
    simulation.run(seconds(120.0));
    let log: Vec<_> = simulation.log.iter().map(|(_, effect)| *effect).collect();
    assert_eq!(log, [Effect::Poll(peer), Effect::SignedOff(peer)]);

    simulation.input(Input::Connected(peer, Role::Node));
    simulation.run(seconds(0.1));
    assert_eq!(simulation.state(&peer), MemberState::Online);
    assert_eq!((simulation.count(Effect::Arrived(peer)), simulation.count(Effect::Returned(peer))), (1, 0));
}

#[test]
fn a_node_that_signs_on_over_a_connection_that_never_closed_is_back() {
    let (mut simulation, peer) = Simulation::with_node(seconds(1.0));
    simulation.input(Input::SignedOff(peer));
    simulation.input(Input::SignedOn(peer));
    simulation.run(seconds(0.1));
    assert_eq!(simulation.state(&peer), MemberState::Online);
}

#[test]
fn a_node_that_others_cannot_reach_is_polled_soon_and_suspected_only_if_it_does_not_answer() {
    let (mut simulation, peer) = Simulation::with_node(seconds(60.0));
    simulation.run(seconds(20.0));
    simulation.log.clear();
    for _ in 0..100 {
        simulation.input(Input::ReportedUnreachable(peer));
        simulation.run(seconds(0.1));
    }
    let polls = simulation.count(Effect::Poll(peer));
    assert!((1..=11).contains(&polls), "{polls} polls in 10 s: a reporter cannot make it flood");
    assert_eq!(simulation.count(Effect::Suspected(peer)), 0);

    simulation.answers_from_now_on(peer, false);
    let since = simulation.now;
    simulation.input(Input::ReportedUnreachable(peer));
    simulation.run(seconds(10.0));
    let suspected = simulation.after(since, Effect::Suspected(peer)).unwrap();
    assert!(suspected <= HEED_INTERVAL + POLL_DEADLINE, "{suspected:?}");
}

#[test]
fn a_node_that_comes_and_goes_without_answering_is_removed_all_the_same() {
    let (mut simulation, peer) = Simulation::with_node(seconds(1.0));
    simulation.answers_from_now_on(peer, false);
    let silent = simulation.now;
    for _ in 0..10 {
        simulation.input(Input::ConnectionClosed(peer));
        simulation.run(seconds(0.3));
        simulation.input(Input::Connected(peer, Role::Node));
        simulation.run(seconds(0.3));
    }
    let removed = [RemovalCause::ConnectionClosed, RemovalCause::PollsMissed]
        .into_iter()
        .find_map(|cause| simulation.after(silent, Effect::Removed(peer, cause)));
    assert!(removed.unwrap() <= 2 * POLL_DEADLINE, "{removed:?}");
}

#[test]
fn super_peers_are_there_while_connected_and_never_polled() {
    let (mut simulation, peer) = (Simulation::new(seconds(1.0)), PeerId::random());
    simulation.input(Input::Known(peer, Role::Superpeer));
    assert_eq!(simulation.count(Effect::Dial(peer)), 1);
    simulation.input(Input::Connected(peer, Role::Superpeer));
    assert_eq!(simulation.state(&peer), MemberState::Online);
    simulation.run(seconds(100.0));
    assert_eq!(simulation.count(Effect::Poll(peer)), 0);
    simulation.input(Input::ConnectionClosed(peer));
    assert_eq!(simulation.state(&peer), MemberState::Suspect);
    simulation.run(GRACE);
    assert_eq!(simulation.count(Effect::Removed(peer, RemovalCause::ConnectionClosed)), 1);
    simulation.input(Input::Connected(peer, Role::Superpeer));
    assert_eq!(simulation.count(Effect::Returned(peer)), 1);
}

#[test]
fn a_forgotten_member_is_neither_polled_nor_dialled() {
    let (mut simulation, peer) = Simulation::with_node(seconds(1.0));
    simulation.input(Input::Forgotten(peer));
    simulation.run(seconds(100.0));
    assert!(simulation.log.is_empty());
    assert_eq!((simulation.health.next_wakeup(), simulation.health.iter().count()), (None, 0));
}

#[test]
fn polls_are_spread_over_the_interval() {
    let mut simulation = Simulation::new(seconds(10.0));
    for _ in 0..1000 {
        let peer = PeerId::random();
        simulation.answers_from_now_on(peer, true);
        simulation.input(Input::Connected(peer, Role::Node));
    }
    simulation.run(seconds(20.0));
    simulation.log.clear();
    for second in 0..10 {
        let before = simulation.log.len();
        simulation.run(seconds(1.0));
        let polls = simulation.log.len() - before;
        assert!((50..=150).contains(&polls), "{polls} polls in second {second}");
    }
}

#[test]
fn a_super_peer_that_was_held_up_itself_removes_nobody_who_answers_then() {
    let (mut simulation, peer) = Simulation::with_node(seconds(1.0));
    simulation.now += seconds(20.0);
    simulation.input(Input::Tick);
    simulation.run(seconds(60.0));
    assert_eq!(simulation.count(Effect::Removed(peer, RemovalCause::PollsMissed)), 0);
    assert_eq!(simulation.state(&peer), MemberState::Online);
}

#[test]
fn a_poll_interval_has_bounds() {
    for millis in [0, 249, 600_001] {
        assert!(PollInterval::new(Duration::from_millis(millis)).is_err());
    }
    assert_eq!(PollInterval::default().get(), seconds(15.0));
}

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Input(usize, u8),
    Answering(usize, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            4 => (1u64..4000).prop_map(Step::Wait),
            4 => (0usize..3, 0u8..10).prop_map(|(peer, kind)| Step::Input(peer, kind)),
            2 => (0usize..3, any::<bool>()).prop_map(|(peer, on)| Step::Answering(peer, on)),
        ],
        1..60,
    )
}

proptest! {
    #[test]
    fn whatever_happens_a_silent_node_is_not_offered_and_timers_go_forward(
        steps in steps(),
        interval in 250u64..20_000,
    ) {
        let interval = Duration::from_millis(interval);
        let mut simulation = Simulation::new(interval);
        let peers: Vec<PeerId> = (0..3).map(|_| PeerId::random()).collect();
        for step in steps {
            match step {
                Step::Wait(millis) => simulation.run(Duration::from_millis(millis)),
                Step::Answering(peer, on) => simulation.answers_from_now_on(peers[peer], on),
                Step::Input(peer, kind) => {
                    let peer = peers[peer];
                    simulation.input(match kind {
                        0 => Input::Known(peer, Role::Node),
                        1 | 2 => Input::Connected(peer, Role::Node),
                        3 => Input::ConnectionClosed(peer),
                        4 => Input::Registered(peer),
                        5 => Input::PingMissed(peer),
                        7 => Input::ReportedUnreachable(peer),
                        8 => Input::SignedOff(peer),
                        9 => Input::SignedOn(peer),
                        _ => Input::Forgotten(peer),
                    });
                }
            }
            for seen in simulation.health.iter() {
                let silent = seen.last_seen.map(|at| simulation.now - at);
                match seen.state {
                    MemberState::Online => prop_assert!(silent.unwrap() <= interval + POLL_DEADLINE),
                    MemberState::Suspect => prop_assert!(silent.unwrap() <= interval + 2 * POLL_DEADLINE),
                    MemberState::Offline | MemberState::Left | MemberState::Revoked => {}
                }
            }
            let timers = simulation.health.timers.len();
            prop_assert!(timers <= simulation.health.members.len());
        }
    }

    #[test]
    fn a_node_that_answers_everything_in_time_is_never_suspected(
        interval in 250u64..600_000,
        happenings in prop::collection::vec((1u64..20_000, any::<bool>()), 0..40),
    ) {
        let (mut simulation, peer) = Simulation::with_node(Duration::from_millis(interval));
        for (millis, registers) in happenings {
            simulation.run(Duration::from_millis(millis));
            simulation.input(if registers { Input::Registered(peer) } else { Input::PingMissed(peer) });
        }
        simulation.run(Duration::from_millis(interval * 3));
        prop_assert_eq!(simulation.state(&peer), MemberState::Online);
        prop_assert_eq!(simulation.count(Effect::Suspected(peer)), 0);
    }
}
