//! What of a domain we hold people to: a typed projection of its XML.
//!
//! libvirt adds defaults, addresses and aliases to what it is given, so documents cannot be compared.
//! The projection can: it is written into the domain's metadata when the domain is defined, with its
//! digest, and read again from what libvirt holds. A difference is somebody's edit behind our back.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::xml::Element;

/// A domain's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskProjection {
    /// `vda` and so on.
    pub target: String,
    /// The file.
    pub source: String,
}

/// What is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projection {
    /// Virtual processors.
    pub cpus: u32,
    /// Memory, KiB.
    pub memory_kib: u64,
    /// Path of the kernel.
    pub kernel: Option<String>,
    /// Path of the initial RAM disk.
    pub initrd: Option<String>,
    /// The kernel's command line.
    pub cmdline: Option<String>,
    /// Disks in order.
    pub disks: Vec<DiskProjection>,
}

impl Projection {
    /// Reads a `<domain>` element as libvirt writes it, or `None` when it lacks what every domain has.
    ///
    /// A running domain's document tells what the guest has now (memory by balloon, processors that are
    /// plugged in); an inactive one what it is to have.
    #[must_use]
    pub fn of_domain(domain: &Element) -> Option<Self> {
        let memory = domain.child("currentMemory").or_else(|| domain.child("memory"))?;
        let most = kib(domain.child("memory")?)?;
        let now = kib(memory)?;
        let vcpu = domain.child("vcpu")?;
        let cpus = vcpu.attribute("current").unwrap_or(vcpu.text.trim()).parse().ok()?;
        let os = domain.child("os")?;
        let text = |name| os.child(name).map(|e| e.text.clone()).filter(|text| !text.is_empty());
        let disks = domain.child("devices").into_iter().flat_map(|devices| devices.all("disk"));
        Some(Self {
            cpus,
            // A raised maximum only becomes an edit when the guest is given it.
            memory_kib: now.min(most),
            kernel: text("kernel"),
            initrd: text("initrd"),
            cmdline: text("cmdline"),
            disks: disks
                .map(|disk| DiskProjection {
                    target: attribute(disk, "target", "dev"),
                    source: attribute(disk, "source", "file"),
                })
                .collect(),
        })
    }

    /// Reads what [`super::domain`] wrote into the metadata.
    #[must_use]
    pub fn of_metadata(declared: &Element) -> Option<Self> {
        let own = |name: &str| declared.attribute(name).map(str::to_owned);
        Some(Self {
            cpus: declared.attribute("cpus")?.parse().ok()?,
            memory_kib: declared.attribute("memory-kib")?.parse().ok()?,
            kernel: own("kernel"),
            initrd: own("initrd"),
            cmdline: declared.child("cmdline").map(|element| element.text.clone()),
            disks: declared
                .all("disk")
                .map(|disk| DiskProjection {
                    target: disk.attribute("target").unwrap_or_default().to_owned(),
                    source: disk.attribute("source").unwrap_or_default().to_owned(),
                })
                .collect(),
        })
    }

    /// Lower-case hexadecimal SHA-256 over every field, each with its length.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut field = |text: Option<&str>| {
            let length = text.map_or(u64::MAX, |text| text.len() as u64);
            hash.update(length.to_be_bytes());
            hash.update(text.unwrap_or_default());
        };
        field(Some(&self.cpus.to_string()));
        field(Some(&self.memory_kib.to_string()));
        field(self.kernel.as_deref());
        field(self.initrd.as_deref());
        field(self.cmdline.as_deref());
        for disk in &self.disks {
            field(Some(&disk.target));
            field(Some(&disk.source));
        }
        hex(&hash.finalize())
    }

    /// What differs from `declared`, for people; `None` when nothing does.
    #[must_use]
    pub fn difference(&self, declared: &Self) -> Option<String> {
        let mut said = Vec::new();
        if self.cpus != declared.cpus {
            said.push(format!("cpus is {}, declared {}", self.cpus, declared.cpus));
        }
        if self.memory_kib != declared.memory_kib {
            let (is, was) = (size(self.memory_kib), size(declared.memory_kib));
            said.push(format!("memory is {is}, declared {was}"));
        }
        let texts = [
            ("kernel", &self.kernel, &declared.kernel),
            ("initrd", &self.initrd, &declared.initrd),
            ("cmdline", &self.cmdline, &declared.cmdline),
        ];
        for (name, is, was) in texts {
            if is != was {
                let show = |text: &Option<String>| match text {
                    Some(text) => format!("{text:?}"),
                    None => "none".to_owned(),
                };
                said.push(format!("{name} is {}, declared {}", show(is), show(was)));
            }
        }
        if self.disks != declared.disks {
            said.push(disks_difference(&self.disks, &declared.disks));
        }
        (!said.is_empty()).then(|| said.join("; "))
    }
}

