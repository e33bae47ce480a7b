//! From a definition to libvirt's domain XML.
//!
//! Typed in, escaped out: a [`DomainPlan`] is the definition with every source resolved to a file on
//! this node; [`DomainPlan::xml`] writes it. What may be held against later edits is in its
//! [`Projection`], which is written into the metadata beside the VM's identity.

use std::io;
use std::path::PathBuf;

use quick_xml::Writer;
use quick_xml::events::BytesText;

use super::identity::{Identity, uuid_of};
use super::projection::{DiskProjection, Projection};
use crate::engine::host::{Acceleration, Failure, FailureKind};
use crate::engine::spec::VmDefinition;

/// What runs the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainType {
    /// Hardware virtualisation, with the processor model that the probe found to work.
    Kvm(CpuModel),
    /// QEMU's own translator.
    Qemu,
    /// libvirt's test driver: no process, no files.
    Test,
}

/// Processor models under KVM, from the richest down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuModel {
    /// The host's, as far as libvirt can name it.
    Host,
    /// The same without a register that some nested hosts announce and then refuse.
    HostWithoutArchCapabilities,
    /// QEMU's default.
    Default,
}

impl CpuModel {
    /// Its `<cpu>` element.
    #[must_use]
    pub fn xml(self) -> &'static str {
        match self {
            Self::Host => "<cpu mode='host-model'/>",
            Self::HostWithoutArchCapabilities => {
                "<cpu mode='host-model'><feature policy='disable' name='arch-capabilities'/></cpu>"
            }
            Self::Default => "",
        }
    }
}

impl DomainType {
    /// libvirt's name for it.
    fn word(self) -> &'static str {
        match self {
            Self::Kvm(_) => "kvm",
            Self::Qemu => "qemu",
            Self::Test => "test",
        }
    }

    /// For the engine.
    #[must_use]
    pub fn acceleration(self) -> Acceleration {
        match self {
            Self::Kvm(_) => Acceleration::Kvm,
            Self::Qemu | Self::Test => Acceleration::Emulation,
        }
    }

    /// Its `<cpu>` element.
    fn cpu(self) -> &'static str {
        match self {
            Self::Kvm(model) => model.xml(),
            Self::Test => "",
            // QEMU's default model lacks what distributions of today are built for; five-level paging
            // only makes each emulated access to memory slower.
            Self::Qemu if cfg!(target_arch = "x86_64") => {
                "<cpu mode='maximum'><feature policy='disable' name='la57'/></cpu>"
            }
            Self::Qemu => "<cpu mode='maximum'/>",
        }
    }
}

/// A kernel on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFiles {
    /// The kernel's file.
    pub kernel: PathBuf,
    /// The initial RAM disk's file.
    pub initrd: Option<PathBuf>,
    /// The command line.
    pub cmdline: String,
}

/// All that a domain needs to be, with files of this node.
#[derive(Clone, Debug)]
pub struct DomainPlan<'a> {
    /// What was declared.
    pub definition: &'a VmDefinition,
    /// How it runs.
    pub kind: DomainType,
    /// What it boots, unless its first disk.
    pub kernel: Option<KernelFiles>,
    /// Its disks' files, in the declared order.
    pub disks: Vec<PathBuf>,
    /// Where its serial console is written.
    pub console: PathBuf,
}

/// QEMU takes whole MiB; a guest never gets less than declared.
const MEMORY_STEP: u64 = 1 << 20;

