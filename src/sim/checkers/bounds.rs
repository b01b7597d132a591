//! *monotone* and *bounded*: what only grows, and what must not grow past its cap.
//!
//! Called by the checkers' front door after every turn.

use super::Checkers;
use crate::node::Node;
use crate::types::ServerId;

impl Checkers {
    /// Within a process commit and applied only grow; a new one begins at nothing, because neither
    /// is written down, and what was committed it finds in its log (*durable-before-ack*) or gets
    /// from a leader that has it (*leader-completeness*).
    pub(super) fn check_monotone(&mut self, id: ServerId, node: &Node) {
        let watched = self.servers.get_mut(&id).expect("it has started");
        let status = node.status();
        let (commit, applied) = (status.commit_index, status.last_applied);
        assert!(commit >= watched.commit, "monotone: commit of n{id} falls to {commit}");
        assert!(applied >= watched.applied, "monotone: applied of n{id} falls to {applied}");
        assert!(applied <= commit, "monotone: n{id} has applied {applied} and committed {commit}");
        assert!(
            status.current_term >= watched.term,
            "hard-state: the term of n{id} falls to {}",
            status.current_term
        );
        watched.commit = commit;
        self.commit = self.commit.max(commit);
        watched.term = status.current_term;
    }

    pub(super) fn check_bounded(&self, id: ServerId, node: &Node) {
        for queue in node.queues() {
            let (name, held, most) = (queue.name, queue.held, queue.most);
            assert!(held <= most, "bounded: n{id} has {held} in {name}, {most} are allowed");
        }
    }
}
