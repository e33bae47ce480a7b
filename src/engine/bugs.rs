//! Deliberate bugs: each takes away one thing that safety rests on, to see whether the simulator finds that out. They are compiled in
//! with the feature `deliberate-bugs` only, which nothing that is shipped has; without it [`has`] is `false`, and the compiler
//! leaves nothing of them.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A keeper of a register answers, and has written nothing.
    AckBeforeSync,
    /// A keeper takes what is older than it has promised.
    OldBallotTaken,
    /// A keeper promises, and does not say what it has taken.
    ValueForgotten,
    /// A new handler goes on from the oldest value that it is told.
    OldestWins,
    /// One replica is a majority.
    OneDecides,
    /// A keeper answers for the disk that it has lost.
    OtherDiskAnswers,
    /// A handler says what follows from a change before it is chosen.
    NothingHeldBack,
    /// A replica set changes at once, without a joint one between.
    SetJumps,
    /// A lease is counted from the answer, not from when the renewal left.
    LeaseFromAnswer,
    /// A lease lasts as long as one guardian answers.
    OneRenews,
    /// A guardian promises to fence, and has written nothing.
    PromiseUnwritten,
    /// A guardian renews what it has promised never to renew.
    FencedRenewed,
    /// A guardian does not wait for the node to have ended its VMs.
    FencedAtOnce,
    /// A guardian that has just started believes that it has heard nobody for long.
    RestartIsSilence,
    /// One guardian's word proves that a lease is over.
    OneFences,
    /// A node that is suspected is taken over.
    SuspicionProves,
    /// VMs are started under any lease.
    DeadEpochStarts,
    /// A guard keeps the latest deadline, whichever lease it is of.
    GuardKeepsLatest,
    /// A lease begins while something is being started under the last one.
    StartsOutliveLease,
    /// A node obeys an order that is older than its last one.
    OldOrderObeyed,
    /// A promise of room ends with the order before the one that decides it.
    PromiseLapses,
    /// A node promises room without looking whether it has it.
    RoomTwice,
    /// A node that is reserved is reserved once more.
    LockShared,
    /// A reservation does not end by time.
    LockForEver,
    /// The target of a migration runs the VM as soon as it is there.
    ArrivedRuns,
    /// A node goes on with a VM that it was told to send away.
    LeavingRestarts,
    /// A VM that was called off goes on at the source before the target has forgotten it.
    TargetUnasked,
    /// A migration whose source is silent is believed to have arrived.
    MoveWithoutProof,
    /// A placement is written though one node has not promised.
    HalfPlaced,
    /// A deleted environment is released before its nodes have confirmed.
    BuriedAlive,
    /// A node with another disk vouches for what its former one let run.
    OtherDiskVouches,
    /// An answer to an earlier life of the agent renews a lease.
    OtherLifeRenewed,
    /// A machine is switched off before its guardians have promised never to renew its lease.
    OffBeforePromise,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::AckBeforeSync,
        Self::OldBallotTaken,
        Self::ValueForgotten,
        Self::OldestWins,
        Self::OneDecides,
        Self::OtherDiskAnswers,
        Self::NothingHeldBack,
        Self::SetJumps,
        Self::LeaseFromAnswer,
        Self::OneRenews,
        Self::PromiseUnwritten,
        Self::FencedRenewed,
        Self::FencedAtOnce,
        Self::RestartIsSilence,
        Self::OneFences,
        Self::SuspicionProves,
        Self::DeadEpochStarts,
        Self::GuardKeepsLatest,
        Self::StartsOutliveLease,
        Self::OldOrderObeyed,
        Self::PromiseLapses,
        Self::RoomTwice,
        Self::LockShared,
        Self::LockForEver,
        Self::ArrivedRuns,
        Self::LeavingRestarts,
        Self::TargetUnasked,
        Self::MoveWithoutProof,
        Self::HalfPlaced,
        Self::BuriedAlive,
        Self::OtherDiskVouches,
        Self::OtherLifeRenewed,
        Self::OffBeforePromise,
    ];

    /// Its word, and what it is.
    #[must_use]
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::AckBeforeSync => {
                ("ack-before-sync", "A keeper of a register answers, and has written nothing.")
            }
            Self::OldBallotTaken => {
                ("old-ballot-taken", "A keeper takes what is older than it has promised.")
            }
            Self::ValueForgotten => {
                ("value-forgotten", "A keeper promises, and does not say what it has taken.")
            }
            Self::OldestWins => {
                ("oldest-wins", "A new handler goes on from the oldest value that it is told.")
            }
            Self::OneDecides => ("one-decides", "One replica is a majority."),
            Self::OtherDiskAnswers => {
                ("other-disk-answers", "A keeper answers for the disk that it has lost.")
            }
            Self::NothingHeldBack => (
                "nothing-held-back",
                "A handler says what follows from a change before it is chosen.",
            ),
            Self::SetJumps => {
                ("set-jumps", "A replica set changes at once, without a joint one between.")
            }
            Self::LeaseFromAnswer => (
                "lease-from-answer",
                "A lease is counted from the answer, not from when the renewal left.",
            ),
            Self::OneRenews => ("one-renews", "A lease lasts as long as one guardian answers."),
            Self::PromiseUnwritten => {
                ("promise-unwritten", "A guardian promises to fence, and has written nothing.")
            }
            Self::FencedRenewed => {
                ("fenced-renewed", "A guardian renews what it has promised never to renew.")
            }
            Self::FencedAtOnce => {
                ("fenced-at-once", "A guardian does not wait for the node to have ended its VMs.")
            }
            Self::RestartIsSilence => (
                "restart-is-silence",
                "A guardian that has just started believes that it has heard nobody for long.",
            ),
            Self::OneFences => ("one-fences", "One guardian's word proves that a lease is over."),
            Self::SuspicionProves => {
                ("suspicion-proves", "A node that is suspected is taken over.")
            }
            Self::DeadEpochStarts => ("dead-epoch-starts", "VMs are started under any lease."),
            Self::GuardKeepsLatest => (
                "guard-keeps-latest",
                "A guard keeps the latest deadline, whichever lease it is of.",
            ),
            Self::StartsOutliveLease => (
                "starts-outlive-lease",
                "A lease begins while something is being started under the last one.",
            ),
            Self::OldOrderObeyed => {
                ("old-order-obeyed", "A node obeys an order that is older than its last one.")
            }
            Self::PromiseLapses => (
                "promise-lapses",
                "A promise of room ends with the order before the one that decides it.",
            ),
            Self::RoomTwice => {
                ("room-twice", "A node promises room without looking whether it has it.")
            }
            Self::LockShared => ("lock-shared", "A node that is reserved is reserved once more."),
            Self::LockForEver => ("lock-for-ever", "A reservation does not end by time."),
            Self::ArrivedRuns => {
                ("arrived-runs", "The target of a migration runs the VM as soon as it is there.")
            }
            Self::LeavingRestarts => {
                ("leaving-restarts", "A node goes on with a VM that it was told to send away.")
            }
            Self::TargetUnasked => (
                "target-unasked",
                "A VM that was called off goes on at the source before the target has forgotten it.",
            ),
            Self::MoveWithoutProof => (
                "move-without-proof",
                "A migration whose source is silent is believed to have arrived.",
            ),
            Self::HalfPlaced => {
                ("half-placed", "A placement is written though one node has not promised.")
            }
            Self::BuriedAlive => (
                "buried-alive",
                "A deleted environment is released before its nodes have confirmed.",
            ),
            Self::OtherDiskVouches => (
                "other-disk-vouches",
                "A node with another disk vouches for what its former one let run.",
            ),
            Self::OtherLifeRenewed => {
                ("other-life-renewed", "An answer to an earlier life of the agent renews a lease.")
            }
            Self::OffBeforePromise => (
                "off-before-promise",
                "A machine is switched off before its guardians have promised never to renew its lease.",
            ),
        }
    }
}

/// Whether this one is in.
#[cfg(not(feature = "deliberate-bugs"))]
#[must_use]
pub const fn has(_: Bug) -> bool {
    false
}

#[cfg(feature = "deliberate-bugs")]
pub use switches::{has, switch};

#[cfg(feature = "deliberate-bugs")]
mod switches {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static ON: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this one is in, in the worlds of this thread.
    #[must_use]
    pub fn has(bug: Bug) -> bool {
        ON.get() == Some(bug)
    }

    /// Puts one in, or takes out the one that is.
    pub fn switch(bug: Option<Bug>) {
        ON.set(bug);
    }
}
