//! A node from the inside: the first process of the node's own pid, mount, network and host-name
//! namespaces. It arranges what the node sees, starts its daemons, starts them again when they end (unless
//! they were stopped on purpose), and adopts what they leave behind. Killing it is the node's power loss:
//! the kernel ends all that is inside.
//!
//! The outside speaks with it through files in `/run/lab`:
//!
//! ```text
//! ready              the node is arranged
//! SERVICE.pid        the service runs, as this process (in the node's own numbers)
//! SERVICE.stopped    put there by the outside: stop the service and leave it so
//! ```

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, Mode, mkfifoat},
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
        mount_change, mount_move, mount_remount, unmount,
    },
    process::{Pid, Signal, WaitOptions, kill_process, wait},
    system::sethostname,
};

use crate::{
    error::{AtPath, Result, system},
    layout::{GUESTS_IN_NODE, Layout, under},
    node_config::{DISK_PATHS, NodeConfig},
    process::{command, run, wait_for},
};

/// Where the outside and the node's first process leave word for each other.
pub const CONTROL: &str = "/run/lab";
/// The node's hardware watchdog: a pipe to a process outside. It lies where the product's guard sees it from its pod.
pub const WATCHDOG: &str = "/run/discovery/watchdog";
/// The cable comes from outside, a moment after the namespace is there.
const CABLE_WITHIN: Duration = Duration::from_secs(60);
/// Killed processes hold mounts for a moment.
const DISK_WITHIN: Duration = Duration::from_secs(30);
/// Where the product keeps its state.
const PRODUCT_DISK: &str = "/var/lib/discovery";
/// A daemon that dies at once is not started in a tight loop.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// How often children, and the outside's wishes, are looked at.
const BEAT: Duration = Duration::from_millis(50);

/// Arranges the node and runs it; returns only when that fails.
pub fn run_node(layout: &Layout, name: &str, index: u8) -> Result<()> {
    let config = NodeConfig { layout, name, index };
    system("set the node's name", sethostname(name.as_bytes()))?;
    arrange_mounts(&config)?;
    connect(&config)?;
    fs::write(format!("{CONTROL}/ready"), b"").at(CONTROL)?;
    let mut services = services(&config);
    loop {
        reap(&mut services)?;
        for service in &mut services {
            service.keep(layout, name)?;
        }
        thread::sleep(BEAT);
    }
}

fn arrange_mounts(config: &NodeConfig<'_>) -> Result<()> {
    let node = config.layout.node_dir(config.name);
    let disk = config.layout.node_disk(config.name);
    let all = MountPropagationFlags::REC;
    system("make mounts private", mount_change("/", MountPropagationFlags::PRIVATE | all))?;
    // Links into /run are followed while the host's /run is still to be seen.
    let resolv = fs::canonicalize("/etc/resolv.conf").unwrap_or_else(|_| "/etc/resolv.conf".into());
    for path in DISK_PATHS {
        bind(&under(&disk, path), Path::new(path))?;
    }
    mount_product_disk(&config.layout.product_disk(config.name))?;
    bind(&config.layout.guests(), Path::new(GUESTS_IN_NODE))?;
    let read_only = MountFlags::BIND | MountFlags::RDONLY;
    system("make the guests' images read only", mount_remount(GUESTS_IN_NODE, read_only, c""))?;

    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    system("mount /run", mount("tmpfs", "/run", "tmpfs", plain, c"mode=0755"))?;
    for directory in [CONTROL, "/run/lock", "/run/libvirt", "/run/containerd", "/run/discovery"] {
        fs::create_dir_all(directory).at(directory)?;
    }
    system("make the watchdog's pipe", mkfifoat(CWD, WATCHDOG, Mode::RUSR | Mode::WUSR))?;
    bind_file(&node.join("hosts"), Path::new("/etc/hosts"))?;
    bind_file(&node.join("resolv.conf"), &resolv)?;
    if Path::new("/etc/machine-id").exists() {
        bind_file(&node.join("machine-id"), Path::new("/etc/machine-id"))?;
    }
    arrange_sys(&node)?;
    system("mount /proc", mount("proc", "/proc", "proc", plain | MountFlags::NOEXEC, None))?;
    bind_file(&node.join("boot_id"), Path::new("/proc/sys/kernel/random/boot_id"))?;
    // The kubelet hands mounts on to its pods.
    system("make mounts shared", mount_change("/", MountPropagationFlags::SHARED | all))
}

// The product's own disk, where the lab has made one. The node's last boot may still be letting go of it: two loop
// devices over one file would tear it.
fn mount_product_disk(disk: &Path) -> Result<()> {
    if !disk.exists() {
        return Ok(());
    }
    let used = || run(command("losetup", ["--associated"]).arg(disk)).unwrap_or_default();
    wait_for("the node's last boot to let go of its disk", DISK_WITHIN, "see losetup", || {
        used().trim().is_empty()
    })?;
    let options = ["-o", "loop,nosuid,nodev"];
    run(command("mount", options).arg(disk).arg(PRODUCT_DISK)).map(drop)
}

