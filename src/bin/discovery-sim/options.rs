//! Flags, and what the numbers mean.

use std::ops::Range;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use discovery::engine::lrt::relief::THRESHOLD_S;
use discovery::sim::datacenter::catalogue::Name;
use discovery::sim::faults::FaultKind;

/// Under `--help`.
pub const METRICS: &str = "\
What the numbers of a data centre mean (sums are over nodes, times are virtual):
  load_events          changes of a VM's load in the workload
  violation_s          seconds that nodes spent with the loads of their VMs strictly above their capacity,
                       from when that began, not from when somebody noticed
  violations           how many times a node came to be so; violation_longest_s is the longest
  wait_longest_s       the longest from when a node's scheduler knew of its violation until that ended
  decision_ms          from when a node's scheduler found that something must be done for it until a migration
                       was ordered, mean; decision_p50_ms is the median, decisions how many there were
  migrations           live migrations that ended, those of maintenance too; migration_s is their mean duration
  intra_site           share of migrations between nodes of one site (of several: workload locality)
  refused              migrations that were ordered and could not start (the VM gone, no memory)
  broken               migrations that broke off, as the node at one end died (workload crash)
  maintenances         nodes that were put into maintenance (workload drain), emptied how many of them became
                       empty, emptied_s the mean time until then, emptied_longest_s the longest
  deaths               nodes that died (workload crash); vm_away_s is the time, summed over VMs, that their VMs did
                       not run. A dead node is not in violation, and its VMs return with it
  partitions           sets of nodes that were solved for together; partition_mean is their mean size,
                       partition_sites the mean number of sites in one, partition_sizes how many of each
                       size, unsolved how many ended without a solution
  compute_s            virtual seconds charged for computing, by each scheduler's stated cost model
  messages             between agents or services, lost ones too; messages_per_node_s and bytes_per_node_s
                       are per node and second
  events               events that the simulator handled
  wall_s               real seconds that the run took, without drawing the workload
  peak_mib             most memory that the process had in the run, MiB (--no-wall leaves this and wall_s out)
  series               violation time, migrations begun and messages, per step_s seconds
Of a table: /none is violation_s as a share of that under `none` in the same command; J is
(violation_s + 2 s for each migration) as such a share; ± is the standard deviation over seeds. Of the second
table (--wide): the longest are those of all seeds, p50 is the mean of the seeds' medians, and means are over all
migrations, partitions and decisions of all seeds.";

/// `run`.
#[derive(Args)]
pub struct Run {
    /// What happens.
    #[arg(long, env = "DISCOVERY_SIM_WORKLOAD", value_enum, default_value_t = Workload::Arrivals)]
    pub workload: Workload,
    /// Seeds, `A..B` (B excluded) or one.
    #[arg(long, env = "DISCOVERY_SIM_SEEDS", default_value = "0..10", value_parser = seeds)]
    pub seeds: Range<u64>,
    /// Physical nodes (arrivals).
    #[arg(long, env = "DISCOVERY_SIM_NODES", default_value_t = 5)]
    pub nodes: usize,
    /// Virtual environments that are applied (arrivals).
    #[arg(long, env = "DISCOVERY_SIM_VES", default_value_t = 8)]
    pub ves: usize,
    /// Faults: killed agents, lost power, cuts, an API server that goes, crashed guests, changes (arrivals).
    #[arg(long, env = "DISCOVERY_SIM_FAULTS", default_value_t = 12)]
    pub faults: usize,
    /// Nodes are drained too: put into maintenance, so that VMs leave them by live migrations, some of which fail (arrivals).
    #[arg(long)]
    pub drains: bool,
    /// Probability that a message is lost; 0.02 for arrivals and 0 for data centres unless given.
    #[arg(long, env = "DISCOVERY_SIM_LOSS", value_parser = probability)]
    pub loss: Option<f64>,
    /// Probability that a message arrives twice (arrivals).
    #[arg(long, env = "DISCOVERY_SIM_REPEAT", default_value_t = 0.02, value_parser = probability)]
    pub repeat: f64,
    /// Physical nodes of the data centre.
    #[arg(long, env = "DISCOVERY_SIM_PMS", default_value_t = 128, value_parser = at_least_two)]
    pub pms: u32,
    /// Who schedules the data centre: none, entropy, snooze, dvms, dvms-ring, dvms-lbo,
    /// dvms-two, discovery.
    #[arg(long, env = "DISCOVERY_SIM_SCHEDULER", default_value = "dvms", value_parser = scheduler)]
    pub scheduler: Name,
    #[command(flatten)]
    pub shape: Shape,
    #[command(flatten)]
    pub output: Output,
}

