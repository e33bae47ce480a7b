//! What every hypervisor behind the port must do.

use std::time::Duration;

use discovery::engine::effect::HypervisorCommand;
use discovery::engine::host::{DomainState, FailureKind, PauseCause, StopCause};
use discovery::engine::input::HypervisorInput;

use super::subject::{Subject, vm};

/// Everything that needs neither files nor a daemon.
pub fn run(subject: &mut Subject) {
    it_tells_the_host_and_all_domains_when_it_connects(subject);
    a_vm_runs_once_however_often_it_is_asked_for(subject);
    another_revision_or_epoch_is_another_start(subject);
    a_destroyed_domain_is_reported_and_started_again(subject);
    a_paused_domain_is_reported_and_continued(subject);
    an_edited_definition_is_told_in_words_and_mended(subject);
    an_undefined_guest_is_mended_without_a_restart(subject);
    a_domain_undefined_while_stopped_is_gone(subject);
    stopping_keeps_the_domain_and_may_be_repeated(subject);
    a_guest_that_ignores_its_power_button_is_ended_after_its_grace(subject);
    removing_leaves_nothing_and_may_be_repeated(subject);
    commands_for_one_vm_end_in_order(subject);
    foreign_domains_are_neither_told_nor_touched(subject);
}

fn it_tells_the_host_and_all_domains_when_it_connects(subject: &mut Subject) {
    subject.expect("a connection", |input| {
        matches!(input, HypervisorInput::Available(true)).then_some(())
    });
    let host = subject.expect("the host", |input| match input {
        HypervisorInput::Host(host) => Some(host.clone()),
        _ => None,
    });
    assert!(host.capacity.cpu_milli >= 1000 && host.capacity.memory > 0, "{host:?}");
    assert!(host.storage > 0 && !host.hypervisor.is_empty(), "{host:?}");
    assert!(!host.boot_id.is_empty(), "{host:?}");
    println!("on {}, {:?}", host.hypervisor, host.acceleration);
    let all = subject.expect("a full pass", |input| match input {
        HypervisorInput::Domains(all) => Some(all.clone()),
        _ => None,
    });
    assert_eq!(all, [], "none of ours exists yet");
}

fn a_vm_runs_once_however_often_it_is_asked_for(subject: &mut Subject) {
    let vm = vm("once");
    let seen = subject.run(&vm);
    assert_eq!((&seen.id, seen.epoch, seen.revision), (&vm.id, vm.epoch, vm.revision));
    assert_eq!((seen.state, &seen.edited), (DomainState::Running, &None));
    let instance = subject.hands.instance(&vm);
    assert_eq!(subject.run(&vm), seen, "nothing to do");
    assert_eq!(subject.hands.instance(&vm), instance, "it was not restarted");
    subject.remove(&vm);
}

fn another_revision_or_epoch_is_another_start(subject: &mut Subject) {
    let mut vm = vm("revision");
    subject.run(&vm);
    for change in ["revision", "epoch"] {
        let before = subject.hands.instance(&vm);
        match change {
            "revision" => (vm.revision, vm.memory) = (2, 96 << 20),
            _ => vm.epoch = 2,
        }
        let seen = subject.run(&vm);
        assert_eq!((seen.epoch, seen.revision), (vm.epoch, vm.revision));
        assert_eq!((seen.state, seen.edited), (DomainState::Running, None));
        assert_ne!(subject.hands.instance(&vm), before, "{change}: started anew");
    }
    subject.remove(&vm);
}

fn a_destroyed_domain_is_reported_and_started_again(subject: &mut Subject) {
    let vm = vm("destroyed");
    subject.run(&vm);
    subject.hands.destroy(&vm);
    let stopped = DomainState::Stopped(StopCause::Destroyed);
    subject.seen(&vm.id, "its end", |seen| seen.state == stopped);
    assert_eq!(subject.run(&vm).state, DomainState::Running);
    subject.remove(&vm);
}

fn a_paused_domain_is_reported_and_continued(subject: &mut Subject) {
    let vm = vm("paused");
    subject.run(&vm);
    let instance = subject.hands.instance(&vm);
    subject.hands.pause(&vm);
    subject.seen(&vm.id, "its pause", |seen| seen.state == DomainState::Paused(PauseCause::Other));
    let ended = subject.command(HypervisorCommand::Resume(vm.id.clone()));
    let seen = ended.expect("continued").expect("it exists");
    assert_eq!(seen.state, DomainState::Running);
    assert_eq!(subject.hands.instance(&vm), instance, "the same guest");
    subject.remove(&vm);
}

fn an_edited_definition_is_told_in_words_and_mended(subject: &mut Subject) {
    let vm = vm("edited");
    subject.run(&vm);
    subject.hands.halve_memory(&vm);
    let seen = subject.seen(&vm.id, "the edit", |seen| seen.edited.is_some());
    let said = seen.edited.unwrap_or_default();
    assert!(said.contains("memory is 32 MiB, declared 64 MiB"), "{said}");
    assert_eq!(subject.run(&vm).edited, None, "mended");
    subject.remove(&vm);
}

