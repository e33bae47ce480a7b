//! Real values of everything that is sent or kept: for the suites, and as seeds of the fuzz targets.

use std::collections::BTreeMap;
use std::time::Duration;

use discovery::agent::ports::PeerIdentity;
use discovery::engine::dnt::PeerState;
use discovery::engine::dnt::vivaldi::Coordinate;
use discovery::engine::host::{DomainSeen, DomainState, PauseCause, StopCause};
use discovery::engine::id::{MemberName, NodeName, ProcedureId, VeName, VeUid, VmId};
use discovery::engine::input::VeDeclared;
use discovery::engine::lease::guardian::{Guarded, Ward};
use discovery::engine::lease::message::LeaseMessage;
use discovery::engine::lease::tenant::OwnLeases;
use discovery::engine::lease::{self, Absence, Lease, Times};
use discovery::engine::lrt::relief::habit::{Lore, Watched};
use discovery::engine::lrt::relief::outlook::Outline;
use discovery::engine::lrt::relief::protocol as relief;
use discovery::engine::lrt::{Guest, NodeOffer};
use discovery::engine::record::{
    Kept, MoveReason, MoveStep, Moving, Placement, Promise, Start, Transit, VeRecord, VmGoal,
    VmRecord,
};
use discovery::engine::replica::{DiskId, Replica};
use discovery::engine::report::{MoveProgress, VmObserved, VmPhase};
use discovery::engine::spec::{
    BackOff, Boot, Constraint, DiskSpec, Domain, ImageSource, MemberSpec, NodeSelector,
    OnNodeCrash, OnVmCrash, Recovery, Resources, RunStrategy, Terms, VeSpec, VeState, VmDefinition,
};
use discovery::engine::time::Instant;
use discovery::engine::vet::register::acceptor::Acceptor;
use discovery::engine::vet::register::ballot::{Ballot, ReplicaSet};
use discovery::engine::vet::register::message::{RegisterMessage, Said};
use discovery::engine::wire::{Message, Order, OrderedVm, Reservation};

const UID: &str = "6f0f2c1e-4a53-4f6e-9c80-2b1f6ad0a001";
const SHA256: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn image(name: &str) -> ImageSource {
    ImageSource {
        url: format!("https://images.example/{name}.qcow2"),
        sha256: Some(SHA256.to_owned()),
    }
}

fn procedure() -> ProcedureId {
    ProcedureId { initiator: NodeName::from("node-1"), incarnation: 3, number: 17 }
}

pub fn vm_id(index: u32) -> VmId {
    VmId { ve: VeUid::from(UID), member: MemberName::from("web"), index }
}

pub fn definition(index: u32) -> VmDefinition {
    VmDefinition {
        id: vm_id(index),
        ve: VeName::new("default", "shop"),
        epoch: 4,
        revision: 2,
        cpus: 2,
        memory: 256 << 20,
        boot: Boot::Kernel {
            kernel: image("vmlinuz"),
            initrd: Some(image("initrd")),
            cmdline: "console=ttyS0".to_owned(),
        },
        disks: vec![
            DiskSpec { name: "root".to_owned(), size: 4 << 30, image: Some(image("debian")) },
            DiskSpec { name: "data".to_owned(), size: 20 << 30, image: None },
        ],
        run_strategy: RunStrategy::RerunOnFailure,
        terms: Terms { alone: true, cpu_percent: Some(150) },
        recovery: Recovery {
            on_vm_crash: OnVmCrash::RestartVe,
            on_node_crash: OnNodeCrash::Leave,
            back_off: BackOff::default(),
        },
        depends: true,
    }
}

fn replicas() -> Vec<Replica> {
    let replica = |node: u32| Replica { node: format!("node-{node}").into(), disk: DiskId(node) };
    (1..=3).map(replica).collect()
}

