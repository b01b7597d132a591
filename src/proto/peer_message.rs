//! The encoding of [`Packet`]s: the payload of a frame between peers.
//!
//! All integers are little-endian. An envelope of five u64 (cluster, from, its incarnation, to, its
//! incarnation), a kind byte, then the fields in the order of their declaration. Entries and
//! batches are slices of the frame that brought them: nothing is copied. Called by the drivers.

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use crate::limits;
use crate::proto::admin::{self, AdminId, Answer};
use crate::proto::entry::{Entry, EntryKind};
use crate::proto::message::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, Envelope, GrowthRefusal, InstallOutcome,
    InstallSnapshot, InstallSnapshotResponse, Message, Packet, ReadId, RequestVote, Vote,
};
use crate::types::{
    Boot, ClusterId, ClusterTime, Incarnation, LogIndex, ReadRound, ServerId, SnapshotId, Term,
};

/// Why a packet was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerError {
    /// It ends before its fields do.
    Truncated,
    /// Something follows on its last field.
    TrailingBytes,
    /// A kind that this version doesn't know.
    UnknownKind(u8),
    /// A field has a value that it can't have.
    BadField(&'static str),
}

impl std::fmt::Display for PeerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PeerError::Truncated => f.write_str("the message ends before its fields do"),
            PeerError::TrailingBytes => f.write_str("bytes follow on the message's last field"),
            PeerError::UnknownKind(kind) => write!(f, "unknown message kind {kind}"),
            PeerError::BadField(field) => write!(f, "a value that {field} can't have"),
        }
    }
}

impl std::error::Error for PeerError {}

const REQUEST_VOTE: u8 = 1;
const VOTE: u8 = 2;
const APPEND_ENTRIES: u8 = 3;
const APPEND_ENTRIES_RESPONSE: u8 = 4;
const TIMEOUT_NOW: u8 = 5;
const FORWARD: u8 = 6;
const READ_INDEX: u8 = 7;
const READ_INDEX_RESPONSE: u8 = 8;
const INSTALL_SNAPSHOT: u8 = 16;
const ADMIN: u8 = 32;
const ADMIN_RESPONSE: u8 = 33;
const INSTALL_SNAPSHOT_RESPONSE: u8 = 17;
const CHECKPOINT: u8 = 48;

/// An entry's index, term, time, kind and payload length.
const ENTRY_HEADER_BYTES: usize = 29;

