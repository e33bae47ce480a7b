//! What can be asked for. Every flag is also an environment variable.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use discovery::engine::lease::{LONGEST_ABSENCE, Times};
use discovery::engine::lrt::relief::THRESHOLD_S;
use discovery::engine::lrt::solver;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Version and commit, as `--version` and the `PhysicalNode` tell them.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("DISCOVERY_COMMIT"), ")");

/// Virtual machines on Kubernetes nodes, with no controller.
///
/// DISCOVERY runs an agent on each node. You declare a VirtualEnvironment (a group of virtual machines that
/// is placed as a whole); the agents agree among themselves where its machines run, start them through
/// libvirt, and start them again when they fail. No central scheduler decides, and running machines need
/// neither the API server nor any other node.
#[derive(Parser)]
#[command(version = VERSION, after_long_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub logs: Logs,
}

const EXAMPLES: &str = "\
Examples:
  Install the custom resources, then the agents (usually by the Helm charts):
      discovery crds | kubectl apply --server-side -f -

  Run one agent by hand, as root, on a node that is called n1:
      discovery agent --node-name n1 --node-ip 192.0.2.1 --kubeconfig ~/.kube/config

  Is every agent well?
      discovery doctor --timeout 60

  Then declare something:
      kubectl apply -f examples/hello.yaml && kubectl get ve --watch";

#[derive(Subcommand)]
pub enum Command {
    /// Run this node's agent, until it is told to end (SIGTERM). Guests run on without it.
    Agent(Box<Agent>),
    /// Run this node's guard, until it is told to end (SIGTERM): ends VMs whose node's lease is over, whatever becomes of the agent.
    Guard(Guard),
    /// Print the custom resource definitions, for `kubectl apply --server-side -f -`.
    Crds,
    /// Ask the API server whether every node's agent is well; the exit status says so.
    Doctor(Doctor),
}

