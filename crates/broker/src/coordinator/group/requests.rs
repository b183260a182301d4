//! From a request to the group that it is about, and back.

use kafka_protocol::{
    messages::{
        self, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest,
        OffsetDeleteRequest, describe_groups_response::DescribedGroup,
        offset_fetch_request::OffsetFetchRequestGroup,
    },
    protocol::StrBytes,
};
use protocol::ErrorCode;
use uuid::Uuid;

use super::{
    classic::{self, Join},
    consumer::ClassicLeave,
    effects::Effects,
    ids::GroupId,
    offsets::{self, GroupOffsets},
    record_bounds,
    records::Change,
    replies,
    request::{Caller, GroupReply, GroupRequest, Now, Outcome, ReplyToken},
    shard::{Group, GroupEntry, GroupShard},
};

/// From which version on OffsetCommit may say that there is no such group (KIP-848).
const COMMIT_KNOWS_GROUP_NOT_FOUND: i16 = 9;
/// From which version on DescribeGroups says that there is no such group (KIP-1043).
const DESCRIBE_KNOWS_GROUP_NOT_FOUND: i16 = 6;

/// A request that is being handled.
pub(super) struct Handling<'a> {
    pub(super) shard: &'a mut GroupShard,
    pub(super) now: Now,
    pub(super) caller: &'a Caller,
    pub(super) token: ReplyToken,
    pub(super) outcome: &'a mut Outcome,
}

impl GroupShard {
    /// Handles one request. Its answer is in this outcome, or, of a JoinGroup or SyncGroup that has
    /// to wait, in a later one.
    pub fn handle(&mut self, now: Now, caller: &Caller, token: ReplyToken, request: GroupRequest) -> Outcome {
        let mut outcome = Outcome::default();
        let refusal = record_bounds::refuse(&request, caller, &self.config);
        let mut handling = Handling {
            shard: self,
            now,
            caller,
            token,
            outcome: &mut outcome,
        };
        if let Some(error) = refusal {
            let reply = request.refused(caller.api_version, error);
            handling.fx().answer_now(token, reply);
            return outcome;
        }
        let group_id = request.group_id().map(GroupId::from);
        handling.dispatch(request);
        if let Some(group_id) = group_id {
            self.forget_if_vacant(&group_id);
        }
        outcome
    }
}

