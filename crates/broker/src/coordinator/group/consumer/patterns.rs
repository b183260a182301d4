//! Regular expressions that members subscribe with, and the topics that they stand for.
//!
//! What an expression stands for is written down when it comes, and again when the topics change: at most
//! every ten seconds, as in Kafka, so that many new topics are few rebalances.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use protocol::ErrorCode;

use super::{Beat, ConsumerGroup, refusal::Refusal};
use crate::coordinator::group::{
    effects::Effects,
    ids::GroupId,
    records::{Change, ConsumerChange, ResolvedPattern},
    subscription::{PatternError, TopicPattern},
};

/// How long after a look at all expressions of a group the next one may be.
const REFRESH_INTERVAL_MS: u64 = 10_000;

/// An expression that no member has brought yet, with what it stands for.
#[derive(Clone, Debug)]
pub(in super::super) struct Fresh {
    pub(super) pattern: Arc<str>,
    pub(super) resolved: Arc<ResolvedPattern>,
    pub(super) compiled: TopicPattern,
}

/// Expressions as they were compiled: to compile one takes far longer than to look at it.
pub(super) type CompiledPatterns = BTreeMap<Arc<str>, Result<TopicPattern, PatternError>>;

/// Looks up what an expression stands for now.
fn resolve(pattern: &TopicPattern, fx: &Effects<'_>) -> ResolvedPattern {
    let topics = pattern.resolve(&fx.topics.view);
    ResolvedPattern {
        topics: topics.iter().map(|topic| Arc::from(topic.as_str())).collect(),
        version: 0,
        timestamp_ms: fx.now.wall_ms,
    }
}

/// The expression in a heartbeat to a group, if that does not know it; refused when it is none, or comes from
/// one that is refused itself: nobody else has an expression compiled and looked up. Nothing changes: this is
/// asked before a group does for a member what it would not do for one that is refused.
pub(in super::super) fn fresh(
    id: &GroupId,
    group: Option<&ConsumerGroup>,
    beat: &Beat<'_>,
    fx: &Effects<'_>,
) -> Result<Option<Fresh>, Refusal> {
    let known = |pattern: &str| {
        group.is_some_and(|group| {
            group.ledger.uses_pattern(pattern) && group.ledger.resolved(pattern).is_some()
        })
    };
    let pattern = beat.body.subscribed_topic_regex.as_deref();
    let Some(pattern) = pattern.filter(|pattern| !pattern.is_empty() && !known(pattern)) else {
        return Ok(None);
    };
    if let Some(group) = group {
        group.find_seat(beat, &beat.member_id(), beat.owned().as_ref(), fx.config)?;
    }
    let refused = |why: String| Refusal::new(ErrorCode::InvalidRegularExpression, why);
    let compiled = TopicPattern::compile(pattern).map_err(|error| refused(error.to_string()))?;
    let resolved = Arc::new(resolve(&compiled, fx));
    let pattern: Arc<str> = pattern.into();
    let change = ConsumerChange::Pattern(pattern.clone(), Some(resolved.clone()));
    if Change::Consumer(id.clone(), change).encode().size() > fx.config.max_records_bytes {
        let why = format!("SubscribedTopicRegex `{pattern}` matches more topics than can be written down.");
        return Err(refused(why));
    }
    Ok(Some(Fresh {
        pattern,
        resolved,
        compiled,
    }))
}

impl ConsumerGroup {
    /// Forgets what no member uses, and looks up what is new or due. True when some expression stands for
    /// other topics than before.
    pub(super) fn refresh_patterns(&mut self, fx: &mut Effects<'_>) -> bool {
        self.forget_unused_patterns(fx);
        let (version, now) = (fx.topics.version, fx.now.instant_ms);
        let due = self
            .patterns_seen
            .is_none_or(|(seen, at)| seen != version && now >= at.saturating_add(REFRESH_INTERVAL_MS));
        let in_use = self.ledger.patterns_in_use();
        let stale: Vec<Arc<str>> = in_use
            .filter(|pattern| due || self.ledger.resolved(pattern).is_none())
            .cloned()
            .collect();
        if due && !stale.is_empty() {
            self.patterns_seen = Some((version, now));
        }
        let mut changed = false;
        for pattern in stale {
            let compiled = self.compiled.entry(pattern.clone());
            // What was accepted compiles; another coordinator may have accepted more, which matches nothing.
            let resolved = match compiled.or_insert_with_key(|pattern| TopicPattern::compile(pattern)) {
                Ok(compiled) => resolve(compiled, fx),
                Err(_) => ResolvedPattern {
                    topics: BTreeSet::new(),
                    version: 0,
                    timestamp_ms: fx.now.wall_ms,
                },
            };
            let before = self.ledger.resolved(&pattern);
            if before.is_some_and(|before| before.topics == resolved.topics) {
                continue;
            }
            let change = ConsumerChange::Pattern(pattern, Some(Arc::new(resolved)));
            // What has grown too large stays as it was.
            if self.fits(&change, fx) {
                self.write(change, fx);
                changed = true;
            }
        }
        changed
    }

    pub(super) fn forget_unused_patterns(&mut self, fx: &mut Effects<'_>) {
        let ledger = &self.ledger;
        self.compiled.retain(|pattern, _| ledger.uses_pattern(pattern));
        let resolved = self.records().patterns.keys();
        let unused: Vec<Arc<str>> = resolved
            .filter(|pattern| !self.ledger.uses_pattern(pattern))
            .cloned()
            .collect();
        for pattern in unused {
            self.write(ConsumerChange::Pattern(pattern, None), fx);
        }
    }
}
