//! Which VM a domain is: its uuid, its metadata, and the places of its files.
//!
//! Which domain is ours, `agent::ours` says. Names come from a declaration, so each is checked
//! again before it becomes part of a path.

use std::io;
use std::path::{Path, PathBuf};

use quick_xml::Writer;
use quick_xml::events::BytesText;
use uuid::Uuid;

use super::projection::Projection;
use super::xml::Element;
pub use crate::agent::ours::{XMLNS, uuid_of};
use crate::engine::host::{Failure, FailureKind};
use crate::engine::id::{VeName, VmId};
use crate::engine::spec::VmDefinition;

/// What our metadata says of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Which VM.
    pub id: VmId,
    /// Its environment's name.
    pub ve: VeName,
    /// The placement.
    pub epoch: u64,
    /// The definition's revision.
    pub revision: i64,
    /// What was declared.
    pub declared: Projection,
    /// Digest of `declared` when it was written.
    pub digest: String,
}

impl Identity {
    /// Of a definition, with what its domain is declared to be.
    #[must_use]
    pub fn of(definition: &VmDefinition, declared: Projection) -> Self {
        Self {
            id: definition.id.clone(),
            ve: definition.ve.clone(),
            epoch: definition.epoch,
            revision: definition.revision,
            digest: declared.digest(),
            declared,
        }
    }

    /// From a `<domain>` element; `None` for a domain that is not ours.
    #[must_use]
    pub fn of_domain(domain: &Element) -> Option<Self> {
        let metadata = domain.child("metadata")?;
        let ours = metadata
            .children
            .iter()
            .find(|element| element.name == "vm" && element.namespace.as_deref() == Some(XMLNS))?;
        let id = VmId {
            ve: ours.attribute("uid")?.into(),
            member: ours.attribute("member")?.into(),
            index: ours.attribute("index")?.parse().ok()?,
        };
        let uuid = Uuid::parse_str(domain.child("uuid")?.text.trim()).ok()?;
        if uuid != uuid_of(&id) {
            return None;
        }
        Some(Self {
            id,
            ve: VeName::new(ours.attribute("namespace")?, ours.attribute("name")?),
            epoch: ours.attribute("epoch")?.parse().ok()?,
            revision: ours.attribute("revision")?.parse().ok()?,
            digest: ours.attribute("digest")?.to_owned(),
            declared: Projection::of_metadata(ours.child("declared")?)?,
        })
    }

    /// Writes it as metadata.
    ///
    /// # Errors
    /// Never into memory.
    pub fn write(&self, writer: &mut Writer<Vec<u8>>) -> io::Result<()> {
        let declared = &self.declared;
        writer
            .create_element("discovery:vm")
            .with_attribute(("xmlns:discovery", XMLNS))
            .with_attribute(("namespace", &*self.ve.namespace))
            .with_attribute(("name", &*self.ve.name))
            .with_attribute(("uid", self.id.ve.as_str()))
            .with_attribute(("member", self.id.member.as_str()))
            .with_attribute(("index", self.id.index.to_string().as_str()))
            .with_attribute(("epoch", self.epoch.to_string().as_str()))
            .with_attribute(("revision", self.revision.to_string().as_str()))
            .with_attribute(("digest", self.digest.as_str()))
            .write_inner_content(|writer| {
                let mut element = writer
                    .create_element("discovery:declared")
                    .with_attribute(("cpus", declared.cpus.to_string().as_str()))
                    .with_attribute(("memory-kib", declared.memory_kib.to_string().as_str()));
                for (name, path) in [("kernel", &declared.kernel), ("initrd", &declared.initrd)] {
                    if let Some(path) = path {
                        element = element.with_attribute((name, path.as_str()));
                    }
                }
                element
                    .write_inner_content(|writer| {
                        if let Some(cmdline) = &declared.cmdline {
                            writer
                                .create_element("discovery:cmdline")
                                .write_text_content(BytesText::new(cmdline))?;
                        }
                        for disk in &declared.disks {
                            writer
                                .create_element("discovery:disk")
                                .with_attribute(("target", disk.target.as_str()))
                                .with_attribute(("source", disk.source.as_str()))
                                .write_empty()?;
                        }
                        Ok(())
                    })
                    .map(drop)
            })
            .map(drop)
    }