fn disks_difference(is: &[DiskProjection], was: &[DiskProjection]) -> String {
    for declared in was {
        match is.iter().find(|disk| disk.target == declared.target) {
            None => return format!("disk {} is missing", declared.target),
            Some(disk) if disk.source != declared.source => {
                let (target, source) = (&disk.target, &disk.source);
                return format!("disk {target} is {source:?}, declared {:?}", declared.source);
            }
            Some(_) => {}
        }
    }
    match is.iter().find(|disk| was.iter().all(|declared| declared.target != disk.target)) {
        Some(extra) => format!("disk {} is not declared", extra.target),
        None => "disks are in another order".to_owned(),
    }
}

fn attribute(element: &Element, child: &str, name: &str) -> String {
    let value = element.child(child).and_then(|child| child.attribute(name));
    value.unwrap_or_default().to_owned()
}

/// An amount of memory with libvirt's units, in KiB.
fn kib(element: &Element) -> Option<u64> {
    let amount: u64 = element.text.trim().parse().ok()?;
    match element.attribute("unit").unwrap_or("KiB") {
        "b" | "bytes" => Some(amount / 1024),
        "KiB" | "k" => Some(amount),
        "MiB" | "M" => amount.checked_mul(1 << 10),
        "GiB" | "G" => amount.checked_mul(1 << 20),
        "TiB" | "T" => amount.checked_mul(1 << 30),
        _ => None,
    }
}

/// Memory for people.
fn size(kib: u64) -> String {
    if kib.is_multiple_of(1 << 20) {
        format!("{} GiB", kib >> 20)
    } else if kib.is_multiple_of(1 << 10) {
        format!("{} MiB", kib >> 10)
    } else {
        format!("{kib} KiB")
    }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::super::xml::parse;
    use super::*;

    #[test]
    fn a_difference_is_told_in_the_words_of_the_declaration() {
        let declared = Projection { cpus: 2, memory_kib: 256 << 10, ..Projection::default() };
        let mut is = declared.clone();
        assert_eq!(is.difference(&declared), None);
        is.memory_kib = 128 << 10;
        assert_eq!(
            is.difference(&declared).as_deref(),
            Some("memory is 128 MiB, declared 256 MiB")
        );
        is.cpus = 1;
        is.disks.push(DiskProjection { target: "vdb".into(), source: "/x".into() });
        let said = is.difference(&declared).expect("differs");
        assert!(said.contains("cpus is 1, declared 2"), "{said}");
        assert!(said.contains("disk vdb is not declared"), "{said}");
    }

    #[test]
    fn libvirts_units_and_current_amounts_are_read() {
        let domain = parse(
            "<domain><memory unit='MiB'>256</memory><currentMemory unit='KiB'>131072</currentMemory>\
             <vcpu placement='static' current='1'>2</vcpu><os/></domain>",
        )
        .expect("well-formed");
        let projection = Projection::of_domain(&domain).expect("a domain");
        assert_eq!((projection.memory_kib, projection.cpus), (128 << 10, 1));
    }

    #[test]
    fn the_digest_tells_an_absent_field_from_an_empty_one() {
        let none = Projection::default();
        let empty = Projection { cmdline: Some(String::new()), ..Projection::default() };
        assert_ne!(none.digest(), empty.digest());
    }
}