fn declared() -> VeDeclared {
    let web = definition(0);
    VeDeclared {
        uid: VeUid::from(UID),
        name: web.ve.clone(),
        generation: 2,
        resource_version: "48151".to_owned(),
        deleting: false,
        gone: false,
        reported: 3,
        replica_set: replicas(),
        spec: VeSpec {
            state: VeState::Running,
            members: vec![MemberSpec {
                name: MemberName::from("web"),
                replicas: 2,
                cpus: web.cpus,
                memory: web.memory,
                boot: Boot::Disk,
                disks: web.disks,
                run_strategy: RunStrategy::Always,
                depends_on: vec![MemberName::from("db")],
            }],
            recovery: web.recovery,
            placement: vec![
                Constraint::Spread {
                    members: vec![MemberName::from("web")],
                    over: Domain::Node,
                    continuous: true,
                },
                Constraint::Fence {
                    members: Vec::new(),
                    nodes: NodeSelector {
                        names: vec![NodeName::from("node-2")],
                        labels: BTreeMap::from([("disk".to_owned(), "nvme".to_owned())]),
                    },
                    continuous: true,
                },
                Constraint::MaxNodes(3),
                Constraint::Among {
                    members: Vec::new(),
                    groups: vec![NodeSelector {
                        names: vec!["node-2".into()],
                        ..Default::default()
                    }],
                    continuous: false,
                },
                Constraint::Split {
                    members: vec![MemberName::from("web")],
                    from: vec![MemberName::from("db")],
                    over: Domain::Zone,
                    continuous: true,
                },
                Constraint::Overbook { members: Vec::new(), cpu_percent: 150 },
                Constraint::Spare,
            ],
        },
    }
}

fn seen(state: DomainState) -> DomainSeen {
    DomainSeen {
        id: vm_id(0),
        uuid: "0e3f1b8a-0000-5000-8000-000000000001".to_owned(),
        epoch: 4,
        revision: 2,
        // Peers are not told.
        size: Resources::default(),
        state,
        edited: Some("memory".to_owned()),
    }
}

fn state() -> PeerState {
    PeerState {
        coordinate: Coordinate { position: [1.5, -0.25, 30.0], height: 0.3, error: 0.4 },
        api_reachable: true,
        zone: "zone-a".to_owned(),
        free: Resources { cpu_milli: 3500, memory: 6 << 30 },
        schedulable: true,
        disk: DiskId(2),
        leaving: true,
    }
}

fn offer() -> NodeOffer {
    NodeOffer {
        node: NodeName::from("node-2"),
        free: Resources { cpu_milli: 3500, memory: 6 << 30 },
        allocatable: Resources { cpu_milli: 8000, memory: 16 << 30 },
        labels: BTreeMap::from([("topology.kubernetes.io/zone".to_owned(), "zone-a".to_owned())]),
        zone: "zone-a".to_owned(),
        schedulable: true,
        allocated: Resources { cpu_milli: 4500, memory: 10 << 30 },
        processors_milli: 2000,
        others: 3,
        guests: vec![Guest {
            id: vm_id(0),
            ve: VeName::new("default", "shop"),
            size: Resources::of(2, 1 << 30),
            bytes: 5 << 30,
            movable: true,
        }],
    }
}

fn ordered(index: u32, run: bool) -> OrderedVm {
    let (to, why) = (NodeName::from("node-3"), MoveReason::Load);
    let transit = if run { Transit::Leaving { to, epoch: 5, why } } else { Transit::None };
    let start = if run { Start::Waits } else { Start::Down };
    OrderedVm { definition: definition(index), run, may_restart: !run, start, transit }
}

