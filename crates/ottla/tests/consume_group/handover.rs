//! Members that come and go while all of them read: partitions are handed over, nothing is lost, and where
//! nobody dies nothing is printed twice. With each way that the library has to share partitions.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use protocol::grpc::v1::{
    AdminCreateTopicsRequest, AdminNewTopic, DescribeGroupRequest, DescribeGroupResponse, NewRecord,
    ProduceRequest, admin_client::AdminClient, records_client::RecordsClient,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

use super::{
    PATIENCE, consume,
    support::{DevNode, server_node::ServerNode},
};

/// Divisible by all numbers of members that there are: everybody gets as much.
const PARTITIONS: usize = 6;
/// Records that are written between two looks at the members.
const BURST: usize = 2 * PARTITIONS;
/// Lines of each member that show that it reads.
const SOME: usize = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A topic that is written to while the members of its group change. Record `n` is in partition
/// `n % PARTITIONS`, at offset `n / PARTITIONS`.
struct Topic<'a> {
    node: &'a DevNode,
    /// Of the topic and of its group.
    name: &'static str,
    arguments: &'static [&'static str],
    written: usize,
    runtime: Runtime,
    records: RecordsClient<Channel>,
    admin: AdminClient<Channel>,
    dir: TempDir,
}

struct Member {
    process: ServerNode,
    complaints: PathBuf,
}

impl Member {
    /// The records that it has printed, in their order. A line that was cut off by a crash is none.
    fn printed(&self) -> Vec<usize> {
        let log = self.process.log();
        let numbers = log.lines().filter_map(|line| line.strip_prefix("line "));
        numbers
            .filter(|number| number.len() == 6)
            .map(|number| number.parse().unwrap())
            .collect()
    }

    /// Tells it to end, which it does in order.
    fn end(mut self, signal: &str) -> Vec<usize> {
        self.process.signal(signal);
        let (status, _) = self.process.expect_end(PATIENCE, "a member that was told to end");
        let complaints = fs::read_to_string(&self.complaints).unwrap();
        assert!(status.success(), "{complaints}");
        assert!(!complaints.contains("not committed"), "{complaints}");
        self.printed()
    }
}

