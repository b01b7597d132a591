//! Bytes that wait for a socket: a client's replies, a peer's frames.
//!
//! Encoders append to [`Output::buffer`]; the turn's end writes once. Called by the connections.
//! Never holds memory while empty: buffers go round between the connections that need one.

use std::io::{self, ErrorKind, Write};

use crate::limits;

/// What waits for one socket.
#[derive(Default, Debug)]
pub(super) struct Output {
    bytes: Vec<u8>,
    /// How much of `bytes` the socket has taken.
    written: usize,
}

/// How far a flush came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flushed {
    /// Nothing is left.
    All,
    /// The socket takes no more for now.
    Partly,
}

/// Emptied buffers for the next connection that has something to say.
#[derive(Default, Debug)]
pub(super) struct Spares {
    buffers: Vec<Vec<u8>>,
}

impl Spares {
    fn take(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    fn give(&mut self, mut buffer: Vec<u8>) {
        let fits = self.buffers.len() < limits::SPARE_BUFFERS;
        if fits && buffer.capacity() <= limits::SPARE_BUFFER_BYTES {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}

impl Output {
    /// Where an encoder appends.
    pub(super) fn buffer(&mut self, spares: &mut Spares) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = spares.take();
        }
        &mut self.bytes
    }

    /// Bytes that were not written yet.
    pub(super) fn pending_bytes(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes until nothing is left or the socket takes no more. `counted` grows by what it took.
    pub(super) fn flush(
        &mut self,
        socket: &mut impl Write,
        spares: &mut Spares,
        counted: &mut u64,
    ) -> io::Result<Flushed> {
        while self.written < self.bytes.len() {
            let pending = self.bytes.len() - self.written;
            match socket.write(&self.bytes[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.written += count;
                    *counted += count as u64;
                    // A short write means that the socket's buffer is full: asking again only to
                    // hear so would cost a system call, and the kernel reports when it drains.
                    if count < pending {
                        self.forget_written();
                        return Ok(Flushed::Partly);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.forget_written();
                    return Ok(Flushed::Partly);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.discard(spares);
        Ok(Flushed::All)
    }

    /// Forgets everything and gives the buffer back.
    pub(super) fn discard(&mut self, spares: &mut Spares) {
        self.written = 0;
        if self.bytes.capacity() > 0 {
            spares.give(std::mem::take(&mut self.bytes));
        }
    }

    /// Moves what is left to the front once it is the smaller half, so that a slow reader's buffer
    /// doesn't grow by what it has long read, and each byte is moved once on average.
    fn forget_written(&mut self) {
        if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `room` bytes, then would block.
    struct Narrow {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= count;
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn flush_keeps_what_the_socket_does_not_take_and_the_order() {
        let mut spares = Spares::default();
        let mut output = Output::default();
        let mut counted = 0;
        let mut socket = Narrow { taken: Vec::new(), room: 7 };

        // 1. Ten bytes for a socket that takes seven.
        output.buffer(&mut spares).extend_from_slice(b"0123456789");
        let flushed = output.flush(&mut socket, &mut spares, &mut counted).unwrap();
        assert_eq!((flushed, output.pending_bytes(), counted), (Flushed::Partly, 3, 7));

        // 2. More is appended behind what is left.
        output.buffer(&mut spares).extend_from_slice(b"abc");
        assert_eq!(output.pending_bytes(), 6);

        // 3. The end: everything arrived once, and in order.
        socket.room = 100;
        let flushed = output.flush(&mut socket, &mut spares, &mut counted).unwrap();
        assert_eq!((flushed, output.pending_bytes(), counted), (Flushed::All, 0, 13));
        assert_eq!(socket.taken, b"0123456789abc");
    }

    #[test]
    fn flush_gives_buffers_back_but_no_large_ones() {
        let mut spares = Spares::default();
        let mut counted = 0;
        let mut socket = Narrow { taken: Vec::new(), room: usize::MAX };

        let mut output = Output::default();
        output.buffer(&mut spares).extend_from_slice(b"small");
        output.flush(&mut socket, &mut spares, &mut counted).unwrap();
        assert_eq!((output.bytes.capacity(), spares.buffers.len()), (0, 1));

        let mut large = Output { bytes: vec![0; limits::SPARE_BUFFER_BYTES + 1], written: 0 };
        large.flush(&mut socket, &mut spares, &mut counted).unwrap();
        assert_eq!((large.bytes.capacity(), spares.buffers.len()), (0, 1));
    }
}