/// Under `fuzz --help`.
pub fn faults() -> String {
    let kinds = FaultKind::ALL.map(FaultKind::word).join(", ");
    format!("The kinds of faults: {kinds}. What each is: docs/simulator.md.")
}

/// `fuzz`.
#[derive(Args)]
pub struct Fuzz {
    /// Seeds, `A..B` (B excluded) or one.
    #[arg(long, env = "DISCOVERY_SIM_SEEDS", default_value = "0..1000", value_parser = seeds)]
    pub seeds: Range<u64>,
    /// Kinds of faults with commas between, or all; `-KIND` leaves one out.
    #[arg(long, env = "DISCOVERY_SIM_FAULTS", default_value = "all", value_parser = kinds, allow_hyphen_values = true)]
    pub faults: Kinds,
    /// Faults of each seed.
    #[arg(long, env = "DISCOVERY_SIM_STEPS", default_value_t = 25)]
    pub steps: usize,
    /// Physical nodes.
    #[arg(long, env = "DISCOVERY_SIM_NODES", default_value_t = 5)]
    pub nodes: usize,
    /// Virtual environments that are applied.
    #[arg(long, env = "DISCOVERY_SIM_VES", default_value_t = 4)]
    pub ves: usize,
    /// Seeds that run at the same time. Default: as many as there are processors.
    #[arg(long, env = "DISCOVERY_SIM_THREADS")]
    pub threads: Option<usize>,
    /// A file that remembers what is done: the same command goes on from there.
    #[arg(long, env = "DISCOVERY_SIM_RESUME", value_name = "FILE")]
    pub resume: Option<PathBuf>,
    /// A picture (SVG) of the first seed that breaks something; of a single seed, also if it does not.
    #[arg(long, env = "DISCOVERY_SIM_PICTURE", value_name = "FILE")]
    pub picture: Option<PathBuf>,
    /// Most runs that shrinking a break may take; 0 shows all that happened.
    #[arg(long, env = "DISCOVERY_SIM_SHRINK", value_name = "RUNS", default_value_t = 400)]
    pub shrink: usize,
    /// Leave out the real time that it took, so that equal runs print equal bytes.
    #[arg(long, env = "DISCOVERY_SIM_NO_WALL")]
    pub no_wall: bool,
}

/// `bugs`.
#[cfg(feature = "deliberate-bugs")]
#[derive(Args)]
pub struct Bugs {
    /// Seeds that each may take, `A..B` (B excluded).
    #[arg(long, env = "DISCOVERY_SIM_SEEDS", default_value = "0..1000", value_parser = seeds)]
    pub seeds: Range<u64>,
    /// Only these, by their words, with commas between.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// Bugs that are tried at the same time. Default: as many as there are processors.
    #[arg(long, env = "DISCOVERY_SIM_THREADS")]
    pub threads: Option<usize>,
}

/// Kinds of faults.
#[derive(Clone)]
pub struct Kinds(pub Vec<FaultKind>);

fn kinds(text: &str) -> Result<Kinds, String> {
    let mut kinds: Vec<FaultKind> = Vec::new();
    for word in text.split(',') {
        match word.strip_prefix('-') {
            _ if word == "all" => kinds = FaultKind::ALL.to_vec(),
            Some(word) => {
                let out: FaultKind = word.parse()?;
                kinds.retain(|kind| *kind != out);
            }
            None => kinds.push(word.parse()?),
        }
    }
    kinds.sort();
    kinds.dedup();
    Ok(Kinds(kinds))
}

