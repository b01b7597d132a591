//! The order of a turn, for the server's loop and for the simulator: what is heard before time is
//! acted upon, when the clock is read, and what leaves before what.
//!
//! Design page 1, §5; §6.4.1 for the clock. Called by `loop/turn.rs` and `sim/process/`, which do the
//! steps. Does none of them itself, and reads no clock.

use crate::testing::{Mutation, is_on};
use crate::types::Instant;

/// The steps of a turn, as its driver does them.
pub trait Steps {
    /// Why a turn ends the process.
    type Error;

    /// From here on the turn's time is what the clock shows now.
    fn read_clock(&mut self);
    /// What peers said; behind each piece that is read, and before it is acted upon, comes
    /// [`has_read`].
    ///
    /// # Errors
    /// The disk's.
    fn read_peers(&mut self) -> Result<(), Self::Error>;
    /// What clients said, which is only gathered.
    fn read_clients(&mut self);
    /// What the disk has finished.
    ///
    /// # Errors
    /// The disk's.
    fn complete_writes(&mut self) -> Result<(), Self::Error>;
    /// What is due.
    fn tick(&mut self);
    /// All commands of the turn, and that this was all.
    fn hand_over_requests(&mut self);
    /// Whether the disk has failed in this turn, where no error could be returned.
    ///
    /// # Errors
    /// That it has.
    fn check_storage(&mut self) -> Result<(), Self::Error>;
    /// Begins the turn's disk write.
    ///
    /// # Errors
    /// The disk's.
    fn submit(&mut self) -> Result<(), Self::Error>;
    /// Sends to peers what their sockets take.
    fn flush_peers(&mut self);
    /// Sends to clients what their sockets take.
    fn flush_clients(&mut self);
}

/// A piece of what a peer said was read. It is heard now: the process may have stood still since its
/// poll, and the piece may have been sent meanwhile. A follower that took it for older would vote
/// while the lease still holds that rests on its answer (§6.4.1), and its election timer would run
/// out though it has just heard its leader. To be late is safe: a lease counts from before its round
/// was sent.
pub fn has_read(steps: &mut impl Steps) {
    if !is_on(Mutation::ContactStampedBeforeRead) {
        steps.read_clock();
    }
}

/// Everything that waited in the sockets is heard, and what the disk has finished.
///
/// # Errors
/// The disk's: the process ends.
pub fn hear<S: Steps>(steps: &mut S) -> Result<(), S::Error> {
    steps.read_peers()?;
    steps.read_clients();
    steps.complete_writes()
}

/// Time, and the commands. The clock is read behind the last command and before the first one is
/// judged: a lease that holds at that moment held while the command was under way.
pub fn decide(steps: &mut impl Steps) {
    steps.read_clock();
    steps.tick();
    steps.hand_over_requests();
}

/// Whether it is time for something that what a peer says could put off, like an election: only if
/// it was when the sockets were last looked at. If the process stood still since then, what came
/// meanwhile is heard first, in the next turn. `deadline` says when it is time, as far as can be said
/// at a given moment: to ask as of now would find what is counted from now always ahead.
pub fn is_due(looked_at: Instant, deadline: impl FnOnce(Instant) -> Instant) -> bool {
    deadline(looked_at) <= looked_at
}

/// One disk write is begun, and every socket that has something is flushed once. Nothing leaves a
/// process whose disk has failed. Who waits is served first: new entries have to be on a follower's
/// disk as well as on ours (§10.2.1), and a leader waits for its followers' answers. Only what a
/// leader says without new entries, that more is committed (`peers_can_wait`), can wait until its
/// clients have their replies. Those are many system calls, and the disk never waits for them: what
/// gathered behind its last write is written meanwhile.
///
/// # Errors
/// The disk's: the process ends.
pub fn send_out<S: Steps>(steps: &mut S, peers_can_wait: bool) -> Result<(), S::Error> {
    steps.check_storage()?;
    if !peers_can_wait {
        steps.flush_peers();
    }
    steps.submit()?;
    steps.flush_clients();
    // Nothing is left where that was done above.
    steps.flush_peers();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes down what it is asked for; its disk may have failed.
    #[derive(Default)]
    struct Notes {
        steps: Vec<&'static str>,
        has_failed: bool,
    }

    impl Steps for Notes {
        type Error = ();

        fn read_clock(&mut self) {
            self.steps.push("clock");
        }
        fn read_peers(&mut self) -> Result<(), ()> {
            self.steps.push("peers");
            has_read(self);
            Ok(())
        }
        fn read_clients(&mut self) {
            self.steps.push("clients");
        }
        fn complete_writes(&mut self) -> Result<(), ()> {
            self.steps.push("disk");
            Ok(())
        }
        fn tick(&mut self) {
            self.steps.push("tick");
        }
        fn hand_over_requests(&mut self) {
            self.steps.push("commands");
        }
        fn check_storage(&mut self) -> Result<(), ()> {
            if self.has_failed { Err(()) } else { Ok(()) }
        }
        fn submit(&mut self) -> Result<(), ()> {
            self.steps.push("submit");
            Ok(())
        }
        fn flush_peers(&mut self) {
            self.steps.push("to peers");
        }
        fn flush_clients(&mut self) {
            self.steps.push("to clients");
        }
    }

    #[test]
    fn clock_is_read_behind_every_piece_and_behind_the_last_command() {
        let mut notes = Notes::default();
        hear(&mut notes).unwrap();
        decide(&mut notes);
        assert_eq!(
            notes.steps,
            ["peers", "clock", "clients", "disk", "clock", "tick", "commands"],
            "a contact is never older than its message, nor a lease's judgement than its command"
        );
    }

    #[test]
    fn is_due_only_if_it_was_when_the_sockets_were_looked_at() {
        let looked_at = Instant(100);
        assert!(is_due(looked_at, |_| Instant(100)));
        assert!(!is_due(looked_at, |_| Instant(101)), "the process may have stood still since");
        assert!(is_due(looked_at, |then| then), "due by a clock that is counted from now");
    }

    #[test]
    fn send_out_sends_nothing_behind_a_disk_that_has_failed() {
        for peers_can_wait in [true, false] {
            let mut notes = Notes { has_failed: true, ..Notes::default() };
            assert_eq!(send_out(&mut notes, peers_can_wait), Err(()));
            assert!(notes.steps.is_empty(), "fail-stop: {:?}", notes.steps);
        }
        let mut notes = Notes::default();
        send_out(&mut notes, false).unwrap();
        assert_eq!(notes.steps, ["to peers", "submit", "to clients", "to peers"]);
        let mut notes = Notes::default();
        send_out(&mut notes, true).unwrap();
        assert_eq!(notes.steps, ["submit", "to clients", "to peers"]);
    }
}