/// Appends the packet's encoding to `out`.
pub fn encode(packet: &Packet, out: &mut Vec<u8>) {
    let Envelope { cluster, from, from_incarnation, to, to_incarnation } = packet.envelope;
    for number in [cluster.0, from.0, from_incarnation.0, to.0, to_incarnation.0] {
        put(out, number);
    }
    match &packet.message {
        Message::RequestVote(request) => {
            out.push(REQUEST_VOTE);
            put(out, request.term.0);
            let flags = [request.pre_vote, request.transfer, request.bootstrap];
            out.extend(flags.map(u8::from));
            put(out, request.last_log_index.0);
            put(out, request.last_log_term.0);
        }
        Message::Vote(vote) => {
            out.push(VOTE);
            put(out, vote.term.0);
            let flags = [vote.pre_vote, vote.granted, vote.cluster_time.is_some()];
            out.extend(flags.map(u8::from));
            put(out, vote.cluster_time.unwrap_or_default().0);
        }
        Message::AppendEntries(request) => encode_append_entries(request, out),
        Message::AppendEntriesResponse(response) => encode_append_response(response, out),
        Message::TimeoutNow { term } => {
            out.push(TIMEOUT_NOW);
            put(out, term.0);
        }
        Message::Forward { batch } => {
            out.push(FORWARD);
            out.extend_from_slice(batch);
        }
        Message::ReadIndex { id } => {
            out.push(READ_INDEX);
            put(out, id.boot.0);
            put(out, id.number);
        }
        Message::ReadIndexResponse { id, index } => {
            out.push(READ_INDEX_RESPONSE);
            put(out, id.boot.0);
            put(out, id.number);
            put(out, index.0);
        }
        Message::Admin { id, term, words } => {
            out.push(ADMIN);
            for number in [id.boot.0, id.number, term.0] {
                put(out, number);
            }
            out.extend_from_slice(words);
        }
        Message::AdminResponse { id, answer } => {
            out.push(ADMIN_RESPONSE);
            put(out, id.boot.0);
            put(out, id.number);
            let (code, text) = answer.parts();
            out.push(code);
            let length = u32::try_from(text.len()).expect("limits::ADMIN_BYTES bounds it");
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        Message::Checkpoint { index, digest } => {
            out.push(CHECKPOINT);
            put(out, index.0);
            put(out, *digest);
        }
        Message::InstallSnapshot(request) => encode_install_snapshot(request, out),
        Message::InstallSnapshotResponse(response) => encode_install_response(response, out),
    }
}

/// The piece of the file has a checksum of its own, made over the bytes that were read.
fn encode_install_snapshot(request: &InstallSnapshot, out: &mut Vec<u8>) {
    out.push(INSTALL_SNAPSHOT);
    let InstallSnapshot { term, snapshot, offset, total, cluster_time, bytes } = request;
    for number in [term.0, snapshot.index.0, snapshot.term.0, *offset, *total, cluster_time.0] {
        put(out, number);
    }
    out.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn encode_install_response(response: &InstallSnapshotResponse, out: &mut Vec<u8>) {
    out.push(INSTALL_SNAPSHOT_RESPONSE);
    let InstallSnapshotResponse { term, snapshot, asked, outcome } = response;
    for number in [term.0, snapshot.index.0, snapshot.term.0, *asked] {
        put(out, number);
    }
    match outcome {
        InstallOutcome::Next { offset } => {
            out.push(0);
            put(out, *offset);
        }
        InstallOutcome::Refused => out.push(1),
    }
}

fn encode_append_entries(request: &AppendEntries, out: &mut Vec<u8>) {
    out.push(APPEND_ENTRIES);
    let AppendEntries { term, prev_log_index, prev_log_term, leader_commit, .. } = request;
    for number in [term.0, prev_log_index.0, prev_log_term.0, leader_commit.0] {
        put(out, number);
    }
    put(out, request.read_round.0);
    put(out, request.cluster_time.0);
    out.push(request.refuses_growth.map_or(0, |refusal| refusal as u8));
    let count = u32::try_from(request.entries.len()).expect("limits::APPEND_ENTRIES bounds it");
    out.extend_from_slice(&count.to_le_bytes());
    for entry in &request.entries {
        put(out, entry.index.0);
        put(out, entry.term.0);
        put(out, entry.time.0);
        out.push(entry.kind as u8);
        let length = u32::try_from(entry.payload.len()).expect("limits::BATCH_BYTES bounds it");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&entry.payload);
    }
}

fn encode_append_response(response: &AppendEntriesResponse, out: &mut Vec<u8>) {
    out.push(APPEND_ENTRIES_RESPONSE);
    put(out, response.term.0);
    put(out, response.read_round.0);
    match response.outcome {
        AppendOutcome::Match { match_index } => {
            out.push(0);
            put(out, match_index.0);
        }
        AppendOutcome::Conflict { rejected_index, hint_index, hint_term } => {
            out.push(1);
            put(out, rejected_index.0);
            put(out, hint_index.0);
            put(out, hint_term.0);
        }
    }
}

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// The packet of a frame's payload.
pub fn decode(payload: &Bytes) -> Result<Packet, PeerError> {
    let mut reader = Reader { rest: payload.clone() };
    let envelope = Envelope {
        cluster: ClusterId(reader.u64()?),
        from: ServerId(reader.u64()?),
        from_incarnation: Incarnation(reader.u64()?),
        to: ServerId(reader.u64()?),
        to_incarnation: Incarnation(reader.u64()?),
    };
    let message = match reader.u8()? {
        REQUEST_VOTE => Message::RequestVote(RequestVote {
            term: Term(reader.u64()?),
            pre_vote: reader.flag("pre_vote")?,
            transfer: reader.flag("transfer")?,
            bootstrap: reader.flag("bootstrap")?,
            last_log_index: LogIndex(reader.u64()?),
            last_log_term: Term(reader.u64()?),
        }),
        VOTE => {
            let term = Term(reader.u64()?);
            let pre_vote = reader.flag("pre_vote")?;
            let granted = reader.flag("granted")?;
            let has_time = reader.flag("cluster_time")?;
            let time = ClusterTime(reader.u64()?);
            if !has_time && time != ClusterTime::ZERO {
                return Err(PeerError::BadField("cluster_time"));
            }
            Message::Vote(Vote { term, pre_vote, granted, cluster_time: has_time.then_some(time) })
        }
        APPEND_ENTRIES => Message::AppendEntries(decode_append_entries(&mut reader)?),
        APPEND_ENTRIES_RESPONSE => {
            Message::AppendEntriesResponse(decode_append_response(&mut reader)?)
        }
        TIMEOUT_NOW => Message::TimeoutNow { term: Term(reader.u64()?) },
        FORWARD => Message::Forward { batch: std::mem::take(&mut reader.rest) },
        READ_INDEX => Message::ReadIndex { id: reader.read_id()? },
        READ_INDEX_RESPONSE => {
            let id = reader.read_id()?;
            Message::ReadIndexResponse { id, index: LogIndex(reader.u64()?) }
        }
        CHECKPOINT => Message::Checkpoint { index: LogIndex(reader.u64()?), digest: reader.u64()? },
        ADMIN => decode_admin(&mut reader)?,
        ADMIN_RESPONSE => decode_admin_response(&mut reader)?,
        INSTALL_SNAPSHOT => Message::InstallSnapshot(decode_install_snapshot(&mut reader)?),
        INSTALL_SNAPSHOT_RESPONSE => {
            Message::InstallSnapshotResponse(decode_install_response(&mut reader)?)
        }
        kind => return Err(PeerError::UnknownKind(kind)),
    };
    if !reader.rest.is_empty() {
        return Err(PeerError::TrailingBytes);
    }
    Ok(Packet { envelope, message })
}

fn decode_append_entries(reader: &mut Reader) -> Result<AppendEntries, PeerError> {
    let mut request = AppendEntries {
        term: Term(reader.u64()?),
        prev_log_index: LogIndex(reader.u64()?),
        prev_log_term: Term(reader.u64()?),
        leader_commit: LogIndex(reader.u64()?),
        read_round: ReadRound(reader.u64()?),
        cluster_time: ClusterTime(reader.u64()?),
        refuses_growth: match reader.u8()? {
            0 => None,
            1 => Some(GrowthRefusal::Disk),
            2 => Some(GrowthRefusal::Memory),
            _ => return Err(PeerError::BadField("refuses_growth")),
        },
        entries: Vec::new(),
    };
    let count = reader.u32()? as usize;
    // Reserved by what was received, never by what was declared.
    if count > limits::APPEND_ENTRIES || count * ENTRY_HEADER_BYTES > reader.rest.len() {
        return Err(PeerError::BadField("the number of entries"));
    }
    request.entries.reserve_exact(count);
    for _ in 0..count {
        let index = LogIndex(reader.u64()?);
        let term = Term(reader.u64()?);
        let time = ClusterTime(reader.u64()?);
        let kind = EntryKind::from_code(reader.u8()?).ok_or(PeerError::BadField("entry kind"))?;
        let length = reader.u32()? as usize;
        let payload = reader.bytes(length)?;
        request.entries.push(Entry { index, term, time, kind, payload });
    }
    Ok(request)
}

fn decode_append_response(reader: &mut Reader) -> Result<AppendEntriesResponse, PeerError> {
    let term = Term(reader.u64()?);
    let read_round = ReadRound(reader.u64()?);
    let outcome = match reader.u8()? {
        0 => AppendOutcome::Match { match_index: LogIndex(reader.u64()?) },
        1 => AppendOutcome::Conflict {
            rejected_index: LogIndex(reader.u64()?),
            hint_index: LogIndex(reader.u64()?),
            hint_term: Term(reader.u64()?),
        },
        _ => return Err(PeerError::BadField("outcome")),
    };
    Ok(AppendEntriesResponse { term, read_round, outcome })
}

fn decode_install_snapshot(reader: &mut Reader) -> Result<InstallSnapshot, PeerError> {
    let term = Term(reader.u64()?);
    let snapshot = reader.snapshot_id()?;
    let offset = reader.u64()?;
    let total = reader.u64()?;
    let cluster_time = ClusterTime(reader.u64()?);
    let crc = reader.u32()?;
    let bytes = std::mem::take(&mut reader.rest);
    let ends_at = offset.checked_add(bytes.len() as u64);
    if bytes.len() > limits::SNAPSHOT_CHUNK_BYTES || ends_at.is_none_or(|end| end > total) {
        return Err(PeerError::BadField("the length of a snapshot's piece"));
    }
    if crc32fast::hash(&bytes) != crc {
        return Err(PeerError::BadField("the checksum of a snapshot's piece"));
    }
    Ok(InstallSnapshot { term, snapshot, offset, total, cluster_time, bytes })
}

fn decode_install_response(reader: &mut Reader) -> Result<InstallSnapshotResponse, PeerError> {
    let term = Term(reader.u64()?);
    let snapshot = reader.snapshot_id()?;
    let asked = reader.u64()?;
    let outcome = match reader.u8()? {
        0 => InstallOutcome::Next { offset: reader.u64()? },
        1 => InstallOutcome::Refused,
        _ => return Err(PeerError::BadField("outcome")),
    };
    Ok(InstallSnapshotResponse { term, snapshot, asked, outcome })
}

/// The words are the rest, and are looked at here: what makes no sense never reaches a leader.
fn decode_admin(reader: &mut Reader) -> Result<Message, PeerError> {
    let id = AdminId { boot: Boot(reader.u64()?), number: reader.u64()? };
    let term = Term(reader.u64()?);
    let words = std::mem::take(&mut reader.rest);
    let fits = words.len() <= limits::ADMIN_BYTES;
    if !fits || admin::unpack_words(&words).is_none() {
        return Err(PeerError::BadField("the words of a request"));
    }
    Ok(Message::Admin { id, term, words })
}

fn decode_admin_response(reader: &mut Reader) -> Result<Message, PeerError> {
    let id = AdminId { boot: Boot(reader.u64()?), number: reader.u64()? };
    let code = reader.u8()?;
    let length = reader.u32()? as usize;
    let text = reader.bytes(length)?;
    let text = std::str::from_utf8(&text).ok().filter(|text| text.len() <= limits::ADMIN_BYTES);
    let answer = text.and_then(|text| Answer::from_parts(code, text));
    let answer = answer.ok_or(PeerError::BadField("the answer to a request"))?;
    Ok(Message::AdminResponse { id, answer })
}

/// Takes fields off the front of a payload.
struct Reader {
    rest: Bytes,
}

impl Reader {
    fn bytes(&mut self, length: usize) -> Result<Bytes, PeerError> {
        if length > self.rest.len() {
            return Err(PeerError::Truncated);
        }
        Ok(self.rest.split_to(length))
    }

    fn u8(&mut self) -> Result<u8, PeerError> {
        Ok(self.bytes(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, PeerError> {
        Ok(LittleEndian::read_u32(&self.bytes(4)?))
    }

    fn u64(&mut self) -> Result<u64, PeerError> {
        Ok(LittleEndian::read_u64(&self.bytes(8)?))
    }

    fn flag(&mut self, field: &'static str) -> Result<bool, PeerError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(PeerError::BadField(field)),
        }
    }

    fn read_id(&mut self) -> Result<ReadId, PeerError> {
        Ok(ReadId { boot: Boot(self.u64()?), number: self.u64()? })
    }

    fn snapshot_id(&mut self) -> Result<SnapshotId, PeerError> {
        Ok(SnapshotId { index: LogIndex(self.u64()?), term: Term(self.u64()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets() -> Vec<Packet> {
        let envelope = Envelope {
            cluster: ClusterId(1),
            from: ServerId(2),
            from_incarnation: Incarnation(3),
            to: ServerId(4),
            to_incarnation: Incarnation(5),
        };
        let entry = |index: u64, payload: &'static [u8]| Entry {
            index: LogIndex(index),
            term: Term(6),
            time: ClusterTime(1_700_000_000_000),
            kind: EntryKind::Batch,
            payload: Bytes::from_static(payload),
        };
        let messages = [
            Message::RequestVote(RequestVote {
                term: Term(7),
                pre_vote: true,
                transfer: false,
                bootstrap: true,
                last_log_index: LogIndex(8),
                last_log_term: Term(6),
            }),
            Message::Vote(Vote {
                term: Term(7),
                pre_vote: false,
                granted: true,
                cluster_time: Some(ClusterTime(9)),
            }),
            Message::AppendEntries(AppendEntries {
                term: Term(7),
                prev_log_index: LogIndex(10),
                prev_log_term: Term(6),
                leader_commit: LogIndex(9),
                read_round: ReadRound(3),
                cluster_time: ClusterTime(11),
                refuses_growth: Some(GrowthRefusal::Memory),
                entries: vec![entry(11, b"first"), entry(12, b"")],
            }),
            Message::AppendEntriesResponse(AppendEntriesResponse {
                term: Term(7),
                read_round: ReadRound(3),
                outcome: AppendOutcome::Match { match_index: LogIndex(12) },
            }),
            Message::AppendEntriesResponse(AppendEntriesResponse {
                term: Term(7),
                read_round: ReadRound(3),
                outcome: AppendOutcome::Conflict {
                    rejected_index: LogIndex(12),
                    hint_index: LogIndex(4),
                    hint_term: Term(2),
                },
            }),
            Message::TimeoutNow { term: Term(7) },
            Message::Forward { batch: Bytes::from_static(b"a batch") },
            Message::ReadIndex { id: ReadId { boot: Boot(1), number: 2 } },
            Message::ReadIndexResponse {
                id: ReadId { boot: Boot(1), number: 2 },
                index: LogIndex(12),
            },
            Message::Admin {
                id: AdminId { boot: Boot(1), number: 2 },
                term: Term(7),
                words: Bytes::from_static(b"\x02\0\0\0\x04\0\0\0RAFT\x04\0\0\0INFO"),
            },
            Message::AdminResponse {
                id: AdminId { boot: Boot(1), number: 2 },
                answer: Answer::Refused("ERR no".to_owned()),
            },
            Message::Checkpoint { index: LogIndex(12), digest: 13 },
            Message::InstallSnapshot(install(b"a piece")),
            Message::InstallSnapshot(install(b"")),
            Message::InstallSnapshotResponse(installed(InstallOutcome::Next { offset: 17 })),
            Message::InstallSnapshotResponse(installed(InstallOutcome::Refused)),
        ];
        messages.into_iter().map(|message| Packet { envelope, message }).collect()
    }

    const SNAPSHOT: SnapshotId = SnapshotId { index: LogIndex(12), term: Term(6) };

    fn install(bytes: &'static [u8]) -> InstallSnapshot {
        InstallSnapshot {
            term: Term(7),
            snapshot: SNAPSHOT,
            offset: 10,
            total: 17,
            cluster_time: ClusterTime(11),
            bytes: Bytes::from_static(bytes),
        }
    }

    fn installed(outcome: InstallOutcome) -> InstallSnapshotResponse {
        InstallSnapshotResponse { term: Term(7), snapshot: SNAPSHOT, asked: 10, outcome }
    }

    #[test]
    fn decode_rejects_a_piece_that_was_changed_or_does_not_fit_its_file() {
        let Packet { envelope, .. } = packets()[0];
        let encoded = |request: InstallSnapshot| {
            let mut out = Vec::new();
            encode(&Packet { envelope, message: Message::InstallSnapshot(request) }, &mut out);
            out
        };
        let mut changed = encoded(install(b"a piece"));
        *changed.last_mut().unwrap() ^= 1;
        let error = PeerError::BadField("the checksum of a snapshot's piece");
        assert_eq!(decode(&Bytes::from(changed)), Err(error));

        let error = PeerError::BadField("the length of a snapshot's piece");
        for (offset, total) in [(11, 17), (u64::MAX, u64::MAX), (0, 6)] {
            let request = InstallSnapshot { offset, total, ..install(b"a piece") };
            assert_eq!(decode(&Bytes::from(encoded(request))), Err(error), "{offset} of {total}");
        }
        let long = Bytes::from(vec![0; limits::SNAPSHOT_CHUNK_BYTES + 1]);
        let request = InstallSnapshot { total: u64::MAX, bytes: long, ..install(b"") };
        assert_eq!(decode(&Bytes::from(encoded(request))), Err(error));
    }

    #[test]
    fn decode_returns_what_encode_wrote() {
        for packet in packets() {
            let mut out = Vec::new();
            encode(&packet, &mut out);
            assert_eq!(decode(&Bytes::from(out)), Ok(packet));
        }
    }

    #[test]
    fn decode_rejects_every_cut_but_a_forwarded_batch() {
        for packet in packets() {
            let mut out = Vec::new();
            encode(&packet, &mut out);
            let whole = Bytes::from(out);
            let is_forward = matches!(packet.message, Message::Forward { .. });
            // A forwarded batch has its own end; cutting it is the batch decoder's to notice.
            let shortest_valid = if is_forward { 41 } else { whole.len() };
            for length in 0..shortest_valid {
                assert!(decode(&whole.slice(..length)).is_err(), "{packet:?} cut at {length}");
            }
        }
    }

    #[test]
    fn decode_rejects_a_count_that_the_bytes_cannot_hold() {
        let Packet { envelope, .. } = packets()[0];
        let request = AppendEntries {
            term: Term(1),
            prev_log_index: LogIndex(0),
            prev_log_term: Term(0),
            leader_commit: LogIndex(0),
            read_round: ReadRound(0),
            cluster_time: ClusterTime(0),
            refuses_growth: None,
            entries: Vec::new(),
        };
        let mut out = Vec::new();
        encode(&Packet { envelope, message: Message::AppendEntries(request) }, &mut out);
        let at = out.len() - 4;
        LittleEndian::write_u32(&mut out[at..], u32::MAX);
        let error = PeerError::BadField("the number of entries");
        assert_eq!(decode(&Bytes::from(out)), Err(error));
    }
}
