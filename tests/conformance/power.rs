//! The power switch: one suite, run on the fake, and on programs that are started.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests wait")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use discovery::agent::fake_power::FakePower;
use discovery::agent::ports::{INPUT_QUEUE, PowerSwitch};
use discovery::agent::power_command::PowerCommand;
use discovery::engine::id::NodeName;
use discovery::engine::input::Input;
use discovery::engine::replica::{DiskId, Replica};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

fn machine(name: &str) -> Replica {
    Replica { node: NodeName::from(name), disk: DiskId(7) }
}

async fn next(inputs: &mut Receiver<Input>) -> (String, u64, Result<(), String>) {
    let input = timeout(SOON, inputs.recv()).await.expect("an answer in time").expect("an answer");
    let Input::Switched { holder, epoch, result } = input else { panic!("{input:?}") };
    assert_eq!(holder, machine(holder.node.as_str()), "as it was asked");
    (holder.node.to_string(), epoch, result)
}

/// `off` can be switched off, `dead` cannot, and nobody knows `stranger`.
async fn conforms(power: &dyn PowerSwitch, inputs: &mut Receiver<Input>) {
    power.switch_off(machine("off"), 3);
    assert_eq!(next(inputs).await, ("off".to_owned(), 3, Ok(())));
    power.switch_off(machine("off"), 4);
    assert_eq!(next(inputs).await, ("off".to_owned(), 4, Ok(())), "one that is off already is");

    power.switch_off(machine("dead"), 5);
    let (node, epoch, result) = next(inputs).await;
    assert_eq!((node.as_str(), epoch), ("dead", 5));
    let why = result.expect_err("it cannot be");
    assert!(why.contains("its controller does not answer"), "{why}");
    power.switch_off(machine("stranger"), 6);
    assert!(next(inputs).await.2.is_err());

    for epoch in 10..20 {
        power.switch_off(machine("off"), epoch);
    }
    let mut answered = Vec::new();
    for _ in 10..20 {
        answered.push(next(inputs).await.1);
    }
    answered.sort_unstable();
    assert_eq!(answered, (10..20).collect::<Vec<u64>>(), "each is answered once");
    assert!(inputs.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fake_conforms() {
    let (sender, mut inputs) = channel(INPUT_QUEUE);
    let fake = FakePower::new(sender);
    fake.know(NodeName::from("off"), Ok(()));
    fake.know(NodeName::from("dead"), Err("its controller does not answer".to_owned()));
    conforms(&fake, &mut inputs).await;
}

const PROGRAM: &str = r#"#!/bin/sh
case "$1" in
  off) exit 0 ;;
  dead) echo "some talk" >&2; echo "its controller does not answer" >&2; exit 7 ;;
  hangs) exec sleep 600 ;;
  *) exit 1 ;;
esac
"#;

#[tokio::test(flavor = "multi_thread")]
async fn programs_conform_and_one_that_hangs_is_a_failure_and_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("power-off");
    fs::write(&program, PROGRAM).expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it may be run");
    let (sender, mut inputs) = channel(INPUT_QUEUE);
    let power = PowerCommand::new(program.clone(), SOON, sender.clone());
    conforms(&power, &mut inputs).await;

    let hasty = PowerCommand::new(program.clone(), Duration::from_secs(1), sender.clone());
    hasty.switch_off(machine("hangs"), 1);
    hasty.switch_off(machine("off"), 2);
    assert_eq!(next(&mut inputs).await.1, 2, "the one that hangs keeps nobody waiting");
    let why = next(&mut inputs).await.2.expect_err("it hangs");
    assert!(why.contains("took longer than 1s"), "{why}");

    let nothing = PowerCommand::new(folder.path().join("missing"), SOON, sender);
    nothing.switch_off(machine("off"), 1);
    let why = next(&mut inputs).await.2.expect_err("there is no program");
    assert!(why.contains("cannot start") && why.contains("missing"), "{why}");
}