impl<'a> Topic<'a> {
    fn new(node: &'a DevNode, name: &'static str, arguments: &'static [&'static str]) -> Self {
        let runtime = Runtime::new().unwrap();
        let channel = {
            let _inside = runtime.enter();
            Endpoint::from_shared(format!("http://{}", node.address()))
                .unwrap()
                .connect_lazy()
        };
        let mut admin = AdminClient::new(channel.clone());
        let topic = AdminNewTopic {
            name: name.to_owned(),
            partitions: Some(PARTITIONS as i32),
            ..AdminNewTopic::default()
        };
        let request = AdminCreateTopicsRequest {
            topics: vec![topic],
            ..AdminCreateTopicsRequest::default()
        };
        let created = runtime.block_on(admin.admin_create_topics(request)).unwrap();
        let error = created
            .into_inner()
            .topics
            .swap_remove(0)
            .error
            .unwrap_or_default();
        assert_eq!(error.code, 0, "{}", error.message);
        Self {
            node,
            name,
            arguments,
            written: 0,
            records: RecordsClient::new(channel),
            admin,
            runtime,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn member(&self, name: &str) -> Member {
        self.member_with(name, &[])
    }

    /// A member with settings of its own.
    fn member_with(&self, name: &str, settings: &[&str]) -> Member {
        let mut command = consume(self.node, self.name, self.arguments);
        command.args(settings).arg(self.name);
        let complaints = self.dir.path().join(format!("{name}.err"));
        let log = self.dir.path().join(format!("{name}.log"));
        Member {
            process: ServerNode::spawn_apart(command, log, &complaints),
            complaints,
        }
    }

    fn write(&mut self) {
        let record = |n: usize| NewRecord {
            value: Some(format!("line {n:06}").into()),
            partition: Some((n % PARTITIONS) as i32),
            ..NewRecord::default()
        };
        let request = ProduceRequest {
            topic: self.name.to_owned(),
            records: (self.written..self.written + BURST).map(record).collect(),
            ..ProduceRequest::default()
        };
        let answer = self.runtime.block_on(self.records.produce(request)).unwrap();
        assert_eq!(answer.into_inner().failed, 0);
        self.written += BURST;
    }

    fn group(&mut self) -> DescribeGroupResponse {
        let request = DescribeGroupRequest {
            group_id: self.name.to_owned(),
        };
        let group = self.runtime.block_on(self.admin.describe_group(request));
        group.unwrap().into_inner()
    }

    /// Writes on until it holds of the group and of what each of these members has printed.
    fn until(
        &mut self,
        what: &str,
        members: &[&Member],
        holds: impl Fn(&DescribeGroupResponse, &[Vec<usize>]) -> bool,
    ) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let group = self.group();
            let printed: Vec<_> = members.iter().map(|member| member.printed()).collect();
            if holds(&group, &printed) {
                return;
            }
            if Instant::now() >= deadline {
                for member in members {
                    eprintln!("{}", fs::read_to_string(&member.complaints).unwrap_or_default());
                }
                let counts: Vec<_> = printed.iter().map(Vec::len).collect();
                panic!(
                    "{what}: not in time; of {} printed {counts:?}: {group:?}",
                    self.written
                );
            }
            self.write();
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Waits until these members, and no others, share the partitions evenly, and all of them print.
    fn until_shared_by(&mut self, members: &[&Member]) {
        let share = PARTITIONS / members.len();
        self.until("the partitions are shared", members, |group, _| {
            let shares = group.members.iter().map(|member| {
                let topics = member.assignment.iter();
                topics.map(|topic| topic.partitions.len()).sum::<usize>()
            });
            group.state == "Stable"
                && group.members.len() == members.len()
                && shares.into_iter().all(|partitions| partitions == share)
        });
        let before: Vec<_> = members.iter().map(|member| member.printed().len()).collect();
        self.until("each of them prints", members, |_, printed| {
            let counts = printed.iter().zip(&before);
            counts.into_iter().all(|(now, before)| now.len() >= before + SOME)
        });
    }

    /// Waits until everything is printed that was written.
    fn until_all_is_printed(&mut self, last: &Member, others: &[&[usize]]) {
        let written = self.written;
        let others: BTreeSet<usize> = others.iter().copied().flatten().copied().collect();
        // What is written meanwhile is beyond it.
        self.until("everything is printed", &[last], |_, printed| {
            let own: BTreeSet<usize> = printed[0].iter().copied().collect();
            (0..written).all(|n| own.contains(&n) || others.contains(&n))
        });
    }

    /// What is committed, by partition.
    fn committed(group: &DescribeGroupResponse) -> BTreeMap<usize, usize> {
        let offsets = group.offsets.iter();
        offsets
            .filter_map(|offset| Some((offset.partition as usize, offset.committed_offset? as usize)))
            .collect()
    }

    /// What holds once the last member has left: each record that was printed is committed, and no other is.
    /// There are no gaps between them.
    fn expect_committed(&mut self, printed: &BTreeSet<usize>) {
        let group = self.group();
        assert_eq!(group.state, "Empty", "they left: {group:?}");
        let committed = Self::committed(&group);
        for partition in 0..PARTITIONS {
            let of_partition = printed.iter().filter(|&n| n % PARTITIONS == partition);
            assert_eq!(
                committed.get(&partition),
                Some(&of_partition.count()),
                "partition {partition}"
            );
        }
    }
}

/// Everything that these have printed.
fn all<'a>(printed: impl IntoIterator<Item = &'a Vec<usize>>) -> BTreeSet<usize> {
    printed.into_iter().flatten().copied().collect()
}

/// The first so many records, without a gap in any partition.
fn expect_no_gap(printed: &BTreeSet<usize>) {
    for partition in 0..PARTITIONS {
        let of_partition = printed.iter().filter(|&n| n % PARTITIONS == partition);
        for (offset, n) in of_partition.enumerate() {
            assert_eq!(n / PARTITIONS, offset, "partition {partition}: one is lost");
        }
    }
}

