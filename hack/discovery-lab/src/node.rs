//! A node from the outside: switching it on and off, and running things inside it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use crate::{
    error::{AtPath, LabError, Result},
    kubeconfig::{write_json, write_kubeconfig},
    layout::{GUESTS_IN_NODE, Layout, node_index, under},
    network,
    node_config::{DISK_PATHS, NodeConfig},
    node_init::CONTROL,
    pki,
    process::{self, Found, command, find, kill_and_wait, output, run, start_daemon, wait_for},
};

/// What a node's first process needs to arrange itself; longer only when the host is very busy.
const ARRANGED_WITHIN: Duration = Duration::from_secs(60);
/// The kernel ends a namespace's processes at once; those in the middle of a disk write take a little.
const OFF_WITHIN: Duration = Duration::from_secs(30);
/// How long a daemon may take to end or to answer.
const SERVICE_WITHIN: Duration = Duration::from_secs(60);

/// Directories of the host that labs have made; a host-wide list, since several labs share them.
const MADE_DIRECTORIES: &str = "/run/discovery-lab-directories";

/// One node of the lab.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    layout: &'a Layout,
    /// Such as `n1`.
    pub name: String,
    /// Such as 1.
    pub index: u8,
}

impl<'a> Node<'a> {
    /// The node of this name; whether there is one is another question.
    pub fn named(layout: &'a Layout, name: &str) -> Result<Self> {
        Ok(Self { layout, name: name.to_owned(), index: node_index(name)? })
    }

    /// Whether the lab has this node, on or off.
    pub fn exists(&self) -> bool {
        self.layout.node_dir(&self.name).exists()
    }

    fn role(&self) -> String {
        format!("node/{}", self.name)
    }

    /// The node's first process as the host numbers it, when the node is on.
    pub fn init(&self) -> Option<i32> {
        find(self.layout, &self.role())
            .into_iter()
            .find(|process| process.is_node_init)
            .map(|process| process.pid)
    }

    fn init_or_off(&self) -> Result<i32> {
        if !self.exists() {
            return Err(LabError::NoSuchNode(self.name.clone()));
        }
        self.init().ok_or_else(|| LabError::NodeIsOff(self.name.clone()))
    }

    /// A path inside the node as the host can open it; valid until the node is switched off.
    pub fn path(&self, inside: &str) -> Result<PathBuf> {
        Ok(under(&PathBuf::from(format!("/proc/{}/root", self.init_or_off()?)), inside))
    }

    /// Whether the product has a disk of its own here, which can be filled without filling the host's.
    pub fn has_own_disk(&self) -> bool {
        self.layout.product_disk(&self.name).exists()
    }

    // Made once, when the node is new and the lab says how large.
    fn prepare_disk(&self) -> Result<()> {
        let (size, disk) = (self.layout.disk_size(), self.layout.product_disk(&self.name));
        let new = !self.layout.node_dir(&self.name).join("machine-id").exists();
        if !new || disk.exists() || !size.exists() {
            return Ok(());
        }
        let mib = fs::read_to_string(&size).at(&size)?;
        let making = disk.with_extension("new");
        run(&mut command(
            "truncate",
            [format!("--size={}M", mib.trim()).as_ref(), making.as_os_str()],
        ))?;
        run(command("mkfs.ext4", ["-q", "-F", "-m", "0"]).arg(&making))?;
        fs::rename(&making, &disk).at(disk)
    }

    /// The identity of the node's current boot.
    pub fn boot_id(&self) -> Result<String> {
        let file = self.layout.node_dir(&self.name).join("boot_id");
        Ok(fs::read_to_string(&file).at(&file)?.trim().to_owned())
    }

