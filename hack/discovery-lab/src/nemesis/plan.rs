//! What a run will do, from its seed alone: which faults, where, for how long.

use std::{collections::BTreeSet, fmt, str::FromStr};

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use serde::Serialize;

use super::{Fault, Way, Who};
use crate::error::LabError;

/// A kind of fault, as a run counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Power loss, off for a while.
    Power,
    /// Power loss, and on again at once.
    Reboot,
    /// Cut off from everybody.
    Cut,
    /// Cut off in one direction.
    CutOneWay,
    /// Cut off from some peers.
    CutSome,
    /// Agent stopped.
    StallAgent,
    /// Agent and guard stopped.
    StallGuard,
    /// All but the guests stopped.
    StallAll,
    /// Agent killed.
    Agent,
    /// libvirtd stopped for a while.
    LibvirtdStop,
    /// libvirtd killed.
    LibvirtdKill,
    /// A guest killed.
    Guest,
    /// Disk full for a while.
    DiskFull,
    /// API server stopped for a while.
    ApiServer,
    /// Agents replaced by Helm.
    Upgrade,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Power,
        Self::Reboot,
        Self::Cut,
        Self::CutOneWay,
        Self::CutSome,
        Self::StallAgent,
        Self::StallGuard,
        Self::StallAll,
        Self::Agent,
        Self::LibvirtdStop,
        Self::LibvirtdKill,
        Self::Guest,
        Self::DiskFull,
        Self::ApiServer,
        Self::Upgrade,
    ];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Power => "power",
            Self::Reboot => "reboot",
            Self::Cut => "cut",
            Self::CutOneWay => "cut-one-way",
            Self::CutSome => "cut-some",
            Self::StallAgent => "stall-agent",
            Self::StallGuard => "stall-guard",
            Self::StallAll => "stall-all",
            Self::Agent => "agent",
            Self::LibvirtdStop => "libvirtd-stop",
            Self::LibvirtdKill => "libvirtd-kill",
            Self::Guest => "guest",
            Self::DiskFull => "disk-full",
            Self::ApiServer => "api-server",
            Self::Upgrade => "upgrade",
        }
    }

    /// Whether the node's VMs are to run elsewhere before it is over, where there is failover.
    pub fn takes_a_node_away(self) -> bool {
        matches!(self, Self::Power | Self::Cut)
    }

    /// Whether a lost node's VMs are to run elsewhere beside it: it takes no replica of a register away, nor a place to go.
    pub fn leaves_failover_alone(self) -> bool {
        matches!(self, Self::Guest | Self::LibvirtdKill | Self::ApiServer | Self::Upgrade)
    }

    // Helm's upgrade needs the API server, and nodes that are there.
    fn rank(self) -> u8 {
        match self {
            Self::Upgrade => 0,
            Self::ApiServer => 2,
            _ => 1,
        }
    }

    fn is_of_a_node(self) -> bool {
        !matches!(self, Self::ApiServer | Self::Upgrade)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self, LabError> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| LabError::Unexpected {
            what: "a kind of fault".into(),
            detail: format!("{text:?}"),
        })
    }
}

/// A fault of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Its kind.
    pub kind: Kind,
    /// What it is.
    pub fault: Fault,
}

/// One or two faults at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Round {
    /// In the order in which they fire.
    pub faults: Vec<Planned>,
    /// How long they are held before they are undone, seconds.
    pub hold_s: u64,
}

impl Round {
    /// The nodes whose VMs are to run elsewhere before this is over. None where another fault may take the majority of
    /// a register, or the place to go, away: waiting is right then.
    pub fn to_be_replaced(&self) -> Vec<&str> {
        let (away, others): (Vec<&Planned>, Vec<&Planned>) =
            self.faults.iter().partition(|one| one.kind.takes_a_node_away());
        let alone = away.len() == 1 && others.iter().all(|one| one.kind.leaves_failover_alone());
        if alone { away.iter().filter_map(|one| one.fault.node()).collect() } else { Vec::new() }
    }
}

/// Shortest and longest hold, seconds: below a lease's 5 s, and beyond the 11 s after which an epoch is dead.
const HOLD_S: [u64; 2] = [3, 16];
/// One round in so many has two faults.
const TWO_IN: u32 = 5;

/// Rounds with as many faults in all, at least. Kinds come from a shuffled bag, so that all come about equally often.
pub fn plan(seed: u64, faults: usize, nodes: &[String], kinds: &[Kind]) -> Vec<Round> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut bag = Vec::new();
    let mut rounds = Vec::new();
    let mut count = 0;
    while count < faults && !nodes.is_empty() && !kinds.is_empty() {
        let first = draw(&mut rng, &mut bag, kinds, nodes);
        let hold_s = rng.random_range(HOLD_S[0]..=HOLD_S[1]);
        let mut round = Round { faults: vec![first], hold_s };
        if rng.random_range(0..TWO_IN) == 0 && count + 1 < faults {
            let second = draw(&mut rng, &mut bag, kinds, nodes);
            if go_together(&round.faults[0], &second) {
                round.faults.push(second);
                round.faults.sort_by_key(|one| one.kind.rank());
            } else {
                bag.push(second.kind);
            }
        }
        count += round.faults.len();
        rounds.push(round);
    }
    rounds
}

