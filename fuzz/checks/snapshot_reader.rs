//! What must hold of the readers of snapshots on any bytes: they never panic, a file in pieces is
//! the same file, and what is loaded is what another snapshot of it says. Called by the fuzz target
//! and by the replay of its corpus in `cargo test`.

use raftkv::kv::loader::Loader;
use raftkv::kv::machine::{SnapshotContext, StateMachine};
use raftkv::proto::snapshot::{
    BLOCK_HEADER_BYTES, SnapshotError, SnapshotFault, SnapshotHeader, SnapshotRecord,
};
use raftkv::proto::snapshot_decoder::{SnapshotDecoder, SnapshotItem};
use raftkv::types::{ClusterTime, Revision};

/// A record that owns its bytes.
type Record = (Vec<u8>, Vec<u8>, Revision, Option<ClusterTime>);

#[derive(PartialEq, Debug)]
struct Decoded {
    header: Option<SnapshotHeader>,
    records: Vec<Record>,
    /// Where and why it stopped being a snapshot.
    error: Option<SnapshotError>,
}

/// The first byte says how the rest, the file, is cut into pieces.
pub fn check(data: &[u8]) {
    let Some((&cut, file)) = data.split_first() else {
        return;
    };
    check_file(cut, file);
    // A fuzzer cannot guess checksums: mend them, so that it gets behind them.
    check_file(cut, &with_mended_checksums(file));
}

fn check_file(cut: u8, file: &[u8]) {
    let whole = decode(file, file.len());
    let piece_bytes = usize::from(cut).max(1);
    assert_eq!(decode(file, piece_bytes), whole, "in pieces");
    assert_eq!(decode(file, 1), whole, "in single bytes");
    if let Some(error) = whole.error {
        assert!(error.offset <= file.len() as u64, "{error}");
    }
    match load(file, piece_bytes) {
        Ok((header, machine)) => {
            assert_eq!(whole.error, None);
            assert_eq!(whole.header.as_ref(), Some(&header));
            check_machine(header, machine, whole.records);
        }
        // What a section holds is known to the loader alone.
        Err(error) if error.fault == SnapshotFault::BadSection => {}
        Err(error) => assert_eq!(whole.error, Some(error)),
    }
}

/// A snapshot of what was loaded has the same records, in order, and is that of what it loads to.
fn check_machine(header: SnapshotHeader, mut machine: StateMachine, mut records: Vec<Record>) {
    records.sort();
    let second = snapshot(&header, &mut machine);
    let decoded = decode(&second, second.len());
    assert_eq!((decoded.error, &decoded.records), (None, &records));
    let (second_header, mut loaded) = load(&second, second.len()).expect("just written");
    // None reaches the end of time; and the estimate of the memory is the store's, whatever the
    // header says.
    let SnapshotHeader { clock, used_bytes, .. } = second_header;
    let expected = SnapshotHeader { clock, used_bytes, ..header };
    assert_eq!(second_header, expected);
    assert_eq!(snapshot(&second_header, &mut loaded), second);
}

fn snapshot(header: &SnapshotHeader, machine: &mut StateMachine) -> Vec<u8> {
    let context = SnapshotContext {
        cluster: header.cluster,
        membership_index: header.membership_index,
        membership: header.membership.clone(),
    };
    let mut file = Vec::new();
    machine.begin_snapshot(context, &mut file);
    while machine.snapshot_slice(1000, &mut file).is_none() {}
    file
}

fn load(file: &[u8], piece_bytes: usize) -> Result<(SnapshotHeader, StateMachine), SnapshotError> {
    let mut loader = Loader::new();
    for piece in file.chunks(piece_bytes) {
        loader.feed(piece)?;
    }
    loader.finish()
}

fn decode(file: &[u8], piece_bytes: usize) -> Decoded {
    let mut decoder = SnapshotDecoder::new();
    let mut decoded = Decoded { header: None, records: Vec::new(), error: None };
    for mut piece in file.chunks(piece_bytes.max(1)) {
        loop {
            match decoder.decode(&mut piece) {
                Ok(None) => break,
                Ok(Some(SnapshotItem::Header(header))) => {
                    assert_eq!(decoded.header, None, "there is one header");
                    decoded.header = Some(header);
                }
                Ok(Some(SnapshotItem::Section(..))) => {
                    assert_eq!(decoded.records, [], "sections come first");
                }
                Ok(Some(SnapshotItem::Record(record))) => decoded.records.push(owned(record)),
                Ok(Some(SnapshotItem::End(end))) => {
                    assert_eq!(end.records, decoded.records.len() as u64);
                    assert_eq!(decoder.finish(), Ok(end));
                }
                Err(error) => {
                    assert_eq!(decoder.finish(), Err(error));
                    decoded.error = Some(error);
                    return decoded;
                }
            }
        }
        assert!(piece.is_empty(), "`None` means that all was taken");
    }
    assert_eq!(decoder.bytes(), file.len() as u64);
    decoded.error = decoder.finish().err();
    decoded
}

fn owned(record: SnapshotRecord<'_>) -> Record {
    (record.key.to_vec(), record.value.to_vec(), record.revision, record.deadline)
}

/// The file with the number and the checksum that each of its blocks should have, and with the
/// counts that belong into a footer.
pub fn with_mended_checksums(file: &[u8]) -> Vec<u8> {
    let mut mended = file.to_vec();
    let (mut start, mut number, mut sum) = (0, 0_u32, 0_u32);
    while let Some(head) = mended.get(start..start + BLOCK_HEADER_BYTES) {
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let (kind, end) = (head[8], start + BLOCK_HEADER_BYTES + length);
        if end > mended.len() {
            break;
        }
        let records = decode(&mended[..start], start).records.len() as u64;
        let block = &mut mended[start..end];
        block[12..16].copy_from_slice(&number.to_le_bytes());
        if kind == 3 && length == 16 {
            block[16..24].copy_from_slice(&u64::from(number).to_le_bytes());
            block[24..32].copy_from_slice(&records.to_le_bytes());
        }
        sum = crc32fast::hash(&[&sum.to_le_bytes(), &block[0..4], &block[8..]].concat());
        block[4..8].copy_from_slice(&sum.to_le_bytes());
        (start, number) = (end, number + 1);
    }
    mended
}
