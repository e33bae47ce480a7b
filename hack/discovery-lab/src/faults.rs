//! The command line's part about faults: what people may ask of the nemesis, and what they are told.

use std::{fs, path::Path, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use discovery_lab::{
    Lab, LabError, Loss, Measurement, Moment, Result,
    nemesis::{Fault, Kind, Run, Way, Who},
};

/// On which node, and for how long.
#[derive(Debug, Args)]
pub struct Place {
    /// Such as n2
    #[arg(long)]
    node: String,
    #[command(flatten)]
    hold: Hold,
}

/// For how long.
#[derive(Debug, Args)]
pub struct Hold {
    /// Undone after this, such as 500ms, 10s or 2m; else it lasts until `heal`
    #[arg(long = "for", value_parser = duration)]
    hold: Option<Duration>,
}

#[derive(Debug, Subcommand)]
pub enum Nemesis {
    /// Power loss: every process of the node is killed at once, its /run is lost
    Power(Place),
    /// The power comes back
    PowerOn {
        /// Such as n2
        #[arg(long)]
        node: String,
    },
    /// Power loss, and a new boot at once
    Reboot {
        /// Such as n2
        #[arg(long)]
        node: String,
    },
    /// Drop what a node sends and gets
    Cut {
        #[command(flatten)]
        place: Place,
        /// Only what it gets (in), or only what it sends (out)
        #[arg(long, value_parser = way)]
        one_way: Option<Way>,
        /// Only what it has with these: nodes, or `api`
        #[arg(long, value_delimiter = ',')]
        from: Vec<String>,
    },
    /// Stop processes, as if they took no time: the agent
    Stall {
        #[command(flatten)]
        place: Place,
        /// The guard too
        #[arg(long, conflicts_with = "all_but_guests")]
        guard: bool,
        /// Everything on the node but its guests
        #[arg(long)]
        all_but_guests: bool,
    },
    /// Stop libvirtd; its guests go on
    Libvirtd {
        #[command(flatten)]
        place: Place,
        /// Kill it instead; the node starts it again
        #[arg(long)]
        kill: bool,
    },
    /// Kill the agent; Kubernetes starts it again
    Agent {
        /// Such as n2
        #[arg(long)]
        node: String,
    },
    /// Kill a guest
    Guest {
        /// Such as n2
        #[arg(long)]
        node: String,
        /// NAMESPACE/VM; else the node's first
        #[arg(long)]
        vm: Option<String>,
    },
    /// Fill the product's disk
    DiskFull(Place),
    /// Stop the API server
    ApiServer(Hold),
    /// Replace all agents by `helm upgrade`
    Upgrade,
    /// Undo everything that lasts
    Heal,
    /// Many faults of random kinds and places, on 5 nodes with 10 environments
    Run(RunArguments),
}

#[derive(Debug, Args)]
pub struct RunArguments {
    /// How many faults
    #[arg(long, default_value_t = 200)]
    faults: usize,
    /// The same seed plans the same faults; else a new one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// How many nodes the lab must have
    #[arg(long, default_value_t = 5)]
    nodes: usize,
    /// How many environments; every third has two VMs
    #[arg(long, default_value_t = 10)]
    ves: usize,
    /// Only these, such as power,cut,stall-agent; else all that this lab and this product know
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// VMs of a dead node wait for it: its power, or its network, comes back before anything is expected
    #[arg(long)]
    without_failover: bool,
    /// From the end of a fault until everything must be whole
    #[arg(long, value_parser = duration, default_value = "240s")]
    deadline: Duration,
    /// Go on after a fault from which the lab did not recover
    #[arg(long)]
    keep_going: bool,
    /// The report, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Measure {
    /// Power loss of the node that holds a VM, until the VM runs elsewhere
    Failover {
        #[command(flatten)]
        how: How,
        /// With an API server that is away
        #[arg(long, value_parser = ["running", "stopped"], default_value = "running")]
        api_server: String,
    },
    /// A node is cut off while its guests live on: until they are killed there, and run elsewhere
    Cut {
        #[command(flatten)]
        how: How,
    },
    /// A guest is killed, until it runs again
    Crash {
        #[command(flatten)]
        how: How,
        /// With an API server that is away
        #[arg(long, value_parser = ["running", "stopped"], default_value = "running")]
        api_server: String,
    },
    /// What is to touch no guest: agents killed and upgraded, libvirtd killed and stopped, the API server away
    Untouched {
        /// How long the API server is away
        #[arg(long, value_parser = duration, default_value = "10m")]
        away: Duration,
        /// What is not whole by then never will be
        #[arg(long, value_parser = duration, default_value = "240s")]
        deadline: Duration,
        /// All of it, as JSON
        #[arg(long)]
        report: Option<PathBuf>,
    },
    /// Source, target and handler of a live migration lose their power, at each moment of it
    Migration {
        /// How often each at each
        #[arg(long, default_value_t = 1)]
        rounds: usize,
        /// Only at these
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = Moment::ALL)]
        moments: Vec<Moment>,
        /// What is not whole by then never will be
        #[arg(long, value_parser = duration, default_value = "240s")]
        deadline: Duration,
        /// All of them, as JSON
        #[arg(long)]
        report: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct How {
    /// How often
    #[arg(long, default_value_t = 30)]
    times: usize,
    /// A replacement that does not run by then never will
    #[arg(long, value_parser = duration, default_value = "180s")]
    deadline: Duration,
    /// All samples, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
}

/// Fires what was asked for.
pub fn nemesis(lab: &Lab, verb: Nemesis) -> Result<()> {
    match verb {
        Nemesis::PowerOn { node } => {
            println!("{}", lab.heal(&Fault::Power { node })?);
            Ok(())
        }
        Nemesis::Heal => {
            let did = lab.heal_all()?;
            did.iter().for_each(|text| println!("{text}"));
            if did.is_empty() {
                println!("nothing to heal");
            }
            Ok(())
        }
        Nemesis::Run(arguments) => run(lab, arguments),
        one => {
            let (fault, hold) = fault(one);
            lab.nemesis(&fault, hold)
        }
    }
}

// The verbs that are one fault.
fn fault(verb: Nemesis) -> (Fault, Option<Duration>) {
    match verb {
        Nemesis::Power(Place { node, hold }) => (Fault::Power { node }, hold.hold),
        Nemesis::Reboot { node } => (Fault::Reboot { node }, None),
        Nemesis::Cut { place: Place { node, hold }, one_way, from } => {
            (Fault::Cut { node, one_way, from }, hold.hold)
        }
        Nemesis::Stall { place: Place { node, hold }, guard, all_but_guests } => {
            let who = match (guard, all_but_guests) {
                (_, true) => Who::AllButGuests,
                (true, false) => Who::AgentAndGuard,
                (false, false) => Who::Agent,
            };
            (Fault::Stall { node, who }, hold.hold)
        }
        Nemesis::Libvirtd { place: Place { node, .. }, kill: true } => {
            (Fault::LibvirtdKill { node }, None)
        }
        Nemesis::Libvirtd { place: Place { node, hold }, kill: false } => {
            (Fault::LibvirtdStop { node }, hold.hold)
        }
        Nemesis::Agent { node } => (Fault::AgentKill { node }, None),
        Nemesis::Guest { node, vm } => {
            (Fault::Guest { node, vm: vm.map(|vm| vm.replace('/', ".")) }, None)
        }
        Nemesis::DiskFull(Place { node, hold }) => (Fault::DiskFull { node }, hold.hold),
        Nemesis::ApiServer(hold) => (Fault::ApiServer, hold.hold),
        Nemesis::Upgrade | Nemesis::PowerOn { .. } | Nemesis::Heal | Nemesis::Run(_) => {
            (Fault::Upgrade, None)
        }
    }
}

fn run(lab: &Lab, arguments: RunArguments) -> Result<()> {
    let run = Run {
        faults: arguments.faults,
        seed: arguments.seed.unwrap_or_else(discovery_lab::record::boottime_ns),
        nodes: arguments.nodes,
        ves: arguments.ves,
        kinds: arguments.kinds,
        without_failover: arguments.without_failover,
        deadline: arguments.deadline,
        keep_going: arguments.keep_going,
    };
    let report = lab.nemesis_run(&run)?;
    let path = arguments
        .report
        .unwrap_or_else(|| lab.layout().logs().join(format!("nemesis-{}.json", run.seed)));
    write_json(&path, &serde_json::json!(report))?;
    print!("{}", report.table());
    println!("report: {}; record of guests: {}", path.display(), lab.record_of(&run).display());
    match report.passed() {
        true => Ok(()),
        false => Err(LabError::Unexpected {
            what: "the run".into(),
            detail: "see FAILED above, or the overlap".into(),
        }),
    }
}

/// Measures what was asked for.
pub fn measure(lab: &Lab, verb: &Measure) -> Result<()> {
    let (loss, how, api_stopped) = match verb {
        Measure::Failover { how, api_server } => (Loss::Power, how, api_server == "stopped"),
        Measure::Cut { how } => (Loss::Cut, how, false),
        Measure::Crash { how, api_server } => (Loss::Crash, how, api_server == "stopped"),
        Measure::Untouched { away, deadline, report } => {
            let all = lab.measure_untouched(*away, *deadline)?;
            if let Some(path) = report {
                write_json(path, &serde_json::json!(all))?;
            }
            all.iter().for_each(|one| println!("{one}"));
            return Ok(());
        }
        Measure::Migration { rounds, moments, deadline, report } => {
            let deaths = lab.measure_migration((*rounds, moments), *deadline)?;
            if let Some(path) = report {
                write_json(path, &serde_json::json!(deaths))?;
            }
            println!("{} losses, the VM never ran twice:", deaths.len());
            deaths.iter().for_each(|death| println!("{death}"));
            return Ok(());
        }
    };
    let wanted = Measurement { loss, times: how.times, api_stopped, deadline: how.deadline };
    let samples = lab.measure_loss(wanted)?;
    if let Some(path) = &how.report {
        write_json(path, &serde_json::json!({"measurement": wanted, "samples": samples}))?;
    }
    print!("{}", discovery_lab::table(&samples));
    Ok(())
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    fs::write(path, format!("{value:#}\n"))
        .map_err(|source| LabError::File { path: path.to_owned(), source })
}

fn way(text: &str) -> Result<Way, String> {
    match text {
        "in" => Ok(Way::In),
        "out" => Ok(Way::Out),
        _ => Err("in or out".into()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "such as 500ms, 10s or 2m".to_owned())?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err("such as 500ms, 10s or 2m".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("soon").is_err() && duration("3h").is_err());
    }
}