    /// A command that runs inside the node: its network, mounts, processes and name.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let init = self.init_or_off()?.to_string();
        let mut inside = command(
            "nsenter",
            ["--target", &init, "--net", "--mount", "--uts", "--pid", "--"].iter().chain(words),
        );
        inside
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.layout.bin().display()));
        inside.env_remove(crate::layout::MARK);
        Ok(inside)
    }

    /// Runs a command inside the node to its end and returns what it wrote; failing is an error.
    pub fn exec(&self, words: &[&str]) -> Result<String> {
        run(&mut self.command(words)?)
    }

    /// Runs a command inside the node to its end, whatever that is.
    pub fn exec_output(&self, words: &[&str]) -> Result<Output> {
        output(&mut self.command(words)?)
    }

    /// Starts the node's first process unless it is there. The node is arranged when
    /// [`Node::finish_start`] has returned; so many nodes can start at once.
    pub fn begin_start(&self, program: &Path) -> Result<()> {
        if self.init().is_some() {
            return Ok(());
        }
        // An outer process without its inner one is what a killed `up` may leave.
        kill_and_wait(&find(self.layout, &self.role()), OFF_WITHIN)?;
        network::remove_cable(self.layout, self.index)?;
        self.prepare()?;
        let mut unshare =
            command("unshare", ["--net", "--mount", "--uts", "--pid", "--fork", "--"]);
        unshare.arg(program).args(["node-init", &self.name]);
        unshare.env("DISCOVERY_LAB_DIR", &self.layout.dir);
        unshare.env("DISCOVERY_CACHE", &self.layout.cache);
        unshare.env("DISCOVERY_LAB_NET", &self.layout.net);
        let log = self.layout.logs().join(&self.name).join("init.log");
        start_daemon(self.layout, &self.role(), unshare, &log).map(drop)
    }

    /// Connects the node's cable and waits until the node is arranged and its containerd answers.
    pub fn finish_start(&self) -> Result<()> {
        let hint =
            format!("see {}", self.layout.logs().join(&self.name).join("init.log").display());
        wait_for(&format!("{}'s first process", self.name), ARRANGED_WITHIN, &hint, || {
            self.init().is_some()
        })?;
        let init = self.init_or_off()?;
        network::ensure_cable(self.layout, self.index, init)?;
        for file in [
            format!("{CONTROL}/ready"),
            "/run/containerd/containerd.sock".into(),
            "/run/libvirt/libvirt-sock".into(),
        ] {
            let seen = self.path(&file)?;
            wait_for(&format!("{file} of {}", self.name), ARRANGED_WITHIN, &hint, || {
                seen.exists()
            })?;
        }
        Ok(())
    }

    // Directories, configuration and keys: all that is on the node's disk before it is switched on.
    fn prepare(&self) -> Result<()> {
        let config = NodeConfig { layout: self.layout, name: &self.name, index: self.index };
        let (node, disk) = (self.layout.node_dir(&self.name), self.layout.node_disk(&self.name));
        for path in DISK_PATHS.into_iter().chain([GUESTS_IN_NODE]) {
            make_host_directory(Path::new(path))?;
            fs::create_dir_all(under(&disk, path)).at(&disk)?;
        }
        for directory in [self.layout.logs().join(&self.name), self.layout.guests()] {
            fs::create_dir_all(&directory).at(&directory)?;
        }
        // Debian's package makes it, and virtlogd does not: guests' consoles are written there.
        let consoles = under(&disk, "/var/log/libvirt/qemu");
        fs::create_dir_all(&consoles).at(&consoles)?;
        self.prepare_disk()?;
        let uuid_file = "/proc/sys/kernel/random/uuid";
        let fresh = || fs::read_to_string(uuid_file).at(uuid_file);
        let write = |name: &str, text: &str| fs::write(node.join(name), text).at(node.join(name));
        write("boot_id", &fresh()?)?;
        if !node.join("machine-id").exists() {
            write("machine-id", &fresh()?.replace('-', ""))?;
        }
        write("hosts", &config.hosts())?;
        write("resolv.conf", "")?;
        write("addresses", &config.addresses())?;
        write("containerd.toml", &config.containerd_toml())?;
        write_json(&node.join("kubelet.json"), &config.kubelet())?;
        write_json(&node.join("kube-proxy.json"), &config.kube_proxy())?;
        write_json(&under(&disk, "/etc/cni/net.d/lab.conflist"), &config.cni())?;
        write("disk/etc/libvirt/libvirtd.conf", &config.libvirtd_conf())?;
        write("disk/etc/libvirt/qemu.conf", config.qemu_conf())?;
        pki::ensure_certificate(
            &self.layout.pki(),
            &pki::Subject::kubelet(&self.name, &self.layout.node_ip(self.index)),
        )?;
        write_kubeconfig(self.layout, &self.name)
    }

    /// Power loss: every process of the node is killed at once, its `/run` is lost, its disks are kept.
    pub fn power_off(&self) -> Result<()> {
        if !self.exists() {
            return Err(LabError::NoSuchNode(self.name.clone()));
        }
        let processes = find(self.layout, &self.role());
        let (init, daemons): (Vec<Found>, Vec<Found>) =
            processes.into_iter().partition(|process| process.is_node_init);
        // The first process alone: what it takes with it dies by the kernel's hand, in no order of ours.
        kill_and_wait(&init, OFF_WITHIN)?;
        kill_and_wait(&daemons, OFF_WITHIN)?;
        network::remove_cable(self.layout, self.index)
    }

    /// Stops one of the node's daemons (`libvirtd`, `kubelet`, …) and leaves it so.
    pub fn stop_service(&self, service: &str) -> Result<()> {
        let (flag, pid) = (
            self.path(&format!("{CONTROL}/{service}.stopped"))?,
            self.path(&format!("{CONTROL}/{service}.pid"))?,
        );
        fs::write(&flag, b"").at(&flag)?;
        wait_for(
            &format!("{service} of {} to end", self.name),
            SERVICE_WITHIN,
            "see its log",
            || !pid.exists(),
        )
    }

    /// Starts a daemon that was stopped, and waits until it runs.
    pub fn start_service(&self, service: &str) -> Result<()> {
        let (flag, pid) = (
            self.path(&format!("{CONTROL}/{service}.stopped"))?,
            self.path(&format!("{CONTROL}/{service}.pid"))?,
        );
        if flag.exists() {
            fs::remove_file(&flag).at(&flag)?;
        }
        wait_for(
            &format!("{service} of {} to start", self.name),
            SERVICE_WITHIN,
            "see its log",
            || pid.exists(),
        )?;
        if service == "libvirtd" {
            wait_for(
                &format!("libvirtd of {} to answer", self.name),
                SERVICE_WITHIN,
                "see its log",
                || self.virsh(&["uri"]).is_ok(),
            )?;
        }
        Ok(())
    }

    /// virsh of the node's own libvirtd.
    pub fn virsh(&self, words: &[&str]) -> Result<String> {
        self.exec(&[&["virsh", "--quiet", "--connect", "qemu:///system"], words].concat())
    }
}

