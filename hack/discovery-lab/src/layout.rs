//! Names, addresses and paths: everything about a lab that follows from its directory and its network.
//! Nothing here touches the system, so that the rest can be tested by what it would do.
//!
//! ```text
//! host ── bridge dlab77 (10.77.0.1) ──┬── n1 eth0 10.77.0.11 ── cni0 ── pods 10.77.101.0/24
//!                                     ├── n2 eth0 10.77.0.12 ── cni0 ── pods 10.77.102.0/24
//!                                     └── …
//! ```

use std::path::{Path, PathBuf};

use crate::error::{LabError, Result};

/// As many nodes as a lab can have. Every node has a route and a name for each from the start, so that a
/// node that is added later is known to all without a word.
pub const MAX_NODES: u8 = 32;
/// The API server's port at the bridge's address.
pub const API_PORT: u16 = 6443;
/// The port of the server for guest images at the bridge's address.
pub const FILES_PORT: u16 = 8080;
/// Where the guest images are seen inside each node, read only.
pub const GUESTS_IN_NODE: &str = "/var/lib/discovery-guests";
/// Services' addresses; they exist only inside the nodes, so that labs may share them.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
/// The API server's own Service address: the first of the range.
pub const API_SERVICE: &str = "10.96.0.1";
/// Written into the environment of each process that the lab starts; `down` finds them by it, also those
/// of an `up` that was killed before it could write anything down.
pub const MARK: &str = "DISCOVERY_LAB_PROCESS";

/// Where a lab is and what it calls things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The lab's state: keys, etcd, the nodes' directories, logs.
    pub dir: PathBuf,
    /// Programs and guest images, kept between labs.
    pub cache: PathBuf,
    /// First two numbers of the lab's addresses, such as `10.77`.
    pub net: String,
}