/// `compare`.
#[derive(Args)]
pub struct Compare {
    /// What happens.
    #[arg(long, env = "DISCOVERY_SIM_WORKLOAD", value_enum, default_value_t = Workload::Vmplaces)]
    pub workload: Workload,
    /// Seeds, `A..B` (B excluded) or one.
    #[arg(long, env = "DISCOVERY_SIM_SEEDS", default_value = "20..40", value_parser = seeds)]
    pub seeds: Range<u64>,
    /// Physical nodes, several numbers with commas between.
    #[arg(long, env = "DISCOVERY_SIM_PMS", value_delimiter = ',', default_value = "128",
          value_parser = at_least_two)]
    pub pms: Vec<u32>,
    /// Who schedules, several names with commas between: none, entropy, snooze, dvms, dvms-ring (the next node is
    /// the neighbour), dvms-lbo (the nearest), dvms-two (partitions of two nodes will do), discovery (ours).
    #[arg(long, env = "DISCOVERY_SIM_SCHEDULERS", value_delimiter = ',',
          default_value = "none,entropy,snooze,dvms,discovery", value_parser = scheduler)]
    pub schedulers: Vec<Name>,
    /// Probability that a message is lost.
    #[arg(long, env = "DISCOVERY_SIM_LOSS", default_value_t = 0.0, value_parser = probability)]
    pub loss: f64,
    #[command(flatten)]
    pub shape: Shape,
    #[command(flatten)]
    pub output: Output,
}

/// What more there is to say of a data centre.
#[derive(Args)]
pub struct Shape {
    /// VMs per node at the start. (The workload `locality` has 10.4, as published.)
    #[arg(long, env = "DISCOVERY_SIM_VMS_PER_PM", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=32))]
    pub vms_per_pm: u32,
    /// How many seconds of overload a migration must save (discovery): lower, and there are more migrations and fewer
    /// overloads. It looks 70 s ahead: from 70 on only nodes that are overloaded act.
    #[arg(long, env = "DISCOVERY_SIM_THRESHOLD", value_name = "SECONDS", default_value_t = THRESHOLD_S,
          value_parser = seconds)]
    pub threshold: f64,
    /// How many seconds pass between two looks of a node at its VMs' loads (discovery); with 0 it knows of each change at
    /// once. The other schedulers look as published: each node of DVMS once a second.
    #[arg(long, env = "DISCOVERY_SIM_LOOK_EVERY", value_name = "SECONDS", default_value_t = 0.0,
          value_parser = seconds)]
    pub look_every: f64,
    /// How many nodes are put into maintenance (drain), or die (crash). Default: one of 32, at least one.
    #[arg(long, env = "DISCOVERY_SIM_AWAY", value_name = "NODES")]
    pub away: Option<u32>,
    /// The file of the workload `trace`: CSV, `time_s,vm,load`.
    #[arg(long, env = "DISCOVERY_SIM_TRACE", required_if_eq("workload", "trace"))]
    pub trace: Option<PathBuf>,
}

/// How to print.
#[derive(Args)]
pub struct Output {
    /// How to print.
    #[arg(long, env = "DISCOVERY_SIM_FORMAT", value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Leave out the real time and the memory that runs took, so that equal runs give equal bytes.
    #[arg(long, env = "DISCOVERY_SIM_NO_WALL")]
    pub no_wall: bool,
    /// A second table: the longest waits, decisions, locality, bytes, events per second, memory. (JSON has all anyway.)
    #[arg(long, env = "DISCOVERY_SIM_WIDE")]
    pub wide: bool,
}

/// `plans`.
#[derive(Args)]
pub struct Plans {
    /// Seeds, `A..B` (B excluded) or one: a case each.
    #[arg(long, env = "DISCOVERY_SIM_SEEDS", default_value = "0..100", value_parser = seeds)]
    pub seeds: Range<u64>,
    /// Nodes and VMs, several sizes with commas between.
    #[arg(long, value_delimiter = ',', default_value = "2x12,3x10,4x9,4x12", value_parser = size)]
    pub sizes: Vec<(usize, usize)>,
}

