//! `discovery crds`.

use std::error::Error;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Prints the definitions.
pub fn run() -> Result<ExitCode, Box<dyn Error>> {
    let yaml = discovery::api::crds_yaml();
    match std::io::stdout().lock().write_all(yaml.as_bytes()) {
        // A reader that has seen enough (`| head`) is no failure.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
