//! The mutations: each breaks one rule of the design, in the place where the rule is kept.
//!
//! A simulator is worth what it catches, so each is switched on for some seeds, which must fail
//! (`rkv-sim --mutants`, `tests/mutants.rs`). One at a time, on one thread. Called where the rule is
//! kept (`is_on`) and by the runner (`with`). Nothing of it is in a shipped build.

#[cfg(feature = "testing")]
use std::cell::Cell;

macro_rules! mutations {
    ($($mutation:ident = $name:literal: $what:literal,)*) => {
        /// A rule that can be broken.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Mutation { $(#[doc = $what] $mutation,)* }

        #[cfg(feature = "testing")]
        impl Mutation {
            /// Every mutation.
            pub const ALL: &'static [Mutation] = &[$(Mutation::$mutation,)*];

            /// Its name in tables.
            pub fn name(self) -> &'static str {
                match self { $(Mutation::$mutation => $name,)* }
            }

            /// What the server does wrong while it is on.
            pub fn what(self) -> &'static str {
                match self { $(Mutation::$mutation => $what,)* }
            }
        }
    };
}

mutations! {
    FollowerAcksBeforeSync = "follower-acks-before-sync":
        "A follower acknowledges entries that its disk doesn't have yet.",
    LeaderCountsBeforeSync = "leader-counts-before-sync":
        "A leader counts itself for entries that its own disk doesn't have yet.",
    MajorityTooSmall = "majority-too-small":
        "Half of the voters, rounded down, are a majority.",
    CommitsOldTerm = "commits-old-term":
        "A leader commits entries of older terms by counting.",
    CommitsUnverified = "commits-unverified":
        "A follower takes over the leader's commit index beyond what it knows to be the same.",
    SkipsLogMatching = "skips-log-matching":
        "A follower appends without a look at the entry before.",
    TruncatesOnDuplicate = "truncates-on-duplicate":
        "A follower that gets entries again truncates its log there.",
    TruncationKeepsPending = "truncation-keeps-pending":
        "A late completion vouches for entries that were replaced meanwhile.",
    PreVoteIgnoresLog = "pre-vote-ignores-log":
        "A pre-vote doesn't compare the logs.",
    SkipsPreVote = "skips-pre-vote":
        "A server campaigns without asking first whether it could win.",
    LeadsUnheard = "leads-unheard":
        "A leader goes on though it hears no majority any more.",
    VoteIgnoresLog = "vote-ignores-log":
        "A vote doesn't compare the logs.",
    VotesTwice = "votes-twice":
        "A server votes for whoever asks, whomever it voted for.",
    VoteNotSaved = "vote-not-saved":
        "The vote is not written, only the term.",
    TermNotSaved = "term-not-saved":
        "A term that comes without a vote is not written.",
    VoteNotWithheld = "vote-not-withheld":
        "Votes leave before the disk has them.",
    ReadWithoutRound = "read-without-round":
        "A leader serves reads without asking whether it still leads.",
    ReadBeforeTermCommits = "read-before-term-commits":
        "A new leader serves reads before an entry of its term is committed.",
    LeaseTooLong = "lease-too-long":
        "A lease holds for longer than the others wait with an election.",
    VotesInLease = "votes-in-lease":
        "A server votes though it heard a leader, or started, just before.",
    ContactStampedBeforeRead = "contact-stamped-before-read":
        "A server takes what it reads for as old as its poll.",
    LeaseFromAnswer = "lease-from-answer":
        "A lease counts from when its round was answered, not from when it was sent.",
    OldTermAcksCount = "old-term-acks-count":
        "A leader counts what followers answered in former terms.",
    AnswerServesLaterQuestion = "answer-serves-later-question":
        "A read index serves reads that came after the question that it answers.",
    WriteOvertakesRead = "write-overtakes-read":
        "A write doesn't wait for the held read before it on its connection.",
    ReadOvertakesWrite = "read-overtakes-write":
        "A read doesn't wait for the unapplied write before it on its connection.",
    ExecIgnoresWatch = "exec-ignores-watch":
        "EXEC carries out what was queued though what was watched has changed.",
    ExecDiscardsAtWill = "exec-discards-at-will":
        "EXEC behind WATCH is not carried out, now and then, though nothing has changed.",
    AppliesDuplicate = "applies-duplicate":
        "A batch takes effect as often as the log has it.",
    AppliesBehindGap = "applies-behind-gap":
        "A batch takes effect though one before it is missing.",
    RetryRenumbers = "retry-renumbers":
        "A batch that is sent again gets a new number.",
    NeverSendsAgain = "never-sends-again":
        "A batch is sent once.",
    MaybeReportedAsFailure = "maybe-reported-as-failure":
        "A batch that may have been done is answered as surely not done.",
    GivenUpLeavesGap = "given-up-leaves-gap":
        "A batch that was given up is forgotten with its number.",
    ExpiryByOwnClock = "expiry-by-own-clock":
        "A server expires keys by its own clock, not by the log's.",
    LeadsByWallClock = "leads-by-wall-clock":
        "A new leader sets the cluster's clock by its own wall clock where that is ahead.",
    AcceptsOldCopy = "accepts-old-copy":
        "A server on an old copy of its directory takes part.",
    LostDiskTakesPart = "lost-disk-takes-part":
        "A server that lost its disk takes part under its old id.",
    BootNotSaved = "boot-not-saved":
        "The boot counter is used without being written.",
    CutsCorruption = "cuts-corruption":
        "Damage in the middle of the log is cut off like a torn write.",
    IgnoresChecksum = "ignores-checksum":
        "A record of the log counts whatever its checksum.",
    TornWriteCounts = "torn-write-counts":
        "What is readable of a torn write counts.",
    TornTailStays = "torn-tail-stays":
        "A torn write is not overwritten with zeros.",
    IgnoresSyncError = "ignores-sync-error":
        "A failed write is taken for a good one, as a second sync would say.",
    SkipsDirectorySync = "skips-directory-sync":
        "A new segment is used before its name is durable.",
    LosesForeignWrite = "loses-foreign-write":
        "Server 1 applies the writes of other servers' clients to nothing.",
    ZerosOverRecords = "zeros-over-records":
        "A log write doesn't wait for the zeros that are under way in its place.",
    JointCountsNewHalf = "joint-counts-new-half":
        "In a joint membership a majority of the new voters is enough.",
    SkipsJoint = "skips-joint":
        "The voters change by one entry, without a joint membership.",
    ChangesBeforeTermCommits = "changes-before-term-commits":
        "A new leader changes the members before an entry of its term is committed.",
    ChangesTwice = "changes-twice":
        "A leader begins a change while another is not committed.",
    LearnerCounts = "learner-counts":
        "A learner counts like a voter.",
    PromotesAtOnce = "promotes-at-once":
        "A learner is promoted before it has caught up.",
    RemovedLeaderCounts = "removed-leader-counts":
        "A leader that has left counts itself in the place of a voter.",
    WatchOutlivesInstall = "watch-outlives-install":
        "Watchers that know everything aren't set back when a snapshot replaces their history.",
    WatchResumesTooFar = "watch-resumes-too-far":
        "A watch that is resumed goes on one change too late.",
    InstallIgnoresTerm = "install-ignores-term":
        "A follower takes snapshots from leaders of former terms.",
    InstallAckedBeforeDurable = "install-acked-before-durable":
        "A follower acknowledges a snapshot as soon as all of it has come.",
    SnapshotAheadOfApplied = "snapshot-ahead-of-applied":
        "A snapshot bears the index after the last entry that is in it.",
    SnapshotForgetsMembers = "snapshot-forgets-members":
        "A snapshot names the oldest membership that the server remembers.",
    SnapshotForgetsGateways = "snapshot-forgets-gateways":
        "A snapshot leaves out which batches took effect.",
    SnapshotWithoutDigest = "snapshot-without-digest":
        "A snapshot doesn't carry the running digest on.",
    SnapshotKeepsNewValues = "snapshot-keeps-new-values":
        "A record that changes while a snapshot is taken is in it as it has become.",
    SessionForgetsReplies = "session-forgets-replies":
        "A session's command takes effect as often as it is sent.",
    CompactsPastSnapshot = "compacts-past-snapshot":
        "Segments are removed whose entries no snapshot includes.",
    RaisesCommandSetAlone = "raises-command-set-alone":
        "A leader puts a version of the command set in force without asking who knows it.",
    TakesCommandsEarly = "takes-commands-early":
        "A node sends commands to the log before every node knows them.",
}

