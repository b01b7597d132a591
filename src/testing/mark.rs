//! The coverage marks: a rare branch says that it was reached.
//!
//! A test that passes because its scenario never came about proves nothing; so each mark must be
//! reached by the seeds of `cargo test` or by a scenario of its own (`tests/marks.rs`, `rkv-sim
//! --seeds`). Counters are one thread's. Called on the branches (`reached`) and by the runner
//! (`take`). Nothing of it is in a shipped build.

#[cfg(feature = "testing")]
use std::cell::RefCell;

macro_rules! marks {
    ($($mark:ident = $name:literal: $what:literal,)*) => {
        /// A rare branch.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Mark { $(#[doc = $what] $mark,)* }

        #[cfg(feature = "testing")]
        impl Mark {
            /// Every mark.
            pub const ALL: &'static [Mark] = &[$(Mark::$mark,)*];

            /// Its name in tables.
            pub fn name(self) -> &'static str {
                match self { $(Mark::$mark => $name,)* }
            }

            /// What has happened there.
            pub fn what(self) -> &'static str {
                match self { $(Mark::$mark => $what,)* }
            }
        }
    };
}

marks! {
    // Consensus.
    FoundingElection = "founding-election":
        "A new cluster has its first leader, by everyone's vote.",
    HurriedPreVote = "hurried-pre-vote":
        "The leader's connection closed, and a follower didn't wait for the election timeout.",
    PreVoteLeaderHeard = "pre-vote-leader-heard":
        "A pre-vote is refused because the leader is heard, and for nothing else.",
    PreVoteLogBehind = "pre-vote-log-behind":
        "A pre-vote is refused because the log that asks is behind.",
    VoteLogBehind = "vote-log-behind":
        "A vote is refused because the log that asks is behind.",
    VoteGivenAway = "vote-given-away":
        "A vote is refused because another has it.",
    VoteAskedAgain = "vote-asked-again":
        "A connection came up in the middle of a candidacy.",
    CandidateAwaitsDisk = "candidate-awaits-disk":
        "A candidacy ran out before its own vote was durable.",
    WithheldDropped = "withheld-dropped":
        "A message that waited for the disk fell with its term.",
    DeposedLeaderTold = "deposed-leader-told":
        "A leader of an older term is told that it is over.",
    LeaderLostQuorum = "leader-lost-quorum":
        "A leader that a majority doesn't answer steps down.",
    ConflictHint = "conflict-hint":
        "A leader goes back by a follower's hint.",
    ConflictStale = "conflict-stale":
        "A rejection is ignored because it answers an older request.",
    DuplicateEntry = "duplicate-entry":
        "A follower is sent an entry that it has.",
    LogTruncated = "log-truncated":
        "A follower gives up entries that no leader knows.",
    TruncatedWhileWriting = "truncated-while-writing":
        "A truncation meets a write under way that carries what is truncated.",
    OldTermNotCounted = "old-term-not-counted":
        "A majority has an entry of an older term, and the leader waits for one of its own.",
    WindowClosed = "window-closed":
        "A follower's window is closed, and entries wait for it.",
    FullLogRefusesEntry = "full-log-refuses-entry":
        "A follower whose log is full leaves an entry out.",
    StalledDiskHandsOver = "stalled-disk-hands-over":
        "A leader whose disk stalls hands over.",
    TransferAborted = "transfer-aborted":
        "A successor didn't take over in time, and the leader goes on.",
    TransferTaken = "transfer-taken":
        "A successor campaigns because the leader asked it to.",
    ClockFromVotes = "clock-from-votes":
        "A new leader continues the cluster clock from its votes.",
    ClockFromWall = "clock-from-wall":
        "A new leader finds nobody who knows the time, and takes its own.",
    SnapshotInstalled = "snapshot-installed":
        "A leader's snapshot replaces a follower's log.",
    // Reads.
    StepDownWithReads = "step-down-with-reads":
        "A leader that holds reads for a round loses its leadership.",
    RemoteReadsForgotten = "remote-reads-forgotten":
        "A leader forgets the followers' questions with its leadership.",
    EarlyRead = "early-read":
        "A leader keeps a read waiting until its term's first entry is committed.",
    LeaseRead = "lease-read":
        "A read is answered at once, by the leader's lease.",
    VoteAwaitsLease = "vote-awaits-lease":
        "A vote is refused because some leader's lease may hold.",
    ReadAskedAgain = "read-asked-again":
        "A read index that didn't come is asked again.",
    ReadAnswerLate = "read-answer-late":
        "A read index comes that nobody awaits any more.",
    ReadAwaitsApply = "read-awaits-apply":
        "A confirmed read waits until its index is applied.",
    ReadTimedOut = "read-timed-out":
        "A read that nobody confirmed is answered as not done.",
    CommandParked = "command-parked":
        "A write waits for a held read before it on its connection.",
    ParkedFreedByTimeOut = "parked-freed-by-time-out":
        "A parked command goes on because the read before it timed out.",
    ReadJoinsBatch = "read-joins-batch":
        "A read travels in a batch because a write before it on its connection isn't applied.",
    // Batches.
    BatchEmptied = "batch-emptied":
        "A batch is emptied under its own number.",
    EmptiedTookEffect = "emptied-took-effect":
        "The emptied copy of a batch is the one that the log has first.",
    GivenUpTookEffect = "given-up-took-effect":
        "A batch that was given up takes effect after all.",
    UnnumberedTimedOut = "unnumbered-timed-out":
        "A batch without a number is dropped as surely not done.",
    GapSeen = "gap-seen":
        "A batch is skipped because one before it is missing.",
    GapSentAgain = "gap-sent-again":
        "Everything pending is sent again because of a gap.",
    SessionRepeat = "session-repeat":
        "A session's command comes again.",
    SessionExpired = "session-expired":
        "A session ends that nobody has used for long.",
    SessionGap = "session-gap":
        "A session's command comes though one before it is missing.",
    DuplicateBatch = "duplicate-batch":
        "A copy of a batch is skipped.",
    DeadEpoch = "dead-epoch":
        "A batch of a former boot comes after one of the next, and is skipped.",
    NewEpoch = "new-epoch":
        "A gateway begins again with a new boot.",
    GrowthRefused = "growth-refused":
        "A gateway refuses a command that would grow the store.",
    GrowthEmptied = "growth-emptied":
        "A leader appends a batch emptied, because it would grow the store.",
    CommandSetRaised = "command-set-raised":
        "A new version of the command set is in force.",
    CommandNotYet = "command-not-yet":
        "A command is refused because not every node knows it.",
    ExpiryEntry = "expiry-entry":
        "A leader appends an empty entry because a key's time has come.",
    ReadAwaitsExpiry = "read-awaits-expiry":
        "A read waits for an entry that says that a key's time is long past.",
    ClockWordLate = "clock-word-late":
        "A leader's first word on the time was under way for longer than the next one.",
    // Members.
    JointInherited = "joint-inherited":
        "A leader leaves a joint membership that another one began.",
    DirectoryRecorded = "directory-recorded":
        "A member has said its first hello, and its directory is recorded.",
    LearnerPromoted = "learner-promoted":
        "A learner that has caught up is promoted.",
    MemberReplaced = "member-replaced":
        "A learner is promoted in the place of another member.",
    LeaderLeaves = "leader-leaves":
        "A leader whose leaving is committed hands over or steps down.",
    LeftCandidate = "left-candidate":
        "A server that has left may campaign, because it can't know that its leaving is committed.",
    FarewellTold = "farewell-told":
        "A member that has left was told that its leaving is committed.",
    QuorumAtRisk = "quorum-at-risk":
        "A change is refused because too few of the new voters are heard.",
    MemberReadmitted = "member-readmitted":
        "A member that lost its disk is demoted, to be awaited on a new one.",
    // Snapshots.
    InstallNotNeeded = "install-not-needed":
        "A follower has what a snapshot from the leader includes.",
    SnapshotDoubted = "snapshot-doubted":
        "A follower refuses a snapshot from the leader, because it is damaged.",
    // Who may connect.
    OldCopyTold = "old-copy-told":
        "A server is told that it runs on an old copy.",
    LostDiskTold = "lost-disk-told":
        "A server is told that it lost its disk.",
    // The log's files.
    TornTailCut = "torn-tail-cut":
        "A torn write is cut off.",
    TornWriteIncomplete = "torn-write-incomplete":
        "The first records of a torn write are sound, and are cut off with it.",
    TailRewritten = "tail-rewritten":
        "The last whole write is written once more before it counts.",
    SealFound = "seal-found":
        "A log was sealed by a clean stop.",
    CorruptionRefused = "corruption-refused":
        "Damage with a later write behind it is not cut off.",
    SegmentRolled = "segment-rolled":
        "The log goes on in a new segment.",
    NextSegmentFound = "next-segment-found":
        "Recovery finds a segment that was made ahead and not used.",
    HeldForZeros = "held-for-zeros":
        "A log write waits for the zeros that are under way in its place.",
    DamageSetAside = "damage-set-aside":
        "A corrupt directory's files were set aside, and it began anew.",
    DiskFull = "disk-full":
        "The log finds no more space.",
    RoomExhausted = "room-exhausted":
        "The log can take nothing but terms and votes.",
}

#[cfg(feature = "testing")]
thread_local! {
    static COUNTS: RefCell<[u64; Mark::ALL.len()]> = const { RefCell::new([0; Mark::ALL.len()]) };
}

/// A rare branch was reached. Nothing in a shipped build.
#[cfg(feature = "testing")]
#[inline]
pub fn reached(mark: Mark) {
    COUNTS.with_borrow_mut(|counts| counts[mark as usize] += 1);
}

/// A rare branch was reached. Nothing in a shipped build.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub const fn reached(_: Mark) {}

/// How often this thread has reached each mark since the last call.
#[cfg(feature = "testing")]
pub fn take() -> Vec<(Mark, u64)> {
    let counts = COUNTS.replace([0; Mark::ALL.len()]);
    Mark::ALL.iter().copied().zip(counts).collect()
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;

    #[test]
    fn take_counts_since_the_last_time() {
        take();
        reached(Mark::GapSeen);
        reached(Mark::GapSeen);
        let gaps = || take()[Mark::GapSeen as usize];
        assert_eq!(gaps(), (Mark::GapSeen, 2));
        assert_eq!(gaps(), (Mark::GapSeen, 0));
    }
}
