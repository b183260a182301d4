//! Groups whose members and brokers say in which racks they are.

use kafka_protocol::messages::ConsumerGroupHeartbeatRequest;
use protocol::ErrorCode;

use super::{Places, beats, error, joins, owns, t, told};
use crate::coordinator::group::tests::bench::{Bench, text};

/// Topic `t` with partitions whose only replicas are in these racks.
fn set_racks(bench: &mut Bench, racks: &[&[&str]]) {
    bench.set_topics_in_racks(&[("t", racks.to_vec())]);
}

fn bench(racks: &[&[&str]]) -> Bench {
    let mut bench = Bench::new();
    set_racks(&mut bench, racks);
    bench
}

/// A member that does what it is told.
struct Member {
    id: &'static str,
    epoch: i32,
    has: Places,
}

impl Member {
    fn joins(bench: &mut Bench, id: &'static str, rack: Option<&str>) -> Self {
        let reply = bench.beat(joins(id, &["t"]).with_rack_id(rack.map(text)));
        let (epoch, has) = told(bench, &reply);
        let has = has.expect("who joins is told");
        Self { id, epoch, has }
    }

    fn says(&mut self, bench: &mut Bench, body: ConsumerGroupHeartbeatRequest) {
        let reply = bench.beat(body);
        let (epoch, has) = told(bench, &reply);
        self.epoch = epoch;
        if let Some(has) = has {
            self.has = has;
        }
    }
}

/// Lets everyone heartbeat until there is nothing left to do.
fn settle(bench: &mut Bench, members: &mut [Member]) {
    for _ in 0..=2 * members.len() {
        for member in members.iter_mut() {
            let body = owns(member.id, member.epoch, &member.has);
            member.says(bench, body);
        }
    }
    assert_eq!(bench.state(), "Stable");
}

fn shares(members: &[Member]) -> Vec<Places> {
    members.iter().map(|member| member.has.clone()).collect()
}

#[test]
fn members_get_what_is_near_them() {
    let mut bench = bench(&[&["b"], &["a"], &["b"], &["a"]]);
    let mut members = vec![Member::joins(&mut bench, "m", Some("a"))];
    settle(&mut bench, &mut members);
    members.push(Member::joins(&mut bench, "n", Some("b")));
    settle(&mut bench, &mut members);
    assert_eq!(shares(&members), [t(&[1, 3]), t(&[0, 2])]);
    // A target for each who came.
    assert_eq!(bench.targets, 2);

    // A coordinator that takes over finds nothing to do.
    bench.fail_over();
    settle(&mut bench, &mut members);
    assert_eq!((members[0].epoch, bench.targets), (2, 2));
}

#[test]
fn brokers_in_other_racks_begin_an_epoch_where_members_have_racks() {
    let (before, after): ([&[&str]; 2], [&[&str]; 2]) = ([&["a"], &["b"]], [&["b"], &["a"]]);
    for (racks, epochs, then) in [
        ([Some("a"), Some("b")], 1, [t(&[1]), t(&[0])]),
        ([None, None], 0, [t(&[0]), t(&[1])]),
    ] {
        let mut bench = bench(&before);
        let mut members = vec![
            Member::joins(&mut bench, "m", racks[0]),
            Member::joins(&mut bench, "n", racks[1]),
        ];
        settle(&mut bench, &mut members);
        assert_eq!(shares(&members), [t(&[0]), t(&[1])]);
        let epoch = members[0].epoch;

        set_racks(&mut bench, &after);
        settle(&mut bench, &mut members);
        assert_eq!(members[0].epoch, epoch + epochs);
        assert_eq!(shares(&members), then);

        // The same for a coordinator that did not see them change.
        set_racks(&mut bench, &before);
        bench.fail_over();
        settle(&mut bench, &mut members);
        assert_eq!(members[0].epoch, epoch + 2 * epochs);
        assert_eq!(shares(&members), [t(&[0]), t(&[1])]);
    }
}

#[test]
fn a_member_in_another_rack_begins_an_epoch() {
    let mut bench = bench(&[&["a"], &["b"]]);
    let mut members = vec![
        Member::joins(&mut bench, "m", Some("a")),
        Member::joins(&mut bench, "n", None),
    ];
    settle(&mut bench, &mut members);
    assert_eq!(shares(&members), [t(&[0]), t(&[1])]);
    let epoch = members[0].epoch;

    let stands_in = |rack| beats("m", epoch).with_rack_id(Some(text(rack)));
    members[0].says(&mut bench, stands_in("a"));
    assert_eq!((members[0].epoch, bench.targets), (epoch, 2), "nothing new");
    members[0].says(&mut bench, stands_in("b"));
    settle(&mut bench, &mut members);
    assert_eq!(shares(&members), [t(&[1]), t(&[0])]);
    assert_eq!(members[0].epoch, epoch + 1);
}

#[test]
fn racks_concern_nobody_any_more_when_the_last_member_with_one_has_left() {
    let mut bench = bench(&[&["a"], &["b"]]);
    let mut members = vec![
        Member::joins(&mut bench, "m", None),
        Member::joins(&mut bench, "n", Some("a")),
    ];
    settle(&mut bench, &mut members);
    assert_eq!(shares(&members), [t(&[1]), t(&[0])]);
    let gone = members.pop().expect("two members");
    let reply = bench.beat(beats(gone.id, -1));
    assert_eq!(error(&reply), ErrorCode::None);
    settle(&mut bench, &mut members);
    let epoch = members[0].epoch;
    set_racks(&mut bench, &[&["b"], &["a"]]);
    settle(&mut bench, &mut members);
    assert_eq!(members[0].epoch, epoch);
    assert_eq!(shares(&members), [t(&[0, 1])]);
}
