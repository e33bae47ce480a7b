//! `bugs`: proves that the checks bite. Each deliberate bug is to be found within the seeds that are given.

use std::process::ExitCode;
use std::thread;

use discovery::engine::bugs::{Bug, switch};
use discovery::sim::faults::FaultKind;
use discovery::sim::faults::plan::Shape;
use discovery::sim::fuzz::{self, Outcome};

use super::fuzz::in_order;
use super::options::Bugs;

/// What has to go wrong for a bug to show: all kinds of faults, or those few that have to meet each other.
fn faults(bug: Bug) -> Vec<FaultKind> {
    use FaultKind::{
        Clock, Crash, Cut, Delay, GuardStall, Hypervisor, Late, Leave, Loss, LostDisk, LostRecords,
        OneWay, Partial, Power, Reorder,
    };
    match bug {
        Bug::OtherDiskAnswers => vec![Power, LostDisk, Partial, Loss],
        Bug::LeaseFromAnswer => vec![Cut, OneWay, Delay],
        Bug::FencedAtOnce => vec![GuardStall, Cut, OneWay],
        Bug::RestartIsSilence => vec![Crash, Power, Cut],
        Bug::GuardKeepsLatest => vec![Leave, Cut, OneWay],
        Bug::StartsOutliveLease => vec![Cut, OneWay, Hypervisor],
        Bug::OldOrderObeyed => vec![Crash, Reorder, Delay, Late],
        Bug::LockShared | Bug::HalfPlaced => vec![Loss, Reorder, Delay],
        Bug::OneRenews => vec![Cut, OneWay, Partial],
        Bug::OtherDiskVouches => vec![LostRecords, Crash, Cut],
        Bug::OtherLifeRenewed => vec![Power, Cut, Late, Clock],
        _ => FaultKind::ALL.to_vec(),
    }
}

/// Tries each; fails if one is not found.
pub fn run(options: &Bugs) -> Result<ExitCode, String> {
    let wanted =
        |bug: &Bug| options.only.is_empty() || options.only.iter().any(|w| w == bug.words().0);
    let bugs: Vec<Bug> = Bug::ALL.iter().copied().filter(wanted).collect();
    if bugs.is_empty() {
        return Err(format!("no bug is called {}", options.only.join(", ")));
    }
    let threads = options.threads.or_else(|| thread::available_parallelism().ok().map(Into::into));
    let places: Vec<u64> = (0..bugs.len() as u64).collect();
    let find = |place: u64| {
        let bug = bugs[place as usize];
        let shape = Shape { nodes: 5, ves: 4, faults: 25, kinds: faults(bug) };
        let found = options.seeds.clone().find_map(|seed| {
            switch(Some(bug));
            let outcome = fuzz::run(seed, &shape);
            switch(None);
            // What breaks without it as well is not its doing.
            let its_own = outcome.broken.is_some() && fuzz::run(seed, &shape).broken.is_none();
            its_own.then_some(outcome)
        });
        (bug, found)
    };
    let mut missed = 0;
    println!("{:<22}{:>6}  {:<8}  what it is, and what was seen", "bug", "seeds", "broke");
    in_order(&places, threads.unwrap_or(1), &find, &mut |(bug, found): (Bug, Option<Outcome>)| {
        let (word, about) = bug.words();
        let broken = found.and_then(|outcome| Some((outcome.seed, outcome.broken?)));
        match broken {
            Some((seed, broken)) => {
                let seeds = seed - options.seeds.start + 1;
                let what: String = broken.what.chars().take(90).collect();
                println!("{word:<22}{seeds:>6}  {:<8}  {about} {what}", broken.invariant);
            }
            None => {
                missed += 1;
                println!("{word:<22}{:>6}  {:<8}  {about}", "-", "-");
            }
        }
    });
    println!(
        "{} bugs, {missed} not found in {} seeds",
        bugs.len(),
        options.seeds.end - options.seeds.start
    );
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
