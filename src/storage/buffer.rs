//! Memory that direct reads and writes of the disk take: aligned to the disk's block.
//!
//! Called by the log writer, which encodes records into it, by both engines, and by recovery, which
//! reads through it. Never reallocates while it is filled, which would lose the alignment.

/// The unit of every write of the log, in bytes: whole blocks at multiples of a block.
pub const BLOCK_BYTES: usize = 4096;

/// Bytes for one write, at an address that is a multiple of [`BLOCK_BYTES`].
#[derive(Debug)]
pub struct BlockBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl BlockBuffer {
    /// Makes a buffer of at most `capacity` bytes; `fill` appends them, and zeros complete the last
    /// block.
    pub fn build(capacity: usize, fill: impl FnOnce(&mut Vec<u8>)) -> BlockBuffer {
        let capacity = capacity.next_multiple_of(BLOCK_BYTES) + BLOCK_BYTES;
        let mut bytes: Vec<u8> = Vec::with_capacity(capacity);
        let address = bytes.as_ptr();
        let start = address.align_offset(BLOCK_BYTES);
        assert!(start < BLOCK_BYTES);
        bytes.resize(start, 0);
        fill(&mut bytes);
        let length = (bytes.len() - start).next_multiple_of(BLOCK_BYTES);
        bytes.resize(start + length, 0);
        assert!(bytes.as_ptr() == address, "the buffer was sized for all of it");
        BlockBuffer { bytes, start }
    }

    /// The whole blocks.
    pub fn blocks(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl AsRef<[u8]> for BlockBuffer {
    fn as_ref(&self) -> &[u8] {
        self.blocks()
    }
}

/// What a file is read through, aligned like a [`BlockBuffer`].
#[derive(Debug)]
pub struct Window {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Window {
    /// One of so many bytes.
    pub fn new(length: usize) -> Window {
        let bytes = vec![0; length + BLOCK_BYTES];
        let start = bytes.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start < BLOCK_BYTES);
        Window { bytes, start, length }
    }

    /// The first `length` bytes of it.
    pub fn first(&mut self, length: usize) -> &mut [u8] {
        assert!(length <= self.length);
        &mut self.bytes[self.start..][..length]
    }
}

/// Zeros for filling, aligned like a [`BlockBuffer`].
#[repr(align(4096))]
pub struct Zeros([u8; crate::limits::FILL_SLICE_BYTES]);

/// Takes no memory until it is read, and then one shared page.
pub static ZEROS: Zeros = Zeros([0; crate::limits::FILL_SLICE_BYTES]);

impl Zeros {
    /// The first `length` of them.
    pub fn first(&self, length: usize) -> &[u8] {
        &self.0[..length]
    }
}

const _: () = assert!(align_of::<Zeros>() == BLOCK_BYTES);
