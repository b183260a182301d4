//! A broker's replication streams: the real stream state machines on both ends, between a simulated
//! network and simulated logs.

use protocol::{BrokerEpoch, BrokerId, ErrorCode, LeaderEpoch, Offset, TopicPartition};
use replication::streams::stream_state::{
    FollowerStream, FollowerView, Lane, LeaderStream, LeaderView, Mend, MendWork, Order, ReadOrder, Work,
};
use replication::streams::{HEARTBEAT, SILENCE};
use replication::{
    Effects, FetchRefused, FetchVerdict, FollowerFetch, Following as Position, Leading, Now, ReplicaRead,
    RoleError,
};

use crate::broker::{Broker, Following};
use crate::context::Context;
use crate::disk::decode;
use crate::message::{Conn, Message, Node, Out};

const WINDOW: u64 = 4_096;

/// A stream from a follower.
pub(crate) struct Serving {
    follower: Node,
    epoch: BrokerEpoch,
    stream: LeaderStream,
    sent: u64,
    heard: u64,
}

/// This broker's partitions as a leader's stream sees them, on behalf of one follower.
struct Leader<'a> {
    broker: std::cell::RefCell<(&'a mut Broker, &'a mut Context)>,
    follower: BrokerId,
    epoch: BrokerEpoch,
}

impl LeaderView for Leader<'_> {
    fn fetch(&self, tp: TopicPartition, fetch: &FollowerFetch) -> Result<FetchVerdict, ErrorCode> {
        let mut both = self.broker.borrow_mut();
        let (broker, context) = &mut *both;
        let mut verdict = Err(ErrorCode::UnknownTopicOrPartition);
        broker.event(tp, context, |state, epochs, facts| {
            match state.on_follower_fetch(self.follower, self.epoch, fetch, epochs, facts) {
                Ok((answer, effects)) => {
                    verdict = Ok(answer);
                    effects
                }
                Err(refused) => {
                    verdict = Err(FetchRefused::code(refused));
                    Effects::default()
                }
            }
        });
        verdict
    }

    fn positions(&self, tp: TopicPartition) -> Result<Leading, ErrorCode> {
        let both = self.broker.borrow();
        both.0.leading(tp)
    }
}

impl FollowerView for Broker {
    fn following(&self, tp: TopicPartition) -> Option<Position> {
        let state = &self.process.as_ref()?.replicas.get(&tp)?.state;
        let (leader, leader_epoch) = state.following()?;
        Some(Position {
            leader,
            leader_epoch,
            in_sync: state.is_in_sync_follower(),
            position: self.disk.logs.get(&tp)?.position(self.pretends),
        })
    }
}

impl Broker {
    fn leading(&self, tp: TopicPartition) -> Result<Leading, ErrorCode> {
        let replica = self
            .process
            .as_ref()
            .and_then(|process| process.replicas.get(&tp));
        let (Some(replica), Some(log)) = (replica, self.disk.logs.get(&tp)) else {
            return Err(ErrorCode::UnknownTopicOrPartition);
        };
        Ok(Leading {
            leader_epoch: replica.state.check_append(None).map_err(RoleError::code)?,
            log_end: log.end(),
            high_watermark: replica.state.high_watermark(),
            log_start: Offset::ZERO,
        })
    }

