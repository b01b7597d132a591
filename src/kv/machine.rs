//! The state machine: the store, the gateways' table, and how far the log was applied.
//!
//! Design 2-client-path §2 and §4. The same entries give the same state on every node. Called by
//! `node/apply.rs`, entry by entry; decides nothing by a clock of this node.

use super::command::{self, Handler, WriteContext};
use super::gateways::{Gateways, Verdict};
use super::store::Store;
use crate::limits;
use crate::proto::batch::BatchCommand;
use crate::proto::entry::Entry;
use crate::proto::message::{BatchId, GatewayId};
use crate::proto::reply::Reply;
use crate::types::LogIndex;

/// What the log has made of nothing.
#[derive(Default, Debug)]
pub struct StateMachine {
    store: Store,
    gateways: Gateways,
    last_applied: LogIndex,
}

impl StateMachine {
    /// The store, to read.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// `lastApplied`: entries up to here are in the store.
    pub fn last_applied(&self) -> LogIndex {
        self.last_applied
    }

    /// Begins with an entry: moves the clock, and removes some of the keys that are dead by it.
    pub fn begin(&mut self, entry: &Entry) {
        assert_eq!(entry.index, self.last_applied.next(), "monotone: entries are applied in order");
        self.last_applied = entry.index;
        self.store.advance_clock(entry.time);
        self.store.expire_due(limits::EXPIRE_KEYS);
    }

    /// The members' gateways are these from now on.
    pub fn set_members(&mut self, members: impl Iterator<Item = GatewayId>) {
        self.gateways.set_members(members);
    }

    /// Decides whether a batch takes effect.
    pub fn admit(&mut self, id: BatchId) -> Verdict {
        self.gateways.admit(id)
    }

    /// Carries out one command of a batch that takes effect.
    pub fn execute(&mut self, command: BatchCommand<'_>) -> Reply {
        let Some(row) = command::by_code(command.code) else {
            // A gateway of a later version sent it; every node of this version skips it alike.
            return Reply::Error("ERR this version does not know the command".into());
        };
        let Handler::Write { apply, .. } = row.handler else {
            return Reply::Error("ERR a batch carries only writes".into());
        };
        let mut context = WriteContext { store: &mut self.store };
        apply(&mut context, command.args).unwrap_or_else(|error| error.reply())
    }
}