/// `report`.
#[derive(Args)]
pub struct Report {
    /// What `run` or `compare` printed with `--format json`.
    pub file: PathBuf,
    /// The page to write.
    #[arg(long, env = "DISCOVERY_SIM_OUT", default_value = "report.html")]
    pub out: PathBuf,
}

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Environments come, change and go while faults happen (agents, not a data centre).
    Arrivals,
    /// VMPlaceS, Euro-Par 2015: independent random loads.
    Vmplaces,
    /// DVMS-LBO, Euro-Par 2014: four sites; 40 nodes as published.
    Locality,
    /// Services whose VMs become busy together.
    Bursts,
    /// Loads that follow the sun.
    DayNight,
    /// The loads of vmplaces, and some nodes are in maintenance from the 600th to the 1200th second: their VMs leave by live
    /// migration, the same way under every scheduler.
    Drain,
    /// The loads of vmplaces, and some nodes die, each for three minutes: migrations break off, and agents return knowing nothing.
    Crash,
    /// From a file.
    Trace,
}

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON object: `{"schema":1,"runs":[…]}`.
    Json,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("'{text}' is neither a number nor A..B with A below B");
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let range = match text.split_once("..") {
        None => number(text).map(|seed| seed..seed.saturating_add(1))?,
        Some((from, to)) => number(from)?..number(to)?,
    };
    if range.is_empty() { Err(wrong()) } else { Ok(range) }
}

fn size(text: &str) -> Result<(usize, usize), String> {
    let wrong = || {
        format!("'{text}' is not nodes and VMs, as in 4x12, of 16 million configurations at most")
    };
    let (nodes, vms) = text.split_once('x').ok_or_else(wrong)?;
    let nodes = nodes.parse::<usize>().ok().filter(|n| (2..=8).contains(n)).ok_or_else(wrong)?;
    let vms = vms.parse::<usize>().ok().filter(|n| (2..=24).contains(n)).ok_or_else(wrong)?;
    let few = nodes.checked_pow(vms as u32).is_some_and(|all| all <= 1 << 24);
    if few { Ok((nodes, vms)) } else { Err(wrong()) }
}

fn probability(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..1.0).contains(number));
    number.ok_or_else(|| format!("'{text}' is not from 0 to below 1"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=86_400.0).contains(number));
    number.ok_or_else(|| format!("'{text}' is not a number of seconds from 0 to a day"))
}

fn at_least_two(text: &str) -> Result<u32, String> {
    // Above, the indices of VMs no longer fit; nobody has that many.
    let number = text.parse::<u32>().ok().filter(|number| (2..=10_000_000).contains(number));
    number.ok_or_else(|| format!("'{text}' is not a number of nodes from 2 to 10 million"))
}

fn scheduler(text: &str) -> Result<Name, String> {
    let names: Vec<&str> = Name::ALL.iter().map(|name| name.as_str()).collect();
    let found = Name::ALL.into_iter().find(|name| name.as_str() == text);
    found.ok_or_else(|| format!("'{text}' is none of {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_fault_is_described_where_the_help_says() {
        let page = include_str!("../../../docs/simulator.md");
        let row = |kind: &FaultKind| page.contains(&format!("| `{kind}` |"));
        let missing: Vec<_> = FaultKind::ALL.into_iter().filter(|kind| !row(kind)).collect();
        assert_eq!(missing, vec![]);
    }

    #[test]
    fn a_range_of_seeds_excludes_its_end_and_is_not_empty() {
        assert_eq!(seeds("20..40"), Ok(20..40));
        assert_eq!(seeds("7"), Ok(7..8));
        assert!(["", "4..4", "5..2", "a..b", "-1"].iter().all(|text| seeds(text).is_err()));
    }

    #[test]
    fn a_scheduler_is_known_by_its_name() {
        assert_eq!(scheduler("dvms-ring"), Ok(Name::DvmsRing));
        assert!(scheduler("quantum").is_err_and(|problem| problem.contains("snooze")));
    }
}

/// `replay`.
#[derive(Args)]
pub struct Replay {
    /// What `/debug/engine` of an agent served: a JSON file for each node. On a node: `curl 127.0.0.1:7401/debug/engine`.
    #[arg(required = true)]
    pub dumps: Vec<PathBuf>,
    /// How many seconds of overload a migration must save.
    #[arg(long, env = "DISCOVERY_SIM_THRESHOLD", default_value_t = THRESHOLD_S)]
    pub threshold: f64,
    /// How far to look ahead, seconds.
    #[arg(long, default_value_t = 120)]
    pub seconds: u64,
}
