//! A new cluster from an old one's state: what a restore and the recovery of a lost quorum do alike.
//!
//! Ours; design page 3, §3. The bytes of a snapshot go in, those of another one come out: the same
//! records in a cluster of a new lineage, whose one voter this server is, with a revision that no
//! client has ever seen. Called by `daemon/`. PURE; never holds more than a block of records.

use crate::limits;
use crate::proto::batch::Batch;
use crate::proto::entry::{Entry, EntryKind};
use crate::proto::message::GatewayId;
use crate::proto::snapshot::{Section, SnapshotEnd, SnapshotError, SnapshotHeader};
use crate::proto::snapshot_decoder::{SnapshotDecoder, SnapshotItem};
use crate::proto::snapshot_encoder::SnapshotEncoder;
use crate::raft::membership::{Member, Membership};
use crate::types::{
    BatchSeq, Boot, ClusterId, CommandSet, Incarnation, LogIndex, Revision, ServerId, SnapshotId,
};

use super::snapshots::gateways;
use crate::kv::command_set::{self, THIS};
use crate::kv::gateways::Verdict;
use crate::kv::machine::{SnapshotContext, StateMachine};

/// The cluster that is to be, and its one voter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewCluster {
    /// Name and lineage.
    pub cluster: ClusterId,
    /// The server.
    pub server: ServerId,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// Where peers reach it.
    pub peer: String,
    /// Where clients reach it.
    pub client: String,
    /// Where it serves HTTP, or empty.
    pub http: String,
}

/// Why no cluster can be made of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RefoundError {
    /// It is damaged.
    Damaged(SnapshotError),
    /// It needs a command set that this version does not know.
    CommandSet(CommandSet),
    /// Its index, term or revision cannot be raised any more.
    Exhausted,
}

impl std::fmt::Display for RefoundError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RefoundError::Damaged(error) => error.fmt(f),
            RefoundError::CommandSet(version) => {
                let known = THIS.known;
                write!(f, "it needs command set {version}, this version knows {known}")
            }
            RefoundError::Exhausted => f.write_str("its numbers are at the end of their range"),
        }
    }
}

impl std::error::Error for RefoundError {}

/// The header that the new cluster begins with. Its state is that of an entry behind the last one,
/// in a term of its own, which made this server the only member.
///
/// # Errors
/// [`RefoundError::CommandSet`], [`RefoundError::Exhausted`].
pub fn refounded(old: &SnapshotHeader, new: &NewCluster) -> Result<SnapshotHeader, RefoundError> {
    if old.command_set > THIS.known {
        return Err(RefoundError::CommandSet(old.command_set));
    }
    let id = SnapshotId { index: old.id.index.next(), term: old.id.term.next() };
    let revision = old.revision.0.checked_add(limits::RESTORE_REVISIONS);
    let revision = revision.map(Revision).ok_or(RefoundError::Exhausted)?;
    if id.index == old.id.index || id.term == old.id.term {
        return Err(RefoundError::Exhausted);
    }
    let member = Member {
        id: new.server,
        incarnation: new.incarnation,
        admitted: id.index,
        voter: true,
        outgoing_voter: false,
        promote: false,
        replaces: None,
        peer: new.peer.clone(),
        client: new.client.clone(),
        http: new.http.clone(),
    };
    let membership = Membership::new(vec![member]);
    // Gateways of the old cluster cannot speak any more; the new one has sent nothing.
    let rows =
        gateways(&membership).map(|gateway: GatewayId| (gateway, Boot::ZERO, BatchSeq::ZERO));
    Ok(SnapshotHeader {
        cluster: new.cluster,
        id,
        membership_index: id.index,
        membership: membership.encode(),
        clock: old.clock,
        revision,
        digest: old.digest,
        used_bytes: old.used_bytes,
        command_set: old.command_set,
        gateways: rows.collect(),
    })
}

/// A snapshot on its way into a new cluster.
#[derive(Debug)]
pub struct Refounding {
    new: NewCluster,
    decoder: SnapshotDecoder,
    encoder: Option<SnapshotEncoder>,
    id: SnapshotId,
}

impl Refounding {
    /// Nothing has come yet.
    pub fn new(new: NewCluster) -> Refounding {
        let decoder = SnapshotDecoder::new();
        Refounding { new, decoder, encoder: None, id: SnapshotId::default() }
    }

    /// Takes the old snapshot's next bytes; appends what they make of the new one.
    ///
    /// # Errors
    /// They are not a snapshot's, or not one that a cluster can begin with.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), RefoundError> {
        while let Some(item) = self.decoder.decode(&mut bytes).map_err(RefoundError::Damaged)? {
            match item {
                SnapshotItem::Header(header) => {
                    let header = refounded(&header, &self.new)?;
                    self.id = header.id;
                    self.encoder = Some(SnapshotEncoder::new(&header, out));
                }
                // What was begun in the old cluster is over: nobody knows whether it was done.
                SnapshotItem::Section(Section::Sessions, _) => {}
                SnapshotItem::Section(section, bytes) => {
                    let encoder = self.encoder.as_mut();
                    let encoder = encoder.expect("the decoder gives the header first");
                    encoder.section(section, bytes, out);
                }
                SnapshotItem::Record(record) => {
                    let encoder = self.encoder.as_mut();
                    encoder.expect("the decoder gives the header first").record(record, out);
                }
                SnapshotItem::End(_) => {}
            }
        }
        Ok(())
    }

    /// To be called where the old snapshot ends: which snapshot the new one is, and what it counts.
    ///
    /// # Errors
    /// The old one is not whole.
    pub fn finish(self, out: &mut Vec<u8>) -> Result<(SnapshotId, SnapshotEnd), RefoundError> {
        self.decoder.finish().map_err(RefoundError::Damaged)?;
        let encoder = self.encoder.expect("the decoder saw a whole file, its header included");
        Ok((self.id, encoder.finish(out)))
    }
}