// The node's /sys shows its own network devices, and the host's cgroups as they are: libvirt looks for both.
fn arrange_sys(node: &Path) -> Result<()> {
    let aside = node.join("cgroup");
    fs::create_dir_all(&aside).at(&aside)?;
    system("keep the cgroups", mount_bind_recursive("/sys/fs/cgroup", &aside))?;
    // Covering the old tree would not hide it: libvirt reads the list of mounts.
    system("leave the host's /sys", unmount("/sys", UnmountFlags::DETACH))?;
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    system("mount /sys", mount("sysfs", "/sys", "sysfs", plain, None))?;
    system("bring the cgroups back", mount_move(&aside, "/sys/fs/cgroup"))?;
    let mounts = fs::read_to_string("/proc/self/mounts").at("/proc/self/mounts")?;
    if mounts.lines().any(|line| line.contains(" /sys/fs/cgroup/unified cgroup2 ")) {
        // A hybrid tree confuses libvirt's LXC driver, which then looks for its controllers in the wrong half.
        system(
            "hide the second cgroup tree",
            unmount("/sys/fs/cgroup/unified", UnmountFlags::DETACH),
        )?;
    }
    Ok(())
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    system(
        format!("bind {} over {}", source.display(), target.display()),
        mount_bind(source, target),
    )
}

fn bind_file(source: &Path, target: &Path) -> Result<()> {
    if !target.exists() {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).at(parent)?;
        }
        File::create(target).at(target)?;
    }
    bind(source, target)
}

fn connect(config: &NodeConfig<'_>) -> Result<()> {
    wait_for("the node's cable", CABLE_WITHIN, "`up` was interrupted: repeat it", || {
        Path::new("/sys/class/net/eth0").exists()
    })?;
    let addresses = config.layout.node_dir(config.name).join("addresses");
    run(&mut command("ip", ["-batch".as_ref(), addresses.as_os_str()]))?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").at("/proc/sys/net/ipv4/ip_forward")
}

#[derive(Debug)]
struct Service {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    /// The service is not started before this file is there.
    after: Option<&'static str>,
    running: Option<Pid>,
    told_to_stop: bool,
    not_before: Instant,
}

fn services(config: &NodeConfig<'_>) -> Vec<Service> {
    let node = config.layout.node_dir(config.name);
    let file = |name: &str| node.join(name).display().to_string();
    let service = |name, program: PathBuf, arguments, after| Service {
        name,
        program,
        arguments,
        after,
        running: None,
        told_to_stop: false,
        not_before: Instant::now(),
    };
    let ours = |name: &str| config.layout.program(name);
    vec![
        service("virtlogd", "/usr/sbin/virtlogd".into(), vec![], None),
        service(
            "libvirtd",
            "/usr/sbin/libvirtd".into(),
            vec![],
            Some("/run/libvirt/virtlogd-sock"),
        ),
        service(
            "containerd",
            ours("containerd"),
            vec![format!("--config={}", file("containerd.toml"))],
            None,
        ),
        service(
            "kubelet",
            ours("kubelet"),
            config.kubelet_arguments(&node.join("kubelet.json")),
            Some("/run/containerd/containerd.sock"),
        ),
        service(
            "kube-proxy",
            ours("kube-proxy"),
            vec![format!("--config={}", file("kube-proxy.json"))],
            None,
        ),
    ]
}

impl Service {
    fn keep(&mut self, layout: &Layout, node: &str) -> Result<()> {
        let wanted = !Path::new(&format!("{CONTROL}/{}.stopped", self.name)).exists();
        match self.running {
            Some(pid) if !wanted && !self.told_to_stop => {
                self.told_to_stop = true;
                // It may have ended just now; then it is reaped at the next beat.
                let _ = kill_process(pid, Signal::TERM);
                Ok(())
            }
            None if wanted
                && Instant::now() >= self.not_before
                && self.after.is_none_or(|file| Path::new(file).exists()) =>
            {
                self.start(layout, node)
            }
            _ => Ok(()),
        }
    }

    fn start(&mut self, layout: &Layout, node: &str) -> Result<()> {
        let log = layout.logs().join(node).join(format!("{}.log", self.name));
        let out = File::options().create(true).append(true).open(&log).at(&log)?;
        let err = out.try_clone().at(&log)?;
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", layout.bin().display());
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn();
        self.not_before = Instant::now() + RESTART_AFTER;
        match child {
            Ok(child) => {
                self.told_to_stop = false;
                self.running = Pid::from_raw(child.id().cast_signed());
                let file = format!("{CONTROL}/{}.pid", self.name);
                fs::write(&file, child.id().to_string()).at(&file)
            }
            Err(error) => {
                eprintln!("{}: cannot start {}: {error}", self.name, self.program.display());
                Ok(())
            }
        }
    }
}

// Guests, containers' shims and whatever else lost its parent comes to us: all are reaped here.
fn reap(services: &mut [Service]) -> Result<()> {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        for service in services.iter_mut().filter(|service| service.running == Some(pid)) {
            service.running = None;
            eprintln!("{} ended: {status:?}", service.name);
            let file = format!("{CONTROL}/{}.pid", service.name);
            fs::remove_file(&file).at(&file)?;
        }
    }
    Ok(())
}
