//! The lab as a whole: what the command line and the end-to-end tests call.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::{
    cgroup, control_plane,
    error::{AtPath, LabError, Result, system},
    image,
    layout::{FILES_PORT, Layout, node_index},
    nemesis::cut,
    network,
    node::{self, Node},
    process::{self, command, find, kill_and_wait, run, start_daemon},
};

/// From power-on to `Ready`; on two idle cores it takes 10 s.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// Asking the API server costs a process each time.
const ASK_EVERY: Duration = Duration::from_millis(300);
/// How long `down` waits for killed processes to be gone.
pub(crate) const GONE_WITHIN: Duration = Duration::from_secs(30);

/// A lab: its directory, and all that can be done with it.
#[derive(Debug, Clone)]
pub struct Lab {
    pub(crate) layout: Layout,
    progress: Option<Instant>,
}

impl Lab {
    /// The lab that the environment names (see [`Layout::from_env`]), up or not.
    pub fn open() -> Self {
        Self::at(Layout::from_env())
    }

    /// The lab of this layout, up or not.
    pub fn at(layout: Layout) -> Self {
        Self { layout, progress: None }
    }

    /// The same, telling on standard error what it does and when.
    pub fn with_progress(mut self) -> Self {
        self.progress = Some(Instant::now());
        self
    }

