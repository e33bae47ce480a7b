//! Kubeconfig files, as JSON (which is YAML), with the keys inside so that one file is enough.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};

use crate::{
    error::{AtPath, Result},
    layout::Layout,
};

/// The kubeconfig of the user whose key pair is `pki/<file>.{crt,key}`.
pub fn kubeconfig(layout: &Layout, file: &str) -> Value {
    let pki = layout.pki();
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "discovery-lab",
        "clusters": [{"name": "discovery-lab", "cluster": {
            "server": layout.api_url(),
            "certificate-authority": pki.join("ca.crt"),
        }}],
        "users": [{"name": file, "user": {
            "client-certificate": pki.join(format!("{file}.crt")),
            "client-key": pki.join(format!("{file}.key")),
        }}],
        "contexts": [{"name": "discovery-lab", "context": {"cluster": "discovery-lab", "user": file}}],
    })
}

/// Writes it to the lab's directory.
pub fn write_kubeconfig(layout: &Layout, file: &str) -> Result<()> {
    write_json(&layout.kubeconfig(file), &kubeconfig(layout, file))
}

/// Writes a JSON file that only root may read.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    fs::write(path, format!("{value:#}\n")).at(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).at(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_names_its_own_key_and_the_bridges_address() {
        let layout = Layout { dir: "/lab".into(), cache: "/cache".into(), net: "10.77".into() };
        let config = kubeconfig(&layout, "admin");
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://10.77.0.1:6443");
        assert_eq!(config["users"][0]["user"]["client-key"], "/lab/pki/admin.key");
    }
}
