//! The lab's command line; `hack/lab` builds and starts it.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

mod faults;

use clap::{Parser, Subcommand};
use discovery_lab::{
    Burst, Lab, LabError, Layout, Result, files, node_index, node_init, record::overlap::Recording,
};

/// A real Kubernetes of several nodes on this host, each node with its own libvirt.
#[derive(Debug, Parser)]
#[command(name = "hack/lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring the lab up (safe to repeat: starts what is missing)
    Up {
        /// Nodes n1 to nN
        #[arg(long, default_value_t = 3)]
        nodes: u8,
        /// Gives each new node a disk of its own for the product, so that it can be full
        #[arg(long)]
        disk_mib: Option<u32>,
    },
    /// End all of it and remove what it made, except the logs
    Down,
    /// What runs, and how it is
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print what a shell must export to use the cluster: eval "$(hack/lab env)"
    Env,
    /// Run a command inside a node
    Exec {
        /// Such as n1
        node: String,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// The console of a VM, given as NAMESPACE/VM
    Console {
        /// NAMESPACE/VM, or a domain's name
        vm: String,
        /// Print what it has written so far, and end
        #[arg(long)]
        log: bool,
    },
    /// Stop or start the API server; all else goes on
    #[command(subcommand)]
    Api(StopStart),
    /// Nodes: add, remove, power loss, boot
    #[command(subcommand)]
    Node(NodeVerb),
    /// A node's libvirtd; its guests go on
    #[command(subcommand)]
    Libvirtd(LibvirtdVerb),
    /// Import an OCI archive into every node
    LoadImage {
        /// The archive
        archive: PathBuf,
    },
    /// Build the agent's image and install the product with Helm
    Install {
        /// More for `helm upgrade`, such as --set key=value
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        helm: Vec<String>,
    },
    /// Build the agent's image again and roll it out
    Reload,
    /// Apply many environments one after the other, and measure (hack/bench/burst prepares for it)
    Burst {
        /// How many, each of one VM
        #[arg(long, default_value_t = 100)]
        environments: usize,
        /// Milliseconds from one to the next
        #[arg(long, default_value_t = 100)]
        every_ms: u64,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Record every QEMU's start and end on this machine, until it is ended (Ctrl-C loses nothing)
    Record {
        /// JSON lines; replaced if it is there
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// What a record shows: how long VMs ran twice, and not at all; fails if one ever ran twice
    Overlap {
        /// What `record` has written
        file: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a fault happen, see that it did, and undo it; or many of them (run)
    #[command(subcommand)]
    Nemesis(faults::Nemesis),
    /// Measure how long a VM is away when its node is lost, or it crashes; and what becomes of a migration
    #[command(subcommand)]
    Measure(faults::Measure),
    /// (of the lab itself) The first process of a node
    #[command(hide = true)]
    NodeInit { name: String },
    /// (of the lab itself) All nodes' hardware watchdogs
    #[command(hide = true)]
    Watch,
    /// (of the lab itself) The server for guests' images
    #[command(hide = true)]
    ServeFiles { directory: PathBuf, listen: String },
}

#[derive(Debug, Subcommand)]
enum StopStart {
    /// Stop it
    Stop,
    /// Start it and wait until it is ready
    Start,
}

#[derive(Debug, Subcommand)]
enum NodeVerb {
    /// Add a node and wait until it is Ready
    Add { name: String },
    /// Remove a node and its disks
    Remove { name: String },
    /// Power loss: everything on it is killed at once; its disks are kept
    Stop { name: String },
    /// Boot it again and wait until it is Ready
    Start { name: String },
}

#[derive(Debug, Subcommand)]
enum LibvirtdVerb {
    /// Stop it
    Stop { node: String },
    /// Start it and wait until it answers
    Start { node: String },
    /// Stop and start it
    Restart { node: String },
}

fn main() -> ExitCode {
    match obey(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hack/lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn obey(verb: Verb) -> Result<()> {
    let lab = Lab::open().with_progress();
    match verb {
        Verb::Up { nodes, disk_mib } => lab.up(nodes, disk_mib),
        Verb::Down => lab.down(),
        Verb::Status { json } => status(&lab, json),
        Verb::Env => {
            println!("export KUBECONFIG={}", lab.layout().kubeconfig("admin").display());
            println!("export PATH={}:$PATH", lab.layout().bin().display());
            Ok(())
        }
        Verb::Exec { node, command } => {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            Err(become_program(lab.node(&node)?.command(&words)?))
        }
        Verb::Console { vm, log } => console(&lab, &vm.replace('/', "."), log),
        Verb::Api(StopStart::Stop) => lab.api_stop(),
        Verb::Api(StopStart::Start) => lab.api_start(),
        Verb::Node(NodeVerb::Add { name }) => lab.node_add(&name),
        Verb::Node(NodeVerb::Remove { name }) => lab.node_remove(&name),
        Verb::Node(NodeVerb::Stop { name }) => lab.node_stop(&name),
        Verb::Node(NodeVerb::Start { name }) => lab.node_start(&name),
        Verb::Libvirtd(LibvirtdVerb::Stop { node }) => lab.libvirtd_stop(&node),
        Verb::Libvirtd(LibvirtdVerb::Start { node }) => lab.libvirtd_start(&node),
        Verb::Libvirtd(LibvirtdVerb::Restart { node }) => lab.libvirtd_restart(&node),
        Verb::LoadImage { archive } => lab.load_image(&archive).map(|name| println!("{name}")),
        Verb::Install { helm } => lab.install(&helm.iter().map(String::as_str).collect::<Vec<_>>()),
        Verb::Reload => lab.reload(),
        Verb::Burst { environments, every_ms, json } => {
            let burst = Burst { environments, every_ms };
            let measured = lab.burst(burst)?;
            match json {
                true => println!("{:#}", serde_json::json!({"burst": burst, "measured": measured})),
                false => print!("{}", measured.table(burst)),
            }
            Ok(())
        }
        Verb::Record { out } => {
            let out = out.unwrap_or_else(|| lab.layout().logs().join("qemu.jsonl"));
            lab.record(&out, || false)
        }
        Verb::Overlap { file, json } => overlap(&file, json),
        Verb::Nemesis(verb) => faults::nemesis(&lab, verb),
        Verb::Measure(verb) => faults::measure(&lab, &verb),
        Verb::NodeInit { name } => {
            node_init::run_node(&Layout::from_env(), &name, node_index(&name)?)
        }
        Verb::Watch => lab.watch(),
        Verb::ServeFiles { directory, listen } => files::serve(&directory, &listen),
    }
}

fn status(lab: &Lab, json: bool) -> Result<()> {
    let status = lab.status();
    if json {
        println!("{:#}", serde_json::json!(status));
        return Ok(());
    }
    let running = if status.control_plane.is_empty() {
        "nothing runs".into()
    } else {
        status.control_plane.join(", ")
    };
    println!(
        "control plane: {running}; the API server is {}",
        if status.api_ready { "ready" } else { "not ready" }
    );
    for node in &status.nodes {
        let power = if node.on { "on" } else { "off" };
        let ready = if node.ready { "Ready" } else { "not Ready" };
        println!(
            "{:<4} {:<12} {:<7} {power:<4} {ready:<10} {}",
            node.name,
            node.ip,
            node.zone,
            node.domains.join(" ")
        );
    }
    Ok(())
}

// Failing is an overlap, or a record that shows nothing.
fn overlap(file: &Path, json: bool) -> Result<()> {
    let recording = Recording::read(file)?;
    match json {
        true => println!("{:#}", serde_json::json!(recording.fates())),
        false => print!("{}", recording.report()),
    }
    match recording.is_clean() {
        true => Ok(()),
        false => Err(LabError::Twice("see above".into())),
    }
}

fn console(lab: &Lab, domain: &str, log: bool) -> Result<()> {
    if log {
        let path = lab.console_log(domain)?;
        let mut file = std::fs::File::open(&path)
            .map_err(|source| LabError::File { path: path.clone(), source })?;
        std::io::copy(&mut file, &mut std::io::stdout())
            .map_err(|source| LabError::File { path, source })?;
        return Ok(());
    }
    let node = lab.find_domain(domain)?;
    eprintln!("{domain} is on {}; Ctrl-] leaves its console", node.name);
    Err(become_program(node.command(&[
        "virsh",
        "--connect",
        "qemu:///system",
        "console",
        domain,
        "--force",
    ])?))
}

// Only returns when the program could not be started.
fn become_program(mut command: std::process::Command) -> LabError {
    LabError::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        source: command.exec(),
    }
}
