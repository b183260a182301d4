//! A tracker's whole life, event by event.

use metadata::{BrokerRegistration, records};
use protocol::LeaderEpoch;
use protocol::grpc::v1::{BrokerChangeRecord, MetadataRecord, metadata_record::Record};

use super::*;

const B: BrokerId = BrokerId(1);
const TIMEOUT: u64 = 3000;

fn incarnation() -> IncarnationId {
    IncarnationId::from_slice(&[1; 16]).expect("16 bytes")
}

fn registration() -> BrokerRegistration {
    BrokerRegistration {
        id: B,
        epoch: BrokerEpoch(5),
        incarnation: incarnation(),
        endpoints: vec![],
        internal_address: "host:1".to_owned(),
        rack: None,
        log_dirs: vec![],
        fenced: true,
        in_controlled_shutdown: false,
        version: String::new(),
    }
}

fn fencing(broker_id: i32, fenced: bool) -> MetadataRecord {
    records::record(Record::BrokerChange(BrokerChangeRecord {
        broker_id,
        broker_epoch: 5,
        fenced: Some(fenced),
        in_controlled_shutdown: None,
        log_dirs: None,
    }))
}

fn image(fenced: bool) -> ClusterImage {
    ClusterImage::default()
        .speculate(&[
            records::register_broker_record(&registration()),
            fencing(1, fenced),
        ])
        .expect("fits")
}

fn connect(tracker: &mut SessionTracker, now: Now) -> SessionId {
    let address = "host:1".to_owned();
    tracker.connected(B, BrokerEpoch(5), incarnation(), address, Offset(10), now)
}

fn probe(session: SessionId) -> SessionAction {
    SessionAction::Probe {
        broker: B,
        address: "host:1".to_owned(),
        incarnation: incarnation(),
        session,
    }
}

/// The only probe among what there is to do.
fn only_probe(actions: Vec<SessionAction>) -> SessionId {
    match actions.as_slice() {
        [SessionAction::Probe { session, .. }] => {
            let session = *session;
            assert_eq!(actions, [probe(session)]);
            session
        }
        _ => panic!("not one probe: {actions:?}"),
    }
}

#[test]
fn a_broker_that_does_not_come_to_a_new_controller_is_probed_and_fenced_where_it_is_dead() {
    for dead in [ProbeResult::Refused, ProbeResult::OtherIncarnation] {
        let mut tracker = SessionTracker::new(TIMEOUT, &image(false), Now(100));
        assert_eq!(tracker.next_deadline(), Some(Now(100 + GRACE_MS)));
        assert_eq!(tracker.tick(Now(99 + GRACE_MS)), []);
        let id = only_probe(tracker.tick(Now(100 + GRACE_MS)));
        assert_eq!(tracker.next_deadline(), Some(Now(3100)), "one probe at a time");
        let fence = tracker.probe_result(B, id, dead, Now(700));
        assert_eq!(fence, Some(SessionAction::Fence(B)));
        assert_eq!(tracker.probe_result(B, id, dead, Now(701)), None);
    }
    let fenced = SessionTracker::new(TIMEOUT, &image(true), Now(100));
    assert_eq!(fenced.next_deadline(), None);
}

#[test]
fn a_broker_that_is_silent_to_a_new_controller_has_its_full_session_timeout() {
    for undecided in [ProbeResult::Silent, ProbeResult::Alive] {
        let mut tracker = SessionTracker::new(TIMEOUT, &image(false), Now(100));
        let id = only_probe(tracker.tick(Now(600)));
        assert_eq!(tracker.probe_result(B, id, undecided, Now(1100)), None);
        assert_eq!(tracker.tick(Now(1199)), []);
        assert_eq!(only_probe(tracker.tick(Now(1200))), id, "asked again");
        assert_eq!(tracker.probe_result(B, id, undecided, Now(3000)), None);
        assert_eq!(tracker.tick(Now(3099)), []);
        assert_eq!(tracker.tick(Now(3100)), [SessionAction::Fence(B)]);
    }
}

#[test]
fn a_broker_that_came_meanwhile_is_not_fenced_by_an_old_probe() {
    let mut tracker = SessionTracker::new(TIMEOUT, &image(false), Now(0));
    let expected = only_probe(tracker.tick(Now(500)));
    // As another incarnation: the one that was asked for is dead, this one is not.
    let reborn = IncarnationId::from_slice(&[2; 16]).expect("16 bytes");
    let address = "host:1".to_owned();
    let session = tracker.connected(B, BrokerEpoch(11), reborn, address, Offset(11), Now(510));
    for late in [ProbeResult::Refused, ProbeResult::OtherIncarnation] {
        assert_eq!(tracker.probe_result(B, expected, late, Now(520)), None);
    }
    // Its own probe is another matter.
    let actions = tracker.disconnected(B, session, Now(530));
    assert!(
        matches!(actions.as_slice(), [SessionAction::Probe { incarnation, .. }] if *incarnation == reborn)
    );
    assert_eq!(
        tracker.probe_result(B, expected, ProbeResult::Refused, Now(540)),
        None
    );
    assert_eq!(
        tracker.probe_result(B, session, ProbeResult::Refused, Now(540)),
        Some(SessionAction::Fence(B))
    );
}