/// At least one message of every kind.
pub fn messages() -> Vec<Message> {
    let sent = Instant(123_456_789);
    let order = |vms| {
        Message::Order(Box::new(Order {
            ve: VeUid::from(UID),
            handler: NodeName::from("node-1"),
            order: 9,
            lease: 3,
            open: 4,
            vms,
        }))
    };
    let observed = |domain| VmObserved {
        id: vm_id(0),
        epoch: 4,
        revision: 2,
        promised: false,
        accepted: 2,
        phase: VmPhase::Running,
        domain,
        reason: Some("its domain was edited".to_owned()),
        restarts: 2,
        transit: Transit::Arriving { from: NodeName::from("node-3") },
        moved: MoveProgress::Stayed("called off".to_owned()),
        crashed: true,
        held: false,
    };
    vec![
        Message::Swim(Vec::new()),
        Message::Swim((0..=255).collect()),
        Message::Ping { sent, state: state() },
        Message::Pong { sent, state: state() },
        Message::Declare(Box::new(declared())),
        Message::Declared { uid: VeUid::from(UID), generation: -1, deleting: true, round: 3 },
        Message::Handler { ve: VeUid::from(UID), node: NodeName::from("node-2") },
        Message::Reserve { procedure: procedure(), ve: VeUid::from(UID), priority: 3 },
        Message::Reserved {
            procedure: procedure(),
            answer: Reservation::Granted(Box::new(offer())),
        },
        Message::Reserved {
            procedure: procedure(),
            answer: Reservation::Busy { procedure: procedure(), priority: 1 },
        },
        Message::Reserved {
            procedure: procedure(),
            answer: Reservation::Closed("cordoned".to_owned()),
        },
        Message::Prepare {
            procedure: procedure(),
            replicas: vec![NodeName::from("node-1")],
            order: 9,
            vms: vec![definition(0), definition(1)],
            arriving: true,
        },
        Message::Prepared { procedure: procedure(), result: Ok(lease()) },
        Message::Prepared { procedure: procedure(), result: Err("no room".to_owned()) },
        Message::Release { procedure: procedure(), undo: true },
        order(Vec::new()),
        order(vec![ordered(0, true), ordered(1, false)]),
        Message::Observed {
            ve: VeUid::from(UID),
            order: 9,
            leaving: true,
            lease: Some(lease()),
            vms: vec![
                observed(None),
                observed(Some(seen(DomainState::Paused(PauseCause::DiskError)))),
                observed(Some(seen(DomainState::Stopped(StopCause::Crashed)))),
            ],
        },
        Message::Move { vm: vm_id(0), to: NodeName::from("node-3"), why: MoveReason::Load },
        Message::MakeRoom { vm: vm_id(0), to: NodeName::from("node-3") },
        Message::Stays { vm: vm_id(0), why: "it is on its way already".to_owned() },
        Message::Relief(relief::Message::Tell(summary())),
        Message::Relief(relief::Message::Ask {
            number: 7,
            memory_mib: 1024,
            watched: Watched::new(80.0),
        }),
        Message::Relief(relief::Message::Granted { number: 7, summary: summary() }),
        Message::Relief(relief::Message::Release { number: 7 }),
        register(Said::Ask { ballot: ballot() }),
        register(Said::Promise { ballot: ballot(), accepted: None }),
        register(Said::Promise {
            ballot: ballot(),
            accepted: Some(Box::new((ballot().at(5), record(placed())))),
        }),
        register(Said::Propose { ballot: ballot().at(6), record: Box::new(record(placed())) }),
        register(Said::Accepted { ballot: ballot().at(6) }),
        register(Said::Refused { ballot: ballot(), promised: ballot().at(2) }),
        register(Said::OtherDisk { meant: DiskId(9) }),
        about_lease(lease::message::Said::Renew {
            life: 3,
            sent: Instant(5_000_000),
            times: Times::default(),
            released: 2,
            absence: Absence::begins(3, Duration::from_secs(120)),
        }),
        about_lease(lease::message::Said::Renewed { life: 3, sent: Instant(5_000_000) }),
        about_lease(lease::message::Said::Dead),
        about_lease(lease::message::Said::Fence),
        about_lease(lease::message::Said::Alive(Duration::from_millis(900))),
        about_lease(lease::message::Said::Away(Duration::from_secs(90))),
        about_lease(lease::message::Said::Fencing(Duration::from_secs(4))),
        about_lease(lease::message::Said::Fenced),
    ]
}

