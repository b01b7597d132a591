//! Versions of the command set: what a build knows, and what a command needs.
//!
//! Design 3-storage §5. The version in force is part of the state, raised by an entry of its own
//! once every member knows it (`node/versions.rs`), so that no node ever meets a command in the log
//! that it cannot carry out. Called by `node/` and the state machine.

use super::command::{self, Command};
use super::{in_session, txn};
use crate::proto::args::Args;
use crate::proto::batch::BatchCommand;
use crate::types::CommandSet;

/// A version of the table: what it knows beyond the first one.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// The newest version that it knows.
    pub known: CommandSet,
    /// The commands that came after the first version, each with the one that brought it.
    pub newer: &'static [(&'static str, CommandSet)],
}

/// This build. Whoever adds a command that goes through the log, or gives one a new meaning, raises
/// `known` and names the command here with that version.
pub const THIS: Build = Build { known: CommandSet::FIRST, newer: &[] };

impl Build {
    /// The newest version that any command is of.
    pub fn newest(&self) -> CommandSet {
        self.newer.iter().map(|(_, set)| *set).max().unwrap_or_default()
    }

    /// The version that a command needs, with all that it carries.
    pub fn needed(&self, row: &Command, args: Args<'_>) -> CommandSet {
        let own = self.brought_by(row);
        match row.code {
            txn::CODE => txn::carried(args).fold(own, |set, row| set.max(self.brought_by(row))),
            _ => own,
        }
    }

    /// The version that a command of the log needs; `None` where this build doesn't know it.
    pub fn needed_in_log(&self, command: BatchCommand<'_>) -> Option<CommandSet> {
        let sent = in_session::sent(command);
        command::by_code(sent.code).map(|row| self.needed(row, sent.args))
    }

    fn brought_by(&self, row: &Command) -> CommandSet {
        let found = self.newer.iter().find(|(name, _)| *name == row.name);
        found.map_or(CommandSet::FIRST, |(_, set)| *set)
    }
}

/// What an entry that raises the version carries.
pub fn encode(set: CommandSet) -> [u8; 4] {
    set.0.to_le_bytes()
}

/// The version in such an entry; `None` where it is none.
pub fn decode(payload: &[u8]) -> Option<CommandSet> {
    Some(CommandSet(u32::from_le_bytes(payload.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::args::push_arg;

    const LATER: Build = Build { known: CommandSet(3), newer: &[("append", CommandSet(2))] };

    #[test]
    fn this_build_names_commands_that_exist_and_versions_that_it_knows() {
        for (name, set) in THIS.newer {
            assert!(command::all().any(|row| row.name == *name), "there is no {name}");
            assert!(CommandSet::FIRST < *set && *set <= THIS.known, "{name}");
        }
    }

    #[test]
    fn needed_looks_into_what_a_command_carries() {
        let needed = |line: &str| {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let mut bytes = Vec::new();
            words.iter().for_each(|word| push_arg(&mut bytes, word));
            let args = Args::new(words.len() as u32, &bytes);
            LATER.needed(command::resolve(args).unwrap(), args)
        };
        assert_eq!(LATER.newest(), CommandSet(2));
        assert_eq!(needed("SET a 1"), CommandSet::FIRST);
        assert_eq!(needed("APPEND a 1"), CommandSet(2));
        assert_eq!(needed("TXN IF EXISTS a THEN 3 SET a 1"), CommandSet::FIRST);
        assert_eq!(needed("TXN IF EXISTS a ELSE 3 APPEND a 1"), CommandSet(2));
    }

    #[test]
    fn decode_takes_what_encode_gives_and_nothing_else() {
        assert_eq!(decode(&encode(CommandSet(7))), Some(CommandSet(7)));
        assert_eq!(decode(&[1, 0, 0]), None);
        assert_eq!(decode(&[1, 0, 0, 0, 0]), None);
    }
}
