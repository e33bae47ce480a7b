//! The environments that a run, or a measurement, keeps an eye on: small guests, all in one namespace.

use std::{collections::BTreeSet, fs, io::Write as _, process::Stdio};

use serde_json::{Value, json};

use crate::{
    error::{AtPath as _, LabError, Result},
    image::digest,
    lab::Lab,
    layout::GUESTS_IN_NODE,
};

/// Memory of a guest, MiB. With 64 Debian's kernel finds no room to unpack itself, and starts again for ever.
const GUEST_MIB: u64 = 96;
/// Beside a guest's own memory, what its QEMU takes under emulation, MiB; for telling what a run costs.
const QEMU_MIB: u64 = 60;
/// A node's kubelet, containerd, libvirtd, agent and guard, MiB; the same.
const NODE_MIB: u64 = 230;
/// The control plane, MiB; the same.
const CONTROL_PLANE_MIB: u64 = 550;

/// Environments of one member `web`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ves {
    /// Their namespace.
    pub namespace: &'static str,
    /// Names, and how many VMs.
    pub all: Vec<(String, usize)>,
}

impl Ves {
    /// As many; every third has two VMs, on two nodes.
    pub fn new(namespace: &'static str, count: usize) -> Self {
        let all =
            (0..count).map(|index| (format!("ve{index}"), if index % 3 == 2 { 2 } else { 1 }));
        Self { namespace, all: all.collect() }
    }

    /// The names of all domains.
    pub fn domains(&self) -> BTreeSet<String> {
        let of = |(ve, vms): &(String, usize)| {
            (0..*vms)
                .map(|index| format!("{}.{ve}-web-{index}", self.namespace))
                .collect::<Vec<_>>()
        };
        self.all.iter().flat_map(of).collect()
    }

    /// What that takes, for people.
    pub fn cost(&self, nodes: usize) -> String {
        let guests: usize = self.all.iter().map(|(_, vms)| vms).sum();
        let mib =
            CONTROL_PLANE_MIB + nodes as u64 * NODE_MIB + guests as u64 * (GUEST_MIB + QEMU_MIB);
        format!(
            "{nodes} nodes and {guests} guests of {GUEST_MIB} MiB in {} environments take about {mib} MiB of memory; \
             guests are emulated where there is no KVM, so each boot keeps a processor busy for some seconds",
            self.all.len()
        )
    }

    fn manifests(&self, digest: &str) -> Vec<Value> {
        let mut items = vec![json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace},
        })];
        items.extend(self.all.iter().map(|(name, vms)| {
            let file = |file: &str| json!({"url": format!("file://{GUESTS_IN_NODE}/{file}")});
            let image = json!({
                "url": format!("file://{GUESTS_IN_NODE}/disk.qcow2"),
                "sha256": digest,
            });
            let spread = json!([{"spread": {"members": ["web"], "over": "node"}}]);
            json!({
                "apiVersion": "discovery.beyondtheclouds.io/v1alpha1",
                "kind": "VirtualEnvironment",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {
                    "members": [{
                        "name": "web",
                        "replicas": vms,
                        "cpus": 1,
                        "memory": format!("{GUEST_MIB}Mi"),
                        "runStrategy": "Always",
                        "boot": {
                            "kernel": file("vmlinuz"),
                            "initrd": file("initrd.img"),
                            // Late for its own timer on a busy host, Linux gives up otherwise.
                            "cmdline": format!("console=ttyS0 quiet no_timer_check name={name}"),
                        },
                        // What is on a disk that was made empty is nowhere else: such a VM waits for its node.
                        "disks": [{"name": "data", "size": "64Mi", "image": image}],
                    }],
                    "placement": if *vms > 1 { spread } else { json!([]) },
                },
            })
        }));
        items
    }

    /// Applies them; those that are there stay as they are.
    pub fn apply(&self, lab: &Lab) -> Result<()> {
        let disk = lab.layout().guests().join("disk.qcow2");
        let digest = digest(&fs::read(&disk).at(&disk)?).replace("sha256:", "");
        for manifest in self.manifests(&digest) {
            let mut apply = lab.kubectl_command();
            apply.args(["apply", "-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
            let started = |source| LabError::Start { program: "kubectl".into(), source };
            let mut child = apply.stdout(Stdio::null()).spawn().map_err(started)?;
            if let Some(mut input) = child.stdin.take() {
                input.write_all(manifest.to_string().as_bytes()).map_err(started)?;
            }
            let output = child.wait_with_output().map_err(started)?;
            if !output.status.success() {
                return Err(LabError::Failed {
                    command: "kubectl apply".into(),
                    status: output.status,
                    stderr: String::from_utf8_lossy(&output.stderr).trim().into(),
                });
            }
        }
        Ok(())
    }

    /// Deletes them and their namespace, and waits until they are gone.
    pub fn delete(&self, lab: &Lab) -> Result<()> {
        let words = ["delete", "namespace", self.namespace, "--ignore-not-found", "--timeout=180s"];
        lab.kubectl(&words).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_environments_have_thirteen_guests() {
        let ves = Ves::new("nemesis", 10);
        assert_eq!(ves.domains().len(), 13);
        assert!(ves.domains().contains("nemesis.ve2-web-1"));
        assert!(ves.cost(5).starts_with("5 nodes and 13 guests"), "{}", ves.cost(5));
        assert_eq!(ves.manifests("00").len(), 11);
    }
}
