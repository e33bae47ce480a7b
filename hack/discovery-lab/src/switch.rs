//! Nodes that are added, removed, switched off and on.

use std::{fs, path::PathBuf};

use crate::{
    cgroup,
    error::{AtPath, LabError, Result},
    lab::{GONE_WITHIN, Lab},
    node::Node,
    process::find,
};

impl Lab {
    /// Adds a node, and waits until it is Ready.
    pub fn node_add(&self, name: &str) -> Result<()> {
        let node = Node::named(&self.layout, name)?;
        self.switch_on(&node)
    }

    /// Removes a node and its disks for ever, from Kubernetes too.
    pub fn node_remove(&self, name: &str) -> Result<()> {
        let _lock = self.lock()?;
        let node = self.node(name)?;
        self.switch_off(&node)?;
        self.kubectl(&["delete", "node", name, "--ignore-not-found"])?;
        let directory = self.layout.node_dir(name);
        fs::remove_dir_all(&directory).at(&directory)?;
        self.say(&format!("{name} is removed"));
        Ok(())
    }

    /// Power loss: every process of the node is killed at once, guests and containers too; disks are kept.
    pub fn node_stop(&self, name: &str) -> Result<()> {
        let _lock = self.lock()?;
        self.switch_off(&self.node(name)?)?;
        self.say(&format!("{name} is off"));
        Ok(())
    }

    fn switch_off(&self, node: &Node<'_>) -> Result<()> {
        let containers = cgroup::of_node(&self.layout, node);
        node.power_off()?;
        cgroup::remove(&containers, GONE_WITHIN)
    }

    /// Boots a node that is off, with a new boot identity, and waits until it is Ready.
    pub fn node_start(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        self.switch_on(&node)
    }

    /// Boots a node that is off, and does not ask Kubernetes about it: the API server may be away.
    pub fn node_boot(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        let _lock = self.lock()?;
        let program = self.program_of_a_lab_that_is_up()?;
        self.boot(std::slice::from_ref(&node), &program)
    }

    fn program_of_a_lab_that_is_up(&self) -> Result<PathBuf> {
        if find(&self.layout, "etcd").is_empty() {
            return Err(LabError::NotUp(self.layout.dir.clone()));
        }
        self.keep_program()
    }

    fn switch_on(&self, node: &Node<'_>) -> Result<()> {
        let _lock = self.lock()?;
        let program = self.program_of_a_lab_that_is_up()?;
        self.start_nodes(std::slice::from_ref(node), &program)?;
        self.say(&format!("{} is Ready", node.name));
        Ok(())
    }
}