    /// Names, addresses and paths.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn say(&self, what: &str) {
        if let Some(started) = self.progress {
            eprintln!("[{:6.1} s] {what}", started.elapsed().as_secs_f64());
        }
    }

    // Two commands that change the same lab wait for each other.
    pub(crate) fn lock(&self) -> Result<File> {
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        fs::create_dir_all(&self.layout.dir).at(&self.layout.dir)?;
        let path = self.layout.dir.join("lock");
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).at(&path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            self.say("another command is changing this lab: waiting for it");
            system("lock the lab", flock(&file, FlockOperation::LockExclusive))?;
        }
        Ok(file)
    }

    /// Brings up the control plane and nodes `n1` to `n<count>`, whatever of it is already there. When the
    /// lab was not up before and this fails, all is taken down again; the logs stay.
    ///
    /// With `disk_mib`, each node that is new has a disk of this size for the product, and none fills the host's.
    pub fn up(&self, count: u8, disk_mib: Option<u32>) -> Result<()> {
        node_index(&format!("n{count}"))?;
        let _lock = self.lock()?;
        let fresh = find(&self.layout, "etcd").is_empty();
        if fresh {
            // Whatever an earlier lab has left would be taken for this one's.
            self.take_down()?;
            if self.layout.logs().exists() {
                fs::remove_dir_all(self.layout.logs()).at(self.layout.logs())?;
            }
        }
        if let Some(mib) = disk_mib {
            fs::write(self.layout.disk_size(), mib.to_string()).at(self.layout.disk_size())?;
        }
        let result = self.bring_up(count);
        if result.is_err() && fresh {
            self.say("that failed: taking down what was started");
            self.take_down()?;
        }
        result
    }

    fn bring_up(&self, count: u8) -> Result<()> {
        let program = self.keep_program()?;
        fs::create_dir_all(self.layout.logs()).at(self.layout.logs())?;
        self.say("bridge, keys, etcd, API server");
        network::ensure_bridge(&self.layout)?;
        control_plane::start(&self.layout)?;
        self.start_files(&program)?;
        self.start_watchdogs(&program)?;
        self.say("the API server is ready; starting nodes");
        let names: Vec<String> = (1..=count).map(|index| format!("n{index}")).collect();
        let mut nodes = node::all(&self.layout);
        for name in names {
            if !nodes.iter().any(|node| node.name == name) {
                nodes.push(Node::named(&self.layout, &name)?);
            }
        }
        self.start_nodes(&nodes, &program)?;
        self.say(&format!("{} nodes are Ready", nodes.len()));
        Ok(())
    }

    pub(crate) fn start_nodes(&self, nodes: &[Node<'_>], program: &Path) -> Result<()> {
        self.boot(nodes, program)?;
        self.wait_ready(nodes)
    }

    pub(crate) fn boot(&self, nodes: &[Node<'_>], program: &Path) -> Result<()> {
        for node in nodes {
            node.begin_start(program)?;
        }
        let archive = self.layout.dir.join("busybox.tar");
        if !archive.exists() {
            image::write_pause_image(Path::new("/bin/busybox"), &archive)?;
        }
        for node in nodes {
            node.finish_start()?;
            self.import(node, &archive)?;
            self.say(&format!("{} is on", node.name));
        }
        Ok(())
    }

    /// Waits until Kubernetes calls these nodes `Ready` and knows their current boot.
    fn wait_ready(&self, nodes: &[Node<'_>]) -> Result<()> {
        let started = Instant::now();
        loop {
            let ready = self.ready_boots()?;
            let missing: Vec<&str> = nodes
                .iter()
                .filter(|node| node.boot_id().ok().as_ref() != ready.get(&node.name))
                .map(|node| node.name.as_str())
                .collect();
            if missing.is_empty() {
                return Ok(());
            }
            if started.elapsed() > READY_WITHIN {
                let hint = format!("see kubelet.log under {}", self.layout.logs().display());
                return Err(LabError::Deadline {
                    what: format!("{missing:?} to be Ready"),
                    waited: READY_WITHIN,
                    hint,
                });
            }
            thread::sleep(ASK_EVERY);
        }
    }

    // The boot identity that each Ready node has told Kubernetes.
    pub(crate) fn ready_boots(&self) -> Result<BTreeMap<String, String>> {
        Ok(ready_boots(&self.kubectl_json(&["get", "nodes"])?))
    }

    // The nodes' first processes, and the file server, are this program: a copy that no build replaces.
    pub(crate) fn keep_program(&self) -> Result<PathBuf> {
        let kept = self.layout.dir.join("discovery-lab");
        let own = std::env::current_exe().at("/proc/self/exe")?;
        if own.file_name().is_some_and(|name| name == "discovery-lab") && own != kept {
            let aside = self.layout.dir.join("discovery-lab.new");
            fs::copy(&own, &aside).at(&own)?;
            fs::rename(&aside, &kept).at(&kept)?;
        }
        if kept.exists() { Ok(kept) } else { Err(LabError::NotUp(self.layout.dir.clone())) }
    }

    fn start_files(&self, program: &Path) -> Result<()> {
        if !find(&self.layout, "files").is_empty() {
            return Ok(());
        }
        fs::create_dir_all(self.layout.guests()).at(self.layout.guests())?;
        let mut serve = command(program, ["serve-files"]);
        serve.arg(self.layout.guests()).arg(format!("{}:{FILES_PORT}", self.layout.host_ip()));
        start_daemon(&self.layout, "files", serve, &self.layout.logs().join("files.log")).map(drop)
    }

    fn start_watchdogs(&self, program: &Path) -> Result<()> {
        if !find(&self.layout, "watchdog").is_empty() {
            return Ok(());
        }
        let mut watch = command(program, ["watch"]);
        watch.env("DISCOVERY_LAB_DIR", &self.layout.dir).env("DISCOVERY_LAB_NET", &self.layout.net);
        watch.env("DISCOVERY_CACHE", &self.layout.cache);
        start_daemon(&self.layout, "watchdog", watch, &self.layout.logs().join("watchdog.log"))
            .map(drop)
    }

    /// Ends all that the lab has started and removes all that it has made, except its logs.
    pub fn down(&self) -> Result<()> {
        let _lock = self.lock()?;
        self.take_down()?;
        self.say("the lab is down");
        Ok(())
    }

    fn take_down(&self) -> Result<()> {
        let processes = process::find_all(&self.layout);
        if !processes.is_empty() {
            self.say(&format!("ending {} processes", processes.len()));
        }
        let containers = cgroup::of_nodes(&self.layout);
        let (inits, rest): (Vec<_>, Vec<_>) =
            processes.into_iter().partition(|process| process.is_node_init);
        kill_and_wait(&inits, GONE_WITHIN)?;
        kill_and_wait(&rest, GONE_WITHIN)?;
        cgroup::remove(&containers, GONE_WITHIN)?;
        cut::remove_all(&self.layout)?;
        network::remove_all(&self.layout)?;
        node::remove_host_directories();
        for path in self.layout.state() {
            if path.is_dir() {
                fs::remove_dir_all(&path).at(&path)?;
            } else if path.exists() {
                fs::remove_file(&path).at(&path)?;
            }
        }
        Ok(())
    }

    /// The names of all nodes, on or off.
    pub fn nodes(&self) -> Vec<String> {
        node::all(&self.layout).into_iter().map(|node| node.name).collect()
    }

    /// A node of the lab.
    pub fn node(&self, name: &str) -> Result<Node<'_>> {
        let node = Node::named(&self.layout, name)?;
        if node.exists() { Ok(node) } else { Err(LabError::NoSuchNode(name.to_owned())) }
    }

    /// Runs a command inside a node and returns what it wrote; failing is an error.
    pub fn exec(&self, node: &str, words: &[&str]) -> Result<String> {
        self.node(node)?.exec(words)
    }

    /// Runs a command inside a node to its end, whatever that is.
    pub fn exec_output(&self, node: &str, words: &[&str]) -> Result<Output> {
        self.node(node)?.exec_output(words)
    }

    /// virsh of a node's own libvirtd.
    pub fn virsh(&self, node: &str, words: &[&str]) -> Result<String> {
        self.node(node)?.virsh(words)
    }

    /// kubectl as the cluster's admin; failing is an error.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        run(control_plane::kubectl(&self.layout).args(words))
    }

    /// kubectl's answer as JSON.
    pub fn kubectl_json(&self, words: &[&str]) -> Result<Value> {
        let text = run(control_plane::kubectl(&self.layout).args(words).args(["-o", "json"]))?;
        serde_json::from_str(&text).map_err(|error| LabError::Unexpected {
            what: format!("kubectl {words:?}"),
            detail: error.to_string(),
        })
    }

    /// A kubectl command to be run as the caller likes (input, environment, output).
    pub fn kubectl_command(&self) -> Command {
        control_plane::kubectl(&self.layout)
    }

    /// helm as the cluster's admin; failing is an error.
    pub fn helm(&self, words: &[&str]) -> Result<String> {
        let mut helm = command(self.layout.program("helm"), words);
        run(helm.arg("--kubeconfig").arg(self.layout.kubeconfig("admin")))
    }

    /// Ends the API server; etcd, the kubelets and all guests go on.
    pub fn api_stop(&self) -> Result<()> {
        let _lock = self.lock()?;
        control_plane::stop_api(&self.layout)?;
        self.say("the API server is stopped");
        Ok(())
    }

    /// Starts the API server again and waits until it is ready.
    pub fn api_start(&self) -> Result<()> {
        let _lock = self.lock()?;
        control_plane::start_api(&self.layout)?;
        self.say("the API server is ready");
        Ok(())
    }

    /// Stops a node's libvirtd; its guests go on.
    pub fn libvirtd_stop(&self, node: &str) -> Result<()> {
        self.node(node)?.stop_service("libvirtd")
    }

    /// Starts a node's libvirtd and waits until it answers.
    pub fn libvirtd_start(&self, node: &str) -> Result<()> {
        self.node(node)?.start_service("libvirtd")
    }

    /// Stops and starts a node's libvirtd.
    pub fn libvirtd_restart(&self, node: &str) -> Result<()> {
        self.libvirtd_stop(node)?;
        self.libvirtd_start(node)
    }

    /// Imports an OCI archive into every node that is on; returns the image's name.
    pub fn load_image(&self, archive: &Path) -> Result<String> {
        let name = image::name_in_archive(archive)?;
        for node in node::all(&self.layout).into_iter().filter(|node| node.init().is_some()) {
            self.import(&node, archive)?;
        }
        Ok(name)
    }

    fn import(&self, node: &Node<'_>, archive: &Path) -> Result<()> {
        // The archive may lie where the node sees something else: hand over the open file.
        let file = File::open(archive).at(archive)?;
        let mut import =
            node.command(&["ctr", "--namespace", "k8s.io", "images", "import", "-"])?;
        let output = import
            .stdin(file)
            .output()
            .map_err(|source| LabError::Start { program: "nsenter".into(), source })?;
        if output.status.success() {
            return Ok(());
        }
        Err(LabError::Failed {
            command: format!("ctr images import {}", archive.display()),
            status: output.status,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

fn ready_boots(nodes: &Value) -> BTreeMap<String, String> {
    let none = Vec::new();
    nodes["items"]
        .as_array()
        .unwrap_or(&none)
        .iter()
        .filter(|node| {
            node["status"]["conditions"].as_array().is_some_and(|all| {
                all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
            })
        })
        .filter_map(|node| {
            Some((
                node["metadata"]["name"].as_str()?.to_owned(),
                node["status"]["nodeInfo"]["bootID"].as_str()?.to_owned(),
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_ready_nodes_count_with_the_boot_they_told() {
        let node = |name: &str, ready: &str| {
            json!({"metadata": {"name": name}, "status": {
                "nodeInfo": {"bootID": format!("boot-of-{name}")},
                "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready}],
            }})
        };
        let boots = ready_boots(&json!({"items": [node("n1", "True"), node("n2", "Unknown")]}));
        assert_eq!(
            boots.into_iter().collect::<Vec<_>>(),
            [("n1".to_owned(), "boot-of-n1".to_owned())]
        );
    }
}
