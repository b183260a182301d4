//! What the handling of one event may use and what it leaves behind.

use std::sync::Arc;

use super::{
    config::GroupConfig,
    ids::{GroupId, MemberId},
    records::{Change, CoordinatorRecord},
    request::{Answer, Barrier, GroupReply, Now, Outcome, ReplyToken},
    timers::{TimerKey, Timers},
    topics::TopicsView,
};

/// The topics as the shard knows them.
#[derive(Clone, Debug, Default)]
pub(super) struct Topics {
    pub(super) view: Arc<TopicsView>,
    /// Counts the views that this shard was given.
    pub(super) version: u64,
}

/// The time, the settings, the topics and the timers, and the outcome as it grows.
#[derive(Debug)]
pub(super) struct Effects<'a> {
    pub(super) now: Now,
    pub(super) config: &'a GroupConfig,
    pub(super) topics: &'a Topics,
    timers: &'a mut Timers,
    outcome: &'a mut Outcome,
}

impl<'a> Effects<'a> {
    pub(super) fn new(
        now: Now,
        config: &'a GroupConfig,
        topics: &'a Topics,
        timers: &'a mut Timers,
        outcome: &'a mut Outcome,
    ) -> Self {
        Self {
            now,
            config,
            topics,
            timers,
            outcome,
        }
    }

    /// Has a change appended that was applied already.
    pub(super) fn record(&mut self, change: &Change) {
        self.outcome.records.push(change.encode());
    }

    /// Has records appended whose changes were applied already.
    pub(super) fn records(&mut self, records: impl IntoIterator<Item = CoordinatorRecord>) {
        self.outcome.records.extend(records);
    }

    /// Counts a target that was computed for a group.
    pub(super) fn count_target(&mut self) {
        self.outcome.targets += 1;
    }

    /// Answers with what a failover cannot take back.
    pub(super) fn answer_now(&mut self, token: ReplyToken, reply: GroupReply) {
        self.answer(token, reply, Barrier::Now);
    }

    /// Answers with what may rest on records that are not committed yet.
    pub(super) fn answer_committed(&mut self, token: ReplyToken, reply: GroupReply) {
        self.answer(token, reply, Barrier::Committed);
    }

    fn answer(&mut self, token: ReplyToken, reply: GroupReply, after: Barrier) {
        self.outcome.replies.push(Answer { token, reply, after });
    }

    /// Gives a member (anew) that many milliseconds to be heard of.
    pub(super) fn start_session(&mut self, group: &GroupId, member: &MemberId, timeout_ms: u64) {
        let key = TimerKey::Session(group.clone(), member.clone());
        self.schedule(key, timeout_ms);
    }

    /// Expects nothing of a member any more.
    pub(super) fn end_session(&mut self, group: &GroupId, member: &MemberId) {
        self.cancel(&TimerKey::Session(group.clone(), member.clone()));
    }

    /// Sets a timer to so many milliseconds from now.
    pub(super) fn schedule(&mut self, key: TimerKey, after_ms: u64) {
        self.timers
            .schedule(key, self.now.instant_ms.saturating_add(after_ms));
    }

    /// Sets a timer to so many milliseconds from now, if it is not running already.
    pub(super) fn schedule_unless_set(&mut self, key: TimerKey, after_ms: u64) {
        if !self.timers.is_set(&key) {
            self.schedule(key, after_ms);
        }
    }

    /// Whether a timer is running.
    pub(super) fn is_set(&self, key: &TimerKey) -> bool {
        self.timers.is_set(key)
    }

    /// Takes a timer back.
    pub(super) fn cancel(&mut self, key: &TimerKey) {
        self.timers.cancel(key);
    }
}