fn an_undefined_guest_is_mended_without_a_restart(subject: &mut Subject) {
    let vm = vm("undefined");
    subject.run(&vm);
    let instance = subject.hands.instance(&vm);
    subject.hands.undefine(&vm);
    let seen = subject.seen(&vm.id, "its lost definition", |seen| seen.edited.is_some());
    assert_eq!(seen.state, DomainState::Running, "the guest runs on");
    let seen = subject.run(&vm);
    assert_eq!((seen.state, seen.edited), (DomainState::Running, None));
    assert_eq!(subject.hands.instance(&vm), instance, "it was not restarted");
    subject.remove(&vm);
}

fn a_domain_undefined_while_stopped_is_gone(subject: &mut Subject) {
    let vm = vm("gone");
    subject.run(&vm);
    let ended =
        subject.command(HypervisorCommand::Stop { id: vm.id.clone(), grace: Duration::ZERO });
    assert!(matches!(ended, Ok(Some(_))), "{ended:?}");
    subject.hands.undefine(&vm);
    let id = vm.id.clone();
    subject.expect("its being gone", |input| match input {
        HypervisorInput::DomainGone(gone) if *gone == id => Some(()),
        _ => None,
    });
    assert_eq!(subject.run(&vm).state, DomainState::Running, "made again");
    subject.remove(&vm);
}

fn stopping_keeps_the_domain_and_may_be_repeated(subject: &mut Subject) {
    let vm = vm("stopped");
    subject.run(&vm);
    for _ in 0..2 {
        let stop = HypervisorCommand::Stop { id: vm.id.clone(), grace: Duration::ZERO };
        let seen = subject.command(stop).expect("stopped").expect("still defined");
        assert!(matches!(seen.state, DomainState::Stopped(_)), "{seen:?}");
        assert_eq!(seen.edited, None);
    }
    assert_eq!(subject.run(&vm).state, DomainState::Running);
    subject.remove(&vm);
    let stop = HypervisorCommand::Stop { id: vm.id.clone(), grace: Duration::ZERO };
    assert_eq!(subject.command(stop), Ok(None), "nothing to stop");
}

fn a_guest_that_ignores_its_power_button_is_ended_after_its_grace(subject: &mut Subject) {
    let vm = vm("deaf");
    subject.run(&vm);
    let stop = HypervisorCommand::Stop { id: vm.id.clone(), grace: Duration::from_millis(500) };
    let seen = subject.command(stop).expect("stopped").expect("still defined");
    assert!(matches!(seen.state, DomainState::Stopped(_)), "{seen:?}");
    subject.remove(&vm);
}

fn removing_leaves_nothing_and_may_be_repeated(subject: &mut Subject) {
    let vm = vm("removed");
    subject.run(&vm);
    subject.remove(&vm);
    subject.remove(&vm);
    assert_eq!(subject.command(HypervisorCommand::Resume(vm.id.clone())), Ok(None));
}

fn commands_for_one_vm_end_in_order(subject: &mut Subject) {
    let (one, other) = (vm("order"), vm("other"));
    let runs =
        |vm: &discovery::engine::spec::VmDefinition| HypervisorCommand::Run(Box::new(vm.clone()));
    let first = subject.submit(runs(&one));
    let beside = subject.submit(runs(&other));
    let second = subject.submit(HypervisorCommand::Remove(one.id.clone()));
    let third = subject.submit(runs(&one));
    let mut ends = Vec::new();
    while ends.len() < 4 {
        let (request, result) = subject.expect("four ends", |input| match input {
            HypervisorInput::Done { request, result, .. } => Some((*request, result.clone())),
            _ => None,
        });
        assert_eq!(result.expect("works").is_some(), request != second);
        ends.push(request);
    }
    assert!(ends.contains(&beside));
    ends.retain(|request| *request != beside);
    assert_eq!(ends, [first, second, third]);
    subject.remove(&one);
    subject.remove(&other);
}

fn foreign_domains_are_neither_told_nor_touched(subject: &mut Subject) {
    let Some(name) = subject.hands.make_foreign() else { return };
    let vm = vm("beside");
    subject.run(&vm);
    subject.remove(&vm);
    assert!(subject.hands.foreign_runs(&name), "it still runs");
    // It was never reported: whatever is, carries the id of a VM that a test asked for.
}

/// For hypervisors with a daemon that comes and goes.
pub fn run_losing_the_daemon(subject: &mut Subject) {
    let vm = vm("outlives");
    subject.run(&vm);
    let instance = subject.hands.instance(&vm);
    subject.hands.set_available(false);
    subject.expect("the loss", |input| {
        matches!(input, HypervisorInput::Available(false)).then_some(())
    });
    let failed = subject.command(HypervisorCommand::Run(Box::new(vm.clone())));
    assert_eq!(failed.map_err(|failure| failure.kind), Err(FailureKind::Unavailable));
    subject.hands.set_available(true);
    subject.expect("the return", |input| {
        matches!(input, HypervisorInput::Available(true)).then_some(())
    });
    let seen = subject.expect("a full pass", |input| match input {
        HypervisorInput::Domains(all) => Some(all.clone()),
        _ => None,
    });
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((&seen[0].id, seen[0].state), (&vm.id, DomainState::Running));
    assert_eq!(seen[0].edited, None);
    assert_eq!(subject.hands.instance(&vm), instance, "the guest ran on");
    subject.remove(&vm);
}