/// Applies an entry as every node does, where nobody waits for an answer.
pub fn replay(machine: &mut StateMachine, entry: &Entry) {
    machine.begin(entry);
    match entry.kind {
        EntryKind::Empty => {}
        EntryKind::CommandSet => {
            command_set::decode(&entry.payload).into_iter().for_each(|set| machine.raise(set));
        }
        EntryKind::Membership => {
            let membership = Membership::decode(&entry.payload)
                .expect("consensus adopted it when it entered the log");
            machine.set_members(gateways(&membership));
        }
        EntryKind::Batch => {
            if let Some(batch) = Batch::decode(&entry.payload)
                && machine.admit(batch.id) == Verdict::Apply
            {
                for command in batch.commands() {
                    machine.execute(command);
                }
            }
        }
    }
}

/// Begins a snapshot of a state that no node serves: its bytes are for [`Refounding`] only, so the
/// membership in it is nobody's.
pub fn begin_snapshot_of(machine: &mut StateMachine, cluster: ClusterId, out: &mut Vec<u8>) {
    let context = SnapshotContext {
        cluster,
        membership_index: LogIndex::ZERO,
        membership: Membership::nobody().encode(),
    };
    machine.begin_snapshot(context, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::snapshot::SnapshotRecord;
    use crate::types::{ClusterTime, Term};
    use bytes::Bytes;

    fn old() -> (SnapshotHeader, Vec<u8>) {
        let header = SnapshotHeader {
            cluster: ClusterId(1),
            id: SnapshotId { index: LogIndex(40), term: Term(3) },
            membership_index: LogIndex(1),
            membership: Membership::nobody().encode(),
            clock: ClusterTime(5000),
            revision: Revision(17),
            digest: 99,
            used_bytes: 4,
            command_set: THIS.known,
            gateways: Vec::new(),
        };
        let mut file = Vec::new();
        let mut encoder = SnapshotEncoder::new(&header, &mut file);
        for (key, deadline) in [(b"a", None), (b"b", Some(ClusterTime(9000)))] {
            let revision = Revision(16);
            let record = SnapshotRecord { key, value: b"v", revision, deadline, is_early: false };
            encoder.record(record, &mut file);
        }
        encoder.finish(&mut file);
        (header, file)
    }

    fn new_cluster() -> NewCluster {
        NewCluster {
            cluster: ClusterId(2),
            server: ServerId(7),
            incarnation: Incarnation(8),
            peer: "p:1".to_owned(),
            client: "c:1".to_owned(),
            http: String::new(),
        }
    }

    #[test]
    fn refounding_keeps_the_records_and_begins_all_else_anew() {
        let (header, file) = old();
        let mut refounding = Refounding::new(new_cluster());
        let mut made = Vec::new();
        file.chunks(7).for_each(|piece| refounding.feed(piece, &mut made).unwrap());
        let (id, end) = refounding.finish(&mut made).unwrap();
        assert_eq!(id, SnapshotId { index: LogIndex(41), term: Term(4) });
        assert_eq!((end.records, end.bytes), (2, made.len() as u64));

        let mut decoder = SnapshotDecoder::new();
        let mut bytes = &made[..];
        let mut records = Vec::new();
        while let Some(item) = decoder.decode(&mut bytes).unwrap() {
            match item {
                SnapshotItem::Header(new) => {
                    assert_eq!(new.revision.0, header.revision.0 + (1 << 40));
                    assert_eq!((new.clock, new.cluster), (header.clock, ClusterId(2)));
                    let membership = Membership::decode(&new.membership).unwrap();
                    assert!(membership.is_quorum(|id| id == ServerId(7)));
                    assert_eq!(membership.members().len(), 1);
                    assert_eq!(new.gateways.len(), 1);
                }
                SnapshotItem::Section(..) => panic!("the old one had none"),
                SnapshotItem::Record(record) => {
                    records.push((Bytes::copy_from_slice(record.key), record.deadline));
                }
                SnapshotItem::End(_) => {}
            }
        }
        let expected = [("a", None), ("b", Some(ClusterTime(9000)))];
        assert_eq!(records, expected.map(|(key, at)| (Bytes::from(key), at)));
    }

    #[test]
    fn refounding_refuses_a_cut_file_and_numbers_at_their_end() {
        let (header, file) = old();
        let mut refounding = Refounding::new(new_cluster());
        refounding.feed(&file[..file.len() - 1], &mut Vec::new()).unwrap();
        assert!(matches!(refounding.finish(&mut Vec::new()), Err(RefoundError::Damaged(_))));
        let exhausted = SnapshotHeader { revision: Revision(u64::MAX - 5), ..header.clone() };
        assert_eq!(refounded(&exhausted, &new_cluster()), Err(RefoundError::Exhausted));
        let newer = SnapshotHeader { command_set: CommandSet(THIS.known.0 + 1), ..header };
        let refused = RefoundError::CommandSet(CommandSet(THIS.known.0 + 1));
        assert_eq!(refounded(&newer, &new_cluster()), Err(refused));
    }
}