/// The nodes that the lab has, on or off, by number.
pub fn all(layout: &Layout) -> Vec<Node<'_>> {
    let Ok(entries) = fs::read_dir(layout.dir.join("nodes")) else {
        return Vec::new();
    };
    let mut nodes: Vec<Node<'_>> = entries
        .flatten()
        .filter_map(|entry| Node::named(layout, entry.file_name().to_str()?).ok())
        .collect();
    nodes.sort_by_key(|node| node.index);
    nodes
}

// Bind mounts need a directory of the host to lie on. Those that were not there are written down, first,
// so that the last lab's `down` can take them away.
fn make_host_directory(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_host_directory(parent)?;
    }
    let list = Path::new(MADE_DIRECTORIES);
    let before = fs::read_to_string(list).unwrap_or_default();
    fs::write(list, format!("{before}{}\n", path.display())).at(list)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error).at(path),
        _ => Ok(()),
    }
}

/// Takes away the directories that labs have made on the host, as far as they are empty. Not while another
/// lab runs: its nodes have mounted over them, and a directory that goes takes the mounts of all
/// namespaces with it.
pub fn remove_host_directories() {
    if process::any_lab_runs() {
        return;
    }
    let made = fs::read_to_string(MADE_DIRECTORIES).unwrap_or_default();
    for path in made.lines().rev() {
        // Whatever somebody has put there meanwhile stays, and its directory too.
        let _ = fs::remove_dir(path);
    }
    let _ = fs::remove_file(MADE_DIRECTORIES);
}
