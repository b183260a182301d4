//! `ottla groups reset-offsets`, said and done: to every target, for groups of both protocols, and refused while
//! they have members.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kafka_protocol::messages::{HeartbeatRequest, LeaveGroupRequest};
use protocol::batch::BatchBuilder;
use serde_json::Value;

use crate::{
    consumer_groups::{LEAVES, Member},
    ground::{Topic, produce, topic},
    group_administration::{refused, rows},
    group_offsets::{commit, committed},
    groups::{coordinator, group_id, stable},
    offsets::delete_records_request,
    support::{Client, DevNode, batch_with, text},
};

/// Every record is an hour younger than the one before; the last is an hour old.
const RECORDS: i64 = 10;
/// The first that is kept.
const FIRST: i64 = 2;
const HOUR: Duration = Duration::from_secs(3600);
/// What groups have committed before they are reset.
const BEFORE: i64 = 5;

/// Where to, and the offset that it is.
const TARGETS: [(&[&str], i64); 12] = [
    (&["--to-earliest"], FIRST),
    (&["--to-latest"], RECORDS),
    (&["--to-offset", "6"], 6),
    (&["--to-offset", "0"], FIRST),
    (&["--to-offset", "99"], RECORDS),
    (&["--to-timestamp", "2001-02-03T04:05:06+01:00"], FIRST),
    (&["--to-timestamp", "2100-01-01T00:00:00.000"], RECORDS),
    (&["--by-duration", "3h30m"], 7),
    (&["--by-duration", "PT5H30M"], 5),
    (&["--shift-by", "-2"], 3),
    (&["--shift-by", "3"], 8),
    (&["--shift-by", "-100"], FIRST),
];

fn hours_ago(hours: u32) -> i64 {
    let time = SystemTime::now() - HOUR * hours;
    time.duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Writes the records; their times.
fn fill(node: &DevNode, topic: &Topic) -> Vec<i64> {
    let mut client = node.client();
    let times: Vec<i64> = (1..=RECORDS as u32).rev().map(hours_ago).collect();
    for (offset, &time) in (0..).zip(&times) {
        let header = BatchBuilder {
            base_timestamp: time,
            max_timestamp: time,
            ..BatchBuilder::default()
        };
        assert_eq!(produce(&mut client, topic, batch_with(&header, &[b"v"])), offset);
    }
    let deleted = client.call(2, &delete_records_request(topic, FIRST));
    assert_eq!(deleted.topics[0].partitions[0].error_code, 0);
    times
}

/// A group that commits for one partition.
struct Group<'a> {
    node: &'a DevNode,
    client: Client,
    name: &'a str,
    topic: String,
}

impl Group<'_> {
    fn commit(&mut self, offset: i64) {
        assert_eq!(commit(&mut self.client, 9, self.name, &self.topic, offset).0, 0);
    }

    fn committed(&mut self) -> i64 {
        let found = committed(&mut self.client, 9, self.name, Some(&self.topic));
        found.expect("the partition was asked for").0
    }

    fn arguments<'b>(&'b self, more: &[&'b str]) -> Vec<&'b str> {
        [&["reset-offsets", self.name][..], more].concat()
    }

    /// Resets, and is told of the one partition: what was committed, and what is.
    fn reset(&self, more: &[&str]) -> (Value, Value) {
        let mut told = rows(self.node, &self.arguments(more));
        assert_eq!(told.len(), 1, "{more:?}: {told:?}");
        let mut row = told.remove(0);
        assert_eq!(
            (&row["group"], &row["topic"], &row["partition"]),
            (&self.name.into(), &self.topic.clone().into(), &0.into())
        );
        (row["before"].take(), row["after"].take())
    }

    /// Goes everywhere; records were written at these times.
    fn goes_to_every_target(&mut self, times: &[i64]) {
        let topic = self.topic.clone();
        let only = [topic.clone(), format!("{topic}:0")];
        for (at, (to, expected)) in TARGETS.into_iter().enumerate() {
            // All that the group has committed for, a topic, or a partition.
            let mut more = to.to_vec();
            if let Some(only) = at.checked_sub(1).and_then(|at| only.get(at % 3)) {
                more.extend(["--topic", only.as_str()]);
            }
            self.commit(BEFORE);
            let told = (BEFORE.into(), expected.into());
            assert_eq!(self.reset(&more), told, "{more:?}");
            assert_eq!(self.committed(), BEFORE, "{more:?} only says what it would do");
            more.push("--execute");
            assert_eq!(self.reset(&more), told, "{more:?}");
            assert_eq!(self.committed(), expected, "{more:?}");
        }
        let time = times[4].to_string();
        let (_, after) = self.reset(&["--to-timestamp", &time, "--execute"]);
        assert_eq!(
            (after, self.committed()),
            (4.into(), 4),
            "at a record's very time"
        );
    }

    /// Is refused, said or done, whatever is reset. `lives` keeps the member alive.
    fn is_refused(&mut self, mut lives: impl FnMut(&mut Client)) {
        let topic = self.topic.clone();
        for (to, _) in TARGETS {
            for (only, execute) in [(false, false), (false, true), (true, false), (true, true)] {
                let mut more = to.to_vec();
                more.extend(only.then_some(["--topic", topic.as_str()]).into_iter().flatten());
                more.extend(execute.then_some("--execute"));
                lives(&mut self.client);
                let said = refused(self.node, &self.arguments(&more));
                assert!(
                    said.contains("NON_EMPTY_GROUP") && said.contains("has members"),
                    "{more:?}: {said}"
                );
                assert_eq!(self.committed(), BEFORE, "{more:?}");
            }
        }
    }
}

