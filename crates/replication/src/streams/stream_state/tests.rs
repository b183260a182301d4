//! Both sides of the streams against each other, over logs kept in memory, with messages that wait,
//! connections that break, leaders that change, lanes that take turns and disks that take their time.

mod world;

use proptest::prelude::*;
use protocol::{ErrorCode, LeaderEpoch, Offset};

use self::world::{ACTS, Act, Done, Step, WINDOW, World, partition};
use super::{Lane, Work};
use crate::Now;
use crate::streams::model::Model;
use crate::streams::wire::Content;

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        64 => prop::sample::select(ACTS.to_vec()),
        1 => Just(Act::Refuse),
        1 => Just(Act::Reconnect),
    ]
}

fn lane() -> impl Strategy<Value = Lane> {
    prop::sample::select(vec![Lane::InSync, Lane::CatchingUp])
}

fn step(partitions: usize) -> impl Strategy<Value = Step> {
    let index = 0..partitions;
    prop_oneof![
        6 => (index.clone(), 1..6_u8).prop_map(|(index, count)| Step::Produce(index, count)),
        1 => (index.clone(), 0..6_u8).prop_map(|(partition, lost)| Step::Elect { partition, lost }),
        1 => index.clone().prop_map(Step::AdvanceStart),
        6 => index.clone().prop_map(Step::Flush),
        1 => (index, lane()).prop_map(|(index, lane)| Step::Reassign(index, lane)),
        4 => (1..700_u16).prop_map(Step::Pass),
        66 => (lane(), act()).prop_map(|(lane, act)| Step::On(lane, act)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_committed_is_durable_at_the_follower_and_the_logs_meet(
        lane in lane(),
        steps in prop::collection::vec(step(3), 1..600),
    ) {
        let mut world = World::new(3, lane);
        for step in &steps {
            world.step(step);
            world.assert_invariants();
        }
        world.settle();
        for model in world.models.borrow().values() {
            prop_assert_eq!(&model.leader, &model.follower);
            prop_assert_eq!(model.high_watermark, model.leader.len());
            prop_assert_eq!(model.follower_high_watermark, model.high_watermark);
        }
    }
}

#[test]
fn without_faults_no_append_is_refused_and_no_time_is_lost() {
    let mut world = World::new(1, Lane::InSync);
    world.step(&Step::Produce(0, 50));
    for _ in 0..200 {
        world.on(Lane::InSync, &ACTS);
        world.step(&Step::Flush(0));
    }
    world.with(0, |model| {
        assert_eq!(model.follower.len(), 50);
        assert_eq!(model.follower_high_watermark, 50);
        assert_eq!(model.appends_refused, 0);
    });
}

/// As where a disk was full for a moment. The same divergence at the same offset is no proof that cutting does not
/// help.
#[test]
fn a_log_that_could_not_be_cut_once_is_cut_later() {
    let mut world = World::new(1, Lane::InSync);
    world.step(&Step::Produce(0, 10));
    let received = |world: &World| world.with(0, |model| model.follower.len()) == 10;
    while !received(&world) {
        world.on(Lane::InSync, &ACTS);
    }
    world.step(&Step::Elect {
        partition: 0,
        lost: 5,
    });
    let without_work = ACTS.into_iter().filter(|act| *act != Act::Work);
    let without_work: Vec<_> = without_work.collect();
    while !matches!(world.stream(Lane::InSync).work.front(), Some(Work::Mend(_))) {
        assert!(world.now < Now(60_000), "the logs differ");
        world.on(Lane::InSync, &without_work);
        world.step(&Step::Pass(50));
    }
    world.on(Lane::InSync, &[Act::Refuse]);
    world.settle();
    world.with(0, |model| assert_eq!(model.follower, model.leader));
}

#[test]
fn an_idle_stream_is_kept_alive_and_a_silent_one_is_noticed() {
    let mut world = World::new(1, Lane::InSync);
    world.on(Lane::InSync, &[Act::Speak]);
    let (stream, models) = world.stream_and_models(Lane::InSync);
    let first = stream.to_leader.pop_front().expect("the first message opens");
    assert_eq!(first.credit, WINDOW);
    assert_eq!(first.fetches.len(), 1);
    let follower = &mut stream.follower;
    assert!(follower.message(Now(499), models).is_none());
    assert_eq!(follower.next_deadline(true), Some(Now(500)));
    let beat = follower.message(Now(500), models).expect("a heartbeat");
    assert!(beat.heartbeat && beat.fetches.is_empty() && beat.credit == 0);
    assert!(!follower.is_silent(Now(2_999)));
    assert!(follower.is_silent(Now(3_000)));
}

#[test]
fn the_high_watermark_is_told_without_credit() {
    let lane = Lane::InSync;
    let mut world = World::new(1, lane);
    world.on(lane, &[Act::Speak]);
    let first = world.stream(lane).to_leader.front_mut();
    first.expect("the first message opens").credit = 0;
    world.on(lane, &[Act::ToLeader, Act::Order]);
    assert_eq!(world.stream(lane).to_follower.len(), 1, "the first positions");
    world.step(&Step::Produce(0, 1));
    world.on(lane, &[Act::Order]);
    let stream = world.stream(lane);
    assert!(
        stream.reads.is_empty() && stream.to_follower.len() == 1,
        "no credit, no read"
    );
    world.with(0, |model| model.leader_start = 1);
    world.leader_progressed(partition(0));
    world.on(lane, &[Act::Order]);
    assert_eq!(world.stream(lane).to_follower.len(), 2, "positions are news");
    world.stream(lane).leader.on_credit(WINDOW);
    world.on(lane, &[Act::Order]);
    assert_eq!(world.stream(lane).reads.len(), 1, "credit brings the read");
}

#[test]
fn what_was_never_sent_cannot_be_acknowledged() {
    let mut world = World::new(1, Lane::InSync);
    world.step(&Step::Produce(0, 5));
    world.on(Lane::InSync, &[Act::Speak]);
    let mut fetch = world.stream(Lane::InSync).to_leader[0].fetches[0];
    world.on(Lane::InSync, &[Act::ToLeader]);
    fetch.fetch.position.log_end = Offset(5);
    fetch.fetch.position.durable = Offset(5);
    fetch.fetch.position.last_epoch = Some(LeaderEpoch::ZERO);
    let (stream, models) = world.stream_and_models(Lane::InSync);
    let answer = stream.leader.on_fetch(&fetch, models);
    assert!(answer.is_some_and(|news| news.content == Content::Over(ErrorCode::InvalidRequest)));
    world.with(0, |model| assert_eq!(model.high_watermark, 0));
}

/// Three partitions catch up over one lane while answers about one of them wait before those about the others. Each
/// is let go as soon as it is at the high watermark, and what was on its way for it then is dropped: on the other lane
/// it stays, and what is sent there arrives. (Where it came back to the same lane, the three of them could void each
/// other's answers for ever.)
#[test]
fn a_replica_at_the_high_watermark_changes_its_lane_once() {
    let lane = Lane::CatchingUp;
    let mut world = World::new(3, lane);
    world.step(&Step::Produce(0, 6));
    world.on(
        lane,
        &[
            Act::Speak,
            Act::ToLeader,
            Act::Order,
            Act::Order,
            Act::ToFollower,
            Act::Read,
        ],
    );
    world.step(&Step::Produce(2, 2));
    world.on(lane, &[Act::ToFollower]);
    world.step(&Step::Produce(1, 1));
    world.on(
        lane,
        &[
            Act::Order,
            Act::Read,
            Act::ToFollower,
            Act::Reconnect,
            Act::Work,
            Act::Done,
        ],
    );
    world.step(&Step::Produce(1, 5));
    world.step(&Step::Produce(2, 5));
    world.on(lane, &[Act::Work, Act::Done, Act::Work, Act::Done, Act::Speak]);
    world.step(&Step::Produce(0, 1));
    world.step(&Step::Flush(2));
    world.on(lane, &[Act::Speak]);
    world.step(&Step::Produce(0, 4));
    world.step(&Step::Reassign(0, lane));
    world.on(lane, &[Act::Command, Act::Command, Act::Speak]);
    world.step(&Step::Elect {
        partition: 2,
        lost: 1,
    });
    world.on(lane, &[Act::Command, Act::ToFollower]);
    world.settle();
    assert!(world.models.borrow().values().all(Model::is_settled));
    assert!(world.stream(Lane::CatchingUp).follower.is_empty());
    assert_eq!(world.stream(Lane::InSync).follower.len(), 3);
}

/// The metadata says that the replica has left the ISR, and the lane that it is to leave hears of that late: after the
/// other one has brought the log to the leader's history and what was then sent is committed. What the leader had said
/// about the log before must not cut it then.
#[test]
fn a_log_is_not_cut_by_an_answer_from_before_it_was_mended() {
    let mut world = World::new(1, Lane::InSync);
    world.step(&Step::Produce(0, 10));
    while world.with(0, |model| model.follower.len()) < 10 {
        world.on(Lane::InSync, &ACTS);
    }
    world.step(&Step::Elect {
        partition: 0,
        lost: 5,
    });
    world.on(Lane::InSync, &[Act::Command, Act::Speak, Act::ToLeader]);
    let answer = world.stream(Lane::InSync).to_follower.back();
    assert!(answer.is_some_and(|news| matches!(news.content, Content::Diverged { .. })));

    let lane = Lane::CatchingUp;
    world.step(&Step::Reassign(0, lane));
    world.on(lane, &[Act::Command]);
    while world.with(0, |model| model.follower != model.leader) {
        assert!(world.now < Now(60_000), "nothing keeps the log from being mended");
        // The lane hears of an append only after it has told of it, or it would let the replica go before.
        let done: &[Act] = match world.stream(lane).done.front() {
            Some(Done::Mended { .. }) => &[Act::Done],
            _ => &[],
        };
        world.on(lane, done);
        world.on(lane, &[Act::Speak, Act::ToLeader, Act::Order, Act::Read]);
        world.on(lane, &[Act::ToFollower, Act::Work]);
        world.step(&Step::Pass(50));
    }
    world.step(&Step::Flush(0));
    world.on(lane, &[Act::Speak, Act::ToLeader]);
    world.with(0, |model| assert_eq!(model.high_watermark, 6));

    while !world.stream(Lane::InSync).to_follower.is_empty() {
        world.on(Lane::InSync, &[Act::ToFollower]);
    }
    world.on(Lane::InSync, &[Act::Work, Act::Done]);
    world.assert_invariants();
    world.settle();
    world.with(0, |model| assert!(model.is_settled()));
}
