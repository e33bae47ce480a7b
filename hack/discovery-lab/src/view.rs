//! Looking at a lab: its status, its VMs, their consoles. Nothing here changes anything.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

use crate::{
    control_plane,
    error::{LabError, Result},
    lab::Lab,
    node::{self, Node},
};

/// What `status` tells.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The control plane's processes that run.
    pub control_plane: Vec<&'static str>,
    /// Whether the API server says that it is ready.
    pub api_ready: bool,
    /// Every node, on or off.
    pub nodes: Vec<NodeStatus>,
}

/// One node in `status`.
#[derive(Debug, Clone, Serialize)]
pub struct NodeStatus {
    /// Such as `n1`.
    pub name: String,
    /// Its address on the lab's bridge.
    pub ip: String,
    /// The label by which the scheduler spreads.
    pub zone: String,
    /// Whether it is switched on.
    pub on: bool,
    /// Whether Kubernetes calls it `Ready` (and means its current boot).
    pub ready: bool,
    /// The names of its running domains.
    pub domains: Vec<String>,
}

impl Lab {
    /// What runs, and how it is.
    pub fn status(&self) -> Status {
        let api_ready = control_plane::api_is_ready(&self.layout);
        let boots =
            if api_ready { self.ready_boots().unwrap_or_default() } else { BTreeMap::new() };
        let nodes = node::all(&self.layout)
            .into_iter()
            .map(|node| {
                let on = node.init().is_some();
                let names = if on {
                    node.virsh(&["list", "--name"]).unwrap_or_default()
                } else {
                    String::new()
                };
                NodeStatus {
                    ip: self.layout.node_ip(node.index),
                    zone: crate::layout::zone(node.index),
                    on,
                    ready: on && node.boot_id().ok().as_ref() == boots.get(&node.name),
                    domains: names
                        .lines()
                        .filter(|line| !line.is_empty())
                        .map(str::to_owned)
                        .collect(),
                    name: node.name,
                }
            })
            .collect();
        Status { control_plane: control_plane::running(&self.layout), api_ready, nodes }
    }

    /// The node whose libvirtd knows this domain.
    pub fn find_domain(&self, domain: &str) -> Result<Node<'_>> {
        node::all(&self.layout)
            .into_iter()
            .find(|node| node.init().is_some() && node.virsh(&["domid", domain]).is_ok())
            .ok_or_else(|| LabError::NoSuchDomain(domain.to_owned()))
    }

    /// The file that a domain's console is written to, as the host can open it.
    pub fn console_log(&self, domain: &str) -> Result<PathBuf> {
        let node = self.find_domain(domain)?;
        let xml = node.virsh(&["dumpxml", domain])?;
        let inside = console_file(&xml).ok_or_else(|| LabError::Unexpected {
            what: format!("the XML of {domain}"),
            detail: "its console is written to no file".into(),
        })?;
        node.path(&inside)
    }
}

// `<log file='…'/>` of any serial port, else the path of a serial port that is a file.
fn console_file(xml: &str) -> Option<String> {
    let quoted = |text: &str, key: &str| {
        let rest = &text[text.find(key)? + key.len()..];
        let quote = rest.chars().next()?;
        rest[1..].split(quote).next().map(str::to_owned)
    };
    let serial = &xml[xml.find("<serial ")?..];
    quoted(serial, "<log file=").or_else(|| {
        serial.starts_with("<serial type='file'").then(|| quoted(serial, "<source path="))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_file_is_found_in_both_forms() {
        let log =
            "<devices><serial type='pty'><log file='/a/b.log' append='on'/></serial></devices>";
        assert_eq!(console_file(log).as_deref(), Some("/a/b.log"));
        let file = "<devices><serial type='file'><source path='/c.log'/></serial></devices>";
        assert_eq!(console_file(file).as_deref(), Some("/c.log"));
        let pty = "<devices><serial type='pty'><source path='/dev/pts/3'/></serial></devices>";
        assert_eq!(console_file(pty), None);
    }
}