#[test]
fn a_classic_group_is_reset_once_its_members_are_gone() {
    let node = DevNode::shared();
    let name = "reset-classic";
    let topic = topic(&node, "of-reset-classic");
    let times = fill(&node, &topic);
    let mut group = Group {
        client: coordinator(&node, name),
        node: &node,
        name,
        topic: topic.name,
    };
    group.commit(BEFORE);
    let member = stable(&mut group.client, name);
    let beat = HeartbeatRequest::default()
        .with_group_id(group_id(name))
        .with_generation_id(1)
        .with_member_id(text(&member));
    group.is_refused(|client| assert_eq!(client.call(4, &beat).error_code, 0));

    let leave = LeaveGroupRequest::default()
        .with_group_id(group_id(name))
        .with_member_id(text(&member));
    assert_eq!(group.client.call(0, &leave).error_code, 0);
    group.goes_to_every_target(&times);
}

#[test]
fn a_group_of_kip_848_is_reset_once_its_members_are_gone() {
    let node = DevNode::shared();
    let name = "reset-consumer";
    let mut client = coordinator(&node, name);
    let mut member = Member::new(&node, 1, name, "of-reset-consumer");
    let times = fill(&node, &member.topic);
    assert_eq!(commit(&mut client, 9, name, &member.topic.name, BEFORE).0, 0);
    let epoch = member.join(&mut client);
    let mut group = Group {
        client,
        node: &node,
        name,
        topic: member.topic.name.clone(),
    };
    group.is_refused(|client| assert_eq!(member.send(client, &member.beat(epoch)).error_code, 0));

    let left = member.send(&mut group.client, &member.beat(LEAVES));
    assert_eq!(left.error_code, 0);
    let listed = rows(&node, &["list", "--type", "consumer", "--state", "empty"]);
    let is_listed = listed.iter().any(|row| row["group"] == name);
    assert!(is_listed, "it stays a group of its protocol: {listed:?}");
    group.goes_to_every_target(&times);
}

#[test]
fn what_is_not_there_is_not_reset() {
    let node = DevNode::shared();
    let name = "reset-nothing";
    let topic = topic(&node, "of-reset-nothing");
    fill(&node, &topic);
    let mut group = Group {
        client: coordinator(&node, name),
        node: &node,
        name,
        topic: topic.name.clone(),
    };
    let said = refused(&node, &group.arguments(&["--to-earliest", "--execute"]));
    assert!(said.contains("GROUP_ID_NOT_FOUND"), "{said}");
    let shift = ["--shift-by", "1", "--topic", &topic.name, "--execute"];
    let said = refused(&node, &group.arguments(&shift));
    assert!(said.contains("nothing to shift"), "{said}");
    let elsewhere = ["--to-latest", "--topic", "no-such-topic", "--execute"];
    let said = refused(&node, &group.arguments(&elsewhere));
    assert!(said.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{said}");
    assert_eq!(group.committed(), -1);

    // A group that is yet to come can be told where to begin.
    let begin = ["--to-offset", "4", "--topic", &topic.name];
    assert_eq!(group.reset(&begin), (Value::Null, 4.into()));
    assert_eq!(group.committed(), -1);
    assert_eq!(
        group.reset(&[&begin[..], &["--execute"]].concat()),
        (Value::Null, 4.into())
    );
    assert_eq!(group.committed(), 4);
}
