//! Deliberate bugs: each takes away one thing that safety rests on, to see whether the simulator finds that out. They are compiled in
//! with the feature `deliberate-bugs` only, which nothing that is shipped has; without it [`has`] is `false`, and the compiler
//! leaves nothing of them.

macro_rules! bugs {
    ($($bug:ident $word:literal $what:literal)*) => {
        /// One of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $(#[doc = $what] $bug,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug),*];

            /// Its word, and what it is.
            #[must_use]
            pub fn words(self) -> (&'static str, &'static str) {
                match self {
                    $(Self::$bug => ($word, $what),)*
                }
            }
        }
    };
}

bugs! {
    AckBeforeSync "ack-before-sync" "A keeper of a register answers, and has written nothing."
    OldBallotTaken "old-ballot-taken" "A keeper takes what is older than it has promised."
    ValueForgotten "value-forgotten" "A keeper promises, and does not say what it has taken."
    OldestWins "oldest-wins" "A new handler goes on from the oldest value that it is told."
    OneDecides "one-decides" "One replica is a majority."
    OtherDiskAnswers "other-disk-answers" "A keeper answers for the disk that it has lost."
    NothingHeldBack "nothing-held-back" "A handler says what follows from a change before it is chosen."
    SetJumps "set-jumps" "A replica set changes at once, without a joint one between."
    LeaseFromAnswer "lease-from-answer" "A lease is counted from the answer, not from when the renewal left."
    OneRenews "one-renews" "A lease lasts as long as one guardian answers."
    PromiseUnwritten "promise-unwritten" "A guardian promises to fence, and has written nothing."
    FencedRenewed "fenced-renewed" "A guardian renews what it has promised never to renew."
    FencedAtOnce "fenced-at-once" "A guardian does not wait for the node to have ended its VMs."
    RestartIsSilence "restart-is-silence" "A guardian that has just started believes that it has heard nobody for long."
    OneFences "one-fences" "One guardian's word proves that a lease is over."
    SuspicionProves "suspicion-proves" "A node that is suspected is taken over."
    DeadEpochStarts "dead-epoch-starts" "VMs are started under any lease."
    GuardKeepsLatest "guard-keeps-latest" "A guard keeps the latest deadline, whichever lease it is of."
    StartsOutliveLease "starts-outlive-lease" "A lease begins while something is being started under the last one."
    OldOrderObeyed "old-order-obeyed" "A node obeys an order that is older than its last one."
    LockShared "lock-shared" "A node that is reserved is reserved once more."
    LockForEver "lock-for-ever" "A reservation does not end by time."
    ArrivedRuns "arrived-runs" "The target of a migration runs the VM as soon as it is there."
    LeavingRestarts "leaving-restarts" "A node goes on with a VM that it was told to send away."
    MoveWithoutProof "move-without-proof" "A migration whose source is silent is believed to have arrived."
    HalfPlaced "half-placed" "A placement is written though one node has not promised."
    BuriedAlive "buried-alive" "A deleted environment is released before its nodes have confirmed."
    OtherDiskVouches "other-disk-vouches" "A node with another disk vouches for what its former one let run."
    OtherLifeRenewed "other-life-renewed" "An answer to an earlier life of the agent renews a lease."
    OffBeforePromise "off-before-promise" "A machine is switched off before its guardians have promised never to renew its lease."
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
