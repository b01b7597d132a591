//! A gateway's batch of write commands: the payload of a batch entry.
//!
//! Encoded once, by the gateway; forwarded, replicated, logged and applied in this form. A batch is
//! named by its gateway, the gateway's boot and a number, so that however often it is sent, it is
//! applied once. Called by `node/` and `kv/`. All integers are little-endian:
//!
//! ```text
//! server u64 | incarnation u64 | admitted u64 | epoch u64 | seq u64 | standing u8 | count u32
//! then for each command: code u16 | arguments u32 | bytes u32 | the encoded arguments
//! ```

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use crate::limits;
use crate::proto::args::Args;
use crate::proto::message::{BatchId, GatewayId};
use crate::types::{BatchSeq, Boot, Incarnation, LogIndex, ServerId};

const STANDING_AT: usize = 40;
const COUNT_AT: usize = 41;
const HEADER_BYTES: usize = 45;
const COMMAND_HEADER_BYTES: usize = 10;

/// Whether a batch carries what its gateway was asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Standing {
    /// It does.
    Whole = 0,
    /// Its gateway gave it up and emptied it under its own number.
    GivenUp = 1,
    /// The leader's disk is full: it was emptied when it was appended.
    RefusedDisk = 2,
    /// The leader's memory quota is used up: likewise.
    RefusedMemory = 3,
}

/// A batch, borrowed from its payload.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Its name.
    pub id: BatchId,
    /// Whether it is whole.
    pub standing: Standing,
    count: u32,
    commands: &'a [u8],
}

/// One command of a batch: its code in the command table, and its arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchCommand<'a> {
    /// The command's code.
    pub code: u16,
    /// Its arguments, its name first.
    pub args: Args<'a>,
}

impl<'a> Batch<'a> {
    /// The batch of a payload, or `None` where it isn't one.
    pub fn decode(payload: &'a [u8]) -> Option<Batch<'a>> {
        let header = payload.get(..HEADER_BYTES)?;
        let number = |at: usize| LittleEndian::read_u64(&header[at..at + 8]);
        let gateway = GatewayId {
            server: ServerId(number(0)),
            incarnation: Incarnation(number(8)),
            admitted: LogIndex(number(16)),
        };
        let id = BatchId { gateway, epoch: Boot(number(24)), seq: BatchSeq(number(32)) };
        let standing = match header[STANDING_AT] {
            0 => Standing::Whole,
            1 => Standing::GivenUp,
            2 => Standing::RefusedDisk,
            3 => Standing::RefusedMemory,
            _ => return None,
        };
        let count = LittleEndian::read_u32(&header[COUNT_AT..]);
        let commands = &payload[HEADER_BYTES..];
        let batch = Batch { id, standing, count, commands };
        batch.is_well_formed().then_some(batch)
    }

    /// How many commands it carries.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it carries none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its commands, in order. All of them were checked when it was decoded.
    pub fn commands(&self) -> impl Iterator<Item = BatchCommand<'a>> + use<'a> {
        let mut rest = self.commands;
        std::iter::from_fn(move || {
            let (code, arguments, encoded) = next_command(&mut rest)?;
            Some(BatchCommand { code, args: Args::new(arguments, encoded) })
        })
    }

    /// The same batch without its commands, under its own number.
    pub fn emptied(&self, standing: Standing) -> Bytes {
        let builder = BatchBuilder { standing: Some(standing), ..BatchBuilder::default() };
        builder.finish(self.id)
    }

    fn is_well_formed(&self) -> bool {
        let mut rest = self.commands;
        let mut count = 0;
        while let Some((_, arguments, encoded)) = next_command(&mut rest) {
            if Args::checked(arguments, encoded).is_none() {
                return false;
            }
            count += 1;
        }
        rest.is_empty() && count == self.count
    }
}

/// Takes the next command off `rest`: its code, how many arguments it is said to have, and what they
/// are encoded in. Leaves `rest` as it is where there is none.
fn next_command<'a>(rest: &mut &'a [u8]) -> Option<(u16, u32, &'a [u8])> {
    let header = rest.get(..COMMAND_HEADER_BYTES)?;
    let code = LittleEndian::read_u16(header);
    let arguments = LittleEndian::read_u32(&header[2..]);
    let length = LittleEndian::read_u32(&header[6..]) as usize;
    let encoded = rest[COMMAND_HEADER_BYTES..].get(..length)?;
    *rest = &rest[COMMAND_HEADER_BYTES + length..];
    Some((code, arguments, encoded))
}

