//! The host's side of the lab's network: one bridge, and one cable to each node.

use std::path::Path;

use crate::{
    error::Result,
    layout::Layout,
    process::{command, run},
};

fn ip(words: &str) -> Result<()> {
    run(&mut command("ip", words.split_whitespace())).map(drop)
}

fn exists(link: &str) -> bool {
    Path::new("/sys/class/net").join(link).exists()
}

/// Makes the bridge, unless it is there.
pub fn ensure_bridge(layout: &Layout) -> Result<()> {
    let bridge = layout.bridge();
    if !exists(&bridge) {
        ip(&format!("link add {bridge} type bridge"))?;
    }
    ip(&format!("addr replace {}/24 dev {bridge}", layout.host_ip()))?;
    ip(&format!("link set {bridge} up"))
}

/// Puts a cable between the bridge and the network namespace of a node's first process, unless it is there.
pub fn ensure_cable(layout: &Layout, index: u8, init: i32) -> Result<()> {
    let (bridge, cable) = (layout.bridge(), layout.cable(index));
    if !exists(&cable) {
        ip(&format!("link add {cable} type veth peer name eth0 netns {init}"))?;
    }
    ip(&format!("link set {cable} master {bridge} up"))?;
    ip(&format!("route replace {} via {}", layout.pod_range(index), layout.node_ip(index)))
}

/// Removes a node's cable. It goes by itself with the node's namespace, but only some time later.
pub fn remove_cable(layout: &Layout, index: u8) -> Result<()> {
    remove(&layout.cable(index))
}

/// Removes the bridge and every cable that is left.
pub fn remove_all(layout: &Layout) -> Result<()> {
    for index in 1..=crate::layout::MAX_NODES {
        remove(&layout.cable(index))?;
    }
    remove(&layout.bridge())
}

fn remove(link: &str) -> Result<()> {
    if !exists(link) {
        return Ok(());
    }
    match ip(&format!("link del {link}")) {
        // It went by itself between our look and our command.
        Err(_) if !exists(link) => Ok(()),
        other => other,
    }
}