#[derive(Args)]
pub struct Logs {
    /// Filter of log lines, by level and part: `info`, or `info,discovery::net=debug`.
    #[arg(long, env = "DISCOVERY_LOG", default_value = "info", global = true)]
    pub log: String,
    /// How log lines look: for people or for machines. Default: for people on a terminal, else json.
    #[arg(long, env = "DISCOVERY_LOG_FORMAT", value_enum, global = true)]
    pub log_format: Option<LogFormat>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Goal {
    /// The node with the most room left after: nodes fill evenly.
    Balance,
    /// The fullest node that fits: nodes stay empty and may be switched off.
    Pack,
    /// The nearest node that fits: fewest changes.
    Stay,
}

impl From<Goal> for solver::Goal {
    fn from(goal: Goal) -> Self {
        match goal {
            Goal::Balance => Self::Balance,
            Goal::Pack => Self::Pack,
            Goal::Stay => Self::Stay,
        }
    }
}

#[derive(Args)]
pub struct Agent {
    /// Name of the Kubernetes Node that this agent runs on.
    #[arg(long, env = "DISCOVERY_NODE_NAME")]
    pub node_name: String,
    /// The node's own address, at which the other agents reach this one.
    #[arg(long, env = "DISCOVERY_NODE_IP")]
    pub node_ip: IpAddr,
    /// Where the identity, the journal, images and disks are kept. The hypervisor opens what is there by the
    /// same path.
    #[arg(long, env = "DISCOVERY_STATE_DIR", default_value = "/var/lib/discovery")]
    pub state_dir: PathBuf,
    /// The hypervisor: a libvirt URI.
    #[arg(long, env = "DISCOVERY_LIBVIRT_URI", default_value = "qemu:///system")]
    pub libvirt_uri: String,
    /// UDP port of the overlay between agents.
    #[arg(long, env = "DISCOVERY_OVERLAY_PORT", default_value_t = 7400)]
    pub overlay_port: u16,
    /// Address and TCP port of /livez, /readyz, /metrics and /debug/engine.
    #[arg(long, env = "DISCOVERY_ADMIN_ADDRESS", default_value = "127.0.0.1:7401")]
    pub admin_address: SocketAddr,
    /// Cached images beyond this size are removed, least recently used first, unless a VM uses them.
    #[arg(long, env = "DISCOVERY_IMAGE_CACHE_LIMIT", default_value = "20Gi", value_parser = bytes)]
    pub image_cache_limit: u64,
    /// Directories that `file://` images may come from, separated by colons. Without any, none may.
    #[arg(long, env = "DISCOVERY_IMAGE_DIRS", value_delimiter = ':')]
    pub image_dirs: Vec<PathBuf>,
    /// How many seconds of overload a live migration must save, by what the agents have learnt of the VMs' loads, for a VM
    /// to be moved; `9.2` and `9.2s` are the same. Less: more migrations and less overload.
    #[arg(
        long,
        env = "DISCOVERY_MIGRATION_MUST_SAVE",
        default_value_t = THRESHOLD_S,
        value_parser = decimal_seconds,
        value_name = "SECONDS"
    )]
    pub migration_must_save: f64,
    /// Move no VM because its node is overloaded. Nodes in maintenance are emptied all the same.
    #[arg(long, env = "DISCOVERY_LEAVE_OVERLOADS")]
    pub leave_overloads: bool,
    /// Bytes a second that all VMs that leave this node by live migration may use together (a quantity: `100Mi`). The
    /// disks of a VM are copied before its memory, each with as much as the VM may have. Without: no limit.
    #[arg(long, env = "DISCOVERY_MIGRATION_BANDWIDTH", value_parser = bandwidth)]
    pub migration_bandwidth: Option<u64>,
    /// How many VMs leave this node by live migration at the same time, 1 to 16. They share the bandwidth.
    #[arg(
        long,
        env = "DISCOVERY_MIGRATIONS_OUT",
        default_value_t = 2,
        value_parser = clap::value_parser!(u8).range(1..=16)
    )]
    pub migrations_out: u8,
    /// How many VMs may be on their way to this node at the same time, 1 to 16.
    #[arg(
        long,
        env = "DISCOVERY_MIGRATIONS_IN",
        default_value_t = 2,
        value_parser = clap::value_parser!(u8).range(1..=16)
    )]
    pub migrations_in: u8,
    /// What placements prefer where constraints leave a choice; the same on every node.
    #[arg(long, env = "DISCOVERY_GOAL", value_enum, default_value_t = Goal::Balance)]
    pub goal: Goal,
    /// Let this node's VMs run elsewhere when it is lost. It then holds a lease, which its peers acknowledge each second, and
    /// its guard ends its VMs when they have not for as long as --lease says.
    #[arg(long, env = "DISCOVERY_FAILOVER")]
    pub failover: bool,
    #[command(flatten)]
    pub lease: Lease,
    /// How long this node's VMs run on when its agent was told to end (SIGTERM: an upgrade) and no other has come. A node that is
    /// lost meanwhile is taken over that much later. At most an hour; 0: as long as --lease says.
    #[arg(long, env = "DISCOVERY_ABSENCE", default_value = "60", value_parser = absence, value_name = "SECONDS")]
    pub absence: Duration,
    /// How many agents keep each environment's record, 3 or 5: with 3 it bears that one of them is away, or its disk lost; with 5
    /// that two are, and each change is written by three. The same on every node. An environment that has five keeps them.
    #[arg(long, env = "DISCOVERY_RECORD_REPLICAS", default_value = "3", value_parser = replicas, value_name = "3|5")]
    pub record_replicas: u8,
    /// A program that switches a peer's machine off: it is started with the node's name, when that is silent and its guardians have
    /// promised never to renew its lease, and ends with success when the machine is off for certain (within 60 s). VMs of such a
    /// machine run elsewhere without waiting for the rest of W and ε.
    #[arg(long, env = "DISCOVERY_POWER_OFF", value_name = "PROGRAM")]
    pub power_off: Option<PathBuf>,
    /// Where this node's guard listens.
    #[arg(long, env = "DISCOVERY_GUARD_SOCKET", default_value = "/run/discovery/guard.sock")]
    pub guard_socket: PathBuf,
    /// Path of a kubeconfig. Without it: KUBECONFIG, ~/.kube/config, or the pod's service account.
    #[arg(long, env = "DISCOVERY_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
}

