//! What every pair of hypervisors must do.

use std::time::Duration;

use discovery::engine::effect::{HypervisorCommand, Migration};
use discovery::engine::host::{DomainState, FailureKind, MigrationFigures, PauseCause};
use discovery::engine::id::NodeName;
use discovery::engine::input::HypervisorInput;
use discovery::engine::spec::{DiskSpec, VmDefinition};

use super::pair::{Pair, names};
use crate::subject::{Ended, Subject, vm};

/// Longer than any migration of the suite takes.
pub const LIMIT: Duration = Duration::from_secs(60);
/// A bandwidth at which a migration does not end by itself, bytes a second.
const SLOW: u64 = 1 << 20;

/// Everything that needs no files.
pub fn run(pair: &mut Pair) {
    a_vm_moves_and_is_the_same_one_there(pair);
    a_vm_that_is_not_here_is_told_so(pair);
    who_is_not_expected_stays_where_it_is(pair);
    expecting_twice_or_what_is_there_is_harmless(pair);
    what_runs_in_another_placement_is_not_touched(pair);
    a_migration_given_up_leaves_the_vm_where_it_was(pair);
    a_vm_moves_there_and_back(pair);
}

/// The same VM in its next placement.
pub fn next(vm: &VmDefinition) -> VmDefinition {
    VmDefinition { epoch: vm.epoch + 1, ..vm.clone() }
}

pub fn expect(at: &mut Subject, vm: &VmDefinition, from: &NodeName) -> Ended {
    at.command(HypervisorCommand::Expect { definition: Box::new(vm.clone()), from: from.clone() })
}

pub fn migration(vm: &VmDefinition, to: &NodeName) -> Migration {
    Migration { definition: vm.clone(), to: to.clone(), bandwidth: None, limit: LIMIT }
}

pub fn migrate(from: &mut Subject, migration: Migration) -> Ended {
    from.command(HypervisorCommand::Migrate(Box::new(migration)))
}

/// Moves a VM, and checks all that is told at its source.
pub fn moves(from: &mut Subject, vm: &VmDefinition, to: &NodeName) -> MigrationFigures {
    let command = HypervisorCommand::Migrate(Box::new(migration(vm, to)));
    let request = from.submit(command);
    let mut figures = None;
    let ended = from.expect("the migration's end", |input| match input {
        HypervisorInput::Migrated { id, figures: told } if *id == vm.id => {
            figures = Some(*told);
            None
        }
        HypervisorInput::Domain(seen) if seen.id == vm.id => {
            assert_eq!(seen.state, DomainState::Running, "no word of what a migration does to it");
            None
        }
        HypervisorInput::DomainGone(id) if *id == vm.id => panic!("its end tells that it is gone"),
        HypervisorInput::Domains(all) => {
            let seen = all.iter().find(|seen| seen.id == vm.id).expect("it is here until the end");
            assert_eq!(seen.state, DomainState::Running);
            None
        }
        HypervisorInput::Done { request: of, result, .. } if *of == request => Some(result.clone()),
        _ => None,
    });
    assert_eq!(ended, Ok(None), "it has left");
    figures.expect("its figures are told before its end")
}

/// Waits until a VM is told to have arrived, paused as it has to be, and continues it as its handler would.
pub fn arrives(at: &mut Subject, vm: &VmDefinition) {
    let seen = at.expect("its arrival", |input| match input {
        HypervisorInput::Domain(seen) if seen.id == vm.id => Some(seen.clone()),
        _ => None,
    });
    assert_eq!(
        (seen.state, seen.epoch, &seen.edited),
        (DomainState::Paused(PauseCause::Other), vm.epoch, &None)
    );
    assert_eq!(seen.revision, vm.revision);
    let seen = at.command(HypervisorCommand::Resume(vm.id.clone())).expect("continued");
    assert_eq!(seen.map(|seen| seen.state), Some(DomainState::Running));
}

/// It runs here in this placement, and a `Run` finds nothing to do.
pub fn runs_on(at: &mut Subject, vm: &VmDefinition) {
    let instance = at.hands.instance(vm);
    let seen = at.run(vm);
    assert_eq!((seen.state, seen.epoch, &seen.edited), (DomainState::Running, vm.epoch, &None));
    assert_eq!(at.hands.instance(vm), instance, "it was not restarted");
}

fn a_vm_moves_and_is_the_same_one_there(pair: &mut Pair) {
    let [a, b] = names();
    let vm = vm("moves");
    pair.a.run(&vm);
    let there = next(&vm);
    assert_eq!(expect(&mut pair.b, &there, &a), Ok(None), "nothing is there yet");
    let figures = moves(&mut pair.a, &there, &b);
    println!("an empty VM of 64 MiB: {figures:?}");
    arrives(&mut pair.b, &there);
    runs_on(&mut pair.b, &there);
    pair.a.remove(&vm);
    runs_on(&mut pair.b, &there);
    pair.b.remove(&there);
}

fn a_vm_that_is_not_here_is_told_so(pair: &mut Pair) {
    let [_, b] = names();
    let vm = vm("nowhere");
    let ended = migrate(&mut pair.a, migration(&next(&vm), &b));
    assert_eq!(ended.map_err(|failure| failure.kind), Err(FailureKind::NotHere));
    pair.a.run(&vm);
    let stop = HypervisorCommand::Stop { id: vm.id.clone(), grace: Duration::ZERO };
    pair.a.command(stop).expect("stopped");
    let ended = migrate(&mut pair.a, migration(&next(&vm), &b));
    assert_eq!(ended.map_err(|failure| failure.kind), Err(FailureKind::NotHere), "stopped");
    pair.a.remove(&vm);
}