impl Layout {
    /// Reads `DISCOVERY_LAB_DIR` (default `/var/lib/discovery-lab`), `DISCOVERY_CACHE` (default
    /// `~/.cache/discovery`) and `DISCOVERY_LAB_NET` (default `10.77`; a second lab on the same host needs
    /// another, and a directory of its own).
    pub fn from_env() -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let cache = var("DISCOVERY_CACHE").map(PathBuf::from).unwrap_or_else(|| {
            var("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .unwrap_or_else(|| {
                    PathBuf::from(var("HOME").unwrap_or_else(|| "/root".into())).join(".cache")
                })
                .join("discovery")
        });
        let dir = var("DISCOVERY_LAB_DIR").unwrap_or_else(|| "/var/lib/discovery-lab".into());
        // Nodes and daemons start elsewhere: no path may depend on where the user stands.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        Self {
            dir: absolute(dir.into()),
            cache: absolute(cache),
            net: var("DISCOVERY_LAB_NET").unwrap_or_else(|| "10.77".into()),
        }
    }

    /// The programs that hack/build-tools made.
    pub fn bin(&self) -> PathBuf {
        self.cache.join("bin")
    }

    /// One of those programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin().join(name)
    }

    /// The guest images that hack/guest made.
    pub fn guests(&self) -> PathBuf {
        self.cache.join("guest")
    }

    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.dir.join("pki")
    }

    /// Logs of the control plane and of each node's daemons; they outlive `down`.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// One JSON line for each write request that the API server took.
    pub fn audit_log(&self) -> PathBuf {
        self.logs().join("audit.log")
    }

    /// A file for each fault that lasts.
    pub fn nemesis(&self) -> PathBuf {
        self.dir.join("nemesis")
    }

    /// Holds the size of each node's own disk for the product, MiB; absent: the nodes share the host's.
    pub fn disk_size(&self) -> PathBuf {
        self.dir.join("disk-mib")
    }

    /// That disk, as a file.
    pub fn product_disk(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("product.img")
    }

    /// The kubeconfig of a user of the cluster; `admin` may do everything.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.dir.join(format!("{user}.kubeconfig"))
    }

    /// What a node keeps over a power loss.
    pub fn node_disk(&self, node: &str) -> PathBuf {
        self.dir.join("nodes").join(node).join("disk")
    }

    /// A node's own files, made by the lab.
    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.join("nodes").join(node)
    }

    /// All that the lab writes into its directory, except the logs and the lock. `down` removes these and
    /// nothing else, since the directory may be one that holds other things.
    pub fn state(&self) -> Vec<PathBuf> {
        let mut state: Vec<PathBuf> = [
            "nodes",
            "pki",
            "etcd",
            "audit-policy.json",
            "busybox.tar",
            "discovery-lab",
            "nemesis",
            "disk-mib",
        ]
        .into_iter()
        .map(|name| self.dir.join(name))
        .collect();
        let users = [
            "admin",
            "controller-manager",
            "scheduler",
            "kube-proxy",
            "kube-apiserver",
            "kubelet-client",
        ];
        state.extend(users.into_iter().map(|user| self.kubeconfig(user)));
        state.extend((1..=MAX_NODES).map(|index| self.kubeconfig(&format!("n{index}"))));
        state
    }

    /// The bridge's name, 15 bytes at most as the kernel wants.
    pub fn bridge(&self) -> String {
        format!("dlab{}", self.net.rsplit('.').next().unwrap_or("0"))
    }

    /// The host's end of a node's cable.
    pub fn cable(&self, index: u8) -> String {
        format!("{}-n{index}", self.bridge())
    }

    /// The table of the host's packet filter that cuts a node's cable.
    pub fn cut_table(&self, index: u8) -> String {
        format!("{}-cut-n{index}", self.bridge())
    }

    /// The host's address on the bridge; the API server and the file server listen there.
    pub fn host_ip(&self) -> String {
        format!("{}.0.1", self.net)
    }

    /// A node's address.
    pub fn node_ip(&self, index: u8) -> String {
        format!("{}.0.{}", self.net, 10 + u16::from(index))
    }

    /// The addresses of a node's pods.
    pub fn pod_range(&self, index: u8) -> String {
        format!("{}.{}.0/24", self.net, 100 + u16::from(index))
    }

    /// All pods of all nodes.
    pub fn all_pods(&self) -> String {
        format!("{}.0.0/16", self.net)
    }

    /// The API server's address for those outside of the cluster.
    pub fn api_url(&self) -> String {
        format!("https://{}:{API_PORT}", self.host_ip())
    }

    /// Where guests' images are served by HTTP, without a slash at the end.
    pub fn files_url(&self) -> String {
        format!("http://{}:{FILES_PORT}", self.host_ip())
    }

    /// What [`MARK`] holds for a process of this role.
    pub fn mark(&self, role: &str) -> String {
        format!("{} {role}", self.dir.display())
    }
}

/// The number in a node's name: `n3` is 3.
pub fn node_index(name: &str) -> Result<u8> {
    name.strip_prefix('n')
        .filter(|digits| !digits.starts_with('0'))
        .and_then(|digits| digits.parse().ok())
        .filter(|index| (1..=MAX_NODES).contains(index))
        .ok_or_else(|| LabError::BadNodeName(name.to_owned()))
}

/// The zone that a node is labelled with: a, b, c in turn.
pub fn zone(index: u8) -> String {
    format!("zone-{}", char::from(b'a' + (index.saturating_sub(1)) % 3))
}

/// Where a host path is kept among a node's own directories.
pub fn under(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout { dir: "/lab".into(), cache: "/cache".into(), net: "10.77".into() }
    }

    #[test]
    fn node_names_are_n1_to_the_most() {
        assert_eq!(node_index("n1").ok(), Some(1));
        assert_eq!(node_index("n32").ok(), Some(32));
        for bad in ["n0", "n33", "n01", "n", "1", "node1", "n-1", "n1 ", "../n1"] {
            assert!(node_index(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn zones_go_round() {
        let zones: Vec<_> = (1..=4).map(zone).collect();
        assert_eq!(zones, ["zone-a", "zone-b", "zone-c", "zone-a"]);
    }

    #[test]
    fn addresses_of_the_last_node_are_addresses() {
        assert_eq!(layout().node_ip(MAX_NODES), "10.77.0.42");
        assert_eq!(layout().pod_range(MAX_NODES), "10.77.132.0/24");
    }

    #[test]
    fn link_names_fit_the_kernel() {
        let wide = Layout { net: "10.255".into(), ..layout() };
        assert!(wide.cable(MAX_NODES).len() <= 15);
    }
}