/// Members join one after the other, and leave, one of them while another joins, and all read: each record is
/// printed once.
fn in_order(mut topic: Topic<'_>) {
    let first = topic.member("first");
    topic.until_shared_by(&[&first]);
    let second = topic.member("second");
    topic.until_shared_by(&[&first, &second]);
    let third = topic.member("third");
    topic.until_shared_by(&[&first, &second, &third]);
    let fourth = topic.member("fourth");
    topic.until("the fourth comes", &[&fourth], |group, _| {
        group.members.len() == 4
    });
    let second = second.end("INT");
    topic.until_shared_by(&[&first, &third, &fourth]);
    let first = first.end("TERM");
    topic.until_shared_by(&[&third, &fourth]);
    let third = third.end("INT");
    topic.until_all_is_printed(&fourth, &[&first, &second, &third]);
    let fourth = fourth.end("INT");
    let printed = all([&first, &second, &third, &fourth]);
    let lines = first.len() + second.len() + third.len() + fourth.len();
    assert_eq!(lines, printed.len(), "some were printed twice");
    expect_no_gap(&printed);
    topic.expect_committed(&printed);
}

/// One of two, which has these settings, is killed while both read: the other goes on from what was committed.
fn by_force(mut topic: Topic<'_>, mortal: &[&str]) {
    let heir = topic.member("heir");
    topic.until_shared_by(&[&heir]);
    let mut victim = topic.member_with("victim", mortal);
    topic.until_shared_by(&[&heir, &victim]);
    topic.until("all partitions have commits", &[], |group, _| {
        let committed = Topic::committed(group);
        committed.len() == PARTITIONS && committed.values().all(|&next| next > 0)
    });
    let committed = Topic::committed(&topic.group());
    victim.process.kill();
    topic.until_shared_by(&[&heir]);
    let victim = victim.printed();
    topic.until_all_is_printed(&heir, &[&victim]);
    let heir = heir.end("INT");
    let printed = all([&heir, &victim]);
    expect_no_gap(&printed);
    topic.expect_committed(&printed);
    assert_eq!(
        all([&heir]).len(),
        heir.len(),
        "the one that lives prints nothing twice"
    );
    let twice = all([&heir])
        .intersection(&all([&victim]))
        .copied()
        .collect::<Vec<_>>();
    for n in twice {
        let kept = committed[&(n % PARTITIONS)];
        assert!(n / PARTITIONS >= kept, "record {n} was committed, up to {kept}");
    }
}

/// Settings of members that share among themselves: what happens is noticed soon. A session lasts 45 s: a member
/// that lost it because the machine had more to do would print some records again.
const EAGER: &[&str] = &[
    "-X",
    "partition.assignment.strategy=range",
    "-X",
    "heartbeat.interval.ms=500",
    "-X",
    "auto.commit.interval.ms=100",
];
const COOPERATIVE: &[&str] = &[
    "-X",
    "partition.assignment.strategy=cooperative-sticky",
    "-X",
    "heartbeat.interval.ms=500",
    "-X",
    "auto.commit.interval.ms=100",
];
/// The death of such a member is noticed soon.
const MORTAL: &[&str] = &["-X", "session.timeout.ms=6000"];
/// Settings of members of the KIP-848 protocol: the rest is the coordinator's.
const SERVED: &[&str] = &[
    "-X",
    "group.protocol=consumer",
    "-X",
    "auto.commit.interval.ms=100",
];

#[test]
fn eagerly() {
    let node = DevNode::shared();
    in_order(Topic::new(&node, "handed-eagerly", EAGER));
    by_force(Topic::new(&node, "taken-eagerly", EAGER), MORTAL);
}

#[test]
fn cooperatively() {
    let node = DevNode::shared();
    in_order(Topic::new(&node, "handed-cooperatively", COOPERATIVE));
    by_force(Topic::new(&node, "taken-cooperatively", COOPERATIVE), MORTAL);
}

#[test]
fn by_the_coordinator() {
    let eager = [
        "group.consumer.min.heartbeat.interval.ms=500",
        "group.consumer.heartbeat.interval.ms=500",
    ];
    let node = DevNode::start(&eager);
    in_order(Topic::new(&node, "handed-by-it", SERVED));
    drop(node);
    // The session is the coordinator's to choose, for all.
    let mortal = [
        "group.consumer.min.session.timeout.ms=6000",
        "group.consumer.session.timeout.ms=6000",
    ];
    let node = DevNode::start(&[eager, mortal].concat());
    by_force(Topic::new(&node, "taken-by-it", SERVED), &[]);
}
