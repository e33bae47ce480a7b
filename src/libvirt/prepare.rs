//! What a domain is made from: images fetched, disks made.

use std::path::PathBuf;

use super::commands::Job;
use super::disks;
use super::domain::KernelFiles;
use super::images::Pinned;
use crate::engine::host::Failure;
use crate::engine::input::HypervisorInput;
use crate::engine::spec::{Boot, ImageSource, VmDefinition};

/// Images held while a domain is defined from them.
pub struct Prepared {
    /// What it boots, unless its first disk.
    pub plan_kernel: Option<KernelFiles>,
    /// Its disks' files.
    pub disks: Vec<PathBuf>,
    _held: Vec<Pinned>,
}

impl Job<'_> {
    /// Fetches images and makes disks that are missing.
    pub fn prepare(&self, definition: &VmDefinition) -> Result<Prepared, Failure> {
        let paths = definition.disks.iter().map(|disk| self.files.disk(&disk.name));
        let disks = paths.collect::<Result<Vec<_>, _>>()?;
        if self.core.test {
            return Ok(self.pretend(definition, disks));
        }
        let mut held = Vec::new();
        disks::make_dir(&self.files)?;
        let plan_kernel = match &definition.boot {
            Boot::Disk => {
                disks::note_boot_images(&self.files, &[])?;
                None
            }
            Boot::Kernel { kernel, initrd, cmdline } => {
                let kernel = self.image(kernel)?;
                let initrd = initrd.as_ref().map(|initrd| self.image(initrd)).transpose()?;
                let both: Vec<&Pinned> =
                    [Some(&kernel), initrd.as_ref()].into_iter().flatten().collect();
                disks::note_boot_images(&self.files, &both)?;
                let files = KernelFiles {
                    kernel: kernel.path().to_owned(),
                    initrd: initrd.as_ref().map(|initrd| initrd.path().to_owned()),
                    cmdline: cmdline.clone(),
                };
                held.extend([Some(kernel), initrd].into_iter().flatten());
                Some(files)
            }
        };
        for (spec, path) in definition.disks.iter().zip(&disks) {
            if !path.exists() {
                let image = spec.image.as_ref().map(|image| self.image(image)).transpose()?;
                disks::make(&self.files, spec, image.as_ref())?;
            }
        }
        Ok(Prepared { plan_kernel, disks, _held: held })
    }

    /// The test driver opens no files: their names are enough.
    fn pretend(&self, definition: &VmDefinition, disks: Vec<PathBuf>) -> Prepared {
        let images = self.core.config.state_dir.join("images");
        let name = |source: &ImageSource| {
            images.join(source.sha256.clone().unwrap_or_else(|| "undeclared".to_owned()))
        };
        let plan_kernel = match &definition.boot {
            Boot::Disk => None,
            Boot::Kernel { kernel, initrd, cmdline } => Some(KernelFiles {
                kernel: name(kernel),
                initrd: initrd.as_ref().map(name),
                cmdline: cmdline.clone(),
            }),
        };
        Prepared { plan_kernel, disks, _held: Vec::new() }
    }

    fn image(&self, source: &ImageSource) -> Result<Pinned, Failure> {
        let tell = |message: String| {
            self.core.report(HypervisorInput::Progress { id: self.id.clone(), message });
        };
        self.core.images.get(source, &tell)
    }
}