fn draw(rng: &mut ChaCha8Rng, bag: &mut Vec<Kind>, kinds: &[Kind], nodes: &[String]) -> Planned {
    if bag.is_empty() {
        bag.extend_from_slice(kinds);
    }
    let kind = bag.swap_remove(rng.random_range(0..bag.len()));
    let node = nodes[rng.random_range(0..nodes.len())].clone();
    let fault = match kind {
        Kind::Power => Fault::Power { node },
        Kind::Reboot => Fault::Reboot { node },
        Kind::Cut => Fault::Cut { node, one_way: None, from: vec![] },
        Kind::CutOneWay => {
            let one_way = Some(if rng.random_range(0..2) == 0 { Way::In } else { Way::Out });
            Fault::Cut { node, one_way, from: vec![] }
        }
        Kind::CutSome => {
            let others: Vec<&String> = nodes.iter().filter(|other| **other != node).collect();
            let mut from = BTreeSet::new();
            let wanted = rng.random_range(1..=others.len().div_ceil(2).max(1));
            while from.len() < wanted.min(others.len()) {
                from.insert(others[rng.random_range(0..others.len())].clone());
            }
            Fault::Cut { node, one_way: None, from: from.into_iter().collect() }
        }
        Kind::StallAgent => Fault::Stall { node, who: Who::Agent },
        Kind::StallGuard => Fault::Stall { node, who: Who::AgentAndGuard },
        Kind::StallAll => Fault::Stall { node, who: Who::AllButGuests },
        Kind::LibvirtdStop => Fault::LibvirtdStop { node },
        Kind::LibvirtdKill => Fault::LibvirtdKill { node },
        Kind::Agent => Fault::AgentKill { node },
        Kind::Guest => Fault::Guest { node, vm: None },
        Kind::DiskFull => Fault::DiskFull { node },
        Kind::ApiServer => Fault::ApiServer,
        Kind::Upgrade => Fault::Upgrade,
    };
    Planned { kind, fault }
}

// Not twice the same, and not two on one node: the second would meet a node on which it cannot fire.
fn go_together(first: &Planned, second: &Planned) -> bool {
    let apart = first.fault.node() != second.fault.node();
    first.kind != second.kind
        && (apart || !first.kind.is_of_a_node() && !second.kind.is_of_a_node())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn nodes() -> Vec<String> {
        (1..=5).map(|index| format!("n{index}")).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_plan_and_another_another() {
        let of = |seed| plan(seed, 200, &nodes(), &Kind::ALL);
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn every_kind_comes_about_equally_often_and_every_node_is_hit() {
        let rounds = plan(1, 200, &nodes(), &Kind::ALL);
        let all: Vec<&Planned> = rounds.iter().flat_map(|round| &round.faults).collect();
        assert_eq!(all.len(), 200);
        let mut count: BTreeMap<Kind, usize> = BTreeMap::new();
        for one in &all {
            *count.entry(one.kind).or_default() += 1;
        }
        assert_eq!(count.len(), Kind::ALL.len());
        assert!(count.values().all(|count| (10..=18).contains(count)), "{count:?}");
        let hit: BTreeSet<&str> = all.iter().filter_map(|one| one.fault.node()).collect();
        assert_eq!(hit.len(), 5);
    }

    #[test]
    fn some_rounds_have_two_faults_that_can_both_fire() {
        let rounds = plan(3, 200, &nodes(), &Kind::ALL);
        let twos: Vec<&Round> = rounds.iter().filter(|round| round.faults.len() == 2).collect();
        assert!(twos.len() >= 15, "{}", twos.len());
        for round in twos {
            assert!(go_together(&round.faults[0], &round.faults[1]), "{round:?}");
            assert_ne!(round.faults[0].kind, Kind::ApiServer, "Helm comes before: {round:?}");
            assert_ne!(round.faults[1].kind, Kind::Upgrade, "it needs its nodes: {round:?}");
        }
    }

    #[test]
    fn failover_is_expected_of_a_loss_that_comes_alone_or_with_a_harmless_fault() {
        let node = |node: &str| node.to_owned();
        let power = Planned { kind: Kind::Power, fault: Fault::Power { node: node("n1") } };
        let api = Planned { kind: Kind::ApiServer, fault: Fault::ApiServer };
        let full = Planned { kind: Kind::DiskFull, fault: Fault::DiskFull { node: node("n2") } };
        let of = |faults: &[&Planned]| Round {
            faults: faults.iter().map(|one| (*one).clone()).collect(),
            hold_s: 5,
        };
        assert_eq!(of(&[&power]).to_be_replaced(), ["n1"]);
        assert_eq!(of(&[&power, &api]).to_be_replaced(), ["n1"]);
        assert!(of(&[&power, &full]).to_be_replaced().is_empty());
        assert!(of(&[&api]).to_be_replaced().is_empty());
    }

    #[test]
    fn a_cut_from_some_is_never_from_itself_or_from_all() {
        for round in plan(5, 300, &nodes(), &[Kind::CutSome]) {
            let Fault::Cut { node, from, .. } = &round.faults[0].fault else {
                panic!("{round:?}");
            };
            assert!(!from.contains(node) && (1..=2).contains(&from.len()), "{round:?}");
        }
    }

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse::<Kind>().ok(), Some(kind));
        }
        assert!("flood".parse::<Kind>().is_err());
    }
}