#[test]
fn what_an_earlier_epoch_of_this_controller_asked_for_means_nothing() {
    let claimed_in = |epoch: i32| {
        let mut image = image(false);
        image.epoch = LeaderEpoch(epoch);
        SessionTracker::new(TIMEOUT, &image, Now(0))
    };
    let earlier = only_probe(claimed_in(4).tick(Now(500)));
    let mut tracker = claimed_in(6);
    let later = only_probe(tracker.tick(Now(500)));
    assert_ne!(earlier, later);
    assert_eq!(
        tracker.probe_result(B, earlier, ProbeResult::Refused, Now(600)),
        None
    );
}

#[test]
fn no_more_probes_at_once_than_bounded_and_who_waits_longest_is_next() {
    let many = 3 * PROBES_AT_ONCE as i32;
    let records: Vec<_> = (1..=many)
        .flat_map(|id| {
            let broker = BrokerRegistration {
                id: BrokerId(id),
                ..registration()
            };
            [records::register_broker_record(&broker), fencing(id, false)]
        })
        .collect();
    let image = ClusterImage::default().speculate(&records).expect("fits");
    let mut tracker = SessionTracker::new(TIMEOUT, &image, Now(0));
    let mut asked = Vec::new();
    let mut now = 500;
    // Each probe is answered by silence, and is due again before the others had their turn.
    while asked.len() < many as usize {
        assert_eq!(tracker.next_deadline(), Some(Now(now.min(500))));
        let actions = tracker.tick(Now(now));
        assert_eq!(actions.len(), PROBES_AT_ONCE);
        assert_eq!(tracker.tick(Now(now)), [], "all are under way");
        assert_eq!(
            tracker.next_deadline(),
            Some(Now(TIMEOUT)),
            "nothing to do until one ends"
        );
        now += 500;
        for action in actions {
            let SessionAction::Probe { broker, session, .. } = action else {
                panic!("not a probe: {action:?}");
            };
            assert!(!asked.contains(&broker), "{broker} is asked twice");
            asked.push(broker);
            assert_eq!(
                tracker.probe_result(broker, session, ProbeResult::Silent, Now(now)),
                None
            );
        }
    }
}

#[test]
fn a_broker_is_unfenced_once_it_has_caught_up() {
    let mut tracker = SessionTracker::new(TIMEOUT, &image(true), Now(0));
    let id = connect(&mut tracker, Now(0));
    assert_eq!(tracker.heartbeat(B, id, Offset(9), true, Now(1)), Ok(vec![]));
    let unfence = SessionAction::Unfence(B, BrokerEpoch(5));
    assert_eq!(
        tracker.heartbeat(B, id, Offset(10), true, Now(2)),
        Ok(vec![unfence])
    );
    assert_eq!(tracker.heartbeat(B, id, Offset(10), false, Now(3)), Ok(vec![]));
    assert!(tracker.all_applied(&image(false), Offset(10)));
    assert!(!tracker.all_applied(&image(false), Offset(11)));
}

#[test]
fn a_dead_process_is_fenced_by_the_probe() {
    for dead in [ProbeResult::Refused, ProbeResult::OtherIncarnation] {
        let mut tracker = SessionTracker::new(TIMEOUT, &image(false), Now(0));
        let id = connect(&mut tracker, Now(0));
        assert_eq!(tracker.disconnected(B, id, Now(0)), [probe(id)]);
        let fence = tracker.probe_result(B, id, dead, Now(1));
        assert_eq!(fence, Some(SessionAction::Fence(B)));
    }
}

#[test]
fn a_silent_broker_is_probed_until_the_session_timeout() {
    let mut tracker = SessionTracker::new(TIMEOUT, &image(false), Now(0));
    let id = connect(&mut tracker, Now(0));
    assert_eq!(tracker.disconnected(B, id, Now(0)), [probe(id)]);
    assert_eq!(tracker.probe_result(B, id, ProbeResult::Silent, Now(500)), None);
    assert_eq!(tracker.next_deadline(), Some(Now(600)));
    assert_eq!(tracker.tick(Now(600)), [probe(id)]);
    assert_eq!(tracker.probe_result(B, id, ProbeResult::Alive, Now(700)), None);
    assert_eq!(tracker.tick(Now(3000)), [SessionAction::Fence(B)]);
    assert_eq!(tracker.probe_result(B, id, ProbeResult::Refused, Now(3001)), None);
}

#[test]
fn news_of_an_old_session_means_nothing() {
    let mut tracker = SessionTracker::new(TIMEOUT, &image(false), Now(0));
    let old = connect(&mut tracker, Now(0));
    assert_eq!(tracker.disconnected(B, old, Now(0)), [probe(old)]);
    let new = connect(&mut tracker, Now(10));
    assert_eq!(tracker.probe_result(B, old, ProbeResult::Refused, Now(11)), None);
    assert_eq!(tracker.disconnected(B, old, Now(11)), []);
    assert_eq!(
        tracker.heartbeat(B, old, Offset(1), false, Now(12)),
        Err(SessionOver)
    );
    assert_eq!(tracker.heartbeat(B, new, Offset(1), false, Now(12)), Ok(vec![]));
}

#[test]
fn a_connected_broker_that_falls_silent_is_fenced_and_its_session_is_over() {
    let mut tracker = SessionTracker::new(TIMEOUT, &image(false), Now(0));
    let id = connect(&mut tracker, Now(0));
    assert_eq!(tracker.tick(Now(3000)), [SessionAction::Fence(B)]);
    assert_eq!(
        tracker.heartbeat(B, id, Offset(1), true, Now(3001)),
        Err(SessionOver)
    );
}