/// Gathers commands; the batch gets its number last, when it is first sent or appended.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: Vec<u8>,
    count: u32,
    standing: Option<Standing>,
}

impl Default for BatchBuilder {
    fn default() -> BatchBuilder {
        BatchBuilder { bytes: vec![0; HEADER_BYTES], count: 0, standing: None }
    }
}

impl BatchBuilder {
    /// Adds a command.
    pub fn push(&mut self, code: u16, args: &Args<'_>) {
        let encoded = args.encoded();
        let length = u32::try_from(encoded.len()).expect("limits::COMMAND_BYTES is below 4 GiB");
        self.bytes.extend_from_slice(&code.to_le_bytes());
        self.bytes.extend_from_slice(&(args.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(encoded);
        self.count += 1;
    }

    /// Whether the payload stays within [`limits::BATCH_BYTES`] with this command too.
    pub fn fits(&self, args: &Args<'_>) -> bool {
        let command_bytes = COMMAND_HEADER_BYTES + args.encoded().len();
        self.bytes.len() + command_bytes <= limits::BATCH_BYTES
    }

    /// How many commands it has.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The payload's length so far.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The payload, under its number.
    pub fn finish(self, id: BatchId) -> Bytes {
        let BatchBuilder { mut bytes, count, standing } = self;
        let gateway = id.gateway;
        let numbers =
            [gateway.server.0, gateway.incarnation.0, gateway.admitted.0, id.epoch.0, id.seq.0];
        for (position, number) in numbers.into_iter().enumerate() {
            LittleEndian::write_u64(&mut bytes[position * 8..], number);
        }
        bytes[STANDING_AT] = standing.unwrap_or(Standing::Whole) as u8;
        LittleEndian::write_u32(&mut bytes[COUNT_AT..], count);
        // It stays in the log for long: what doubling has reserved in vain would stay with it.
        bytes.shrink_to_fit();
        Bytes::from(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::args::push_arg;

    fn id(seq: u64) -> BatchId {
        let gateway =
            GatewayId { server: ServerId(2), incarnation: Incarnation(77), admitted: LogIndex(1) };
        BatchId { gateway, epoch: Boot(3), seq: BatchSeq(seq) }
    }

    fn sample() -> Bytes {
        let mut builder = BatchBuilder::default();
        for key in [&b"a"[..], b"bb"] {
            let mut encoded = Vec::new();
            push_arg(&mut encoded, b"incr");
            push_arg(&mut encoded, key);
            builder.push(7, &Args::new(2, &encoded));
        }
        builder.finish(id(9))
    }

    #[test]
    fn decode_returns_what_the_builder_wrote() {
        let payload = sample();
        let batch = Batch::decode(&payload).expect("built just now");
        assert_eq!(batch.id, id(9));
        assert_eq!(batch.standing, Standing::Whole);
        let keys: Vec<_> = batch.commands().map(|c| (c.code, c.args.get(1))).collect();
        assert_eq!(keys, [(7, Some(&b"a"[..])), (7, Some(&b"bb"[..]))]);
    }

    #[test]
    fn emptied_keeps_the_number_and_nothing_else() {
        let payload = sample();
        let batch = Batch::decode(&payload).expect("built just now");
        let emptied = batch.emptied(Standing::GivenUp);
        let emptied = Batch::decode(&emptied).expect("built just now");
        assert_eq!((emptied.id, emptied.standing), (id(9), Standing::GivenUp));
        assert!(emptied.is_empty() && emptied.commands().next().is_none());
    }

    #[test]
    fn fits_counts_every_byte_of_the_payload() {
        let mut builder = BatchBuilder::default();
        let largest = limits::BATCH_BYTES - HEADER_BYTES - COMMAND_HEADER_BYTES;
        let (mut exact, mut over) = (Vec::new(), Vec::new());
        push_arg(&mut exact, &vec![b'v'; largest - 4]);
        push_arg(&mut over, &vec![b'v'; largest - 3]);
        assert!(!builder.fits(&Args::new(1, &over)));
        assert!(builder.fits(&Args::new(1, &exact)));
        builder.push(1, &Args::new(1, &exact));
        assert_eq!(builder.finish(id(1)).len(), limits::BATCH_BYTES);
    }

    #[test]
    fn decode_rejects_every_cut_and_a_wrong_count() {
        let payload = sample();
        for length in 0..payload.len() {
            assert!(Batch::decode(&payload[..length]).is_none(), "cut at {length}");
        }
        let mut miscounted = payload.to_vec();
        miscounted[COUNT_AT] = 3;
        assert!(Batch::decode(&miscounted).is_none());
    }
}