fn who_is_not_expected_stays_where_it_is(pair: &mut Pair) {
    let [a, b] = names();
    let vm = vm("unexpected");
    pair.a.run(&vm);
    let there = next(&vm);
    let refused = |pair: &mut Pair, to: &NodeName, why: &str| {
        let failure = migrate(&mut pair.a, migration(&there, to)).expect_err(why);
        assert_ne!(failure.kind, FailureKind::NotHere, "{why}: {failure}");
        runs_on(&mut pair.a, &vm);
    };
    refused(pair, &b, "nobody expects it");
    refused(pair, &NodeName::from("nobody"), "there is no such peer");
    assert_eq!(expect(&mut pair.b, &there, &NodeName::from("c")), Ok(None));
    refused(pair, &b, "another source is expected");
    assert_eq!(expect(&mut pair.b, &next(&there), &a), Ok(None));
    refused(pair, &b, "another placement is expected");
    assert_eq!(expect(&mut pair.b, &there, &a), Ok(None));
    pair.b.remove(&there);
    refused(pair, &b, "the leave was withdrawn by the next command");
    pair.a.remove(&vm);
}

fn expecting_twice_or_what_is_there_is_harmless(pair: &mut Pair) {
    let [a, b] = names();
    let vm = vm("twice");
    pair.a.run(&vm);
    let there = next(&vm);
    for _ in 0..3 {
        assert_eq!(expect(&mut pair.b, &there, &a), Ok(None));
    }
    moves(&mut pair.a, &there, &b);
    arrives(&mut pair.b, &there);
    let instance = pair.b.hands.instance(&there);
    let seen = expect(&mut pair.b, &there, &a).expect("left alone").expect("it is there");
    assert_eq!((seen.state, seen.epoch), (DomainState::Running, there.epoch));
    assert_eq!(pair.b.hands.instance(&there), instance);
    runs_on(&mut pair.b, &there);
    pair.b.remove(&there);
    pair.a.remove(&vm);
}

fn what_runs_in_another_placement_is_not_touched(pair: &mut Pair) {
    let [a, _] = names();
    let vm = vm("older");
    pair.b.run(&vm);
    let instance = pair.b.hands.instance(&vm);
    let failure = expect(&mut pair.b, &next(&vm), &a).expect_err("it runs here");
    assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
    assert_eq!(pair.b.hands.instance(&vm), instance);
    runs_on(&mut pair.b, &vm);
    let stop = HypervisorCommand::Stop { id: vm.id.clone(), grace: Duration::ZERO };
    pair.b.command(stop).expect("stopped");
    assert_eq!(expect(&mut pair.b, &next(&vm), &a), Ok(None), "a stopped one makes room");
    pair.b.remove(&vm);
}

/// A VM whose migration takes long: by its disk, which only real ones have.
fn slow_vm(name: &str) -> VmDefinition {
    let disk = DiskSpec { name: "data".into(), size: 256 << 20, image: None };
    VmDefinition { disks: vec![disk], ..vm(name) }
}

fn a_migration_given_up_leaves_the_vm_where_it_was(pair: &mut Pair) {
    let [a, b] = names();
    let vm = slow_vm("abandoned");
    pair.run_with_much_to_move(&vm);
    let there = next(&vm);
    assert_eq!(expect(&mut pair.b, &there, &a), Ok(None));
    pair.hold(true);
    let slow = Migration { bandwidth: Some(SLOW), ..migration(&there, &b) };
    let instance = pair.a.hands.instance(&vm);
    let request = pair.a.submit(HypervisorCommand::Migrate(Box::new(slow)));
    pair.under_way(&vm);
    pair.a.tell(HypervisorCommand::AbortMigration(vm.id.clone()));
    let failure = pair.a.done(request).expect_err("given up");
    assert_eq!(failure.kind, FailureKind::Aborted, "{failure}");
    assert_eq!(pair.a.hands.instance(&vm), instance, "the same guest");
    runs_on(&mut pair.a, &vm);
    pair.hold(false);
    // Nothing is under way: nothing happens.
    pair.a.tell(HypervisorCommand::AbortMigration(vm.id.clone()));
    assert_eq!(expect(&mut pair.b, &there, &a), Ok(None));
    moves(&mut pair.a, &there, &b);
    arrives(&mut pair.b, &there);
    runs_on(&mut pair.b, &there);
    pair.b.remove(&there);
    pair.a.remove(&vm);
}

fn a_vm_moves_there_and_back(pair: &mut Pair) {
    let [a, b] = names();
    let mut vm = slow_vm("returns");
    pair.a.run(&vm);
    for _ in 0..2 {
        vm = next(&vm);
        assert_eq!(expect(&mut pair.b, &vm, &a), Ok(None));
        moves(&mut pair.a, &vm, &b);
        arrives(&mut pair.b, &vm);
        runs_on(&mut pair.b, &vm);
        vm = next(&vm);
        assert_eq!(expect(&mut pair.a, &vm, &b), Ok(None), "what it left here is no hindrance");
        moves(&mut pair.b, &vm, &a);
        arrives(&mut pair.a, &vm);
        runs_on(&mut pair.a, &vm);
    }
    pair.a.remove(&vm);
    pair.b.remove(&vm);
}