/// The times of this node's leases. They may be others on other nodes: peers are told.
#[derive(Args)]
pub struct Lease {
    /// F: how long a lease holds after its renewal was sent; the same as the guard's. Less: sooner on another node, and sooner
    /// ended here when network or agent stumble.
    #[arg(long, env = "DISCOVERY_LEASE", default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    pub lease: Duration,
    /// W: how long peers wait beyond it, for guard or watchdog to act; the same as the guard's. A watchdog's time-out must be
    /// below both together.
    #[arg(long, env = "DISCOVERY_LEASE_WAIT", default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    pub lease_wait: Duration,
    /// ε: how long peers wait beyond both, for clocks that run at different speeds.
    #[arg(long, env = "DISCOVERY_LEASE_MARGIN", default_value = "1", value_parser = seconds, value_name = "SECONDS")]
    pub lease_margin: Duration,
}

impl Lease {
    /// The times, if they can keep what leases promise.
    pub fn times(&self) -> Result<Times, String> {
        let times =
            Times { lease: self.lease, watchdog: self.lease_wait, margin: self.lease_margin };
        times.check().map(|()| times)
    }
}

#[derive(Args)]
pub struct Guard {
    /// Where the agent connects. The directory must be lost at a boot: the guard keeps there what it was told.
    #[arg(long, env = "DISCOVERY_GUARD_SOCKET", default_value = "/run/discovery/guard.sock")]
    pub socket: PathBuf,
    /// Where libvirt keeps the status of its QEMU domains.
    #[arg(long, env = "DISCOVERY_LIBVIRT_QEMU_DIR", default_value = "/run/libvirt/qemu")]
    pub libvirt_run_dir: PathBuf,
    /// A hardware watchdog to feed, such as /dev/watchdog. From here on the machine is reset when nobody feeds it.
    #[arg(long, env = "DISCOVERY_WATCHDOG")]
    pub watchdog: Option<PathBuf>,
    /// The watchdog's time-out, where /sys/class/watchdog does not tell it.
    #[arg(long, env = "DISCOVERY_WATCHDOG_TIMEOUT", value_parser = seconds, value_name = "SECONDS")]
    pub watchdog_timeout: Option<Duration>,
    /// F: how long a lease holds after its renewal was sent; the same as the agents'.
    #[arg(long, env = "DISCOVERY_LEASE", default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    pub lease: Duration,
    /// W: how long peers wait beyond it; the same as the agents'. The watchdog's time-out must be below both together.
    #[arg(long, env = "DISCOVERY_LEASE_WAIT", default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    pub wait: Duration,
}

#[derive(Args)]
pub struct Doctor {
    /// How long to wait for every node to be well, seconds.
    #[arg(long, env = "DISCOVERY_DOCTOR_TIMEOUT", default_value = "60", value_parser = seconds)]
    pub timeout: Duration,
    /// How many nodes there must be at least.
    #[arg(long, env = "DISCOVERY_DOCTOR_NODES", default_value_t = 1)]
    pub nodes: usize,
    /// Path of a kubeconfig. Without it: KUBECONFIG, ~/.kube/config, or the pod's service account.
    #[arg(long, env = "DISCOVERY_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
}

/// A Kubernetes quantity of bytes: `20Gi`.
fn bytes(text: &str) -> Result<u64, String> {
    discovery::api::bytes(&Quantity(text.to_owned())).map_err(|error| error.to_string())
}

/// libvirt counts it in MiB.
fn replicas(text: &str) -> Result<u8, String> {
    match text {
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("must be 3 or 5".into()),
    }
}

fn bandwidth(text: &str) -> Result<u64, String> {
    let sane = bytes(text)?;
    if sane >= 1 << 20 { Ok(sane) } else { Err("less than 1Mi a second".to_owned()) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let text = text.strip_suffix('s').unwrap_or(text);
    text.parse().map(Duration::from_secs).map_err(|_| "not a number of seconds".to_owned())
}

fn absence(text: &str) -> Result<Duration, String> {
    let lasts = seconds(text)?;
    if lasts <= LONGEST_ABSENCE { Ok(lasts) } else { Err("more than an hour".to_owned()) }
}

fn decimal_seconds(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('s').unwrap_or(text).parse::<f64>();
    let sane = number.ok().filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    sane.ok_or_else(|| "not a number of seconds, such as 9.2".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_decimals_where_tenths_matter() {
        assert_eq!(decimal_seconds("9.2"), Ok(9.2));
        assert_eq!(decimal_seconds("12s"), Ok(12.0));
        for wrong in ["", "-1", "inf", "NaN", "9,2"] {
            assert!(decimal_seconds(wrong).is_err(), "{wrong}");
        }
    }
}
