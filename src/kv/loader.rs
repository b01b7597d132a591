//! Reads a snapshot file back into the state that it was taken of.
//!
//! Design page 3, §3. Called by `node/` at a start and after an install, a piece of the file at a
//! time, so that a node that loads ten million keys still answers its peers. Opens no file.

use super::machine::StateMachine;
use crate::proto::snapshot::{SnapshotError, SnapshotFault, SnapshotHeader};
use crate::proto::snapshot_decoder::{SnapshotDecoder, SnapshotItem};

/// A state machine in the making. Nothing of it can be seen before all of the file was.
#[derive(Debug)]
pub struct Loader {
    decoder: SnapshotDecoder,
    state: Option<(SnapshotHeader, StateMachine)>,
}

impl Default for Loader {
    fn default() -> Loader {
        Loader { decoder: SnapshotDecoder::of_store(), state: None }
    }
}

impl Loader {
    /// A loader at the first byte of a file.
    pub fn new() -> Loader {
        Loader::default()
    }

    /// Takes the file's next bytes. The time it takes grows with their number alone: some
    /// microseconds a KiB.
    ///
    /// # Errors
    /// The bytes are not those of a snapshot. After an error the loader is of no more use.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), SnapshotError> {
        loop {
            match self.decoder.decode(&mut bytes)? {
                None => return Ok(()),
                Some(SnapshotItem::Header(header)) => {
                    let machine = StateMachine::of_snapshot(&header);
                    self.state = Some((header, machine));
                }
                Some(SnapshotItem::Section(section, bytes)) => {
                    let (_, machine) =
                        self.state.as_mut().expect("the decoder gives the header first");
                    if machine.restore_section(section, bytes).is_none() {
                        let (offset, fault) = (self.decoder.bytes(), SnapshotFault::BadSection);
                        return Err(SnapshotError { offset, fault });
                    }
                }
                Some(SnapshotItem::Record(record)) => {
                    let (_, machine) =
                        self.state.as_mut().expect("the decoder gives the header first");
                    if !machine.restore(record) {
                        return Err(self.decoder.duplicate());
                    }
                }
                Some(SnapshotItem::End(_)) => {}
            }
        }
    }

    /// The header, once it has come.
    pub fn header(&self) -> Option<&SnapshotHeader> {
        self.state.as_ref().map(|(header, _)| header)
    }

    /// How many bytes of the file were taken.
    pub fn bytes(&self) -> u64 {
        self.decoder.bytes()
    }

    /// Gives up: what was made so far, for its memory to be given back in slices.
    pub fn give_up(self) -> Option<StateMachine> {
        self.state.map(|(_, machine)| machine)
    }

    /// To be called where the file ends: the header, and the state machine as it was when the
    /// snapshot was begun.
    ///
    /// # Errors
    /// The file is not whole.
    pub fn finish(self) -> Result<(SnapshotHeader, StateMachine), SnapshotError> {
        self.decoder.finish()?;
        let state = self.state.expect("the decoder saw a whole file, its header included");
        let (header, mut machine) = state;
        machine.restored();
        Ok((header, machine))
    }
}
