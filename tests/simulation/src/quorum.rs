//! Raft by what it promises: one committed log, the tail of a deposed leader kept or lost, deposed leaders
//! that do not know it yet.

use metadata::records;
use protocol::{ClaimId, LeaderEpoch, Offset};

use crate::controller::{Active, VOTERS};
use crate::message::{Entry, Node};
use crate::world::{Event, World};

impl World {
    pub(crate) fn append(&mut self, term: LeaderEpoch, entry: protocol::grpc::v1::MetadataEntry) {
        let offset = Offset(self.log.len() as i64);
        self.truth = self
            .truth
            .apply(offset, term, Some(&entry))
            .expect("what was decided fits");
        self.images.push(self.truth.clone());
        self.log.push(Entry {
            offset,
            term,
            body: entry,
        });
    }

    pub(crate) fn commit(&mut self, node: Node, term: LeaderEpoch) {
        if term != self.term {
            return;
        }
        let Some(at) = self.actives.iter().position(|a| a.node == node && a.term == term) else {
            return;
        };
        let others = VOTERS.iter().filter(|&&other| other != node);
        let reached = others
            .filter(|&&other| !self.blocked.contains(&(node, other)))
            .count();
        if reached == 0 {
            return self.after(50, Event::Commit(node, term));
        }
        let Some((entry, waiting)) = self.actives[at].in_flight.pop_front() else {
            return;
        };
        if let Some(entry) = entry {
            self.append(term, entry);
        }
        let active = &mut self.actives[at];
        active.committed = self.truth.clone();
        active.settle(waiting, &self.log, &mut self.context);
    }

    /// A new leader of the quorum: the deposed one's tail is kept to some point, or lost; the deposed one
    /// finds out later.
    pub(crate) fn elect(&mut self) {
        let able: Vec<Node> = VOTERS
            .iter()
            .copied()
            .filter(|node| self.is_able(*node))
            .collect();
        let Some(node) = self.context.random.pick(&able) else {
            return self.after(200, Event::Elect);
        };
        let old_term = self.term;
        let mut left_over = None;
        if let Some(old) = self.actives.iter().position(|a| a.term == old_term) {
            let tail: Vec<_> = self.actives[old]
                .in_flight
                .iter()
                .filter_map(|(e, _)| e.clone())
                .collect();
            let kept = self.context.random.between(0, tail.len() as u64) as usize;
            for entry in tail.iter().take(kept) {
                self.append(old_term, entry.clone());
            }
            left_over = tail.get(kept).cloned();
            let delay = self.context.random.between(1, 1_500);
            let old = self.actives[old].node;
            self.after(delay, Event::Depose(old, old_term));
        }
        self.term = self.term.next();
        let claim = ClaimId(uuid::Uuid::from_u128(u128::from(self.context.fresh())));
        self.append(self.term, records::claim_entry(claim));
        if let Some(entry) = left_over.filter(|_| self.context.random.chance(20)) {
            // More than Raft would do: an entry of an earlier claim behind a later one has no effect.
            self.append(self.term, entry);
        }
        let active = Active::new(node, self.term, claim, &self.truth, self.context.now);
        self.actives.push(active);
        let run = self.term.get() as u64;
        self.after(0, Event::Tick(node, run));
    }

    pub(crate) fn is_able(&self, node: Node) -> bool {
        let cut = VOTERS
            .iter()
            .filter(|&&other| self.blocked.contains(&(node, other)))
            .count();
        !self.paused.contains_key(&node) && cut < 2
    }

    pub(crate) fn depose(&mut self, node: Node, term: LeaderEpoch) {
        if !self.is_able(node) {
            return self.after(300, Event::Depose(node, term));
        }
        if let Some(at) = self.actives.iter().position(|a| a.node == node && a.term == term) {
            self.actives.remove(at).depose(&mut self.context);
        }
    }
}
