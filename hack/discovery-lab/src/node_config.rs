//! The configuration files of one node's daemons, as texts: nothing here touches the system.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    image::PAUSE_IMAGE,
    layout::{Layout, MAX_NODES},
};

/// Host paths that are each node's own, and that a node keeps over a power loss.
pub const DISK_PATHS: [&str; 11] = [
    "/etc/libvirt",
    "/etc/cni/net.d",
    "/var/lib/libvirt",
    "/var/lib/kubelet",
    "/var/lib/containerd",
    "/var/lib/cni",
    "/var/lib/discovery",
    "/var/log/libvirt",
    "/var/log/pods",
    "/var/log/containers",
    "/var/cache/libvirt",
];

/// What the node's set-up needs to know of the lab; handed to it as a file.
#[derive(Debug, Clone)]
pub struct NodeConfig<'a> {
    /// The lab.
    pub layout: &'a Layout,
    /// Such as `n1`.
    pub name: &'a str,
    /// Such as 1.
    pub index: u8,
}

impl NodeConfig<'_> {
    /// The names of all nodes that the lab may ever have. libvirt asks for its own name and its
    /// neighbours', and waits for DNS when nobody knows them.
    pub fn hosts(&self) -> String {
        let mut hosts = String::from("127.0.0.1 localhost\n");
        for index in 1..=MAX_NODES {
            hosts.push_str(&format!("{} n{index}\n", self.layout.node_ip(index)));
        }
        hosts
    }

    /// Input of `ip -batch`, run inside: the node's address, and the way to every other node's pods.
    pub fn addresses(&self) -> String {
        let mut batch = format!(
            "link set lo up\naddr replace {}/24 dev eth0\nlink set eth0 up\nroute replace default via {}\n",
            self.layout.node_ip(self.index),
            self.layout.host_ip(),
        );
        for other in (1..=MAX_NODES).filter(|other| *other != self.index) {
            batch.push_str(&format!(
                "route replace {} via {}\n",
                self.layout.pod_range(other),
                self.layout.node_ip(other)
            ));
        }
        batch
    }

    /// Each node is another machine to libvirt, though all see the same firmware.
    pub fn host_uuid(&self) -> String {
        let net: u32 = self
            .layout
            .net
            .split('.')
            .fold(0, |sum, part| sum * 256 + part.parse::<u32>().unwrap_or(0));
        format!("d15c0fe2-{net:04x}-4a11-8a11-0000000000{:02x}", self.index)
    }

    /// `libvirtd.conf`: the socket belongs to root, and needs no polkit.
    pub fn libvirtd_conf(&self) -> String {
        format!(
            "host_uuid = \"{}\"\nunix_sock_rw_perms = \"0700\"\nauth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\n\
             log_level = 3\nlog_outputs = \"3:stderr\"\n",
            self.host_uuid()
        )
    }

    /// `qemu.conf`: no confinement that the lab's host could not give, and no cgroups shared among nodes.
    pub fn qemu_conf(&self) -> &'static str {
        "user = \"root\"\ngroup = \"root\"\ncgroup_controllers = []\nsecurity_driver = \"none\"\n\
         namespaces = []\nremember_owner = 0\n"
    }

    /// containerd's configuration.
    pub fn containerd_toml(&self) -> String {
        format!(
            r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri"]

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
# Hosts that withhold CAP_SYS_RESOURCE: runc would die of "can't get final child's PID".
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "/usr/sbin/runc"
SystemdCgroup = false
"#
        )
    }

    /// Pods of this node get addresses of its own range, on a bridge of its own.
    pub fn cni(&self) -> Value {
        json!({"cniVersion": "1.0.0", "name": "lab", "plugins": [
            {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": self.layout.pod_range(self.index)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            }},
        ]})
    }

    /// The kubelet's configuration: several kubelets share one host's cgroups, so none may manage them.
    pub fn kubelet(&self) -> Value {
        let pki = self.layout.pki();
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": pki.join("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": pki.join(format!("{}.crt", self.name)),
            "tlsPrivateKeyFile": pki.join(format!("{}.key", self.name)),
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": false,
            "enforceNodeAllocatable": [],
            "failCgroupV1": false,
            "failSwapOn": false,
            "address": self.layout.node_ip(self.index),
            "healthzBindAddress": self.layout.node_ip(self.index),
            "resolvConf": "/etc/resolv.conf",
            "clusterDomain": "cluster.local",
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "localStorageCapacityIsolation": true,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
            "imageGCHighThresholdPercent": 100,
            "shutdownGracePeriod": "0s",
            "makeIPTablesUtilChains": false,
            "logging": {"verbosity": 1},
        })
    }

    /// kube-proxy's configuration.
    pub fn kube_proxy(&self) -> Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": self.layout.kubeconfig("kube-proxy")},
            "mode": "nftables",
            "clusterCIDR": self.layout.all_pods(),
            "hostnameOverride": self.name,
            "bindAddress": self.layout.node_ip(self.index),
            "healthzBindAddress": format!("{}:10256", self.layout.node_ip(self.index)),
            "metricsBindAddress": format!("{}:10249", self.layout.node_ip(self.index)),
            // The host's connection table is not one node's to size.
            "conntrack": {"maxPerCore": 0},
        })
    }

    /// The kubelet's command line, the program excluded.
    pub fn kubelet_arguments(&self, config: &Path) -> Vec<String> {
        vec![
            format!("--config={}", config.display()),
            format!("--kubeconfig={}", self.layout.kubeconfig(self.name).display()),
            format!("--hostname-override={}", self.name),
            format!("--node-ip={}", self.layout.node_ip(self.index)),
            format!(
                "--node-labels=topology.kubernetes.io/zone={},topology.kubernetes.io/region=lab",
                crate::layout::zone(self.index)
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout { dir: "/lab".into(), cache: "/cache".into(), net: "10.77".into() }
    }

    #[test]
    fn every_node_knows_every_other_by_name_and_route() {
        let layout = layout();
        let node = NodeConfig { layout: &layout, name: "n2", index: 2 };
        assert!(node.hosts().contains("10.77.0.13 n3\n"));
        assert!(node.addresses().contains("route replace 10.77.103.0/24 via 10.77.0.13\n"));
        assert!(
            !node.addresses().contains("10.77.102.0/24 via"),
            "its own pods are behind its own bridge"
        );
    }

    #[test]
    fn host_uuids_are_uuids_and_differ_between_nodes_and_labs() {
        let (first, second) = (layout(), Layout { net: "10.78".into(), ..layout() });
        let uuid = |layout: &Layout, index| NodeConfig { layout, name: "n", index }.host_uuid();
        assert_eq!(uuid(&first, 1).len(), 36);
        assert_ne!(uuid(&first, 1), uuid(&first, 2));
        assert_ne!(uuid(&first, 1), uuid(&second, 1));
    }

    #[test]
    fn the_kubelet_is_told_its_zone_and_its_own_key() {
        let layout = layout();
        let node = NodeConfig { layout: &layout, name: "n3", index: 3 };
        let arguments = node.kubelet_arguments(Path::new("/k.json")).join(" ");
        assert!(arguments.contains("topology.kubernetes.io/zone=zone-c"));
        assert!(arguments.contains("--kubeconfig=/lab/n3.kubeconfig"));
        assert_eq!(node.kubelet()["tlsCertFile"], "/lab/pki/n3.crt");
    }
}
