//! `discovery guard`.

use std::error::Error;
use std::process::ExitCode;

use discovery::guard::server::{self, GuardConfig};
use discovery::guard::watchdog::WatchdogConfig;

use crate::cli::Guard;

/// Runs until told to end.
pub fn run(flags: Guard) -> Result<ExitCode, Box<dyn Error>> {
    let Guard { socket, libvirt_run_dir, watchdog, watchdog_timeout, lease, wait } = flags;
    let watchdog = watchdog.map(|device| WatchdogConfig { device, timeout: watchdog_timeout });
    server::run(GuardConfig { socket, libvirt_run_dir, watchdog, lease, wait })?;
    Ok(ExitCode::SUCCESS)
}
