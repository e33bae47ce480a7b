//! `discovery doctor`: is every node's agent well? `helm test` asks this.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use discovery::k8s::{NodeHealth, connect, doctor};
use tokio::time::{Instant, sleep};

use crate::cli::Doctor;

/// How long between two looks.
const AGAIN: Duration = Duration::from_secs(1);

/// Waits until every node is well, or the time is over; prints what it saw last.
pub fn run(flags: &Doctor) -> Result<ExitCode, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(wait(flags))
}

async fn wait(flags: &Doctor) -> Result<ExitCode, Box<dyn Error>> {
    let client = connect(flags.kubeconfig.as_deref()).await?;
    let until = Instant::now() + flags.timeout;
    loop {
        let seen = doctor(client.clone()).await;
        let well = seen.as_ref().is_ok_and(|nodes| {
            nodes.len() >= flags.nodes.max(1) && nodes.iter().all(|node| node.ready == Some(true))
        });
        if well || Instant::now() >= until {
            let nodes = seen?;
            print!("{}", table(&nodes));
            if nodes.len() < flags.nodes.max(1) {
                let (found, wanted) = (nodes.len(), flags.nodes.max(1));
                println!(
                    "\n{found} of {wanted} nodes found: is the agent's DaemonSet scheduled there?"
                );
            }
            return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        sleep(AGAIN).await;
    }
}

/// One line per node, as wide as its longest words.
fn table(nodes: &[NodeHealth]) -> String {
    let head = ["NODE", "READY", "PEERS", "VMS", "GATEWAY", "VERSION", "REASON"].map(str::to_owned);
    let rows = nodes.iter().map(|node| {
        let ready = match node.ready {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        };
        let reason = if node.ready == Some(true) {
            String::new()
        } else {
            format!("{}: {}", node.reason, node.message)
        };
        let gateway = if node.gateway { "yes" } else { "" };
        [
            node.name.clone(),
            ready.to_owned(),
            node.peers.to_string(),
            node.vms.to_string(),
            gateway.to_owned(),
            node.agent_version.clone(),
            reason,
        ]
    });
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths: [usize; 7] = std::array::from_fn(width);
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}
