//! Container images as files: an OCI archive is three small JSON files and a layer, no builder needed.
//! The lab's own image holds busybox; it is the pods' sandbox ("pause"), and a shell for tests.

use std::{fs::File, io::Read, path::Path};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{AtPath, LabError, Result};

/// The sandbox image of the lab's nodes; also good for a test's pod (`/bin/busybox sh -c …`).
pub const PAUSE_IMAGE: &str = "localhost/discovery-lab/busybox:1";

/// Writes the lab's image, from a static busybox.
pub fn write_pause_image(busybox: &Path, archive: &Path) -> Result<()> {
    let program = std::fs::read(busybox).at(busybox)?;
    let mut layer = tar::Builder::new(Vec::new());
    add(&mut layer, "bin/busybox", &program, 0o755).at(archive)?;
    for applet in ["sh", "sleep", "cat", "ls", "wget", "nc", "ip", "ping", "env"] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").at(archive)?;
    }
    let layer = layer.into_inner().at(archive)?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/bin/busybox", "sleep", "2147483647"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    entry["annotations"] =
        json!({"io.containerd.image.name": PAUSE_IMAGE, "org.opencontainers.image.ref.name": "1"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();

    let mut out = tar::Builder::new(File::create(archive).at(archive)?);
    add(&mut out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644).at(archive)?;
    add(&mut out, "index.json", index.as_bytes(), 0o644).at(archive)?;
    for blob in [config.as_bytes(), manifest.as_bytes(), &layer] {
        let path = format!("blobs/{}", digest(blob).replace(':', "/"));
        add(&mut out, &path, blob, 0o644).at(archive)?;
    }
    out.into_inner().at(archive).map(drop)
}

/// The name that an OCI archive gives its image, as containerd will list it.
pub fn name_in_archive(archive: &Path) -> Result<String> {
    let unexpected = |detail: &str| LabError::Unexpected {
        what: archive.display().to_string(),
        detail: detail.into(),
    };
    let mut entries = tar::Archive::new(File::open(archive).at(archive)?);
    for entry in entries.entries().at(archive)? {
        let mut entry = entry.at(archive)?;
        if entry.path().at(archive)?.file_name().is_some_and(|name| name == "index.json") {
            let mut text = String::new();
            entry.read_to_string(&mut text).at(archive)?;
            let index: Value =
                serde_json::from_str(&text).map_err(|error| unexpected(&error.to_string()))?;
            return name_in_index(&index)
                .ok_or_else(|| unexpected("its index.json names no image"));
        }
    }
    Err(unexpected("it has no index.json"))
}

fn name_in_index(index: &Value) -> Option<String> {
    let annotations = index["manifests"][0].get("annotations")?;
    ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
        .into_iter()
        .find_map(|key| annotations.get(key)?.as_str())
        .map(str::to_owned)
}

fn add<W: std::io::Write>(
    builder: &mut tar::Builder<W>,
    path: &str,
    content: &[u8],
    mode: u32,
) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    // No time, no owner: the same busybox gives the same image.
    header.set_mtime(0);
    builder.append_data(&mut header, path, content)
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

/// A digest in the form that OCI and the product use.
pub fn digest(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_says_its_own_name_and_is_the_same_each_time() {
        let dir = std::env::temp_dir();
        let (busybox, archive) = (
            dir.join(format!("bb-{}", std::process::id())),
            dir.join(format!("bb-{}.tar", std::process::id())),
        );
        std::fs::write(&busybox, b"not a real program").expect("a temporary file");
        write_pause_image(&busybox, &archive).expect("a temporary file");
        let first = std::fs::read(&archive).expect("it was made");
        write_pause_image(&busybox, &archive).expect("a temporary file");
        assert_eq!(first, std::fs::read(&archive).expect("it was made"));
        assert_eq!(name_in_archive(&archive).expect("it has an index"), PAUSE_IMAGE);
        std::fs::remove_file(busybox).expect("the test made it");
        std::fs::remove_file(archive).expect("the test made it");
    }

    #[test]
    fn digests_are_those_of_sha256sum() {
        assert_eq!(
            digest(b""),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