#[cfg(feature = "testing")]
thread_local! {
    static ON: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Whether that rule is to be broken. False in every shipped build, as a constant.
#[cfg(feature = "testing")]
#[inline]
pub fn is_on(mutation: Mutation) -> bool {
    ON.get() == Some(mutation)
}

/// Whether that rule is to be broken. False in every shipped build, as a constant.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub const fn is_on(_: Mutation) -> bool {
    false
}

/// Runs something on this thread with one rule broken, or with none.
#[cfg(feature = "testing")]
pub fn with<T>(mutation: Option<Mutation>, run: impl FnOnce() -> T) -> T {
    /// Off again, be it by a panic.
    struct Off(Option<Mutation>);
    impl Drop for Off {
        fn drop(&mut self) {
            ON.set(self.0);
        }
    }
    let _off = Off(ON.replace(mutation));
    run()
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;

    #[test]
    fn with_is_over_when_it_ends_or_panics() {
        let on = || is_on(Mutation::VotesTwice);
        assert!(with(Some(Mutation::VotesTwice), on));
        assert!(!with(Some(Mutation::VoteNotSaved), on));
        let panicked = std::panic::catch_unwind(|| {
            with(Some(Mutation::VotesTwice), || std::panic::resume_unwind(Box::new(())));
        });
        assert!(panicked.is_err());
        assert!(!on());
    }

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<_> = Mutation::ALL.iter().map(|mutation| mutation.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Mutation::ALL.len());
    }
}