    fn read(&self, order: &ReadOrder) -> Result<ReplicaRead, ErrorCode> {
        let leading = self.leading(order.partition)?;
        if leading.leader_epoch != order.leader_epoch {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if order.from > leading.log_end {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let log = &self.disk.logs[&order.partition];
        let (batches, next) = log.read(order.from.0 as usize, order.max_bytes);
        Ok(ReplicaRead {
            batches,
            base: order.from,
            next,
            high_watermark: leading.high_watermark,
            log_start: Offset::ZERO,
        })
    }

    /// A message on a replication stream.
    pub(crate) fn hear_stream(&mut self, from: Node, conn: Conn, message: Message, context: &mut Context) {
        let now = context.now;
        let Some(process) = &mut self.process else { return };
        match message {
            Message::Hello(epoch) => {
                let known = process
                    .image
                    .brokers
                    .get(&BrokerId(from))
                    .map(|known| known.epoch);
                if known == Some(epoch) {
                    let serving = Serving {
                        follower: from,
                        epoch,
                        stream: LeaderStream::new(),
                        sent: now,
                        heard: now,
                    };
                    process.serving.insert(conn, serving);
                } else {
                    context.out.push((self.id, Out::Close(conn)));
                }
            }
            Message::Follower(message) => {
                self.with_serving(conn, context, |serving, view| {
                    serving.heard = now;
                    for &tp in &message.stop {
                        serving.stream.on_stop(tp);
                    }
                    serving.stream.on_credit(message.credit);
                    let mut news = Vec::new();
                    for fetch in &message.fetches {
                        news.extend(serving.stream.on_fetch(fetch, view));
                    }
                    if message.heartbeat {
                        news.extend(serving.stream.on_heartbeat(view));
                    }
                    news
                });
            }
            Message::Leader(news) => {
                if let Some(following) = process.following.get_mut(&from).filter(|f| f.conn == Some(conn)) {
                    following.stream.on_heard(Now(now));
                    for news in news {
                        following.stream.on_news(news, Now(now));
                    }
                }
            }
            Message::Reset => {
                process.serving.remove(&conn);
                for following in process.following.values_mut().filter(|f| f.conn == Some(conn)) {
                    following.conn = None;
                    following.stream.disconnected();
                    following.retry_at = now + 50;
                }
            }
            _ => {}
        }
        self.pump(context);
    }

    fn with_serving(
        &mut self,
        conn: Conn,
        context: &mut Context,
        act: impl FnOnce(&mut Serving, &Leader<'_>) -> Vec<replication::streams::wire::News>,
    ) {
        let Some(mut serving) = self
            .process
            .as_mut()
            .and_then(|process| process.serving.remove(&conn))
        else {
            return;
        };
        let me = self.id;
        let (mut news, now) = {
            let now = context.now;
            let view = Leader {
                follower: BrokerId(serving.follower),
                epoch: serving.epoch,
                broker: std::cell::RefCell::new((self, context)),
            };
            let mut news = act(&mut serving, &view);
            while let Some(order) = serving.stream.next(&view) {
                match order {
                    Order::Say(say) => news.push(say),
                    Order::Read(order) => {
                        let outcome = view.broker.borrow().0.read(&order);
                        news.extend(serving.stream.on_read(&order, outcome, &view));
                    }
                }
            }
            (news, now)
        };
        let due = now >= serving.sent + HEARTBEAT.as_millis() as u64;
        if !news.is_empty() || due {
            serving.sent = now;
            context.send(
                me,
                conn,
                serving.follower,
                Message::Leader(std::mem::take(&mut news)),
            );
        }
        if let Some(process) = &mut self.process {
            let known = process
                .image
                .brokers
                .get(&BrokerId(serving.follower))
                .map(|known| known.epoch);
            let silent = now >= serving.heard + 2 * SILENCE.as_millis() as u64;
            if silent || due && known != Some(serving.epoch) {
                context.out.push((me, Out::Close(conn)));
            } else {
                process.serving.insert(conn, serving);
            }
        }
    }

    /// Has every stream do what there is to do, until nothing moves any more.
    pub(crate) fn pump(&mut self, context: &mut Context) {
        self.assign(context);
        loop {
            let worked = self.work(context);
            let Some(process) = &mut self.process else { return };
            let moved = std::mem::take(&mut process.moved);
            for following in process.following.values_mut() {
                for &tp in &moved {
                    following.stream.on_progress(tp);
                }
            }
            for conn in process.serving.keys().copied().collect::<Vec<_>>() {
                self.with_serving(conn, context, |serving, _| {
                    for &tp in &moved {
                        serving.stream.on_progress(tp);
                    }
                    Vec::new()
                });
            }
            let quiet = self
                .process
                .as_ref()
                .is_none_or(|process| process.moved.is_empty());
            if quiet && !worked {
                break;
            }
        }
        self.speak(context);
    }

    /// Whom each replica follows now: streams are told what has changed.
    fn assign(&mut self, context: &mut Context) {
        let now = context.now;
        let Some(process) = &mut self.process else { return };
        let wanted: std::collections::BTreeMap<TopicPartition, (Node, LeaderEpoch)> = process
            .replicas
            .iter()
            .filter_map(|(&tp, replica)| {
                let (leader, epoch) = replica.state.following()?;
                Some((tp, (leader.get(), epoch)))
            })
            .collect();
        for (tp, (leader, _)) in &process.followed {
            if wanted.get(tp).is_none_or(|(new, _)| new != leader)
                && let Some(following) = process.following.get_mut(leader)
            {
                following.stream.unassign(*tp);
            }
        }
        for (&tp, &(leader, epoch)) in &wanted {
            if process.followed.get(&tp) != Some(&(leader, epoch)) {
                let following = process.following.entry(leader).or_insert_with(|| Following {
                    stream: FollowerStream::new(BrokerId(leader), Lane::InSync, WINDOW, Now(now)),
                    conn: None,
                    opened_as: None,
                    retry_at: now,
                });
                following.stream.assign(tp, epoch);
            }
        }
        process.followed = wanted;
    }

    /// What streams want of the logs.
    fn work(&mut self, context: &mut Context) -> bool {
        let mut worked = false;
        let leaders: Vec<Node> = self
            .process
            .as_ref()
            .map_or_else(Vec::new, |process| process.following.keys().copied().collect());
        for leader in leaders {
            while let Some(work) = self.stream(leader).and_then(FollowerStream::take_work) {
                worked = true;
                let now = Now(context.now);
                match work {
                    Work::Append(append) => {
                        let (tp, generation, bytes) =
                            (append.partition, append.generation, append.batches.len());
                        let appended = self.append(
                            tp,
                            append.leader_epoch,
                            append.previous,
                            append.batches,
                            append.high_watermark,
                            context,
                        );
                        if let Some(stream) = self.stream(leader) {
                            stream.on_appended(tp, generation, bytes, appended, now);
                        }
                    }
                    Work::Mend(work) => {
                        let mended = self.mend(&work, context);
                        if let Some(stream) = self.stream(leader) {
                            stream.on_mended(work.partition, mended, now);
                        }
                    }
                }
            }
        }
        worked
    }

    fn stream(&mut self, leader: Node) -> Option<&mut FollowerStream> {
        Some(&mut self.process.as_mut()?.following.get_mut(&leader)?.stream)
    }

    fn follows(&self, tp: TopicPartition, epoch: LeaderEpoch) -> bool {
        let replica = self
            .process
            .as_ref()
            .and_then(|process| process.replicas.get(&tp));
        replica.is_some_and(|replica| replica.state.check_follows(epoch).is_ok())
    }

    fn append(
        &mut self,
        tp: TopicPartition,
        epoch: LeaderEpoch,
        previous: Offset,
        batches: bytes::Bytes,
        high_watermark: Offset,
        context: &mut Context,
    ) -> bool {
        if !self.follows(tp, epoch) || self.is_held(tp) {
            return false;
        }
        let Some(log) = self.disk.logs.get_mut(&tp) else {
            return false;
        };
        if !batches.is_empty() {
            if log.end() != previous {
                return false;
            }
            for record in decode(batches) {
                context.checker.appended(tp, log, record);
                log.push(record);
            }
            if let Some(process) = &mut self.process {
                process.moved.insert(tp);
            }
        }
        self.event(tp, context, |state, _, facts| {
            state.on_leader_high_watermark(high_watermark, facts)
        });
        self.flush(tp, context);
        true
    }

    /// The rules of `Partition::truncate_for` and `Partition::restart_at`.
    fn mend(&mut self, work: &MendWork, context: &mut Context) -> bool {
        let tp = work.partition;
        if !self.follows(tp, work.leader_epoch) || self.is_held(tp) {
            return false;
        }
        let Some(log) = self.disk.logs.get_mut(&tp) else {
            return false;
        };
        let now = log.position(self.pretends);
        let target = match work.mend {
            Mend::Truncate { .. }
                if (now.last_epoch, now.log_end) != (work.judged.last_epoch, work.judged.log_end) =>
            {
                return false;
            }
            Mend::Restart { log_start } if log.end() >= log_start => return false,
            Mend::Truncate { epoch, end_offset } => {
                let own = epoch.and_then(|epoch| log.epochs.end_offset(epoch, log.end()));
                let own_end = own.map_or(Offset::ZERO, |(_, end)| end);
                log.end().min(end_offset).min(own_end)
            }
            Mend::Restart { log_start } => log_start.min(log.end()),
        };
        context.checker.counts.truncations += u64::from(target < log.end());
        log.truncate(target.0 as usize);
        let view = log.view(self.pretends);
        if let Some(process) = &mut self.process {
            process.moved.insert(tp);
            if let Some(replica) = process.replicas.get_mut(&tp) {
                replica.state.on_truncated(view);
            }
        }
        self.flush(tp, context);
        true
    }

    /// Opens streams and says what there is to say.
    fn speak(&mut self, context: &mut Context) {
        let now = context.now;
        let me = self.id;
        let Some(mut all) = self
            .process
            .as_mut()
            .map(|process| std::mem::take(&mut process.following))
        else {
            return;
        };
        let my_epoch = self.process.as_ref().and_then(|process| process.my_epoch);
        for (&leader, following) in &mut all {
            following.stream.on_tick(Now(now));
            let outdated = following.opened_as != my_epoch || following.stream.is_silent(Now(now));
            if let Some(conn) = following.conn.filter(|_| outdated) {
                context.out.push((me, Out::Close(conn)));
                following.conn = None;
                following.stream.disconnected();
                following.retry_at = now + 50;
            }
            if following.conn.is_none()
                && !following.stream.is_empty()
                && now >= following.retry_at
                && let Some(epoch) = my_epoch
            {
                let conn = Conn(context.fresh());
                following.conn = Some(conn);
                following.opened_as = my_epoch;
                following.stream.connected(Now(now));
                context.send(me, conn, leader, Message::Hello(epoch));
            }
            if let Some(conn) = following.conn {
                while let Some(message) = following.stream.message(Now(now), self) {
                    context.send(me, conn, leader, Message::Follower(message));
                }
            }
        }
        if let Some(process) = &mut self.process {
            process.following = all;
        }
    }
}
