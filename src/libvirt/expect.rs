//! Making ready for a VM that arrives by live migration, and unmaking it.
//!
//! The disks that it will fill are marked until it has arrived: what a failed migration has half filled is never taken for
//! a disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use super::commands::{Job, undefine};
use super::disks;
use super::images::io_failure;
use super::moving::{Expected, Sockets, control_socket};
use super::sighting::Sighting;
use crate::agent::ports::{Channel, Pass};
use crate::engine::host::{DomainState, Failure, FailureKind};
use crate::engine::id::NodeName;
use crate::engine::spec::VmDefinition;

impl Job<'_> {
    /// Images, disks, sockets, and leave for the source.
    pub fn expect(&self, definition: &VmDefinition, from: &NodeName) -> Result<(), Failure> {
        let moves = &self.core.moves;
        let tunnels = moves.tunnels()?;
        let pass = Pass { vm: self.id.clone(), epoch: definition.epoch };
        if let Some(sighting) = self.look()? {
            if self.is_here(&sighting, &pass)? {
                return Ok(());
            }
            self.begin();
            self.on_domain("undefine a domain", undefine)?;
        } else if moves.expects(&pass, from) {
            return Ok(());
        }
        moves.withdraw(self.id);
        // Whatever is here is of an earlier placement, or of a migration that failed.
        disks::make_dir(&self.files)?;
        self.mark(pass.epoch)?;
        disks::discard(&self.files)?;
        self.prepare(definition)?;
        let sockets = Sockets::make(&self.core.config.state_dir, &pass)?;
        let reachable = BTreeMap::from([
            (Channel::Control, control_socket(&self.core.config.uri)),
            (Channel::Memory, sockets.path(Channel::Memory)),
            (Channel::Disks, sockets.path(Channel::Disks)),
        ]);
        let leave = tunnels.admit(from, &pass, reachable);
        moves.expect(Expected::new(pass, from.clone(), sockets, leave));
        tracing::info!(vm = %self.id, epoch = definition.epoch, %from, "expected by migration");
        Ok(())
    }

    /// Whether this very placement has arrived, or is arriving. What does not run is no hindrance; what does is.
    fn is_here(&self, sighting: &Sighting, pass: &Pass) -> Result<bool, Failure> {
        let seen = &sighting.seen;
        if matches!(seen.state, DomainState::Stopped(_)) {
            return Ok(false);
        }
        if seen.epoch == pass.epoch {
            return Ok(true);
        }
        if sighting.arriving {
            // An older migration that nobody waits for any more. It has never run here.
            self.begin();
            self.destroy()?;
            return Ok(false);
        }
        let message = format!("placement {} of this VM runs here: it is not touched", seen.epoch);
        Err(Failure { kind: FailureKind::Refused, message })
    }

    /// Any other command than `Expect` ends the waiting: what has arrived is a domain like others, what has not leaves
    /// nothing behind.
    pub fn end_expectation(&self) -> Result<(), Failure> {
        self.core.moves.withdraw(self.id);
        let marker = self.files.arriving();
        let epoch = match fs::read_to_string(&marker) {
            Ok(text) => text.trim().parse::<u64>().ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_failure(&marker, &error)),
        };
        match self.look()? {
            Some(found) if !found.arriving && Some(found.seen.epoch) == epoch => {}
            found => {
                if found.is_some_and(|found| found.arriving) {
                    self.begin();
                    self.destroy()?;
                }
                disks::discard(&self.files)?;
            }
        }
        fs::remove_file(&marker).map_err(|error| io_failure(&marker, &error))
    }

    fn mark(&self, epoch: u64) -> Result<(), Failure> {
        let marker = self.files.arriving();
        fs::write(&marker, format!("{epoch}\n"))
            .and_then(|()| fs::File::open(&marker)?.sync_all())
            .and_then(|()| fs::File::open(&self.files.dir)?.sync_all())
            .map_err(|error| io_failure(&marker, &error))
    }
}
