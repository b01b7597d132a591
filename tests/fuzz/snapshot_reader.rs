//! Replays the committed corpus of the fuzz target `snapshot_reader`. With `UPDATE_CORPUS=1` it
//! writes the seeds anew first; inputs that the fuzzer found are left alone.

use bytes::Bytes;
use raftkv::limits;
use raftkv::proto::message::GatewayId;
use raftkv::proto::snapshot::{BLOCK_HEADER_BYTES, SnapshotHeader, SnapshotRecord};
use raftkv::proto::snapshot_encoder::SnapshotEncoder;
use raftkv::types::{
    BatchSeq, Boot, ClusterId, ClusterTime, CommandSet, Incarnation, LogIndex, Revision, ServerId,
    SnapshotId, Term,
};

#[path = "../../fuzz/checks/snapshot_reader.rs"]
mod checks;

#[test]
fn snapshot_reader_corpus_holds() {
    crate::corpus::replay("snapshot_reader", &seeds(), 0, checks::check);
}

#[test]
fn snapshot_reader_mends_what_an_encoder_wrote_to_the_same() {
    // What the check mends by is an implementation of its own.
    for (name, seed) in [seed("a", 1, &FEW), seed("b", 7, &[])] {
        let mut damaged = seed[1..].to_vec();
        damaged[4] ^= 1;
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        assert_eq!(checks::with_mended_checksums(&damaged), &seed[1..], "{name}");
    }
}

#[test]
fn snapshot_reader_holds_on_damaged_seeds() {
    // A small generator, so that a failing input fails again.
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % below
    };
    let seeds: Vec<_> = seeds().into_iter().filter(|(_, seed)| seed.len() < 1000).collect();
    for _ in 0..5000 {
        let (_, seed) = &seeds[random(seeds.len())];
        let (_, other) = &seeds[random(seeds.len())];
        let mut damaged = seed.clone();
        for _ in 0..=random(4) {
            if damaged.is_empty() {
                break;
            }
            let at = random(damaged.len());
            match random(5) {
                0 => damaged[at] ^= 1 << random(8),
                1 => damaged[at] = [0, 1, 0x7f, 0x80, 0xff][random(5)],
                2 => damaged.truncate(at + 1),
                3 => damaged
                    .splice(at..at, other[random(other.len())..].iter().copied())
                    .for_each(drop),
                _ => damaged.drain(at..damaged.len().min(at + 1 + random(40))).for_each(drop),
            }
        }
        checks::check(&damaged);
    }
}

/// Key, value, revision, deadline. A value that says so comes early.
type Record = (&'static [u8], &'static [u8], u64, Option<u64>);

const FEW: [Record; 4] = [
    (b"", b"empty key", 4, Some(0)),
    (b"a", b"1", 1, None),
    (b"c", b"early", 3, Some(u64::MAX - 1)),
    (b"b", b"", 9, Some(5)),
];

fn header(clock: u64) -> SnapshotHeader {
    let gateway = |id| GatewayId {
        server: ServerId(id),
        incarnation: Incarnation(id * 11),
        admitted: LogIndex(1),
    };
    SnapshotHeader {
        cluster: ClusterId::from_name("main"),
        id: SnapshotId { index: LogIndex(1234), term: Term(5) },
        membership_index: LogIndex(3),
        membership: Bytes::from_static(b"a membership"),
        clock: ClusterTime(clock),
        revision: Revision(9),
        digest: 0x0123_4567_89ab_cdef,
        used_bytes: 77,
        command_set: CommandSet::FIRST,
        gateways: vec![(gateway(1), Boot(2), BatchSeq(3)), (gateway(2), Boot(4), BatchSeq(5))],
    }
}

/// One byte that says how to cut, and a file.
fn encode(cut: u8, header: &SnapshotHeader, records: &[Record]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = SnapshotEncoder::new(header, &mut file);
    for (key, value, revision, deadline) in records {
        let (revision, deadline) = (Revision(*revision), deadline.map(ClusterTime));
        let is_early = *value == b"early";
        encoder.record(SnapshotRecord { key, value, revision, deadline, is_early }, &mut file);
    }
    encoder.finish(&mut file);
    [&[cut], &file[..]].concat()
}

fn seed(name: &'static str, cut: u8, records: &[Record]) -> (&'static str, Vec<u8>) {
    (name, encode(cut, &header(1000), records))
}

/// A seed with a change of its file.
fn changed(
    name: &'static str,
    records: &[Record],
    change: impl FnOnce(&mut Vec<u8>),
) -> (&'static str, Vec<u8>) {
    let (_, mut seed) = seed(name, 13, records);
    let cut = seed.remove(0);
    change(&mut seed);
    seed.insert(0, cut);
    (name, seed)
}

/// The offset of the first block of records.
fn records_block() -> usize {
    let footer = BLOCK_HEADER_BYTES + 16;
    encode(0, &header(1000), &[]).len() - 1 - footer
}

fn seeds() -> crate::corpus::Seeds {
    let at = records_block();
    let first_record = at + BLOCK_HEADER_BYTES;
    let large: &'static [u8] = Box::leak(vec![b'v'; limits::SNAPSHOT_BLOCK_BYTES].into());
    let nobody = SnapshotHeader {
        membership: Bytes::new(),
        membership_index: LogIndex::ZERO,
        gateways: Vec::new(),
        revision: Revision::ZERO,
        ..header(u64::MAX)
    };
    vec![
        seed("no-records", 7, &[]),
        seed("few-records", 1, &FEW),
        seed("three-blocks", 200, &[FEW[2], FEW[1], (b"large", large, 7, None)]),
        seed("key-twice", 7, &[FEW[0], FEW[1], FEW[1]]),
        seed("early-key-twice", 7, &[FEW[2], FEW[1], FEW[2]]),
        seed("early-key-again", 7, &[FEW[2], FEW[1], (b"c", b"", 9, None)]),
        seed("out-of-order", 7, &[FEW[1], FEW[0]]),
        seed("revision-of-the-future", 7, &[(b"a", b"", 10, None)]),
        ("nobody", encode(30, &nobody, &[])),
        changed("bad-checksum", &FEW, |file| file[first_record] ^= 1),
        changed("bad-number", &FEW, |file| file[at + 12] = 7),
        changed("block-too-long", &FEW, |file| file[at..at + 4].fill(0xff)),
        changed("key-too-long", &FEW, |file| file[first_record + 1] = 1),
        changed("value-too-long", &FEW, |file| file[first_record + 7] = 1),
        changed("newer-version", &FEW, |file| file[24] = 2),
        changed("not-a-snapshot", &FEW, |file| file[16] = b'X'),
        changed("membership-too-long", &[], |file| file[97] = 1),
        changed("footer-first", &[], |file| file[8] = 3),
        changed("footer-twice", &[], |file| file.extend_from_within(at..)),
        changed("miscounted", &FEW, |file| *file.last_mut().unwrap() = 1),
        changed("trailing", &FEW, |file| file.push(0)),
        changed("cut", &FEW, |file| file.truncate(first_record + 20)),
    ]
}