impl DomainPlan<'_> {
    /// What the domain is held to.
    #[must_use]
    pub fn projection(&self) -> Projection {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let kernel = self.kernel.as_ref();
        Projection {
            cpus: self.definition.cpus,
            memory_kib: self.definition.memory.div_ceil(MEMORY_STEP).max(1) << 10,
            kernel: kernel.map(|files| path(&files.kernel)),
            initrd: kernel.and_then(|files| files.initrd.as_ref()).map(path),
            cmdline: kernel.map(|files| files.cmdline.clone()).filter(|line| !line.is_empty()),
            disks: self
                .disks
                .iter()
                .enumerate()
                .map(|(index, file)| DiskProjection { target: target(index), source: path(file) })
                .collect(),
        }
    }

    /// The document to define.
    ///
    /// # Errors
    /// When a name or the command line holds a character that XML cannot carry.
    pub fn xml(&self) -> Result<String, Failure> {
        let identity = Identity::of(self.definition, self.projection());
        self.writable(&identity)?;
        let mut writer = Writer::new(Vec::new());
        let written = writer
            .create_element("domain")
            .with_attribute(("type", self.kind.word()))
            .write_inner_content(|writer| self.body(writer, &identity))
            .map(|_| ());
        let document = String::from_utf8(writer.into_inner());
        match (written, document) {
            (Ok(()), Ok(document)) => Ok(document),
            // Writing into memory does not fail, and everything written was text.
            _ => Err(refused("the domain's XML cannot be written".to_owned())),
        }
    }

    /// XML has no way to write control characters, not even escaped; and a C string ends at a NUL.
    fn writable(&self, identity: &Identity) -> Result<(), Failure> {
        let declared = &identity.declared;
        let mut texts = vec![
            ("name", self.definition.domain_name()),
            ("uid", identity.id.ve.to_string()),
            ("console's path", self.console.to_string_lossy().into_owned()),
        ];
        texts.extend(declared.cmdline.iter().map(|text| ("kernel command line", text.clone())));
        texts.extend(declared.kernel.iter().map(|text| ("kernel's path", text.clone())));
        texts.extend(declared.initrd.iter().map(|text| ("initrd's path", text.clone())));
        texts.extend(declared.disks.iter().map(|disk| ("disk's path", disk.source.clone())));
        let bad = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
        match texts.iter().find(|(_, text)| text.contains(bad)) {
            Some((what, _)) => {
                Err(refused(format!("the {what} holds a control character; remove it")))
            }
            None => Ok(()),
        }
    }

    fn body(&self, writer: &mut Writer<Vec<u8>>, identity: &Identity) -> io::Result<()> {
        let declared = &identity.declared;
        text(writer, "name", &self.definition.domain_name())?;
        text(writer, "uuid", &uuid_of(&identity.id).to_string())?;
        writer.create_element("metadata").write_inner_content(|writer| identity.write(writer))?;
        for name in ["memory", "currentMemory"] {
            writer
                .create_element(name)
                .with_attribute(("unit", "KiB"))
                .write_text_content(BytesText::new(&declared.memory_kib.to_string()))?;
        }
        text(writer, "vcpu", &declared.cpus.to_string())?;
        writer.create_element("os").write_inner_content(|writer| self.os(writer, declared))?;
        if self.kind != DomainType::Test {
            // ACPI carries the power button, which is how a guest is asked to stop.
            writer.create_element("features").write_inner_content(|writer| {
                writer.create_element("acpi").write_empty()?;
                writer.create_element("apic").write_empty().map(|_| ())
            })?;
            writer.get_mut().extend_from_slice(self.kind.cpu().as_bytes());
        }
        if self.kind != DomainType::Test && cfg!(target_arch = "x86_64") {
            // Guests of today take their processor's own clock, and QEMU keeps ticking for an HPET that nobody reads: most of
            // what an idle guest costs its node.
            writer.create_element("clock").with_attribute(("offset", "utc")).write_inner_content(
                |writer| {
                    writer
                        .create_element("timer")
                        .with_attributes([("name", "hpet"), ("present", "no")])
                        .write_empty()
                        .map(drop)
                },
            )?;
        }
        text(writer, "on_poweroff", "destroy")?;
        text(writer, "on_reboot", "restart")?;
        text(writer, "on_crash", "destroy")?;
        writer
            .create_element("devices")
            .write_inner_content(|writer| self.devices(writer, declared))
            .map(|_| ())
    }

    fn os(&self, writer: &mut Writer<Vec<u8>>, declared: &Projection) -> io::Result<()> {
        text(writer, "type", "hvm")?;
        let Some(kernel) = &declared.kernel else {
            return writer
                .create_element("boot")
                .with_attribute(("dev", "hd"))
                .write_empty()
                .map(drop);
        };
        text(writer, "kernel", kernel)?;
        if let Some(initrd) = &declared.initrd {
            text(writer, "initrd", initrd)?;
        }
        match &declared.cmdline {
            Some(cmdline) => text(writer, "cmdline", cmdline),
            None => Ok(()),
        }
    }

    fn devices(&self, writer: &mut Writer<Vec<u8>>, declared: &Projection) -> io::Result<()> {
        for disk in &declared.disks {
            writer
                .create_element("disk")
                .with_attributes([("type", "file"), ("device", "disk")])
                .write_inner_content(|writer| {
                // Unmapped blocks go back to the host's file system.
                writer
                    .create_element("driver")
                    .with_attributes([("name", "qemu"), ("type", "qcow2"), ("discard", "unmap")])
                    .write_empty()?;
                writer
                    .create_element("source")
                    .with_attribute(("file", disk.source.as_str()))
                    .write_empty()?;
                writer
                    .create_element("target")
                    .with_attributes([("dev", disk.target.as_str()), ("bus", "virtio")])
                    .write_empty()
                    .map(drop)
            })?;
        }
        if self.kind == DomainType::Test {
            return Ok(());
        }
        // Nothing is plugged in: no controller that is looked for at each boot.
        writer
            .create_element("controller")
            .with_attributes([("type", "usb"), ("model", "none")])
            .write_empty()?;
        self.console(writer)?;
        writer.create_element("memballoon").with_attribute(("model", "virtio")).write_empty()?;
        writer.create_element("rng").with_attribute(("model", "virtio")).write_inner_content(
            |writer| {
                writer
                    .create_element("backend")
                    .with_attribute(("model", "random"))
                    .write_text_content(BytesText::new("/dev/urandom"))
                    .map(drop)
            },
        )?;
        if cfg!(target_arch = "x86_64") {
            // A guest that panics says so, and on_crash follows.
            writer.create_element("panic").with_attribute(("model", "isa")).write_empty()?;
        }
        // No network yet, and no screen: a guest speaks by its serial console.
        writer.create_element("video").write_inner_content(|writer| {
            writer.create_element("model").with_attribute(("type", "none")).write_empty().map(drop)
        })?;
        Ok(())
    }

    fn console(&self, writer: &mut Writer<Vec<u8>>) -> io::Result<()> {
        let file = self.console.to_string_lossy();
        for (name, kind) in [("serial", None), ("console", Some("serial"))] {
            writer.create_element(name).with_attribute(("type", "pty")).write_inner_content(
                |writer| {
                    writer
                        .create_element("log")
                        .with_attributes([("file", file.as_ref()), ("append", "on")])
                        .write_empty()?;
                    let target = writer.create_element("target").with_attribute(("port", "0"));
                    match kind {
                        Some(kind) => target.with_attribute(("type", kind)),
                        None => target,
                    }
                    .write_empty()
                    .map(drop)
                },
            )?;
        }
        Ok(())
    }
}

fn text(writer: &mut Writer<Vec<u8>>, name: &str, text: &str) -> io::Result<()> {
    writer.create_element(name).write_text_content(BytesText::new(text)).map(drop)
}

/// `vda`, …, `vdz`, `vdaa`, …
fn target(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index + 1;
    while rest > 0 {
        rest -= 1;
        // Below 26.
        letters.push(b'a' + (rest % 26) as u8);
        rest /= 26;
    }
    letters.reverse();
    format!("vd{}", String::from_utf8_lossy(&letters))
}

fn refused(message: String) -> Failure {
    Failure { kind: FailureKind::Refused, message }
}