fn lease() -> Lease {
    let mut replicas = replicas();
    Lease { holder: replicas.remove(1), epoch: 3, guardians: replicas }
}

fn about_lease(said: lease::message::Said) -> Message {
    let Lease { holder, epoch, guardians } = lease();
    let guardian = guardians[0].disk;
    Message::Lease(Box::new(LeaseMessage { guardian, holder, epoch, said }))
}

fn register(said: Said) -> Message {
    Message::Register(Box::new(RegisterMessage { ve: VeUid::from(UID), disk: DiskId(1), said }))
}

fn placed() -> Placement {
    let to = NodeName::from("node-3");
    let zone = "zone-a".to_owned();
    let (step, why) = (MoveStep::Going, MoveReason::Maintenance);
    let moving = Some(Moving { to, zone: zone.clone(), epoch: 5, step, why });
    Placement { node: NodeName::from("node-2"), zone, epoch: 4, active: true, moving }
}

fn summary() -> relief::Summary {
    relief::Summary {
        outline: Outline::default(),
        lore: Lore::default(),
        free_mib: 2048,
        busy: false,
    }
}

/// At least one record of every kind.
pub fn kept() -> Vec<Kept> {
    vec![
        Kept::Incarnation { life: u64::MAX, disk: DiskId(u32::MAX) },
        Kept::Register(Acceptor {
            ve: VeUid::from(UID),
            promised: ballot().at(7),
            accepted: Some((ballot().at(6), record(placed()))),
        }),
        Kept::Vm(VmRecord {
            definition: definition(0),
            goal: VmGoal::Run,
            promise: Some(Promise {
                procedure: procedure(),
                replicas: vec![NodeName::from("node-2")],
                order: 10,
                definition: definition(0),
                lease: 3,
            }),
            handler: NodeName::from("node-1"),
            lease: 3,
            order: 9,
            running: Some(Resources { cpu_milli: 2000, memory: 256 << 20 }),
            completed: false,
            crashed: true,
            start: Start::Waits,
            restarts: 1,
            transit: Transit::Halted,
        }),
        Kept::Lease(OwnLeases {
            newest: 4,
            held: vec![(3, replicas()), (4, Vec::new())],
            away: true,
        }),
        Kept::Ward(Ward {
            holder: lease().holder,
            released: 2,
            epochs: BTreeMap::from([(
                3,
                Guarded {
                    times: Times::default(),
                    fenced: true,
                    absence: Absence::begins(3, Duration::from_secs(120)),
                },
            )]),
        }),
    ]
}

fn ballot() -> Ballot {
    Ballot::of(3, &NodeName::from("node-1"))
}

fn record(placed: Placement) -> VeRecord {
    VeRecord {
        set: ReplicaSet { epoch: 2, members: replicas(), leaving: replicas() },
        declared: declared(),
        revisions: BTreeMap::from([("web".to_owned(), 2)]),
        placements: BTreeMap::from([(vm_id(0), placed.clone()), (vm_id(1), placed)]),
        lost: std::collections::BTreeSet::from([vm_id(1)]),
        former: BTreeMap::from([(
            vm_id(0),
            std::collections::BTreeSet::from([NodeName::from("node-3")]),
        )]),
        leases: BTreeMap::from([(NodeName::from("node-2"), lease())]),
        committed: 2,
        order: 9,
        epoch: 4,
        owing: vec![NodeName::from("node-3")],
        restarting: Some("shop-web-0 crashed".to_owned()),
        tombstone: false,
    }
}

/// A pinned peer.
pub fn peer() -> PeerIdentity {
    PeerIdentity {
        node: NodeName::from("node-2"),
        key: [7; 32],
        addresses: vec![
            "192.0.2.7:7946".parse().expect("an address"),
            "[2001:db8::7]:7946".parse().expect("an address"),
        ],
    }
}