impl Handling<'_> {
    pub(super) fn fx(&mut self) -> Effects<'_> {
        let shard = &mut *self.shard;
        Effects::new(
            self.now,
            &shard.config,
            &shard.topics,
            &mut shard.timers,
            self.outcome,
        )
    }

    /// A group that is there, with what its handling may use.
    pub(super) fn group(&mut self, id: &str) -> Option<(&mut GroupEntry, Effects<'_>)> {
        let shard = &mut *self.shard;
        let entry = shard.groups.get_mut(id)?;
        let fx = Effects::new(
            self.now,
            &shard.config,
            &shard.topics,
            &mut shard.timers,
            self.outcome,
        );
        Some((entry, fx))
    }

    /// A group, made if it is not there. If nothing comes of it, it is forgotten after the request.
    pub(super) fn group_or_new(&mut self, id: &str) -> (&mut GroupEntry, Effects<'_>) {
        let shard = &mut *self.shard;
        let entry = shard
            .groups
            .entry(GroupId::from(id))
            .or_insert_with_key(|id| GroupEntry::new(id.clone()));
        let fx = Effects::new(
            self.now,
            &shard.config,
            &shard.topics,
            &mut shard.timers,
            self.outcome,
        );
        (entry, fx)
    }

    pub(super) fn answer_now(&mut self, reply: GroupReply) {
        let token = self.token;
        self.fx().answer_now(token, reply);
    }

    pub(super) fn answer_committed(&mut self, reply: GroupReply) {
        let token = self.token;
        self.fx().answer_committed(token, reply);
    }

    fn dispatch(&mut self, request: GroupRequest) {
        let (caller, token) = (self.caller, self.token);
        match request {
            GroupRequest::Join {
                body,
                fresh_member_id,
            } => self.join(body, fresh_member_id),
            GroupRequest::Sync(body) => match self.group(&body.group_id) {
                Some((entry, mut fx)) => match &mut entry.group {
                    Group::Classic(group) => group.sync(caller, token, &body, &mut fx),
                    Group::Consumer(group) => group.sync_classic(token, &body, &mut fx),
                },
                None => self.answer_now(replies::sync_refused(ErrorCode::UnknownMemberId)),
            },
            GroupRequest::Heartbeat(body) => {
                let error = match self.group(&body.group_id) {
                    Some((entry, mut fx)) => match &mut entry.group {
                        Group::Classic(group) => group.heartbeat(&body, &mut fx),
                        Group::Consumer(group) => group.heartbeat_classic(&body, &mut fx),
                    },
                    None => ErrorCode::UnknownMemberId,
                };
                self.answer_now(replies::heartbeat(error));
            }
            GroupRequest::Leave(body) => self.leave(&body),
            GroupRequest::ConsumerHeartbeat {
                body,
                fresh_member_id,
            } => self.consumer_heartbeat(&body, fresh_member_id),
            GroupRequest::CommitOffsets(body) => self.commit(&body),
            GroupRequest::FetchOffsets { group, .. } => self.fetch(&group),
            GroupRequest::DeleteOffsets(body) => self.delete_offsets(&body),
            GroupRequest::Describe(group) => self.describe(&group),
            GroupRequest::DescribeConsumer(group) => self.describe_consumer(&group),
            GroupRequest::List(filters) => self.list(&filters),
            GroupRequest::Delete(group) => self.delete(&group),
        }
    }

    fn join(&mut self, mut body: JoinGroupRequest, fresh_member_id: Uuid) {
        let (caller, token) = (self.caller, self.token);
        let config = &self.shard.config;
        let timeouts = config.group_min_session_timeout_ms..=config.group_max_session_timeout_ms;
        let refused = |error| replies::join_refused(caller.api_version, body.member_id.clone(), error);
        if !timeouts.contains(&body.session_timeout_ms) {
            let reply = refused(ErrorCode::InvalidSessionTimeout);
            return self.answer_now(reply);
        }
        // Only who has no id yet founds a group.
        let founds = body.member_id.is_empty();
        if !founds && !self.shard.groups.contains_key(body.group_id.as_str()) {
            let reply = refused(ErrorCode::UnknownMemberId);
            return self.answer_now(reply);
        }
        if caller.api_version == 0 {
            body.rebalance_timeout_ms = body.session_timeout_ms;
        }
        let (entry, mut fx) = self.group_or_new(&body.group_id);
        let join = Join {
            caller,
            token,
            body: &body,
            fresh_member_id,
        };
        if founds {
            entry.make_way(&join, &mut fx);
        }
        match &mut entry.group {
            Group::Classic(group) => group.join(&join, &mut fx),
            Group::Consumer(group) if group.is_empty() => {
                let member_id = body.member_id.clone();
                let refused =
                    replies::join_refused(caller.api_version, member_id, ErrorCode::UnknownMemberId);
                fx.answer_now(token, refused);
            }
            Group::Consumer(group) => group.join_classic(&join, &mut fx),
        }
    }

    fn leave(&mut self, body: &LeaveGroupRequest) {
        let (version, token) = (self.caller.api_version, self.token);
        match self.group(&body.group_id) {
            Some((entry, mut fx)) => match &mut entry.group {
                Group::Classic(group) => group.leave(version, token, body, &mut fx),
                Group::Consumer(group) => {
                    let ClassicLeave { leaving, told } = group.leave_classic(version, body);
                    if !leaving.is_empty() {
                        entry.remove_members(&leaving, &mut fx);
                    }
                    fx.answer_committed(token, classic::left(version, told));
                }
            },
            None => {
                let unknown = classic::leaving(version, body)
                    .into_iter()
                    .map(|member| (member, ErrorCode::UnknownMemberId));
                let reply = classic::left(version, unknown.collect());
                self.answer_committed(reply);
            }
        }
    }

    fn commit(&mut self, body: &OffsetCommitRequest) {
        let (version, token, now) = (self.caller.api_version, self.token, self.now);
        let group_id = body.group_id.as_str();
        let known = self.shard.groups.contains_key(group_id);
        if !known && body.generation_id_or_member_epoch >= 0 {
            let error = if version >= COMMIT_KNOWS_GROUP_NOT_FOUND {
                ErrorCode::GroupIdNotFound
            } else {
                ErrorCode::IllegalGeneration
            };
            return self.answer_now(replies::commit_refused(body, error));
        }
        let (entry, mut fx) = self.group_or_new(group_id);
        let allowed = match &entry.group {
            Group::Classic(group) => group.check_commit(body, &mut fx),
            Group::Consumer(group) => group.check_commit(version, body),
        };
        if let Err(error) = allowed {
            return fx.answer_now(token, replies::commit_refused(body, error));
        }
        let (changes, reply) = offsets::commit(&group_id.into(), fx.config, now, body);
        let records: Vec<_> = changes.iter().map(Change::encode).collect();
        let size: usize = records.iter().map(super::CoordinatorRecord::size).sum();
        if size > fx.config.max_records_bytes {
            let error = ErrorCode::InvalidCommitOffsetSize;
            return fx.answer_now(token, replies::commit_refused(body, error));
        }
        fx.records(records);
        for change in changes {
            entry.apply(change);
        }
        fx.answer_committed(token, reply);
    }

    fn fetch(&mut self, group: &OffsetFetchRequestGroup) {
        let token = self.token;
        let Some((entry, mut fx)) = self.group(&group.group_id) else {
            return self.answer_committed(GroupOffsets::default().fetch(group));
        };
        let allowed = match &entry.group {
            Group::Classic(_) => Ok(()),
            Group::Consumer(consumers) => consumers.check_fetch(group),
        };
        match allowed {
            Ok(()) => fx.answer_committed(token, entry.offsets.fetch(group)),
            Err(error) => fx.answer_now(token, replies::fetch_refused(group, error)),
        }
    }

    fn delete_offsets(&mut self, body: &OffsetDeleteRequest) {
        let token = self.token;
        let Some((entry, mut fx)) = self.group(&body.group_id) else {
            let reply = replies::delete_offsets_refused(ErrorCode::GroupIdNotFound);
            return self.answer_committed(reply);
        };
        let group = &entry.group;
        let refused = match group {
            Group::Classic(group) => group.refuse_offset_delete(),
            Group::Consumer(_) => None,
        };
        let reply = match refused {
            Some(error) => replies::delete_offsets_refused(error),
            None => {
                let group_id = body.group_id.as_str().into();
                let (changes, reply) = entry.offsets.delete(&group_id, body, |topic| match group {
                    Group::Classic(group) => group.is_subscribed_to(topic),
                    Group::Consumer(group) => group.is_subscribed_to(topic),
                });
                entry.write(changes, &mut fx);
                reply
            }
        };
        fx.answer_committed(token, reply);
    }

    fn describe(&mut self, group_id: &messages::GroupId) {
        let version = self.caller.api_version;
        let entry = self.shard.groups.get(group_id.as_str());
        let reply = match entry.map(|entry| &entry.group) {
            Some(Group::Classic(group)) => group.describe(group_id),
            // One of the other protocol is none that this request can describe.
            other => {
                let dead = DescribedGroup::default()
                    .with_group_id(group_id.clone())
                    .with_group_state(StrBytes::from_static_str(replies::DEAD));
                GroupReply::Describe(if version >= DESCRIBE_KNOWS_GROUP_NOT_FOUND {
                    let why = other.map_or("not found", |_| "is not a classic group");
                    let message = format!("Group {} {why}.", group_id.as_str());
                    dead.with_error_code(ErrorCode::GroupIdNotFound.code())
                        .with_error_message(Some(StrBytes::from_string(message)))
                } else {
                    dead
                })
            }
        };
        self.answer_committed(reply);
    }

    fn list(&mut self, filters: &ListGroupsRequest) {
        let passes = |filter: &[StrBytes], is: &str| {
            filter.is_empty() || filter.iter().any(|name| name.trim().eq_ignore_ascii_case(is))
        };
        // Only what is asked for is made.
        let groups = self.shard.groups.values().filter_map(|entry| {
            let group = &entry.group;
            let wanted = passes(&filters.states_filter, group.state_name())
                && passes(&filters.types_filter, group.kind().name());
            wanted.then(|| match group {
                Group::Classic(group) => group.list(),
                Group::Consumer(group) => group.list(),
            })
        });
        let reply = GroupReply::List(Ok(groups.collect()));
        self.answer_committed(reply);
    }

    fn delete(&mut self, group_id: &messages::GroupId) {
        let token = self.token;
        let Some((entry, mut fx)) = self.group(group_id) else {
            let reply = replies::delete(group_id, ErrorCode::GroupIdNotFound);
            return self.answer_committed(reply);
        };
        let error = if entry.is_empty() {
            let changes = entry.deletion(&group_id.as_str().into());
            entry.write(changes, &mut fx);
            ErrorCode::None
        } else {
            ErrorCode::NonEmptyGroup
        };
        fx.answer_committed(token, replies::delete(group_id, error));
    }
}