    /// The same as text; `None` when a name in it is none.
    #[must_use]
    pub fn to_xml(&self) -> Option<String> {
        let mut writer = Writer::new(Vec::new());
        self.write(&mut writer).ok()?;
        String::from_utf8(writer.into_inner()).ok()
    }

    /// What differs between this and what a domain is, for people.
    #[must_use]
    pub fn edited(&self, is: Option<&Projection>) -> Option<String> {
        if self.declared.digest() != self.digest {
            return Some("its metadata was changed".to_owned());
        }
        match is {
            None => Some("its definition cannot be read".to_owned()),
            Some(is) if is.digest() == self.digest => None,
            Some(is) => is.difference(&self.declared),
        }
    }
}

/// Where a VM keeps its files. The paths are the same inside the agent's pod and on its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmFiles {
    /// Its own directory; removed with it.
    pub dir: PathBuf,
    /// The directory of its environment on this node.
    pub ve_dir: PathBuf,
}

impl VmFiles {
    /// `<state>/disks/<ve uid>/<member>-<index>`.
    ///
    /// # Errors
    /// When a name cannot be part of a path.
    pub fn of(state: &Path, id: &VmId) -> Result<Self, Failure> {
        let ve_dir = state.join("disks").join(component(id.ve.as_str())?);
        let dir = ve_dir.join(format!("{}-{}", component(id.member.as_str())?, id.index));
        Ok(Self { dir, ve_dir })
    }

    /// A disk's file.
    ///
    /// # Errors
    /// When its name cannot be part of a path.
    pub fn disk(&self, name: &str) -> Result<PathBuf, Failure> {
        Ok(self.dir.join(format!("{}.qcow2", component(name)?)))
    }

    /// What the guest says on its serial console.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    /// Says that its disks are to be filled by a migration, to which epoch: until that has ended they are none.
    #[must_use]
    pub fn arriving(&self) -> PathBuf {
        self.dir.join("arriving")
    }

    /// The digests of the kernel and initial RAM disk that its domain boots from the cache.
    #[must_use]
    pub fn boot_images(&self) -> PathBuf {
        self.dir.join("boot-images")
    }
}

/// Lets through what Kubernetes allows in names, and nothing that means something to a file system.
fn component(name: &str) -> Result<&str, Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fine =
        !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.bytes().all(plain);
    if fine {
        Ok(name)
    } else {
        let message =
            format!("{name:?} cannot be the name of a file: letters, digits, - and . only");
        Err(Failure { kind: FailureKind::Refused, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ve: &str, member: &str) -> VmId {
        VmId { ve: ve.into(), member: member.into(), index: 0 }
    }

    #[test]
    fn a_vms_uuid_never_changes() {
        // Written down: another value orphans every domain that exists.
        let uuid = uuid_of(&id("0b1c", "web"));
        assert_eq!(uuid, uuid_of(&id("0b1c", "web")));
        assert_eq!(uuid.get_version_num(), 5);
        assert_eq!(uuid.to_string(), "dfe900a2-58a3-52d1-a15d-3674c0467522");
        assert_ne!(uuid, uuid_of(&id("0b1c", "web2")));
    }

    #[test]
    fn a_name_never_leads_out_of_the_state_directory() {
        let state = Path::new("/state");
        for bad in ["..", ".", "", "a/b", "/etc", "a\0b", ".hidden", "a b"] {
            assert!(VmFiles::of(state, &id(bad, "web")).is_err(), "{bad:?}");
            assert!(VmFiles::of(state, &id("uid", bad)).is_err(), "{bad:?}");
            let files = VmFiles::of(state, &id("uid", "web")).expect("plain names");
            assert!(files.disk(bad).is_err(), "{bad:?}");
        }
    }
}
